//! What a mount will be: every default filled in, every contradiction found.

use super::error::CliError;
use super::host::Host;
use super::low::{Cache, IoUring, Low};
use super::units::Size;
use pool::addr::{PageSize, RackId};
use std::path::{Path, PathBuf};

/// Pages that the smallest pool must have room for, and the bytes it must have at least.
const LEAST_PAGES: u64 = 64;
const LEAST_SIZE: u64 = 1 << 20;
/// The size of a volatile pool when none is given, where memory is plenty.
const DEFAULT_SIZE: u64 = 4 << 30;
/// Bytes of pool for which there may be one inode, when no number is given.
const BYTES_PER_INODE: u64 = 2048;
/// Inodes that even the smallest pool may have.
const LEAST_INODES: u64 = 1 << 16;
/// The most threads one may ask for.
const MOST_THREADS: u64 = 256;

/// Where the pool's memory and names are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In memory of this process only; gone with it.
    Volatile,
    /// In a file or device, and a directory.
    Persistent {
        /// The region: a file, or a devdax device.
        cxl: PathBuf,
        /// The directory of the namespace's store.
        state: PathBuf,
    },
}

/// The embedded pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Where it is.
    pub backing: Backing,
    /// Bytes of memory for pages. `None`: as large as what `cxl` names already is, or else
    /// [`default_size`](Self::default_size).
    pub size: Option<u64>,
    /// The size for a pool that is made now and for which none was given.
    pub default_size: u64,
    /// Bytes of a page; `None`: that of the pool in `cxl`, or else the default.
    pub page_size: Option<PageSize>,
    /// The most inodes; `None`: one for each 2 KiB of pool.
    pub inodes: Option<u64>,
    /// Mend names that are damaged, instead of refusing them.
    pub repair: bool,
    /// The root directory of a file system that is made now.
    pub root: RootSettings,
}

impl PoolSettings {
    /// The most inodes in a pool of `size` bytes.
    pub fn max_inodes(&self, size: u64) -> u64 {
        self.inodes.unwrap_or((size / BYTES_PER_INODE).max(LEAST_INODES))
    }
}

/// A pool that other processes serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// The master: `HOST:PORT`.
    pub master: String,
    /// The rack that this host is in, or whose daemon does its I/O.
    pub rack: RackId,
    /// The rack's memory is not mapped: its daemon reads and writes.
    pub no_cxl: bool,
}

/// The pool behind a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolChoice {
    /// One in this process.
    Embedded(PoolSettings),
    /// One of a cluster.
    Cluster(ClusterSettings),
}

impl PoolChoice {
    /// Whether its files go when it is unmounted.
    pub fn is_volatile(&self) -> bool {
        matches!(self, Self::Embedded(PoolSettings { backing: Backing::Volatile, .. }))
    }
}

/// The root directory of a new file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootSettings {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permissions, if not the usual ones.
    pub mode: Option<u16>,
}

/// What the kernel is told at mount(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountFlags {
    /// Nothing can be changed.
    pub read_only: bool,
    /// Users other than the one who mounts may enter.
    pub allow_other: bool,
    /// Device files work.
    pub dev: bool,
    /// Set-id bits work.
    pub suid: bool,
    /// Programs can be run.
    pub exec: bool,
    /// Reading never changes the access time (else relatime).
    pub noatime: bool,
    /// Every write is as with `O_SYNC`.
    pub sync: bool,
    /// Every change of a directory is.
    pub dirsync: bool,
}

/// A mount, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The source as it was written: what the kernel shows as the device, so that `mount -a` knows it again.
    pub source: String,
    /// The directory to mount on.
    pub dir: PathBuf,
    /// The pool behind it.
    pub pool: PoolChoice,
    /// What the kernel may cache.
    pub cache: Cache,
    /// Whether requests come through io_uring.
    pub io_uring: IoUring,
    /// Threads that serve requests.
    pub threads: usize,
    /// For the kernel.
    pub flags: MountFlags,
    /// Stay in the foreground.
    pub foreground: bool,
    /// Say what is mounted, and how.
    pub verbose: bool,
    /// Do not say that a volatile pool is volatile.
    pub quiet: bool,
    /// Where messages go; `None`: to standard error, as long as there is one.
    pub log: Option<PathBuf>,
}

