//! The operations of a workload, by several threads at once.

use super::Store;
use crate::tool::ToolError;
use crate::tool::bench::pattern::{Pattern, Random, Sequence};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// One in so many short operations is timed: to read the clock takes a tenth of one.
const TIMED: u64 = 16;
/// The longest scan.
const SCAN_MAX: u64 = 100;

/// What is done how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Half reads, half updates.
    A,
    /// 95% reads, 5% updates.
    B,
    /// Reads.
    C,
    /// 95% reads, mostly of what was inserted last, 5% insertions.
    D,
    /// 95% scans, 5% insertions.
    E,
    /// Half reads, half reads that are followed by an update of the same key.
    F,
}

impl Workload {
    pub fn name(self) -> &'static str {
        ["A", "B", "C", "D", "E", "F"][self as usize]
    }

    /// Percent of operations that are not the usual one.
    fn others(self) -> u64 {
        match self {
            Self::A | Self::F => 50,
            Self::B | Self::D | Self::E => 5,
            Self::C => 0,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub workload: Workload,
    pub pattern: Pattern,
    pub records: u64,
    pub value: usize,
    pub threads: usize,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came of it.
pub(crate) struct Measured {
    /// Operations a second of all threads.
    pub rate: f64,
    /// Nanoseconds an operation.
    pub histogram: Histogram<u64>,
}

/// The key of item `number`: 8 bytes that every server takes.
pub(crate) fn key(number: u64) -> [u8; 8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut key = [0; 8];
    for (i, digit) in key.iter_mut().enumerate() {
        *digit = DIGITS[(number >> (28 - 4 * i)) as usize & 15];
    }
    key
}

/// Puts all records in.
pub(crate) fn fill(store: &mut impl Store, case: &Case, seed: u64) -> Result<(), ToolError> {
    let value = value(case.value, seed);
    (0..case.records).try_for_each(|item| store.put(&key(item), &value))
}

fn value(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len).map(|_| b'a' + (random.next() % 26) as u8).collect()
}

/// Has each store do the workload in a thread of its own.
pub(crate) fn run<S: Store + Send>(stores: Vec<S>, case: &Case) -> Result<Measured, ToolError> {
    let items: Vec<u64> = match case.workload {
        Workload::D => Sequence::ranks(case.records).addresses(|at| at),
        _ => Sequence::new(case.pattern, case.records, 1, 1).addresses(|at| at),
    };
    let (begin, inserted) = (Barrier::new(stores.len()), AtomicU64::new(case.records));
    let results: Vec<Result<Measured, ToolError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = stores
            .into_iter()
            .enumerate()
            .map(|(number, store)| {
                let (items, begin, inserted) = (&items, &begin, &inserted);
                scope.spawn(move || {
                    let random = Random::new(number as u64 + 77);
                    let at = items.len() / 16 * number % items.len();
                    let value = value(case.value, number as u64);
                    let mut thread =
                        Thread { store, case, items, at, random, inserted, value, got: Vec::new() };
                    begin.wait();
                    thread.work(case.warm_up)?;
                    thread.work(case.measured)
                })
            })
            .collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(ToolError::No("a thread of the benchmark panicked".into())))
        };
        threads.into_iter().map(ended).collect()
    });
    let mut sum = Measured { rate: 0.0, histogram: histogram() };
    for result in results {
        let Measured { rate, histogram } = result?;
        sum.rate += rate;
        // Both have the same bounds.
        sum.histogram.add(histogram).map_err(|error| ToolError::No(error.to_string()))?;
    }
    Ok(sum)
}

fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_max(60_000_000_000, 3)
        .unwrap_or_else(|_| Histogram::new(3).expect("3 digits are allowed"));
    histogram.auto(true);
    histogram
}

struct Thread<'c, S> {
    store: S,
    case: &'c Case,
    items: &'c [u64],
    at: usize,
    random: Random,
    inserted: &'c AtomicU64,
    value: Vec<u8>,
    got: Vec<u8>,
}

impl<S: Store> Thread<'_, S> {
    fn work(&mut self, time: Duration) -> Result<Measured, ToolError> {
        let every = if self.store.is_fast() { TIMED } else { 1 };
        let (mut histogram, begin) = (histogram(), Instant::now());
        let (mut operations, mut now) = (0u64, begin);
        while now - begin < time {
            let before = now;
            self.one()?;
            now = Instant::now();
            histogram.saturating_record((now - before).as_nanos() as u64);
            for _ in 1..every {
                self.one()?;
            }
            if every > 1 {
                now = Instant::now();
            }
            operations += every;
        }
        Ok(Measured { rate: operations as f64 / (now - begin).as_secs_f64().max(1e-9), histogram })
    }

    #[inline]
    fn one(&mut self) -> Result<(), ToolError> {
        let others = self.case.workload.others();
        let is_other = others > 0 && self.random.below(100) < others;
        let item = self.items[self.at];
        self.at += 1;
        if self.at == self.items.len() {
            self.at = 0;
        }
        match self.case.workload {
            Workload::D | Workload::E if is_other => {
                let next = self.inserted.fetch_add(1, Relaxed);
                self.store.put(&key(next), &self.value)
            }
            Workload::D => {
                // Another thread may not have inserted the very last yet.
                let last = self.inserted.load(Relaxed) - 1;
                self.store.get(&key(last - item.min(last)), &mut self.got).map(drop)
            }
            Workload::E => {
                let count = 1 + self.random.below(SCAN_MAX) as usize;
                self.store.scan(&key(item), count)
            }
            Workload::F if is_other => {
                self.read(item)?;
                self.update(item)
            }
            _ if is_other => self.update(item),
            _ => self.read(item),
        }
    }

    #[inline]
    fn read(&mut self, item: u64) -> Result<(), ToolError> {
        if !self.store.get(&key(item), &mut self.got)? || self.got.len() != self.case.value {
            return Err(ToolError::No(format!("key {item} is lost, or its value has another length")));
        }
        Ok(())
    }

    fn update(&mut self, item: u64) -> Result<(), ToolError> {
        if let Some(first) = self.value.first_mut() {
            *first = b'a' + (item % 26) as u8;
        }
        self.store.put(&key(item), &self.value)
    }
}
