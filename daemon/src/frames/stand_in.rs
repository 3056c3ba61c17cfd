//! Stands in for the moving of frames until that is there. To be dropped at the merge.

use super::*;
use pool::cxl::frames::{REFERENCED, TOUCHES_SHIFT, hints_of, kind_in};
use pool::proto::page::PageKind;
use pool::proto::peer::{Image, Refusal};
use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub(crate) struct Extra {
    pub reserve: AtomicU64,
    hand: AtomicU64,
    limit: AtomicU64,
    coming: Mutex<std::collections::HashSet<PageId>>,
}

#[must_use]
pub(crate) struct Departing(PageId, FrameNo, PageKind);
#[must_use]
pub(crate) struct Arriving(PageId, FrameNo, PageKind);

impl Departing {
    pub fn page(&self) -> PageId {
        self.0
    }

    pub fn kind(&self) -> PageKind {
        self.2
    }
}

impl Arriving {
    pub fn page(&self) -> PageId {
        self.0
    }

    pub fn kind(&self) -> PageKind {
        self.2
    }
}

#[allow(dead_code)]
impl FrameTable {
    pub fn set_reserve(&self, reserve: u64) {
        self.stand_in.reserve.store(reserve, Ordering::Relaxed);
    }

    pub fn free_with(&self, runs: &[PageRun], revoke: &dyn Fn(&[PageId])) -> Result<u64, PageError> {
        let mut spans = Vec::new();
        runs.iter().for_each(|run| self.mark(run.first.raw()..run.end(), &mut spans));
        self.await_clients(&spans).map_err(PageError::Busy)?;
        revoke(&spans.iter().flat_map(Span::pages).map(|(page, _)| page).collect::<Vec<_>>());
        Ok(self.release(&spans))
    }

    pub fn frame_of(&self, page: PageId) -> Option<(FrameNo, State)> {
        let frame = Index::new(&self.region).lookup(page).ok().flatten()?;
        match Frames::new(&self.region).content(frame) {
            Content::Page(found, state) if found == page => Some((frame, state)),
            _ => None,
        }
    }

    pub fn offset_of(&self, frame: FrameNo) -> u64 {
        self.region.geometry().frame_at(frame).unwrap()
    }

    fn kind_at(&self, frame: FrameNo) -> PageKind {
        kind_in(Frames::new(&self.region).hints(frame).unwrap().load(Ordering::Relaxed))
    }

    pub fn freeze(&self, page: PageId) -> Result<Departing, Refusal> {
        let (frame, _) = self.frame_of(page).ok_or(Refusal::NotHere)?;
        let word = Frames::new(&self.region).word(frame).unwrap();
        let (from, to) = (word_of(page, State::Stable, frame), word_of(page, State::Leaving, frame));
        if !protocol::mark(&word, from, to) {
            return Err(Refusal::Busy);
        }
        let span = Span { page: page.raw(), frame: frame.0 as u64, count: 1 };
        if self.await_clients(&[span]).is_err() {
            protocol::release(&word, from);
            return Err(Refusal::Busy);
        }
        Ok(Departing(page, frame, self.kind_at(frame)))
    }

    pub fn image(&self, departing: &Departing) -> Image {
        let mut data = Vec::new();
        let size = self.region.geometry().page_size.bytes() as usize;
        self.region.append(self.offset_of(departing.1), size, &mut data);
        let hints = Frames::new(&self.region).hints(departing.1).unwrap().load(Ordering::Relaxed);
        Image::new(departing.0, kind_in(hints), data)
    }

    fn put(&self, page: PageId, frame: FrameNo, state: State) {
        protocol::release(&Frames::new(&self.region).word(frame).unwrap(), word_of(page, state, frame));
    }

    pub fn thaw(&self, departing: Departing) {
        self.put(departing.0, departing.1, State::Stable);
    }

    fn clear_frame(&self, frame: FrameNo) {
        protocol::release(&Frames::new(&self.region).word(frame).unwrap(), 0);
        self.state.lock().free.insert(frame.0 as u64..frame.0 as u64 + 1);
    }

