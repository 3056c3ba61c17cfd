//! Serving a mount, from the first handshake until it is gone.

use super::FuseFs;
use super::by_handle::{self, Place};
use super::decide::Decider;
use super::kernel::{self, Notify};
use super::tune::Settings;
use super::uring::{self, Plan, Prepared, Rings, UringError};
use crate::cli::low::IoUring;
use crate::fs::Fs;
use fuser::{Config, KernelConfig, Session, SessionACL};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;

/// The largest read or write that is asked of us at a time, in bytes. The kernel goes up to
/// `fs.fuse.max_pages_limit` pages.
const MAX_REQUEST: u32 = 1 << 20;
/// Requests that the kernel may have outstanding on its own account (readahead, writeback).
const MAX_BACKGROUND: u16 = 64;

/// Threads that answer the requests of a mount that shares its namespace, at least.
const SHARED_THREADS: usize = 48;

/// How to serve.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// Other users than the one who mounts may use it.
    pub allow_other: bool,
    /// Threads that answer requests.
    pub threads: usize,
    /// The mount's device number, as `major:minor`.
    pub device: String,
    /// Nothing is kept in the kernel's caches.
    pub uncached: bool,
    /// What is written is collected in the kernel, also where other mounts may use the files.
    pub writeback: bool,
    /// Whether requests come through rings.
    pub io_uring: IoUring,
}

/// Why a mount cannot be served.
#[derive(Debug, Error)]
pub enum ServeError {
    /// What `/dev/fuse` says.
    #[error("the kernel's FUSE does not accept the file system: {0}")]
    Session(#[from] io::Error),
    /// The kernel could not be told of what other mounts do.
    #[error("cache=writeback with a cluster needs the capability CAP_DAC_READ_SEARCH; leave it out")]
    NotAllowed,
    /// There are no rings, though there must be.
    #[error("io_uring=on: {0}")]
    Rings(#[from] UringError),
}

/// A file system that is mounted but does not answer yet.
pub struct Mounted {
    session: Session<FuseFs>,
    prepared: Option<Prepared>,
    agreed: bool,
    io_uring: IoUring,
    rings: Option<Rings>,
    decider: Arc<Decider>,
}

/// Agrees with the kernel on how `fs` is served through `connection`, which is mounted on `dir`. It
/// answers once [`Mounted::begin`] and [`Mounted::run`] are called. Who mounted it also unmounts it; that ends the serving.
///
/// # Errors
/// [`ServeError`]
pub fn serve(
    fs: Arc<Fs>,
    connection: OwnedFd,
    dir: &Path,
    config: &MountConfig,
) -> Result<Mounted, ServeError> {
    if config.writeback && fs.is_shared() {
        if !by_handle::is_allowed()? {
            return Err(ServeError::NotAllowed);
        }
        by_handle::survive_size_limit();
    }
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
    let decider = Arc::new(Decider::new(fs, notify, config.uncached));
    let prepared = prepare(&decider, &connection, config)?;
    let device = connection.try_clone()?;
    let agreed = Arc::new(AtomicBool::new(false));
    let offer = prepared.is_some().then(|| agreed.clone());
    let session = Session::from_fd(FuseFs { decider: decider.clone(), rings: offer }, connection, acl, fuse)?;
    known.set_notifier(session.notifier(), device);
    let place = Place { dir: dir.to_path_buf(), device: config.device.clone() };
    known.sizes.set_place(place.clone());
    kernel::serve(tasks, session.notifier(), place, Settings::of(&config.device))?;
    let agreed = agreed.load(Ordering::Relaxed);
    Ok(Mounted { session, prepared, agreed, io_uring: config.io_uring, rings: None, decider })
}

/// Rings, if there can and may be any.
fn prepare(
    decider: &Arc<Decider>,
    connection: &OwnedFd,
    config: &MountConfig,
) -> Result<Option<Prepared>, ServeError> {
    if config.io_uring == IoUring::Off {
        return Ok(None);
    }
    let owner = (!config.allow_other).then(|| nix::unistd::geteuid().as_raw());
    let plan = Plan { owner, lanes: config.threads, payload: MAX_REQUEST as usize };
    let prepared = uring::prepare(decider.clone(), connection.try_clone()?, &plan);
    without_if_auto(prepared.map(Some), config.io_uring)
}

/// With `io_uring=auto` a mount goes without rings where there are none.
fn without_if_auto<T>(result: Result<Option<T>, UringError>, how: IoUring) -> Result<Option<T>, ServeError> {
    match result {
        Err(e) if how == IoUring::On => Err(e.into()),
        Err(UringError::Off) => Ok(None),
        Err(e) => {
            log::warn!("requests come through /dev/fuse: {e}");
            Ok(None)
        }
        Ok(found) => Ok(found),
    }
}

impl Mounted {
    /// Begins with the rings, if there are any and the kernel has agreed to them: requests through them are
    /// answered from here on.
    ///
    /// # Errors
    /// With `io_uring=on`, if there are none after all.
    pub fn begin(&mut self) -> Result<(), ServeError> {
        let Some(prepared) = self.prepared.take() else { return Ok(()) };
        let started = if self.agreed { prepared.start().map(Some) } else { Err(UringError::Off) };
        self.rings = without_if_auto(started, self.io_uring)?;
        Ok(())
    }

    /// Answers requests until it is unmounted.
    ///
    /// # Errors
    /// When /dev/fuse fails; the mount is gone then.
    pub fn run(self) -> io::Result<()> {
        let ended = self.session.run();
        self.decider.end();
        ended?;
        if let Some(rings) = &self.rings {
            rings.join();
        }
        Ok(())
    }

    /// Whether requests come through rings.
    pub fn has_rings(&self) -> bool {
        self.rings.is_some()
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
