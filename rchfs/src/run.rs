//! The life of a `mount.rchfs` process, from its command line to its exit status.
//!
//! Order matters: everything that can be refused cheaply is refused before the fork; the fork comes
//! before any thread; signals are blocked before any thread; the pool is opened before the directory is
//! touched; the parent is told only when the mount answers. On the way down: the mount goes first, then
//! the file system, then the pool.
//!
//! Must not know: file system semantics, how a pool is made (see [`backend`](crate::backend)).

pub mod attach;
pub mod background;
pub mod detach;
pub mod holder;
pub mod mountpoint;
pub mod signals;
pub mod table;

use crate::backend::{Backend, BackendError};
use crate::cli::low::Cache;
use crate::cli::settings::{Backing, PoolChoice};
use crate::cli::{self, Command, Host, Settings};
use crate::fuse::{MountConfig, Mounted, ServeError};
use background::{Report, Side};
use signals::Signals;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use thiserror::Error;

/// mount(8)'s exit status for "the mount failed".
const FAILED: u8 = 32;

/// Why a mount failed.
#[derive(Debug, Error)]
pub enum RunError {
    /// The directory.
    #[error(transparent)]
    MountPoint(#[from] mountpoint::MountPointError),
    /// The kernel or fusermount3.
    #[error(transparent)]
    Attach(#[from] attach::AttachError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] BackendError),
    /// A signal came while mounting.
    #[error("interrupted")]
    Interrupted,
    /// The kernel and the file system do not understand each other.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The mount is there but does not answer.
    #[error("{dir} was mounted but does not answer: {source}")]
    NoAnswer {
        /// The directory.
        dir: String,
        /// What came instead.
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::System { what, source }
}

/// The whole of `mount.rchfs`.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let settings = match cli::command(words, &Host::probe()) {
        Ok(Command::Mount(settings)) => *settings,
        Ok(Command::Fake) => return ExitCode::SUCCESS,
        Ok(Command::Print(text)) => return print(&text),
        Err(e) => {
            complain(&e);
            return ExitCode::from(e.exit_code());
        }
    };
    match mount(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(FAILED),
        Err(Failure::Reason(reason)) => {
            complain(&reason);
            ExitCode::from(FAILED)
        }
    }
}

/// A failure, and whether it has been said already.
enum Failure {
    Reason(String),
    Reported,
}

impl<E: Into<RunError>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Reason(e.into().to_string())
    }
}

/// One line on standard error.
pub(crate) fn complain(what: &dyn std::fmt::Display) {
    eprintln!("mount.rchfs: {what}");
}

/// Answers `--help`. A reader that has gone away is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    drop(io::stdout().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}

fn mount(mut settings: Settings) -> Result<(), Failure> {
    settings.dir = mountpoint::prepare(&settings.dir).map_err(RunError::from)?;
    attach::check().map_err(RunError::from)?;
    absolute_paths(&mut settings).map_err(system("current directory"))?;
    if let Some(log) = &settings.log {
        background::open_log(log).map_err(|e| Failure::Reason(e.to_string()))?;
    }
    if settings.foreground {
        return serve(&settings, Report::foreground(settings.log.clone()));
    }
    match background::split(settings.log.clone()).map_err(system("fork"))? {
        Side::Child(report) => serve(&settings, report),
        Side::Parent(child) => {
            child.wait().map_err(Failure::Reason)?;
            answers(&settings.dir)?;
            Ok(())
        }
    }
}

/// In the background the current directory is `/`.
fn absolute_paths(settings: &mut Settings) -> io::Result<()> {
    let absolute = |path: &mut PathBuf| -> io::Result<()> {
        *path = std::path::absolute(&path)?;
        Ok(())
    };
    if let PoolChoice::Embedded(pool) = &mut settings.pool
        && let Backing::Persistent { cxl, state } = &mut pool.backing
    {
        absolute(cxl)?;
        absolute(state)?;
    }
    settings.log.as_mut().map_or(Ok(()), absolute)
}

/// Asks the mount something that only its server can answer.
fn answers(dir: &Path) -> Result<(), RunError> {
    match nix::sys::statvfs::statvfs(dir) {
        Ok(_) => Ok(()),
        Err(e) => Err(RunError::NoAnswer { dir: dir.display().to_string(), source: e.into() }),
    }
}

