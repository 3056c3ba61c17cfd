//! Hard and symbolic links.

use e2e::rustix::fs::{AtFlags, CWD, linkat, readlinkat_raw};
use e2e::rustix::io::Errno;
use e2e::{assert_errno, assert_os_error, on_fs};
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};

#[test]
fn hard_links_share_one_inode() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"one");
        fs.subdir("d", 0o755);
        fs::hard_link(fs.path("a"), fs.path("d/b")).unwrap();
        let (a, b) = (fs::metadata(fs.path("a")).unwrap(), fs::metadata(fs.path("d/b")).unwrap());
        assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
        fs::write(fs.path("d/b"), b"changed").unwrap();
        assert_eq!(fs::read(fs.path("a")).unwrap(), b"changed");
        fs::remove_file(fs.path("a")).unwrap();
        assert_eq!(fs::metadata(fs.path("d/b")).unwrap().nlink(), 1);
        assert_eq!(fs::read(fs.path("d/b")).unwrap(), b"changed");
    });
}

#[test]
fn link_refuses_directories_existing_names_and_other_file_systems() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        fs.subdir("d", 0o755);
        assert_os_error(fs::hard_link(fs.path("d"), fs.path("e")), Errno::PERM);
        assert_os_error(fs::hard_link(fs.path("a"), fs.path("d")), Errno::EXIST);
        assert_os_error(fs::hard_link(fs.path("a"), fs.path("a")), Errno::EXIST);
        assert_os_error(fs::hard_link(fs.path("no"), fs.path("b")), Errno::NOENT);
        assert_os_error(fs::hard_link(fs.path("a"), fs.outside("b")), Errno::XDEV);
    });
}

#[test]
fn link_names_a_symlink_or_follows_it_as_told() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        symlink("a", fs.path("l")).unwrap();
        linkat(CWD, fs.path("l"), CWD, fs.path("l2"), AtFlags::empty()).unwrap();
        linkat(CWD, fs.path("l"), CWD, fs.path("f"), AtFlags::SYMLINK_FOLLOW).unwrap();
        assert!(fs::symlink_metadata(fs.path("l2")).unwrap().is_symlink());
        assert_eq!(fs::symlink_metadata(fs.path("l")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(fs.path("a")).unwrap().nlink(), 2);
    });
}

#[test]
fn linking_changes_the_change_time_only() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let before = fs::metadata(fs.path("a")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::hard_link(fs.path("a"), fs.path("b")).unwrap();
        let after = fs::metadata(fs.path("a")).unwrap();
        assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    });
}

#[test]
fn symlinks_keep_any_target() {
    on_fs("size=16M", |fs| {
        for (i, len) in [1usize, 59, 60, 255, 4095].into_iter().enumerate() {
            let target = vec![b'x'; len];
            let link = fs.path(&format!("l{i}"));
            symlink(std::ffi::OsStr::from_bytes(&target), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap().as_os_str().as_bytes(), target);
            let meta = fs::symlink_metadata(&link).unwrap();
            assert_eq!((meta.len(), meta.mode() & 0o777), (len as u64, 0o777));
        }
        let odd = std::ffi::OsStr::from_bytes(b"\xff\n\\ \x01");
        symlink(odd, fs.path("odd")).unwrap();
        assert_eq!(fs::read_link(fs.path("odd")).unwrap().as_os_str(), odd);
    });
}

#[test]
fn readlink_cuts_to_the_buffer() {
    on_fs("size=16M", |fs| {
        symlink("0123456789", fs.path("l")).unwrap();
        let mut buffer = [MaybeUninit::uninit(); 4];
        let (read, _) = readlinkat_raw(CWD, fs.path("l"), &mut buffer).unwrap();
        assert_eq!(read, b"0123");
        fs.file("f", b"");
        assert_errno(
            readlinkat_raw(CWD, fs.path("f"), &mut buffer).map(|(read, _)| read.len()),
            Errno::INVAL,
        );
    });
}

#[test]
fn a_loop_of_links_is_eloop() {
    on_fs("size=16M", |fs| {
        symlink("b", fs.path("a")).unwrap();
        symlink("a", fs.path("b")).unwrap();
        assert_os_error(fs::File::open(fs.path("a")), Errno::LOOP);
        assert_os_error(fs::metadata(fs.path("b/x")), Errno::LOOP);
        fs::remove_file(fs.path("a")).unwrap();
        assert_os_error(fs::File::open(fs.path("b")), Errno::NOENT);
    });
}

#[test]
fn forty_links_in_a_row_are_followed_and_forty_one_are_not() {
    on_fs("size=16M", |fs| {
        fs.file("l0", b"end");
        for i in 1..=41 {
            symlink(format!("l{}", i - 1), fs.path(&format!("l{i}"))).unwrap();
        }
        assert_eq!(fs::read(fs.path("l40")).unwrap(), b"end");
        assert_os_error(fs::read(fs.path("l41")), Errno::LOOP);
    });
}
