//! The thread that brings the journal to sled.
//!
//! A round: make the next segment; sync the present one and put the next in its place; bring what the
//! batches so far come to, each record once, to sled; then remove the segments that held them. A round
//! that fails is tried again, with what came since; the segments stay.

use super::base::Target;
use super::{Pending, Phase, Shared, State, StoreError};
use crate::store::full_or_os;
use crate::store::journal::Segment;
use parking_lot::MutexGuard;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between a failed round and the next.
const RETRY: Duration = Duration::from_secs(1);

/// Bytes of a segment that are few to be synced.
const LITTLE: u64 = 1 << 20;
/// How often a segment is synced in the hope that little comes meanwhile.
const SYNCS: u32 = 4;

/// Starts the thread.
pub(super) fn start(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("master-store".into()).spawn(move || {
        let guard = SayIfPanicked(&shared);
        Applier { shared: &shared, taken: Target::new(), segments: Vec::new(), taken_len: 0, seq: 0 }.run();
        std::mem::forget(guard);
    })
}

/// Tells those who wait that nobody will come any more.
struct SayIfPanicked<'a>(&'a Shared);

impl Drop for SayIfPanicked<'_> {
    fn drop(&mut self) {
        self.0.state.lock().trouble = Some("the thread that does it has died".into());
        self.0.done.notify_all();
    }
}

struct Applier<'a> {
    shared: &'a Shared,
    /// What batches taken so far come to; sled does not have it yet.
    taken: Target,
    /// The segments that hold them, and their bytes.
    segments: Vec<PathBuf>,
    taken_len: u64,
    /// The number of the last of them.
    seq: u64,
}

impl Applier<'_> {
    fn run(&mut self) {
        while self.wait_for_work() {
            let round = self.round();
            let mut state = self.shared.state.lock();
            state.trouble = round.err().map(|why| why.to_string());
            self.shared.done.notify_all();
            if let Some(why) = &state.trouble {
                log::error!("{}: the journal cannot be brought in: {why}", self.shared.dir.display());
                if matches!(state.phase, Phase::Closing(_)) {
                    return;
                }
                self.shared.work.wait_for(&mut state, RETRY);
            }
        }
    }

    /// Waits until a round is due; `false` when there will be none any more.
    fn wait_for_work(&self) -> bool {
        let mut state = self.shared.state.lock();
        loop {
            let waiting = state.since.is_some() || !self.taken.is_empty();
            match state.phase {
                Phase::Dropped => return false,
                Phase::Closing(until) => return waiting && Instant::now() < until,
                Phase::Open | Phase::Failed(_) => {}
            }
            match self.due_in(&state) {
                Some(Duration::ZERO) => return true,
                Some(rest) => {
                    self.shared.work.wait_for(&mut state, rest);
                }
                None => self.shared.work.wait(&mut state),
            }
        }
    }

    fn due_in(&self, state: &State) -> Option<Duration> {
        let tuning = &self.shared.tuning;
        if !self.taken.is_empty() || state.segment.len() >= tuning.segment {
            return Some(Duration::ZERO);
        }
        state.since.map(|since| (since + tuning.delay).saturating_duration_since(Instant::now()))
    }

    fn round(&mut self) -> Result<(), StoreError> {
        if self.shared.state.lock().since.is_some() {
            self.take()?;
        }
        if !self.shared.base.lock().apply(&self.taken, self.seq, &|| self.goes_on())? {
            return Ok(());
        }
        self.taken = Target::new();
        for path in self.segments.drain(..) {
            if let Err(why) = std::fs::remove_file(&path) {
                log::warn!("{} is of no more use and cannot be removed: {why}", path.display());
            }
        }
        let mut state = self.shared.state.lock();
        state.behind -= self.taken_len;
        state.excused = 0;
        self.taken_len = 0;
        Ok(())
    }

    /// Is there no need to stop in the middle of a round?
    fn goes_on(&self) -> bool {
        match self.shared.state.lock().phase {
            Phase::Open | Phase::Failed(_) => true,
            Phase::Closing(until) => Instant::now() < until,
            Phase::Dropped => false,
        }
    }

    /// Takes over everything that is pending, and gives the commits a new segment to go on with. They wait while its last
    /// bytes are synced, so that is done when they are few.
    fn take(&mut self) -> Result<(), StoreError> {
        let (next, file, mut len) = {
            let state = self.shared.state.lock();
            (state.segment.next_id(), state.segment.file(), state.segment.len())
        };
        let next = Segment::create(&self.shared.dir, next)?;
        let sync =
            || file.sync_data().map_err(|why| full_or_os(&self.shared.dir, "syncing a journal in", why));
        for _ in 0..SYNCS {
            sync()?;
            let since = self.shared.state.lock().segment.len() - len;
            if since <= LITTLE {
                break;
            }
            len += since;
        }
        let mut state = self.shared.state.lock();
        sync()?;
        let pending = self.switch(&mut state, next);
        drop(state);
        pending.bring_to(&mut self.taken);
        Ok(())
    }

    fn switch(&mut self, state: &mut MutexGuard<'_, State>, next: Segment) -> Pending {
        let old = std::mem::replace(&mut state.segment, next);
        let inherited = std::mem::take(&mut state.inherited);
        state.behind += old.len();
        state.since = None;
        self.taken_len += inherited.len + old.len();
        self.segments.extend(inherited.paths);
        self.segments.push(old.path().to_path_buf());
        self.seq = state.seq;
        std::mem::take(&mut state.pending)
    }
}
