//! The store on a disk: a journal that every batch is appended to before it is answered, and sled, to
//! which a thread brings the batches in their own time. The only user of sled.
//!
//! sled alone buffers for a while or syncs at every batch; the journal costs one write a batch and has
//! it survive the death of the process, and one sync when power must be able to go.
//!
//! In the directory: `lock` (see [`lock`](super::lock)), `journal.NUMBER` (see [`frame`]), `db` (sled).
//! Invariants: sled has every batch up to the number it records as applied, durably; the journal has
//! every one after that. A segment is removed only when sled has all of it. What sled has of later
//! batches does not matter: they are all applied again, in order. So opening and closing need not wait
//! for sled: what the journal has is laid over it when it is loaded.
//!
//! A commit may have a few records or, of a tree that is cloned, a million. So `state` is held only to write what is
//! ready to be written, and what must be done with each record is done without it.
//!
//! Locks, in order: `db`, then `state`. A commit takes `state` only. The applier holds `state` for
//! moments, one of them a sync of what little the last sync left.

mod applier;
mod base;
mod opening;

use super::codec::{self, Record};
use super::frame::Unnumbered;
use super::journal::{Retired, Segment};
use super::lock::DirLock;
use super::{Store, StoreError, full_or_os};
use crate::change::Change;
use base::{Base, Target};
use opening::Opening;
use parking_lot::{Condvar, Mutex};
use pool::addr::PageSize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a store is for; it refuses to be opened for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Identity of the pool.
    pub pool: u128,
    /// Size of its pages.
    pub page_size: PageSize,
}

/// Which store is good.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// One for this, and an empty one becomes it.
    This(Identity),
    /// Any; an empty one becomes one for this.
    AnyOr(Identity),
}

/// When the journal is brought to sled.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes of journal after which it is.
    pub segment: u64,
    /// Time after the first batch after which it is, however little there is.
    pub delay: Duration,
    /// Bytes of journal at which commits wait for it.
    pub backlog: u64,
    /// How long closing goes on bringing it there; the rest stays in the journal.
    pub patience: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment: 16 << 20,
            delay: Duration::from_secs(5),
            backlog: 128 << 20,
            patience: Duration::from_secs(2),
        }
    }
}

/// Records from which on a batch is a big one.
const BIG: usize = 1024;

/// How long a commit of few records is held up when the backlog is full; one of more, for so many each once more.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
const FEW: usize = 50;

/// The store on a disk.
pub struct SledStore {
    /// What was found, until the store begins.
    found: Mutex<Option<Opening>>,
    running: OnceLock<Running>,
    /// Dropped last.
    _lock: DirLock,
}

/// A store that has begun.
struct Running {
    shared: Arc<Shared>,
    applier: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    tuning: Tuning,
    base: Mutex<Base>,
    state: Mutex<State>,
    /// There is something for the applier to do.
    work: Condvar,
    /// The applier has done something.
    done: Condvar,
}

struct State {
    segment: Segment,
    /// Segments before it that no applier has taken yet; their batches are in `pending`.
    inherited: Retired,
    /// Bytes of segments before it that sled does not have.
    behind: u64,
    /// Bytes that were behind already at opening, and that no commit waits for, within reason.
    excused: u64,
    /// Sequence number of the last batch.
    seq: u64,
    /// What sled must become, from batches that no applier has taken yet, in order.
    pending: Pending,
    /// When the first of them came.
    since: Option<Instant>,
    phase: Phase,
    /// Why the applier's last attempt failed.
    trouble: Option<String>,
}

/// What one batch after the other comes to. Small ones are put together as they come; a big one stays as it is, so that
/// nobody waits while it is.
#[derive(Default)]
struct Pending(Vec<Part>);

enum Part {
    Together(Target),
    Big(Vec<Record>),
}

impl Pending {
    fn new(target: Target) -> Self {
        Self(vec![Part::Together(target)])
    }

    fn add(&mut self, batch: Vec<Record>) {
        match self.0.last_mut() {
            _ if batch.len() >= BIG => self.0.push(Part::Big(batch)),
            Some(Part::Together(last)) => last.extend(batch),
            _ => self.0.push(Part::Together(batch.into_iter().collect())),
        }
    }

