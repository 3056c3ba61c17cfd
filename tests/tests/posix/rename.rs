//! rename(2) and renameat2(2).

use e2e::rustix::fs::{CWD, RenameFlags, renameat_with};
use e2e::rustix::io::{Errno, Result};
use e2e::user::{DAEMON, NOBODY, as_id};
use e2e::{Fixture, assert_errno, assert_os_error, on_fs, on_fs_as_root};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, chown, symlink};

fn rename(fs: &Fixture, from: &str, to: &str, flags: RenameFlags) -> Result<()> {
    renameat_with(CWD, fs.path(from), CWD, fs.path(to), flags)
}

fn text(fs: &Fixture, name: &str) -> String {
    fs::read_to_string(fs.path(name)).unwrap()
}

#[test]
fn rename_replaces_a_file_which_lives_on_while_open() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"new");
        let mut old = fs.file("b", b"old");
        let ino = fs::metadata(fs.path("a")).unwrap().ino();
        fs::rename(fs.path("a"), fs.path("b")).unwrap();
        assert!(!fs.path("a").exists());
        assert_eq!(text(fs, "b"), "new");
        assert_eq!(fs::metadata(fs.path("b")).unwrap().ino(), ino);
        let mut seen = String::new();
        old.read_to_string(&mut seen).unwrap();
        assert_eq!((seen.as_str(), old.metadata().unwrap().nlink()), ("old", 0));
    });
}

#[test]
fn rename_of_one_inode_onto_itself_does_nothing() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"text");
        fs::hard_link(fs.path("a"), fs.path("b")).unwrap();
        fs::rename(fs.path("a"), fs.path("b")).unwrap();
        assert!(fs.path("a").exists() && fs.path("b").exists());
        fs::rename(fs.path("a"), fs.path("a")).unwrap();
        assert_eq!(fs::metadata(fs.path("a")).unwrap().nlink(), 2);
    });
}

#[test]
fn noreplace_refuses_an_existing_target() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"a");
        fs.file("b", b"b");
        assert_errno(rename(fs, "a", "b", RenameFlags::NOREPLACE), Errno::EXIST);
        assert_errno(rename(fs, "a", "a", RenameFlags::NOREPLACE), Errno::EXIST);
        rename(fs, "a", "c", RenameFlags::NOREPLACE).unwrap();
        assert_eq!((text(fs, "b"), text(fs, "c")), ("b".into(), "a".into()));
    });
}

#[test]
fn exchange_swaps_files_directories_and_links() {
    on_fs("size=16M", |fs| {
        fs.file("f", b"file");
        fs.subdir("d", 0o755);
        fs.subdir("d/inner", 0o755);
        fs.file("d/in", b"in");
        symlink("f", fs.path("l")).unwrap();
        rename(fs, "f", "d", RenameFlags::EXCHANGE).unwrap();
        assert_eq!((text(fs, "d"), text(fs, "f/in")), ("file".into(), "in".into()));
        rename(fs, "l", "f/in", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(text(fs, "l"), "in");
        assert_eq!(fs::read_link(fs.path("f/in")).unwrap().as_os_str(), "f");
        assert_errno(rename(fs, "l", "none", RenameFlags::EXCHANGE), Errno::NOENT);
        // A directory that moves takes its `..` and the link count of its parent along.
        fs.subdir("p", 0o755);
        fs.file("p/x", b"x");
        rename(fs, "f/inner", "p/x", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(fs::metadata(fs.path("p")).unwrap().nlink(), 3);
        assert_eq!(fs::metadata(fs.path("f")).unwrap().nlink(), 2);
        let up = fs::metadata(fs.path("p/x/..")).unwrap().ino();
        assert_eq!(up, fs::metadata(fs.path("p")).unwrap().ino());
    });
}

#[test]
fn contradictory_and_unknown_flags_are_invalid() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        fs.file("b", b"");
        let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
        assert_errno(rename(fs, "a", "b", both), Errno::INVAL);
        assert_errno(rename(fs, "a", "b", RenameFlags::from_bits_retain(1 << 20)), Errno::INVAL);
    });
}

