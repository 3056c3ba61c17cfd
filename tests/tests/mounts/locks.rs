//! Locks are seen by all mounts.

use crate::on_mounts;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread::scope;
use std::time::Duration;

/// Longer than anything takes that does not wait for a lock, also for a mount that has died.
const LONG: Duration = Duration::from_secs(20);

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
        let (sender, receiver) = channel();
        scope(|scope| {
            scope.spawn(|| sender.send(flock(&b, libc::LOCK_EX)).unwrap());
            assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err(), "it does not wait");
            drop(a);
            receiver.recv_timeout(LONG).expect("it is woken").unwrap();
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
        let (sender, receiver) = channel();
        scope(|scope| {
            scope.spawn(|| sender.send(flock(&b, libc::LOCK_EX)).unwrap());
            std::thread::sleep(Duration::from_millis(300));
            m.kill(0);
            receiver.recv_timeout(LONG).expect("it is woken").unwrap();
        });
    });
}
