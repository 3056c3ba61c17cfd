//! A pool of a cluster, as a mount on a host of one of its racks uses it.
//!
//! Must not know FUSE, or what the command line looks like.

use crate::cli::low::Cache;
use crate::cli::settings::ClusterSettings;
use crate::cli::units::Bytes;
use crate::embed::reserve_pages;
use crate::fs::{Fs, FsConfig};
use pool::{Pool, PoolError};
use std::fmt;
use thiserror::Error;

/// Why the cluster cannot be joined.
#[derive(Debug, Error)]
#[error("{master}: {source}")]
pub struct JoinError {
    /// The master's address.
    master: String,
    /// What is wrong.
    source: PoolError,
}

/// A client of a cluster.
pub struct Joined {
    master: String,
    pool: Pool,
}

impl Joined {
    /// Joins the rack that `settings` name.
    ///
    /// # Errors
    /// With what to do about it.
    pub fn start(settings: &ClusterSettings) -> Result<Self, JoinError> {
        let master = settings.master.clone();
        match Pool::connect(&settings.master, settings.rack) {
            Ok(pool) => Ok(Self { master, pool }),
            Err(source) => Err(JoinError { master, source }),
        }
    }

    /// The file system on the pool.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn file_system(&self, cache: Cache, noatime: bool) -> Result<Fs, JoinError> {
        let stat = self.pool.stat().map_err(|source| JoinError { master: self.master.clone(), source })?;
        let total = stat.total * self.pool.page_size().bytes();
        let reserve_pages = match cache {
            Cache::None => 0,
            Cache::Auto => reserve_pages(total, self.pool.page_size()),
        };
        let config = FsConfig { reserve_pages, durable: true, noatime };
        Ok(Fs::new(self.pool.clone(), self.pool.transport(), config))
    }
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.pool.stat().map_or(0, |stat| stat.total * self.pool.page_size().bytes());
        write!(f, "rack {} of the cluster at {}, {} in all", self.pool.rack(), self.master, Bytes(total))
    }
}