impl Settings {
    /// Fills in what was not given, and checks the whole.
    ///
    /// # Errors
    /// What contradicts what, and what `host` does not allow.
    pub fn resolve(low: Low, host: &Host) -> Result<Self, CliError> {
        let (source, pool) = source(&low, host)?;
        let settings = Self {
            source,
            pool,
            cache: cache(&low),
            io_uring: low.io_uring.unwrap_or(IoUring::Auto),
            threads: threads(&low, host)?,
            flags: flags(&low, host)?,
            dir: low.dir,
            foreground: low.foreground,
            verbose: low.verbose,
            quiet: low.quiet,
            log: low.log,
        };
        settings.check(host)?;
        Ok(settings)
    }

    /// Says what is contradictory or impossible.
    fn check(&self, host: &Host) -> Result<(), CliError> {
        match &self.pool {
            PoolChoice::Embedded(pool) => self.check_embedded(pool, host)?,
            PoolChoice::Cluster(_) if self.cache == Cache::Writeback && !host.is_root() => {
                return Err(CliError::WritebackByUser);
            }
            PoolChoice::Cluster(_) => {}
        }
        self.log.as_ref().map_or(Ok(()), |log| self.check_outside("log", log))
    }

    fn check_embedded(&self, pool: &PoolSettings, host: &Host) -> Result<(), CliError> {
        if let Some(size) = pool.size {
            let page = pool.page_size.unwrap_or(PageSize::MIN).bytes();
            let least = LEAST_SIZE.max(page * LEAST_PAGES);
            if size < least {
                return Err(CliError::TooSmall { size, page, least });
            }
            if pool.backing == Backing::Volatile && size > host.memory {
                return Err(CliError::TooLarge { size, memory: host.memory });
            }
        }
        if let Backing::Persistent { cxl, state } = &pool.backing {
            if cxl == state {
                return Err(CliError::SamePath { name: "cxl", other: "state", path: cxl.clone() });
            }
            for (name, path) in [("cxl", cxl), ("state", state)] {
                self.check_outside(name, path)?;
            }
        }
        Ok(())
    }

    /// A path under the mount point would be out of reach, and using it a deadlock.
    fn check_outside(&self, name: &'static str, path: &Path) -> Result<(), CliError> {
        let absolute = |p: &Path| {
            std::path::absolute(p).map_err(|e| CliError::Path { path: p.to_owned(), reason: e.to_string() })
        };
        if absolute(path)?.starts_with(absolute(&self.dir)?) {
            return Err(CliError::UnderMountPoint { name, path: path.to_owned() });
        }
        Ok(())
    }
}

/// The source, and the pool that it names.
fn source(low: &Low, host: &Host) -> Result<(String, PoolChoice), CliError> {
    match low.source.as_deref() {
        Some(s) if is_host_port(s) => Ok((s.to_owned(), PoolChoice::Cluster(cluster(low, s)?))),
        None => Ok(("embedded".to_owned(), PoolChoice::Embedded(pool(low, host)?))),
        Some(s @ ("embedded" | "none" | "rchfs")) => {
            Ok((s.to_owned(), PoolChoice::Embedded(pool(low, host)?)))
        }
        Some(s) => Err(CliError::UnknownSource(s.to_owned())),
    }
}

