//! Where the bytes of a file are: which pages of the pool hold which pages of the file.
//!
//! A copy of what the master knows, kept while the file is open. Extents are disjoint, in order, and
//! merged where both the pages of the file and the page ids follow each other.

use pool::addr::{GAddr, PageRun, PageSize};
use pool::proto::meta::Extent;
use std::collections::BTreeMap;
use std::ops::Range;

/// The extents of one file.
#[derive(Debug, Default)]
pub struct ExtentMap {
    /// First page of the file to the pages that hold it and its successors.
    runs: BTreeMap<u64, PageRun>,
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
}

impl ExtentMap {
    /// Maps `extent`, in the place of whatever was mapped there.
    pub fn insert(&mut self, extent: Extent) {
        self.remove(extent.at..extent.end());
        let mut extent = extent;
        if let Some((&at, &run)) = self.runs.range(..extent.at).next_back()
            && at + run.count as u64 == extent.at
            && run.end() == extent.run.first.raw()
            && let Some(count) = run.count.checked_add(extent.run.count)
        {
            extent = Extent { at, run: PageRun { first: run.first, count } };
        }
        if let Some((&at, &run)) = self.runs.range(extent.end()..).next()
            && at == extent.end()
            && extent.run.end() == run.first.raw()
            && let Some(count) = extent.run.count.checked_add(run.count)
        {
            self.runs.remove(&at);
            extent.run.count = count;
        }
        self.runs.insert(extent.at, extent.run);
    }

    /// Makes pages `range` of the file a hole.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let start = self.first_key_reaching(range.start);
        let hit: Vec<Extent> =
            self.runs.range(start..range.end).map(|(&at, &run)| Extent { at, run }).collect();
        for old in hit {
            self.runs.remove(&old.at);
            self.keep(old, old.at..range.start);
            self.keep(old, range.end..old.end());
        }
    }

    /// Inserts the part of `old` that lies in `range` again.
    fn keep(&mut self, old: Extent, range: Range<u64>) {
        let from = range.start.max(old.at);
        let to = range.end.min(old.end());
        if from < to
            && let Some(first) = old.run.first.checked_add(from - old.at)
        {
            self.runs.insert(from, PageRun { first, count: (to - from) as u32 });
        }
    }

    /// The key of the extent that holds page `page`, or `page` if none does.
    fn first_key_reaching(&self, page: u64) -> u64 {
        match self.runs.range(..page).next_back() {
            Some((&at, run)) if at + run.count as u64 > page => at,
            _ => page,
        }
    }

    /// The extents that touch pages `range`, whole.
    fn touching(&self, range: Range<u64>) -> impl Iterator<Item = Extent> {
        let start = self.first_key_reaching(range.start);
        self.runs.range(start..range.end.max(start)).map(|(&at, &run)| Extent { at, run })
    }

    /// The `len` bytes from `at`, cut into pieces, in order and without gaps. `at + len` must not
    /// overflow.
    pub fn pieces(&self, at: u64, len: u64, size: PageSize) -> Pieces<impl Iterator<Item = Extent>> {
        let end = at + len;
        let pages = size.page_of(at)..size.pages_for(end);
        Pieces { extents: self.touching(pages), next: None, at, end, size }
    }

    /// The parts of pages `range` that are holes, in order.
    pub fn holes(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = range.start;
        for extent in self.touching(range.clone()) {
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
        self.runs.iter().map(|(&at, &run)| Extent { at, run })
    }

    /// Every run of pages, in the order of the file.
    pub fn runs(&self) -> impl Iterator<Item = PageRun> {
        self.runs.values().copied()
    }

    /// The first byte at or after `at` that is in a page; `None` if there is none.
    pub fn next_data(&self, at: u64, size: PageSize) -> Option<u64> {
        let page = size.page_of(at);
        let extent = self.touching(page..u64::MAX).next()?;
        Some(at.max(extent.at << size.shift()))
    }

    /// The first byte at or after `at` that is in a hole.
    pub fn next_hole(&self, at: u64, size: PageSize) -> u64 {
        let mut page = size.page_of(at);
        for extent in self.touching(page..u64::MAX) {
            if extent.at > page {
                break;
            }
            page = extent.end();
        }
        at.max(page << size.shift())
    }
}

/// Iterator of [`ExtentMap::pieces`].
pub struct Pieces<I> {
    extents: I,
    /// An extent that was fetched but lies further on.
    next: Option<Extent>,
    at: u64,
    end: u64,
    size: PageSize,
}

impl<I: Iterator<Item = Extent>> Iterator for Pieces<I> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.at >= self.end {
            return None;
        }
        let extent = self.next.take().or_else(|| self.extents.next());
        let (to, data) = match extent {
            Some(e) if e.at << self.size.shift() > self.at => {
                self.next = Some(e);
                (e.at << self.size.shift(), None)
            }
            Some(e) => {
                let into = self.at - (e.at << self.size.shift());
                let start = GAddr::new(e.run.first, 0, self.size)?;
                (e.end() << self.size.shift(), start.checked_add(into, self.size))
            }
            None => (self.end, None),
        };
        let piece = Piece { at: self.at, len: to.min(self.end) - self.at, data };
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
        map.runs.iter().map(|(&at, r)| (at, r.first.raw(), r.count)).collect()
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
}
