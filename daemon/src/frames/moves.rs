//! Pages that go to another rack, or come from one.
//!
//! [`Departing`] and [`Arriving`] stand for the two states of a page on its way, `Leaving` and `Coming`, which
//! are in its descriptor and so outlive the daemon. Each is made once and ends in one of two ways: thawed or
//! departed, arrived or abandoned. One that is dropped stays as it is, until a restart finds it.
//!
//! A page is never received while there is a copy of it here in any state.

use super::{FrameTable, Span};
use pool::addr::{FrameNo, PageId};
use pool::cxl::frames::{Content, Frames, State, hints_of, kind_in, word_of};
use pool::cxl::index::Index;
use pool::cxl::protocol::{self, SharedWord};
use pool::proto::page::PageKind;
use pool::proto::peer::{Image, Refusal};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a page that may move waits for clients to let go of it: nobody can use it meanwhile, and it may as
/// well stay. Longer than the copying of one stretch, and than it takes to see that a client is dead.
const PATIENCE: Duration = Duration::from_millis(30);

/// A page of ours that no client can touch.
#[must_use = "the page is frozen until it thaws or departs"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Departing {
    page: PageId,
    frame: FrameNo,
    kind: PageKind,
}

/// A page of another rack that is here, but cannot be found yet.
#[must_use = "the frame is taken until the page arrives or is abandoned"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arriving {
    page: PageId,
    frame: FrameNo,
    kind: PageKind,
}

impl Departing {
    /// Which.
    pub fn page(&self) -> PageId {
        self.page
    }

    /// Whose.
    pub fn kind(&self) -> PageKind {
        self.kind
    }
}

impl Arriving {
    /// Which.
    pub fn page(&self) -> PageId {
        self.page
    }

    /// Whose.
    pub fn kind(&self) -> PageKind {
        self.kind
    }
}

impl FrameTable {
    /// Makes that no client of this rack can touch `page`. Other racks may still have references to it.
    pub fn freeze(&self, page: PageId) -> Result<Departing, Refusal> {
        if self.state.lock().closed {
            return Err(Refusal::Busy);
        }
        let (frame, _) = self.frame_of(page).ok_or(Refusal::NotHere)?;
        let word = Frames::new(&self.region).word(frame).ok_or(Refusal::NotHere)?;
        let (stable, leaving) = (word_of(page, State::Stable, frame), word_of(page, State::Leaving, frame));
        if !protocol::mark(&word, stable, leaving) {
            return Err(Refusal::Busy);
        }
        let span = Span { page: page.raw(), frame: frame.0 as u64, count: 1 };
        if self.await_clients(&[span], PATIENCE).is_err() {
            protocol::release(&word, stable);
            return Err(Refusal::Busy);
        }
        Ok(Departing { page, frame, kind: kind_in(self.hints(frame)) })
    }

    /// What the page holds, once nobody has references to it either.
    pub fn image(&self, departing: &Departing) -> Image {
        let size = self.region.geometry().page_size.bytes() as usize;
        let mut data = Vec::with_capacity(size);
        if let Some(offset) = self.offset_of(departing.frame) {
            self.region.append(offset, size, &mut data);
        }
        Image::new(departing.page, departing.kind, data)
    }

    /// As [`image`](Self::image), to be fetched from where it lies.
    pub fn image_to_fetch(&self, departing: &Departing) -> Image {
        let offset = self.offset_of(departing.frame).unwrap_or_default();
        Image::lent(departing.page, departing.kind, self.checksum(offset), offset)
    }

    /// CRC-32 of the frame at `offset`.
    fn checksum(&self, offset: u64) -> u32 {
        const PART: u64 = 64 << 10;
        let size = self.region.geometry().page_size.bytes();
        let (mut sum, mut part) = (crc32fast::Hasher::new(), Vec::new());
        for at in (0..size).step_by(PART as usize) {
            part.clear();
            self.region.append(offset + at, (size - at).min(PART) as usize, &mut part);
            sum.update(&part);
        }
        sum.finalize()
    }

    /// The page stays.
    pub fn thaw(&self, departing: Departing) {
        self.describe(departing.page, State::Stable, departing.frame);
    }

