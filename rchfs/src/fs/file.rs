//! The state that everybody who has a file open shares, and the handles that name it.
//!
//! Lock order: the mount's `clones`, a file's `state`, then whatever the pool and the master lock. Only
//! [`clone`](super::clone) locks the states of two files, that of the lower inode number first. See also
//! [`shared`](super::shared).

use super::kept::Kept;
use super::map::ExtentMap;
use parking_lot::{Condvar, Mutex, RwLock};
use pool::addr::PageRun;
use pool::proto::meta::{Attr, Extent, Ino};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

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
    /// Handles that can write, also through a mapping. Counted up only while the file is held exclusively; from then on
    /// it is held so or not at all.
    pub writers: AtomicU32,
    /// Of these, those that were opened or written through since a descriptor of them was last closed.
    pub at_work: AtomicU32,
    /// A thread asks the master for a lease; others wait for it. Never locked while anything is waited for.
    pub asking: Mutex<bool>,
    /// That is over.
    pub asked: Condvar,
    /// Reads that were answered, perhaps into the kernel's cache.
    pub fills: AtomicU64,
    /// Reads must leave gaps, so that the cache can be emptied: how long, in steps.
    pub slow: AtomicU32,
    /// What the kernel still holds of it was written under a lease that is gone, and is refused.
    pub fenced: AtomicBool,
    /// How often that was so. What waited meanwhile is refused too.
    pub fences: AtomicU64,
    /// How long the kernel may believe it to be although it is not; 0 if it does not. What it writes back up to there does not
    /// make the file longer.
    pub believed: AtomicU64,
    /// A lease was just taken away while it was open for writing: a write may come into the kernel's cache after that.
    pub straggling: AtomicBool,
    /// Something that was written to it is lost, and nobody has been told.
    pub lost: AtomicBool,
    /// It is among those that have something to tell the master.
    pub queued: AtomicBool,
}

/// What this mount may do with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Size and map are not known.
    #[default]
    Nothing,
    /// Read it.
    Shared,
    /// Write it. What is not shared with other mounts is held so once it was loaded.
    Exclusive,
}

/// Size and map of a file.
#[derive(Default)]
pub struct State {
    /// The lease; without one the rest says nothing.
    pub held: Held,
    /// Size in bytes.
    pub size: u64,
    /// Where the bytes are. Bytes of a page that lie past the size are unspecified.
    pub map: ExtentMap,
    /// Pages that the master does not know of yet; also in `map`.
    pub pending: ExtentMap,
    /// What [`Pool::lapses`](pool::Pool::lapses) said when the first of them was taken.
    pub lapses: u64,
    /// Attributes that the master does not know of, either.
    pub kept: Option<Kept>,
    /// The master does not know of all pages, or not of the size, or of attributes that are kept back.
    pub dirty: bool,
    /// The master was told of pages in `pending` and did not answer: perhaps they are the file's, and of its clones.
    pub unsure: bool,
}

impl State {
    /// As the master has it.
    /// `shared`: those of its pages that are in other places too, in the order of ids.
    pub fn of(held: Held, attr: Attr, extents: Vec<Extent>, shared: &[PageRun]) -> Self {
        let mut map = ExtentMap::default();
        for extent in extents {
            map.insert(extent);
            map.share_pages(extent, shared);
        }
        Self { held, size: attr.size, map, ..Self::default() }
    }
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
            writers: AtomicU32::new(0),
            at_work: AtomicU32::new(0),
            asking: Mutex::new(false),
            asked: Condvar::new(),
            fills: AtomicU64::new(0),
            slow: AtomicU32::new(0),
            fenced: AtomicBool::new(false),
            fences: AtomicU64::new(0),
            believed: AtomicU64::new(0),
            straggling: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            queued: AtomicBool::new(false),
        }
    }

    /// Waits until no other thread asks for a lease, and keeps them from it.
    pub fn start_asking(&self) {
        let mut asking = self.asking.lock();
        self.asked.wait_while(&mut asking, |asking| *asking);
        *asking = true;
    }

    /// Lets others ask.
    pub fn stop_asking(&self) {
        *self.asking.lock() = false;
        self.asked.notify_all();
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
    /// Every write goes to the end of the file.
    pub append: bool,
}

/// One open(2) of a file.
pub struct Handle {
    /// The file.
    pub file: Arc<File>,
    /// What for.
    pub access: Access,
    /// A descriptor of it was closed, and it was not written through since.
    pub idle: AtomicBool,
}
