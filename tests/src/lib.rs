//! The harness of the end-to-end suites: a file system to try things on, and other processes and
//! users to try them with.
//!
//! [`on_fs`] gives a test a file system of its own: a real `mount.rchfs` process on a directory that
//! nobody else uses, unmounted and removed when the test ends in whatever way. With
//! `RCHFS_E2E_REFERENCE=tmpfs` the same tests get a tmpfs instead, which shows that they ask for what
//! Linux does and not for what rchfs happens to do.
//!
//! [`cluster`] starts a master and daemons, and clients that record what they do for [`history`] to judge.
//!
//! Nothing here knows how rchfs works inside: everything is done by system calls and by running
//! programs. A harness function that fails panics with the reason, as an assertion does.

pub mod actor;
pub mod binary;
pub mod cluster;
pub mod fixture;
pub mod history;
pub mod lock;
pub mod map;
pub mod mount;
pub mod rng;
pub mod run;
pub mod tree;
pub mod user;

pub use actor::Actor;
pub use fixture::{Fixture, on_fs, on_fs_as_root};
pub use mount::{Mount, MountFailed};
pub use rng::Rng;
pub use rustix;

use std::fmt::Debug;

/// Asserts that a system call fails, and with which error.
#[track_caller]
pub fn assert_errno<T: Debug>(result: rustix::io::Result<T>, expected: rustix::io::Errno) {
    match result {
        Err(errno) => assert_eq!(errno, expected),
        Ok(value) => panic!("succeeded with {value:?}; expected {expected:?}"),
    }
}

/// Asserts that a call of the standard library fails, and with which error of the system.
#[track_caller]
pub fn assert_os_error<T: Debug>(result: std::io::Result<T>, expected: rustix::io::Errno) {
    match result {
        Err(error) => assert_eq!(error.raw_os_error(), Some(expected.raw_os_error()), "{error}"),
        Ok(value) => panic!("succeeded with {value:?}; expected {expected:?}"),
    }
}

/// Bytes that tell where they came from: a different sequence for each `seed`, no period.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
