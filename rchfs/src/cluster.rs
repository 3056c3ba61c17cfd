//! A pool of a cluster, as a mount on a host of one of its racks uses it.
//!
//! Must not know FUSE, or what the command line looks like.

mod keeper;

use crate::cli::low::Cache;
use crate::cli::settings::ClusterSettings;
use crate::cli::units::Bytes;
use crate::embed::reserve_pages;
use crate::fs::FsError;
use crate::fs::session::Session;
use crate::fs::{Fs, FsConfig};
use keeper::Keeper;
use parking_lot::Mutex;
use pool::{Pool, PoolError};
use std::fmt;
use std::sync::Arc;
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
    #[error(transparent)]
    Session(#[from] FsError),
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error("the file system is in use already")]
    InUse,
}

/// A client of a cluster.
pub struct Joined {
    master: String,
    pool: Pool,
    /// Until the file system is made.
    session: Mutex<Option<Session>>,
    keeper: Mutex<Option<Keeper>>,
}

impl Joined {
    /// Joins the rack that `settings` name.
    ///
    /// # Errors
    /// With what to do about it.
    pub fn start(settings: &ClusterSettings) -> Result<Self, JoinError> {
        let master = settings.master.clone();
        let join = || {
            let pool = match settings.no_cxl {
                false => Pool::connect(&settings.master, settings.rack)?,
                true => Pool::connect_without_cxl(&settings.master, settings.rack)?,
            };
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let by = format!("process {} on {}, rack {}", std::process::id(), host.trim(), settings.rack);
            let session = Session::open(pool.transport(), by, (settings.rack, pool.client()))?;
            Ok((pool, session))
        };
        match join() {
            Ok((pool, session)) => {
                let (session, keeper) = (Mutex::new(Some(session)), Mutex::default());
                Ok(Self { master, pool, session, keeper })
            }
            Err(source) => Err(JoinError { master, source }),
        }
    }

    /// The mount is over.
    pub fn shutdown(&self) {
        let keeper = self.keeper.lock().take();
        keeper.into_iter().for_each(Keeper::end);
    }

    /// The file system on the pool.
    ///
    /// # Errors
    /// If the daemon does not answer, or this is asked a second time.
    pub fn file_system(&self, cache: Cache, noatime: bool) -> Result<Arc<Fs>, JoinError> {
        let stat = self
            .pool
            .stat()
            .map_err(|source| JoinError { master: self.master.clone(), source: source.into() })?;
        let total = stat.total * self.pool.page_size().bytes();
        let reserve_pages = match cache {
            Cache::None => 0,
            Cache::Auto | Cache::Writeback => reserve_pages(total, self.pool.page_size()),
        };
        let writeback = cache == Cache::Writeback;
        let config = FsConfig { reserve_pages, durable: true, noatime, writeback };
        let fault = |source| JoinError { master: self.master.clone(), source };
        let session = self.session.lock().take().ok_or_else(|| fault(JoinFault::InUse))?;
        let fs = Fs::new_shared(self.pool.clone(), self.pool.transport(), config, session);
        let fs = Arc::new(fs);
        let keeper = Keeper::start(fs.clone()).map_err(|e| fault(JoinFault::Thread(e)))?;
        *self.keeper.lock() = Some(keeper);
        Ok(fs)
    }
}

impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.pool.stat().map_or(0, |stat| stat.total * self.pool.page_size().bytes());
        let way = if self.pool.is_mapped() { "" } else { " by way of its daemon" };
        write!(f, "rack {}{way} of the cluster at {}, {} in all", self.pool.rack(), self.master, Bytes(total))
    }
}
