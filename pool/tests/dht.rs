//! The hash table on a pool of one process: against a map, full of records, in a full pool, with many threads.

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::addr::{GAddr, PageSize, RackId};
use pool::dht::{Cursor, Dht, DhtError, Exchange};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use pool::{Pool, PoolError};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn pool(bytes: u64) -> (Arc<Daemon>, Pool) {
    pool_of(bytes, PageSize::MIN)
}

fn pool_of(bytes: u64, page_size: PageSize) -> (Arc<Daemon>, Pool) {
    let rack = RackId(0);
    let config = DaemonConfig { rack, source: RegionSource::Memfd, size: bytes, page_size };
    let daemon = Arc::new(Daemon::start(config).expect("it starts"));
    let handler: Arc<dyn Handler> = daemon.clone();
    let transport = Arc::new(Local::new());
    transport.register(NodeId::Daemon(rack), &handler);
    let pool = Pool::attach(daemon.region(), rack, transport).expect("it is there");
    (daemon, pool)
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u16, Vec<u8>),
    Update(u16, Vec<u8>),
    Remove(u16),
    Get(u16),
    Swap(u16, bool, Option<Vec<u8>>),
    Open,
}

/// Keys of different lengths, the empty one and one of several pages among them.
fn key(number: u16) -> Vec<u8> {
    let len = if number == 5 { 9000 } else { usize::from(number) % 40 };
    let mut key = vec![number as u8; len];
    if len > 1 {
        key[..2].copy_from_slice(&number.to_be_bytes());
    }
    key
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![8 => 0usize..100, 2 => 100usize..5000, 1 => 5000usize..40_000];
    (len, any::<u8>()).prop_map(|(len, fill)| (0..len).map(|i| fill.wrapping_add(i as u8)).collect())
}

fn op() -> impl Strategy<Value = Op> {
    let number = 0u16..1200;
    prop_oneof![
        8 => (number.clone(), value()).prop_map(|(key, value)| Op::Insert(key, value)),
        2 => (number.clone(), value()).prop_map(|(key, value)| Op::Update(key, value)),
        3 => number.clone().prop_map(Op::Remove),
        4 => number.clone().prop_map(Op::Get),
        3 => (number, any::<bool>(), proptest::option::of(value())).prop_map(|(key, right, new)| Op::Swap(key, right, new)),
        1 => Just(Op::Open),
    ]
}

fn apply(table: &Dht, map: &mut HashMap<Vec<u8>, Vec<u8>>, op: Op) {
    match op {
        Op::Insert(number, value) => {
            let is_new = map.insert(key(number), value.clone()).is_none();
            assert_eq!(table.insert(&key(number), &value), Ok(is_new));
        }
        Op::Update(number, value) => {
            let found = map.get_mut(&key(number)).map(|found| found.clone_from(&value));
            assert_eq!(table.update(&key(number), &value), Ok(found.is_some()));
        }
        Op::Remove(number) => {
            assert_eq!(table.remove(&key(number)), Ok(map.remove(&key(number)).is_some()));
        }
        Op::Get(number) => assert_eq!(table.get(&key(number)).as_ref(), Ok(&map.get(&key(number)).cloned())),
        Op::Swap(number, right, new) => {
            let now = map.get(&key(number)).cloned();
            let expected = if right { now.clone() } else { Some(b"something else".to_vec()) };
            let done = table.compare_and_swap(&key(number), expected.as_deref(), new.as_deref());
            if now != expected {
                assert_eq!(done, Ok(Exchange::Was(now)));
                return;
            }
            assert_eq!(done, Ok(Exchange::Done));
            match new {
                Some(new) => map.insert(key(number), new),
                None => map.remove(&key(number)),
            };
        }
        Op::Open => {}
    }
}

