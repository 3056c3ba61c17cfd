//! A whole pool in this process: a daemon with its region, a master with its store, a client, and the
//! file system on them. They talk through the same messages as in a cluster, over the local transport.
//!
//! On the way up: daemon, master, client. On the way down the other way round, so that whoever is still
//! there finds what it needs. Must not know FUSE, or what the command line looks like.

mod report;

use crate::cli::low::Cache;
use crate::cli::settings::{Backing, PoolSettings};
use crate::cli::units::Bytes;
use crate::fs::{Fs, FsConfig};
use crate::run::holder;
use daemon::{Daemon, DaemonConfig, DaemonError, Opened, RegionError, RegionSource};
use master::store::StoreError;
use master::{Master, MasterConfig, MasterError, Pages};
use pool::Pool;
use pool::PoolError;
use pool::addr::{PageSize, RackId};
use pool::cxl::region::Kind;
use pool::proto::meta::{Caller, Ino, MetaError, MetaRequest, SetAttr};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, Local, Transport, TransportError};
use std::fmt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Once};
use std::thread::sleep;
use std::time::{Duration, Instant};
use thiserror::Error;

/// The one rack of an embedded pool.
const RACK: RackId = RackId(0);
/// What is kept free for data that the kernel has accepted: this part of the pool, but not more than so
/// many bytes.
const RESERVE_PART: u64 = 16;
const RESERVE_MOST: u64 = 64 << 20;
/// How long to wait for a process that is on its way out to let go of the pool: umount(8) returns before
/// the process that served the mount has ended.
const HANDOVER: Duration = Duration::from_secs(10);

/// Why there is no pool.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// The region.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The namespace.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The client.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A pool with pages, and a state directory without a namespace: opening would free every page.
    #[error(
        "{cxl} holds {pages} pages of files, but {state} holds no names for them; name the directory that belongs to it, \
         or remove {cxl} to start empty"
    )]
    NoNames {
        /// The region.
        cxl: String,
        /// The directory.
        state: String,
        /// Pages that have an owner somewhere, or had.
        pages: u64,
    },
    /// The root directory could not be given its permissions.
    #[error("the root directory cannot be given its mode: {0}")]
    Root(MetaError),
    /// A message within the process got lost.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A running pool.
pub struct Embedded {
    daemon: Arc<Daemon>,
    master: Arc<Master>,
    transport: Arc<Local>,
    durable: bool,
    down: Once,
}

impl Embedded {
    /// Opens the pool that `settings` name, or makes it.
    ///
    /// # Errors
    /// With what to do about it.
    pub fn start(settings: &PoolSettings) -> Result<Self, EmbedError> {
        let daemon = Arc::new(start_daemon(settings)?);
        Self::open(settings, Arc::clone(&daemon)).inspect_err(|_| forget_new(settings, &daemon))
    }

    fn open(settings: &PoolSettings, daemon: Arc<Daemon>) -> Result<Self, EmbedError> {
        let transport = Arc::new(Local::new());
        check_names(settings, daemon.opened())?;
        let handler: Arc<dyn Handler> = daemon.clone();
        transport.register(NodeId::Daemon(RACK), &handler);
        let master = Arc::new(start_master(settings, &daemon, &transport)?);
        let handler: Arc<dyn Handler> = master.clone();
        transport.register(NodeId::Master, &handler);
        let durable = settings.backing != Backing::Volatile;
        let pool = Self { daemon, master, transport, durable, down: Once::new() };
        if *pool.daemon.opened() == Opened::Created {
            pool.set_root_mode(settings.root.mode)?;
        }
        Ok(pool)
    }

    /// What recovery found that the user should know, a line each.
    pub fn notices(&self) -> Vec<String> {
        report::notices(self.daemon.opened(), self.master.recovery())
    }

    /// A client of the pool, and the file system on it.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn file_system(&self, cache: Cache, noatime: bool) -> Result<Fs, EmbedError> {
        let pool = Pool::attach(self.daemon.region(), RACK, self.transport.clone())?;
        let reserve_pages = match cache {
            Cache::None => 0,
            Cache::Auto | Cache::Writeback => reserve_pages(self.data_bytes(), self.page_size()),
        };
        let config = FsConfig { reserve_pages, durable: self.durable, noatime, writeback: false };
        Ok(Fs::new(pool, self.transport.clone(), config))
    }

    /// Brings everything to rest: what is answered is stored. The first call does it; others wait for it.
    pub fn shutdown(&self) {
        self.down.call_once(|| {
            if let Err(e) = self.master.shutdown() {
                log::error!("closing the namespace: {e}");
            }
            self.daemon.shutdown();
        });
    }

    fn page_size(&self) -> PageSize {
        self.daemon.region().geometry().page_size
    }

    fn data_bytes(&self) -> u64 {
        self.daemon.region().geometry().data_bytes()
    }

    fn set_root_mode(&self, mode: Option<u16>) -> Result<(), EmbedError> {
        let Some(perm) = mode else { return Ok(()) };
        let caller = Caller { uid: 0, gid: 0 };
        let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
        let request = Request::Meta(MetaRequest::SetAttr { ino: Ino::ROOT, caller, set });
        match self.transport.call(NodeId::Master, request)? {
            Reply::Meta(reply) => reply.map(drop).map_err(EmbedError::Root),
            _ => Err(TransportError::Mismatch(NodeId::Master).into()),
        }
    }
}

