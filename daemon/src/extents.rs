//! Sets of frames as intervals: plain data, no region, no locks.
//!
//! [`Intervals`] is a set; [`FreeFrames`] is one that also knows its intervals by length, to give out
//! frames in the best place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A set of numbers, kept as disjoint intervals that do not touch each other.
#[derive(Clone, Debug, Default)]
pub struct Intervals {
    /// Start to end.
    by_start: BTreeMap<u64, u64>,
    len: u64,
}

impl Intervals {
    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The intervals in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.by_start.iter().map(|(start, end)| *start..*end)
    }

    /// The interval that holds `at`.
    pub fn holding(&self, at: u64) -> Option<Range<u64>> {
        self.by_start.range(..=at).next_back().filter(|(_, end)| **end > at).map(|(start, end)| *start..*end)
    }

    /// Whether any of `range` is in the set.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        !range.is_empty()
            && self.by_start.range(..range.end).next_back().is_some_and(|(_, end)| *end > range.start)
    }

    /// Adds `range`. Calls `merged` with each interval that becomes part of a larger one, and returns the
    /// one that `range` is then in.
    fn add(&mut self, range: Range<u64>, mut merged: impl FnMut(Range<u64>)) -> Range<u64> {
        let mut whole = range;
        while let Some((&start, &end)) = self.by_start.range(..=whole.end).next_back() {
            if end < whole.start {
                break;
            }
            self.by_start.remove(&start);
            self.len -= end - start;
            merged(start..end);
            whole = start.min(whole.start)..end.max(whole.end);
        }
        self.len += whole.end - whole.start;
        self.by_start.insert(whole.start, whole.end);
        whole
    }

    /// Adds `range` to the set.
    pub fn insert(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.add(range, |_| {});
        }
    }

    /// Takes `range` out of the set, as far as it is in it.
    pub fn remove(&mut self, range: Range<u64>) {
        while let Some((&start, &end)) = self.by_start.range(..range.end).next_back() {
            if end <= range.start || range.is_empty() {
                break;
            }
            self.by_start.remove(&start);
            self.len -= end - start;
            for rest in [start..range.start.min(end), range.end.max(start)..end] {
                if rest.start < rest.end {
                    self.len += rest.end - rest.start;
                    self.by_start.insert(rest.start, rest.end);
                }
            }
        }
    }

    /// The parts of `range` that are in the set (`true`) and that are not (`false`), in order.
    pub fn split(&self, range: Range<u64>) -> Vec<(Range<u64>, bool)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let first = self.holding(at).map_or(at, |held| held.start);
        for (&start, &end) in self.by_start.range(first..range.end) {
            if start > at {
                parts.push((at..start, false));
            }
            at = at.max(start);
            parts.push((at..end.min(range.end), true));
            at = end.min(range.end);
        }
        if at < range.end {
            parts.push((at..range.end, false));
        }
        parts
    }
}

impl FromIterator<Range<u64>> for Intervals {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

/// The free frames.
///
/// Frames that were never used are free frames like others. They are one long interval at the end, and
/// the best fit for a request is the shortest interval that is long enough, so they are touched only
/// when no hole fits: the memory in use stays small while large runs stay whole. A request that fits no
/// interval gets the longest ones, which makes the fewest pieces.
#[derive(Debug, Default)]
pub struct FreeFrames {
    set: Intervals,
    by_len: BTreeSet<(u64, u64)>,
}

impl FreeFrames {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.set.len()
    }

    /// Adds frames that are not free yet.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Self { set, by_len } = self;
        let whole = set.add(range, |part| {
            by_len.remove(&(part.end - part.start, part.start));
        });
        by_len.insert((whole.end - whole.start, whole.start));
    }

    /// Takes out `count` frames, in few pieces; `None`, and nothing taken, if there are not as many.
    pub fn take(&mut self, count: u64) -> Option<Vec<Range<u64>>> {
        if count > self.len() {
            return None;
        }
        let mut pieces = Vec::new();
        let mut left = count;
        while left > 0 {
            let fit = self.by_len.range((left, 0)..).next().or_else(|| self.by_len.last());
            let &(len, start) = fit?;
            let piece = start..start + left.min(len);
            left -= piece.end - piece.start;
            self.take_from(start..start + len, piece.end);
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// Takes the front of the interval `whole`, up to `end`.
    fn take_from(&mut self, whole: Range<u64>, end: u64) {
        self.by_len.remove(&(whole.end - whole.start, whole.start));
        self.set.by_start.remove(&whole.start);
        self.set.len -= end - whole.start;
        if end < whole.end {
            self.by_len.insert((whole.end - end, end));
            self.set.by_start.insert(end, whole.end);
        }
    }

    /// Takes out `range` if all of it is free.
    pub fn take_exact(&mut self, range: Range<u64>) -> bool {
        let Some(whole) = self.set.holding(range.start).filter(|whole| range.end <= whole.end) else {
            return false;
        };
        self.take_from(whole.clone(), range.end);
        // The front was taken; what lies before the range is given back.
        self.insert(whole.start..range.start);
        true
    }

    /// Intervals of at least `len` frames, the longest first.
    pub fn longest(&self, len: u64) -> impl Iterator<Item = Range<u64>> {
        self.by_len.range((len, 0)..).rev().map(|(len, start)| *start..*start + *len)
    }
}
