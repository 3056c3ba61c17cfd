//! A server process: started, waited for, stopped, killed.

use crate::mount::die_with_parent;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(5);

/// What a server says on its standard output when it is ready, before its address.
const READY: &str = "listening on ";

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    addr: String,
}

/// Why there is no server: what it said before it ended.
#[derive(Debug)]
pub struct Refused {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote, to its standard output and error.
    pub message: String,
}

impl Server {
    /// Starts it; returns when it has said that it is ready. What it says is added to the file `log`.
    ///
    /// # Errors
    /// [`Refused`] if it ends before.
    pub fn start(mut command: Command, arguments: &[&str], log: &Path) -> Result<Self, Refused> {
        let open = || File::options().create(true).append(true).open(log).expect("the log can be written");
        let before = log.metadata().map_or(0, |meta| meta.len()) as usize;
        let program = PathBuf::from(command.get_program());
        command.args(arguments).stdin(Stdio::null()).stdout(open()).stderr(open());
        die_with_parent(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut server = Self { child, log: log.into(), addr: String::new() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = server.said().split_off(before);
            if let Some(addr) = address(&said) {
                server.addr = addr;
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait().expect("a child can be waited for") {
                return Err(Refused { status, message: server.said().split_off(before) });
            }
            assert!(Instant::now() < deadline, "{} is not ready; it said: {said}", program.display());
            sleep(STEP);
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and those before it with the same log said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    /// Stops it with SIGSTOP, until [`go_on`](Self::go_on).
    pub fn stop(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Asks it with SIGTERM to end, and waits until it has.
    pub fn end(&mut self) -> ExitStatus {
        signal(&self.child, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "still there {PATIENCE:?} after SIGTERM: {}", self.said());
            sleep(STEP);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a child that has not been waited for.
pub(super) fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("a process has an id");
    kill_process(pid, signal).expect("a child can be signalled");
}

/// The address in the line `NAME: ... listening on ADDR, ...`; the line must be complete.
fn address(said: &str) -> Option<String> {
    let (_, rest) = said.split_once(READY)?;
    let (line, _) = rest.split_once('\n')?;
    Some(line.split([',', ' ']).next()?.to_owned())
}
