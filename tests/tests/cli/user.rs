//! As an ordinary user, through fusermount3.

use crate::Place;
use e2e::binary;
use e2e::mount::{is_mounted, with_test_options};
use e2e::run::{fails, ok};
use e2e::user::{DAEMON, NOBODY, as_id, with_fuse_for_all};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

/// Runs `test` with a place that belongs to nobody, and a copy of the program where nobody can run it.
fn with_nobodys(test: impl FnOnce(&Place, &Path) + Send) {
    let Some(place) = Place::new() else { return };
    if !e2e::rustix::process::geteuid().is_root() {
        return e2e::fixture::skipped("needs root, to become somebody else");
    }
    chown(place.dir(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let bin = place.beside("mount.rchfs");
    fs::copy(binary::mount_rchfs(), &bin).expect("the program can be copied");
    with_fuse_for_all(&place.beside(""), || test(&place, &bin));
}

fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
    command
}

fn mount(place: &Place, bin: &Path, options: &str) -> Command {
    let mut command = as_nobody(bin.to_str().expect("text"));
    command.arg(place.dir()).args(["-o", &with_test_options(options)]);
    command
}

#[test]
fn an_ordinary_user_mounts_uses_and_unmounts() {
    with_nobodys(|place, bin| {
        ok(&mut mount(place, bin, "size=64M"));
        assert!(is_mounted(place.dir()));
        as_id(NOBODY, || {
            fs::write(place.dir().join("a"), b"mine").unwrap();
            assert_eq!(fs::metadata(place.dir().join("a")).unwrap().uid(), NOBODY);
            assert_eq!(fs::metadata(place.dir()).unwrap().uid(), NOBODY);
        });
        ok(as_nobody("fusermount3").arg("-u").arg(place.dir()));
        assert!(!is_mounted(place.dir()));
    });
}

#[test]
fn what_an_ordinary_user_mounts_is_closed_to_others() {
    with_nobodys(|place, bin| {
        ok(&mut mount(place, bin, "size=64M"));
        as_id(DAEMON, || {
            let error = fs::read_dir(place.dir()).map(|_| ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        });
        ok(as_nobody("fusermount3").arg("-u").arg(place.dir()));
    });
}

#[test]
fn allow_other_without_the_administrators_leave_is_refused_with_what_to_do() {
    with_nobodys(|place, bin| {
        let conf = fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
        if conf.lines().any(|line| line.trim() == "user_allow_other") {
            return ok(&mut mount(place, bin, "size=64M,allow_other")).clear();
        }
        let (code, said) = fails(&mut mount(place, bin, "size=64M,allow_other"));
        assert_eq!(code, Some(32));
        assert!(said.contains("user_allow_other"), "{said}");
    });
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    with_nobodys(|place, bin| {
        chown(place.dir(), Some(0), Some(0)).unwrap();
        let (code, said) = fails(&mut mount(place, bin, "size=64M"));
        assert_eq!(code, Some(32), "{said}");
        assert!(!is_mounted(place.dir()));
    });
}

#[test]
fn devices_and_set_user_id_do_not_work_on_an_ordinary_users_mount() {
    with_nobodys(|place, bin| {
        ok(&mut mount(place, bin, "size=64M"));
        let flags = ok(e2e::run::command("findmnt", ["-no", "OPTIONS"]).arg(place.dir()));
        assert!(flags.contains("nosuid") && flags.contains("nodev"), "{flags}");
        ok(as_nobody("fusermount3").arg("-u").arg(place.dir()));
    });
}

#[test]
fn a_signal_unmounts_an_ordinary_users_mount() {
    with_nobodys(|place, bin| {
        ok(&mut mount(place, bin, "size=64M"));
        let pid = place.server().expect("somebody serves it");
        ok(&mut e2e::run::command("kill", [pid.to_string()]));
        crate::wait_for(|| !is_mounted(place.dir()), "the mount point is free");
        crate::wait_for(|| !crate::alive(pid), "the process ends");
    });
}
