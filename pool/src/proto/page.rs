//! What a client, or the master, asks of the daemon that owns a rack's frames.

use crate::addr::{GAddr, PageId, PageRun, RackId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The most bytes of one [`PageRequest::Read`] or [`PageRequest::Write`].
pub const ACCESS_MAX: usize = 16 << 10;

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PageKind {
    /// A program's, until it frees it.
    Plain,
    /// A file's: freed if the namespace does not know it ([`PageRequest::Reconcile`]).
    File,
    /// The daemons' own, cut into small objects.
    Objects,
}

/// A request to a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PageRequest {
    /// Give out `pages` pages, in as few runs as there is room for: in this rack, and what does not fit
    /// there in other racks. Their contents are unspecified in this rack, zero in others. All or nothing.
    /// Answered by [`PageReply::Runs`], or [`PageError::OutOfMemory`] if fewer than `pages + leave`
    /// pages are free.
    Alloc {
        /// How many.
        pages: u64,
        /// Pages that must remain free afterwards.
        leave: u64,
        /// Whose they will be: plain or a file's.
        kind: PageKind,
    },
    /// Take back every page of these runs, wherever they are. Answered by [`PageReply::Freed`] once no
    /// client can touch their frames any more; pages that were not allocated are skipped and not counted.
    Free {
        /// The pages.
        runs: Vec<PageRun>,
    },
    /// Give out `size` bytes within a page, zeroed, aligned to 8 or, from 64 bytes on, to 64. Answered by
    /// [`PageReply::Object`].
    AllocObject {
        /// Bytes; at least 1, at most a quarter of a page.
        size: u64,
    },
    /// Take back what [`AllocObject`](Self::AllocObject) gave out. Answered by [`PageReply::Done`], or
    /// [`PageError::NoSuchObject`].
    FreeObject {
        /// Its first byte.
        at: GAddr,
    },
    /// How much there is. Answered by [`PageReply::Stat`].
    Stat,
    /// Read from a page of another rack. Answered by [`PageReply::Data`] or [`PageReply::Here`].
    Read {
        /// First byte.
        at: GAddr,
        /// Bytes; at most [`ACCESS_MAX`], all in one page.
        len: u32,
    },
    /// Write to a page of another rack. Answered by [`PageReply::Done`] or [`PageReply::Here`].
    Write {
        /// First byte.
        at: GAddr,
        /// At most [`ACCESS_MAX`] bytes, all in one page.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Compare and swap a word in a page of another rack. Answered by [`PageReply::Was`] or
    /// [`PageReply::Here`].
    Cas {
        /// The word; a multiple of 8.
        at: GAddr,
        /// What it must be.
        old: u64,
        /// What it becomes.
        new: u64,
    },
    /// Where a page is now. Answered by [`PageReply::Place`].
    Where {
        /// The page.
        page: PageId,
    },
    /// Whom a client may ask for short reads of a page of another rack. Answered by [`PageReply::Home`], at once.
    Home {
        /// The page.
        page: PageId,
    },
    /// The master compares the files' pages with those of this rack. `held` is every page among `ids` that a
    /// file has and that is at home here. Say which of them do not exist; if `free` is set, free every other
    /// page of kind [`PageKind::File`] among `ids` that is *settled*: neither being moved or freed now, nor
    /// given out or arrived here since the daemon's start or the last such request that covered it,
    /// whichever came last. (A page that has come since may be in a file that `held` does not tell of.) All
    /// pages of that kind among `ids` that remain are settled from then on. Answered by
    /// [`PageReply::Reconciled`].
    Reconcile {
        /// The pages that are owned, in any order.
        held: Vec<PageRun>,
        /// The ids that this is about.
        ids: std::ops::Range<u64>,
        /// Whether pages without an owner are freed.
        free: bool,
    },
    /// Make what the pages hold survive loss of power, as far as the regions' kinds allow. Answered by
    /// [`PageReply::Done`].
    Sync {
        /// The pages.
        runs: Vec<PageRun>,
    },
}

/// The most pages that one [`PageRequest::Free`] names.
pub const FREE_MAX: u64 = 1 << 20;

/// An answer of a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PageReply {
    /// Pages given out, in the order in which they should be filled.
    Runs {
        /// All of them.
        runs: Vec<PageRun>,
        /// How many of the last of `runs` are known to be zero: those in other racks.
        zeroed: u32,
    },
    /// How many pages were taken back.
    Freed(u64),
    /// Where the object is.
    Object(GAddr),
    /// See [`PageStat`].
    Stat(PageStat),
    /// What was read.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What the word was; it has been changed if that is what it had to be.
    Was(u64),
    /// The page is in this rack now: look again, and touch it in place.
    Here,
    /// See [`Place`].
    Place(Place),
    /// See [`Home`].
    Home(Home),
    /// See [`Reconciled`].
    Reconciled(Reconciled),
    /// Done.
    Done,
}

/// Where a page is, and how much it is used there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The rack that holds it.
    pub rack: RackId,
    /// Its heat in the rack of the daemon that was asked ([`heat`](crate::heat)).
    pub heat: f64,
}

/// Whom a client may ask for short reads of a page of another rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Home {
    /// Nobody but this daemon, for any page: it has to see the accesses, or has a faster way.
    AskMe,
    /// It is not known here at the moment where this page is.
    Unknown,
    /// The daemon of the page's home, by [`PeerRequest::Read`](super::peer::PeerRequest::Read).
    At {
        /// The rack that holds it.
        rack: RackId,
        /// Where its daemon listens: `HOST:PORT`.
        addr: String,
    },
}

/// How full the pool is, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStat {
    /// Pages that can be held, in all racks.
    pub total: u64,
    /// Pages that can be given out now, in all racks.
    pub free: u64,
}

/// What [`PageRequest::Reconcile`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Pages that had no owner and were freed.
    pub leaked: u64,
    /// Pages that have an owner but do not exist.
    pub missing: Vec<PageRun>,
    /// Client processes that have attached to the rack's region and are alive, those included that did so
    /// before the daemon was started; counted when the request was served. `None` if nobody counts.
    pub clients: Option<u64>,
}

/// Why a daemon refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum PageError {
    /// Not enough free pages.
    #[error("the pool is full: {wanted} pages asked for, {free} free")]
    OutOfMemory {
        /// Pages asked for, with those that had to stay free.
        wanted: u64,
        /// Pages that were free.
        free: u64,
    },
    /// A client keeps a page in use for too long, so it cannot be freed or moved; or it is being moved,
    /// and that takes too long.
    #[error("page {0} is in use by a client that does not let go of it")]
    Busy(PageId),
    /// The page was never given out, or was freed.
    #[error("no page {0} in this pool")]
    NoSuchPage(PageId),
    /// There is no object at this address.
    #[error("no object at {0:?}")]
    NoSuchObject(GAddr),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Another rack, or the master, did not answer: what was asked may or may not have been done.
    #[error("{0}")]
    Unreachable(String),
    /// The operating system failed.
    #[error("{0}")]
    Os(String),
}
