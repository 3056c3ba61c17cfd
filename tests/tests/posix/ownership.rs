//! chmod and chown: who may, and what becomes of the set-id bits.

use e2e::rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, chmodat, chownat, fallocate};
use e2e::rustix::io::Errno;
use e2e::user::{NOBODY, as_id, as_user};
use e2e::{Fixture, assert_errno, assert_os_error, on_fs, on_fs_as_root};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};

fn mode(fs: &Fixture, name: &str) -> u32 {
    fs::metadata(fs.path(name)).unwrap().mode() & 0o7777
}

/// A file of nobody's that everybody may write, with this mode.
fn nobodys(fs: &Fixture, name: &str, mode: u32) -> File {
    let file = fs.file(name, b"contents");
    chown(fs.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    file.set_permissions(Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn chmod_sets_all_twelve_bits() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        for bits in [0o7777, 0o4711, 0o2755, 0o1644, 0o000, 0o644] {
            file.set_permissions(Permissions::from_mode(bits)).unwrap();
            assert_eq!(mode(fs, "a"), bits);
        }
    });
}

#[test]
fn chmod_is_for_the_owner() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        let chmod = || fs::set_permissions(fs.path("a"), Permissions::from_mode(0o777));
        as_id(NOBODY, || assert_os_error(chmod(), Errno::PERM));
        chown(fs.path("a"), Some(NOBODY), None).unwrap();
        as_id(NOBODY, || chmod().unwrap());
    });
}

#[test]
fn chmod_by_a_stranger_to_the_group_drops_set_group_id() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o644);
        chown(fs.path("a"), None, Some(4242)).unwrap();
        let chmod = || fs::set_permissions(fs.path("a"), Permissions::from_mode(0o2755)).unwrap();
        as_user(NOBODY, NOBODY, &[4242], chmod);
        assert_eq!(mode(fs, "a"), 0o2755);
        as_id(NOBODY, chmod);
        assert_eq!(mode(fs, "a"), 0o755);
    });
}

#[test]
fn chown_to_another_user_is_for_root_and_to_own_groups_for_the_owner() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o644);
        let path = fs.path("a");
        as_user(NOBODY, NOBODY, &[4242], || {
            assert_os_error(chown(&path, Some(1), None), Errno::PERM);
            assert_os_error(chown(&path, None, Some(1)), Errno::PERM);
            chown(&path, Some(NOBODY), Some(4242)).unwrap();
        });
        assert_eq!(fs::metadata(&path).unwrap().gid(), 4242);
        chown(&path, Some(u32::MAX - 1), Some(0)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), u32::MAX - 1);
    });
}

#[test]
fn chown_of_a_link_changes_the_link() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        symlink("a", fs.path("l")).unwrap();
        lchown(fs.path("l"), Some(NOBODY), Some(77)).unwrap();
        let (file, link) = (fs::metadata(fs.path("a")).unwrap(), fs::symlink_metadata(fs.path("l")).unwrap());
        assert_eq!((file.uid(), link.uid(), link.gid()), (0, NOBODY, 77));
        chown(fs.path("l"), Some(1), None).unwrap();
        assert_eq!(fs::metadata(fs.path("a")).unwrap().uid(), 1);
    });
}

#[test]
fn writing_clears_set_user_id_and_executable_set_group_id() {
    on_fs_as_root("size=16M", |fs| {
        let file = nobodys(fs, "a", 0o6777);
        let set = |mode| file.set_permissions(Permissions::from_mode(mode)).unwrap();
        let write = || File::options().append(true).open(fs.path("a")).unwrap().write_all(b"x").unwrap();
        as_id(1, write);
        assert_eq!(mode(fs, "a"), 0o777);
        set(0o6777);
        // Root writes without clearing.
        write();
        assert_eq!(mode(fs, "a"), 0o6777);
        // Without group execution set-group-id means mandatory locking, and stays.
        set(0o2767);
        as_user(1, NOBODY, &[], write);
        assert_eq!(mode(fs, "a"), 0o2767);
    });
}

