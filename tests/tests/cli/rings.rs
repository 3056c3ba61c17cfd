//! FUSE over io_uring: asked for, refused, and with no lane to spare.

use crate::{Place, refused};
use e2e::Mount;
use e2e::fixture::skipped;
use e2e::rustix::fs::{SeekFrom, seek};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::thread;

const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

fn enabled() -> bool {
    fs::read_to_string(SWITCH).is_ok_and(|s| s.trim() == "Y")
}

fn start(place: &Place, options: &str) -> Mount {
    Mount::start(place.dir(), options, &place.beside("log")).expect("it is mounted")
}

/// The names of the threads of the process that serves the mount.
fn threads(mount: &Mount) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.pid())).expect("it is running");
    tasks.flatten().filter_map(|t| fs::read_to_string(t.path().join("comm")).ok()).collect()
}

fn lanes(mount: &Mount) -> usize {
    threads(mount).iter().filter(|name| name.starts_with("ring-")).count()
}

#[test]
fn anything_but_auto_on_and_off_is_refused() {
    let Some(place) = Place::new() else { return };
    assert!(refused(&mut place.command("size=64M,io_uring=maybe"), 32).contains("auto, on, off"));
    assert!(refused(&mut place.command("size=64M,io_uring"), 32).contains("io_uring=auto"));
}

#[test]
fn off_means_off() {
    let Some(place) = Place::new() else { return };
    let mount = start(&place, "size=64M,io_uring=off");
    assert_eq!(lanes(&mount), 0);
    assert!(mount.unmount().success());
}

#[test]
fn on_is_refused_with_what_to_do_where_the_kernel_has_it_not_and_auto_goes_without() {
    let Some(place) = Place::new() else { return };
    if enabled() {
        return skipped("FUSE over io_uring is enabled");
    }
    assert!(refused(&mut place.command("size=64M,quiet,io_uring=on"), 32).contains(SWITCH));
    let mount = start(&place, "size=64M,io_uring=auto");
    assert_eq!(lanes(&mount), 0);
    assert!(mount.unmount().success());
}

#[test]
fn auto_uses_rings_where_the_kernel_has_them() {
    let Some(place) = Place::new() else { return };
    if !enabled() {
        return skipped("FUSE over io_uring is not enabled");
    }
    let mount = start(&place, "size=64M,io_uring=auto");
    assert!(lanes(&mount) > 0);
    assert!(mount.unmount().success());
}

/// A queue has one lane, which waits for a write-back, which is a request in the same queue, perhaps.
#[test]
fn a_queue_in_which_every_lane_waits_gets_another() {
    let Some(place) = Place::new() else { return };
    if !enabled() {
        return skipped("FUSE over io_uring is not enabled");
    }
    let mount = start(&place, "size=256M,io_uring=on,threads=1");
    let before = lanes(&mount);
    thread::scope(|scope| {
        for n in 0..8u64 {
            let path = place.dir().join(n.to_string());
            scope.spawn(move || {
                let mut file = File::create(path).unwrap();
                for round in 1..20u64 {
                    file.set_len(0).unwrap();
                    file.write_all_at(&[7; 5000], round * 10_000).unwrap();
                    assert_eq!(seek(&file, SeekFrom::Data(0)).unwrap(), round * 10_000 / 4096 * 4096);
                    file.flush().unwrap();
                }
            });
        }
    });
    assert!(lanes(&mount) > before, "{:?}", threads(&mount));
    assert!(mount.unmount().success());
}
