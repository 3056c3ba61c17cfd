//! What a client, or the master, asks of the daemon that owns a rack's frames.

use crate::addr::PageRun;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A request to a daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PageRequest {
    /// Give out `pages` pages, in as few runs as there is room for. Their contents are unspecified.
    /// All or nothing. Answered by [`PageReply::Runs`], or [`PageError::OutOfMemory`] if fewer than
    /// `pages + leave` pages are free.
    Alloc {
        /// How many.
        pages: u64,
        /// Pages that must remain free afterwards.
        leave: u64,
    },
    /// Take back every page of these runs. Answered by [`PageReply::Freed`] once no client can touch
    /// their frames any more; pages that were not allocated are skipped and not counted.
    Free {
        /// The pages.
        runs: Vec<PageRun>,
    },
    /// How much there is. Answered by [`PageReply::Stat`].
    Stat,
    /// After a restart: `held` is everything that has an owner. Free every other page, and say which
    /// of `held` do not exist. Answered by [`PageReply::Reconciled`].
    Reconcile {
        /// The pages that are owned, in any order.
        held: Vec<PageRun>,
    },
    /// Make what the pages hold survive loss of power, as far as the region's kind allows. Answered by
    /// [`PageReply::Done`].
    Sync {
        /// The pages.
        runs: Vec<PageRun>,
    },
}

/// An answer of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PageReply {
    /// Pages given out, in the order in which they should be filled.
    Runs(Vec<PageRun>),
    /// How many pages were taken back.
    Freed(u64),
    /// See [`PageStat`].
    Stat(PageStat),
    /// See [`Reconciled`].
    Reconciled(Reconciled),
    /// Done.
    Done,
}

/// The fill level of a rack, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageStat {
    /// Pages the rack can hold.
    pub total: u64,
    /// Pages that can be given out now.
    pub free: u64,
}

/// What [`PageRequest::Reconcile`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Pages that had no owner and were freed.
    pub leaked: u64,
    /// Pages that have an owner but do not exist.
    pub missing: Vec<PageRun>,
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
    /// A client keeps a page in use for too long, so it cannot be freed or moved.
    #[error("page {0} is in use by a client that does not let go of it")]
    Busy(crate::addr::PageId),
    /// The operating system failed.
    #[error("{0}")]
    Os(String),
}
