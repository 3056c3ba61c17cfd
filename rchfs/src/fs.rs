//! The semantics of the file system, without FUSE: what each operation means in terms of messages to
//! the master and pages of the pool.
//!
//! `fs` knows neither how requests arrive nor how messages travel, so it is tested without a mount.
//! Names and attributes are the master's ([`names`]); this side keeps only what it must: which inodes
//! the kernel knows ([`inodes`]), and size and map of open files ([`file`], [`map`]), through which data
//! moves between the caller's buffer and the pool in one copy ([`io`]).

mod clone;
pub mod errno;
pub mod error;
pub mod file;
mod handles;
mod inodes;
pub mod io;
mod map;
pub mod names;
pub mod ranges;
pub mod space;
mod times;

pub use error::{FsError, Result};
pub use file::Access;
pub use space::{Origin, Space};

use handles::Handles;
use inodes::Inodes;
use parking_lot::RwLock;
use pool::Pool;
use pool::addr::PageSize;
use pool::proto::meta::{Attr, Ino, MetaReply, MetaRequest, Time};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

/// What can be chosen about a mount's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// Pages kept for data that is already in the kernel's cache (see [`space`](self::space)).
    pub reserve_pages: u64,
    /// The pool outlives the process: fsync has something to do.
    pub durable: bool,
    /// Access times are not kept.
    pub noatime: bool,
}

/// What the file system asks of the kernel on its own account.
pub trait Kernel: Send + Sync {
    /// Makes the kernel ask for the attributes of `ino` when it needs them next. Must not wait for the
    /// kernel: the caller may be answering a request about that inode.
    fn forget_attributes(&self, ino: Ino);

    /// Corrects the modification time that the kernel keeps of a file that was written past its cache.
    /// Must not wait for the kernel, either.
    fn set_mtime(&self, ino: Ino, time: Time);

    /// Sets how many bytes of dirty data the kernel may hold. Must not wait for the kernel, either.
    fn limit_dirty(&self, bytes: u64);
}

/// A mounted file system.
pub struct Fs {
    pool: Pool,
    size: PageSize,
    transport: Arc<dyn Transport>,
    config: FsConfig,
    inodes: Inodes,
    handles: Handles,
    kernel: OnceLock<Box<dyn Kernel>>,
    /// Held shared by whoever writes to pages that exist, and exclusively while a tree is cloned. Taken before the
    /// state of any file.
    clones: RwLock<()>,
    /// Pages to give out until the kernel is told anew how much it may hold.
    until_limit: AtomicI64,
}

impl Fs {
    /// A file system whose data is in `pool` and whose namespace is at the master that `transport`
    /// reaches.
    pub fn new(pool: Pool, transport: Arc<dyn Transport>, config: FsConfig) -> Self {
        Self {
            size: pool.page_size(),
            pool,
            transport,
            config,
            inodes: Inodes::default(),
            handles: Handles::default(),
            kernel: OnceLock::new(),
            clones: RwLock::new(()),
            until_limit: AtomicI64::new(0),
        }
    }

    /// Says how to reach the kernel. The first call counts.
    pub fn set_kernel(&self, kernel: Box<dyn Kernel>) {
        if self.kernel.set(kernel).is_err() {
            log::debug!("the kernel is known already");
        }
        self.limit_dirty();
    }

    /// Whether the pool outlives the process.
    pub fn is_durable(&self) -> bool {
        self.config.durable
    }

    /// Bytes in a page of the pool.
    pub fn page_bytes(&self) -> u32 {
        self.size.bytes() as u32
    }

    /// Sends a request to the master.
    fn meta(&self, request: MetaRequest) -> Result<MetaReply> {
        match self.transport.call(NodeId::Master, Request::Meta(request))? {
            Reply::Meta(reply) => Ok(reply?),
            _ => Err(Self::bad_reply()),
        }
    }

    /// Sends a request that is answered with attributes.
    fn meta_attr(&self, request: MetaRequest) -> Result<Attr> {
        match self.meta(request)? {
            MetaReply::Attr(attr) => Ok(attr),
            _ => Err(Self::bad_reply()),
        }
    }

    fn bad_reply() -> FsError {
        FsError::BadReply(NodeId::Master)
    }

    /// Tells the master that nothing refers to these inodes any more.
    fn forget_at_master(&self, inos: Vec<Ino>) {
        if inos.is_empty() {
            return;
        }
        if let Err(e) = self.meta(MetaRequest::Forget { inos }) {
            log::warn!("unlinked files keep their pages until the next mount: {e}");
        }
    }
}
