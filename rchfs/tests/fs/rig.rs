//! A whole embedded pool with a file system on it.

use daemon::{Daemon, DaemonConfig};
use master::{Master, MasterConfig, Pages};
use pool::Pool;
use pool::addr::{PageSize, RackId};
use pool::cxl::region::RegionSource;
use pool::proto::NodeId;
use pool::proto::meta::{Caller, Ino};
use pool::transport::{Handler, Local, Transport};
use rchfs::fs::io::WriteFlags;
use rchfs::fs::names::Making;
use rchfs::fs::{Access, Fs, FsConfig, Origin};
use std::sync::Arc;

pub const ROOT: Caller = Caller { uid: 0, gid: 0 };
pub const RW: Access = Access { read: true, write: true, direct: false, append: false };
pub const PROGRAM: WriteFlags = WriteFlags { origin: Origin::Program, kill_suid: false };
pub const CACHE: WriteFlags = WriteFlags { origin: Origin::Cache, kill_suid: false };

/// Pages that are kept for the kernel's cache.
pub const RESERVE: u64 = 16;

/// The parts, kept alive.
pub struct Rig {
    pub fs: Fs,
    _daemon: Arc<dyn Handler>,
    _master: Arc<dyn Handler>,
}

/// A file system of `pages` pages of `page` bytes.
pub fn rig(pages: u64, page: u64) -> Rig {
    rig_with(pages, page, |transport| transport)
}

/// The same, with the transport that `Fs` uses wrapped.
pub fn rig_with(pages: u64, page: u64, wrap: impl FnOnce(Arc<dyn Transport>) -> Arc<dyn Transport>) -> Rig {
    let page_size = PageSize::from_bytes(page).unwrap();
    let local = Arc::new(Local::new());
    let rack = RackId(0);
    let config = DaemonConfig { rack, source: RegionSource::Memfd, size: pages * page, page_size };
    let daemon = Daemon::start(config).unwrap();
    let (region, pool_id) = (daemon.region(), daemon.pool_id());
    let daemon: Arc<dyn Handler> = Arc::new(daemon);
    local.register(NodeId::Daemon(rack), &daemon);
    let config = MasterConfig {
        store: None,
        page_size,
        max_inodes: 1000,
        pool_id,
        pages: Pages::Daemon(NodeId::Daemon(rack)),
        root: ROOT,
        repair: false,
    };
    let master: Arc<dyn Handler> = Arc::new(Master::open(config, local.clone()).unwrap());
    local.register(NodeId::Master, &master);
    let transport = wrap(local);
    let pool = Pool::attach(region, rack, transport.clone()).unwrap();
    let config = FsConfig { reserve_pages: RESERVE, durable: false, noatime: false, writeback: false };
    Rig { fs: Fs::new(pool, transport, config), _daemon: daemon, _master: master }
}

impl Rig {
    /// Makes a file in the root directory and opens it.
    pub fn create(&self, name: &str) -> (Ino, u64) {
        let what =
            Making { parent: Ino::ROOT, name: name.as_bytes(), caller: ROOT, perm: 0o644, umask: 0o022 };
        let (attr, handle) = self.fs.create(what, RW).unwrap();
        (attr.ino, handle)
    }

    /// All bytes of an open file.
    pub fn read_all(&self, handle: u64) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let piece = self.read(handle, all.len() as u64, 1 << 20);
            if piece.is_empty() {
                return all;
            }
            all.extend(piece);
        }
    }

    /// Up to `len` bytes at `at` of an open file.
    pub fn read(&self, handle: u64, at: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xEE; len];
        let read = self.fs.read(handle, at, &mut out).unwrap();
        out.truncate(read);
        out
    }

    /// Pages in use.
    pub fn used(&self) -> u64 {
        let space = self.fs.space().unwrap();
        space.total - space.free
    }
}