/// A thread that panics while it answers a request would leave whoever asked waiting for ever: the process
/// ends instead, and they get an error.
fn end_at_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        log::error!("{info}");
        std::process::abort();
    }));
}

/// Serves the mount until it is gone. What goes wrong before it answers goes into the report.
fn serve(settings: &Settings, report: Report) -> Result<(), Failure> {
    end_at_panic();
    let serving = match Serving::start(settings) {
        Ok(serving) => serving,
        Err(e) => {
            report.failed(&e.to_string());
            return Err(Failure::Reported);
        }
    };
    if let Err(e) = report.ready() {
        // Nobody waits for this mount any more, or it could not say what it has to say.
        serving.cancel();
        return Err(system("reporting that it is mounted")(e).into());
    }
    Ok(serving.run().map_err(system("serving"))?)
}

/// A mount that is made and does not answer yet.
struct Serving {
    signals: Signals,
    pool: Arc<Backend>,
    mounted: Mounted,
    dir: PathBuf,
    device: String,
}

impl Serving {
    fn start(settings: &Settings) -> Result<Self, RunError> {
        let signals = Signals::start().map_err(system("signals"))?;
        let messages = env_logger::Env::default().default_filter_or("warn");
        env_logger::Builder::from_env(messages).init();
        let pool = Arc::new(Backend::start(&settings.pool)?);
        say(settings, &pool);
        signals.mounting();
        let (mounted, device) = match make(settings, &pool) {
            Ok(made) => made,
            Err(e) => {
                pool.shutdown();
                return Err(e);
            }
        };
        let last = pool.clone();
        let go_on = signals.serving(&settings.dir, &device, Arc::new(move || last.shutdown()));
        let mut serving = Self { signals, pool, mounted, dir: settings.dir.clone(), device };
        // Not before signals are taken: whoever gets an answer may send one.
        let begun =
            if go_on { serving.mounted.begin().map_err(Into::into) } else { Err(RunError::Interrupted) };
        if let Err(e) = begun {
            serving.cancel();
            return Err(e);
        }
        if settings.verbose && serving.mounted.has_rings() {
            complain(&"requests come through io_uring");
        }
        Ok(serving)
    }

    /// Answers requests until the mount is gone, then brings the pool to rest.
    fn run(self) -> io::Result<()> {
        let result = self.mounted.run();
        self.signals.over();
        self.pool.shutdown();
        result
    }

    /// Takes the mount away before anyone used it.
    fn cancel(self) {
        if let Err(e) = signals::unmount(&self.dir, &self.device) {
            log::warn!("{}: {e}", self.dir.display());
        }
        self.signals.over();
        drop(self.mounted);
        self.pool.shutdown();
    }
}

/// Mounts the pool's file system; also returns the device of the mount.
fn make(settings: &Settings, pool: &Backend) -> Result<(Mounted, String), RunError> {
    let dir = &settings.dir;
    let file_system = pool.file_system(settings.cache, settings.flags.noatime)?;
    let _claim = mountpoint::claim(dir)?;
    let connection = attach::attach(&settings.source, dir, &settings.flags)?;
    let top = table::top(dir).ok().flatten();
    let device = top.map(|m| m.device).unwrap_or_default();
    match crate::fuse::serve(file_system, connection, dir, &mount_config(settings, &device)) {
        Ok(mounted) => Ok((mounted, device)),
        Err(e) => {
            if let Err(e) = signals::unmount(dir, &device) {
                log::warn!("{}: {e}", dir.display());
            }
            Err(e.into())
        }
    }
}

/// Once, and only here, a volatile pool says that it is one, and a recovered one what was recovered.
fn say(settings: &Settings, pool: &Backend) {
    for notice in pool.notices() {
        complain(&notice);
    }
    if settings.pool.is_volatile() && !settings.quiet {
        complain(&"this pool is volatile, its files go when it is unmounted (cxl=FILE,state=DIR keeps them)");
    }
    if settings.verbose {
        complain(&format_args!(
            "{pool} on {}, served by {} threads",
            settings.dir.display(),
            settings.threads
        ));
    }
}

fn mount_config(settings: &Settings, device: &str) -> MountConfig {
    let uncached = settings.cache == Cache::None;
    MountConfig {
        allow_other: settings.flags.allow_other,
        threads: settings.threads,
        device: device.to_owned(),
        uncached,
        writeback: settings.cache == Cache::Writeback,
        io_uring: settings.io_uring,
    }
}