#[test]
fn truncating_clears_set_id_bits() {
    on_fs_as_root("size=16M", |fs| {
        let file = nobodys(fs, "a", 0o6777);
        let path = fs.path("a");
        as_id(1, || File::options().write(true).open(&path).unwrap().set_len(3).unwrap());
        assert_eq!(mode(fs, "a"), 0o777, "ftruncate");
        file.set_permissions(Permissions::from_mode(0o6777)).unwrap();
        as_id(1, || drop(File::options().write(true).truncate(true).open(&path).unwrap()));
        assert_eq!(mode(fs, "a"), 0o777, "O_TRUNC");
        file.set_permissions(Permissions::from_mode(0o6777)).unwrap();
        as_id(1, || {
            let file = File::options().write(true).open(&path).unwrap();
            fallocate(&file, FallocateFlags::empty(), 0, 10_000).unwrap();
        });
        assert_eq!(mode(fs, "a"), 0o777, "fallocate");
    });
}

#[test]
fn chown_clears_set_id_bits_of_programs_but_not_of_directories() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o6755);
        chown(fs.path("a"), Some(1), Some(1)).unwrap();
        assert_eq!(mode(fs, "a"), 0o755);
        nobodys(fs, "b", 0o6755);
        as_user(NOBODY, NOBODY, &[4242], || chown(fs.path("b"), None, Some(4242)).unwrap());
        assert_eq!(mode(fs, "b"), 0o755);
        let dir = fs.subdir("d", 0o6755);
        chown(&dir, Some(1), Some(1)).unwrap();
        assert_eq!(mode(fs, "d"), 0o6755);
    });
}

#[test]
fn set_user_id_survives_reading_and_renaming() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o6755);
        as_id(1, || fs::read(fs.path("a")).unwrap());
        fs::rename(fs.path("a"), fs.path("b")).unwrap();
        fs::hard_link(fs.path("b"), fs.path("c")).unwrap();
        assert_eq!(mode(fs, "c"), 0o6755);
    });
}

#[test]
fn permission_bits_decide_by_class() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o466);
        // The owner's class counts for the owner even where others may do more.
        as_id(NOBODY, || assert_os_error(File::options().write(true).open(fs.path("a")), Errno::ACCESS));
        as_user(1, NOBODY, &[], || File::options().write(true).open(fs.path("a")).map(drop).unwrap());
        nobodys(fs, "b", 0o604);
        as_user(1, NOBODY, &[], || assert_os_error(fs::read(fs.path("b")), Errno::ACCESS));
        as_id(1, || fs::read(fs.path("b")).map(drop).unwrap());
    });
}

#[test]
fn a_descriptor_keeps_its_rights_when_the_mode_changes() {
    on_fs_as_root("size=16M", |fs| {
        nobodys(fs, "a", 0o600);
        as_id(NOBODY, || {
            let file = File::options().read(true).write(true).open(fs.path("a")).unwrap();
            file.set_permissions(Permissions::from_mode(0o000)).unwrap();
            file.write_all_at(b"rights", 0).unwrap();
            let mut got = [0; 6];
            file.read_exact_at(&mut got, 0).unwrap();
            assert_os_error(File::open(fs.path("a")), Errno::ACCESS);
        });
    });
}

#[test]
fn chmod_and_chown_change_the_change_time() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let ctime = || {
            let meta = fs::metadata(fs.path("a")).unwrap();
            (meta.ctime(), meta.ctime_nsec())
        };
        let first = ctime();
        std::thread::sleep(std::time::Duration::from_millis(20));
        chmodat(CWD, fs.path("a"), Mode::RWXU, AtFlags::empty()).unwrap();
        let second = ctime();
        assert!(second > first);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let gid = e2e::rustix::process::getegid();
        chownat(CWD, fs.path("a"), None, Some(gid), AtFlags::empty()).unwrap();
        assert!(ctime() > second);
        assert_errno(chmodat(CWD, fs.path("no"), Mode::RWXU, AtFlags::empty()), Errno::NOENT);
    });
}
