//! Pages for files, and what to do when there are few.
//!
//! The kernel accepts buffered writes into its cache and asks for their pages later, when it is too late
//! to refuse. So a *reserve* of pages is kept for data that is already in the cache: buffered data may
//! use it, everything else is refused at the reserve. A file whose buffered data had to dip into it is
//! *squeezed*: the kernel is made to ask for its attributes before the next buffered write, and that
//! question is answered with `ENOSPC`. A writer so learns at `write` that the pool is full, what it wrote
//! before is kept, and overwriting pages that exist goes on working.
//!
//! That holds as long as the kernel never holds more dirty data than there are free pages, so it is told
//! how much it may hold: a part of the free space, and never more than the reserve once that is all there is.

use super::Fs;
use super::error::{FsError, Result};
use super::file::File;
use pool::Fill;
use pool::PoolError;
use pool::addr::PageRun;
use pool::proto::meta::{Extent, InodeStat, MetaReply, MetaRequest};
use pool::proto::page::PageKind;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The part of the free pages that dirty data in the kernel may ask for: more than a margin for what the
/// kernel overshoots by, less than what writers of a good part of the pool at once need to stay in the cache.
const DIRTY_PART: u64 = 2;

/// Bytes of dirty data that the kernel may hold at most where other mounts may want the files: it must be able to write
/// them back before a mount that does not give up its leases is taken for dead.
const SHARED_DIRTY: u64 = 256 << 20;

/// How long a write of a mount that is not alone waits for pages that should be there: less than a mount may take to
/// acknowledge a revocation.
const SOON: Duration = Duration::from_millis(1800);
/// How often it looks.
const AGAIN: Duration = Duration::from_millis(50);

/// How many requests may wait for pages at a time: some of the threads that a mount that is not alone has at least.
const WAITERS: u32 = 16;

/// Those that wait for pages.
#[derive(Debug, Default)]
pub(super) struct Waiters(AtomicU32);

/// One that waits, until this is dropped.
struct Waits<'w>(&'w Waiters);

impl Waiters {
    /// One more, unless there are enough.
    fn begin(&self) -> Option<Waits<'_>> {
        let more = |count| (count < WAITERS).then_some(count + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).ok().map(|_| Waits(self))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Fill level of the file system, as statfs(2) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in a page.
    pub page: u32,
    /// Pages in all.
    pub total: u64,
    /// Pages not used.
    pub free: u64,
    /// Pages that a program can still fill.
    pub available: u64,
    /// Inodes.
    pub inodes: InodeStat,
}

/// Where data comes from that wants pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The kernel's cache, where a program was already told that it is written.
    Cache,
    /// A program that waits for the answer.
    Program,
}

impl Fs {
    /// The fill level.
    pub fn space(&self) -> Result<Space> {
        let stat = self.pool.stat()?;
        // What several mounts unlink comes back by way of the master, a while later.
        let doomed = if self.shared.is_none() { self.inodes.doomed_bytes() } else { 0 };
        let free = (stat.free + self.size.pages_for(doomed)).min(stat.total);
        let MetaReply::Stat(inodes) = self.meta(MetaRequest::StatFs)? else { return Err(Self::bad_reply()) };
        Ok(Space {
            page: self.size.bytes() as u32,
            total: stat.total,
            free,
            available: free.saturating_sub(self.config.reserve_pages),
            inodes,
        })
    }

    /// Takes pages for the holes `holes` of `file`, all or nothing. Their contents are unspecified unless
    /// `fill` says otherwise.
    pub(super) fn take_pages(
        &self,
        file: &File,
        holes: &[Range<u64>],
        origin: Origin,
        fill: Fill,
    ) -> Result<Vec<Extent>> {
        let count: u64 = holes.iter().map(|h| h.end - h.start).sum();
        if count == 0 {
            return Ok(Vec::new());
        }
        let runs = match self.try_take(count, self.config.reserve_pages, fill) {
            Err(FsError::Full) if origin == Origin::Cache => {
                let runs = self.try_take(count, 0, fill)?;
                self.squeeze(file);
                runs
            }
            other => other?,
        };
        if self.until_limit.fetch_sub(count as i64, Ordering::Relaxed) <= count as i64 {
            self.limit_dirty();
        }
        Ok(lay_out(&runs, holes))
    }

    /// Tells the kernel how much dirty data it may hold now. Asked for again when a sixteenth of that has
    /// been written, so what it holds always fits.
    pub(super) fn limit_dirty(&self) {
        let (Some(kernel), Ok(stat)) = (self.kernel.get(), self.pool.stat()) else { return };
        let pages = (stat.free / DIRTY_PART).max(self.config.reserve_pages);
        let most = self.size.page_of(if self.has_writeback() { SHARED_DIRTY } else { u64::MAX });
        let pages = pages.min(most);
        self.until_limit.store((pages / 16).max(1) as i64, Ordering::Relaxed);
        kernel.limit_dirty(pages << self.size.shift());
    }

