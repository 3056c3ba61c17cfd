//! Locks are seen by all mounts.

use crate::{LONG, Mounts, on_mounts};
use e2e::rustix::process::{Pid, Signal, kill_process};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

fn open(path: PathBuf) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn flock(file: &File, how: i32) -> Result<(), i32> {
    // SAFETY: takes a descriptor that is open, and no memory.
    done(unsafe { libc::flock(file.as_raw_fd(), how) })
}

fn fcntl(file: &File, command: i32, kind: i32, from: i64, len: i64) -> Result<(), i32> {
    // SAFETY: all zeros are a valid `flock`.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, from, len);
    // SAFETY: the descriptor is open, and `lock` outlives the call.
    done(unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) })
}

fn done(result: i32) -> Result<(), i32> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
}

/// Asks for the lock that somebody else has, waits for it, and gets it once `then` is done.
fn waits_for(file: &File, then: impl FnOnce(&Receiver<Result<(), i32>>)) {
    let (sender, receiver) = channel();
    scope(|scope| {
        scope.spawn(|| sender.send(flock(file, libc::LOCK_EX)).unwrap());
        assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err(), "it does not wait");
        then(&receiver);
        receiver.recv_timeout(LONG).expect("it is woken").unwrap();
    });
}

#[test]
fn flock_excludes_waits_and_is_given_up_at_close() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        flock(&a, libc::LOCK_SH).unwrap();
        flock(&b, libc::LOCK_SH).unwrap();
        assert_eq!(flock(&b, libc::LOCK_EX | libc::LOCK_NB), Err(libc::EAGAIN));
        flock(&b, libc::LOCK_UN).unwrap();
        flock(&a, libc::LOCK_EX).unwrap();
        assert_eq!(flock(&b, libc::LOCK_SH | libc::LOCK_NB), Err(libc::EAGAIN));
        waits_for(&b, |_| {
            drop(a);
        });
    });
}

#[test]
fn ranges_locked_by_fcntl_exclude_each_other_where_they_meet() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        fcntl(&a, libc::F_SETLK, libc::F_WRLCK, 0, 10).unwrap();
        assert_eq!(fcntl(&b, libc::F_SETLK, libc::F_RDLCK, 9, 1), Err(libc::EAGAIN));
        fcntl(&b, libc::F_SETLK, libc::F_WRLCK, 10, 10).unwrap();
        fcntl(&a, libc::F_SETLK, libc::F_UNLCK, 5, 5).unwrap();
        fcntl(&b, libc::F_SETLK, libc::F_WRLCK, 5, 5).unwrap();
        drop(open(m.at(0, "file")));
        // POSIX: closing any descriptor of the file gives up the process's locks.
        fcntl(&b, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
    });
}

#[test]
fn waiting_in_a_circle_is_refused() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        fcntl(&a, libc::F_SETLK, libc::F_WRLCK, 0, 1).unwrap();
        fcntl(&b, libc::F_SETLK, libc::F_WRLCK, 1, 1).unwrap();
        scope(|scope| {
            let waits = scope.spawn(|| fcntl(&a, libc::F_SETLKW, libc::F_WRLCK, 1, 1));
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(fcntl(&b, libc::F_SETLKW, libc::F_WRLCK, 0, 1), Err(libc::EDEADLK));
            fcntl(&b, libc::F_SETLK, libc::F_UNLCK, 1, 1).unwrap();
            assert_eq!(waits.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn the_locks_of_a_mount_that_dies_are_given_up() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        flock(&a, libc::LOCK_EX).unwrap();
        waits_for(&b, |_| {
            m.kill(0);
        });
    });
}