/// The pool of a cluster. What shapes a pool is up to those who serve it.
fn cluster(low: &Low, master: &str) -> Result<ClusterSettings, CliError> {
    let no_cxl = low.cxl.as_deref() == Some(Path::new("none"));
    let given = [
        ("size", low.size.is_some()),
        ("page_size", low.page_size.is_some()),
        ("inodes", low.inodes.is_some()),
        ("cxl", low.cxl.is_some() && !no_cxl),
        ("state", low.state.is_some()),
        ("repair", low.repair),
        ("uid", low.uid.is_some()),
        ("gid", low.gid.is_some()),
        ("mode", low.mode.is_some()),
    ];
    if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(CliError::EmbeddedOption(name));
    }
    if low.transport.as_deref() == Some("rdma") {
        return Err(CliError::NoRdma);
    }
    let rack = low.rack.unwrap_or(0);
    let want = "a number from 0 to 65535";
    let rack = u16::try_from(rack).map_err(|_| CliError::BadValue {
        name: "rack",
        value: rack.to_string(),
        want,
    })?;
    Ok(ClusterSettings { master: master.to_owned(), rack: RackId(rack), no_cxl })
}

/// What the kernel may cache. Where nothing is written, nothing is written back.
fn cache(low: &Low) -> Cache {
    match low.cache {
        Some(Cache::Writeback) if low.read_only == Some(true) => Cache::Auto,
        given => given.unwrap_or(Cache::Auto),
    }
}

fn is_host_port(source: &str) -> bool {
    source.rsplit_once(':').is_some_and(|(host, port)| !host.contains('/') && port.parse::<u16>().is_ok())
}

fn pool(low: &Low, host: &Host) -> Result<PoolSettings, CliError> {
    if low.rack.is_some() {
        return Err(CliError::ClusterOption("rack"));
    }
    if low.transport.as_deref().is_some_and(|t| t != "auto") {
        return Err(CliError::ClusterOption("transport"));
    }
    let backing = match (&low.cxl, &low.state) {
        (None, None) => Backing::Volatile,
        (Some(cxl), Some(state)) => Backing::Persistent { cxl: cxl.clone(), state: state.clone() },
        (Some(cxl), None) => return Err(CliError::CxlWithoutState(cxl.clone())),
        (None, Some(state)) => return Err(CliError::StateWithoutCxl(state.clone())),
    };
    Ok(PoolSettings {
        backing,
        size: low.size.map(|s| bytes(s, host)).transpose()?,
        default_size: DEFAULT_SIZE.min(host.memory / 2),
        page_size: low.page_size.map(|s| page_size(s, host)).transpose()?,
        inodes: low.inodes,
        repair: low.repair,
        root: RootSettings {
            uid: low.uid.unwrap_or(host.uid),
            gid: low.gid.unwrap_or(host.gid),
            mode: low.mode,
        },
    })
}

fn bytes(size: Size, host: &Host) -> Result<u64, CliError> {
    size.bytes(host.memory).ok_or(CliError::TooLarge { size: u64::MAX, memory: host.memory })
}

fn page_size(size: Size, host: &Host) -> Result<PageSize, CliError> {
    let bytes = bytes(size, host)?;
    PageSize::from_bytes(bytes).ok_or(CliError::PageSize(bytes))
}

fn threads(low: &Low, host: &Host) -> Result<usize, CliError> {
    match low.threads {
        None => Ok((2 * host.cpus).clamp(4, 16)),
        Some(n @ 1..=MOST_THREADS) => Ok(n as usize),
        Some(n) => {
            Err(CliError::BadValue { name: "threads", value: n.to_string(), want: "a number from 1 to 256" })
        }
    }
}

fn flags(low: &Low, host: &Host) -> Result<MountFlags, CliError> {
    let root = host.is_root();
    if low.allow_other && !root && !host.user_allow_other {
        return Err(CliError::AllowOther);
    }
    for (name, given) in [("dev", low.dev), ("suid", low.suid)] {
        if given == Some(true) && !root {
            return Err(CliError::RootOnly(name));
        }
    }
    Ok(MountFlags {
        read_only: low.read_only.unwrap_or(false),
        allow_other: root || host.user_allow_other,
        dev: low.dev.unwrap_or(root),
        suid: low.suid.unwrap_or(root),
        exec: low.exec.unwrap_or(true),
        noatime: low.noatime.unwrap_or(false),
        sync: low.sync.unwrap_or(false),
        dirsync: low.dirsync,
    })
}

#[cfg(test)]
mod tests;
