//! Touching pages of this rack in place, and nothing else: no message, no waiting.
//!
//! An access is cut into stretches: pages whose frames follow one another. For each stretch the frames
//! are published once, every descriptor is compared with what it must say, and the bytes are copied in
//! one piece ([`protocol`](crate::cxl::protocol)).
//!
//! Each thread remembers in which frames it found pages. That is a hint, which the descriptor confirms or not,
//! and saves the way through the page index: a search there is two dependent cache misses and a branch that
//! nobody can predict, which together keep the processor from beginning with the next access.

use super::lease::Leases;
use crate::addr::{FrameNo, GAddr, PageId};
use crate::cxl::frames::{Content, Frames, SAMPLE, State, id_in, word_of};
use crate::cxl::index::{Index, Unsettled};
use crate::cxl::protocol::{self, SharedWord};
use crate::cxl::region::{Region, Word};
use crate::cxl::slots::Slots;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The most bytes that are published at once, if a page is not larger: a daemon that wants one of the
/// frames waits for the copying of no more than that.
const STRETCH_BYTES: u64 = 4 << 20;

/// How long [`InPlace::wait`] waits for a page that is being taken away to be gone, or stable again.
/// Longer than a daemon tries.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why an access went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The page is not in this rack; it may be in another, or nowhere.
    Absent,
    /// The page is being freed or moved.
    Moving,
    /// More threads use the region at once than it has access slots.
    NoSlot,
    /// The address names no page of this pool, or the range ends outside the address space.
    BadAddress,
}

/// An access that went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Bytes from the beginning that have been touched.
    pub done: u64,
    /// The page that it stopped at, unless the address is bad.
    pub page: Option<PageId>,
    /// Why.
    pub why: Why,
}

/// The page is being moved or freed, and that takes too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// Bytes of pages in consecutive frames that may be touched now.
pub struct Stretch<'r> {
    /// The memory.
    pub region: &'r Region,
    /// Offset of the first byte in the region.
    pub offset: u64,
    /// Where the bytes are in the whole access.
    pub done: usize,
    /// How many.
    pub len: usize,
    first: FrameNo,
    count: u32,
}

impl Stretch<'_> {
    /// The frames that the bytes are in.
    pub fn frames(&self) -> impl Iterator<Item = FrameNo> + use<> {
        let first = self.first.0;
        (first..first + self.count).map(FrameNo)
    }

    /// Where the bytes are in the whole access.
    pub fn range(&self) -> Range<usize> {
        self.done..self.done + self.len
    }

    /// Stores `new` in the word that the bytes begin with if it is `old`; returns what was there.
    #[inline]
    pub fn cas(&self, old: u64, new: u64) -> u64 {
        let word = self.region.word(self.offset);
        #[cfg(rchfs_breakable)]
        if crate::breakage::is("cas") {
            return crate::breakage::read_then_write(&word, old, new);
        }
        word.cas(old, new)
    }
}

/// A slot while it names frames; retracts when dropped. WRITES: whether what it names may be written.
struct Published<'r, const WRITES: bool>(Word<'r>);

impl<'r, const WRITES: bool> Published<'r, WRITES> {
    #[inline]
    fn new(slot: Word<'r>, first: FrameNo, count: u32) -> Self {
        protocol::publish(&slot, protocol::range(first.0, count));
        Self(slot)
    }
}

impl<const WRITES: bool> Drop for Published<'_, WRITES> {
    #[inline]
    fn drop(&mut self) {
        if WRITES {
            protocol::retract_written(&self.0);
        } else {
            protocol::retract(&self.0);
        }
    }
}

/// Which of a thread's hints is about `page`.
#[inline]
fn hint_of(page: PageId) -> usize {
    page.raw() as usize % HINTS
}

/// How many hints a thread has. Consecutive pages have different ones.
const HINTS: usize = 1 << 14;

thread_local! {
    /// Numbers of frames, plus 1, by the low bits of page ids. All pools of a thread share them.
    static FOUND: [Cell<u32>; HINTS] = const { [const { Cell::new(0) }; HINTS] };
}

