//! What a client does, counted without two threads writing to the same cache line.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const SHARDS: usize = 16;

/// What a client has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lookups that found the record where this client had seen it last: one access each.
    pub at_place: u64,
    /// Lookups that went by way of the segment.
    pub looked: u64,
    /// Accesses that were not at a remembered place, to read slots, records and segments.
    pub reads: u64,
    /// Attempts that had to be made again, because something had changed.
    pub retries: u64,
    /// Segments split.
    pub splits: u64,
    /// Records that a split copied.
    pub copies: u64,
}

#[derive(Default)]
#[repr(align(128))]
struct Shard([AtomicU64; 6]);

/// The counters of a client.
#[derive(Default)]
pub struct Counters([Shard; SHARDS]);

impl Counters {
    #[inline]
    fn add(&self, which: usize, count: u64) {
        thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let mut shard = SHARD.get();
        if shard == usize::MAX {
            shard = NEXT.fetch_add(1, Relaxed) % SHARDS;
            SHARD.set(shard);
        }
        self.0[shard].0[which].fetch_add(count, Relaxed);
    }

    #[inline]
    pub fn at_place(&self) {
        self.add(0, 1);
    }

    pub fn looked(&self) {
        self.add(1, 1);
    }

    pub fn reads(&self, count: u64) {
        self.add(2, count);
    }

    pub fn retry(&self) {
        self.add(3, 1);
    }

    pub fn split(&self) {
        self.add(4, 1);
    }

    pub fn copies(&self, count: usize) {
        self.add(5, count as u64);
    }

    pub fn sum(&self) -> Counts {
        let sum = |which: usize| self.0.iter().map(|shard| shard.0[which].load(Relaxed)).sum();
        Counts {
            at_place: sum(0),
            looked: sum(1),
            reads: sum(2),
            retries: sum(3),
            splits: sum(4),
            copies: sum(5),
        }
    }
}
