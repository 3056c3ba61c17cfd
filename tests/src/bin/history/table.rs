//! What one thread does to a hash table: everything to a few keys that all threads share, and between that other
//! keys, which nobody looks at, come and go, so that segments are split under the shared ones.

use crate::work::Tally;
use crate::{Door, fail};
use e2e::Rng;
use e2e::history::{Action, Ask, Outcome, Recorder};
use pool::addr::GAddr;
use pool::dht::{Dht, DhtError, Exchange};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Keys that all threads use.
const KEYS: u64 = 24;

/// So many errors in a row and the client connects anew.
const PATIENCE: u32 = 20;

pub struct Worker {
    door: Door,
    root: u64,
    table: Dht,
    recorder: Recorder,
    rng: Rng,
    writer: u16,
    filler: u64,
    errors_in_a_row: u32,
    tally: Tally,
}

/// The table at `root` of the pool behind `door`.
pub fn open(door: &Door, root: u64, places: usize) -> Result<Dht, DhtError> {
    let pool = door()?;
    let at = GAddr::from_raw(root, pool.page_size()).ok_or(DhtError::NoTable(root))?;
    Dht::open_with(&pool, at, places)
}

impl Worker {
    pub fn new(door: Door, table: Dht, dir: &Path, writer: u16, seed: u64) -> Self {
        let path = dir.join(format!("{writer}.history"));
        let recorder = Recorder::create(&path, writer, 12)
            .unwrap_or_else(|error| fail(&format!("{}: {error}", path.display())));
        let rng = Rng::new(seed ^ u64::from(writer) << 48);
        let root = table.root().raw();
        let (filler, errors_in_a_row, tally) = (0, 0, Tally::default());
        Self { door, root, table, recorder, rng, writer, filler, errors_in_a_row, tally }
    }

    /// Works until that time.
    pub fn work(&mut self, until: Instant) -> Tally {
        while Instant::now() < until {
            self.one();
            // What is recorded has to be judged: not too much of it.
            if self.rng.one_in(8) {
                sleep(Duration::from_micros(self.rng.below(200)));
            }
            if self.errors_in_a_row > 0 {
                sleep(Duration::from_millis(5));
            }
            if self.errors_in_a_row >= PATIENCE {
                self.errors_in_a_row = 0;
                if let Ok(table) = open(&self.door, self.root, 4096) {
                    self.table = table;
                }
            }
        }
        self.tally
    }

    fn one(&mut self) {
        let key = self.rng.below(KEYS);
        match self.rng.below(100) {
            0..35 => self.ask(key, Ask::Get),
            35..55 => {
                let value = self.recorder.value(key * 8);
                self.ask(key, Ask::Put(value));
            }
            55..65 => self.ask(key, Ask::Remove),
            65..80 => self.swap(key),
            _ => self.fill(),
        }
    }

    /// Compare-and-swap from what the key most likely is.
    fn swap(&mut self, key: u64) {
        let old = match self.table.get(&bytes_of_key(key)) {
            Ok(value) => value.map(|value| value_of(&value)),
            Err(_) => None,
        };
        let new = if self.rng.one_in(4) { None } else { Some(self.recorder.value(key * 8)) };
        self.ask(key, Ask::Swap { old, new });
    }

    /// A few other keys; every eighth goes again later.
    fn fill(&mut self) {
        for _ in 0..4 {
            self.filler += 1;
            let key = |number: u64| [&self.writer.to_be_bytes()[..], &number.to_be_bytes()].concat();
            let mut result = self.table.insert(&key(self.filler), b"filler").map(drop);
            if self.filler.is_multiple_of(8) {
                result = result.and(self.table.remove(&key(self.filler / 2)).map(drop));
            }
            self.count(result.is_ok());
        }
    }

    fn ask(&mut self, key: u64, ask: Ask) {
        let (name, table) = (bytes_of_key(key), self.table.clone());
        let done = self.recorder.run(Action::Key { key, ask: ask.clone() }, || {
            let result = match ask {
                Ask::Get => table.get(&name).map(|found| Outcome::Found(found.map(|bytes| value_of(&bytes)))),
                Ask::Put(value) => table.insert(&name, &bytes_of(value)).map(Outcome::Told),
                Ask::Remove => table.remove(&name).map(Outcome::Told),
                Ask::Swap { old, new } => {
                    let (old, new) = (old.map(bytes_of), new.map(bytes_of));
                    table.compare_and_swap(&name, old.as_deref(), new.as_deref()).map(|done| match done {
                        Exchange::Done => Outcome::Done,
                        Exchange::Was(was) => Outcome::Found(was.map(|bytes| value_of(&bytes))),
                    })
                }
            };
            match result {
                Ok(outcome) => (outcome, true),
                Err(error) => (Outcome::Unknown(error.to_string()), false),
            }
        });
        self.count(done);
    }

    fn count(&mut self, done: bool) {
        self.tally.operations += 1;
        self.tally.failed += u64::from(!done);
        self.errors_in_a_row = if done { 0 } else { self.errors_in_a_row + 1 };
    }
}

fn bytes_of_key(key: u64) -> Vec<u8> {
    format!("key {key}").into_bytes()
}

/// The bytes that a value stands for: its number, and more that depends on it; now and then more than a page.
fn bytes_of(value: u64) -> Vec<u8> {
    let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let len = if mixed.is_multiple_of(61) { 5000 + mixed as usize % 5000 } else { mixed as usize % 300 };
    let mut bytes = value.to_le_bytes().to_vec();
    bytes.extend((0..len).map(|i| (mixed as usize + i) as u8));
    bytes
}

/// The value that the bytes stand for; one that nobody has written if they are none's.
fn value_of(bytes: &[u8]) -> u64 {
    let value = bytes.first_chunk().map_or(u64::MAX, |value| u64::from_le_bytes(*value));
    if bytes_of(value) == bytes { value } else { u64::MAX - bytes.len() as u64 }
}