    /// Puts it all into `target`.
    fn bring_to(self, target: &mut Target) {
        for part in self.0 {
            match part {
                Part::Together(part) if target.is_empty() => *target = part,
                Part::Together(part) => target.extend(part),
                Part::Big(part) => target.extend(part),
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Commits are refused; the applier stops when its work is done or it is this late.
    Closing(Instant),
    /// Commits are refused; the applier stops at once.
    Dropped,
    /// Commits are refused, for this reason; the applier goes on.
    Failed(String),
}

impl SledStore {
    /// Opens the store in `dir`, which is made if it does not exist, and reads what it holds.
    ///
    /// # Errors
    /// `InUse`, `Mismatch`, `Corrupt`, `NoSpace`, `Os`; nothing has been changed unless it says so.
    pub fn open(dir: &Path, identity: Identity, tuning: Tuning) -> Result<Self, StoreError> {
        Self::open_as(dir, Wanted::This(identity), tuning).map(|(store, _)| store)
    }

    /// As [`open`](Self::open), whatever the store is for, which is told; if there is none yet, it will be
    /// for `fresh`.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `Mismatch` of the identity.
    pub fn open_any(dir: &Path, fresh: Identity, tuning: Tuning) -> Result<(Self, Identity), StoreError> {
        Self::open_as(dir, Wanted::AnyOr(fresh), tuning)
    }

    fn open_as(dir: &Path, wanted: Wanted, tuning: Tuning) -> Result<(Self, Identity), StoreError> {
        std::fs::create_dir_all(dir).map_err(|why| full_or_os(dir, "making", why))?;
        let lock = DirLock::take(dir)?;
        let opening = Opening::read(dir, wanted, tuning)?;
        let identity = opening.identity();
        Ok((Self { found: Mutex::new(Some(opening)), running: OnceLock::new(), _lock: lock }, identity))
    }

    fn running(&self) -> Result<&Running, StoreError> {
        self.running.get().ok_or_else(|| StoreError::Stopped("it has not begun".into()))
    }
}

impl Running {
    fn stop(&self, phase: Phase) {
        self.shared.state.lock().phase = phase;
        self.shared.work.notify_all();
        self.shared.done.notify_all();
        if let Some(applier) = self.applier.lock().take() {
            // A panic there has been logged by whoever panicked, and `trouble` says so.
            let _ = applier.join();
        }
    }
}

impl Shared {
    /// How long to hold up a commit of so many records.
    fn pause(&self, state: &State, records: usize) -> Duration {
        let behind = (state.behind + state.segment.len()).saturating_sub(state.excused);
        pause(behind, self.tuning.backlog, records)
    }

    /// Waits until the applier is not too far behind.
    fn wait_for_room(&self, state: &mut parking_lot::MutexGuard<'_, State>) -> Result<(), StoreError> {
        loop {
            match &state.phase {
                Phase::Open => {}
                Phase::Closing(_) | Phase::Dropped => {
                    return Err(StoreError::Stopped("it was closed".into()));
                }
                Phase::Failed(why) => return Err(StoreError::Stopped(why.clone())),
            }
            if state.behind + state.segment.len() < self.tuning.backlog + state.excused {
                return Ok(());
            }
            if let Some(why) = &state.trouble {
                return Err(StoreError::Stopped(format!(
                    "the journal cannot be brought to the database: {why}"
                )));
            }
            self.work.notify_one();
            self.done.wait(state);
        }
    }
}

/// How long to hold up a commit so that the applier is not left behind until all commits must stop: not at all up to half
/// the backlog, then more and more. Who brings much waits for as much longer: so those that bring little need not wait for it.
fn pause(behind: u64, backlog: u64, records: usize) -> Duration {
    let half = backlog / 2;
    let over = behind.saturating_sub(half) as f64 / half.max(1) as f64;
    LONGEST_PAUSE.mul_f64(over * (records as f64 / FEW as f64).max(1.0))
}

impl Store for SledStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let records: Option<Vec<Record>> = changes.iter().map(codec::encode).collect();
        let records = records.ok_or_else(|| StoreError::Stopped("a change cannot be written down".into()))?;
        let bytes = Unnumbered::new(&records).ok_or(StoreError::TooLong)?;
        let shared = &self.running()?.shared;
        let mut state = shared.state.lock();
        shared.wait_for_room(&mut state)?;
        let seq = state.seq + 1;
        match state.segment.append(seq, bytes) {
            Ok(()) => {}
            Err(StoreError::Stopped(why)) => {
                state.phase = Phase::Failed(why.clone());
                return Err(StoreError::Stopped(why));
            }
            Err(why) => return Err(why),
        }
        state.seq = seq;
        let count = records.len();
        state.pending.add(records);
        if state.since.is_none() {
            state.since = Some(Instant::now());
            shared.work.notify_one();
        } else if state.segment.len() >= shared.tuning.segment {
            shared.work.notify_one();
        }
        let pause = shared.pause(&state, count);
        drop(state);
        if pause > Duration::ZERO {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.running.get().is_some_and(|running| {
            let state = running.shared.state.try_lock();
            state.is_none_or(|state| running.shared.pause(&state, 1) > Duration::ZERO)
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        let shared = &self.running()?.shared;
        let (file, path) = {
            let state = shared.state.lock();
            if let Phase::Failed(why) = &state.phase {
                return Err(StoreError::Stopped(why.clone()));
            }
            (state.segment.file(), state.segment.path().to_path_buf())
        };
        file.sync_data().map_err(|why| {
            // What the kernel could not write it may have dropped, so a later sync would prove nothing.
            shared.state.lock().phase = Phase::Failed(format!("syncing the journal failed: {why}"));
            full_or_os(&path, "syncing", why)
        })
    }

    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        match &*self.found.lock() {
            Some(opening) => opening.load(visit),
            None => Err(StoreError::Stopped("it has begun, and is not read again".into())),
        }
    }

    fn begin(&self) -> Result<(), StoreError> {
        let Some(opening) = self.found.lock().take() else { return Ok(()) };
        // Whoever took what was found is the only one to come here.
        let _ = self.running.set(opening.start()?);
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        let synced = self.sync();
        let running = self.running()?;
        running.stop(Phase::Closing(Instant::now() + running.shared.tuning.patience));
        synced
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        if let Some(running) = self.running.get() {
            running.stop(Phase::Dropped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_brings_much_to_a_store_that_is_behind_waits_for_as_much_longer() {
        assert_eq!(pause(50, 100, 1_000_000), Duration::ZERO);
        assert_eq!((pause(75, 100, 1), pause(75, 100, FEW)), (LONGEST_PAUSE / 2, LONGEST_PAUSE / 2));
        assert_eq!(pause(100, 100, 1000 * FEW), 1000 * LONGEST_PAUSE);
        assert!(pause(1, 0, 1) > Duration::ZERO, "there is no room at all");
    }
}
