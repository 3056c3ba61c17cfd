//! Reading and writing pages in place.
//!
//! An access is cut into stretches: pages whose frames follow one another. For each stretch the frames
//! are published once, every descriptor is compared with what it must say, and the bytes are copied in
//! one piece ([`protocol`](crate::cxl::protocol)). On a hit that is no message, no system call and no
//! write to memory that another thread writes.

use super::Pool;
use crate::addr::{FrameNo, GAddr, PageId};
use crate::cxl::frames::{Content, Frames, State, id_in, word_of};
use crate::cxl::index::{Index, Unsettled};
use crate::cxl::protocol;
use crate::cxl::region::{Region, Word};
use crate::cxl::slots::Slots;
use crate::error::PoolError;
use std::time::{Duration, Instant};

/// The most bytes that are published at once, if a page is not larger: a daemon that wants one of the
/// frames waits for the copying of no more than that.
const STRETCH_BYTES: u64 = 4 << 20;

/// How long an access waits for a page that is being taken away to be gone, or stable again. Longer
/// than a daemon tries.
const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of pages in consecutive frames that may be touched now.
pub(super) struct Stretch<'r> {
    pub region: &'r Region,
    /// Offset of the first byte in the region.
    pub offset: u64,
    /// Where the bytes are in the whole access.
    pub done: usize,
    pub len: usize,
    first: FrameNo,
    count: u32,
}

impl Stretch<'_> {
    /// The frames that the bytes are in.
    pub fn frames(&self) -> impl Iterator<Item = FrameNo> {
        let first = self.first.0;
        (first..first + self.count).map(FrameNo)
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.done..self.done + self.len
    }
}

/// A slot while it names frames; retracts when dropped.
struct Published<'r>(Word<'r>);

impl<'r> Published<'r> {
    #[inline]
    fn new(slot: Word<'r>, first: FrameNo, count: u32) -> Self {
        protocol::publish(&slot, protocol::range(first.0, count));
        Self(slot)
    }
}

impl Drop for Published<'_> {
    #[inline]
    fn drop(&mut self) {
        protocol::retract(&self.0);
    }
}

impl Pool {
    /// Reads `to.len()` bytes at `at`. Every aligned 8-byte word is read in one piece.
    ///
    /// # Errors
    /// [`PoolError::NoSuchPage`], [`PoolError::BadAddress`], [`PoolError::Busy`], [`PoolError::NoSlot`].
    pub fn read(&self, at: GAddr, to: &mut [u8]) -> Result<(), PoolError> {
        self.stretches(at, to.len() as u64, |s| s.region.read(s.offset, &mut to[s.range()]))
    }

