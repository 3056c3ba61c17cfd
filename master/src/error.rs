//! Why a master cannot be opened or closed.

use crate::store::StoreError;
use pool::proto::page::PageError;
use pool::transport::TransportError;
use thiserror::Error;

/// Why a master cannot be opened or closed.
#[derive(Debug, Error)]
pub enum MasterError {
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The namespace is not what a master leaves, however it ends, and nobody said to mend it. The master
    /// has committed nothing and freed no page; a database may have cut off what it could not read of its
    /// own file when it was opened, as sled does.
    #[error(
        "the names in {state} are damaged ({count} problem{}, the first: {first}); copy {state} and the pool file, \
         then mount with -o repair to keep what can be kept",
        if *count == 1 { "" } else { "s" }
    )]
    Damaged {
        /// Directory of the store.
        state: String,
        /// How much is wrong.
        count: usize,
        /// The first of it, as a sentence.
        first: String,
    },
    /// The daemon cannot be asked which pages there are.
    #[error("the daemon that owns the pages did not answer: {0}")]
    Transport(#[from] TransportError),
    /// The daemon could not compare its pages with those of the files.
    #[error("the daemon could not compare its pages with those of the files: {0}")]
    Page(#[from] PageError),
    /// The daemon's answer fits no question.
    #[error("the daemon gave an answer that does not fit the question")]
    Mismatch,
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}
