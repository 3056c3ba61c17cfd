//! flock(2), fcntl(2) record locks and open file description locks, between two processes.

use e2e::lock::{self, Lock, Owner};
use e2e::rustix::fs::{FlockOperation, flock};
use e2e::rustix::io::Errno;
use e2e::{Actor, assert_errno, on_fs};
use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

const AGAIN: i32 = Errno::AGAIN.raw_os_error();

#[test]
fn flock_excludes_another_process() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let mut other = Actor::with_file(&fs.path("a"));
        flock(&file, FlockOperation::LockExclusive).unwrap();
        assert_eq!(other.tell("flock ex"), Err(AGAIN));
        assert_eq!(other.tell("flock sh"), Err(AGAIN));
        flock(&file, FlockOperation::LockShared).unwrap();
        other.ok("flock sh");
        assert_errno(flock(&file, FlockOperation::NonBlockingLockExclusive), Errno::AGAIN);
        other.ok("flock un");
        flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    });
}

#[test]
fn flock_waits_for_the_holder_and_death_lets_go() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let mut other = Actor::with_file(&fs.path("a"));
        other.begin("flock ex wait");
        sleep(Duration::from_millis(50));
        flock(&file, FlockOperation::Unlock).unwrap();
        other.end().unwrap();
        assert_errno(flock(&file, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
        other.kill();
        flock(&file, FlockOperation::LockExclusive).unwrap();
    });
}

#[test]
fn flock_belongs_to_the_open_description() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        flock(&file, FlockOperation::LockExclusive).unwrap();
        let duplicate = file.try_clone().unwrap();
        let second = File::open(fs.path("a")).unwrap();
        flock(&duplicate, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_errno(flock(&second, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
        drop(file);
        assert_errno(flock(&second, FlockOperation::NonBlockingLockShared), Errno::AGAIN);
        drop(duplicate);
        flock(&second, FlockOperation::NonBlockingLockExclusive).unwrap();
    });
}

#[test]
fn record_locks_exclude_by_byte() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let mut other = Actor::with_file(&fs.path("a"));
        lock::set(&file, Owner::Process, Lock::Write, 100, 100).unwrap();
        assert_eq!(other.tell("posix w 199 1"), Err(AGAIN));
        assert_eq!(other.tell("posix r 0 0"), Err(AGAIN));
        other.ok("posix w 200 50");
        other.ok("posix r 0 100");
        let pid = other.pid() as i32;
        assert_eq!(lock::in_the_way(&file, 0, 0).unwrap(), Some((0, 100, pid)));
        assert_eq!(lock::in_the_way(&file, 150, 100).unwrap(), Some((200, 50, pid)));
        assert_eq!(lock::in_the_way(&file, 250, 0).unwrap(), None);
        // Unlocking the middle leaves two locks.
        lock::set(&file, Owner::Process, Lock::Unlock, 140, 20).unwrap();
        other.ok("posix w 140 20");
        assert_eq!(other.tell("posix w 139 1"), Err(AGAIN));
        assert_eq!(other.tell("posix w 160 1"), Err(AGAIN));
    });
}

#[test]
fn record_locks_wait_and_detect_deadlock() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let mut other = Actor::with_file(&fs.path("a"));
        lock::set(&file, Owner::Process, Lock::Write, 0, 1).unwrap();
        other.ok("posix w 1 1");
        other.begin("posix w 0 1 wait");
        sleep(Duration::from_millis(100));
        assert_errno(lock::set_waiting(&file, Owner::Process, Lock::Write, 1, 1), Errno::DEADLK);
        lock::set(&file, Owner::Process, Lock::Unlock, 0, 1).unwrap();
        other.end().unwrap();
    });
}

#[test]
fn record_locks_go_with_any_close_and_with_the_process() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let mut other = Actor::with_file(&fs.path("a"));
        lock::set(&file, Owner::Process, Lock::Write, 0, 0).unwrap();
        assert_eq!(other.tell("posix r 0 1"), Err(AGAIN));
        drop(File::open(fs.path("a")).unwrap());
        other.ok("posix w 0 0");
        assert_errno(lock::set(&file, Owner::Process, Lock::Read, 0, 1), Errno::AGAIN);
        other.kill();
        lock::set(&file, Owner::Process, Lock::Write, 0, 0).unwrap();
    });
}

#[test]
fn description_locks_stay_until_their_own_close() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let second = File::options().read(true).write(true).open(fs.path("a")).unwrap();
        let mut other = Actor::with_file(&fs.path("a"));
        lock::set(&file, Owner::Description, Lock::Write, 10, 10).unwrap();
        assert_errno(lock::set(&second, Owner::Description, Lock::Read, 19, 1), Errno::AGAIN);
        assert_eq!(other.tell("ofd w 0 0"), Err(AGAIN));
        assert_eq!(other.tell("posix r 10 1"), Err(AGAIN));
        drop(second);
        assert_eq!(other.tell("ofd r 10 1"), Err(AGAIN));
        drop(file);
        other.ok("ofd w 0 0");
    });
}

#[test]
fn a_read_lock_needs_a_readable_descriptor_and_a_write_lock_a_writable_one() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let reader = File::open(fs.path("a")).unwrap();
        assert_errno(lock::set(&reader, Owner::Process, Lock::Write, 0, 1), Errno::BADF);
        let writer = File::options().write(true).open(fs.path("a")).unwrap();
        assert_errno(lock::set(&writer, Owner::Process, Lock::Read, 0, 1), Errno::BADF);
    });
}

#[test]
fn locks_on_one_file_do_not_touch_another() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        fs.file("b", b"");
        let mut other = Actor::with_file(&fs.path("b"));
        lock::set(&file, Owner::Process, Lock::Write, 0, 0).unwrap();
        flock(&file, FlockOperation::LockExclusive).unwrap();
        other.ok("posix w 0 0");
        other.ok("flock ex");
    });
}