#[test]
fn a_directory_replaces_only_an_empty_directory() {
    on_fs("size=16M", |fs| {
        fs.subdir("full", 0o755);
        fs.file("full/f", b"");
        fs.subdir("empty", 0o755);
        fs.file("file", b"");
        assert_os_error(fs::rename(fs.path("empty"), fs.path("full")), Errno::NOTEMPTY);
        assert_os_error(fs::rename(fs.path("empty"), fs.path("file")), Errno::NOTDIR);
        assert_os_error(fs::rename(fs.path("file"), fs.path("empty")), Errno::ISDIR);
        fs::rename(fs.path("full"), fs.path("empty")).unwrap();
        assert!(fs.path("empty/f").exists() && !fs.path("full").exists());
    });
}

#[test]
fn a_directory_does_not_move_below_itself() {
    on_fs("size=16M", |fs| {
        fs.subdir("a", 0o755);
        fs.subdir("a/b", 0o755);
        assert_os_error(fs::rename(fs.path("a"), fs.path("a/b/c")), Errno::INVAL);
        assert_os_error(fs::rename(fs.path("a"), fs.path("a/c")), Errno::INVAL);
        assert_os_error(fs::rename(fs.path("a/b"), fs.path("a")), Errno::NOTEMPTY);
        assert_errno(rename(fs, "a", "a/b", RenameFlags::EXCHANGE), Errno::INVAL);
    });
}

#[test]
fn dots_and_missing_names_are_refused() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        assert_os_error(fs::rename(fs.path("d/."), fs.path("e")), Errno::BUSY);
        assert_os_error(fs::rename(fs.path("d"), fs.path("d/..")), Errno::BUSY);
        assert_os_error(fs::rename(fs.path("no"), fs.path("e")), Errno::NOENT);
        assert_os_error(fs::rename(fs.path("d"), fs.path("no/e")), Errno::NOENT);
        assert_os_error(fs::rename(fs.path("d"), fs.outside("e")), Errno::XDEV);
    });
}

#[test]
fn a_moved_directory_has_a_new_parent() {
    on_fs("size=16M", |fs| {
        for dir in ["p", "q", "p/d"] {
            fs.subdir(dir, 0o755);
        }
        let open = File::open(fs.path("p/d")).unwrap();
        fs::rename(fs.path("p/d"), fs.path("q/e")).unwrap();
        let up = e2e::rustix::fs::statat(&open, "..", e2e::rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!(up.st_ino, fs::metadata(fs.path("q")).unwrap().ino());
        assert_eq!(fs::metadata(fs.path("p")).unwrap().nlink(), 2);
        assert_eq!(fs::metadata(fs.path("q")).unwrap().nlink(), 3);
    });
}

#[test]
fn rename_changes_the_times_of_both_directories() {
    on_fs("size=16M", |fs| {
        fs.subdir("p", 0o755);
        fs.subdir("q", 0o755);
        fs.file("p/f", b"");
        let before = ["p", "q"].map(|dir| fs::metadata(fs.path(dir)).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::rename(fs.path("p/f"), fs.path("q/f")).unwrap();
        for (dir, old) in ["p", "q"].iter().zip(before) {
            let new = fs::metadata(fs.path(dir)).unwrap();
            assert!(new.modified().unwrap() > old.modified().unwrap(), "{dir}");
            assert!((new.ctime(), new.ctime_nsec()) > (old.ctime(), old.ctime_nsec()), "{dir}");
        }
    });
}

#[test]
fn in_a_sticky_directory_only_the_owner_renames_and_removes() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("tmp", 0o1777);
        fs.file("tmp/f", b"");
        chown(dir.join("f"), Some(NOBODY), None).unwrap();
        as_id(DAEMON, || {
            assert_os_error(fs::rename(dir.join("f"), dir.join("g")), Errno::PERM);
            assert_os_error(fs::remove_file(dir.join("f")), Errno::PERM);
            fs::write(dir.join("mine"), b"").unwrap();
            assert_os_error(fs::rename(dir.join("mine"), dir.join("f")), Errno::PERM);
        });
        as_id(NOBODY, || {
            fs::rename(dir.join("f"), dir.join("g")).unwrap();
            fs::remove_file(dir.join("g")).unwrap();
        });
        // The owner of the directory may, too.
        chown(&dir, Some(NOBODY), None).unwrap();
        as_id(NOBODY, || fs::remove_file(dir.join("mine")).unwrap());
    });
}
