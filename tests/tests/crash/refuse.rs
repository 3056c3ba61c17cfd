//! What must not be mounted, and is refused with a reason: what another mount has, and what is damaged.

use crate::{Pool, assert_refused};
use e2e::run::{ok, script};
use e2e::{Mount, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const OPTIONS: &str = "size=64M";

/// A pool with some files, not mounted.
fn filled() -> Option<Pool> {
    let pool = Pool::new(OPTIONS)?;
    let mount = pool.mount();
    for i in 0..200u64 {
        fs::write(pool.dir().join(i.to_string()), pattern(i, 9000)).unwrap();
    }
    assert!(mount.unmount().success());
    Some(pool)
}

fn assert_intact(pool: &Pool) {
    let mount = pool.mount();
    for i in 0..200u64 {
        assert!(fs::read(pool.dir().join(i.to_string())).unwrap() == pattern(i, 9000), "{i}");
    }
    assert!(mount.unmount().success());
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Inverts `len` bytes at `at`.
fn damage(path: &Path, at: u64, len: usize) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, at).unwrap();
    bytes.truncate(count);
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, at).unwrap();
}

#[test]
fn a_second_mount_of_one_state_directory_is_told_who_has_it() {
    let Some(pool) = Pool::new(OPTIONS) else { return };
    let first = pool.mount();
    fs::write(pool.dir().join("a"), b"text").unwrap();
    let other = pool.path("other");
    fs::create_dir(&other).unwrap();
    let second = Mount::start(&other, &pool.all_options(OPTIONS), &pool.path("log2"));
    assert_refused(second, &[&first.pid().to_string()]);
    // The same pool under another state directory is in use as well.
    let options =
        format!("{OPTIONS},cxl={},state={}", pool.path("pool").display(), pool.path("state2").display());
    assert_refused(Mount::start(&other, &options, &pool.path("log2")), &[]);
    let options =
        format!("{OPTIONS},cxl={},state={}", pool.path("pool2").display(), pool.path("state").display());
    assert_refused(Mount::start(&other, &options, &pool.path("log2")), &[]);
    assert_eq!(fs::read(pool.dir().join("a")).unwrap(), b"text");
    assert!(first.unmount().success());
    drop(pool.mount());
}

#[test]
fn another_page_size_is_refused_and_harms_nothing() {
    let Some(pool) = filled() else { return };
    assert_refused(pool.try_mount("size=64M,page_size=256K"), &["page"]);
    assert_intact(&pool);
}

#[test]
fn a_damaged_superblock_is_refused() {
    let Some(pool) = filled() else { return };
    for at in [0, 16] {
        damage(&pool.path("pool"), at, 8);
        assert_refused(pool.try_mount(OPTIONS), &["pool"]);
        damage(&pool.path("pool"), at, 8);
    }
    assert_intact(&pool);
}

#[test]
fn a_pool_file_that_was_cut_is_refused() {
    let Some(pool) = filled() else { return };
    let len = fs::metadata(pool.path("pool")).unwrap().len();
    for cut in [len / 2, 4096, 100, 0] {
        File::options().write(true).open(pool.path("pool")).unwrap().set_len(cut).unwrap();
        assert_refused(pool.try_mount(OPTIONS), &["pool"]);
    }
}

#[test]
fn a_file_that_is_no_pool_is_refused_and_not_overwritten() {
    let Some(pool) = Pool::new(OPTIONS) else { return };
    let letter = pattern(3, 64 << 20);
    fs::write(pool.path("pool"), &letter).unwrap();
    assert_refused(pool.try_mount(OPTIONS), &["pool"]);
    assert!(fs::read(pool.path("pool")).unwrap() == letter);
}

#[test]
fn a_damaged_store_is_refused_or_serves_nothing_wrong() {
    let Some(pool) = filled() else { return };
    let top = pool.path("");
    ok(&mut script(&top, "cp -a --sparse=always pool pool.whole; cp -a state state.whole"));
    let files =
        files_below(&pool.path("state")).into_iter().filter(|path| path.metadata().unwrap().len() > 64);
    let mut refused = 0;
    for path in files {
        let len = path.metadata().unwrap().len();
        for eighth in 1..8 {
            let at = len * eighth / 8;
            damage(&path, at, 16);
            match pool.try_mount(OPTIONS) {
                Err(failed) => {
                    assert_eq!(failed.status.code(), Some(32), "{}", failed.message);
                    assert!(!failed.message.trim().is_empty());
                    refused += 1;
                }
                // Bytes that mean nothing may be anything; but then all must be there.
                Ok(mount) => {
                    for i in 0..200u64 {
                        let got = fs::read(pool.dir().join(i.to_string()));
                        assert!(
                            got.is_ok_and(|got| got == pattern(i, 9000)),
                            "{i}, {} at {at}",
                            path.display()
                        );
                    }
                    drop(mount);
                }
            }
            ok(&mut script(
                &top,
                "rm -rf state pool; cp -a state.whole state; cp -a --sparse=always pool.whole pool",
            ));
        }
    }
    assert!(refused > 0, "no damage was noticed");
    assert_intact(&pool);
}

#[test]
fn pool_and_state_of_different_file_systems_do_not_mix() {
    let (Some(one), Some(two)) = (filled(), filled()) else { return };
    let options =
        format!("{OPTIONS},cxl={},state={}", one.path("pool").display(), two.path("state").display());
    let mixed = Mount::start(&one.dir(), &options, &one.path("log"));
    assert_refused(mixed, &[]);
    assert_intact(&one);
    assert_intact(&two);
}

#[test]
fn a_lost_state_directory_is_not_taken_for_an_empty_file_system() {
    let Some(pool) = filled() else { return };
    fs::rename(pool.path("state"), pool.path("lost")).unwrap();
    assert_refused(pool.try_mount(OPTIONS), &["pool"]);
    let _ = fs::remove_dir_all(pool.path("state"));
    fs::rename(pool.path("lost"), pool.path("state")).unwrap();
    assert_intact(&pool);
}

#[test]
fn a_lost_pool_file_is_noticed() {
    let Some(pool) = filled() else { return };
    fs::rename(pool.path("pool"), pool.path("lost")).unwrap();
    assert_refused(pool.try_mount(OPTIONS), &[]);
    let _ = fs::remove_file(pool.path("pool"));
    fs::rename(pool.path("lost"), pool.path("pool")).unwrap();
    assert_intact(&pool);
}
