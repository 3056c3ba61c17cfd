//! A store between its opening and its beginning: everything is read, and nothing of ours is changed.
//!
//! So whoever finds that what was read is damaged can leave it as it is. That holds for the journal, and
//! for a database whose file is sound. Where sled finds its own file damaged, opening it overwrites what
//! comes after the damage: to sled that is a log whose end was never finished. It has no way to be
//! opened for reading only.

use super::base::{self, Base, Target};
use super::{Identity, Pending, Phase, Running, Shared, State, StoreError, Tuning, Wanted, applier};
use crate::change::Change;
use crate::store::frame::SegmentId;
use crate::store::full_or_os;
use crate::store::journal::{self, Endings, Segment};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What a store holds.
pub(super) struct Opening {
    dir: PathBuf,
    tuning: Tuning,
    base: Base,
    /// What sled must become, from the journal.
    pending: Target,
    /// Sequence number of the last batch.
    seq: u64,
    /// Of the journal's next segment.
    next: SegmentId,
    endings: Endings,
}

impl Opening {
    /// Reads the store in `dir`, whose lock the caller holds.
    pub(super) fn read(dir: &Path, wanted: Wanted, tuning: Tuning) -> Result<Self, StoreError> {
        let found = journal::read(dir)?;
        let base = Base::open(dir, wanted, found.is_empty())?;
        let found = found.of_pool(base.identity().pool);
        let frames = found.frames(base.applied())?;
        let seq = frames.last().map_or(base.applied(), |frame| frame.seq);
        let pending = base::target_of(&frames).map_err(|batch| base.unreadable(batch))?;
        let next = SegmentId { pool: base.identity().pool, number: found.next_number() };
        Ok(Self { dir: dir.into(), tuning, base, pending, seq, next, endings: found.endings() })
    }

    /// What the store is for.
    pub(super) fn identity(&self) -> Identity {
        self.base.identity()
    }

    /// Gives every record to `visit`.
    pub(super) fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        self.base.load(&self.pending, visit)
    }

    /// Ends the old journal, starts a new one, and goes on.
    pub(super) fn start(self) -> Result<Running, StoreError> {
        let Self { dir, tuning, base, pending, seq, next, endings } = self;
        let inherited = endings.retire()?;
        let state = State {
            segment: Segment::create(&dir, next)?,
            behind: inherited.len,
            excused: inherited.len.min(3 * tuning.backlog),
            inherited,
            seq,
            since: (!pending.is_empty()).then(Instant::now),
            pending: Pending::new(pending),
            phase: Phase::Open,
            trouble: None,
        };
        let shared = Arc::new(Shared {
            dir,
            tuning,
            base: Mutex::new(base),
            state: Mutex::new(state),
            work: Condvar::new(),
            done: Condvar::new(),
        });
        let applier =
            applier::start(&shared).map_err(|why| full_or_os(&shared.dir, "starting a thread for", why))?;
        Ok(Running { shared, applier: Mutex::new(Some(applier)) })
    }
}
