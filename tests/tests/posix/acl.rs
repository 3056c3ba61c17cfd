//! POSIX access control lists, through setfacl(1) and getfacl(1).

use e2e::run::{command, ok};
use e2e::rustix::io::Errno;
use e2e::user::{DAEMON, NOBODY, as_id, as_user};
use e2e::{Fixture, assert_os_error, on_fs_as_root};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn setfacl(fs: &Fixture, how: &[&str], name: &str) {
    ok(command("setfacl", how).arg(fs.path(name)));
}

fn getfacl(fs: &Fixture, name: &str) -> Vec<String> {
    let text = ok(command("getfacl", ["-cpn"]).arg(fs.path(name)));
    text.lines().filter(|line| !line.is_empty()).map(String::from).collect()
}

fn mode(fs: &Fixture, name: &str) -> u32 {
    fs::metadata(fs.path(name)).unwrap().mode() & 0o7777
}

#[test]
fn an_acl_lets_one_more_user_in() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"secret");
        fs::set_permissions(fs.path("a"), Permissions::from_mode(0o600)).unwrap();
        as_id(NOBODY, || assert_os_error(fs::read(fs.path("a")), Errno::ACCESS));
        setfacl(fs, &["-m", "u:65534:r"], "a");
        as_id(NOBODY, || assert_eq!(fs::read(fs.path("a")).unwrap(), b"secret"));
        as_id(NOBODY, || assert_os_error(fs::write(fs.path("a"), b""), Errno::ACCESS));
        as_id(DAEMON, || assert_os_error(fs::read(fs.path("a")), Errno::ACCESS));
        setfacl(fs, &["-b"], "a");
        as_id(NOBODY, || assert_os_error(fs::read(fs.path("a")), Errno::ACCESS));
    });
}

#[test]
fn an_acl_lets_a_supplementary_group_in() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"secret");
        fs::set_permissions(fs.path("a"), Permissions::from_mode(0o600)).unwrap();
        setfacl(fs, &["-m", "g:4242:rw"], "a");
        as_user(NOBODY, NOBODY, &[4242], || fs::write(fs.path("a"), b"changed").unwrap());
        as_id(NOBODY, || assert_os_error(fs::read(fs.path("a")), Errno::ACCESS));
    });
}

#[test]
fn getfacl_shows_what_setfacl_set_and_the_mode_shows_the_mask() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        fs::set_permissions(fs.path("a"), Permissions::from_mode(0o640)).unwrap();
        setfacl(fs, &["-m", "u:65534:rwx,g:1:r,m:rx"], "a");
        assert_eq!(mode(fs, "a"), 0o650);
        let entries = getfacl(fs, "a");
        for entry in ["user::rw-", "group::r--", "group:1:r--", "mask::r-x", "other::---"] {
            assert!(entries.iter().any(|line| line == entry), "{entry} in {entries:?}");
        }
        assert!(entries.iter().any(|line| line.starts_with("user:65534:rwx")), "{entries:?}");
        // chmod changes the mask, not the group's entry.
        fs::set_permissions(fs.path("a"), Permissions::from_mode(0o600)).unwrap();
        assert!(getfacl(fs, "a").contains(&"mask::---".into()));
        as_id(NOBODY, || assert_os_error(fs::read(fs.path("a")), Errno::ACCESS));
    });
}

#[test]
fn an_acl_that_says_no_more_than_the_mode_becomes_the_mode() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        setfacl(fs, &["-m", "u::rwx,g::r,o::-"], "a");
        assert_eq!(mode(fs, "a"), 0o740);
        assert_eq!(getfacl(fs, "a"), ["user::rwx", "group::r--", "other::---"]);
    });
}

#[test]
fn a_default_acl_is_inherited_by_files_and_directories() {
    on_fs_as_root("size=16M", |fs| {
        fs.subdir("d", 0o755);
        setfacl(fs, &["-d", "-m", "u::rwx,u:65534:rwx,g::rx,o::-"], "d");
        fs.file("d/f", b"");
        fs::create_dir(fs.path("d/sub")).unwrap();
        let file = getfacl(fs, "d/f");
        assert!(file.iter().any(|line| line.starts_with("user:65534:rwx")), "{file:?}");
        assert!(file.contains(&"mask::rw-".into()), "{file:?}");
        assert!(!file.iter().any(|line| line.starts_with("default")), "{file:?}");
        assert_eq!(mode(fs, "d/f"), 0o660);
        let sub = getfacl(fs, "d/sub");
        for entry in ["user:65534:rwx", "default:user:65534:rwx", "default:other::---"] {
            assert!(sub.iter().any(|line| line == entry), "{entry} in {sub:?}");
        }
        as_id(NOBODY, || fs::write(fs.path("d/f"), b"x").unwrap());
    });
}

#[test]
fn a_default_acl_takes_the_place_of_the_umask() {
    on_fs_as_root("size=16M", |fs| {
        fs.subdir("d", 0o755);
        setfacl(fs, &["-d", "-m", "u::rwx,g::rwx,o::rwx"], "d");
        ok(&mut e2e::run::script(fs.dir(), "umask 077; touch d/f; mkdir d/sub; touch plain"));
        assert_eq!((mode(fs, "d/f"), mode(fs, "d/sub"), mode(fs, "plain")), (0o666, 0o777, 0o600));
        setfacl(fs, &["-k"], "d");
        ok(&mut e2e::run::script(fs.dir(), "umask 077; touch d/g"));
        assert_eq!(mode(fs, "d/g"), 0o600);
    });
}

#[test]
fn only_the_owner_and_root_change_an_acl() {
    on_fs_as_root("size=16M", |fs| {
        let path = fs.path("a");
        fs.file("a", b"");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let attempt = |user: u32| {
            let ids = [format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".into()];
            let mut command = command("setpriv", ids);
            command.args(["setfacl", "-m", "u:2:r"]).arg(&path).output().unwrap().status.success()
        };
        assert!(!attempt(NOBODY));
        std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
        assert!(attempt(NOBODY));
    });
}

#[test]
fn cp_and_tar_keep_acls() {
    on_fs_as_root("size=16M", |fs| {
        fs.subdir("d", 0o750);
        fs.file("d/f", b"");
        setfacl(fs, &["-R", "-m", "u:65534:rwX"], "d");
        setfacl(fs, &["-d", "-m", "g:1:r"], "d");
        ok(&mut e2e::run::script(fs.dir(), "cp -a d e; mkdir t; tar --acls -cf - d | tar --acls -xf - -C t"));
        for copy in ["e", "t/d"] {
            assert_eq!(getfacl(fs, copy), getfacl(fs, "d"));
            assert_eq!(getfacl(fs, &format!("{copy}/f")), getfacl(fs, "d/f"));
        }
    });
}