impl fmt::Display for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.daemon.region();
        let (size, page) = (Bytes(self.data_bytes()), self.page_size());
        write!(f, "embedded pool of {size} in {}, pages of {page}", region.name())
    }
}

/// Pages of a pool of `total` bytes that are kept for data in the kernel's cache.
pub(crate) fn reserve_pages(total: u64, page: PageSize) -> u64 {
    page.page_of((total / RESERVE_PART).min(RESERVE_MOST))
}

/// Starts the daemon; of a pool that is there already, its own page size counts if none was given.
fn start_daemon(settings: &PoolSettings) -> Result<Daemon, EmbedError> {
    let mut config = DaemonConfig {
        rack: RACK,
        source: match &settings.backing {
            Backing::Volatile => RegionSource::Memfd,
            Backing::Persistent { cxl, .. } => RegionSource::Path(cxl.clone()),
        },
        size: size(settings),
        page_size: settings.page_size.unwrap_or(PageSize::MIN),
    };
    let start = |config: &DaemonConfig| {
        patiently(
            || Daemon::start(config.clone()),
            |e| match e {
                DaemonError::Region(RegionError::InUse { holder, .. }) => Some(holder),
                _ => None,
            },
        )
    };
    match start(&config) {
        Err(DaemonError::Region(RegionError::PageSize { found, .. })) if settings.page_size.is_none() => {
            config.page_size = found;
            Ok(start(&config)?)
        }
        other => Ok(other?),
    }
}

/// Bytes of a pool: as asked for, or as a pool or device that is there has (0), or the default.
fn size(settings: &PoolSettings) -> u64 {
    let has_size =
        |path: &Path| path.metadata().is_ok_and(|meta| meta.file_type().is_char_device() || meta.len() > 0);
    match (settings.size, &settings.backing) {
        (Some(size), _) => size,
        (None, Backing::Persistent { cxl, .. }) if has_size(cxl) => 0,
        (None, _) => settings.default_size,
    }
}

/// Removes the region that was made for a mount that is refused: it would be in the way of the next. The
/// daemon still holds it, so it is nobody else's.
fn forget_new(settings: &PoolSettings, daemon: &Daemon) {
    if let Backing::Persistent { cxl, .. } = &settings.backing
        && *daemon.opened() == Opened::Created
        && matches!(daemon.region().kind(), Kind::MemoryFile | Kind::DiskFile)
        && let Err(e) = std::fs::remove_file(cxl)
    {
        log::warn!("{} stays: {e}", cxl.display());
    }
}

/// A mistyped `state=` must not cost the files: an empty namespace owns no page, so all would be freed.
fn check_names(settings: &PoolSettings, opened: &Opened) -> Result<(), EmbedError> {
    let Backing::Persistent { cxl, state } = &settings.backing else { return Ok(()) };
    let empty = match state.read_dir() {
        Ok(mut entries) => entries.next().is_none(),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    match opened {
        Opened::Reopened { pages, .. } if empty && *pages > 0 => {
            let (cxl, state) = (cxl.display().to_string(), state.display().to_string());
            Err(EmbedError::NoNames { cxl, state, pages: *pages })
        }
        _ => Ok(()),
    }
}

fn start_master(
    settings: &PoolSettings,
    daemon: &Daemon,
    transport: &Arc<Local>,
) -> Result<Master, EmbedError> {
    let region = daemon.region();
    let geometry = region.geometry();
    let config = MasterConfig {
        store: match &settings.backing {
            Backing::Volatile => None,
            Backing::Persistent { state, .. } => Some(state.clone()),
        },
        page_size: geometry.page_size,
        max_inodes: settings.max_inodes(geometry.data_bytes()),
        pool_id: daemon.pool_id(),
        pages: Pages::Daemon(NodeId::Daemon(RACK)),
        root: Caller { uid: settings.root.uid, gid: settings.root.gid },
        repair: settings.repair,
    };
    let open = || Master::open(config.clone(), transport.clone());
    Ok(patiently(open, |e| match e {
        MasterError::Store(StoreError::InUse { holder, .. }) => Some(holder),
        _ => None,
    })?)
}

/// Tries again while the holder that `held_by` finds in the error is a process on its way out: one that
/// serves no mount any more.
fn patiently<T, E>(
    attempt: impl Fn() -> Result<T, E>,
    held_by: impl Fn(&E) -> Option<&String>,
) -> Result<T, E> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        match attempt() {
            Err(e) if held_by(&e).is_some_and(|h| is_leaving(h)) && Instant::now() < deadline => {
                sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

/// Whether the process whose id is the first number in `holder` serves no mount (any more).
fn is_leaving(holder: &str) -> bool {
    let digits = holder.split(|c: char| !c.is_ascii_digit()).find(|w| !w.is_empty());
    digits.and_then(|d| d.parse().ok()).is_some_and(|pid| holder::serves(pid) == Some(false))
}

#[cfg(test)]
mod tests;
