//! Record locks on byte ranges: of a process (`fcntl`) and of an open file description (`OFD`).

use rustix::io::{Errno, Result};
use std::os::fd::{AsFd, AsRawFd};

/// What to do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Lock it for reading.
    Read,
    /// Lock it for writing.
    Write,
    /// Unlock it.
    Unlock,
}

impl Lock {
    fn raw(self) -> libc::c_short {
        (match self {
            Lock::Read => libc::F_RDLCK,
            Lock::Write => libc::F_WRLCK,
            Lock::Unlock => libc::F_UNLCK,
        }) as libc::c_short
    }
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The process: `F_SETLK`.
    Process,
    /// The open file description: `F_OFD_SETLK`.
    Description,
}

/// Sets or removes a lock on `len` bytes from `start` (0: to the end), at once or not at all.
///
/// # Errors
/// `EAGAIN` when another owner's lock is in the way.
pub fn set(fd: impl AsFd, owner: Owner, lock: Lock, start: i64, len: i64) -> Result<()> {
    let command = if owner == Owner::Process { libc::F_SETLK } else { libc::F_OFD_SETLK };
    fcntl(fd, command, &mut range(lock, start, len))
}

/// As [`set`], waiting for the other owner.
///
/// # Errors
/// `EDEADLK` when that would be forever, `EINTR` on a signal.
pub fn set_waiting(fd: impl AsFd, owner: Owner, lock: Lock, start: i64, len: i64) -> Result<()> {
    let command = if owner == Owner::Process { libc::F_SETLKW } else { libc::F_OFD_SETLKW };
    fcntl(fd, command, &mut range(lock, start, len))
}

/// The first lock that is in the way of a write lock: its first byte, its length, and the process.
///
/// # Errors
/// Those of fcntl(2).
pub fn in_the_way(fd: impl AsFd, start: i64, len: i64) -> Result<Option<(i64, i64, i32)>> {
    let mut found = range(Lock::Write, start, len);
    fcntl(fd, libc::F_GETLK, &mut found)?;
    let free = found.l_type == Lock::Unlock.raw();
    Ok((!free).then_some((found.l_start, found.l_len, found.l_pid)))
}

fn range(lock: Lock, start: i64, len: i64) -> libc::flock {
    libc::flock {
        l_type: lock.raw(),
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: len,
        l_pid: 0,
    }
}

fn fcntl(fd: impl AsFd, command: libc::c_int, range: &mut libc::flock) -> Result<()> {
    // SAFETY: the descriptor is open for the length of the call, and these commands read and write one
    // `struct flock`, which `range` is.
    let done = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, std::ptr::from_mut(range)) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
