//! Pages that are in more than one place: in several files, or several times in one.
//!
//! A page that a clone shares is the file's that wrote it as much as the clone's; it is freed when the last of them lets it
//! go. What is kept here is only how many places *more* than one each page is in, as intervals of page ids, so a file
//! system without clones pays nothing. It follows from the maps of the files, is counted from them when a
//! namespace is loaded, and is not stored.
//!
//! Invariants: intervals are disjoint, in order, never empty and never of 0; neighbours of one count are one interval.

use pool::addr::{PageId, PageRun};
use std::collections::BTreeMap;
use std::ops::Range;

/// An interval of page ids, but for its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    end: u64,
    /// Places more than one.
    more: u64,
}

/// How many places more than one each page is in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shares(BTreeMap<u64, Part>);

impl Shares {
    /// Counts the places of these pages, in any order.
    pub(crate) fn of(places: impl Iterator<Item = PageRun>) -> Self {
        let mut runs: Vec<(u64, u64)> = places.map(|run| (run.first.raw(), run.end())).collect();
        runs.sort_unstable();
        let mut shares = Self::default();
        let mut seen = 0;
        for (first, end) in runs {
            // What lies below `seen` was there before.
            if first < seen {
                shares.add_ids(first..end.min(seen));
            }
            seen = seen.max(end);
        }
        shares
    }

    /// These pages are in one place more, and were in one at least.
    pub(crate) fn add(&mut self, run: PageRun) {
        self.add_ids(run.first.raw()..run.end());
    }

    /// These pages are in one place less. Returns those that are in none any more.
    pub(crate) fn remove(&mut self, run: PageRun) -> Vec<PageRun> {
        let ids = run.first.raw()..run.end();
        if self.0.is_empty() {
            return vec![run];
        }
        let mut gone = Vec::new();
        self.split(&ids);
        let mut at = ids.start;
        for (start, part) in self.within(&ids) {
            gone.extend(run_of(at..start));
            at = part.end;
            match part.more {
                1 => self.0.remove(&start),
                more => self.0.insert(start, Part { more: more - 1, ..part }),
            };
        }
        gone.extend(run_of(at..ids.end));
        self.join(&ids);
        gone
    }

    /// Those of these pages that are in more than one place, in order.
    pub(crate) fn among(&self, run: PageRun) -> impl Iterator<Item = PageRun> {
        let ids = run.first.raw()..run.end();
        let start = self.0.range(..=ids.start).next_back().filter(|(_, p)| p.end > ids.start);
        let from = start.map_or(ids.start, |(&start, _)| start);
        let parts = self.0.range(from..ids.end);
        parts.filter_map(move |(&start, part)| run_of(start.max(ids.start)..part.end.min(ids.end)))
    }

    fn add_ids(&mut self, ids: Range<u64>) {
        self.split(&ids);
        let mut at = ids.start;
        for (start, part) in self.within(&ids) {
            if at < start {
                self.0.insert(at, Part { end: start, more: 1 });
            }
            self.0.insert(start, Part { more: part.more.saturating_add(1), ..part });
            at = part.end;
        }
        if at < ids.end {
            self.0.insert(at, Part { end: ids.end, more: 1 });
        }
        self.join(&ids);
    }

    /// Makes intervals end where `ids` begins and ends.
    fn split(&mut self, ids: &Range<u64>) {
        for at in [ids.start, ids.end] {
            if let Some((&start, &part)) = self.0.range(..at).next_back().filter(|(_, part)| part.end > at) {
                self.0.insert(start, Part { end: at, ..part });
                self.0.insert(at, part);
            }
        }
    }

    fn within(&self, ids: &Range<u64>) -> Vec<(u64, Part)> {
        self.0.range(ids.clone()).map(|(&start, &part)| (start, part)).collect()
    }

    /// Joins neighbours in `ids` and at both ends of it.
    fn join(&mut self, ids: &Range<u64>) {
        let from = self.0.range(..ids.start).next_back().map_or(ids.start, |(&start, _)| start);
        let parts: Vec<(u64, Part)> =
            self.0.range(from..=ids.end).map(|(&start, &part)| (start, part)).collect();
        let mut last: Option<(u64, Part)> = None;
        for (start, part) in parts {
            last = match last {
                Some((first, before)) if before.end == start && before.more == part.more => {
                    let both = Part { end: part.end, more: part.more };
                    self.0.remove(&start);
                    self.0.insert(first, both);
                    Some((first, both))
                }
                _ => Some((start, part)),
            };
        }
    }
}

/// Makes few runs of many, which say the same about how often each page is in them. Pages of files that were written one
/// after the other mostly follow each other.
pub(crate) fn join_runs(runs: &mut Vec<PageRun>) {
    runs.sort_unstable_by_key(|run| run.first.raw());
    runs.dedup_by(|next, last| {
        let count = last.count.checked_add(next.count).filter(|_| last.end() == next.first.raw());
        let both = count.and_then(|count| PageRun::new(last.first, count));
        both.map(|both| *last = both).is_some()
    });
}

/// The run of these ids; `None` if there are none.
fn run_of(ids: Range<u64>) -> Option<PageRun> {
    PageRun::new(PageId::new(ids.start)?, ids.end.checked_sub(ids.start)?.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDS: u64 = 24;

    fn run(first: u64, count: u32) -> PageRun {
        PageRun::new(PageId::new(first).unwrap(), count).unwrap()
    }

    fn ids(runs: impl IntoIterator<Item = PageRun>) -> Vec<u64> {
        runs.into_iter().flat_map(|run| run.first.raw()..run.end()).collect()
    }

    fn runs() -> impl Strategy<Value = Vec<PageRun>> {
        let one = (1..IDS, 1..8u32).prop_map(|(first, count)| run(first, count));
        proptest::collection::vec(one, 0..30)
    }

    proptest! {
        #[test]
        fn every_page_goes_when_its_last_place_does(places in runs(), order in any::<prop::sample::Index>()) {
            let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
            let mut shares = Shares::default();
            for &place in &places {
                // Pages that are in no place yet get one; the others one more.
                let known = |id: u64, counts: &BTreeMap<u64, u64>| counts.get(&id).is_some_and(|n| *n > 0);
                for id in ids([place]) {
                    if known(id, &counts) {
                        shares.add(run(id, 1));
                    }
                    *counts.entry(id).or_default() += 1;
                }
            }
            prop_assert_eq!(&shares, &Shares::of(places.iter().copied()));
            let mut few = places.clone();
            join_runs(&mut few);
            prop_assert!(few.len() <= places.len());
            prop_assert_eq!(&shares, &Shares::of(few.iter().copied()));
            let shared: Vec<u64> = counts.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect();
            prop_assert_eq!(ids(shares.among(run(1, IDS as u32 + 8))), shared);
            let mut rest = places;
            while !rest.is_empty() {
                let place = rest.swap_remove(order.index(rest.len()));
                let gone = ids(shares.remove(place));
                let mut truth = Vec::new();
                for id in ids([place]) {
                    let count = counts.get_mut(&id).unwrap();
                    *count -= 1;
                    if *count == 0 {
                        truth.push(id);
                    }
                }
                prop_assert_eq!(gone, truth);
                prop_assert_eq!(&shares, &Shares::of(rest.iter().copied()));
            }
            prop_assert!(shares.0.is_empty());
        }
    }
}
