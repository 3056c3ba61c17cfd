//! Why an operation on the pool failed.

use crate::addr::{PageId, RackId};
use crate::proto::page::PageError;
use crate::transport::TransportError;
use thiserror::Error;

/// Why an operation on the pool failed. After an error the bytes that were to be read or written are
/// unspecified; others are untouched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// The page was never allocated, or was freed.
    #[error("no page {0} in this pool")]
    NoSuchPage(PageId),
    /// Not enough free pages.
    #[error("the pool is full: {wanted} pages asked for, {free} free")]
    OutOfMemory {
        /// Pages asked for, with those that had to stay free.
        wanted: u64,
        /// Pages that were free.
        free: u64,
    },
    /// A compare-and-swap needs an address that is a multiple of 8.
    #[error("address {0:#x} is not a multiple of 8")]
    Unaligned(u64),
    /// The address names no page of this pool, or the range ends outside the address space.
    #[error("{len} bytes at {at:#x} are not in the address space of this pool")]
    BadAddress {
        /// The bit pattern of the address.
        at: u64,
        /// Bytes from there on.
        len: u64,
    },
    /// The page is being moved or freed, and that takes too long; or a client uses it and does not let go.
    #[error("page {0} is busy")]
    Busy(PageId),
    /// More threads use the region at once than it has access slots.
    #[error("all access slots of the region are taken")]
    NoSlot,
    /// The region belongs to another rack.
    #[error("the region belongs to rack {found}, not {wanted}")]
    WrongRack {
        /// The region's rack.
        found: RackId,
        /// The rack asked for.
        wanted: RackId,
    },
    /// The daemon's operating system failed it.
    #[error("{0}")]
    Os(String),
    /// There was no answer from the daemon.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl From<PageError> for PoolError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::OutOfMemory { wanted, free } => Self::OutOfMemory { wanted, free },
            PageError::Busy(page) => Self::Busy(page),
            PageError::Os(reason) => Self::Os(reason),
        }
    }
}
