//! Where the bytes of a file are: which pages of the pool hold which pages of the file.
//!
//! A copy of what the master knows, kept while the file is open. Extents are disjoint, in order, and
//! merged where both the pages of the file and the page ids follow each other. A page that clones have too is *shared*: it
//! can be read, and before it is written a copy takes its place. That may be known late (the others may have let it go),
//! never too late.

use pool::addr::{GAddr, PageRun, PageSize};
use pool::proto::meta::Extent;
use std::collections::BTreeMap;
use std::ops::Range;

/// The extents of one file.
#[derive(Debug, Default)]
pub struct ExtentMap {
    /// First page of the file to the pages that hold it and its successors.
    runs: BTreeMap<u64, Run>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    pages: PageRun,
    shared: bool,
}

impl Run {
    const fn len(&self) -> u64 {
        self.pages.count as u64
    }
}

/// A stretch of a file that is either in consecutive pool addresses or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Offset in the file, in bytes.
    pub at: u64,
    /// Length in bytes; never 0.
    pub len: u64,
    /// Where it is; `None` for a hole.
    pub data: Option<GAddr>,
    /// Other files have it too.
    pub shared: bool,
}

impl ExtentMap {
    /// Maps `extent`, whose pages no other file has, in the place of whatever was mapped there.
    pub fn insert(&mut self, extent: Extent) {
        self.put(extent, false);
    }

    fn put(&mut self, extent: Extent, shared: bool) {
        self.remove(extent.at..extent.end());
        let mut extent = extent;
        if let Some((&at, run)) = self.runs.range(..extent.at).next_back()
            && at + run.len() == extent.at
            && run.shared == shared
            && run.pages.end() == extent.run.first.raw()
            && let Some(count) = run.pages.count.checked_add(extent.run.count)
        {
            extent = Extent { at, run: PageRun { first: run.pages.first, count } };
        }
        if let Some((&at, run)) = self.runs.range(extent.end()..).next()
            && at == extent.end()
            && run.shared == shared
            && extent.run.end() == run.pages.first.raw()
            && let Some(count) = extent.run.count.checked_add(run.pages.count)
        {
            self.runs.remove(&at);
            extent.run.count = count;
        }
        self.runs.insert(extent.at, Run { pages: extent.run, shared });
    }

    /// Pages `range` of the file are shared from now on, as far as they are mapped.
    pub fn share(&mut self, range: Range<u64>) {
        let parts: Vec<Extent> = self.touching(range.clone()).filter_map(|(e, _)| part(e, &range)).collect();
        parts.into_iter().for_each(|e| self.put(e, true));
    }

    /// The pages of `runs` (which are in the order of ids) are shared, wherever in `extent` they are.
    pub fn share_pages(&mut self, extent: Extent, runs: &[PageRun]) {
        let from = runs.partition_point(|run| run.end() <= extent.run.first.raw());
        for run in runs[from..].iter().take_while(|run| run.first.raw() < extent.run.end()) {
            let place = |id: u64| extent.at + id.saturating_sub(extent.run.first.raw());
            self.share(place(run.first.raw())..place(run.end().min(extent.run.end())));
        }
    }

    /// The parts of pages `range` that are shared, in order.
    pub fn shared(&self, range: Range<u64>) -> Vec<Extent> {
        self.touching(range.clone())
            .filter(|(_, shared)| *shared)
            .filter_map(|(e, _)| part(e, &range))
            .collect()
    }

