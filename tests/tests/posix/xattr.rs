//! Extended attributes of each namespace.

use e2e::rustix::fs::{
    XattrFlags, getxattr, getxattr_query, lgetxattr, listxattr, listxattr_query, lsetxattr, removexattr,
    setxattr,
};
use e2e::rustix::io::{Errno, Result};
use e2e::user::{NOBODY, as_id};
use e2e::{Fixture, assert_errno, on_fs, on_fs_as_root, pattern};
use std::fs;
use std::os::unix::fs::symlink;

const ANY: XattrFlags = XattrFlags::empty();

fn get(fs: &Fixture, name: &str, attribute: &str) -> Result<Vec<u8>> {
    let mut value = vec![0; 70_000];
    let len = getxattr(fs.path(name), attribute, &mut value)?;
    value.truncate(len);
    Ok(value)
}

fn set(fs: &Fixture, name: &str, attribute: &str, value: &[u8]) -> Result<()> {
    setxattr(fs.path(name), attribute, value, ANY)
}

fn list(fs: &Fixture, name: &str) -> Vec<String> {
    let mut names = vec![0; 70_000];
    let len = listxattr(fs.path(name), &mut names).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|name| String::from_utf8(name.to_vec()).unwrap()).collect();
    names.retain(|name| name != "security.selinux");
    names.sort();
    names
}

#[test]
fn user_attributes_are_set_read_listed_and_removed() {
    on_fs("size=16M", |fs| {
        fs.file("f", b"");
        fs.subdir("d", 0o755);
        for name in ["f", "d"] {
            assert_errno(get(fs, name, "user.a"), Errno::NODATA);
            set(fs, name, "user.a", b"one").unwrap();
            set(fs, name, "user.b", b"").unwrap();
            set(fs, name, "user.a", b"a longer value").unwrap();
            assert_eq!(get(fs, name, "user.a").unwrap(), b"a longer value");
            assert_eq!(get(fs, name, "user.b").unwrap(), b"");
            assert_eq!(list(fs, name), ["user.a", "user.b"]);
            removexattr(fs.path(name), "user.a").unwrap();
            assert_errno(removexattr(fs.path(name), "user.a"), Errno::NODATA);
            assert_eq!(list(fs, name), ["user.b"]);
        }
    });
}

#[test]
fn create_and_replace_flags_are_kept() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let set = |flags| setxattr(fs.path("a"), "user.x", b"v", flags);
        assert_errno(set(XattrFlags::REPLACE), Errno::NODATA);
        set(XattrFlags::CREATE).unwrap();
        assert_errno(set(XattrFlags::CREATE), Errno::EXIST);
        set(XattrFlags::REPLACE).unwrap();
    });
}

#[test]
fn a_query_tells_the_size_and_a_small_buffer_is_erange() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        set(fs, "a", "user.x", &[1; 100]).unwrap();
        assert_eq!(getxattr_query(fs.path("a"), "user.x").unwrap(), 100);
        assert_errno(getxattr(fs.path("a"), "user.x", &mut [0u8; 99][..]), Errno::RANGE);
        assert!(listxattr_query(fs.path("a")).unwrap() >= 7);
        assert_errno(listxattr(fs.path("a"), &mut [0u8; 3][..]), Errno::RANGE);
    });
}

#[test]
fn values_reach_64_kilobytes_and_names_255_bytes() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let most = pattern(1, 65_536);
        set(fs, "a", "user.big", &most).unwrap();
        assert!(get(fs, "a", "user.big").unwrap() == most);
        assert_errno(set(fs, "a", "user.big", &pattern(1, 65_537)), Errno::TOOBIG);
        let name = format!("user.{}", "n".repeat(250));
        set(fs, "a", &name, b"v").unwrap();
        assert_eq!(get(fs, "a", &name).unwrap(), b"v");
        assert_errno(set(fs, "a", &format!("{name}n"), b"v"), Errno::RANGE);
        assert_errno(set(fs, "a", "user.", b"v"), Errno::INVAL);
    });
}

#[test]
fn unknown_namespaces_are_not_supported() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        for name in ["nonsense.x", "noprefix", "osx.x"] {
            assert_errno(set(fs, "a", name, b"v"), Errno::OPNOTSUPP);
            assert_errno(get(fs, "a", name), Errno::OPNOTSUPP);
        }
        assert_errno(set(fs, "a", "system.nonsense", b"v"), Errno::OPNOTSUPP);
    });
}