/// The memory of a rack as one process touches it. Clones share their access slots.
#[derive(Clone)]
pub struct InPlace {
    inner: Arc<Inner>,
}

struct Inner {
    region: Arc<Region>,
    leases: Arc<Leases>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leases.close();
    }
}

impl InPlace {
    /// Access to `region`.
    pub fn new(region: Arc<Region>) -> Self {
        let leases = Leases::new(Arc::clone(&region));
        Self { inner: Arc::new(Inner { region, leases }) }
    }

    /// The memory.
    #[inline]
    pub fn region(&self) -> &Arc<Region> {
        &self.inner.region
    }

    /// Reads `to.len()` bytes at `at`.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn read(&self, at: GAddr, to: &mut [u8]) -> Result<(), Stopped> {
        self.look(at, 0..to.len() as u64, &mut |s: &Stretch<'_>| s.region.read(s.offset, &mut to[s.range()]))
    }

    /// Writes `from` at `at`.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn write(&self, at: GAddr, from: &[u8]) -> Result<(), Stopped> {
        self.stretches(at, 0..from.len() as u64, &mut |s: &Stretch<'_>| {
            s.region.write(s.offset, &from[s.range()])
        })
    }

    /// Stores `new` in the word at `at`, a multiple of 8, if it is `old`; returns what was there.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn cas(&self, at: GAddr, old: u64, new: u64) -> Result<u64, Stopped> {
        if !at.raw().is_multiple_of(8) {
            return Err(Stopped { done: 0, page: None, why: Why::BadAddress });
        }
        let mut was = old;
        // A compare-and-swap is seen by all when it is done.
        self.look(at, 0..8, &mut |s: &Stretch<'_>| was = s.cas(old, new))?;
        Ok(was)
    }

    /// Calls `touch` for each stretch of the bytes `part` of an access at `at`, in order, while its frames
    /// are published. When this returns all threads see what `touch` has written.
    ///
    /// # Errors
    /// [`Stopped`], with how far it came.
    #[inline]
    pub fn stretches(
        &self,
        at: GAddr,
        part: Range<u64>,
        touch: &mut impl FnMut(&Stretch<'_>),
    ) -> Result<(), Stopped> {
        self.touch::<true>(at, part, touch)
    }

    /// As [`stretches`](Self::stretches), for a `touch` that writes nothing, or only by compare-and-swap.
    ///
    /// # Errors
    /// [`Stopped`], with how far it came.
    #[inline]
    pub fn look(
        &self,
        at: GAddr,
        part: Range<u64>,
        touch: &mut impl FnMut(&Stretch<'_>),
    ) -> Result<(), Stopped> {
        self.touch::<false>(at, part, touch)
    }

    #[inline]
    fn touch<const WRITES: bool>(
        &self,
        at: GAddr,
        part: Range<u64>,
        touch: &mut impl FnMut(&Stretch<'_>),
    ) -> Result<(), Stopped> {
        if part.start == 0 && self.touch_page::<WRITES>(at, part.end, touch).is_some() {
            return Ok(());
        }
        self.touch_pages::<WRITES>(at, part, touch)
    }

    /// The usual access: within one page, which is where this thread found it last. `None` if it is not, and
    /// then nothing was touched. Short, so that several can be under way in the processor at once: what an access
    /// takes is the time of a cache miss, unless the next begins meanwhile.
    #[inline]
    fn touch_page<const WRITES: bool>(
        &self,
        at: GAddr,
        len: u64,
        touch: &mut impl FnMut(&Stretch<'_>),
    ) -> Option<()> {
        let region = &*self.inner.region;
        let g = region.geometry();
        let (page, into) = (at.page(g.page_size)?, at.offset(g.page_size));
        if len == 0 || len > g.page_size.bytes() - into {
            return None;
        }
        let slot = self.inner.leases.last_slot()?;
        let first = FrameNo(FOUND.with(|found| found[hint_of(page)].get()).checked_sub(1)?);
        let frame_at = g.frame_at(first)?;
        let (slots, frames) = (Slots::new(region), Frames::new(region));
        let (hazard, hits, descriptor) = (slots.hazard(slot)?, slots.count(slot)?, frames.word(first)?);
        // Loaded before the slot is published, so as not to wait for that.
        let number = hits.load(Ordering::Relaxed).wrapping_add(1);
        let published = Published::<WRITES>::new(hazard, first, 1);
        if !protocol::check(&descriptor, word_of(page, State::Stable, first)) {
            return None;
        }
        frames.touch(first);
        hits.store(number, Ordering::Relaxed);
        if is_sample(number) {
            add_samples(region, first, 1);
        }
        #[cfg(rchfs_breakable)]
        crate::breakage::dawdle();
        touch(&Stretch { region, offset: frame_at + into, done: 0, len: len as usize, first, count: 1 });
        drop(published);
        Some(())
    }

    /// Any access, page by page or several at once.
    #[inline(never)]
    fn touch_pages<const WRITES: bool>(
        &self,
        at: GAddr,
        part: Range<u64>,
        touch: &mut impl FnMut(&Stretch<'_>),
    ) -> Result<(), Stopped> {
        let region = &*self.inner.region;
        let size = region.geometry().page_size;
        let bad = Stopped { done: part.start, page: None, why: Why::BadAddress };
        let first = at.page(size).ok_or(bad)?;
        at.checked_add(part.end.saturating_sub(1), size).ok_or(bad)?;
        if part.is_empty() {
            return Ok(());
        }
        let (len, mut done) = (part.end, part.start);
        let no_slot = Stopped { why: Why::NoSlot, ..bad };
        let all = self.inner.leases.with_slot(|slot| {
            let slots = Slots::new(region);
            let (hazard, hits) = slots.hazard(slot).zip(slots.count(slot)).ok_or(no_slot)?;
            let into = at.offset(size) + done;
            let mut page = first.checked_add(size.page_of(into)).ok_or(bad)?;
            let mut in_page = size.offset_of(into);
            loop {
                let pages = size.pages_for(in_page + (len - done));
                // Loaded before the slot is published, so as not to wait for that.
                let number = hits.load(Ordering::Relaxed).wrapping_add(1);
                let n = stretch::<WRITES, _>(region, hazard, page, pages, &mut |frame, count, frame_at| {
                    hits.store(number, Ordering::Relaxed);
                    if is_sample(number) {
                        add_samples(region, frame, count);
                    }
                    let here = (((count as u64) << size.shift()) - in_page).min(len - done);
                    let (offset, done, len) = (frame_at + in_page, done as usize, here as usize);
                    touch(&Stretch { region, offset, done, len, first: frame, count });
                    here
                })
                .map_err(|why| Stopped { done, page: Some(page), why })?;
                done += n;
                if done >= len {
                    return Ok(());
                }
                page = page.checked_add(size.pages_for(in_page + n)).ok_or(bad)?;
                in_page = 0;
            }
        });
        all.map_err(|_| no_slot)?
    }

    /// Waits while `page` is being moved or freed. Afterwards it is worth to look again.
    ///
    /// # Errors
    /// [`Stuck`] after some seconds.
    #[cold]
    pub fn wait(&self, page: PageId) -> Result<(), Stuck> {
        let region = &*self.inner.region;
        let deadline = Instant::now() + PATIENCE;
        let mut rounds = 0u32;
        while is_moving(region, page).map_err(|Unsettled| Stuck)? {
            rounds += 1;
            match rounds {
                0..100 => std::hint::spin_loop(),
                100..200 => std::thread::yield_now(),
                _ if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(50)),
                _ => return Err(Stuck),
            }
        }
        Ok(())
    }
}

/// Whether access number `count` of a thread is one of those that its pages' touches are counted by:
/// one in [`SAMPLE`], at distances that vary, so that no regular pattern of accesses hides from them.
#[inline]
fn is_sample(count: u64) -> bool {
    // Multiples of the golden ratio, of which the fractional part is below 1 / SAMPLE.
    count.wrapping_mul(0x9E37_79B9_7F4A_7C15) < (u64::MAX / SAMPLE)
}

#[cold]
fn add_samples(region: &Region, first: FrameNo, count: u32) {
    let frames = Frames::new(region);
    (first.0..first.0 + count).for_each(|frame| frames.add_sample(FrameNo(frame)));
}

fn is_moving(region: &Region, page: PageId) -> Result<bool, Unsettled> {
    let Some(frame) = Index::new(region).lookup(page)? else { return Ok(false) };
    let content = Frames::new(region).content(frame);
    Ok(matches!(content, Content::Page(found, State::Freeing | State::Leaving) if found == page))
}

/// Publishes as many of the `pages` pages from `page` on as lie in consecutive frames, and calls `touch`
/// with the first frame, how many they are, and the first frame's offset.
#[inline]
fn stretch<const WRITES: bool, T>(
    region: &Region,
    slot: Word<'_>,
    page: PageId,
    pages: u64,
    touch: &mut impl FnMut(FrameNo, u32, u64) -> T,
) -> Result<T, Why> {
    let hint = hint_of(page);
    let most = pages.min((STRETCH_BYTES >> region.geometry().page_size.shift()).max(1));
    if let Some(first) = FOUND.with(|found| found[hint].get()).checked_sub(1)
        && let Some(result) = try_frames::<WRITES, _>(region, slot, page, FrameNo(first), most, touch)
    {
        return Ok(result);
    }
    let (result, first) = search::<WRITES, _>(region, slot, page, most, touch)?;
    FOUND.with(|found| found[hint].set(first.0.wrapping_add(1)));
    Ok(result)
}

/// As [`stretch`], for a page that is not where it was found last. Also returns where it was.
#[cold]
fn search<const WRITES: bool, T>(
    region: &Region,
    slot: Word<'_>,
    page: PageId,
    most: u64,
    touch: &mut impl FnMut(FrameNo, u32, u64) -> T,
) -> Result<(T, FrameNo), Why> {
    loop {
        let found = Index::new(region).lookup(page).map_err(|Unsettled| Why::Moving)?;
        let first = found.filter(|first| region.geometry().frame_at(*first).is_some()).ok_or(Why::Absent)?;
        if let Some(result) = try_frames::<WRITES, _>(region, slot, page, first, most, touch) {
            return Ok((result, first));
        }
        match Frames::new(region).content(first) {
            Content::Page(found, State::Freeing | State::Leaving) if found == page => {
                return Err(Why::Moving);
            }
            // A damaged descriptor whose id is right by chance would be found again for ever.
            Content::Bad(word) if id_in(word) == page.raw() => return Err(Why::Absent),
            _ => {}
        }
    }
}

/// Publishes up to `most` frames from `first` on, and calls `touch` if the first holds `page` and may be touched.
#[inline]
fn try_frames<const WRITES: bool, T>(
    region: &Region,
    slot: Word<'_>,
    page: PageId,
    first: FrameNo,
    most: u64,
    touch: &mut impl FnMut(FrameNo, u32, u64) -> T,
) -> Option<T> {
    let g = region.geometry();
    let offset = g.frame_at(first)?;
    let count = most.min((g.frames - first.0) as u64) as u32;
    let published = Published::<WRITES>::new(slot, first, count);
    let sound = sound_frames(region, page, first, count);
    if sound == 0 {
        return None;
    }
    #[cfg(rchfs_breakable)]
    crate::breakage::dawdle();
    let result = touch(first, sound, offset);
    drop(published);
    Some(result)
}

/// How many of the `count` frames from `first` on hold the pages from `page` on, and may be touched.
#[inline]
fn sound_frames(region: &Region, page: PageId, first: FrameNo, count: u32) -> u32 {
    let frames = Frames::new(region);
    for i in 0..count {
        let frame = FrameNo(first.0 + i);
        let (Some(page), Some(word)) = (page.checked_add(i as u64), frames.word(frame)) else { return i };
        if !protocol::check(&word, word_of(page, State::Stable, frame)) {
            return i;
        }
        frames.touch(frame);
    }
    count
}
