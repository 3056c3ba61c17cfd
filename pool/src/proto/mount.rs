//! What a mount of a cluster's file system asks of the master: its session, operations with the leases that
//! their answers grant, and locks.
//!
//! **Sessions.** A mount opens a session and keeps one [`Poll`](MountRequest::Poll) at the master at all times, which
//! is answered when something is revoked, and after [`POLL`] anyway. Each poll renews the session: all its leases
//! hold until [`LEASE`] after it was *sent* (by the mount's clock) or *arrived* (by the master's), so the mount always
//! gives up first.
//!
//! **Leases.** One lease an inode and session, shared or exclusive. A shared one lets the mount keep attributes,
//! entries (also that a name does not exist), the map and the data; an exclusive one, of a regular file, lets it
//! also write, and keep back what it has to tell the master about that. An operation of another mount that conflicts
//! is answered only after the lease has been revoked.
//!
//! **A master that was started anew** has forgotten leases, locks and who has what open, but not which sessions there were.
//! For [`GRACE`], or until all of those mounts are back, it grants no locks and frees no inode without a name; and for
//! [`LEASE`], by which their leases have run out, it carries out nothing that takes leases. A mount that had a session
//! opens another and [reclaims](MountRequest::Reclaim) what it had.
//!
//! **Order.** All answers and revocations carry a number ([`Seq`]) from one counter, in the order in which the master
//! carried out what they are about. They may overtake each other on the way, so a mount installs nothing whose
//! number is below that of a revocation of the same inode, and never replaces what is newer.

use super::cluster::ClientName;
use super::meta::{Attr, Extent, Ino, MetaError, MetaReply, MetaRequest};
use crate::addr::RackId;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;
use thiserror::Error;

/// How long the leases of a session hold after it was last renewed.
pub const LEASE: Duration = Duration::from_secs(3);
/// How long a mount may take to acknowledge a revocation; after that its session is not renewed any more.
pub const ACKNOWLEDGE: Duration = Duration::from_secs(2);
/// How long the master keeps a poll that it has nothing to say to.
pub const POLL: Duration = Duration::from_millis(800);
/// How long a master that was started anew waits for mounts that had sessions, at most.
pub const GRACE: Duration = Duration::from_secs(5);
/// Maps of at most so many extents come along with a file that is looked up.
pub const FEW_EXTENTS: u32 = 32;
/// Maps of at most so many extents come along with the files of a directory that is listed.
pub const LISTED_EXTENTS: u32 = 4;

/// The place of an answer or a revocation in the order of all.
pub type Seq = u64;

/// A request of a mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountRequest {
    /// A new session. Answered by [`MountReply::Opened`].
    Open {
        /// Who that is, for people to read.
        by: String,
        /// The client of a rack that the mount is: when the rack's daemon says that it
        /// [died](super::cluster::ClusterRequest::Died) the session ends.
        client: (RackId, ClientName),
    },
    /// I am there; tell me what is revoked. Answered by [`MountReply::Revoked`].
    Poll {
        /// The session.
        session: u64,
    },
    /// These revocations have been carried out. Answered by [`MountReply::Done`].
    Acknowledge {
        /// The session.
        session: u64,
        /// Which.
        done: Vec<Acknowledged>,
    },
    /// The session is over: nothing is kept. Answered by [`MountReply::Done`].
    Close {
        /// The session.
        session: u64,
    },
    /// What the mount had in another session, which is over. Answered by [`MountReply::Reclaimed`].
    Reclaim {
        /// The session.
        session: u64,
        /// The one before, in which everything had been reclaimed.
        was: u64,
        /// Inodes that programs have open.
        open: Vec<Ino>,
        /// Locks that it had.
        locks: Vec<Lock>,
        /// There is more to come.
        more: bool,
    },
    /// An operation. Answered by [`MountReply::Answer`]. When a directory is listed with attributes,
    /// those of which the mount has a lease then are not in the entries but among what is granted. If the directory
    /// itself is, what its names stand for may be kept, and the listing.
    Do {
        /// The session.
        session: u64,
        /// Which.
        request: MetaRequest,
    },
    /// A lease of a file, with its map. Answered by [`MountReply::Answer`] with [`MetaReply::Map`].
    Take {
        /// The session.
        session: u64,
        /// A regular file.
        ino: Ino,
        /// An exclusive lease is wanted.
        exclusive: bool,
    },
    /// These inodes are not used any more: leases on them are given back, and those without a name are freed.
    /// Answered by [`MountReply::Done`].
    Release {
        /// The session.
        session: u64,
        /// Each with the number of the last answer or revocation about it; what the master granted later stays.
        inos: Vec<(Ino, Seq)>,
    },
    /// Sets or tests a lock. Answered by [`MountReply::Locked`], when it is granted if it is to wait.
    Lock {
        /// The session.
        session: u64,
        /// Which.
        lock: Lock,
        /// What to do if it is not free.
        how: LockHow,
    },
    /// Gives up locks. Answered by [`MountReply::Done`].
    Unlock {
        /// The session.
        session: u64,
        /// The file.
        ino: Ino,
        /// Which of the two kinds.
        family: LockFamily,
        /// Whose.
        owner: u64,
        /// Which bytes.
        range: RangeInclusive<u64>,
        /// The owner also stops waiting for locks of this file.
        all: bool,
    },
}

