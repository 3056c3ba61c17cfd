//! Giving pages out: from this rack if they fit, else also from others, those with the most room first.
//!
//! All or nothing: what was gathered goes back if it is not enough. How much other racks have is known
//! from the master's word of a second ago, so `leave` is kept exactly among the pages here and nearly
//! among all. A rack is asked also if it is said to be full.
//!
//! An answer that is lost leaves pages allocated that nobody knows of: a file's are found by the next
//! [`Reconcile`](pool::proto::page::PageRequest::Reconcile), a program's are not.

use crate::server::Node;
use pool::addr::{GAddr, PageRun, RackId};
use pool::cxl::frames::{Frames, GIVEN_ZERO};
use pool::cxl::protocol::SharedWord;
use pool::in_place::{Stopped, Why};
use pool::proto::page::{PageError, PageKind, PageReply};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::TransportError;
use std::sync::atomic::Ordering;

/// Pages of several racks.
#[derive(Default)]
struct Gathered {
    here: Vec<PageRun>,
    elsewhere: Vec<(RackId, Vec<PageRun>)>,
}

impl Node {
    /// Gives out pages of this rack, if that can be done, or be refused, without asking anyone.
    pub fn alloc_here(&self, pages: u64, leave: u64, kind: PageKind) -> Option<Result<PageReply, PageError>> {
        if kind == PageKind::Objects {
            return Some(Err(PageError::Invalid("pages of objects are the daemons' own".into())));
        }
        let frames = &self.ctx.frames;
        if frames.ids_left() < pages {
            // Pages that do not fit anyway need no ids.
            return (!self.has_others() && frames.stat().free < pages.saturating_add(leave))
                .then(|| Err(self.out_of_memory(pages, leave)));
        }
        let result = frames.alloc(pages, self.leave_here(leave), kind);
        self.ids.look_ahead(&self.ctx.workers);
        match result {
            Ok(runs) => Some(Ok(PageReply::Runs { runs, zeroed: 0 })),
            Err(PageError::OutOfMemory { .. }) if self.has_others() => None,
            Err(PageError::OutOfMemory { .. }) => Some(Err(self.out_of_memory(pages, leave))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Gives out pages of any rack. Waits.
    pub fn alloc_anywhere(&self, pages: u64, leave: u64, kind: PageKind) -> Result<PageReply, PageError> {
        self.ids.provide(pages.min(self.ctx.frames.stat().free))?;
        if let Some(result) = self.alloc_here(pages, leave, kind) {
            return result;
        }
        let mut gathered = Gathered::default();
        if let Err(error) = self.gather(pages, leave, kind, &mut gathered) {
            self.give_back(gathered);
            return Err(error);
        }
        let mut runs = gathered.here;
        let here = runs.len();
        runs.extend(gathered.elsewhere.into_iter().flat_map(|(_, runs)| runs));
        let zeroed = (runs.len() - here) as u32;
        Ok(PageReply::Runs { runs, zeroed })
    }

    fn gather(
        &self,
        pages: u64,
        leave: u64,
        kind: PageKind,
        gathered: &mut Gathered,
    ) -> Result<(), PageError> {
        gathered.here = self.ctx.frames.alloc_up_to(pages, kind)?;
        let mut missing = pages.saturating_sub(count(&gathered.here));
        let mut silent = None;
        for (rack, _) in self.racks.by_room() {
            if missing == 0 {
                break;
            }
            match self.ask_for(rack, missing, kind) {
                Ok(runs) => {
                    let got = count(&runs);
                    self.racks.gave(rack, got);
                    if got < missing {
                        self.racks.is_full(rack);
                    }
                    missing = missing.saturating_sub(got);
                    gathered.elsewhere.push((rack, runs));
                }
                Err(error) => silent = Some(error),
            }
        }
        if missing == 0 && self.stat().free >= leave {
            return Ok(());
        }
        let free = self.stat().free + (pages - missing);
        Err(silent.unwrap_or(PageError::OutOfMemory { wanted: pages.saturating_add(leave), free }))
    }

    fn ask_for(&self, rack: RackId, pages: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        match self.ask_peer(rack, PeerRequest::Alloc { pages, kind })? {
            PeerReply::Runs(runs) if count(&runs) <= pages => Ok(runs),
            _ => Err(mismatch(rack)),
        }
    }

    fn give_back(&self, gathered: Gathered) {
        let here = self.free_here(&gathered.here).map(|_| ());
        let elsewhere = gathered.elsewhere.into_iter().map(|(rack, runs)| {
            self.ask_peer(rack, PeerRequest::Free { runs }).map(|reply| {
                if let PeerReply::Freed(pages) = reply {
                    self.racks.took(rack, pages);
                }
            })
        });
        for error in std::iter::once(here).chain(elsewhere).filter_map(Result::err) {
            log::warn!("pages that were not needed after all could not be given back: {error}");
        }
    }

    /// Gives pages of this rack, zeroed, to another, as many as there are. Waits.
    pub fn alloc_for_peer(&self, pages: u64, kind: PageKind) -> Result<Vec<PageRun>, PageError> {
        let frames = &self.ctx.frames;
        self.ids.provide(pages.min(frames.stat().free))?;
        let runs = frames.alloc_up_to(pages, kind)?;
        self.ids.look_ahead(&self.ctx.workers);
        if let Err(error) = runs.iter().try_for_each(|run| self.clear(*run)) {
            self.free_here(&runs)?;
            return Err(error);
        }
        Ok(runs)
    }

    /// Zeroes new pages, as a client would: they are not taken away meanwhile.
    fn clear(&self, run: PageRun) -> Result<(), PageError> {
        let in_place = &self.ctx.in_place;
        let frames = Frames::new(in_place.region());
        let size = in_place.region().geometry().page_size;
        let at = GAddr::new(run.first, 0, size).ok_or(PageError::NoSuchPage(run.first))?;
        let len = run.count as u64 * size.bytes();
        let mut done = 0;
        loop {
            let stopped = in_place.stretches(at, done..len, &mut |stretch| {
                let dirty = |frame| {
                    let hints = frames.hints(frame).map_or(0, |hints| hints.load(Ordering::Relaxed));
                    hints & GIVEN_ZERO == 0
                };
                for offset in stretch
                    .frames()
                    .filter(|f| dirty(*f))
                    .filter_map(|f| stretch.region.geometry().frame_at(f))
                {
                    stretch.region.zero(offset, size.bytes());
                }
            });
            match stopped {
                Ok(()) => return Ok(()),
                Err(Stopped { done: far, page: Some(page), why: Why::Moving }) => {
                    done = far;
                    in_place.wait(page).map_err(|_| PageError::Busy(page))?;
                }
                Err(Stopped { why: Why::NoSlot, .. }) => {
                    return Err(PageError::Os("all access slots of the rack are in use".into()));
                }
                Err(Stopped { page, .. }) => return Err(PageError::Busy(page.unwrap_or(run.first))),
            }
        }
    }

    /// An object in this rack, if that can be had, or be refused, without asking anyone.
    pub fn object_here(&self, size: u64) -> Option<Result<GAddr, PageError>> {
        if self.ctx.frames.ids_left() == 0 {
            return None;
        }
        let result = self.objects.alloc(size);
        self.ids.look_ahead(&self.ctx.workers);
        match result {
            Err(PageError::OutOfMemory { .. }) if self.has_others() => None,
            result => Some(result),
        }
    }

    /// An object in any rack. Waits.
    pub fn object_anywhere(&self, size: u64) -> Result<GAddr, PageError> {
        let here = self.object_for_peer(size);
        let Err(PageError::OutOfMemory { .. }) = here else { return here };
        let mut last = here;
        for (rack, _) in self.racks.by_room() {
            last = match self.ask_peer(rack, PeerRequest::AllocObject { size }) {
                Ok(PeerReply::Object(at)) => return Ok(at),
                Ok(_) => Err(mismatch(rack)),
                Err(PageError::OutOfMemory { .. }) => continue,
                Err(error) => Err(error),
            };
        }
        last
    }

    /// An object in this rack. Waits.
    pub fn object_for_peer(&self, size: u64) -> Result<GAddr, PageError> {
        self.ids.provide(1)?;
        self.objects.alloc(size)
    }

    /// Asks the daemon of `rack`, and waits.
    pub fn ask_peer(&self, rack: RackId, request: PeerRequest) -> Result<PeerReply, PageError> {
        match self.ctx.transport.call(NodeId::Daemon(rack), Request::Peer(request)) {
            Ok(Reply::Peer(result)) => result,
            Ok(_) => Err(mismatch(rack)),
            Err(error) => Err(PageError::Unreachable(error.to_string())),
        }
    }

    fn has_others(&self) -> bool {
        !self.racks.by_room().is_empty()
    }

    /// The part of `leave` that other racks do not have.
    fn leave_here(&self, leave: u64) -> u64 {
        if leave == 0 { 0 } else { leave.saturating_sub(self.racks.stat().free) }
    }

    fn out_of_memory(&self, pages: u64, leave: u64) -> PageError {
        PageError::OutOfMemory { wanted: pages.saturating_add(leave), free: self.stat().free }
    }
}

fn count(runs: &[PageRun]) -> u64 {
    runs.iter().map(|run| run.count as u64).sum()
}

pub(crate) fn mismatch(rack: RackId) -> PageError {
    PageError::Unreachable(TransportError::Mismatch(NodeId::Daemon(rack)).to_string())
}
