//! Mounts that die, and mounts that are only stopped.

use crate::{Mounts, on_mounts};
use e2e::rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

/// rchfs/SEMANTICS.md: nobody waits longer for a mount that is gone; and some for a busy machine.
const BOUND: Duration = Duration::from_secs(5 + 3);

fn signal(m: &Mounts, number: usize, signal: Signal) {
    let pid = Pid::from_raw(m.mount(number).pid() as i32).expect("a process has an id");
    kill_process(pid, signal).expect("a child can be signalled");
}

#[track_caller]
fn within_bound<T>(what: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = what();
    assert!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    result
}

#[test]
fn nobody_waits_long_for_a_mount_that_died_and_its_closed_files_are_whole() {
    dies(&["", ""]);
}

#[test]
fn nobody_waits_long_for_a_mount_without_cxl_that_died() {
    dies(&["cxl=none", ""]);
}

fn dies(options: &[&str; 2]) {
    on_mounts(options, |m| {
        fs::write(m.at(0, "closed"), vec![7; 300_000]).unwrap();
        let mut open = File::create(m.at(0, "open")).unwrap();
        open.write_all(&[8; 300_000]).unwrap();
        let unlinked = File::create(m.at(0, "unlinked")).unwrap();
        fs::remove_file(m.at(0, "unlinked")).unwrap();
        let inodes = |m: &Mounts| {
            let stat = e2e::rustix::fs::statvfs(m.dir(1)).unwrap();
            stat.f_files - stat.f_ffree
        };
        let before = inodes(m);
        m.kill(0);
        drop((open, unlinked));
        within_bound(|| fs::write(m.at(1, "open"), b"mine now").unwrap());
        assert_eq!(fs::read(m.at(1, "closed")).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read(m.at(1, "open")).unwrap(), b"mine now");
        within_bound(|| {
            while inodes(m) >= before {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
}

#[test]
fn a_mount_that_was_stopped_does_not_write_over_what_others_wrote() {
    is_stopped(&["", ""]);
}

#[test]
fn a_mount_without_cxl_that_was_stopped_does_not_write_over_what_others_wrote() {
    is_stopped(&["cxl=none", ""]);
}

fn is_stopped(options: &[&str; 2]) {
    on_mounts(options, |m| {
        let open = |number: usize, name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).open(m.at(number, name)).unwrap()
        };
        let (contested, own) = (open(0, "contested"), open(0, "own"));
        contested.write_all_at(&[1; 100_000], 0).unwrap();
        own.write_all_at(&[2; 100_000], 0).unwrap();
        fs::write(m.at(0, "renamed"), b"").unwrap();
        own.set_permissions(fs::Permissions::from_mode(0o640)).unwrap();
        contested.set_permissions(fs::Permissions::from_mode(0o604)).unwrap();
        signal(m, 0, Signal::STOP);
        let theirs = within_bound(|| {
            let theirs = open(1, "contested");
            theirs.write_all_at(&[3; 100_000], 0).unwrap();
            theirs
        });
        fs::rename(m.at(1, "renamed"), m.at(1, "elsewhere")).unwrap();
        signal(m, 0, Signal::CONT);
        let mut found = vec![0; 100_000];
        // What the kernel has in its cache it shows until the mount has found out.
        within_bound(|| {
            while !found.iter().all(|&byte| byte == 3) {
                contested.read_exact_at(&mut found, 0).unwrap();
            }
        });
        assert!(!m.at(0, "renamed").exists() && m.at(0, "elsewhere").exists());
        theirs.read_exact_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|&byte| byte == 3), "it wrote over what the other wrote");
        // What it wrote to the file after it came back counts again, but for an error about what it lost.
        let _told = contested.write_all_at(b"x", 0);
        contested.write_all_at(b"back", 0).unwrap();
        theirs.read_exact_at(&mut found[..5], 0).unwrap();
        assert_eq!(&found[..5], b"back\x03");
        // Nobody touched the other file, so nothing of it is lost.
        own.sync_all().unwrap();
        assert_eq!(fs::read(m.at(1, "own")).unwrap(), vec![2; 100_000]);
        assert_eq!(fs::metadata(m.at(1, "own")).unwrap().mode() & 0o7777, 0o640);
        // All agree about the other, whether that was told in time or is lost.
        let modes = [0, 1].map(|mount| fs::metadata(m.at(mount, "contested")).unwrap().mode());
        assert_eq!(modes[0], modes[1]);
    });
}

#[test]
fn mounts_go_on_after_the_master_was_killed_and_started_again() {
    on_mounts(&["", ""], |m| {
        fs::write(m.at(0, "before"), b"before").unwrap();
        let file = OpenOptions::new().read(true).write(true).open(m.at(0, "before")).unwrap();
        m.restart_master(&[0, 1]);
        fs::write(m.at(1, "after"), b"after").unwrap();
        file.write_all_at(b"AGAIN", 0).unwrap();
        assert_eq!(fs::read(m.at(1, "before")).unwrap(), b"AGAINe");
        assert_eq!(fs::read(m.at(0, "after")).unwrap(), b"after");
    });
}