    /// Makes pages `range` of the file a hole.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let hit: Vec<(Extent, bool)> = self.touching(range.clone()).collect();
        for (old, shared) in hit {
            self.runs.remove(&old.at);
            for rest in
                [part(old, &(old.at..range.start)), part(old, &(range.end..old.end()))].into_iter().flatten()
            {
                self.runs.insert(rest.at, Run { pages: rest.run, shared });
            }
        }
    }

    /// The key of the extent that holds page `page`, or `page` if none does.
    fn first_key_reaching(&self, page: u64) -> u64 {
        match self.runs.range(..page).next_back() {
            Some((&at, run)) if at + run.len() > page => at,
            _ => page,
        }
    }

    /// The extents that touch pages `range`, whole, and whether they are shared.
    fn touching(&self, range: Range<u64>) -> impl Iterator<Item = (Extent, bool)> {
        let start = self.first_key_reaching(range.start);
        let runs = self.runs.range(start..range.end.max(start));
        runs.map(|(&at, run)| (Extent { at, run: run.pages }, run.shared))
    }

    /// The `len` bytes from `at`, cut into pieces, in order and without gaps. `at + len` must not
    /// overflow.
    pub fn pieces(&self, at: u64, len: u64, size: PageSize) -> Pieces<impl Iterator<Item = (Extent, bool)>> {
        let end = at + len;
        let pages = size.page_of(at)..size.pages_for(end);
        Pieces { extents: self.touching(pages), next: None, at, end, size }
    }

    /// The parts of pages `range` that are holes or shared, in order.
    pub fn not_own(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.gaps(range, |shared| !shared)
    }

    /// The parts of pages `range` that are holes, in order.
    pub fn holes(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.gaps(range, |_| true)
    }

    /// The parts of pages `range` that are in no extent that `counts`, given whether it is shared.
    fn gaps(&self, range: Range<u64>, counts: impl Fn(bool) -> bool) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = range.start;
        for (extent, _) in self.touching(range.clone()).filter(|(_, shared)| counts(*shared)) {
            if extent.at > at {
                holes.push(at..extent.at);
            }
            at = extent.end();
        }
        if at < range.end {
            holes.push(at..range.end);
        }
        holes
    }

    /// Every extent, in the order of the file.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        self.runs.iter().map(|(&at, run)| Extent { at, run: run.pages })
    }

    /// Whether both have the same pages at the same places, shared or not.
    pub fn same_pages(&self, other: &Self) -> bool {
        let joined = |map: &Self| {
            let mut all: Vec<(u64, u64, u64)> = Vec::with_capacity(map.runs.len());
            for (&at, run) in &map.runs {
                let (first, count) = (run.pages.first.raw(), run.len());
                match all.last_mut() {
                    Some((a, f, n)) if *a + *n == at && *f + *n == first => *n += count,
                    _ => all.push((at, first, count)),
                }
            }
            all
        };
        joined(self) == joined(other)
    }

    /// Every run of pages, in the order of the file.
    pub fn runs(&self) -> impl Iterator<Item = PageRun> {
        self.runs.values().map(|run| run.pages)
    }

    /// The first byte at or after `at` that is in a page; `None` if there is none.
    pub fn next_data(&self, at: u64, size: PageSize) -> Option<u64> {
        let page = size.page_of(at);
        let (extent, _) = self.touching(page..u64::MAX).next()?;
        Some(at.max(extent.at << size.shift()))
    }

    /// The first byte at or after `at` that is in a hole.
    pub fn next_hole(&self, at: u64, size: PageSize) -> u64 {
        let mut page = size.page_of(at);
        for (extent, _) in self.touching(page..u64::MAX) {
            if extent.at > page {
                break;
            }
            page = extent.end();
        }
        at.max(page << size.shift())
    }
}

/// The part of an extent that lies in pages `range` of the file.
fn part(e: Extent, range: &Range<u64>) -> Option<Extent> {
    let (from, to) = (range.start.max(e.at), range.end.min(e.end()));
    let count = to.checked_sub(from).filter(|n| *n > 0)?;
    let first = e.run.first.checked_add(from - e.at)?;
    Some(Extent { at: from, run: PageRun { first, count: count as u32 } })
}

/// Iterator of [`ExtentMap::pieces`].
pub struct Pieces<I> {
    extents: I,
    /// An extent that was fetched but lies further on.
    next: Option<(Extent, bool)>,
    at: u64,
    end: u64,
    size: PageSize,
}

