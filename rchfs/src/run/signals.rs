//! SIGTERM, SIGINT and SIGHUP: stop cleanly, whatever the process is doing.
//!
//! The signals are blocked in every thread and taken by one thread that waits for them. What a signal
//! does depends on the phase: before anything is mounted the process just ends; while it mounts, the
//! signal is kept; when it serves, the mount is taken away, which ends the serving.
//!
//! A mount that is in use is detached, so that nobody new comes, and the data that the kernel still
//! holds is written back; who uses it has [`GRACE`] to finish. Then the process ends all the same.

use super::detach;
use super::table;
use nix::sys::signal::{SigSet, Signal};
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long a mount in use is left to its users after it was told to stop.
pub const GRACE: Duration = Duration::from_secs(5);
/// mount(8)'s exit status for "interrupted".
const INTERRUPTED: i32 = 8;

/// What the process is doing.
enum Phase {
    /// Nothing is mounted.
    Starting,
    /// Between mount(2) and the first request; `true` once a signal came.
    Mounting(bool),
    /// Serving the mount of this device on this directory.
    Serving { dir: PathBuf, device: String, last: Last },
    /// The mount is gone.
    Over,
}

/// What to do before ending a process whose mount is still in use: bring everything to rest.
type Last = Arc<dyn Fn() + Send + Sync>;

struct Shared {
    phase: Mutex<Phase>,
    over: Condvar,
}

/// The thread that takes the signals.
pub struct Signals {
    shared: Arc<Shared>,
}

fn set() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect()
}

impl Signals {
    /// Blocks the signals and starts the thread. To be called before any other thread is started, since
    /// these inherit what is blocked.
    ///
    /// # Errors
    /// What the system says.
    pub fn start() -> io::Result<Self> {
        set().thread_block()?;
        let shared = Arc::new(Shared { phase: Mutex::new(Phase::Starting), over: Condvar::new() });
        let taken = shared.clone();
        thread::Builder::new().name("signals".into()).spawn(move || take(&taken))?;
        Ok(Self { shared })
    }

    /// From here on a signal waits for [`serving`](Self::serving).
    pub fn mounting(&self) {
        *self.shared.phase.lock() = Phase::Mounting(false);
    }

    /// The mount on `dir` is there. `last` is called if it must end while in use. Returns whether to go
    /// on: `false` if a signal came meanwhile.
    pub fn serving(&self, dir: &Path, device: &str, last: Last) -> bool {
        let mut phase = self.shared.phase.lock();
        let go_on = matches!(*phase, Phase::Mounting(false));
        *phase = Phase::Serving { dir: dir.to_owned(), device: device.to_owned(), last };
        go_on
    }

    /// The serving has ended.
    pub fn over(&self) {
        *self.shared.phase.lock() = Phase::Over;
        self.shared.over.notify_all();
    }
}

/// Takes signals until the process ends.
fn take(shared: &Shared) {
    while let Ok(signal) = set().wait() {
        let mut phase = shared.phase.lock();
        match &mut *phase {
            Phase::Starting => std::process::exit(INTERRUPTED),
            Phase::Mounting(signalled) => *signalled = true,
            Phase::Over => {}
            Phase::Serving { dir, device, last } => {
                let (dir, device, last) = (dir.clone(), device.clone(), last.clone());
                drop(phase);
                log::info!("{signal}: unmounting {}", dir.display());
                leave(shared, &dir, &device, &last);
            }
        }
    }
}

/// Takes the mount away, and ends the process if that does not end the serving.
fn leave(shared: &Shared, dir: &Path, device: &str, last: &Last) {
    match unmount(dir, device) {
        Ok(()) => {}
        Err(e) if is_busy(&e) => {
            log::warn!("{} is in use: detached, ending in {} s", dir.display(), GRACE.as_secs());
            detach_busy(dir);
        }
        Err(e) => log::warn!("{}: {e}", dir.display()),
    }
    let mut phase = shared.phase.lock();
    let ended = |phase: &mut Phase| matches!(phase, Phase::Over);
    if !ended(&mut phase) {
        shared.over.wait_while_for(&mut phase, |p| !ended(p), GRACE);
    }
    if !ended(&mut phase) {
        drop(phase);
        last();
        std::process::exit(0);
    }
}

fn is_busy(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ResourceBusy
}

/// Unmounts `dir` if what is mounted there is ours.
///
/// # Errors
/// If it is, and is in use.
pub fn unmount(dir: &Path, device: &str) -> io::Result<()> {
    match table::top(dir)? {
        Some(top) if top.device == device => detach::now(dir),
        Some(_) => Err(io::Error::other("something else is mounted over it")),
        None => Ok(()),
    }
}

/// Detaches a mount in use and has the kernel write back what it holds of it.
fn detach_busy(dir: &Path) {
    let root = File::open(dir);
    if let Err(e) = detach::lazily(dir) {
        log::warn!("{}: {e}", dir.display());
    }
    if let Err(e) = root.and_then(|root| Ok(nix::unistd::syncfs(&root)?)) {
        log::warn!("{}: what the kernel held may not be written: {e}", dir.display());
    }
}