    pub fn depart(&self, departing: Departing) {
        Index::new(&self.region).remove(departing.0, departing.1);
        self.clear_frame(departing.1);
    }

    pub fn receive(&self, image: &Image) -> Result<Arriving, Refusal> {
        if self.frame_of(image.page).is_some() || !self.stand_in.coming.lock().insert(image.page) {
            return Err(Refusal::Busy);
        }
        let mut state = self.state.lock();
        let Some(pieces) = state.free.take(1) else {
            self.stand_in.coming.lock().remove(&image.page);
            return Err(Refusal::Full);
        };
        self.raise_frames_used(&mut state, &pieces);
        state.zero.remove(pieces[0].clone());
        drop(state);
        let frame = FrameNo(pieces[0].start as u32);
        self.region.write(self.offset_of(frame), &image.data);
        Frames::new(&self.region).hints(frame).unwrap().store(hints_of(image.kind), Ordering::Relaxed);
        self.put(image.page, frame, State::Coming);
        Ok(Arriving(image.page, frame, image.kind))
    }

    pub fn arrive(&self, arriving: Arriving) {
        self.put(arriving.0, arriving.1, State::Stable);
        Index::new(&self.region).insert(arriving.0, arriving.1);
        self.stand_in.coming.lock().remove(&arriving.0);
    }

    pub fn abandon(&self, arriving: Arriving) {
        self.clear_frame(arriving.1);
        self.stand_in.coming.lock().remove(&arriving.0);
    }

    pub fn victim(&self, unfit: &dyn Fn(PageId) -> bool) -> Option<PageId> {
        let used = self.state.lock().frames_used;
        for _ in 0..2 * used {
            let frame = FrameNo((self.stand_in.hand.fetch_add(1, Ordering::Relaxed) % used) as u32);
            if let Content::Page(page, State::Stable) = Frames::new(&self.region).content(frame) {
                let hints = Frames::new(&self.region).hints(frame).unwrap();
                let was = hints.load(Ordering::Relaxed);
                if was & REFERENCED != 0 {
                    hints.store(was & !REFERENCED, Ordering::Relaxed);
                } else if !unfit(page) {
                    return Some(page);
                }
            }
        }
        None
    }

    pub fn limbo(&self) -> (Vec<Departing>, Vec<Arriving>) {
        let (mut out, mut into) = (Vec::new(), Vec::new());
        for frame in (0..self.state.lock().frames_used).map(|frame| FrameNo(frame as u32)) {
            match Frames::new(&self.region).content(frame) {
                Content::Page(page, State::Leaving) => out.push(Departing(page, frame, self.kind_at(frame))),
                Content::Page(page, State::Coming) => into.push(Arriving(page, frame, self.kind_at(frame))),
                _ => {}
            }
        }
        self.stand_in.coming.lock().extend(into.iter().map(|a| a.0));
        (out, into)
    }

    pub fn touches(&self, page: PageId) -> Option<u64> {
        let (frame, _) = self.frame_of(page)?;
        Some(Frames::new(&self.region).hints(frame)?.load(Ordering::Relaxed) >> TOUCHES_SHIFT)
    }

    pub fn has_room(&self) -> bool {
        self.state.lock().free.len() > self.stand_in.reserve.load(Ordering::Relaxed)
    }

    pub fn alloc_up_to(&self, pages: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let free = self.stat().free;
        if pages.min(free) == 0 { Ok(vec![]) } else { self.alloc(pages.min(free), 0, kind) }
    }
    pub fn add_ids(&self, block: u64) {
        let mut state = self.state.lock();
        self.stand_in.limit.store((block + 1) << 20, Ordering::Relaxed);
        state.next_id = (block << 20).max(1);
        state.id_limit = state.next_id;
    }
    pub fn ids_left(&self) -> u64 {
        self.stand_in.limit.load(Ordering::Relaxed).saturating_sub(self.state.lock().next_id)
    }
}
