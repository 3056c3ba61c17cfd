//! Where changes are kept, so that they outlive the process.
//!
//! A store knows records, not what they mean.

mod codec;
mod frame;
mod journal;
mod lock;
pub mod sled;
mod volatile;

pub use volatile::Volatile;

use crate::change::Change;
use std::io::ErrorKind;
use std::path::Path;
use thiserror::Error;

/// Keeps the records of a namespace and of a cluster.
pub trait Store: Send + Sync {
    /// Makes these changes, all or none. They survive the death of the process once this returns.
    /// May be called by several threads at once; changes of the same record never overlap.
    ///
    /// # Errors
    /// Nothing has changed then.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// Everything committed before survives loss of power once this returns.
    ///
    /// # Errors
    /// What was committed before may not survive loss of power.
    fn sync(&self) -> Result<(), StoreError>;

    /// Gives every record to `visit`, once and before [`begin`](Self::begin): marks, then inodes, then what
    /// belongs to inodes, then entries; then the cluster, its racks, blocks and moved pages, each in the
    /// order of their numbers.
    ///
    /// # Errors
    /// The store cannot be read, or holds something that no master wrote.
    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError>;

    /// Ends loading: what was loaded is good to go on with. Before this the store takes no commits, and
    /// writes nothing of its own accord.
    ///
    /// # Errors
    /// The store cannot be written.
    fn begin(&self) -> Result<(), StoreError>;

    /// An orderly end, after which power may be lost. Commits fail afterwards.
    ///
    /// # Errors
    /// As those of [`sync`](Self::sync).
    fn close(&self) -> Result<(), StoreError>;
}

/// Why a store refuses.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk is full.
    #[error("no space left in {place}")]
    NoSpace {
        /// Directory of the store.
        place: String,
    },
    /// These are more changes than can be made in one step.
    #[error("a change of more than 4 GiB cannot be written down in one step")]
    TooLong,
    /// The operating system failed.
    #[error("{what}: {source}")]
    Os {
        /// What was being done to what.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The store holds something that no master wrote.
    #[error("{place} is damaged: {what}")]
    Corrupt {
        /// File or directory.
        place: String,
        /// What is wrong, and what can be done.
        what: String,
    },
    /// The store belongs to something else.
    #[error("{0}")]
    Mismatch(String),
    /// Another process has it open.
    #[error("{place} is in use by process {holder}; only one mount at a time can have it")]
    InUse {
        /// Directory of the store.
        place: String,
        /// Process id of who holds it, as far as known.
        holder: String,
    },
    /// It was closed, or failed in a way after which it cannot be trusted.
    #[error("the store takes no more changes: {0}")]
    Stopped(String),
}

/// A failure of the operating system, told apart from a full disk.
fn full_or_os(path: &Path, doing: &str, why: std::io::Error) -> StoreError {
    match why.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StoreError::NoSpace { place: path.display().to_string() }
        }
        _ => StoreError::Os { what: format!("{doing} {}", path.display()), source: why },
    }
}