impl<I: Iterator<Item = (Extent, bool)>> Iterator for Pieces<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.end {
            return None;
        }
        let (to, data, shared) = match self.next.take().or_else(|| self.extents.next()) {
            Some((e, shared)) if e.at << self.size.shift() > self.at => {
                self.next = Some((e, shared));
                (e.at << self.size.shift(), None, false)
            }
            Some((e, shared)) => {
                let into = self.at - (e.at << self.size.shift());
                let start = GAddr::new(e.run.first, 0, self.size)?;
                (e.end() << self.size.shift(), start.checked_add(into, self.size), shared)
            }
            None => (self.end, None, false),
        };
        let piece = Piece { at: self.at, len: to.min(self.end) - self.at, data, shared };
        self.at += piece.len;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageId;

    const SIZE: PageSize = PageSize::MIN;

    fn extent(at: u64, first: u64, count: u32) -> Extent {
        Extent { at, run: PageRun::new(PageId::new(first).unwrap(), count).unwrap() }
    }

    fn dump(map: &ExtentMap) -> Vec<(u64, u64, u32)> {
        map.runs.iter().map(|(&at, r)| (at, r.pages.first.raw(), r.pages.count)).collect()
    }

    #[test]
    fn consecutive_extents_merge_on_both_sides() {
        let mut map = ExtentMap::default();
        map.insert(extent(0, 10, 2));
        map.insert(extent(3, 13, 1));
        assert_eq!(dump(&map), [(0, 10, 2), (3, 13, 1)]);
        map.insert(extent(2, 12, 1));
        assert_eq!(dump(&map), [(0, 10, 4)]);
        map.insert(extent(4, 99, 1));
        assert_eq!(dump(&map), [(0, 10, 4), (4, 99, 1)]);
    }

    #[test]
    fn an_insert_replaces_what_it_covers() {
        let mut map = ExtentMap::default();
        map.insert(extent(0, 10, 8));
        map.insert(extent(2, 50, 3));
        assert_eq!(dump(&map), [(0, 10, 2), (2, 50, 3), (5, 15, 3)]);
        map.remove(1..6);
        assert_eq!(dump(&map), [(0, 10, 1), (6, 16, 2)]);
        assert_eq!(map.holes(0..10), [1..6, 8..10]);
    }

    #[test]
    fn pieces_cover_the_range_without_gaps() {
        let mut map = ExtentMap::default();
        map.insert(extent(1, 10, 2));
        map.insert(extent(5, 20, 1));
        let pieces: Vec<_> = map.pieces(100, 6 * 4096, SIZE).collect();
        let kinds: Vec<_> = pieces.iter().map(|p| (p.at, p.len, p.data.is_some())).collect();
        assert_eq!(
            kinds,
            [
                (100, 3996, false),
                (4096, 8192, true),
                (12288, 8192, false),
                (20480, 4096, true),
                (24576, 100, false)
            ]
        );
        assert_eq!(map.pieces(8192 + 7, 10, SIZE).next().unwrap().data.unwrap().raw(), (11 << 12) + 7);
    }

    #[test]
    fn data_and_holes_are_found_from_inside_and_outside() {
        let mut map = ExtentMap::default();
        map.insert(extent(2, 10, 2));
        map.insert(extent(4, 30, 1));
        assert_eq!(map.next_data(0, SIZE), Some(8192));
        assert_eq!(map.next_data(9000, SIZE), Some(9000));
        assert_eq!(map.next_data(5 * 4096, SIZE), None);
        assert_eq!(map.next_hole(0, SIZE), 0);
        assert_eq!(map.next_hole(8192, SIZE), 5 * 4096);
    }

    #[test]
    fn what_is_shared_stays_apart_until_it_is_replaced() {
        let mut map = ExtentMap::default();
        map.insert(extent(0, 10, 8));
        map.share_pages(extent(0, 10, 8), &[PageRun::new(PageId::new(5).unwrap(), 7).unwrap()]);
        map.share(4..6);
        assert_eq!(dump(&map), [(0, 10, 2), (2, 12, 2), (4, 14, 2), (6, 16, 2)]);
        assert_eq!(map.shared(1..5), [extent(1, 11, 1), extent(4, 14, 1)]);
        assert_eq!(map.not_own(1..9), [1..2, 4..6, 8..9]);
        assert!(map.holes(0..8).is_empty());
        let shared: Vec<_> = map.pieces(0, 8 * 4096, SIZE).map(|p| p.shared).collect();
        assert_eq!(shared, [true, false, true, false]);
        let mut unshared = ExtentMap::default();
        unshared.insert(extent(0, 10, 8));
        assert!(map.same_pages(&unshared) && unshared.same_pages(&map));
        unshared.insert(extent(3, 99, 1));
        assert!(!map.same_pages(&unshared));
        map.insert(extent(1, 11, 1));
        map.remove(5..6);
        assert_eq!(dump(&map), [(0, 10, 1), (1, 11, 3), (4, 14, 1), (6, 16, 2)]);
        map.insert(extent(4, 14, 1));
        assert_eq!(dump(&map), [(0, 10, 1), (1, 11, 4), (6, 16, 2)]);
    }
}
