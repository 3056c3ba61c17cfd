//! The end of a mount: by signal, by accident, and what comes after.

use crate::{Place, wait_for};
use e2e::Mount;
use e2e::mount::is_mounted;
use e2e::run::ok;
use e2e::rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Write;

fn start(place: &Place, options: &str) -> Mount {
    Mount::start(place.dir(), options, &place.beside("log")).expect("it is mounted")
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a process id"), signal).expect("it is running");
}

#[test]
fn signals_unmount_cleanly() {
    let Some(place) = Place::new() else { return };
    for which in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut mount = start(&place, "size=64M");
        fs::write(place.dir().join("a"), b"text").unwrap();
        signal(mount.pid(), which);
        let status = mount.wait();
        assert!(status.success(), "{which:?}: {status}");
        assert!(!is_mounted(place.dir()), "{which:?}");
    }
}

#[test]
fn a_signal_loses_nothing_of_a_lasting_pool() {
    let Some(place) = Place::new() else { return };
    let options =
        format!("size=64M,cxl={},state={}", place.beside("p").display(), place.beside("s").display());
    let mut mount = start(&place, &options);
    let data = e2e::pattern(1, 3_000_000);
    fs::write(place.dir().join("a"), &data).unwrap();
    signal(mount.pid(), Signal::TERM);
    assert!(mount.wait().success());
    let mount = start(&place, &options);
    assert!(fs::read(place.dir().join("a")).unwrap() == data);
    assert!(mount.unmount().success());
}

#[test]
fn a_signal_while_files_are_open_still_ends_it() {
    let Some(place) = Place::new() else { return };
    let mut mount = start(&place, "size=64M");
    let mut file = File::create(place.dir().join("a")).unwrap();
    file.write_all(b"text").unwrap();
    signal(mount.pid(), Signal::TERM);
    wait_for(|| !is_mounted(place.dir()), "the mount point is free");
    drop(file);
    let status = mount.wait();
    assert!(status.success(), "{status}");
}

#[test]
fn umount_of_a_busy_mount_is_refused_and_harmless() {
    let Some(place) = Place::new() else { return };
    let mount = start(&place, "size=64M");
    let mut file = File::create(place.dir().join("a")).unwrap();
    e2e::run::fails(e2e::run::command("umount", [""; 0]).arg(place.dir()));
    file.write_all(b"still there").unwrap();
    drop(file);
    assert_eq!(fs::read(place.dir().join("a")).unwrap(), b"still there");
    assert!(mount.unmount().success());
}

#[test]
fn a_dead_mount_point_is_mounted_over() {
    let Some(place) = Place::new() else { return };
    let dir = start(&place, "size=64M").kill_and_leave_the_mount_point();
    // Through rings it takes the kernel a moment, after the process is gone, to see that it is.
    let error = || fs::read_dir(&dir).map(|_| ()).unwrap_err().raw_os_error();
    wait_for(|| error() == Some(libc::ENOTCONN), "the mount point is dead");
    ok(&mut place.command("size=64M"));
    fs::write(dir.join("a"), b"alive").unwrap();
    place.unmount();
    // Nothing is left beneath.
    assert!(!is_mounted(&dir));
}

#[test]
fn a_client_of_a_killed_mount_gets_errors_and_no_signal() {
    let Some(place) = Place::new() else { return };
    let mount = start(&place, "size=64M");
    let mut file = File::create(place.dir().join("a")).unwrap();
    file.write_all(b"text").unwrap();
    mount.kill();
    file.sync_all().unwrap_err();
    File::open(place.dir().join("a")).unwrap_err();
}

#[test]
fn a_directory_with_files_in_it_can_be_mounted_on_and_shows_them_again() {
    let Some(place) = Place::new() else { return };
    fs::write(place.dir().join("beneath"), b"x").unwrap();
    let mount = start(&place, "size=64M");
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0);
    assert!(mount.unmount().success());
    assert!(place.dir().join("beneath").exists());
}

#[test]
fn foreground_stays_until_unmounted() {
    let Some(place) = Place::new() else { return };
    let mount = start(&place, "size=64M");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(crate::alive(mount.pid()));
    assert!(mount.unmount().success());
}

#[test]
fn an_idle_mount_uses_no_processor_time() {
    let Some(place) = Place::new() else { return };
    let mount = start(&place, "size=64M");
    fs::write(place.dir().join("a"), b"text").unwrap();
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", mount.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').map(String::from).collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = ticks();
    std::thread::sleep(std::time::Duration::from_secs(2));
    // Ticks are hundredths of a second.
    assert!(ticks() - before <= 2, "{} ticks in two idle seconds", ticks() - before);
    assert!(mount.unmount().success());
}