    /// The page is elsewhere now; its frame is free.
    pub fn depart(&self, departing: Departing) {
        let Departing { page, frame, .. } = departing;
        self.release(&[Span { page: page.raw(), frame: frame.0 as u64, count: 1 }]);
    }

    /// As [`receive_by`](Self::receive_by), of what is not lent.
    #[cfg(test)]
    pub fn receive(&self, image: &Image) -> Result<Arriving, Refusal> {
        self.receive_by(image, |_, _| false)
    }

    /// Puts a page of another rack into a free frame, also one of the reserve. If the page is lent, `fetch` brings
    /// it, from the first offset there to the second here; when that returns nothing more is stored here.
    pub fn receive_by(
        &self,
        image: &Image,
        fetch: impl FnOnce(u64, u64) -> bool,
    ) -> Result<Arriving, Refusal> {
        let page = image.page;
        let frame = self.take_for(page)?;
        let offset = self.offset_of(frame).unwrap_or_default();
        let arriving = Arriving { page, frame, kind: image.kind };
        match image.lent {
            None => self.region.write(offset, &image.data),
            Some(from) if !fetch(from, offset) => {
                self.abandon(arriving);
                return Err(Refusal::Busy);
            }
            Some(_) if self.checksum(offset) != image.crc => {
                self.abandon(arriving);
                return Err(Refusal::BadImage);
            }
            Some(_) => {}
        }
        if let Some(hints) = Frames::new(&self.region).hints(frame) {
            hints.store(hints_of(image.kind), Ordering::Relaxed);
        }
        self.describe(page, State::Coming, frame);
        Ok(arriving)
    }

    /// A free frame for `page`, of which there must be no copy here.
    fn take_for(&self, page: PageId) -> Result<FrameNo, Refusal> {
        let mut state = self.state.lock();
        while state.free.len() == 0 && state.trimming > 0 {
            self.trimmed.wait(&mut state);
        }
        if state.closed || self.frame_of(page).is_some() || state.coming.contains(&page) {
            return Err(Refusal::Busy);
        }
        let pieces = state.free.take(1).ok_or(Refusal::Full)?;
        let frames = pieces.first().cloned().ok_or(Refusal::Full)?;
        self.raise_frames_used(&mut state, &pieces);
        state.zero.remove(frames.clone());
        state.coming.insert(page);
        Ok(FrameNo(frames.start as u32))
    }

    /// The page is one of ours from now on.
    pub fn arrive(&self, arriving: Arriving) {
        let Arriving { page, frame, kind } = arriving;
        let mut state = self.state.lock();
        self.describe(page, State::Stable, frame);
        Index::new(&self.region).insert(page, frame);
        state.coming.remove(&page);
        state.note_new(frame.0 as u64..frame.0 as u64 + 1, kind);
    }

    /// The page stays elsewhere; the frame is free.
    pub fn abandon(&self, arriving: Arriving) {
        let Arriving { page, frame, .. } = arriving;
        let mut state = self.state.lock();
        if let Some(word) = Frames::new(&self.region).word(frame) {
            protocol::release(&word, 0);
        }
        state.coming.remove(&page);
        self.put_back(&mut state, frame.0 as u64..frame.0 as u64 + 1);
    }

    /// Whether a page can come without another going for it.
    pub fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.free.len() + state.trimming > state.reserve
    }

    /// The pages that were on their way when an earlier daemon ended. To be called once, before any page moves.
    pub fn limbo(&self) -> (Vec<Departing>, Vec<Arriving>) {
        let mut state = self.state.lock();
        let (mut departing, mut arriving) = (Vec::new(), Vec::new());
        for frame in (0..state.frames_used).map(|frame| FrameNo(frame as u32)) {
            let kind = || kind_in(self.hints(frame));
            match Frames::new(&self.region).content(frame) {
                Content::Page(page, State::Leaving) => {
                    departing.push(Departing { page, frame, kind: kind() });
                }
                Content::Page(page, State::Coming) => {
                    state.coming.insert(page);
                    arriving.push(Arriving { page, frame, kind: kind() });
                }
                _ => {}
            }
        }
        (departing, arriving)
    }
}