/// The two kinds of locks, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    /// flock(2)
    Flock,
    /// fcntl(2)
    Posix,
}

/// A lock on a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The file.
    pub ino: Ino,
    /// Which of the two kinds.
    pub family: LockFamily,
    /// Whose, as the mount's kernel numbers owners.
    pub owner: u64,
    /// The owner alone has it.
    pub exclusive: bool,
    /// Which bytes.
    pub range: RangeInclusive<u64>,
    /// The process, for others to read.
    pub pid: u32,
}

/// What to do if a lock is not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LockHow {
    /// Say who has it, and take nothing in any case.
    Test,
    /// Say who has it.
    Try,
    /// Wait for it, under this number of the mount's own.
    Wait,
}

/// What came of asking for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Locked {
    /// It is had, or free if that was only tested.
    Granted,
    /// This is in the way.
    Conflict {
        /// Exclusive.
        exclusive: bool,
        /// Which bytes.
        range: RangeInclusive<u64>,
        /// The process; 0 if it is one of another mount.
        pid: u32,
    },
    /// Not yet: ask again.
    Later,
    /// To wait for it would be to wait for oneself.
    Deadlock,
    /// The session has as many locks as it may.
    TooMany,
}

/// That a revocation has been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// Its number.
    pub seq: Seq,
    /// A program of this mount still has the inode open.
    pub used: bool,
    /// The mount keeps a shared lease, as it may after [`Revoked::Writing`].
    pub shared: bool,
}

/// Something that a mount must not rely on any longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoke {
    /// Its place in the order, which also names it.
    pub seq: Seq,
    /// The inode.
    pub ino: Ino,
    /// What goes.
    pub what: Revoked,
}

/// What goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Revoked {
    /// The lease.
    All,
    /// The right to write: the lease becomes a shared one.
    Writing,
    /// What is known of this name of a directory, and the directory's attributes.
    Entry(Vec<u8>),
    /// The last name of the file has gone: the mount says [`Release`](MountRequest::Release) when it does not use it
    /// any more. It has lost the lease before.
    Unlinked,
}

/// An answer of the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountReply {
    /// A session.
    Opened {
        /// Its number, never given out again.
        session: u64,
    },
    /// What has been revoked since; perhaps nothing.
    Revoked(Vec<Revoke>),
    /// See [`Answer`].
    Answer(Answer),
    /// See [`Locked`].
    Locked(Locked),
    /// What could not be reclaimed.
    Reclaimed {
        /// Locks: others may have had them in the meantime.
        lost: Vec<Lock>,
        /// Inodes that there are no more.
        gone: Vec<Ino>,
    },
    /// Done.
    Done,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its place in the order.
    pub seq: Seq,
    /// The result.
    pub result: Result<MetaReply, MetaError>,
    /// Inodes that the mount now has a lease of, as they are after it.
    pub granted: Vec<Granted>,
}

/// An inode that a mount has a lease of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Granted {
    /// Attributes.
    pub attr: Attr,
    /// It has no extended attributes at all, access control lists included.
    pub bare: bool,
    /// The map of a file that was made, looked up or listed, if it is a short one without pages that are in other places too.
    pub extents: Option<Vec<Extent>>,
}

/// Why the master does not serve a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum MountError {
    /// It was not heard of for too long, or the master was started anew.
    #[error(
        "the session of this mount is over: it was not heard of for too long, or the master was started anew"
    )]
    Expired,
    /// The lease that this needs is not there any more.
    #[error("this mount has no exclusive lease of inode {0:?} (any more)")]
    NotHeld(Ino),
    /// The master is ending.
    #[error("the master is ending")]
    Ending,
}
