//! Taking pages back: a frame is free when nobody can touch it any more.

use super::{FrameState, FrameTable, Ids, Span};
use pool::addr::{FrameNo, PageId, PageRun};
use pool::cxl::frames::{Frames, State, word_of};
use pool::cxl::index::Index;
use pool::cxl::protocol;
use pool::cxl::region::Word;
use pool::cxl::slots::Slots;
use pool::proto::page::PageError;
use std::ops::Range;
use std::time::{Duration, Instant};

/// How long the daemon waits for clients to let go of pages that are to be freed.
const PATIENCE: Duration = Duration::from_secs(1);
/// After this long it looks whether those clients still live.
const SUSPICION: Duration = Duration::from_millis(10);

impl FrameTable {
    /// Takes back the pages of `runs`, as many as there are. `revoke` is called when no client of this rack can
    /// touch them any more, and returns when nobody else can.
    pub fn free(&self, runs: &[PageRun], revoke: &dyn Fn(&[PageId])) -> Result<u64, PageError> {
        let limit = {
            let state = self.state.lock();
            state.check_open()?;
            match state.ids {
                Ids::Own { next, .. } => next,
                Ids::Given(_) => PageId::LIMIT,
            }
        };
        let mut spans = Vec::new();
        for run in runs {
            self.mark(run.first.raw()..run.end().min(limit), &mut spans);
        }
        if spans.is_empty() {
            return Ok(0);
        }
        if let Err(page) = self.await_clients(&spans, PATIENCE) {
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

    /// Waits until no client touches the marked frames: one scan of the slots for all of them. Who does not let
    /// go within `patience` and lives is why a page is named.
    pub(super) fn await_clients(&self, spans: &[Span], patience: Duration) -> Result<(), PageId> {
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
                    waited if waited > patience => return Err(blamed(spans, &frames)),
                    _ => std::thread::sleep(Duration::from_micros(50)),
                }
            }
        }
        Ok(())
    }

    /// Makes marked frames that nobody touches free. Returns how many.
    pub(super) fn release(&self, spans: &[Span]) -> u64 {
        let (descriptors, index) = (Frames::new(&self.region), Index::new(&self.region));
        let mut state = self.state.lock();
        for (page, frame) in spans.iter().flat_map(|span| span.pages().rev()) {
            index.remove(page, frame);
            if let Some(word) = descriptors.word(frame) {
                protocol::release(&word, 0);
            }
        }
        for span in spans {
            self.put_back(&mut state, span.frames());
        }
        spans.iter().map(|span| span.count).sum()
    }

    /// Frames that hold nothing any more are free.
    pub(super) fn put_back(&self, state: &mut FrameState, frames: Range<u64>) {
        state.unsettled.remove(frames.clone());
        state.free.insert(frames);
        if !std::mem::replace(&mut state.freed, true) {
            self.woken.notify_all();
        }
    }
}

/// A page of `spans` that is in `frames`.
fn blamed(spans: &[Span], frames: &Range<u64>) -> PageId {
    let pages = spans.iter().flat_map(Span::pages);
    let named = pages.filter(|(_, frame)| frames.contains(&(frame.0 as u64))).map(|(page, _)| page).next();
    named.unwrap_or(PageId::FIRST)
}
