//! Taking pages back, and writing them out, wherever they are.
//!
//! A page that is in the index of this rack is here. Where others are the master's directory says; a page
//! may move meanwhile, so the directory is asked again about a page that its home does not have, and only
//! if it names the same rack again there is no such page. An id is never given out twice, so asking again
//! frees nothing else, and the sum of what the racks count is exact.

use crate::give::mismatch;
use crate::objects::FreeFault;
use crate::server::Node;
use pool::addr::{GAddr, PageId, PageRun, RackId};
use pool::proto::page::{FREE_MAX, PageError, PageKind, Reconciled};
use pool::proto::peer::{PeerReply, PeerRequest};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the directory is asked about a page that moves.
const ROUNDS: usize = 16;
/// Pages in one question to the directory, and in one message about pages that are gone.
pub(crate) const BATCH: usize = 1 << 16;
/// The pause before a page that is being moved is looked at again.
const PAUSE: Duration = Duration::from_micros(200);

/// What came of freeing pages in this rack.
#[derive(Debug, Default)]
pub(crate) struct FreedHere {
    /// How many were freed.
    pub freed: u64,
    /// Pages that are not here, or not any more.
    pub away: Vec<PageId>,
}

impl Node {
    /// Takes back pages, wherever they are; how many there were. Waits.
    pub fn free(&self, runs: &[PageRun]) -> Result<u64, PageError> {
        let pages: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        if pages > FREE_MAX {
            return Err(PageError::Invalid(format!("{pages} pages to free at once; at most {FREE_MAX}")));
        }
        let FreedHere { mut freed, away } = self.free_here(runs)?;
        for pages in away.chunks(BATCH) {
            freed += self.at_their_homes(pages, |rack, pages| self.free_at(rack, pages))?;
        }
        Ok(freed)
    }

    /// Takes back those of the pages that are in this rack. Waits for pages that are being moved.
    pub fn free_here(&self, runs: &[PageRun]) -> Result<FreedHere, PageError> {
        let frames = &self.ctx.frames;
        let until = Instant::now() + self.ctx.deadline;
        let mut result = FreedHere::default();
        let mut todo = runs.to_vec();
        loop {
            let mut here = Runs::default();
            for page in todo.iter().flat_map(|run| run.iter()) {
                match self.is_here(page) {
                    // Objects in it may be anybody's: it goes when it holds none.
                    true if frames.kind_of(page) == Some(PageKind::Objects) => {}
                    true => here.push(page),
                    false => result.away.push(page),
                }
            }
            let asked = here.len;
            let freed = frames.free(&here.runs, &|pages: &[PageId]| self.remote.revoke(pages))?;
            result.freed += freed;
            self.note_gone(&here.runs, freed == asked);
            if freed == asked {
                self.takers.freed(runs);
                return Ok(result);
            }
            // The others were being moved, or freed by somebody else, at that moment.
            let left = here.runs.iter().flat_map(|run| run.iter()).find(|page| self.is_here(*page));
            if let Some(page) = left {
                if Instant::now() > until {
                    return Err(PageError::Busy(page));
                }
                std::thread::sleep(PAUSE);
            }
            todo = here.runs;
        }
    }

    /// Whether the page is in this rack, or on its way here or from here.
    fn is_here(&self, page: PageId) -> bool {
        self.ctx.frames.frame_of(page).is_some() || self.remote.swaps.is_moving(page)
    }

    /// Remembers to tell the master of pages that were freed here and may have been made elsewhere.
    fn note_gone(&self, runs: &[PageRun], all: bool) {
        if !all {
            return;
        }
        let mut made_elsewhere =
            runs.iter().flat_map(|run| run.iter()).filter(|page| !self.ids.made(*page)).peekable();
        if made_elsewhere.peek().is_some() {
            self.gone.lock().extend(made_elsewhere);
        }
    }

