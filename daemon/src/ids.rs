//! The rack's supply of page ids: blocks that the master gives.
//!
//! The next block is taken in the background long before it is needed, so an allocation waits for the
//! master only in a rack that is new, or when the master has been away for most of a block.

use crate::frames::FrameTable;
use crate::member::Member;
use parking_lot::{Condvar, Mutex, RwLock};
use pool::addr::PageId;
use pool::proto::cluster::BLOCK;
use pool::proto::page::PageError;
use pool::workers::Workers;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// With fewer ids than these the next block is taken.
const LOW: u64 = BLOCK / 2;

/// The supply.
pub(crate) struct Ids {
    frames: Arc<FrameTable>,
    member: Arc<Member>,
    /// How long to wait for a block.
    deadline: Duration,
    /// Whether a thread is taking a block. Not held while it asks.
    taking: Mutex<bool>,
    taken: Condvar,
    /// The next block has been asked for in advance; not again before [`retry`](Self::retry).
    ahead: AtomicBool,
    /// Blocks taken since the start.
    ours: RwLock<HashSet<u64>>,
}

impl Ids {
    pub fn new(frames: Arc<FrameTable>, member: Arc<Member>, deadline: Duration) -> Self {
        let (taking, taken, ahead, ours) = Default::default();
        Self { frames, member, deadline, taking, taken, ahead, ours }
    }

    /// Makes sure that there are ids for `pages` more pages. Waits for the master if there are not.
    pub fn provide(&self, pages: u64) -> Result<(), PageError> {
        let until = Instant::now() + self.deadline;
        while self.frames.ids_left() < pages {
            let mut taking = self.taking.lock();
            if *taking {
                if self.taken.wait_until(&mut taking, until).timed_out() {
                    return Err(PageError::Unreachable("no page ids: the master does not answer".into()));
                }
                continue;
            }
            *taking = true;
            drop(taking);
            let result = self.take();
            *self.taking.lock() = false;
            self.taken.notify_all();
            result?;
        }
        Ok(())
    }

    fn take(&self) -> Result<(), PageError> {
        let block = self.member.take_block()?;
        self.ours.write().insert(block);
        self.frames.add_ids(block);
        Ok(())
    }

    /// Sees to it that the next block is there in time.
    pub fn look_ahead(self: &Arc<Self>, workers: &Workers) {
        if self.frames.ids_left() >= LOW || self.ahead.swap(true, Ordering::Relaxed) {
            return;
        }
        let ids = Arc::clone(self);
        workers.run(move || match ids.provide(LOW) {
            Ok(()) => ids.retry(),
            Err(error) => log::warn!("no page ids in advance: {error}"),
        });
    }

    /// If the next block did not come it may be asked for again.
    pub fn retry(&self) {
        self.ahead.store(false, Ordering::Relaxed);
    }

    /// Whether `page` was surely made in this rack. Of pages made before the last start that is not known.
    pub fn made(&self, page: PageId) -> bool {
        self.ours.read().contains(&(page.raw() / BLOCK))
    }
}
