//! The state that everybody who has a file open shares, and the handles that name it.
//!
//! Lock order: the mount's `clones`, a file's `state`, then whatever the pool and the master lock. Only
//! [`clone`](super::clone) locks the states of two files, that of the lower inode number first.

use super::map::ExtentMap;
use parking_lot::RwLock;
use pool::proto::meta::Ino;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

/// An open regular file.
pub struct File {
    /// Which inode.
    pub ino: Ino,
    /// Where its bytes are. Held shared while they are copied, exclusively while they move: a page of
    /// the file cannot be freed under a reader.
    pub state: RwLock<State>,
    /// It was written past the kernel's cache since its modification time was set.
    pub touched: AtomicBool,
    /// Its data since the last fsync may not survive loss of power.
    pub unsynced: AtomicBool,
    /// It took pages out of the reserve: its next buffered write must be told that the pool is full.
    pub squeezed: AtomicBool,
    /// Handles that can write through the kernel's cache.
    pub cached_writers: AtomicU32,
    /// Until when (seconds since 1970) its access time needs no look.
    pub atime_good_until: AtomicI64,
}

/// Size and map of a file.
#[derive(Default)]
pub struct State {
    /// The master was asked for the map.
    pub loaded: bool,
    /// Size in bytes.
    pub size: u64,
    /// Where the bytes are. Bytes of a page that lie past the size are unspecified.
    pub map: ExtentMap,
}

impl File {
    /// A file of which nothing is known yet.
    pub fn new(ino: Ino) -> Self {
        Self {
            ino,
            state: RwLock::default(),
            touched: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            squeezed: AtomicBool::new(false),
            cached_writers: AtomicU32::new(0),
            atime_good_until: AtomicI64::new(i64::MIN),
        }
    }

    /// Notes a write: `past_cache` if the kernel does not keep the times of it.
    pub fn wrote(&self, past_cache: bool) {
        // Plain stores of a value that is already there would bounce the cache line between writers.
        if past_cache && !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Release);
        }
        if !self.unsynced.load(Ordering::Relaxed) {
            self.unsynced.store(true, Ordering::Release);
        }
        if self.atime_good_until.load(Ordering::Relaxed) != i64::MIN {
            self.atime_good_until.store(i64::MIN, Ordering::Relaxed);
        }
    }
}

/// What open(2) asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Reading is allowed.
    pub read: bool,
    /// Writing is allowed.
    pub write: bool,
    /// The kernel's cache is bypassed.
    pub direct: bool,
}

/// One open(2) of a file.
pub struct Handle {
    /// The file.
    pub file: Arc<File>,
    /// What for.
    pub access: Access,
}