    fn free_at(&self, rack: RackId, pages: &[PageId]) -> Result<u64, PageError> {
        let runs = Runs::from_iter(pages.iter().copied()).runs;
        if rack == self.ctx.rack {
            return Ok(self.free_here(&runs)?.freed);
        }
        match self.ask_peer(rack, PeerRequest::Free { runs })? {
            PeerReply::Freed(freed) if freed <= pages.len() as u64 => {
                self.racks.took(rack, freed);
                Ok(freed)
            }
            _ => Err(mismatch(rack)),
        }
    }

    /// Does `act` at the home of each of the pages; it says how many it found there. Returns how many
    /// were found in all.
    fn at_their_homes(
        &self,
        pages: &[PageId],
        act: impl Fn(RackId, &[PageId]) -> Result<u64, PageError>,
    ) -> Result<u64, PageError> {
        let mut found = 0;
        let mut todo: Vec<(PageId, Option<RackId>)> = pages.iter().map(|page| (*page, None)).collect();
        for round in 0..ROUNDS {
            let ids: Vec<PageId> = todo.iter().map(|(page, _)| *page).collect();
            // What this daemon knows may be out of date, and is good enough for a first attempt.
            let sure = round > 0;
            let now = if sure { self.remote.ask_homes(ids)? } else { self.remote.locate(&ids)? };
            let mut homes: BTreeMap<RackId, Vec<PageId>> = BTreeMap::new();
            for ((page, asked), home) in todo.iter().zip(now) {
                // The home that the master named was asked, and is still the home: there is no such page.
                if let Some(home) = home.filter(|home| Some(*home) != *asked) {
                    homes.entry(home).or_default().push(*page);
                }
            }
            todo.clear();
            for (rack, pages) in homes {
                let here = act(rack, &pages)?;
                found += here;
                if here < pages.len() as u64 {
                    todo.extend(pages.into_iter().map(|page| (page, sure.then_some(rack))));
                }
            }
            if todo.is_empty() {
                return Ok(found);
            }
        }
        Err(PageError::Busy(todo.first().map_or(PageId::FIRST, |(page, _)| *page)))
    }

    /// Makes what pages hold survive loss of power, wherever they are. Waits.
    pub fn sync(&self, runs: &[PageRun]) -> Result<(), PageError> {
        self.ctx.frames.sync(runs)?;
        let away: Vec<PageId> = runs
            .iter()
            .flat_map(|run| run.iter())
            .filter(|page| self.ctx.frames.frame_of(*page).is_none())
            .collect();
        for pages in away.chunks(BATCH) {
            self.at_their_homes(pages, |rack, pages| self.sync_at(rack, pages))?;
        }
        Ok(())
    }

    fn sync_at(&self, rack: RackId, pages: &[PageId]) -> Result<u64, PageError> {
        let runs = Runs::from_iter(pages.iter().copied()).runs;
        if rack == self.ctx.rack {
            self.ctx.frames.sync(&runs)?;
            return Ok(0);
        }
        match self.ask_peer(rack, PeerRequest::Sync { runs })? {
            // Whether one of them has moved meanwhile the directory knows: it is asked once more.
            PeerReply::Done => Ok(0),
            _ => Err(mismatch(rack)),
        }
    }

    /// Frees what no file has among the pages with these `ids`, if `free` is set, and says what of `held` is
    /// not here. Waits.
    pub fn reconcile(&self, held: &[PageRun], ids: Range<u64>, free: bool) -> Result<Reconciled, PageError> {
        let (leaked, found) = self.ctx.frames.compare(held, &ids, free)?;
        let leaked = self.free_here(&leaked)?.freed;
        let far = self.far.sweep_and_expect();
        let clients = self.rings.get().map(|rings| (rings.sweep() + far) as u64);
        Ok(Reconciled { clients, leaked, ..found })
    }

    /// Takes an object of this rack back. Waits.
    pub fn free_object_here(&self, at: GAddr) -> Result<PeerReply, PageError> {
        match self.objects.free(at) {
            Ok(empty) => {
                empty.into_iter().for_each(|page| self.give_back_empty(page));
                Ok(PeerReply::Done)
            }
            Err(FreeFault::Busy(_)) => Ok(PeerReply::Moving),
            Err(FreeFault::Elsewhere) => {
                let page = at.page(self.ctx.in_place.region().geometry().page_size);
                let moving = page.is_some_and(|page| self.is_here(page));
                Ok(if moving { PeerReply::Moving } else { PeerReply::NotHere })
            }
            Err(FreeFault::Page(error)) => Err(error),
        }
    }

