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
    /// The daemon cannot be asked which pages there are.
    #[error("the daemon that owns the pages did not answer: {0}")]
    Transport(#[from] TransportError),
    /// The daemon could not compare its pages with those of the files.
    #[error("the daemon could not compare its pages with those of the files: {0}")]
    Page(#[from] PageError),
    /// The daemon's answer fits no question.
    #[error("the daemon gave an answer that does not fit the question")]
    Mismatch,
}