    fn try_take(&self, count: u64, leave: u64, fill: Fill) -> Result<Vec<PageRun>> {
        let full = |e| match e {
            PoolError::OutOfMemory { .. } => FsError::Full,
            e => e.into(),
        };
        let take = || self.pool.alloc_runs_of(PageKind::File, count, leave, fill);
        match take() {
            Err(PoolError::OutOfMemory { .. }) if self.inodes.has_doomed() || self.shared.is_some() => {
                // Unlinked files whose forgetting is still on its way from the kernel.
                self.forget_at_master(self.inodes.take_doomed());
                match self.shared {
                    None => take().map_err(full),
                    Some(_) => self.take_soon(count + leave, take).map_err(full),
                }
            }
            other => other.map_err(full),
        }
    }

    /// Whether pages of unlinked files may still be on their way back, by way of the master.
    fn gave_up_pages(&self) -> bool {
        let last = self.last_given_up.load(Ordering::Relaxed);
        last != 0 && self.since.elapsed().saturating_sub(Duration::from_millis(last)) < SOON
    }

    /// Takes pages that are about to be free: what is unlinked goes by way of the master, and racks hear of each
    /// other's room once a second. Only so many requests of the kernel wait here at a time that there are threads left for
    /// others; more find the pool full.
    fn take_soon<T>(
        &self,
        count: u64,
        take: impl Fn() -> std::result::Result<T, PoolError>,
    ) -> std::result::Result<T, PoolError> {
        let Some(_waits) = self.waits_for_pages.begin() else { return take() };
        self.about_to_wait();
        let end = Instant::now() + SOON;
        loop {
            let there_is_room = self.gave_up_pages() || self.pool.stat()?.free >= count;
            match take() {
                Err(PoolError::OutOfMemory { .. }) if there_is_room && Instant::now() < end => sleep(AGAIN),
                other => return other,
            }
        }
    }

    /// Gives back pages that no file got, after an error.
    pub(super) fn give_back(&self, extents: &[Extent]) {
        let runs: Vec<_> = extents.iter().map(|e| e.run).collect();
        if let Err(e) = self.pool.free_runs(&runs) {
            log::warn!("{} runs of pages stay taken until this mount ends: {e}", runs.len());
        }
    }

    fn squeeze(&self, file: &File) {
        if !file.squeezed.swap(true, Ordering::AcqRel)
            && let Some(kernel) = self.kernel.get()
        {
            kernel.forget_attributes(file.ino);
        }
    }

    /// Whether the next buffered write to `file` must fail for lack of space.
    pub(super) fn is_squeezed(&self, file: &File) -> Result<bool> {
        if !file.squeezed.load(Ordering::Acquire) {
            return Ok(false);
        }
        let free = self.pool.stat()?.free + self.size.pages_for(self.inodes.doomed_bytes());
        let still = free <= self.config.reserve_pages;
        file.squeezed.store(still, Ordering::Release);
        Ok(still)
    }
}

/// Distributes `runs` over `holes`, which together have as many pages.
fn lay_out(runs: &[PageRun], holes: &[Range<u64>]) -> Vec<Extent> {
    let mut extents = Vec::with_capacity(runs.len().max(holes.len()));
    let mut runs = runs.iter().copied();
    let mut rest: Option<PageRun> = None;
    for hole in holes {
        let mut at = hole.start;
        while at < hole.end {
            let Some(run) = rest.take().or_else(|| runs.next()) else { return extents };
            let count = u64::from(run.count).min(hole.end - at) as u32;
            extents.push(Extent { at, run: PageRun { first: run.first, count } });
            at += u64::from(count);
            rest = run
                .first
                .checked_add(u64::from(count))
                .and_then(|first| PageRun::new(first, run.count - count));
        }
    }
    extents
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageId;

    #[test]
    fn so_many_wait_for_pages_that_there_are_threads_left() {
        let waiters = Waiters::default();
        let mut all: Vec<_> = (0..WAITERS).map(|_| waiters.begin().unwrap()).collect();
        assert!(waiters.begin().is_none());
        all.pop();
        assert!(waiters.begin().is_some());
    }

    #[test]
    fn pages_are_laid_over_holes_in_order_and_completely() {
        let run = |first, count| PageRun::new(PageId::new(first).unwrap(), count).unwrap();
        let extents = lay_out(&[run(10, 3), run(50, 4)], &[0..2, 7..10, 20..22]);
        let flat: Vec<_> = extents.iter().map(|e| (e.at, e.run.first.raw(), e.run.count)).collect();
        assert_eq!(flat, [(0, 10, 2), (7, 12, 1), (8, 50, 2), (20, 52, 2)]);
    }
}