/// What a try comes to, once the master is there to say.
fn answered(mut attempt: impl FnMut() -> Result<(), i32>) -> Result<(), i32> {
    let deadline = Instant::now() + LONG;
    loop {
        match attempt() {
            Err(libc::EIO) if Instant::now() < deadline => sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
}

#[test]
fn locks_outlive_the_master_and_nobody_else_gets_them_meanwhile() {
    on_mounts(&["", "", "cxl=none"], |m| {
        let whole = [open(m.at(0, "whole")), open(m.at(1, "whole"))];
        let ranges = [open(m.at(0, "ranges")), open(m.at(1, "ranges"))];
        let far = [open(m.at(2, "far")), open(m.at(1, "far"))];
        flock(&whole[0], libc::LOCK_EX).unwrap();
        flock(&far[0], libc::LOCK_EX).unwrap();
        fcntl(&ranges[0], libc::F_SETLK, libc::F_WRLCK, 0, 10).unwrap();
        fcntl(&ranges[0], libc::F_SETLK, libc::F_UNLCK, 2, 3).unwrap();
        for _ in 0..2 {
            m.cluster().restart_master();
            let busy = libc::LOCK_EX | libc::LOCK_NB;
            assert_eq!(answered(|| flock(&whole[1], busy)), Err(libc::EAGAIN));
            assert_eq!(answered(|| flock(&far[1], busy)), Err(libc::EAGAIN));
            let set = |from, len| answered(|| fcntl(&ranges[1], libc::F_SETLK, libc::F_WRLCK, from, len));
            assert_eq!(set(1, 1), Err(libc::EAGAIN));
            assert_eq!(set(5, 1), Err(libc::EAGAIN));
            assert_eq!(set(2, 3), Ok(()), "it was given up before");
        }
        // Whoever had them gives them up as ever.
        let [mine, theirs] = whole;
        waits_for(&theirs, |_| {
            drop(mine);
        });
    });
}

#[test]
fn who_waits_for_a_lock_when_the_master_dies_gets_it_in_the_end() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        flock(&a, libc::LOCK_EX).unwrap();
        waits_for(&b, |receiver| {
            m.cluster().restart_master();
            assert!(receiver.recv_timeout(Duration::from_secs(2)).is_err(), "it has not been given up");
            drop(a);
        });
    });
}

#[test]
fn the_locks_of_a_mount_that_died_while_the_master_was_away_are_given_up() {
    on_mounts(&["", ""], |m| {
        let (a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        flock(&a, libc::LOCK_EX).unwrap();
        m.kill(0);
        m.cluster().restart_master();
        drop(a);
        assert_eq!(answered(|| flock(&b, libc::LOCK_EX)), Ok(()));
    });
}

fn signal(m: &Mounts, number: usize, signal: Signal) {
    let pid = Pid::from_raw(m.mount(number).pid() as i32).expect("a process has an id");
    kill_process(pid, signal).expect("a child can be signalled");
}

/// Whether the kernels of the mounts collect what is written.
fn collects() -> bool {
    std::env::var("RCHFS_TEST_OPTIONS").is_ok_and(|options| options.contains("cache=writeback"))
}

#[test]
fn a_program_that_lost_its_lock_is_told() {
    on_mounts(&["", ""], |m| {
        let (mut a, b) = (open(m.at(0, "file")), open(m.at(1, "file")));
        flock(&a, libc::LOCK_EX).unwrap();
        signal(m, 0, Signal::STOP);
        flock(&b, libc::LOCK_EX).unwrap();
        drop(b);
        signal(m, 0, Signal::CONT);
        let deadline = Instant::now() + LONG;
        let told = loop {
            // A write of which the kernel collects the data is told no more than that.
            let done = a.write_all(b"under the lock");
            match if collects() { done.and_then(|()| a.sync_all()) } else { done } {
                Ok(()) => assert!(Instant::now() < deadline, "nobody says that the lock is gone"),
                Err(error) => break error,
            }
        };
        assert_eq!(told.raw_os_error(), Some(libc::EIO));
        // Once.
        flock(&a, libc::LOCK_EX).unwrap();
        a.write_all(b"under a lock").unwrap();
    });
}
