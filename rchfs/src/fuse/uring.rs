//! FUSE over io_uring (Linux 6.14): requests come and answers go through rings, a queue for each processor, instead of
//! read(2) and write(2) on `/dev/fuse`.
//!
//! ```text
//! crew    how many lanes each queue has; more where nothing moves
//!  lane    a thread with one entry, on its queue's processor: fetch, answer, commit
//!   entry   two buffers and an io_uring of its own; one system call a request
//!   wire    what the kernel writes into them
//!   answer  has it decided, writes the answer
//! ```
//!
//! What it saves is waking another processor: the request of a program is answered on the processor that it
//! runs on. FORGET, INTERRUPT and what we tell the kernel unasked still go through `/dev/fuse`, and so does
//! everything if the kernel refuses an entry after all.
//!
//! INIT is answered with `FUSE_OVER_IO_URING` only once every lane has what it needs, since from then on
//! the kernel holds back every request until each queue has an entry.

mod answer;
mod crew;
mod entry;
mod lane;
pub(super) mod wire;

pub(super) use crew::about_to_wait;

use super::decide::Decider;
use crew::{Crew, Gate};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use thiserror::Error;

/// Whether the kernel offers it; `Y` once root has allowed it.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
/// The processors that there may ever be. The kernel has a queue for each.
const PROCESSORS: &str = "/sys/devices/system/cpu/possible";

/// Why there are no rings.
#[derive(Debug, Error)]
pub enum UringError {
    /// It is switched off, or unknown to this kernel.
    #[error(
        "FUSE over io_uring is off; allow it with: echo Y > {SWITCH} (as root, Linux 6.14 or newer), or leave \
         io_uring= out"
    )]
    Off,
    /// This process may not use it.
    #[error(
        "no ring for FUSE over io_uring: {0}; look at sysctl kernel.io_uring_disabled and at the limits of the \
         container, or leave io_uring= out"
    )]
    NoRing(io::Error),
    /// The kernel has changed its mind.
    #[error("the kernel refuses the rings of FUSE over io_uring: {0}; leave io_uring= out")]
    Refused(io::Error),
}

impl From<entry::Ended> for io::Error {
    fn from(ended: entry::Ended) -> Self {
        match ended {
            entry::Ended::Unmounted => io::ErrorKind::NotConnected.into(),
            entry::Ended::Failed(e) => e,
        }
    }
}

/// Rings of which every part is there, but which the kernel does not know of yet.
pub struct Prepared {
    crew: Arc<Crew>,
    gate: Gate,
    reports: Receiver<io::Result<()>>,
    lanes: usize,
    started: bool,
}

/// How rings are made.
pub struct Plan {
    /// The one user who is let in, if it is not everyone.
    pub owner: Option<u32>,
    /// Lanes to begin with, in all.
    pub lanes: usize,
    /// The largest payload, in bytes.
    pub payload: usize,
}

/// Makes rings for the connection `device`, before INIT is answered on it.
///
/// # Errors
/// If there can be none.
pub fn prepare(decider: Arc<Decider>, device: OwnedFd, plan: &Plan) -> Result<Prepared, UringError> {
    if !fs::read_to_string(SWITCH).is_ok_and(|s| s.trim() == "Y") {
        return Err(UringError::Off);
    }
    entry::probe().map_err(UringError::NoRing)?;
    let possible = fs::read_to_string(PROCESSORS).map_err(UringError::NoRing)?;
    let queues = count(possible.trim()).filter(|&n| n <= usize::from(u16::MAX) + 1);
    let queues =
        queues.ok_or_else(|| UringError::NoRing(io::Error::other(format!("{PROCESSORS}: {possible}"))))?;
    let each = plan.lanes.div_ceil(queues).max(1);
    let (ready, reports) = channel();
    let prepared = Prepared {
        crew: Crew::new(decider, plan.owner, device, queues, plan.payload),
        gate: Gate::default(),
        reports,
        lanes: each * queues,
        started: false,
    };
    prepared.crew.muster(each, &ready, &prepared.gate).map_err(UringError::NoRing)?;
    drop(ready);
    prepared.all_report().map_err(UringError::NoRing)?;
    Ok(prepared)
}

impl Prepared {
    /// Hands the rings to the kernel, which has agreed to them at INIT.
    ///
    /// # Errors
    /// If it refuses one; then it goes on with `/dev/fuse`.
    pub fn start(mut self) -> Result<Rings, UringError> {
        self.gate.decide(true);
        self.all_report().map_err(UringError::Refused)?;
        self.started = true;
        Ok(Rings { crew: self.crew.clone() })
    }

    fn all_report(&self) -> io::Result<()> {
        let gone = |_| io::Error::other("a thread ended before its time");
        (0..self.lanes).try_for_each(|_| self.reports.recv().map_err(gone)?)
    }
}

impl Drop for Prepared {
    /// Sends the crew home, if it has not begun.
    fn drop(&mut self) {
        if !self.started {
            self.gate.decide(false);
            self.crew.dismiss();
        }
    }
}

/// Rings that requests come through.
pub struct Rings {
    crew: Arc<Crew>,
}

impl Rings {
    /// Waits until nothing is answered any more. To be called when the mount is gone.
    pub fn join(&self) {
        self.crew.join();
    }
}

/// How many numbers a list such as `0-3,8` has.
fn count(list: &str) -> Option<usize> {
    let range = |part: &str| -> Option<usize> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').try_fold(0usize, |sum, part| sum.checked_add(range(part)?))
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn processors_are_counted() {
        for (list, n) in [("0", Some(1)), ("0-1", Some(2)), ("0,2-3", Some(3)), ("", None), ("3-1", None)] {
            assert_eq!(count(list), n, "{list}");
        }
    }
}