#[test]
fn user_attributes_are_for_files_and_directories_only() {
    on_fs_as_root("size=16M", |fs| {
        symlink("nowhere", fs.path("l")).unwrap();
        e2e::run::ok(e2e::run::command("mkfifo", ["p"]).current_dir(fs.dir()));
        assert_errno(lsetxattr(fs.path("l"), "user.x", b"v", ANY), Errno::PERM);
        assert_errno(set(fs, "p", "user.x", b"v"), Errno::PERM);
        // Trusted ones go on a link itself.
        lsetxattr(fs.path("l"), "trusted.x", b"of the link", ANY).unwrap();
        let mut value = [0; 20];
        assert_eq!(lgetxattr(fs.path("l"), "trusted.x", &mut value[..]).unwrap(), 11);
    });
}

#[test]
fn trusted_attributes_are_hidden_from_ordinary_users() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        fs::set_permissions(fs.path("a"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        set(fs, "a", "trusted.secret", b"v").unwrap();
        set(fs, "a", "user.open", b"v").unwrap();
        assert_eq!(list(fs, "a"), ["trusted.secret", "user.open"]);
        as_id(NOBODY, || {
            assert_errno(get(fs, "a", "trusted.secret"), Errno::NODATA);
            assert_errno(set(fs, "a", "trusted.more", b"v"), Errno::PERM);
            assert_eq!(get(fs, "a", "user.open").unwrap(), b"v");
        });
    });
}

#[test]
fn user_attributes_follow_the_permissions_of_the_file() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        fs::set_permissions(fs.path("a"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
        set(fs, "a", "user.x", b"v").unwrap();
        as_id(NOBODY, || {
            assert_eq!(get(fs, "a", "user.x").unwrap(), b"v");
            assert_errno(set(fs, "a", "user.x", b"w"), Errno::ACCESS);
            assert_errno(removexattr(fs.path("a"), "user.x"), Errno::ACCESS);
        });
    });
}

#[test]
fn security_attributes_are_for_root_to_set() {
    on_fs_as_root("size=16M", |fs| {
        fs.file("a", b"");
        set(fs, "a", "security.test", b"label").unwrap();
        assert_eq!(get(fs, "a", "security.test").unwrap(), b"label");
        as_id(NOBODY, || assert_errno(set(fs, "a", "security.test", b"x"), Errno::PERM));
    });
}

#[test]
fn file_capabilities_are_kept_and_cleared_by_a_write() {
    on_fs_as_root("size=16M", |fs| {
        fs::copy("/bin/true", fs.path("tool")).unwrap();
        let setcap =
            std::process::Command::new("setcap").args(["cap_net_raw+ep"]).arg(fs.path("tool")).status();
        match setcap {
            Ok(status) => assert!(status.success()),
            Err(error) => return e2e::fixture::skipped(&format!("setcap: {error}")),
        }
        assert_eq!(getxattr_query(fs.path("tool"), "security.capability").unwrap(), 20);
        fs::write(fs.path("tool"), b"changed").unwrap();
        assert_errno(getxattr_query(fs.path("tool"), "security.capability"), Errno::NODATA);
    });
}

#[test]
fn attributes_go_with_the_inode() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        set(fs, "a", "user.x", b"v").unwrap();
        fs::hard_link(fs.path("a"), fs.path("b")).unwrap();
        fs::rename(fs.path("a"), fs.path("c")).unwrap();
        assert_eq!(get(fs, "b", "user.x").unwrap(), b"v");
        assert_eq!(get(fs, "c", "user.x").unwrap(), b"v");
        fs::remove_file(fs.path("b")).unwrap();
        fs::remove_file(fs.path("c")).unwrap();
        fs.file("a", b"");
        assert_errno(get(fs, "a", "user.x"), Errno::NODATA);
    });
}

#[test]
fn a_file_can_have_hundreds_of_attributes() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        for i in 0..500u64 {
            set(fs, "a", &format!("user.attribute-{i:03}"), &pattern(i, 50)).unwrap();
        }
        assert_eq!(list(fs, "a").len(), 500);
        assert_eq!(get(fs, "a", "user.attribute-321").unwrap(), pattern(321, 50));
    });
}
