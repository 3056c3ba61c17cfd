//! The loops that are measured.
//!
//! Throughput is operations by time, and every so many operations one is timed by itself for the histogram:
//! reading the clock takes as long as a short access, so timing all of them would measure the clock. How
//! many is decided by the warm-up: all, if accesses are slow.
//!
//! What is written are zeroes, so that all memory is zero at all times; that lets a dependent read add what
//! it read to the next address without changing it.

use super::args::Act;
use super::memory::Memory;
use super::pattern::Pattern;
use crate::error::PoolError;
use hdrhistogram::Histogram;
use std::fmt;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Operations between two looks at the clock, if they are fast.
const BATCH: u64 = 256;

/// Operations that take longer than this, in nanoseconds, are each timed.
const SLOW: f64 = 2000.0;

/// The longest access that the histogram tells from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub pattern: Pattern,
    pub act: Act,
    pub dependent: bool,
    pub payload: usize,
    pub threads: usize,
}

impl Case {
    /// What is done, in a word.
    pub fn act(&self) -> &'static str {
        match self.act {
            Act::Read if self.dependent => "read-dependent",
            Act::Read => "read",
            Act::Write => "write",
            Act::Mixed => "mixed",
            Act::Cas => "cas",
            Act::Message => "message",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pattern, payload, threads, .. } = self;
        write!(f, "{} {} {payload} B, {threads} threads", self.act(), pattern.name())
    }
}

/// For how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What came out, of all threads together.
pub(crate) struct Measured {
    pub operations: u64,
    /// Operations a second.
    pub rate: f64,
    /// Of one operation, in nanoseconds, as a thread sees it.
    pub mean: f64,
    pub histogram: Histogram<u64>,
}

/// Measures `case` at these addresses, at which `memory` has at least the payload.
pub(crate) fn measure<M: Memory>(
    memory: &M,
    addresses: &[u64],
    case: &Case,
    timing: &Timing,
) -> Result<Measured, PoolError> {
    let barrier = Barrier::new(case.threads);
    let results: Vec<_> = std::thread::scope(|scope| {
        let start = |thread| {
            let from = addresses.len() / case.threads * thread;
            let (barrier, walk) = (&barrier, Walk { addresses, next: from });
            scope.spawn(move || thread_of(memory, walk, case, timing, barrier))
        };
        let threads: Vec<_> = (0..case.threads).map(start).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let mut all = Measured { operations: 0, rate: 0.0, mean: 0.0, histogram: histogram() };
    for result in results {
        let one = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        all.operations += one.operations;
        all.rate += one.rate;
        // Both have the same bounds.
        let _ = all.histogram.add(&one.histogram);
    }
    all.mean = 1e9 * case.threads as f64 / all.rate.max(f64::MIN_POSITIVE);
    Ok(all)
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that it takes.
    Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Addresses, one after the other and round again.
struct Walk<'a> {
    addresses: &'a [u64],
    next: usize,
}

impl Walk<'_> {
    #[inline]
    fn step(&mut self) -> u64 {
        let at = self.addresses[self.next];
        self.next += 1;
        if self.next == self.addresses.len() {
            self.next = 0;
        }
        at
    }
}

fn thread_of<M: Memory>(
    memory: &M,
    walk: Walk<'_>,
    case: &Case,
    timing: &Timing,
    barrier: &Barrier,
) -> Result<Measured, PoolError> {
    #[repr(align(64))]
    struct Buffer([u8; 4096]);
    let mut buffer = Buffer([0; 4096]);
    let buffer = &mut buffer.0[..case.payload];
    barrier.wait();
    match case.act {
        Act::Read if case.dependent => {
            let mut last = 0;
            drive(walk, timing, |at| {
                memory.read(at + last, buffer)?;
                last = first_word(black_box(&*buffer));
                Ok(())
            })
        }
        Act::Read => drive(walk, timing, |at| {
            memory.read(at, buffer)?;
            black_box(&mut *buffer);
            Ok(())
        }),
        Act::Write => drive(walk, timing, |at| memory.write(at, black_box(buffer))),
        Act::Mixed => {
            let mut turn = false;
            drive(walk, timing, |at| {
                turn = !turn;
                if turn {
                    memory.read(at, buffer)?;
                    black_box(&mut *buffer);
                    Ok(())
                } else {
                    memory.write(at, black_box(buffer))
                }
            })
        }
        Act::Message => drive(walk, timing, |_| memory.message()),
        Act::Cas => drive(walk, timing, |at| memory.cas(at, 0, 0).map(|was| _ = black_box(was))),
    }
}

#[inline]
fn first_word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word))
}

/// Does `act` at one address after the other: for the warm-up, then to be measured.
fn drive(
    mut walk: Walk<'_>,
    timing: &Timing,
    mut act: impl FnMut(u64) -> Result<(), PoolError>,
) -> Result<Measured, PoolError> {
    let (mut warm, begin) = (0u64, Instant::now());
    while warm == 0 || begin.elapsed() < timing.warm_up {
        act(walk.step())?;
        warm += 1;
        // Slow or fast is not yet known: look at the clock often at first.
        for _ in 1..warm.min(BATCH) {
            act(walk.step())?;
        }
        warm += warm.min(BATCH) - 1;
    }
    let batch = if begin.elapsed().as_nanos() as f64 / warm as f64 > SLOW { 1 } else { BATCH };
    let mut histogram = histogram();
    let (mut operations, begin) = (0u64, Instant::now());
    let mut now = begin;
    while now - begin < timing.measured || operations == 0 {
        let before = now;
        act(walk.step())?;
        now = Instant::now();
        histogram.saturating_record((now - before).as_nanos() as u64);
        if batch > 1 {
            for _ in 1..batch {
                act(walk.step())?;
            }
            now = Instant::now();
        }
        operations += batch;
    }
    let rate = operations as f64 / (now - begin).as_secs_f64().max(1e-9);
    Ok(Measured { operations, rate, mean: 1e9 / rate, histogram })
}

#[cfg(test)]
mod tests {
    use super::super::bare::Bare;
    use super::super::pattern::Sequence;
    use super::*;

    #[test]
    fn every_kind_of_case_runs_on_bare_memory() {
        let bare = Bare::small(1 << 20).expect("/dev/shm can be written");
        let time = Duration::from_millis(5);
        let timing = Timing { warm_up: time, measured: time };
        for (act, dependent) in [
            (Act::Read, false),
            (Act::Read, true),
            (Act::Write, false),
            (Act::Mixed, false),
            (Act::Cas, false),
        ] {
            let case = Case { pattern: Pattern::Uniform, act, dependent, payload: 256, threads: 2 };
            let addresses = Sequence::new(case.pattern, 1 << 20, case.payload, 0).addresses(|at| at);
            let measured = measure(&bare, &addresses, &case, &timing).expect("it is memory");
            assert!(measured.operations > 0 && measured.rate > 0.0 && !measured.histogram.is_empty());
        }
    }

    #[test]
    fn an_error_ends_the_case() {
        let bare = Bare::small(1 << 20).expect("/dev/shm can be written");
        let timing = Timing { warm_up: Duration::ZERO, measured: Duration::from_secs(60) };
        let (pattern, act) = (Pattern::Uniform, Act::Read);
        let case = Case { pattern, act, dependent: false, payload: 64, threads: 1 };
        let result = measure(&bare, &[0, 64, 2 << 20], &case, &timing);
        assert_eq!(result.err(), Some(PoolError::BadAddress { at: 2 << 20, len: 64 }));
    }
}
