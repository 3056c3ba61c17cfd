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

    /// How many intervals it takes.
    pub fn pieces(&self) -> usize {
        self.by_start.len()
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
        if range.is_empty() {
            return parts;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UNIVERSE: u64 = 64;

    fn ranges() -> impl Strategy<Value = Vec<(bool, Range<u64>)>> {
        let range = (0..UNIVERSE, 0..UNIVERSE).prop_map(|(a, b)| a.min(b)..a.max(b));
        proptest::collection::vec((any::<bool>(), range), 0..40)
    }

    fn numbers(set: &Intervals) -> BTreeSet<u64> {
        set.iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn intervals_are_a_set(steps in ranges(), probe in (0..UNIVERSE, 0..UNIVERSE)) {
            let (mut set, mut model) = (Intervals::default(), BTreeSet::new());
            for (add, range) in steps {
                if add {
                    set.insert(range.clone());
                    model.extend(range);
                } else {
                    set.remove(range.clone());
                    model.retain(|n| !range.contains(n));
                }
                prop_assert_eq!(numbers(&set), model.clone());
                prop_assert_eq!(set.len(), model.len() as u64);
            }
            let intervals: Vec<_> = set.iter().collect();
            prop_assert!(intervals.windows(2).all(|pair| pair[0].end < pair[1].start), "they do not touch");
            let probe = probe.0.min(probe.1)..probe.0.max(probe.1);
            prop_assert_eq!(set.overlaps(&probe), probe.clone().any(|n| model.contains(&n)));
            prop_assert_eq!(set.holding(probe.start).is_some(), model.contains(&probe.start));
            let parts = set.split(probe.clone());
            let told: Vec<(u64, bool)> = parts.iter().flat_map(|(r, b)| r.clone().map(move |n| (n, *b))).collect();
            let truth: Vec<(u64, bool)> = probe.map(|n| (n, model.contains(&n))).collect();
            prop_assert_eq!(told, truth);
            prop_assert!(parts.iter().all(|(part, _)| !part.is_empty()));
        }

        #[test]
        fn frames_are_taken_once_and_exactly_as_many_as_asked_for(
            counts in proptest::collection::vec((any::<bool>(), 1u64..20), 1..60),
        ) {
            let mut free = FreeFrames::default();
            free.insert(0..UNIVERSE);
            let mut model: BTreeSet<u64> = (0..UNIVERSE).collect();
            let mut held: Vec<Range<u64>> = Vec::new();
            for (take, count) in counts {
                if take {
                    let before = free.len();
                    let longest = free.longest(1).next().map_or(0, |range| range.end - range.start);
                    let Some(pieces) = free.take(count) else {
                        prop_assert!(count > before && free.len() == before);
                        continue;
                    };
                    prop_assert_eq!(pieces.iter().map(|p| p.end - p.start).sum::<u64>(), count);
                    prop_assert!(longest < count || pieces.len() == 1, "in one piece if there is one");
                    for frame in pieces.iter().cloned().flatten() {
                        prop_assert!(model.remove(&frame), "{} was not free", frame);
                    }
                    held.extend(pieces);
                } else if !held.is_empty() {
                    let range = held.swap_remove(count as usize % held.len());
                    model.extend(range.clone());
                    free.insert(range);
                }
                prop_assert_eq!(numbers(&free.set), model.clone());
                let by_len: u64 = free.by_len.iter().map(|(len, _)| len).sum();
                prop_assert_eq!((free.len(), free.by_len.len()), (by_len, free.set.by_start.len()));
            }
            let probe = 3..9;
            let whole = probe.clone().all(|frame| model.contains(&frame));
            prop_assert_eq!(free.take_exact(probe.clone()), whole);
            model.retain(|frame| !whole || !probe.contains(frame));
            prop_assert_eq!(numbers(&free.set), model);
        }
    }

    #[test]
    fn an_empty_range_within_an_interval_has_no_parts() {
        let mut set = Intervals::default();
        set.insert(0..38);
        assert_eq!(set.split(37..37), []);
    }

    /// One piece.
    fn one(piece: Range<u64>) -> Option<Vec<Range<u64>>> {
        Some(Vec::from([piece]))
    }

    #[test]
    fn the_shortest_hole_that_fits_is_used_first() {
        let mut free = FreeFrames::default();
        for range in [0..3, 10..20, 30..35, 100..1000] {
            free.insert(range);
        }
        assert_eq!(free.take(4), one(30..34));
        assert_eq!(free.take(1), one(34..35));
        assert_eq!(free.take(11), one(100..111));
        assert_eq!(free.take(3), one(0..3));
    }

    #[test]
    fn a_request_that_fits_nowhere_gets_the_longest_holes() {
        let mut free = FreeFrames::default();
        for range in [0..3, 10..20, 30..35] {
            free.insert(range);
        }
        assert_eq!(free.take(14), Some(vec![10..20, 30..34]));
        assert_eq!(free.take(5), None);
        assert_eq!(free.len(), 4);
    }
}
