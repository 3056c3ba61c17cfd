//! What a clean unmount keeps, and what the same holds after kill -9 without load.

use crate::{Pool, df, du};
use e2e::rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, makedev, mknodat, setxattr, utimensat,
};
use e2e::{Mount, pattern, tree};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// One of everything.
fn populate(dir: &Path) {
    for (i, size) in [0usize, 1, 4095, 4096, 4097, 300_000].into_iter().enumerate() {
        fs::write(dir.join(format!("f{i}")), pattern(i as u64, size)).unwrap();
    }
    fs::create_dir_all(dir.join("d/e")).unwrap();
    fs::set_permissions(dir.join("d"), Permissions::from_mode(0o2751)).unwrap();
    fs::hard_link(dir.join("f5"), dir.join("d/e/linked")).unwrap();
    symlink("../f1", dir.join("d/symlink")).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(b"far out", 1 << 30).unwrap();
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    if e2e::rustix::process::geteuid().is_root() {
        mknodat(CWD, dir.join("dev"), FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)).unwrap();
        std::os::unix::fs::chown(dir.join("f4"), Some(65534), Some(7)).unwrap();
    }
    setxattr(dir.join("f0"), "user.note", &pattern(9, 3000), XattrFlags::empty()).unwrap();
    let time = |tv_sec| Timespec { tv_sec, tv_nsec: 5 };
    let times = Timestamps { last_access: time(-7), last_modification: time(1 << 33) };
    for name in ["f3", "d/e", "d/symlink"] {
        utimensat(CWD, dir.join(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// All of the tree but the sparse file's contents, which are too long to read.
fn snapshot(dir: &Path) -> (tree::Tree, Vec<u64>) {
    let sparse = File::open(dir.join("sparse")).unwrap();
    let mut tail = [0; 7];
    sparse.read_exact_at(&mut tail, 1 << 30).unwrap();
    assert_eq!(&tail, b"far out");
    let meta = sparse.metadata().unwrap();
    fs::rename(dir.join("sparse"), dir.parent().unwrap().join("x")).expect_err("another file system");
    let figures = vec![meta.len(), meta.blocks(), df(dir), du(dir)];
    let mut whole = tree::Tree::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "sparse" {
            let name = entry.file_name().into_string().unwrap();
            whole.extend(
                tree::read(&entry.path()).into_iter().map(|(path, text)| (format!("{name}/{path}"), text)),
            );
        }
    }
    (whole, figures)
}

fn comes_back_after(end: impl Fn(Mount), options: &str) {
    let Some(pool) = Pool::new(options) else { return };
    let mount = pool.mount();
    populate(&pool.dir());
    let before = snapshot(&pool.dir());
    end(mount);
    for _ in 0..3 {
        let mount = pool.mount();
        let after = snapshot(&pool.dir());
        assert_eq!(tree::first_difference(&after.0, &before.0), None);
        assert_eq!(after.1, before.1);
        end(mount);
    }
    // It is still a file system to work with.
    let mount = pool.mount();
    fs::write(pool.dir().join("new"), pattern(77, 100_000)).unwrap();
    assert!(fs::read(pool.dir().join("new")).unwrap() == pattern(77, 100_000));
    let inodes: std::collections::BTreeSet<_> =
        fs::read_dir(pool.dir()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().ino()).collect();
    assert_eq!(inodes.len(), fs::read_dir(pool.dir()).unwrap().count(), "inode numbers are not used twice");
    end(mount);
}

#[test]
fn a_tree_comes_back_after_a_clean_unmount() {
    comes_back_after(|mount| assert!(mount.unmount().success()), "size=64M");
}

#[test]
fn a_tree_comes_back_after_kill_9() {
    comes_back_after(Mount::kill, "size=64M");
}

#[test]
fn a_tree_comes_back_with_large_pages() {
    comes_back_after(Mount::kill, "size=64M,page_size=64K");
}

#[test]
fn deleted_files_stay_deleted_and_their_pages_free() {
    let Some(pool) = Pool::new("size=64M") else { return };
    let mut mount = pool.mount();
    let empty = df(&pool.dir());
    for round in 0..4 {
        for i in 0..50 {
            fs::write(pool.dir().join(format!("f{i}")), pattern(i, 100_000)).unwrap();
        }
        let open = File::open(pool.dir().join("f0")).unwrap();
        for i in 0..50 {
            fs::remove_file(pool.dir().join(format!("f{i}"))).unwrap();
        }
        if round % 2 == 0 {
            mount.kill();
            drop(open);
        } else {
            drop(open);
            assert!(mount.unmount().success());
        }
        mount = pool.mount();
        assert_eq!(fs::read_dir(pool.dir()).unwrap().count(), 0);
        assert_eq!(df(&pool.dir()), empty, "round {round}");
    }
}

#[test]
fn ten_thousand_files_come_back() {
    let Some(pool) = Pool::new("size=128M,page_size=4K") else { return };
    let mount = pool.mount();
    for i in 0..10_000u64 {
        fs::write(pool.dir().join(i.to_string()), pattern(i, 700)).unwrap();
    }
    mount.kill();
    let mount = pool.mount();
    assert_eq!(fs::read_dir(pool.dir()).unwrap().count(), 10_000);
    for i in 0..10_000u64 {
        assert!(fs::read(pool.dir().join(i.to_string())).unwrap() == pattern(i, 700), "{i}");
    }
    assert!(mount.unmount().success());
}
