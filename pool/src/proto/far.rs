//! What a client that cannot map its rack's memory asks of the daemon there, which touches the bytes for it.
//!
//! **Sessions.** Such a client has no access slots and no process that the daemon could watch. Instead it
//! [enters](FarRequest::Enter), and [renews](FarRequest::Renew) every [`RENEW`]; each answer is a [`Ticket`],
//! which is good for [`LEASE`] by the *daemon's* clock, and every access carries the newest. So an access that
//! was held up on its way (the client was stopped, or the daemon, or the network) is refused, not done late.
//! A session whose connection has ended is over after [`ALONE`], unless it is heard of by another.
//!
//! **What is in doubt.** A client that does not know what came of an access enters anew and names the session
//! that it had: it is answered once no access of that one is under way, and none will be again.
//!
//! **Pages that it takes** and that no file has are its own until it [leaves](FarRequest::Leave), or its last session has
//! been over for [`KEEP_ALONE`] and its connection is over too, or for [`KEEP`]. Whoever comes back after that is told so, also by
//! another daemon of the rack: it names the *age* that it was told last, which changes when pages of clients that were
//! away are given up.
//!
//! Who may ask is not checked, as for everything on TCP; all numbers are.

use super::page::{PageError, PageKind};
use crate::addr::{GAddr, PageRun};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use thiserror::Error;

/// The most bytes that one message reads or writes; they may be in any number of pages.
pub const FAR_MAX: usize = 256 << 10;
/// The most bytes that one message sets to zero.
pub const ZERO_MAX: usize = 1 << 20;
/// How long a ticket is good. As long as a mount's leases at the master.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often a client renews its session.
pub const RENEW: Duration = Duration::from_millis(700);
/// How long a session goes on without a connection.
pub const ALONE: Duration = Duration::from_millis(1500);
/// How long after its start a daemon takes it that clients of the one before it may still come. Longer than
/// [`LEASE`], and than the master needs to tell them where it is.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long a client whose session is over, but whose connection is not, keeps the pages that it has taken: it may be
/// stopped, or its host may be gone.
pub const KEEP: Duration = Duration::from_secs(60);
/// As [`KEEP`], if the connection is over too.
pub const KEEP_ALONE: Duration = Duration::from_secs(5);
/// The most bytes of a client's name; what is more is cut off.
pub const NAME_MAX: usize = 128;

const _: () = assert!(FAR_MAX.is_multiple_of(8) && ZERO_MAX.is_multiple_of(8));

/// The right to access pages by way of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The session; never used for another one.
    pub session: u64,
    /// Until when, in nanoseconds of the daemon's clock.
    pub until: u64,
}

/// A request of a client without CXL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FarRequest {
    /// I am a client. Answered by [`FarReply::Entered`], once no access of the session `replaces`, which this
    /// ends, is under way.
    Enter {
        /// Who, for people to read.
        by: String,
        /// A random number, the same as long as this client lives.
        client: u64,
        /// The session that this client had; 0 none.
        replaces: u64,
        /// The age that it was told last.
        age: u64,
    },
    /// I am still there. Answered by [`FarReply::Renewed`].
    Renew {
        /// The session.
        session: u64,
    },
    /// I am going. Answered by [`FarReply::Done`].
    Leave {
        /// The session.
        session: u64,
    },
    /// Give out pages, as by [`PageRequest::Alloc`](super::page::PageRequest::Alloc), to this client. Answered by
    /// [`FarReply::Runs`].
    Alloc {
        /// The right to.
        ticket: Ticket,
        /// How many.
        pages: u64,
        /// Pages that must remain free afterwards.
        leave: u64,
        /// Whose they will be.
        kind: PageKind,
    },
    /// Read. Answered by [`FarReply::Data`].
    Read {
        /// The right to.
        ticket: Ticket,
        /// First byte.
        at: GAddr,
        /// Bytes; at most [`FAR_MAX`].
        len: u32,
    },
    /// Write. Answered by [`FarReply::Done`].
    Write {
        /// The right to.
        ticket: Ticket,
        /// First byte.
        at: GAddr,
        /// At most [`FAR_MAX`] bytes.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Set to zero. Answered by [`FarReply::Done`].
    Zero {
        /// The right to.
        ticket: Ticket,
        /// First byte.
        at: GAddr,
        /// Bytes; at most [`ZERO_MAX`].
        len: u32,
    },
    /// Compare and swap a word. Answered by [`FarReply::Was`].
    Cas {
        /// The right to.
        ticket: Ticket,
        /// The word; a multiple of 8.
        at: GAddr,
        /// What it must be.
        old: u64,
        /// What it becomes.
        new: u64,
    },
}

/// An answer to a client without CXL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FarReply {
    /// The client has a session.
    Entered {
        /// The right to access pages.
        ticket: Ticket,
        /// Pages that the client took and that no file has are still its own.
        kept: bool,
        /// To be named when it enters again.
        age: u64,
    },
    /// The session goes on, and so do the pages that the client took.
    Renewed {
        /// The right to access pages.
        ticket: Ticket,
        /// To be named when it enters again.
        age: u64,
    },
    /// Pages given out; as [`PageReply::Runs`](super::page::PageReply::Runs).
    Runs {
        /// All of them.
        runs: Vec<PageRun>,
        /// How many of the last of `runs` are known to be zero.
        zeroed: u32,
    },
    /// What was read.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What the word was; it has been changed if that is what it had to be.
    Was(u64),
    /// Done.
    Done,
}

/// Why a daemon refused a client without CXL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum FarError {
    /// The ticket is not good (any more): nothing was done. Enter anew.
    #[error("the session at the daemon has ended")]
    Expired,
    /// There are too many.
    #[error("the daemon takes no more than {0} clients without CXL")]
    TooMany(u32),
    /// The access, or a part of it, could not be made.
    #[error(transparent)]
    Page(#[from] PageError),
}
