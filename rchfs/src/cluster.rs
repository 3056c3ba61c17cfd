//! A pool of a cluster, as a mount on a host of one of its racks uses it.
//!
//! Must not know FUSE, or what the command line looks like.

mod lease;

use crate::cli::low::Cache;
use crate::cli::settings::ClusterSettings;
use crate::cli::units::Bytes;
use crate::embed::reserve_pages;
use crate::fs::{Fs, FsConfig};
use lease::MountLease;
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
    source: JoinFault,
}

/// What is wrong.
#[derive(Debug, Error)]
enum JoinFault {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error("{0}")]
    Mount(String),
}

/// A client of a cluster.
pub struct Joined {
    master: String,
    pool: Pool,
    lease: MountLease,
}

impl Joined {
    /// Joins the rack that `settings` name.
    ///
    /// # Errors
    /// With what to do about it.
    pub fn start(settings: &ClusterSettings) -> Result<Self, JoinError> {
        let master = settings.master.clone();
        let join = || {
            let pool = Pool::connect(&settings.master, settings.rack)?;
            let lease = MountLease::take(pool.transport()).map_err(JoinFault::Mount)?;
            Ok((pool, lease))
        };
        match join() {
            Ok((pool, lease)) => Ok(Self { master, pool, lease }),
            Err(source) => Err(JoinError { master, source }),
        }
    }

    /// The mount is over: another may have the file system.
    pub fn shutdown(&self) {
        self.lease.end();
    }

    /// The file system on the pool.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn file_system(&self, cache: Cache, noatime: bool) -> Result<Fs, JoinError> {
        let stat = self
            .pool
            .stat()
            .map_err(|source| JoinError { master: self.master.clone(), source: source.into() })?;
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
