//! Why an operation on a table failed, and why one is to be tried again.

use crate::error::PoolError;
use thiserror::Error;

/// Why an operation on a table failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DhtError {
    /// There is no table at this address, or one of another version.
    #[error("there is no hash table of this version at {0:#x}")]
    NoTable(u64),
    /// The key is longer than keys may be.
    #[error("a key has at most {most} bytes, not {len}")]
    KeyTooLong {
        /// Its length in bytes.
        len: u64,
        /// The most.
        most: u64,
    },
    /// The value is longer than values may be.
    #[error("a value has at most {most} bytes, not {len}")]
    ValueTooLong {
        /// Its length in bytes.
        len: u64,
        /// The most.
        most: u64,
    },
    /// The pool's addresses have become longer than a table can hold.
    #[error(
        "the pool has given out more than 4 PiB of addresses, and a hash table cannot use those past that"
    )]
    AddressTooHigh,
    /// What belongs to the table is not there or makes no sense, and stays so.
    #[error("the hash table is damaged: {0}; pages of it were lost, freed or overwritten")]
    Damaged(String),
    /// Others were first again and again.
    #[error("the slot of this key changes all the time, or a page of the table is lost; try again")]
    Contended,
    /// The pool failed. A change may then have been made or not.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Why an attempt at an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something has changed meanwhile.
    Retry,
    /// The segment is no longer there: the directory is old.
    Stale,
    /// It failed.
    Error(DhtError),
}

impl From<DhtError> for Fault {
    fn from(error: DhtError) -> Self {
        Self::Error(error)
    }
}

impl Fault {
    /// Whether an access may or may not have been made, or may be made later.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Retry | Self::Stale => false,
            Self::Error(DhtError::Pool(PoolError::OutOfMemory { .. })) => false,
            Self::Error(error) => matches!(error, DhtError::Pool(_)),
        }
    }

    /// An access to what may have been freed meanwhile failed.
    pub fn gone_or(error: PoolError, gone: Fault) -> Self {
        match error {
            PoolError::NoSuchPage(_) | PoolError::BadAddress { .. } => gone,
            error => Self::Error(error.into()),
        }
    }
}
