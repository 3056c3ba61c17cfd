//! Directories: making, removing, link counts, permission to search and write.

use e2e::rustix::io::Errno;
use e2e::user::{NOBODY, as_id, as_user};
use e2e::{assert_os_error, on_fs, on_fs_as_root};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

#[test]
fn link_count_is_two_and_one_a_subdirectory() {
    on_fs("size=16M", |fs| {
        let nlink = |name: &str| fs::metadata(fs.path(name)).unwrap().nlink();
        fs.subdir("d", 0o755);
        assert_eq!(nlink("d"), 2);
        for i in 0..5 {
            fs.subdir(&format!("d/{i}"), 0o755);
        }
        fs.file("d/file", b"");
        assert_eq!(nlink("d"), 7);
        fs::remove_dir(fs.path("d/0")).unwrap();
        fs::rename(fs.path("d/1"), fs.path("one")).unwrap();
        fs::rename(fs.path("d/2"), fs.path("d/3")).unwrap();
        assert_eq!(nlink("d"), 4);
    });
}

#[test]
fn rmdir_wants_an_empty_directory() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fs.file("d/f", b"");
        assert_os_error(fs::remove_dir(fs.path("d")), Errno::NOTEMPTY);
        assert_os_error(fs::remove_dir(fs.path("d/f")), Errno::NOTDIR);
        assert_os_error(fs::remove_dir(fs.path("d/.")), Errno::INVAL);
        assert_os_error(fs::remove_dir(fs.path("d/..")), Errno::NOTEMPTY);
        assert_os_error(fs::remove_dir(fs.path("no")), Errno::NOENT);
        assert_os_error(fs::remove_dir(fs.dir()), Errno::BUSY);
        assert_os_error(fs::remove_file(fs.path("d")), Errno::ISDIR);
        fs::remove_file(fs.path("d/f")).unwrap();
        fs::remove_dir(fs.path("d")).unwrap();
    });
}

#[test]
fn mkdir_refuses_any_existing_name() {
    on_fs("size=16M", |fs| {
        fs.file("f", b"");
        std::os::unix::fs::symlink("nowhere", fs.path("l")).unwrap();
        for name in ["f", "l", ".", ".."] {
            assert_os_error(fs::create_dir(fs.path(name)), Errno::EXIST);
        }
        assert_os_error(fs::create_dir(fs.path("no/d")), Errno::NOENT);
        assert_os_error(fs::create_dir(fs.path("f/d")), Errno::NOTDIR);
    });
}

#[test]
fn a_directory_needs_search_permission_to_be_passed_and_write_permission_to_change() {
    on_fs_as_root("size=16M", |fs| {
        fs.subdir("closed", 0o600);
        fs.file("closed/f", b"");
        fs.subdir("readonly", 0o755);
        fs.subdir("dark", 0o733);
        as_id(NOBODY, || {
            assert_os_error(fs::metadata(fs.path("closed/f")), Errno::ACCESS);
            assert_os_error(fs::write(fs.path("readonly/f"), b""), Errno::ACCESS);
            assert_os_error(fs::create_dir(fs.path("readonly/d")), Errno::ACCESS);
            assert_os_error(fs::read_dir(fs.path("dark")).map(|_| ()), Errno::ACCESS);
            fs::write(fs.path("dark/f"), b"x").unwrap();
            assert_eq!(fs::read(fs.path("dark/f")).unwrap(), b"x");
        });
    });
}

#[test]
fn a_set_group_id_directory_hands_on_its_group() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("d", 0o2777);
        chown(&dir, None, Some(4242)).unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o2777)).unwrap();
        as_id(NOBODY, || {
            fs::write(dir.join("f"), b"").unwrap();
            fs::create_dir(dir.join("sub")).unwrap();
            std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
        });
        for name in ["d/f", "d/sub", "d/l"] {
            let meta = fs::symlink_metadata(fs.path(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (NOBODY, 4242), "{name}");
        }
        assert_eq!(fs::metadata(fs.path("d/sub")).unwrap().mode() & 0o7000, 0o2000);
        assert_eq!(fs::metadata(fs.path("d/f")).unwrap().mode() & 0o7000, 0);
    });
}

#[test]
fn elsewhere_the_group_is_that_of_the_process() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("d", 0o777);
        as_user(NOBODY, 77, &[88], || fs::write(dir.join("f"), b"").unwrap());
        let meta = fs::metadata(dir.join("f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (NOBODY, 77));
    });
}

#[test]
fn supplementary_groups_count_for_access() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("d", 0o770);
        chown(&dir, None, Some(4242)).unwrap();
        as_user(NOBODY, NOBODY, &[4242], || fs::write(dir.join("f"), b"").unwrap());
        as_id(NOBODY, || assert_os_error(fs::write(dir.join("g"), b""), Errno::ACCESS));
    });
}

#[test]
fn adding_and_removing_entries_changes_the_times_of_the_directory() {
    on_fs("size=16M", |fs| {
        let dir = fs.subdir("d", 0o755);
        let mut last = fs::metadata(&dir).unwrap().modified().unwrap();
        let mut changed = |what: &str| {
            let now = fs::metadata(&dir).unwrap().modified().unwrap();
            assert!(now > last, "{what}");
            last = now;
            std::thread::sleep(std::time::Duration::from_millis(15));
        };
        std::thread::sleep(std::time::Duration::from_millis(15));
        fs.file("d/f", b"");
        changed("create");
        fs::hard_link(fs.path("d/f"), fs.path("d/g")).unwrap();
        changed("link");
        fs::remove_file(fs.path("d/f")).unwrap();
        changed("unlink");
        fs.subdir("d/s", 0o755);
        changed("mkdir");
        fs::remove_dir(fs.path("d/s")).unwrap();
        changed("rmdir");
    });
}

#[test]
fn deep_trees_work() {
    on_fs("size=16M", |fs| {
        let mut path = fs.path("0");
        for i in 1..200 {
            fs::create_dir(&path).unwrap();
            path.push(i.to_string());
        }
        fs::write(&path, b"deep").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"deep");
        fs::remove_dir_all(fs.path("0")).unwrap();
        assert_eq!(fs::read_dir(fs.dir()).unwrap().count(), 0);
    });
}
