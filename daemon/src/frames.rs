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
//! Lock order: `state` is a leaf. It is never held while waiting for a client, so one client that does
//! not let go of a page holds up only those who free that page.

mod stand_in;
pub(crate) use stand_in::{Arriving, Departing};

use crate::extents::{FreeFrames, Intervals};
use parking_lot::{Condvar, Mutex};
use pool::addr::{FrameNo, PageId, PageRun};
use pool::cxl::frames::{Content, Frames, GIVEN_ZERO, State, word_of};
use pool::cxl::index::Index;
use pool::cxl::layout::{AT_FRAMES_USED, AT_NEXT_ID, DESCRIPTOR_LEN, SUPERBLOCK_LEN};
use pool::cxl::protocol::{self, SharedWord};
use pool::cxl::region::{Region, Word};
use pool::cxl::slots::Slots;
use pool::proto::page::{PageError, PageKind, PageStat, Reconciled};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Page ids are set aside in the superblock this many at a time; a crash skips at most as many.
const ID_BLOCK: u64 = 1 << 20;
/// How long the daemon waits for clients to let go of pages that are to be freed.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this long it looks whether those clients still live.
const SUSPICION: Duration = Duration::from_millis(10);

/// What the authority knows beyond the region, all of it derived.
pub(crate) struct FrameState {
    pub free: FreeFrames,
    /// Frames that are known to be all zero, free or not yet touched.
    pub zero: Intervals,
    /// Free frames that are out of `free` while their memory is given back.
    pub trimming: u64,
    /// Frames that are never given out, since their descriptors are damaged.
    pub quarantined: u64,
    /// The next id to give out; ids below are never given out again.
    pub next_id: u64,
    /// Up to here ids are set aside in the superblock.
    pub id_limit: u64,
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
    stand_in: stand_in::Extra,
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
            stand_in: Default::default(),
        }
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    pub fn stat(&self) -> PageStat {
        let state = self.state.lock();
        let total = self.region.geometry().frames as u64 - state.quarantined;
        PageStat {
            total,
            free: (state.free.len() + state.trimming)
                .saturating_sub(self.stand_in.reserve.load(Ordering::Relaxed)),
        }
    }

    /// Gives out `pages` pages with consecutive ids, in few pieces of consecutive frames.
    pub fn alloc(&self, pages: u64, leave: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let _ = kind;
        let leave = leave + self.stand_in.reserve.load(Ordering::Relaxed);
        let wanted = pages.saturating_add(leave);
        let mut state = self.state.lock();
        while state.free.len() < wanted && state.trimming > 0 {
            self.trimmed.wait(&mut state);
        }
        state.check_open()?;
        let full = PageError::OutOfMemory { wanted, free: state.free.len() };
        if state.free.len() < wanted {
            return Err(PageError::OutOfMemory {
                wanted: wanted - self.stand_in.reserve.load(Ordering::Relaxed),
                free: state.free.len().saturating_sub(self.stand_in.reserve.load(Ordering::Relaxed)),
            });
        }
        let first = self.set_ids_aside(&mut state, pages)?;
        let pieces = state.free.take(pages).ok_or(full)?;
        self.raise_frames_used(&mut state, &pieces);
        let mut page = first;
        for frames in pieces {
            for (part, zero) in state.zero.split(frames.clone()) {
                self.fill(page, part.clone(), zero);
                page += part.end - part.start;
            }
            state.zero.remove(frames);
        }
        Ok(runs(first, pages))
    }

    /// Sets `count` ids aside; returns the first.
    fn set_ids_aside(&self, state: &mut FrameState, count: u64) -> Result<u64, PageError> {
        let first = state.next_id;
        let limit = self.region.geometry().page_size.id_limit().min(PageId::LIMIT);
        let next = first.checked_add(count).filter(|next| *next <= limit);
        let next = next.ok_or_else(|| PageError::Os("the pool has given out all its page ids".into()))?;
        if next > state.id_limit {
            let aside = next.saturating_add(ID_BLOCK).min(limit);
            self.store_next_id(aside)?;
            state.id_limit = aside;
        }
        state.next_id = next;
        Ok(first)
    }

    fn store_next_id(&self, next: u64) -> Result<(), PageError> {
        self.region.word(AT_NEXT_ID).store(next, Ordering::Release);
        self.region.sync(0..SUPERBLOCK_LEN).map_err(os)
    }

    fn raise_frames_used(&self, state: &mut FrameState, pieces: &[Range<u64>]) {
        let end = pieces.iter().map(|piece| piece.end).max().unwrap_or(0);
        if end > state.frames_used {
            state.frames_used = end;
            self.region.word(AT_FRAMES_USED).store(end, Ordering::Release);
        }
    }

    /// Makes pages from id `first` on in `frames`, which are free.
    fn fill(&self, first: u64, frames: Range<u64>, zero: bool) {
        let (descriptors, index) = (Frames::new(&self.region), Index::new(&self.region));
        let span = Span { page: first, frame: frames.start, count: frames.end - frames.start };
        for (page, frame) in span.pages() {
            if let (Some(hints), Some(word)) = (descriptors.hints(frame), descriptors.word(frame)) {
                hints.store(if zero { GIVEN_ZERO } else { 0 }, Ordering::Relaxed);
                protocol::release(&word, word_of(page, State::Stable, frame));
                index.insert(page, frame);
            }
        }
    }

    /// Takes back the pages of `runs`, as many as there are.
    pub fn free(&self, runs: &[PageRun], revoke: &dyn Fn(&[PageId])) -> Result<u64, PageError> {
        let next_id = {
            let state = self.state.lock();
            state.check_open()?;
            state.next_id
        };
        let mut spans = Vec::new();
        for run in runs {
            let _ = next_id;
            self.mark(run.first.raw()..run.end(), &mut spans);
        }
        if spans.is_empty() {
            return Ok(0);
        }
        if let Err(page) = self.await_clients(&spans) {
            self.unmark(&spans);
            return Err(PageError::Busy(page));
        }
        revoke(&spans.iter().flat_map(|span| span.pages().map(|(page, _)| page)).collect::<Vec<_>>());
        Ok(self.release(&spans))
    }

    /// Marks the pages with these ids that exist and nobody else is freeing, and adds them to `spans`.
    fn mark(&self, ids: Range<u64>, spans: &mut Vec<Span>) {
        let (descriptors, index) = (Frames::new(&self.region), Index::new(&self.region));
        let mark = |page, frame| {
            descriptors.word(frame).is_some_and(|word| {
                let (from, to) = (word_of(page, State::Stable, frame), word_of(page, State::Freeing, frame));
                protocol::mark(&word, from, to)
            })
        };
        let mut open: Option<Span> = None;
        for page in ids.filter_map(PageId::new) {
            // The next id is mostly in the next frame.
            if let Some(span) = &mut open
                && mark(page, FrameNo((span.frame + span.count) as u32))
            {
                span.count += 1;
                continue;
            }
            spans.extend(open.take());
            open = index.lookup(page).ok().flatten().filter(|frame| mark(page, *frame)).map(|frame| Span {
                page: page.raw(),
                frame: frame.0 as u64,
                count: 1,
            });
        }
        spans.extend(open);
    }

    fn unmark(&self, spans: &[Span]) {
        let descriptors = Frames::new(&self.region);
        for (page, frame) in spans.iter().flat_map(Span::pages) {
            if let Some(word) = descriptors.word(frame) {
                protocol::release(&word, word_of(page, State::Stable, frame));
            }
        }
    }

    /// Waits until no client touches the marked frames: one scan of the slots for all of them.
    fn await_clients(&self, spans: &[Span]) -> Result<(), PageId> {
        protocol::settle::<Word<'_>>();
        let mut marked: Vec<Range<u64>> = spans.iter().map(Span::frames).collect();
        marked.sort_unstable_by_key(|frames| frames.start);
        let named = |hazard: &Word<'_>| {
            let (first, count) = protocol::named(protocol::observe(hazard));
            // The frames named may overlap a marked range that begins in front of their end.
            let before = &marked[..marked.partition_point(|frames| frames.start < first + count)];
            let hit = before.last().is_some_and(|frames| count > 0 && frames.end > first);
            hit.then_some(first..first + count)
        };
        let slots = Slots::new(&self.region);
        let mut start = None;
        for (slot, hazard) in slots.used() {
            let mut rounds = 0u32;
            while let Some(frames) = named(&hazard) {
                rounds += 1;
                match start.get_or_insert_with(Instant::now).elapsed() {
                    _ if rounds < 1000 => std::hint::spin_loop(),
                    waited if waited > SUSPICION && slots.release_if_dead(slot) => break,
                    waited if waited > PATIENCE => return Err(blamed(spans, &frames)),
                    _ => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        }
        Ok(())
    }

    /// Makes marked frames that nobody touches free. Returns how many.
    fn release(&self, spans: &[Span]) -> u64 {
        let (descriptors, index) = (Frames::new(&self.region), Index::new(&self.region));
        let mut state = self.state.lock();
        for (page, frame) in spans.iter().flat_map(|span| span.pages().rev()) {
            index.remove(page, frame);
            if let Some(word) = descriptors.word(frame) {
                protocol::release(&word, 0);
            }
        }
        for span in spans {
            state.free.insert(span.frames());
        }
        if !std::mem::replace(&mut state.freed, true) {
            self.woken.notify_all();
        }
        spans.iter().map(|span| span.count).sum()
    }

    /// Frees every page that is not in `held`; says what of `held` there is not.
    pub fn reconcile(&self, held: &[PageRun], revoke: &dyn Fn(&[PageId])) -> Result<Reconciled, PageError> {
        let held: Intervals = held.iter().map(|run| run.first.raw()..run.end()).collect();
        let used = {
            let mut state = self.state.lock();
            state.check_open()?;
            // An owner may know of ids that the region has forgotten (it lost power): they stay used.
            let beyond = held.iter().last().map_or(0, |range| range.end);
            if beyond > state.next_id {
                let count = beyond - state.next_id;
                self.set_ids_aside(&mut state, count)?;
            }
            state.frames_used
        };
        let mut present = Intervals::default();
        let mut leaked = Intervals::default();
        for frame in 0..used {
            if let Content::Page(page, _) = Frames::new(&self.region).content(FrameNo(frame as u32)) {
                let range = page.raw()..page.raw() + 1;
                let set = if held.overlaps(&range) { &mut present } else { &mut leaked };
                set.insert(range);
            }
        }
        let leaked: Vec<PageRun> =
            leaked.iter().flat_map(|range| runs(range.start, range.end - range.start)).collect();
        let missing = held.iter().flat_map(|range| present.split(range)).filter(|(_, there)| !there);
        let missing = missing.flat_map(|(range, _)| runs(range.start, range.end - range.start)).collect();
        Ok(Reconciled { leaked: self.free(&leaked, revoke)?, missing, clients: None })
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
        let stored = self.store_next_id(state.next_id);
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

/// A page of `spans` that is in `frames`.
fn blamed(spans: &[Span], frames: &Range<u64>) -> PageId {
    let pages = spans.iter().flat_map(Span::pages);
    let named = pages.filter(|(_, frame)| frames.contains(&(frame.0 as u64))).map(|(page, _)| page).next();
    named.unwrap_or(PageId::FIRST)
}

/// `count` ids from `first` on, as runs.
fn runs(first: u64, count: u64) -> Vec<PageRun> {
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
