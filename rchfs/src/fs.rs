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
mod far;
pub mod file;
mod handles;
mod held;
mod inodes;
pub mod io;
mod kept;
mod known;
pub mod locks;
mod map;
pub mod names;
pub mod ranges;
mod reclaim;
mod revoke;
pub mod session;
mod shared;
mod sizes;
pub mod space;
mod times;

pub use error::{FsError, Result};
pub use file::Access;
pub use held::Polled;
pub use sizes::Settled;
pub use space::{Origin, Space};

use handles::Handles;
use inodes::Inodes;
use parking_lot::RwLock;
use pool::Pool;
use pool::addr::PageSize;
use pool::proto::meta::{Attr, Ino, MetaReply, MetaRequest, Time};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use session::Session;
use shared::Shared;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What can be chosen about a mount's behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// Pages kept for data that is already in the kernel's cache (see [`space`](self::space)).
    pub reserve_pages: u64,
    /// The pool outlives the process: fsync has something to do.
    pub durable: bool,
    /// Access times are not kept.
    pub noatime: bool,
    /// The kernel collects what is written, though other mounts use the files too (see [`sizes`](self::sizes)).
    pub writeback: bool,
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

    /// Has the kernel write back what was written to `ino` through mappings, and drop attributes and data of it.
    /// Returns when that is done, so it must not be called on a thread that answers requests.
    fn drop_pages(&self, ino: Ino);

    /// Makes the kernel ask anew for the attributes of `ino`. Waits for no request.
    fn attributes_changed(&self, ino: Ino);

    /// Makes the kernel ask anew for the attributes of `ino`, and for what names stand for in it. Waits for no
    /// request.
    fn names_changed(&self, ino: Ino);

    /// Has the kernel forget the directory that it knows as `name` in `dir`, which has moved: it could not be found
    /// elsewhere otherwise. Waits for requests on `dir`, but only for a moment: they may be waiting for the caller.
    fn drop_name(&self, dir: Ino, name: &[u8]);

    /// Makes the kernel ask anew for what all names stand for. Waits for no request.
    fn forget_names(&self);

    /// The kernel asks before it goes by the length of this file again, which it was told last so. Waits only for a moment.
    fn ask_for_size(&self, told: &Attr);

    /// How long the kernel believes the file to be; `None` if it does not know it, or does not say.
    fn believed_size(&self, ino: Ino) -> Option<u64>;

    /// Has the kernel take over length and modification time of a file that it believed to be so long. Waits for
    /// whoever writes to the file, but only for a while. Must not be called on a thread that answers requests.
    fn correct(&self, attr: &Attr, believed: u64) -> Settled;

    /// Has the kernel take over the length of a file that it believed to be longer, so long. Returns as soon as it has, or
    /// after a moment; the kernel may still be waiting for a page that the caller keeps.
    fn shorten(&self, attr: &Attr, believed: u64);

    /// Has the kernel write back, soon, what it holds of `ino`.
    fn write_back_soon(&self, ino: Ino);

    /// The calling thread, which may be one that answers the kernel's requests, is going to wait for something that may
    /// take another such request.
    fn about_to_wait(&self);
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
    /// When this began.
    since: Instant,
    /// When inodes without a name were last given up, in milliseconds after `since`; 0 if never.
    last_given_up: AtomicU64,
    /// Requests that wait for pages that are about to be free.
    waits_for_pages: space::Waiters,
    /// Pages to give out until the kernel is told anew how much it may hold.
    until_limit: AtomicI64,
    /// If other mounts use the files too.
    shared: Option<Shared>,
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
            since: Instant::now(),
            last_given_up: AtomicU64::new(0),
            waits_for_pages: space::Waiters::default(),
            until_limit: AtomicI64::new(0),
            shared: None,
        }
    }

    /// As [`new`](Self::new), for a namespace that other mounts use too. Somebody must poll
    /// ([`poll`](Self::poll)) and call [`tend`](Self::tend) all the time.
    pub fn new_shared(pool: Pool, transport: Arc<dyn Transport>, config: FsConfig, session: Session) -> Self {
        let mut fs = Self::new(pool, transport, config);
        (fs.inodes, fs.shared) = (Inodes::shared(), Some(Shared::new(session)));
        fs
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
        if let Some(shared) = &self.shared {
            self.about_to_wait();
            return shared.meta(request);
        }
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

    /// An answer of the master is about to be waited for that may itself wait for another mount, which may have to wait
    /// for this one.
    fn about_to_wait(&self) {
        if let Some(kernel) = self.kernel.get() {
            kernel.about_to_wait();
        }
    }

    fn bad_reply() -> FsError {
        FsError::BadReply(NodeId::Master)
    }

    /// As [`meta_attr`](Self::meta_attr), of what is done to a file that is held exclusively.
    fn meta_held(&self, request: MetaRequest) -> Result<Attr> {
        let reply = match &self.shared {
            Some(shared) => shared.meta_held(&request)?,
            None => self.meta(request)?,
        };
        match reply {
            MetaReply::Attr(attr) => Ok(attr),
            _ => Err(Self::bad_reply()),
        }
    }

    /// Tells the master that nothing refers to these inodes any more.
    fn forget_at_master(&self, inos: Vec<Ino>) {
        if inos.is_empty() {
            return;
        }
        if self.shared.is_some() {
            self.last_given_up.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
            // Leases are given back with them, a few times a second.
            return inos.into_iter().for_each(|ino| self.inodes.unused_again(ino));
        }
        if let Err(e) = self.meta(MetaRequest::Forget { inos }) {
            log::warn!("unlinked files keep their pages until the next mount: {e}");
        }
    }
}
