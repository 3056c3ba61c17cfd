//! The authority over a rack's frames: the only code that writes frame descriptors and the page index.
//!
//! What is allocated is what the descriptors say; everything here can be found again from them
//! ([`recover`](crate::recover)). The order of stores keeps that true at every moment, so that a
//! daemon that is killed loses nothing:
//!
//! - The number of frames ever used, and the limit of ids ever given out, are raised before they
//!   are used.
//! - A page exists from the store of its descriptor on; its index entry follows.
//! - A page that is being freed keeps its descriptor (marked) until nobody can touch it. Found after
//!   a crash it is a page again: its contents are whole, and its owner, if it has one, is right.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `give` | page ids, and frames for new pages |
//! | `take` | taking pages back: nobody touches a frame any more |
//! | `moves` | pages that go to another rack, or come from one |
//! | `victim` | which page goes when there is no room |
//! | `reconcile` | comparing the pages there are with those that have an owner |
//!
//! Lock order: `state` is a leaf. It is never held while waiting for a client, so one client that does
//! not let go of a page holds up only those who free that page.

mod give;
mod moves;
mod reconcile;
mod take;
#[cfg(test)]
mod tests;
mod victim;

pub(crate) use moves::{Arriving, Departing};

use crate::extents::{FreeFrames, Intervals};
use parking_lot::{Condvar, Mutex};
use pool::addr::{FrameNo, PageId, PageRun};
use pool::cxl::frames::{Content, Frames, State, TOUCHES_SHIFT, kind_in, word_of};
use pool::cxl::index::Index;
use pool::cxl::layout::{DESCRIPTOR_LEN, SUPERBLOCK_LEN};
use pool::cxl::protocol::{self, SharedWord};
use pool::cxl::region::Region;
use pool::proto::page::{PageError, PageKind, PageStat};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Where the ids of new pages come from.
#[derive(Debug)]
pub(crate) enum Ids {
    /// This rack is the whole pool.
    Own {
        /// The next id to give out; ids below are never given out again.
        next: u64,
        /// Up to here ids are set aside in the superblock.
        limit: u64,
    },
    /// From the master of the cluster: those that it gave and that are not used yet.
    Given(VecDeque<Range<u64>>),
}

/// What the authority knows beyond the region, all of it derived.
pub(crate) struct FrameState {
    pub free: FreeFrames,
    /// Frames that are known to be all zero, free or not yet touched.
    pub zero: Intervals,
    /// Free frames that are out of `free` while their memory is given back.
    pub trimming: u64,
    /// Frames that are never given out, since their descriptors are damaged.
    pub quarantined: u64,
    /// Free frames that are only for pages that come from other racks.
    pub reserve: u64,
    pub ids: Ids,
    /// Pages that are here in the state `Coming`, or are being received: those that no index tells of.
    pub coming: HashSet<PageId>,
    /// Frames of files' pages that were given out or came since the last comparison with the files.
    pub unsettled: Intervals,
    /// As in the superblock.
    pub frames_used: u64,
    /// Frames were freed whose memory may be worth giving back.
    pub freed: bool,
    /// After the end: nothing is changed any more.
    pub closed: bool,
}

/// The frames of a rack.
pub(crate) struct FrameTable {
    region: Arc<Region>,
    state: Mutex<FrameState>,
    /// Frames that were being trimmed are back.
    trimmed: Condvar,
    /// `freed` or `closed` was set.
    woken: Condvar,
    /// Where the search for a victim goes on.
    hand: AtomicU64,
}

/// Pages with consecutive ids in consecutive frames.
#[derive(Clone, Copy, Debug)]
struct Span {
    page: u64,
    frame: u64,
    count: u64,
}

impl Span {
    fn frames(&self) -> Range<u64> {
        self.frame..self.frame + self.count
    }

    fn pages(&self) -> impl DoubleEndedIterator<Item = (PageId, FrameNo)> + use<> {
        let Self { page, frame, count } = *self;
        (0..count).filter_map(move |i| Some((PageId::new(page + i)?, FrameNo((frame + i) as u32))))
    }
}

