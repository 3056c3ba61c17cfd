//! Serving a mount, from the first handshake until it is gone.

use super::FuseFs;
use super::kernel::{self, Notify};
use super::tune::Settings;
use crate::fs::Fs;
use fuser::{Config, KernelConfig, Session, SessionACL};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

/// The largest read or write that is asked of us at a time, in bytes. The kernel goes up to
/// `fs.fuse.max_pages_limit` pages.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests that the kernel may have outstanding on its own account (readahead, writeback).
const MAX_BACKGROUND: u16 = 64;

/// Threads that answer the requests of a mount that shares its namespace, at least.
const SHARED_THREADS: usize = 48;

/// How to serve.
#[derive(Clone, Debug, Default)]
pub struct MountConfig {
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
    /// Threads that answer requests.
    pub threads: usize,
    /// The mount's device number, as `major:minor`.
    pub device: String,
    /// Nothing is kept in the kernel's caches.
    pub uncached: bool,
}

/// A file system that is mounted but does not answer yet.
pub struct Mounted {
    session: Session<FuseFs>,
}

/// Agrees with the kernel on how `fs` is served through `connection`, which is mounted on `dir`. It
/// answers once [`Mounted::run`] is called. Who mounted it also unmounts it; that ends the serving.
///
/// # Errors
/// What `/dev/fuse` says.
pub fn serve(fs: Arc<Fs>, connection: OwnedFd, dir: &Path, config: &MountConfig) -> io::Result<Mounted> {
    let acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    let mut fuse = Config::default();
    // An operation on a shared namespace may have to wait for another mount, which may have to wait for this one.
    let threads = if fs.is_shared() { config.threads.max(SHARED_THREADS) } else { config.threads.max(1) };
    fuse.n_threads = Some(threads);
    let (notify, tasks) = Notify::new();
    if !config.uncached || fs.is_shared() {
        fs.set_kernel(Box::new(notify.clone()));
    }
    let known = notify.clone();
    let session = Session::from_fd(FuseFs { fs, notify, uncached: config.uncached }, connection, acl, fuse)?;
    known.set_notifier(session.notifier());
    kernel::serve(tasks, session.notifier(), dir.to_path_buf(), Settings::of(&config.device))?;
    Ok(Mounted { session })
}

impl Mounted {
    /// Answers requests until it is unmounted.
    ///
    /// # Errors
    /// When /dev/fuse fails; the mount is gone then.
    pub fn run(self) -> io::Result<()> {
        self.session.run()
    }
}

/// Agrees on sizes with the kernel.
pub(super) fn negotiate(config: &mut KernelConfig) {
    // Each setter gives back the nearest possible value when it refuses.
    if let Err(nearest) = config.set_max_write(MAX_REQUEST) {
        let _ = config.set_max_write(nearest);
    }
    if let Err(nearest) = config.set_max_readahead(MAX_REQUEST) {
        let _ = config.set_max_readahead(nearest);
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        let _ = config.set_max_background(nearest);
    }
}