/// Everything that is in the map is in the table, and nothing else; by all ways to look.
fn same(table: &Dht, map: &HashMap<Vec<u8>, Vec<u8>>) {
    let all: Vec<_> = table.iter().map(|entry| entry.expect("it can be read")).collect();
    assert_eq!(all.len(), map.len());
    assert_eq!(all.into_iter().collect::<HashMap<_, _>>(), *map);
    let stats = table.stats().expect("it can be counted");
    assert_eq!(stats.records, map.len() as u64);
    assert_eq!(stats.bytes, map.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>());
    for (key, value) in map {
        assert_eq!(table.get(key).as_ref(), Ok(&Some(value.clone())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_table_is_a_map(fill in 0u16..1200, ops in proptest::collection::vec(op(), 1..400)) {
        let (_daemon, pool) = pool(96 << 20);
        let free = pool.stat().unwrap().free;
        let mut table = Dht::create(&pool).unwrap();
        let mut map = HashMap::new();
        for number in 0..fill {
            apply(&table, &mut map, Op::Insert(number, number.to_le_bytes().to_vec()));
        }
        for op in ops {
            if matches!(op, Op::Open) {
                table = Dht::open_with(&pool, table.root(), 64).unwrap();
            }
            apply(&table, &mut map, op);
        }
        same(&table, &map);
        table.destroy().unwrap();
        // The daemon may keep one page for small objects.
        prop_assert!(pool.stat().unwrap().free + 1 >= free, "pages are lost");
    }
}

#[test]
fn a_table_grows_while_its_load_stays_where_it_should() {
    let (_daemon, pool) = pool(64 << 20);
    let table = Dht::create(&pool).unwrap();
    let count = 60_000u64;
    for number in 0..count {
        assert_eq!(table.insert(&number.to_be_bytes(), &[number as u8; 24]), Ok(true));
    }
    let stats = table.stats().unwrap();
    assert_eq!(stats.records, count);
    assert!((0.4..1.1).contains(&stats.load()) && stats.probes() < 1.7, "{stats:?}");
    assert!(stats.segments > 64 && stats.depth.1 <= stats.depth.0 + 3, "{stats:?}");
    for number in 0..count {
        let value = table.get(&number.to_be_bytes()).unwrap();
        assert_eq!(value, Some(vec![number as u8; 24]));
        assert_eq!(table.get(&(number + count).to_be_bytes()), Ok(None));
    }
}

#[test]
fn a_second_look_takes_one_access_and_sees_what_others_did() {
    let (_daemon, pool) = pool(16 << 20);
    let ours = Dht::create(&pool).unwrap();
    let theirs = Dht::open(&pool, ours.root()).unwrap();
    ours.insert(b"key", b"one").unwrap();
    assert_eq!(theirs.get(b"key"), Ok(Some(b"one".to_vec())));
    let before = theirs.counts();
    assert_eq!(theirs.get(b"key"), Ok(Some(b"one".to_vec())));
    let after = theirs.counts();
    assert_eq!((after.at_place, after.reads), (before.at_place + 1, before.reads));
    // Replaced, and its memory most likely used again, by the same key.
    for round in 0..100u8 {
        ours.insert(b"key", &[round; 3]).unwrap();
        assert_eq!(theirs.get(b"key"), Ok(Some(vec![round; 3])));
    }
    ours.remove(b"key").unwrap();
    assert_eq!(theirs.get(b"key"), Ok(None));
}

#[test]
fn what_is_no_table_is_refused() {
    let (_daemon, pool) = pool(8 << 20);
    let page = pool.alloc_page().unwrap();
    let at = GAddr::new(page, 0, pool.page_size()).unwrap();
    assert_eq!(Dht::open(&pool, at).err(), Some(DhtError::NoTable(at.raw())));
    let inside = at.checked_add(64, pool.page_size()).unwrap();
    assert_eq!(Dht::open(&pool, inside).err(), Some(DhtError::NoTable(inside.raw())));
    let table = Dht::create(&pool).unwrap();
    let root = table.root();
    table.destroy().unwrap();
    assert_eq!(Dht::open(&pool, root).err(), Some(DhtError::NoTable(root.raw())));
    let long = vec![0; 1 << 24];
    assert!(matches!(Dht::create(&pool).unwrap().get(&long), Err(DhtError::KeyTooLong { .. })));
}

#[test]
fn a_full_pool_is_an_error_and_loses_nothing() {
    let (_daemon, pool) = pool(2 << 20);
    let table = Dht::create(&pool).unwrap();
    let mut count = 0u64;
    let error = loop {
        match table.insert(&count.to_be_bytes(), &[7; 300]) {
            Ok(is_new) => assert!(is_new),
            Err(error) => break error,
        }
        count += 1;
    };
    assert!(matches!(error, DhtError::Pool(PoolError::OutOfMemory { .. })), "{error}");
    assert!(count > 1000, "{count}");
    for number in 0..count {
        assert_eq!(table.get(&number.to_be_bytes()), Ok(Some(vec![7; 300])), "{number}");
    }
    let removed = (0..count).filter(|number| table.remove(&number.to_be_bytes()).is_ok()).count();
    assert!(removed as u64 > count / 2, "{removed} of {count}");
    table.insert(b"there is room", b"again").unwrap();
}

#[test]
fn counters_in_one_table_lose_no_increment() {
    const THREADS: u64 = 4;
    const EACH: u64 = 3000;
    let (_daemon, pool) = pool(64 << 20);
    let table = Dht::create(&pool).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            // Each thread has a client of its own; they split segments while the others count.
            let table = Dht::open(&pool, table.root()).unwrap();
            scope.spawn(move || {
                for i in 0..EACH {
                    let key = (i % 5).to_be_bytes();
                    let mut seen = table.get(&key).unwrap();
                    loop {
                        let number =
                            seen.as_deref().map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
                        let new = (number + 1).to_le_bytes();
                        match table.compare_and_swap(&key, seen.as_deref(), Some(&new)).unwrap() {
                            Exchange::Done => break,
                            Exchange::Was(now) => seen = now,
                        }
                    }
                    table.insert(&(thread << 32 | (i + 10)).to_be_bytes(), b"something else").unwrap();
                }
            });
        }
    });
    let sum: u64 = (0u64..5)
        .map(|key| u64::from_le_bytes(table.get(&key.to_be_bytes()).unwrap().unwrap().try_into().unwrap()))
        .sum();
    assert_eq!(sum, THREADS * EACH);
    assert_eq!(table.stats().unwrap().records, 5 + THREADS * EACH);
}