impl FrameTable {
    pub fn new(region: Arc<Region>, state: FrameState) -> Self {
        Self {
            region,
            state: Mutex::new(state),
            trimmed: Condvar::new(),
            woken: Condvar::new(),
            hand: AtomicU64::new(0),
        }
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// From now on so many free frames are only for pages that come from other racks.
    pub fn set_reserve(&self, reserve: u64) {
        self.state.lock().reserve = reserve;
    }

    /// How many pages can be given out in all, and how many more now.
    pub fn stat(&self) -> PageStat {
        let state = self.state.lock();
        let frames = self.region.geometry().frames as u64 - state.quarantined;
        let total = frames.saturating_sub(state.reserve);
        PageStat { total, free: (state.free.len() + state.trimming).saturating_sub(state.reserve) }
    }

    /// Where `page` is and what may be done with it; `None` if it is not here, or on its way here.
    pub fn frame_of(&self, page: PageId) -> Option<(FrameNo, State)> {
        let frame = Index::new(&self.region).lookup(page).ok().flatten()?;
        match Frames::new(&self.region).content(frame) {
            Content::Page(found, state) if found == page => Some((frame, state)),
            _ => None,
        }
    }

    /// Whose `page` is; `None` if it is not here.
    pub fn kind_of(&self, page: PageId) -> Option<PageKind> {
        self.frame_of(page).map(|(frame, _)| kind_in(self.hints(frame)))
    }

    /// Where the bytes of `frame` begin in the region; `None` if there is no such frame.
    pub fn offset_of(&self, frame: FrameNo) -> Option<u64> {
        self.region.geometry().frame_at(frame)
    }

    /// How often clients of this rack have touched `page`, roughly, in numbers that wrap around; `None` if it is
    /// not here.
    pub fn touches(&self, page: PageId) -> Option<u64> {
        let (frame, _) = self.frame_of(page)?;
        Some(self.hints(frame) >> TOUCHES_SHIFT)
    }

    fn hints(&self, frame: FrameNo) -> u64 {
        Frames::new(&self.region).hints(frame).map_or(0, |hints| hints.load(Ordering::Relaxed))
    }

    /// The descriptor of `frame` says from now on that it holds `page`.
    fn describe(&self, page: PageId, state: State, frame: FrameNo) {
        if let Some(word) = Frames::new(&self.region).word(frame) {
            protocol::release(&word, word_of(page, state, frame));
        }
    }

    /// Makes pages survive loss of power: their contents, their descriptors, the superblock.
    pub fn sync(&self, runs: &[PageRun]) -> Result<(), PageError> {
        let g = self.region.geometry();
        let index = Index::new(&self.region);
        let found: Intervals = runs
            .iter()
            .flat_map(|run| run.iter())
            .filter_map(|page| index.lookup(page).ok().flatten())
            .map(|frame| frame.0 as u64..frame.0 as u64 + 1)
            .collect();
        let data = |frame: u64| g.frames_at + frame * g.page_size.bytes();
        let descriptor = |frame: u64| g.descriptors_at + frame * DESCRIPTOR_LEN;
        for frames in found.iter() {
            self.region.sync(data(frames.start)..data(frames.end)).map_err(os)?;
            self.region.sync(descriptor(frames.start)..descriptor(frames.end)).map_err(os)?;
        }
        self.region.sync(0..SUPERBLOCK_LEN).map_err(os)
    }

    /// The end: from here on nothing changes, and the region says that it was left in order.
    pub fn close(&self) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.closed = true;
        self.woken.notify_all();
        let stored = match state.ids {
            Ids::Own { next, .. } => self.store_next_id(next),
            Ids::Given(_) => Ok(()),
        };
        self.region.set_clean(stored.is_ok());
        if let Err(error) = stored.and_then(|()| self.region.sync(0..self.region.geometry().len).map_err(os))
        {
            log::error!("{}: cannot write it out: {error}", self.region.name());
        }
    }

    /// Runs `change` under the lock; for giving memory back.
    pub fn with_state<T>(&self, change: impl FnOnce(&mut FrameState) -> T) -> T {
        let mut state = self.state.lock();
        let trimming = state.trimming;
        let result = change(&mut state);
        if state.trimming < trimming {
            self.trimmed.notify_all();
        }
        result
    }
}

impl FrameTable {
    /// Waits until frames have been freed. False after the end.
    pub fn wait_for_freed(&self) -> bool {
        let mut state = self.state.lock();
        self.woken.wait_while(&mut state, |state| !state.freed && !state.closed);
        !state.closed
    }

    /// Waits for `time`. False after the end.
    pub fn pause(&self, time: Duration) -> bool {
        let mut state = self.state.lock();
        self.woken.wait_while_for(&mut state, |state| !state.closed, time);
        !state.closed
    }
}

impl FrameState {
    fn check_open(&self) -> Result<(), PageError> {
        if self.closed { Err(PageError::Os("the daemon has shut down".into())) } else { Ok(()) }
    }
}

/// `count` ids from `first` on, as runs.
pub(crate) fn runs(first: u64, count: u64) -> Vec<PageRun> {
    let most = u32::MAX as u64;
    (0..count.div_ceil(most))
        .filter_map(|i| {
            let (start, len) = (first + i * most, (count - i * most).min(most));
            PageRun::new(PageId::new(start)?, len as u32)
        })
        .collect()
}

fn os(error: std::io::Error) -> PageError {
    PageError::Os(error.to_string())
}
