//! The pool behind a mount: one in this process, or one of a cluster.
//!
//! Must not know FUSE, or what the command line looks like.

use crate::cli::low::Cache;
use crate::cli::settings::PoolChoice;
use crate::cluster::{JoinError, Joined};
use crate::embed::{EmbedError, Embedded};
use crate::fs::Fs;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// Why there is no pool.
#[derive(Debug, Error)]
pub enum BackendError {
    /// In this process.
    #[error(transparent)]
    Embedded(#[from] EmbedError),
    /// In a cluster.
    #[error(transparent)]
    Cluster(#[from] JoinError),
}

/// A pool that answers.
pub enum Backend {
    /// In this process.
    Embedded(Embedded),
    /// In a cluster.
    Cluster(Joined),
}

impl Backend {
    /// Opens, makes or joins the pool.
    ///
    /// # Errors
    /// With what to do about it.
    pub fn start(choice: &PoolChoice) -> Result<Self, BackendError> {
        Ok(match choice {
            PoolChoice::Embedded(settings) => Self::Embedded(Embedded::start(settings)?),
            PoolChoice::Cluster(settings) => Self::Cluster(Joined::start(settings)?),
        })
    }

    /// What recovery found that the user should know, a line each.
    pub fn notices(&self) -> Vec<String> {
        match self {
            Self::Embedded(pool) => pool.notices(),
            Self::Cluster(_) => Vec::new(),
        }
    }

    /// The file system on the pool.
    ///
    /// # Errors
    /// If the pool does not answer.
    pub fn file_system(&self, cache: Cache, noatime: bool) -> Result<Arc<Fs>, BackendError> {
        Ok(match self {
            Self::Embedded(pool) => Arc::new(pool.file_system(cache, noatime)?),
            Self::Cluster(pool) => pool.file_system(cache, noatime)?,
        })
    }

    /// Brings to rest what is in this process.
    pub fn shutdown(&self) {
        match self {
            Self::Embedded(pool) => pool.shutdown(),
            // What was answered is with the master and the daemons already.
            Self::Cluster(pool) => pool.shutdown(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded(pool) => pool.fmt(f),
            Self::Cluster(pool) => pool.fmt(f),
        }
    }
}