#[test]
fn keys_that_stay_are_seen_once_by_a_scan_while_the_table_grows() {
    let (_daemon, pool) = pool(96 << 20);
    let table = Dht::create(&pool).unwrap();
    let stay = 2000u64;
    for key in 0..stay {
        table.insert(&key.to_be_bytes(), &key.to_le_bytes()).unwrap();
    }
    let (done, scans) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let table = Dht::open(&pool, table.root()).unwrap();
            while !done.load(Ordering::Relaxed) {
                let mut seen = vec![0; stay as usize];
                let mut next = Some(Cursor::default());
                while let Some(cursor) = next {
                    let (entries, after) = table.scan(cursor, 37).unwrap();
                    for (key, value) in entries {
                        let key = u64::from_be_bytes(key.try_into().unwrap());
                        if key < stay {
                            assert_eq!(value, key.to_le_bytes());
                            seen[key as usize] += 1;
                        }
                    }
                    next = after;
                }
                let wrong: Vec<_> = seen.iter().enumerate().filter(|(_, count)| **count != 1).collect();
                assert!(wrong.is_empty(), "{wrong:?}");
                scans.fetch_add(1, Ordering::Relaxed);
            }
        });
        for key in stay..40_000 {
            table.insert(&key.to_be_bytes(), b"more").unwrap();
            if key % 3 == 0 {
                table.remove(&(key / 2 + stay).to_be_bytes()).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(scans.load(Ordering::Relaxed) > 3);
}

/// Readers and a writer of each key, while segments are split under them: a key goes from record to record, and from
/// segment to segment, and whoever looks always finds it, with a number that never falls.
#[test]
fn a_key_that_moves_is_always_found_and_never_goes_back() {
    let (_daemon, pool) = pool(96 << 20);
    let table = Dht::create(&pool).unwrap();
    let keys = 400u64;
    for key in 0..keys {
        table.insert(&key.to_be_bytes(), &0u64.to_le_bytes()).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2u64 {
            let (pool, done, root) = (&pool, &done, table.root());
            scope.spawn(move || {
                let table = Dht::open_with(pool, root, if reader == 0 { 1 } else { 4096 }).unwrap();
                let mut last = vec![0u64; keys as usize];
                while !done.load(Ordering::Relaxed) {
                    for key in 0..keys {
                        let value = table.get(&key.to_be_bytes()).unwrap();
                        let value = value.unwrap_or_else(|| panic!("{key} is gone"));
                        let number = u64::from_le_bytes(value[..8].try_into().unwrap());
                        assert!(value[8..].iter().all(|byte| *byte == number as u8), "a torn value");
                        assert!(number >= last[key as usize], "{key} went back");
                        last[key as usize] = number;
                    }
                }
            });
        }
        let filler = scope.spawn(|| {
            let table = Dht::open(&pool, table.root()).unwrap();
            for key in keys..30_000 {
                table.insert(&key.to_be_bytes(), b"filler").unwrap();
            }
        });
        let mut number = 0u64;
        while !filler.is_finished() {
            number += 1;
            for key in 0..keys {
                let mut value = number.to_le_bytes().to_vec();
                value.resize(8 + (key as usize * 7 + number as usize) % 300, number as u8);
                assert_eq!(table.update(&key.to_be_bytes(), &value), Ok(true), "{key} is gone");
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(number > 3);
    });
    assert!(table.stats().unwrap().segments > 30);
}

#[test]
fn a_table_fits_pages_of_every_size() {
    for shift in 12..=21 {
        let page_size = PageSize::from_shift(shift).unwrap();
        let (_daemon, pool) = pool_of(64 << 20, page_size);
        let table = Dht::create(&pool).unwrap();
        for key in 0..3000u64 {
            assert_eq!(table.insert(&key.to_be_bytes(), &[key as u8; 100]), Ok(true));
        }
        let large = vec![9; page_size.bytes() as usize * 2 + 1];
        table.insert(b"large", &large).unwrap();
        for key in 0..3000u64 {
            assert_eq!(table.get(&key.to_be_bytes()), Ok(Some(vec![key as u8; 100])), "{key}, {page_size}");
        }
        assert_eq!(table.get(b"large"), Ok(Some(large)));
        let stats = table.stats().unwrap();
        assert_eq!(stats.slots, stats.segments * (page_size.bytes() - 64) / 8);
        table.destroy().unwrap();
    }
}
