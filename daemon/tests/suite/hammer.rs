//! Many threads allocate, write, read and free at once; nobody may ever see another page's bytes.

use crate::common::memory;
use parking_lot::Mutex;
use pool::addr::PageId;
use pool::{Fill, PoolError};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TIME: Duration = Duration::from_secs(3);

/// A small generator of numbers, one a thread.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

/// Every word of a page is the page's id from before others know of it until it is freed. So a
/// reader finds that, or that there is no such page.
#[test]
fn no_reader_ever_sees_bytes_of_another_page() {
    let e = memory(96, 4096);
    let known: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    let (stop, hits, misses) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let end = Instant::now() + TIME;
    std::thread::scope(|scope| {
        for seed in 1..=3 {
            let (e, known, stop) = (&e, &known, &stop);
            scope.spawn(move || {
                let mut random = Random(seed * 7919);
                while Instant::now() < end {
                    let Ok(runs) = e.pool.alloc_runs(1 + random.below(6), 0, Fill::Uninit) else { continue };
                    for page in runs.iter().flat_map(|run| run.iter()) {
                        let image: Vec<u8> = (0..512).flat_map(|_| page.raw().to_ne_bytes()).collect();
                        e.pool.write(e.at(page, 0), &image).unwrap();
                        known[random.below(64) as usize].store(page.raw(), Ordering::Release);
                    }
                    for _ in 0..random.below(200) {
                        std::hint::spin_loop();
                    }
                    e.pool.free_runs(&runs).unwrap();
                }
                stop.store(true, Ordering::Relaxed);
            });
        }
        for seed in 11..=13 {
            let (e, known, stop, hits, misses) = (&e, &known, &stop, &hits, &misses);
            scope.spawn(move || {
                let mut random = Random(seed * 104_729);
                let mut buffer = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let Some(page) = PageId::new(known[random.below(64) as usize].load(Ordering::Acquire))
                    else {
                        continue;
                    };
                    let first = random.below(400);
                    let words = 1 + random.below(512 - first);
                    buffer.clear();
                    match e.pool.read_into(e.at(page, first * 8), words as usize * 8, &mut buffer) {
                        Ok(()) => hits.fetch_add(1, Ordering::Relaxed),
                        Err(PoolError::NoSuchPage(_)) => misses.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("{other}"),
                    };
                    let alien = buffer.chunks(8).find(|word| *word != page.raw().to_ne_bytes());
                    assert_eq!(alien, None, "in page {page}");
                }
            });
        }
    });
    assert!(
        hits.load(Ordering::Relaxed) > 1000 && misses.load(Ordering::Relaxed) > 1000,
        "{hits:?} {misses:?}"
    );
    assert_eq!(e.pool.stat().unwrap().free, 96);
}

/// Writers of words whose halves are equal and readers at all alignments, through the pool.
#[test]
fn words_are_whole_under_concurrent_writes() {
    let e = memory(8, 4096);
    let run = e.pool.alloc_runs(4, 0, Fill::Zeroed).unwrap()[0];
    let end = Instant::now() + TIME / 3;
    std::thread::scope(|scope| {
        for seed in 1..=2 {
            let e = &e;
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut image = vec![0u8; 4 * 4096 + 16];
                while Instant::now() < end {
                    let (skew, first, value) =
                        (random.below(16) as usize, random.below(1000), random.below(1 << 32));
                    let len = 8 * (1 + random.below(4 * 512 - first)) as usize;
                    let word = (value << 32 | value).to_ne_bytes();
                    image[skew..skew + len].chunks_mut(8).for_each(|w| w.copy_from_slice(&word));
                    e.pool.write(e.at(run.first, first * 8), &image[skew..skew + len]).unwrap();
                }
            });
        }
        let e = &e;
        scope.spawn(move || {
            let mut random = Random(99);
            let mut image = vec![0u8; 4 * 4096 + 16];
            while Instant::now() < end {
                let (skew, first) = (random.below(16) as usize, random.below(1000));
                let len = 8 * (1 + random.below(4 * 512 - first)) as usize;
                e.pool.read(e.at(run.first, first * 8), &mut image[skew..skew + len]).unwrap();
                assert!(image[skew..skew + len].chunks(8).all(|word| word[..4] == word[4..]));
            }
        });
    });
}

#[test]
fn every_increment_by_compare_and_swap_counts() {
    let e = memory(8, 4096);
    let page = e.pool.alloc_page().unwrap();
    let at = e.at(page, 64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let mut seen = 0;
                    loop {
                        match e.pool.cas(at, seen, seen + 1).unwrap() {
                            was if was == seen => break,
                            was => seen = was,
                        }
                    }
                }
            });
        }
    });
    assert_eq!(e.pool.cas(at, 0, 0), Ok(80_000));
}

/// Random allocations and frees of all sizes from several threads leave every page whole and the counts right.
#[test]
fn allocations_never_overlap() {
    let e = memory(2000, 4096);
    let held = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for seed in 1..=4u64 {
            let (e, held) = (&e, &held);
            scope.spawn(move || {
                let mut random = Random(seed * 31);
                for _ in 0..4000 {
                    if random.below(2) == 0 {
                        if let Ok(runs) = e.pool.alloc_runs(1 + random.below(60), 0, Fill::Uninit) {
                            for page in runs.iter().flat_map(|run| run.iter()) {
                                e.pool.write(e.at(page, 4088), &page.raw().to_ne_bytes()).unwrap();
                            }
                            held.lock().push(runs);
                        }
                    } else {
                        let runs = {
                            let mut held = held.lock();
                            let len = held.len() as u64;
                            if len == 0 {
                                continue;
                            }
                            held.swap_remove(random.below(len) as usize)
                        };
                        for page in runs.iter().flat_map(|run| run.iter()) {
                            let mut word = [0; 8];
                            e.pool.read(e.at(page, 4088), &mut word).unwrap();
                            assert_eq!(u64::from_ne_bytes(word), page.raw());
                        }
                        let pages: u64 = runs.iter().map(|run| run.count as u64).sum();
                        assert_eq!(e.pool.free_runs(&runs).unwrap(), pages);
                    }
                }
            });
        }
    });
    let held = held.into_inner();
    let left: u64 = held.iter().flatten().map(|run| run.count as u64).sum();
    assert_eq!(e.pool.stat().unwrap().free, 2000 - left);
}
