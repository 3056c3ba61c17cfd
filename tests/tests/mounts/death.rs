//! Mounts that die, and mounts that are only stopped.

use crate::{Mounts, on_mounts, until};
use e2e::rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
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

/// Pages that can be given out, once what is on its way has returned.
fn free(m: &mut Mounts) -> u64 {
    m.cluster().counts("pages_free").iter().sum()
}

#[test]
fn what_a_killed_mount_had_taken_and_not_told_returns_while_others_go_on() {
    returns(&["", "", ""]);
}

#[test]
fn what_a_killed_mount_without_cxl_had_taken_and_not_told_returns_while_others_go_on() {
    returns(&["cxl=none", "", ""]);
}

/// The mounts 0 and 2 are of one rack. The latter reads and writes all the time.
fn returns(options: &[&str; 3]) {
    const LEN: usize = 300_000;
    const FILES: usize = 400;
    on_mounts(options, |m| {
        let how = || OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let busy = how().open(m.at(2, "busy")).unwrap();
        busy.write_all_at(&[0; LEN], 0).unwrap();
        busy.sync_all().unwrap();
        let (over, written) = (AtomicBool::new(false), AtomicUsize::new(0));
        let dir = m.dir(0).to_path_buf();
        let turns = scope(|scope| {
            let works = scope.spawn(|| {
                let (mut turn, mut found) = (0_usize, vec![0; LEN]);
                while !over.load(Ordering::Acquire) {
                    turn += 1;
                    busy.write_all_at(&[turn as u8; LEN], 0).unwrap();
                    busy.read_exact_at(&mut found, 0).unwrap();
                    assert!(found.iter().all(|byte| *byte == turn as u8), "in turn {turn}");
                }
                turn
            });
            until("racks are heard of", || free(m) > 0);
            // So that the daemons have heard of all that was before.
            sleep(Duration::from_millis(1500));
            let before = free(m);
            // What it writes last nobody has been told when it dies: that happens at a close, or some time later.
            let writes = scope.spawn(|| {
                let write = |i: usize| {
                    let mut file = File::create(dir.join(format!("open{i}")))?;
                    file.write_all(&[i as u8; 10 << 14])?;
                    written.store(i + 1, Ordering::Release);
                    std::io::Result::Ok(file)
                };
                let open: Vec<File> = (0..FILES).map_while(|i| write(i).ok()).collect();
                open.len()
            });
            until("some files are written", || written.load(Ordering::Acquire) >= 20);
            m.kill(0);
            assert!(writes.join().unwrap() < FILES, "it was through before it died");
            for i in 0..FILES {
                let path = m.at(1, &format!("open{i}"));
                until("the mount is known to be dead", || {
                    fs::remove_file(&path).is_ok() || fs::symlink_metadata(&path).is_err()
                });
            }
            until("all pages are free again", || free(m) == before);
            over.store(true, Ordering::Release);
            works.join().expect("the other mount goes on")
        });
        assert!(turns > 10, "the other mount did next to nothing: {turns}");
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

#[test]
fn a_file_that_is_unlinked_and_open_outlives_the_master_and_goes_at_its_last_close() {
    on_mounts(&["", "", "cxl=none"], |m| {
        let how = || OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        until("racks are heard of", || free(m) > 0);
        sleep(Duration::from_millis(1500));
        let before = free(m);
        let files: Vec<File> = [0, 2]
            .iter()
            .map(|&number| {
                let file = how().open(m.at(number, &format!("open{number}"))).unwrap();
                file.write_all_at(&[7; 1_000_000], 0).unwrap();
                file.sync_all().unwrap();
                file
            })
            .collect();
        fs::remove_file(m.at(0, "open0")).unwrap();
        fs::remove_file(m.at(1, "open2")).unwrap();
        m.cluster().restart_master();
        // Longer than the master waits for mounts from before.
        until("it is there again", || fs::write(m.at(1, "other"), b"").is_ok());
        sleep(Duration::from_secs(6));
        let mut found = vec![0; 1_000_000];
        for file in &files {
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found.iter().all(|byte| *byte == 7));
            file.write_all_at(&[8; 1_000_000], 500_000).unwrap();
            file.sync_all().unwrap();
            file.read_exact_at(&mut found, 500_000).unwrap();
            assert!(found.iter().all(|byte| *byte == 8));
        }
        drop(files);
        until("all pages are free again", || free(m) == before);
    });
}

#[test]
fn what_a_mount_that_died_with_the_master_had_open_goes() {
    on_mounts(&["", ""], |m| {
        until("racks are heard of", || free(m) > 0);
        sleep(Duration::from_millis(1500));
        let before = free(m);
        let mut open = File::create(m.at(0, "open")).unwrap();
        open.write_all(&[7; 1_000_000]).unwrap();
        open.sync_all().unwrap();
        fs::remove_file(m.at(0, "open")).unwrap();
        m.kill(0);
        m.cluster().restart_master();
        drop(open);
        until("all pages are free again", || free(m) == before);
    });
}

#[test]
fn a_mount_ends_in_time_and_loses_nothing_while_another_hangs() {
    on_mounts(&["", "", ""], |m| {
        let contents = |number: usize| vec![number as u8; 50_000 + number];
        for number in 0..20 {
            fs::write(m.at(2, &format!("read{number}")), contents(number)).unwrap();
        }
        let theirs =
            OpenOptions::new().write(true).create(true).truncate(false).open(m.at(2, "theirs")).unwrap();
        theirs.write_all_at(b"held", 0).unwrap();
        // Access times to tell, leases to give back, and data that was just written.
        for number in 0..20 {
            assert_eq!(fs::read(m.at(0, &format!("read{number}"))).unwrap(), contents(number));
        }
        assert_eq!(fs::metadata(m.at(0, "theirs")).unwrap().len(), 4);
        theirs.write_all_at(b"again", 0).unwrap();
        signal(m, 2, Signal::STOP);
        for number in 0..20 {
            fs::write(m.at(0, &format!("own{number}")), contents(number)).unwrap();
        }
        within_bound(|| m.end(0));
        for number in 0..20 {
            assert_eq!(fs::read(m.at(1, &format!("own{number}"))).unwrap(), contents(number));
        }
        signal(m, 2, Signal::CONT);
        drop(theirs);
    });
}
