//! A pool on a devdax device: it is there again after a restart, and a device that cannot be used is refused with
//! what to type.

use crate::in_vm;
use e2e::cluster::{Cluster, Shape};
use e2e::run::{command, ok};
use e2e::{Mount, MountFailed, pattern};
use std::fs;
use std::path::Path;
use std::process::Command;

const DEVICE: &str = "/dev/dax0.0";
const OTHER: &str = "/dev/dax1.0";

fn rcmp() -> Command {
    Command::new(e2e::binary::rcmp())
}

fn wipe(device: &str) {
    ok(rcmp().args(["wipe", "--yes", device]));
}

fn mount(top: &Path, device: &str, more: &str) -> Result<Mount, MountFailed> {
    let dir = top.join("mount");
    fs::create_dir_all(&dir).expect("a directory can be made");
    let options = format!("cxl={device},state={}{more}", top.join("state").display());
    Mount::start(&dir, &options, &top.join("log"))
}

#[track_caller]
fn mounted(top: &Path, device: &str) -> Mount {
    mount(top, device, "").unwrap_or_else(|failed| panic!("{}: {}", failed.status, failed.message))
}

/// One line, with these words.
#[track_caller]
fn refused(top: &Path, device: &str, more: &str, words: &[&str]) -> String {
    let failed = mount(top, device, more).expect_err("it was mounted");
    assert_eq!(failed.message.lines().count(), 1, "not one line: {}", failed.message);
    for word in words {
        assert!(failed.message.contains(word), "no {word:?} in: {}", failed.message);
    }
    failed.message
}

#[test]
fn the_files_of_a_mount_are_there_again_after_an_end_and_after_kill_9() {
    if !in_vm() {
        return;
    }
    wipe(DEVICE);
    let top = tempfile::tempdir().expect("a directory can be made");
    let bytes = pattern(1, 3 << 20);
    let first = mounted(top.path(), DEVICE);
    fs::write(first.dir().join("ended"), &bytes).expect("there is room");
    assert!(first.unmount().success());
    let second = mounted(top.path(), DEVICE);
    fs::write(second.dir().join("killed"), &bytes).expect("there is room");
    second.kill();
    let third = mounted(top.path(), DEVICE);
    for name in ["ended", "killed"] {
        assert!(fs::read(third.dir().join(name)).expect("it is there") == bytes, "{name}");
    }
    // Somebody has it now.
    let other = tempfile::tempdir().expect("a directory can be made");
    refused(other.path(), DEVICE, "", &["in use by"]);
    let held = rcmp().args(["wipe", "--yes", DEVICE]).output().expect("rcmp runs");
    assert!(!held.status.success() && String::from_utf8_lossy(&held.stderr).contains("in use"), "{held:?}");
    assert!(third.unmount().success());
    // It is another rack's pool to a daemon, which says what gives it up; without --yes nothing is done.
    let asked = rcmp().args(["wipe", DEVICE]).output().expect("rcmp runs");
    assert!(!asked.status.success() && String::from_utf8_lossy(&asked.stderr).contains("--yes"), "{asked:?}");
    let shape = Shape { racks: 1, ..Shape::restless(1) };
    let cluster = Cluster::start(shape);
    let daemon = cluster.start_another(5, DEVICE, &[]).expect_err("it has another pool");
    assert!(daemon.message.contains("rcmp wipe /dev/dax0.0"), "{}", daemon.message);
    wipe(DEVICE);
    cluster.start_another(5, DEVICE, &[]).unwrap_or_else(|refused| panic!("{}", refused.message));
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    if !in_vm() {
        return;
    }
    wipe(DEVICE);
    let top = tempfile::tempdir().expect("a directory can be made");
    refused(top.path(), DEVICE, ",size=1G", &[DEVICE, "daxctl list", "smaller size"]);
    assert!(mounted(top.path(), DEVICE).unmount().success());
}

#[test]
fn a_device_in_another_mode_is_refused_and_what_to_type_helps() {
    if !in_vm() {
        return;
    }
    let top = tempfile::tempdir().expect("a directory can be made");
    ok(command("daxctl", ["disable-device", "dax1.0"]).stdout(std::process::Stdio::null()));
    let failed = mount(top.path(), OTHER, "").expect_err("it was mounted");
    assert!(!Path::new(OTHER).is_file(), "a file was made in its place");
    ok(command("daxctl", ["enable-device", "dax1.0"]).stdout(std::process::Stdio::null()));
    for word in ["not enabled", "daxctl reconfigure-device --mode=devdax dax1.0"] {
        assert!(failed.message.contains(word), "no {word:?} in: {}", failed.message);
    }
    ok(&mut command("ndctl", ["create-namespace", "-f", "-e", "namespace1.0", "-m", "fsdax"]));
    let message = refused(top.path(), "/dev/pmem1", "", &["fsdax"]);
    let (_, typed) = message.split_once("destroys what is on it: ").expect("it says what to type");
    ok(&mut command("sh", ["-c", typed]));
    // Memory that the system uses as its own.
    ok(&mut command("daxctl", ["reconfigure-device", "--mode=system-ram", "--no-online", "dax1.0"]));
    let message = refused(top.path(), OTHER, "", &["system-ram"]);
    let (_, typed) = message.split_once("this gives it back: ").expect("it says what to type");
    ok(&mut command("sh", ["-c", typed]));
    wipe(OTHER);
    assert!(mounted(top.path(), OTHER).unmount().success());
}