    /// Frees a page that held objects. Should it be on its way to another rack, that will do the same.
    fn give_back_empty(&self, page: PageId) {
        let run = [PageRun { first: page, count: 1 }];
        match self.ctx.frames.free(&run, &|pages: &[PageId]| self.remote.revoke(pages)) {
            Ok(0) if self.is_here(page) => self.objects.not_freed(page),
            Ok(freed) => self.note_gone(&run, freed == 1),
            Err(error) => {
                log::warn!("page {page}, which has no objects any more, is not free yet: {error}");
                self.objects.not_freed(page);
            }
        }
    }

    /// Takes an object back that is here; `None` if that is not so, or has to wait.
    pub fn free_object_at_once(self: &Arc<Self>, at: GAddr) -> Option<Result<(), PageError>> {
        match self.objects.free(at) {
            Ok(empty) => {
                if !empty.is_empty() {
                    let node = Arc::clone(self);
                    self.ctx
                        .workers
                        .run(move || empty.into_iter().for_each(|page| node.give_back_empty(page)));
                }
                Some(Ok(()))
            }
            Err(FreeFault::Page(error)) => Some(Err(error)),
            Err(FreeFault::Busy(_) | FreeFault::Elsewhere) => None,
        }
    }

    /// Takes an object back, wherever it is. Waits.
    pub fn free_object(&self, at: GAddr) -> Result<(), PageError> {
        let size = self.ctx.in_place.region().geometry().page_size;
        let page = at.page(size).ok_or(PageError::NoSuchObject(at))?;
        let until = Instant::now() + self.ctx.deadline;
        let (mut asked, mut round) = (None, 0);
        while round < ROUNDS && Instant::now() < until {
            match self.free_object_here(at)? {
                PeerReply::Done => return Ok(()),
                PeerReply::NotHere => {}
                _ => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
            }
            let sure = round > 0;
            let homes =
                if sure { self.remote.ask_homes(vec![page])? } else { self.remote.locate(&[page])? };
            let home = homes.first().copied().flatten();
            let home = home.filter(|home| asked != Some(*home)).ok_or(PageError::NoSuchObject(at))?;
            if home != self.ctx.rack {
                match self.ask_peer(home, PeerRequest::FreeObject { at })? {
                    PeerReply::Done => return Ok(()),
                    PeerReply::NotHere => {}
                    PeerReply::Moving => {
                        std::thread::sleep(PAUSE);
                        continue;
                    }
                    _ => return Err(mismatch(home)),
                }
            }
            asked = sure.then_some(home);
            round += 1;
        }
        Err(PageError::Busy(page))
    }
}

/// Runs made of single pages.
#[derive(Default)]
pub(crate) struct Runs {
    pub runs: Vec<PageRun>,
    pub len: u64,
}

impl Runs {
    pub fn push(&mut self, page: PageId) {
        self.len += 1;
        if let Some(last) = self.runs.last_mut()
            && last.end() == page.raw()
            && last.count < u32::MAX
        {
            last.count += 1;
            return;
        }
        self.runs.push(PageRun { first: page, count: 1 });
    }
}

impl FromIterator<PageId> for Runs {
    fn from_iter<I: IntoIterator<Item = PageId>>(pages: I) -> Self {
        let mut runs = Self::default();
        pages.into_iter().for_each(|page| runs.push(page));
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_pages_are_one_run() {
        let pages = [3, 4, 5, 9, 7, 8].map(|id| PageId::new(id).unwrap());
        let runs = Runs::from_iter(pages);
        let told: Vec<_> = runs.runs.iter().map(|run| (run.first.raw(), run.count)).collect();
        assert_eq!((told, runs.len), (vec![(3, 3), (9, 1), (7, 2)], 6));
    }
}
