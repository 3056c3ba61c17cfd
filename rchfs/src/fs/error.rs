//! Why an operation of the file system failed.

use pool::PoolError;
use pool::proto::NodeId;
use pool::proto::meta::MetaError;
use pool::proto::mount::MountError;
use pool::transport::TransportError;
use thiserror::Error;

/// The error of every operation of [`Fs`](super::Fs). [`errno`](super::errno) turns it into the number
/// that the caller of a system call sees.
#[derive(Debug, Error)]
pub enum FsError {
    /// The master refused.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The pool failed.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A node did not answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The master does not serve this mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// There is no session at the master, and none could be had in time.
    #[error("the master does not answer, so what this mount knows may be out of date")]
    NoSession,
    /// What was written could not be kept: the mount was away, and others have changed the file.
    #[error("the mount was cut off, and what was written to the file meanwhile is lost")]
    Lost,
    /// To wait for a lock would be to wait for oneself.
    #[error("waiting for this lock would never end")]
    Deadlock,
    /// The lock is not free.
    #[error("the lock is not free")]
    Locked,
    /// There are too many locks.
    #[error("too many locks")]
    TooManyLocks,
    /// A node answered with something else than what was asked.
    #[error("{0:?} gave an answer that does not fit the request")]
    BadReply(NodeId),
    /// No file is open with this handle.
    #[error("no open file has handle {0}")]
    BadHandle(u64),
    /// The file handle was not opened for this.
    #[error("the file is not open for this kind of access")]
    WrongAccess,
    /// The offset or length is out of range.
    #[error("offset or length out of range")]
    BadRange,
    /// The file would become larger than a file can be.
    #[error("the file would be too large")]
    TooBig,
    /// The pool is full but for what is kept for data that is already in the kernel's cache.
    #[error("the pool is full")]
    Full,
    /// The daemon answered a request for pages with fewer.
    #[error("the daemon gave out fewer pages than it was asked for")]
    TooFewPages,
    /// What was to be done is not right any more.
    #[error("overtaken by a later change")]
    Overtaken,
    /// There is no data, or no hole, from the offset on.
    #[error("no data or hole from offset {0} on")]
    NothingThere(u64),
    /// This mode of the operation is not supported.
    #[error("not supported")]
    NotSupported,
}

/// Result of an operation of the file system.
pub type Result<T> = std::result::Result<T, FsError>;
