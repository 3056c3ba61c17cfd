//! Page ids, and frames for new pages.

use super::{FrameState, FrameTable, Ids, Span, os, runs};
use parking_lot::MutexGuard;
use pool::addr::{PageId, PageRun};
use pool::cxl::frames::{Frames, GIVEN_ZERO, State, hints_of, word_of};
use pool::cxl::index::Index;
use pool::cxl::layout::{AT_FRAMES_USED, AT_NEXT_ID, SUPERBLOCK_LEN};
use pool::cxl::protocol::{self, SharedWord};
use pool::proto::cluster::BLOCK;
use pool::proto::page::{PageError, PageKind};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Page ids are set aside in the superblock this many at a time; a crash skips at most as many.
const ASIDE: u64 = 1 << 20;

impl FrameTable {
    /// Gives out `pages` pages, in as few runs of consecutive ids and pieces of consecutive frames as can be.
    /// At least `leave` pages, and the reserve, remain.
    pub fn alloc(&self, pages: u64, leave: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let mut state = self.state.lock();
        self.await_trimming(&mut state, pages.saturating_add(leave));
        state.check_open()?;
        if state.room() < pages.saturating_add(leave) {
            return Err(PageError::OutOfMemory { wanted: pages.saturating_add(leave), free: state.room() });
        }
        self.give(&mut state, pages, kind)
    }

    /// As [`alloc`](Self::alloc), but as many as there are, up to `pages`.
    pub fn alloc_up_to(&self, pages: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let mut state = self.state.lock();
        self.await_trimming(&mut state, pages);
        state.check_open()?;
        let pages = pages.min(state.room());
        if let Ids::Given(_) = state.ids
            && state.ids_left() < pages
        {
            let left = state.ids_left();
            return self.give(&mut state, left, kind);
        }
        self.give(&mut state, pages, kind)
    }

    /// Adds a block of ids that the master gave.
    pub fn add_ids(&self, block: u64) {
        self.add_id_range(block.saturating_mul(BLOCK)..block.saturating_add(1).saturating_mul(BLOCK));
    }

    /// Adds ids that the master gave.
    pub fn add_id_range(&self, ids: Range<u64>) {
        let limit = self.id_limit();
        let ids = ids.start.max(PageId::FIRST.raw())..ids.end.min(limit);
        if let Ids::Given(given) = &mut self.state.lock().ids
            && !ids.is_empty()
        {
            given.push_back(ids);
        }
    }

    /// How many ids there are for new pages.
    pub fn ids_left(&self) -> u64 {
        self.state.lock().ids_left()
    }

    /// Waits, if there are not enough free frames, for those that are being trimmed.
    pub(super) fn await_trimming(&self, state: &mut MutexGuard<'_, FrameState>, wanted: u64) {
        while state.room() < wanted && state.trimming > 0 {
            self.trimmed.wait(state);
        }
    }

    /// Makes pages, for which there must be room.
    fn give(&self, state: &mut FrameState, pages: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let mut given = Vec::new();
        let ids = self.take_ids(state, pages)?;
        let full = PageError::OutOfMemory { wanted: pages, free: state.free.len() };
        for ids in ids {
            let count = ids.end - ids.start;
            let pieces = state.free.take(count).ok_or(full.clone())?;
            self.raise_frames_used(state, &pieces);
            let mut page = ids.start;
            for frames in pieces {
                for (part, zero) in state.zero.split(frames.clone()) {
                    self.fill(page, part.clone(), zero, kind);
                    page += part.end - part.start;
                }
                state.zero.remove(frames.clone());
                state.note_new(frames, kind);
            }
            given.extend(runs(ids.start, count));
        }
        Ok(given)
    }

    /// Takes `count` ids, in order.
    fn take_ids(&self, state: &mut FrameState, count: u64) -> Result<Vec<Range<u64>>, PageError> {
        match &mut state.ids {
            Ids::Own { .. } => Ok(vec![self.set_ids_aside(&mut state.ids, count)?]),
            Ids::Given(given) => {
                if given.iter().map(|ids| ids.end - ids.start).sum::<u64>() < count {
                    return Err(PageError::Unreachable("no page ids: the master does not answer".into()));
                }
                let (mut taken, mut missing) = (Vec::new(), count);
                while missing > 0
                    && let Some(ids) = given.front_mut()
                {
                    let end = ids.end.min(ids.start + missing);
                    missing -= end - ids.start;
                    taken.push(ids.start..end);
                    ids.start = end;
                    if ids.is_empty() {
                        given.pop_front();
                    }
                }
                Ok(taken)
            }
        }
    }

    /// Takes the next `count` ids of our own, which the superblock is told of first.
    pub(super) fn set_ids_aside(&self, ids: &mut Ids, count: u64) -> Result<Range<u64>, PageError> {
        let Ids::Own { next, limit } = ids else { return Ok(0..0) };
        let most = self.id_limit();
        let end = next.checked_add(count).filter(|end| *end <= most);
        let end = end.ok_or_else(|| PageError::Os("the pool has given out all its page ids".into()))?;
        if end > *limit {
            let aside = end.saturating_add(ASIDE).min(most);
            self.store_next_id(aside)?;
            *limit = aside;
        }
        let taken = *next..end;
        *next = end;
        Ok(taken)
    }

    fn id_limit(&self) -> u64 {
        self.region.geometry().page_size.id_limit().min(PageId::LIMIT)
    }

    pub(super) fn store_next_id(&self, next: u64) -> Result<(), PageError> {
        self.region.word(AT_NEXT_ID).store(next, Ordering::Release);
        self.region.sync(0..SUPERBLOCK_LEN).map_err(os)
    }

    pub(super) fn raise_frames_used(&self, state: &mut FrameState, pieces: &[Range<u64>]) {
        let end = pieces.iter().map(|piece| piece.end).max().unwrap_or(0);
        if end > state.frames_used {
            state.frames_used = end;
            self.region.word(AT_FRAMES_USED).store(end, Ordering::Release);
        }
    }

    /// Makes pages from id `first` on in `frames`, which are free.
    fn fill(&self, first: u64, frames: Range<u64>, zero: bool, kind: PageKind) {
        let (descriptors, index) = (Frames::new(&self.region), Index::new(&self.region));
        let hint = hints_of(kind) | if zero { GIVEN_ZERO } else { 0 };
        let span = Span { page: first, frame: frames.start, count: frames.end - frames.start };
        for (page, frame) in span.pages() {
            if let (Some(hints), Some(word)) = (descriptors.hints(frame), descriptors.word(frame)) {
                hints.store(hint, Ordering::Relaxed);
                protocol::release(&word, word_of(page, State::Stable, frame));
                index.insert(page, frame);
            }
        }
    }
}

impl FrameState {
    /// Frames for new pages.
    pub(super) fn room(&self) -> u64 {
        self.free.len().saturating_sub(self.reserve)
    }

    fn ids_left(&self) -> u64 {
        match &self.ids {
            Ids::Own { .. } => PageId::LIMIT,
            Ids::Given(given) => given.iter().map(|ids| ids.end - ids.start).sum(),
        }
    }

    /// Pages of this kind are in `frames` now that were not there before.
    pub(super) fn note_new(&mut self, frames: Range<u64>, kind: PageKind) {
        // Who owns all pages of a pool of its own tells when it compares.
        if kind == PageKind::File && matches!(self.ids, Ids::Given(_)) {
            self.unsettled.insert(frames);
        }
    }
}