    /// Appends `len` bytes at `at` to `to`, which is not cleared first. On an error `to` is as long as it
    /// was.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_into(&self, at: GAddr, len: usize, to: &mut Vec<u8>) -> Result<(), PoolError> {
        let before = to.len();
        to.reserve(len);
        let result = self.stretches(at, len as u64, |s| s.region.append(s.offset, s.len, to));
        if result.is_err() {
            to.truncate(before);
        }
        result
    }

    /// Writes `from` at `at`. Every aligned 8-byte word is written in one piece.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, at: GAddr, from: &[u8]) -> Result<(), PoolError> {
        self.stretches(at, from.len() as u64, |s| s.region.write(s.offset, &from[s.range()]))
    }

    /// Sets `len` bytes at `at` to zero.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn zero(&self, at: GAddr, len: u64) -> Result<(), PoolError> {
        self.stretches(at, len, |s| s.region.zero(s.offset, s.len as u64))
    }

    /// Stores `new` in the word at `at` if it is `old`, as one step to all clients; returns what was
    /// there. Words are in the byte order of the processor.
    ///
    /// # Errors
    /// [`PoolError::Unaligned`] if `at` is not a multiple of 8, else as [`read`](Self::read).
    pub fn cas(&self, at: GAddr, old: u64, new: u64) -> Result<u64, PoolError> {
        if !at.raw().is_multiple_of(8) {
            return Err(PoolError::Unaligned(at.raw()));
        }
        let mut was = old;
        self.stretches(at, 8, |s| was = s.region.word(s.offset).cas(old, new))?;
        Ok(was)
    }

    /// Copies `len` bytes from `from` to `to`, as if by way of a buffer of that size: the ranges may
    /// overlap.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn copy(&self, from: GAddr, to: GAddr, len: u64) -> Result<(), PoolError> {
        const PIECE: u64 = 64 << 10;
        self.whole_range(from, len)?;
        self.whole_range(to, len)?;
        let size = self.page_size();
        let backwards = to > from && to.raw() - from.raw() < len;
        let mut buffer = Vec::with_capacity(PIECE.min(len) as usize);
        let mut done = 0;
        while done < len {
            let n = PIECE.min(len - done);
            let start = if backwards { len - done - n } else { done };
            let place = |base: GAddr| base.checked_add(start, size).ok_or(bad(base, len));
            buffer.clear();
            self.read_into(place(from)?, n as usize, &mut buffer)?;
            self.write(place(to)?, &buffer)?;
            done += n;
        }
        Ok(())
    }

    /// Checks that `len` bytes at `at` are addresses of this pool; returns the first page.
    fn whole_range(&self, at: GAddr, len: u64) -> Result<PageId, PoolError> {
        let size = self.page_size();
        let page = at.page(size).ok_or(bad(at, len))?;
        at.checked_add(len.saturating_sub(1), size).ok_or(bad(at, len))?;
        Ok(page)
    }

    /// Calls `touch` for each stretch of `len` bytes at `at`, in order, while its frames are published.
    #[inline]
    pub(super) fn stretches(
        &self,
        at: GAddr,
        len: u64,
        mut touch: impl FnMut(&Stretch<'_>),
    ) -> Result<(), PoolError> {
        let first = self.whole_range(at, len)?;
        if len == 0 {
            return Ok(());
        }
        let region = &*self.inner.region;
        self.inner.leases.with_slot(|slot| {
            let slot = Slots::new(region).hazard(slot).ok_or(PoolError::NoSlot)?;
            let size = region.geometry().page_size;
            let (mut page, mut in_page, mut done) = (first, at.offset(size), 0);
            loop {
                let pages = size.pages_for(in_page + (len - done));
                let n = stretch(region, slot, page, pages, |frame, count, frame_at| {
                    let here = (((count as u64) << size.shift()) - in_page).min(len - done);
                    let (offset, done, len) = (frame_at + in_page, done as usize, here as usize);
                    touch(&Stretch { region, offset, done, len, first: frame, count });
                    here
                })?;
                done += n;
                if done >= len {
                    return Ok(());
                }
                page = page.checked_add(size.pages_for(in_page + n)).ok_or(bad(at, len))?;
                in_page = 0;
            }
        })?
    }
}

fn bad(at: GAddr, len: u64) -> PoolError {
    PoolError::BadAddress { at: at.raw(), len }
}

/// Publishes as many of the `pages` pages from `page` on as lie in consecutive frames, and calls `touch`
/// with the first frame, how many they are, and the first frame's offset.
#[inline]
fn stretch<T>(
    region: &Region,
    slot: Word<'_>,
    page: PageId,
    pages: u64,
    touch: impl FnOnce(FrameNo, u32, u64) -> T,
) -> Result<T, PoolError> {
    let g = region.geometry();
    let most = pages.min((STRETCH_BYTES >> g.page_size.shift()).max(1));
    loop {
        let found = Index::new(region).lookup(page).map_err(|Unsettled| PoolError::Busy(page))?;
        let first = found.ok_or(PoolError::NoSuchPage(page))?;
        let offset = g.frame_at(first).ok_or(PoolError::NoSuchPage(page))?;
        let count = most.min((g.frames - first.0) as u64) as u32;
        let published = Published::new(slot, first, count);
        let sound = sound_frames(region, page, first, count);
        if sound > 0 {
            let result = touch(first, sound, offset);
            drop(published);
            return Ok(result);
        }
        drop(published);
        settled(region, page, first)?;
    }
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

/// Waits while `frame` is being taken away from `page`. Afterwards it is worth to look again.
#[cold]
fn settled(region: &Region, page: PageId, frame: FrameNo) -> Result<(), PoolError> {
    let deadline = Instant::now() + PATIENCE;
    let mut rounds = 0u32;
    loop {
        match Frames::new(region).content(frame) {
            Content::Page(found, State::Freeing) if found == page => {}
            // A damaged descriptor whose id is right by chance would be found again for ever.
            Content::Bad(word) if id_in(word) == page.raw() => return Err(PoolError::NoSuchPage(page)),
            _ => return Ok(()),
        }
        rounds += 1;
        match rounds {
            0..100 => std::hint::spin_loop(),
            100..200 => std::thread::yield_now(),
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(50)),
            _ => return Err(PoolError::Busy(page)),
        }
    }
}
