//! Getting pages and small objects, and giving them back: all of it is asked of the rack's daemon.

use super::access::{Op, far_zero};
use super::in_place::Stretch;
use super::{Fill, Pool};
use crate::addr::{GAddr, PageId, PageRun};
use crate::cxl::frames::{Frames, GIVEN_ZERO};
use crate::cxl::protocol::SharedWord;
use crate::error::PoolError;
use crate::proto::far::{FarReply, FarRequest, Ticket, ZERO_MAX};
use crate::proto::page::{FREE_MAX, PageKind, PageReply, PageRequest, PageStat, Place};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The most bytes of the runs in a message; what is more goes in several.
const RUNS_LEN_MAX: usize = 20 << 10;
/// The most bytes of a run in a message: seven bits a byte, of an id of 52 bits and a count of 32.
const RUN_LEN_MAX: usize = 8 + 5;
/// The most runs in a message.
const RUNS_MAX: usize = RUNS_LEN_MAX / RUN_LEN_MAX;

/// Objects above this part of a page get a page of their own.
const SMALL_PART: u64 = 4;

impl Pool {
    /// How full the pool is.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn stat(&self) -> Result<PageStat, PoolError> {
        match self.call(PageRequest::Stat)? {
            PageReply::Stat(stat) => Ok(stat),
            _ => Err(self.mismatch()),
        }
    }

    /// Where `page` is now, and how much this rack uses it.
    ///
    /// # Errors
    /// [`PoolError::NoSuchPage`]; or if there is no answer. The embedded pool, which has one rack, does not
    /// answer this.
    pub fn where_is(&self, page: PageId) -> Result<Place, PoolError> {
        match self.call(PageRequest::Where { page })? {
            PageReply::Place(place) => Ok(place),
            _ => Err(self.mismatch()),
        }
    }

    /// Allocates `pages` pages for a program, in as few runs of consecutive ids as possible; all or none.
    /// They are in this rack if there is room, else in others. At least `leave` pages remain free.
    ///
    /// # Errors
    /// [`PoolError::OutOfMemory`] if fewer than `pages + leave` are free.
    pub fn alloc_runs(&self, pages: u64, leave: u64, fill: Fill) -> Result<Vec<PageRun>, PoolError> {
        self.alloc_runs_of(PageKind::Plain, pages, leave, fill)
    }

    /// As [`alloc_runs`](Self::alloc_runs), for the owner that `kind` says: a program, or a file of the
    /// file system. [`PageKind::Objects`] is for daemons alone, and refused.
    ///
    /// # Errors
    /// As [`alloc_runs`](Self::alloc_runs).
    pub fn alloc_runs_of(
        &self,
        kind: PageKind,
        pages: u64,
        leave: u64,
        fill: Fill,
    ) -> Result<Vec<PageRun>, PoolError> {
        if kind == PageKind::Objects {
            return Err(PoolError::Os("pages for small objects are allocated by daemons alone".into()));
        }
        let PageReply::Runs { runs, zeroed } = self.call(PageRequest::Alloc { pages, leave, kind })? else {
            return Err(self.mismatch());
        };
        let dirty = runs.len().saturating_sub(zeroed as usize);
        if fill == Fill::Zeroed
            && let Err(error) = runs[..dirty].iter().try_for_each(|run| self.clear_run(*run))
        {
            if let Err(e) = self.free_runs(&runs) {
                log::warn!("{} runs of new pages could not be given back: {e}", runs.len());
            }
            return Err(error);
        }
        Ok(runs)
    }

    /// Allocates one page, of zeroes.
    ///
    /// # Errors
    /// As [`alloc_runs`](Self::alloc_runs).
    pub fn alloc_page(&self) -> Result<PageId, PoolError> {
        let runs = self.alloc_runs(1, 0, Fill::Zeroed)?;
        runs.first().map(|run| run.first).ok_or_else(|| self.mismatch())
    }

    /// Frees a page. When this returns no client can touch its frame any more.
    ///
    /// # Errors
    /// [`PoolError::NoSuchPage`] if there is none; [`PoolError::Busy`] if a client does not let go of it,
    /// and then the page stays.
    pub fn free_page(&self, page: PageId) -> Result<(), PoolError> {
        let run = PageRun { first: page, count: 1 };
        if self.free_runs(&[run])? == 1 { Ok(()) } else { Err(PoolError::NoSuchPage(page)) }
    }

    /// Frees the pages of a run; those that do not exist are skipped. Returns how many were freed.
    ///
    /// # Errors
    /// As [`free_runs`](Self::free_runs).
    pub fn free_page_run(&self, run: PageRun) -> Result<u64, PoolError> {
        self.free_runs(&[run])
    }

    /// Frees the pages of all runs; those that do not exist are skipped. Returns how many were freed.
    ///
    /// More than 1575 runs, or a million pages, take several messages. After an error the pages of some of them may have been
    /// freed; to free all again is no mistake, since ids are never used twice.
    ///
    /// # Errors
    /// [`PoolError::Busy`] if a client does not let go of one of them; then all of its message stay.
    pub fn free_runs(&self, runs: &[PageRun]) -> Result<u64, PoolError> {
        let mut freed = 0;
        let pieces: Vec<PageRun> = runs.iter().flat_map(|run| pieces(*run)).collect();
        for runs in batches(&pieces) {
            match self.call(PageRequest::Free { runs: runs.to_vec() })? {
                PageReply::Freed(count) => freed += count,
                _ => return Err(self.mismatch()),
            }
        }
        Ok(freed)
    }

    /// Makes what the pages hold survive loss of power, where they are in files on a disk.
    ///
    /// # Errors
    /// [`PoolError::Os`] if a disk fails.
    pub fn sync_runs(&self, runs: &[PageRun]) -> Result<(), PoolError> {
        for runs in runs.chunks(RUNS_MAX) {
            match self.call(PageRequest::Sync { runs: runs.to_vec() })? {
                PageReply::Done => {}
                _ => return Err(self.mismatch()),
            }
        }
        Ok(())
    }

    /// Allocates an object of `size` bytes, zeroed, within a page, and aligned to 8 or, from 64 bytes on,
    /// to 64. Any client may [`free`](Self::free) it.
    ///
    /// One of more than a quarter of a page gets a page of its own, which it is the beginning of. (No
    /// smaller one is the beginning of a page; that is how `free` tells them apart.)
    ///
    /// # Errors
    /// [`PoolError::BadSize`] for none and for more than a page; [`PoolError::OutOfMemory`].
    pub fn alloc(&self, size: u64) -> Result<GAddr, PoolError> {
        let page_size = self.page_size();
        match size {
            1.. if size <= page_size.bytes() / SMALL_PART => {
                match self.call(PageRequest::AllocObject { size })? {
                    PageReply::Object(at) if at.offset(page_size) != 0 => Ok(at),
                    _ => Err(self.mismatch()),
                }
            }
            1.. if size <= page_size.bytes() => {
                GAddr::new(self.alloc_page()?, 0, page_size).ok_or_else(|| self.mismatch())
            }
            _ => Err(PoolError::BadSize { size, most: page_size.bytes() }),
        }
    }

    /// Frees what [`alloc`](Self::alloc) returned.
    ///
    /// # Errors
    /// [`PoolError::NoSuchObject`] if there is none; [`PoolError::Busy`] if it has a page of its own that a
    /// client does not let go of.
    pub fn free(&self, at: GAddr) -> Result<(), PoolError> {
        if at.offset(self.page_size()) == 0 {
            let page = at.page(self.page_size()).ok_or(PoolError::NoSuchObject(at.raw()))?;
            return self.free_page(page).map_err(|error| match error {
                PoolError::NoSuchPage(_) => PoolError::NoSuchObject(at.raw()),
                error => error,
            });
        }
        match self.call(PageRequest::FreeObject { at })? {
            PageReply::Done => Ok(()),
            _ => Err(self.mismatch()),
        }
    }

    /// Zeroes what is not known to be zero in a run that has just been given out, also if pages of it have
    /// moved to another rack already.
    fn clear_run(&self, run: PageRun) -> Result<(), PoolError> {
        let size = self.page_size();
        let at = GAddr::new(run.first, 0, size)
            .ok_or(PoolError::BadAddress { at: run.first.raw(), len: run.count as u64 })?;
        self.access(at, run.count as u64 * size.bytes(), &mut Clear)
    }
}

