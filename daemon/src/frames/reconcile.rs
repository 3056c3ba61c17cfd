//! Comparing the pages there are with those that have an owner.

use super::{FrameTable, Ids, runs};
use crate::extents::Intervals;
use pool::addr::{FrameNo, PageRun};
use pool::cxl::frames::{Content, Frames, State, kind_in};
use pool::proto::page::{PageError, PageKind, Reconciled};
use std::ops::Range;

/// What a comparison has found.
#[derive(Default)]
struct Compared {
    /// Ids of pages that have an owner.
    present: Intervals,
    /// Ids of pages that have none.
    leaked: Intervals,
}

impl FrameTable {
    /// For a pool of its own: frees every page that is not in `held`; says what of `held` there is not.
    pub fn reconcile(&self, held: &[PageRun]) -> Result<Reconciled, PageError> {
        let held: Intervals = held.iter().map(|run| run.first.raw()..run.end()).collect();
        let used = {
            let mut state = self.state.lock();
            state.check_open()?;
            // An owner may know of ids that the region has forgotten (it lost power): they stay used.
            let beyond = held.iter().last().map_or(0, |range| range.end);
            if let Ids::Own { next, .. } = state.ids
                && beyond > next
            {
                self.set_ids_aside(&mut state.ids, beyond - next)?;
            }
            state.frames_used
        };
        let mut found = Compared::default();
        for frame in 0..used {
            if let Content::Page(page, _) = Frames::new(&self.region).content(FrameNo(frame as u32)) {
                let page = page.raw();
                if !found.is_owned(&held, page) {
                    found.leaked.insert(page..page + 1);
                }
            }
        }
        let leaked = self.free(&found.leaked(), &|_| {})?;
        Ok(Reconciled { leaked, missing: found.missing(&held), clients: None })
    }

    /// For a rack of a cluster: says what of `held`, pages of files with these `ids`, there is not; and if `free`
    /// is set, which other pages of files among them are to be freed, because they were here already when they
    /// were last compared. From now on all that are here were.
    pub fn compare(
        &self,
        held: &[PageRun],
        ids: &Range<u64>,
        free: bool,
    ) -> Result<(Vec<PageRun>, Reconciled), PageError> {
        let held: Intervals = held.iter().map(|run| run.first.raw()..run.end()).collect();
        let used = {
            let state = self.state.lock();
            state.check_open()?;
            state.frames_used
        };
        let mut found = Compared::default();
        // The frames that were looked at, and those of pages that may have leaked.
        let (mut seen, mut suspects) = (Intervals::default(), Vec::new());
        for frame in 0..used {
            let number = FrameNo(frame as u32);
            let Content::Page(page, state) = Frames::new(&self.region).content(number) else { continue };
            let page = page.raw();
            if !ids.contains(&page) {
                continue;
            }
            seen.insert(frame..frame + 1);
            if !found.is_owned(&held, page)
                && free
                && state == State::Stable
                && kind_in(self.hints(number)) == PageKind::File
            {
                suspects.push((frame, page));
            }
        }
        let mut state = self.state.lock();
        // Also those that have been given out while we looked are new.
        let old = suspects.iter().filter(|(frame, _)| !state.unsettled.overlaps(&(*frame..frame + 1)));
        found.leaked = old.map(|(_, page)| *page..page + 1).collect();
        seen.iter().for_each(|frames| state.unsettled.remove(frames));
        drop(state);
        let missing = found.missing(&held);
        Ok((found.leaked(), Reconciled { leaked: 0, missing, clients: None }))
    }
}

impl Compared {
    /// Notes that there is a page with this id; whether somebody has it.
    fn is_owned(&mut self, held: &Intervals, id: u64) -> bool {
        let owned = held.overlaps(&(id..id + 1));
        if owned {
            self.present.insert(id..id + 1);
        }
        owned
    }

    fn leaked(&self) -> Vec<PageRun> {
        self.leaked.iter().flat_map(|range| runs(range.start, range.end - range.start)).collect()
    }

    fn missing(&self, held: &Intervals) -> Vec<PageRun> {
        let missing = held.iter().flat_map(|range| self.present.split(range)).filter(|(_, there)| !there);
        missing.flat_map(|(range, _)| runs(range.start, range.end - range.start)).collect()
    }
}
