//! Why an operation on the pool failed.

use crate::addr::{PageId, PageSize, RackId};
use crate::proto::cluster::ClusterError;
use crate::proto::page::PageError;
use crate::transport::{RingError, TransportError};
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
    /// An object has at least one byte, and at most a page.
    #[error("an object has from 1 to {most} bytes, not {size}; for more use `alloc_runs`")]
    BadSize {
        /// Bytes asked for.
        size: u64,
        /// Bytes of a page.
        most: u64,
    },
    /// The cluster has no such rack.
    #[error("there is no rack {rack} in this cluster; there {}", list(there_are))]
    NoSuchRack {
        /// The rack asked for.
        rack: RackId,
        /// Those there are.
        there_are: Vec<RackId>,
    },
    /// The daemon of the rack is not there, as far as the master knows.
    #[error("the daemon of rack {0} is not alive; start it")]
    DaemonDown(RackId),
    /// The region that this process has mapped is no longer the one of its rack.
    #[error("the daemon of rack {0} has a new region; attach again")]
    StaleRegion(RackId),
    /// The region that the master names cannot be mapped here.
    #[error(
        "{0}; a client must be on a host of its rack, with the right to write that file; elsewhere use cxl=none, which \
         goes by way of the daemon (rcmp: --cxl none)"
    )]
    Region(String),
    /// The region belongs to another cluster.
    #[error(
        "the region belongs to cluster {found:032x} and the master serves {wanted:032x}; if this is no host of the rack, \
         use cxl=none"
    )]
    OtherCluster {
        /// The region's.
        found: u128,
        /// The master's.
        wanted: u128,
    },
    /// The region's pages have another size.
    #[error("the region has pages of {found} and the cluster of {wanted}")]
    OtherPageSize {
        /// The region's.
        found: PageSize,
        /// The cluster's.
        wanted: PageSize,
    },
    /// The region belongs to another rack.
    #[error(
        "the region belongs to rack {found}, not {wanted}; if this is no host of that rack, use cxl=none"
    )]
    WrongRack {
        /// The region's rack.
        found: RackId,
        /// The rack asked for.
        wanted: RackId,
    },
    /// No object was allocated at this address, or it was freed.
    #[error("no object at {0:#x}")]
    NoSuchObject(u64),
    /// The rack that holds the page cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// A client without CXL was cut off, and cannot say any more that it alone writes there: the write may or may
    /// not have been done.
    #[error("the client was cut off from its daemon; what was written meanwhile may be lost")]
    Lapsed,
    /// The daemon's operating system failed it.
    #[error("{0}")]
    Os(String),
    /// The daemon of the rack takes no more clients, or none at all.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The master refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

fn list(racks: &[RackId]) -> String {
    let names: Vec<String> = racks.iter().map(RackId::to_string).collect();
    match names.as_slice() {
        [] => "are none".into(),
        [one] => format!("is {one}"),
        many => format!("are {}", many.join(", ")),
    }
}

impl From<PageError> for PoolError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::OutOfMemory { wanted, free } => Self::OutOfMemory { wanted, free },
            PageError::Busy(page) => Self::Busy(page),
            PageError::NoSuchPage(page) => Self::NoSuchPage(page),
            PageError::NoSuchObject(at) => Self::NoSuchObject(at.raw()),
            PageError::Invalid(reason) | PageError::Os(reason) => Self::Os(reason),
            PageError::Unreachable(reason) => Self::Unreachable(reason),
        }
    }
}