/// `run` in parts of at most [`FREE_MAX`](crate::proto::page::FREE_MAX) pages.
fn pieces(run: PageRun) -> impl Iterator<Item = PageRun> {
    (0..run.count).step_by(FREE_MAX as usize).filter_map(move |from| {
        let first = run.first.checked_add(u64::from(from))?;
        PageRun::new(first, (run.count - from).min(FREE_MAX as u32))
    })
}

/// `runs` in parts that go in a message: neither too many runs nor too many pages.
fn batches(runs: &[PageRun]) -> impl Iterator<Item = &[PageRun]> {
    let mut pages = 0;
    let mut number = 0;
    runs.chunk_by(move |before, next| {
        number += 1;
        pages += u64::from(before.count);
        let fits = number < RUNS_MAX && pages + u64::from(next.count) <= FREE_MAX;
        if !fits {
            (number, pages) = (0, 0);
        }
        fits
    })
}

/// Zeroes pages that nobody has written to yet.
struct Clear;

impl Op for Clear {
    #[inline]
    fn writes(&self) -> bool {
        true
    }

    fn in_place(&mut self, s: &Stretch<'_>) {
        let (frames, geometry) = (Frames::new(s.region), s.region.geometry());
        let (mut at, end) = (s.offset, s.offset + s.len as u64);
        for frame in s.frames() {
            let Some(start) = geometry.frame_at(frame) else { return };
            let len = (start + geometry.page_size.bytes()).min(end) - at;
            let hints = frames.hints(frame).map_or(0, |hints| hints.load(Ordering::Relaxed));
            if hints & GIVEN_ZERO == 0 {
                s.region.zero(at, len);
            }
            at += len;
        }
    }

    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest {
        PageRequest::Write { at, data: vec![0; (part.end - part.start) as usize] }
    }

    fn take(&mut self, _: &Range<u64>, reply: PageReply) -> bool {
        reply == PageReply::Done
    }

    fn far(&self, ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest {
        far_zero(ticket, at, part)
    }

    fn take_far(&mut self, _: &Range<u64>, reply: FarReply) -> bool {
        reply == FarReply::Done
    }

    fn most(&self) -> u64 {
        ZERO_MAX as u64
    }

    // Nobody else knows of these pages.
    fn repeats(&self) -> bool {
        true
    }
}
