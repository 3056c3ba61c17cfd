//! The locks of one owner on one file: disjoint ranges in order, neighbours of one mode and process joined.

use super::Mode;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
    /// How.
    pub mode: Mode,
    /// The process that took it.
    pub pid: u32,
}

impl Held {
    /// Its bytes, first to last.
    pub fn range(&self) -> RangeInclusive<u64> {
        self.first..=self.last
    }
}

/// What is kept of a range beside its first byte.
#[derive(Clone, Copy, Debug)]
struct Rest {
    last: u64,
    mode: Mode,
    pid: u32,
}

/// The ranges, by first byte.
#[derive(Debug, Default)]
pub struct Ranges(BTreeMap<u64, Rest>);

impl Ranges {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = Held> {
        self.0.iter().map(|(&first, rest)| held(first, rest))
    }

    /// Those that meet the range, the last first.
    pub fn meeting(&self, range: &RangeInclusive<u64>) -> impl Iterator<Item = Held> {
        let (first, last) = (*range.start(), *range.end());
        let before = self.0.range(..=last).rev().map(|(&at, rest)| held(at, rest));
        before.take_while(move |held| held.last >= first)
    }

    /// Takes the range out; what reaches beyond it stays.
    pub fn cut(&mut self, range: &RangeInclusive<u64>) {
        let (first, last) = (*range.start(), *range.end());
        let met: Vec<Held> = self.meeting(range).collect();
        for old in met {
            self.0.remove(&old.first);
            if let Some(end) = first.checked_sub(1).filter(|end| old.first <= *end) {
                self.insert(Held { last: end, ..old });
            }
            if let Some(start) = last.checked_add(1).filter(|start| *start <= old.last) {
                self.insert(Held { first: start, ..old });
            }
        }
    }

    /// Puts the range in the place of whatever it covers, and joins it with neighbours that are alike.
    pub fn put(&mut self, range: &RangeInclusive<u64>, mode: Mode, pid: u32) {
        self.cut(range);
        let mut new = Held { first: *range.start(), last: *range.end(), mode, pid };
        let alike = |other: &Held| other.mode == mode && other.pid == pid;
        let before = new.first.checked_sub(1).and_then(|end| self.meeting(&(end..=end)).next());
        if let Some(before) = before.filter(alike) {
            self.0.remove(&before.first);
            new.first = before.first;
        }
        let after = new.last.checked_add(1).and_then(|start| self.meeting(&(start..=start)).next());
        if let Some(after) = after.filter(alike) {
            self.0.remove(&after.first);
            new.last = after.last;
        }
        self.insert(new);
    }

    fn insert(&mut self, held: Held) {
        self.0.insert(held.first, Rest { last: held.last, mode: held.mode, pid: held.pid });
    }
}

fn held(first: u64, rest: &Rest) -> Held {
    Held { first, last: rest.last, mode: rest.mode, pid: rest.pid }
}
