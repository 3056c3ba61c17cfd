//! What a daemon counts, for people to look at.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// See [`RackStats`](pool::proto::cluster::RackStats) for what each counts.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub(crate) struct Counters {
    pub misses: Counter,
    pub direct: Counter,
    pub swaps_in: Counter,
    pub swaps_out: Counter,
    pub swaps_refused: Counter,
    pub bytes_out: Counter,
    pub bytes_in: Counter,
}
