//! The client of a pool: allocate, free, read, write, compare-and-swap.
//!
//! Where pages come from and go to is asked of the rack's daemon, by messages ([`alloc`](self)). What is
//! in them is read and written in place, by plain loads and stores ([`access`]). This module knows no
//! daemon but the messages, and no layout but the views in [`cxl`](crate::cxl).

mod access;
mod lease;

use crate::addr::{GAddr, PageId, PageRun, PageSize, RackId};
use crate::cxl::frames::{Frames, GIVEN_ZERO};
use crate::cxl::protocol::SharedWord;
use crate::cxl::region::Region;
use crate::error::PoolError;
use crate::proto::page::{PageReply, PageRequest, PageStat};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::{Transport, TransportError};
use lease::Leases;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What is in pages that are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeroes.
    Zeroed,
    /// Anything, also what other pages held before. For a caller that overwrites all of it.
    Uninit,
}

/// A pool as one process uses it. Clones are the same client; all methods may be called from any
/// number of threads at once.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    region: Arc<Region>,
    rack: RackId,
    transport: Arc<dyn Transport>,
    leases: Arc<Leases>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leases.close();
    }
}

impl Pool {
    /// The pool whose rack `rack` has the memory `region`, and a daemon that `transport` reaches.
    ///
    /// # Errors
    /// [`PoolError::WrongRack`]; or if the daemon does not answer.
    pub fn attach(
        region: Arc<Region>,
        rack: RackId,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, PoolError> {
        if region.rack() != rack {
            return Err(PoolError::WrongRack { found: region.rack(), wanted: rack });
        }
        let leases = Leases::new(Arc::clone(&region));
        let pool = Self { inner: Arc::new(Inner { region, rack, transport, leases }) };
        pool.stat()?;
        Ok(pool)
    }

    /// The size of a page.
    #[inline]
    pub fn page_size(&self) -> PageSize {
        self.inner.region.geometry().page_size
    }

    /// The rack that this client is part of.
    pub fn rack(&self) -> RackId {
        self.inner.rack
    }

    /// How full the rack is.
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn stat(&self) -> Result<PageStat, PoolError> {
        match self.call(PageRequest::Stat)? {
            PageReply::Stat(stat) => Ok(stat),
            _ => Err(self.mismatch()),
        }
    }

    /// Allocates `pages` pages, in as few runs of consecutive ids as possible; all or none. At least
    /// `leave` pages remain free. A file system keeps some back that way, a cluster its swap reserve.
    ///
    /// # Errors
    /// [`PoolError::OutOfMemory`] if fewer than `pages + leave` are free.
    pub fn alloc_runs(&self, pages: u64, leave: u64, fill: Fill) -> Result<Vec<PageRun>, PoolError> {
        let PageReply::Runs(runs) = self.call(PageRequest::Alloc { pages, leave })? else {
            return Err(self.mismatch());
        };
        if fill == Fill::Zeroed
            && let Err(error) = runs.iter().try_for_each(|run| self.clear_run(*run))
        {
            self.free_runs(&runs)?;
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

    /// Frees the pages of all runs in one message; those that do not exist are skipped. Returns how many
    /// were freed.
    ///
    /// # Errors
    /// [`PoolError::Busy`] if a client does not let go of one of them; then all stay.
    pub fn free_runs(&self, runs: &[PageRun]) -> Result<u64, PoolError> {
        if runs.is_empty() {
            return Ok(0);
        }
        match self.call(PageRequest::Free { runs: runs.to_vec() })? {
            PageReply::Freed(count) => Ok(count),
            _ => Err(self.mismatch()),
        }
    }

    /// Makes what the pages hold survive loss of power, if the region is a file on a disk.
    ///
    /// # Errors
    /// [`PoolError::Os`] if the disk fails.
    pub fn sync_runs(&self, runs: &[PageRun]) -> Result<(), PoolError> {
        match self.call(PageRequest::Sync { runs: runs.to_vec() })? {
            PageReply::Done => Ok(()),
            _ => Err(self.mismatch()),
        }
    }

    /// Zeroes what is not known to be zero in a run that has just been given out.
    fn clear_run(&self, run: PageRun) -> Result<(), PoolError> {
        let size = self.page_size();
        let at = GAddr::new(run.first, 0, size)
            .ok_or(PoolError::BadAddress { at: run.first.raw(), len: run.count as u64 })?;
        let frames = Frames::new(&self.inner.region);
        self.stretches(at, run.count as u64 * size.bytes(), |stretch| {
            for frame in stretch.frames() {
                let given_zero =
                    frames.hints(frame).map_or(0, |hints| hints.load(Ordering::Relaxed)) & GIVEN_ZERO;
                if given_zero == 0
                    && let Some(offset) = stretch.region.geometry().frame_at(frame)
                {
                    stretch.region.zero(offset, size.bytes());
                }
            }
        })
    }

    fn call(&self, request: PageRequest) -> Result<PageReply, PoolError> {
        match self.inner.transport.call(self.daemon(), Request::Page(request))? {
            Reply::Page(reply) => Ok(reply?),
            _ => Err(self.mismatch()),
        }
    }

    fn daemon(&self) -> NodeId {
        NodeId::Daemon(self.inner.rack)
    }

    fn mismatch(&self) -> PoolError {
        TransportError::Mismatch(self.daemon()).into()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("rack", &self.inner.rack).field("region", &self.inner.region).finish()
    }
}
