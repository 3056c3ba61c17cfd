//! What one thread does: single words, several words (also across the ends of pages), pages of its own, and
//! pages of others, which may be freed at that moment.
//!
//! Most accesses go to few words, those at the beginnings and ends of pages, so that threads meet. Errors
//! are recorded and the work goes on; with many of them in a row the client connects anew, as its daemon
//! may have been started again.

use crate::{Door, Shared, fail};
use e2e::Rng;
use e2e::history::{Action, Outcome, Recorder};
use pool::addr::{GAddr, PageId};
use pool::{Fill, Pool, PoolError};
use std::collections::HashMap;
use std::ops::AddAssign;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The most words of one access: 256 bytes.
const WORDS_MAX: u64 = 32;

/// So many errors in a row and the client connects anew.
const PATIENCE: u32 = 20;

/// Operations a second of a thread, at most: what is recorded has to fit in the checker's memory.
const RATE: f64 = 50_000.0;

/// The most pages that a thread has of its own.
const OWN_MAX: usize = 4;

/// What a thread did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub operations: u64,
    pub failed: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.operations += other.operations;
        self.failed += other.failed;
    }
}

pub struct Worker<'s> {
    door: Door,
    pool: Pool,
    shared: &'s Shared,
    writer: u16,
    recorder: Recorder,
    rng: Rng,
    /// What was last seen in a word: the best guess for a compare-and-swap.
    seen: HashMap<u64, u64>,
    own: Vec<PageId>,
    /// Freed; an access to it must fail.
    freed: Option<PageId>,
    errors_in_a_row: u32,
    tally: Tally,
}

impl<'s> Worker<'s> {
    pub fn new(door: Door, pool: Pool, shared: &'s Shared, dir: &Path, writer: u16, seed: u64) -> Self {
        let path = dir.join(format!("{writer}.history"));
        let recorder = Recorder::create(&path, writer, shared.size.shift())
            .unwrap_or_else(|error| fail(&format!("{}: {error}", path.display())));
        let rng = Rng::new(seed ^ u64::from(writer) << 48);
        let (seen, own, tally) = (HashMap::new(), Vec::new(), Tally::default());
        Self { door, pool, shared, writer, recorder, rng, seen, own, freed: None, errors_in_a_row: 0, tally }
    }

    /// Works until that time, and frees what it has.
    pub fn work(&mut self, until: Instant) -> Tally {
        let since = Instant::now();
        while Instant::now() < until {
            self.one();
            if self.tally.operations as f64 > RATE * (since.elapsed().as_secs_f64() + 0.01) {
                sleep(Duration::from_millis(1));
            }
            if self.errors_in_a_row > 0 {
                sleep(Duration::from_millis(5));
            }
            if self.errors_in_a_row >= PATIENCE {
                self.errors_in_a_row = 0;
                if let Ok(pool) = (self.door)() {
                    self.pool = pool;
                }
            }
        }
        while let Some(page) = self.own.pop() {
            self.free(page);
        }
        self.tally
    }

    fn one(&mut self) {
        match self.rng.below(100) {
            0..50 => {
                let at = self.hot_word();
                self.single(at);
            }
            50..75 => self.several(),
            75..90 => self.own_page(),
            _ => self.foreign_page(),
        }
    }

    /// A word that many threads use: the first or last few of a shared page.
    fn hot_word(&mut self) -> u64 {
        let page = self.rng.pick(&self.shared.pages);
        let last = self.shared.size.bytes() / 8 - 1;
        let word = match self.rng.below(4) {
            0 => 0,
            1 => last,
            2 => self.rng.below(self.shared.edge),
            _ => last - self.rng.below(self.shared.edge),
        };
        self.word_of(page, word)
    }

    fn word_of(&self, page: PageId, word: u64) -> u64 {
        (page.raw() << self.shared.size.shift()) | (word * 8)
    }

    fn single(&mut self, at: u64) {
        match self.rng.below(3) {
            0 => self.read(at, 1),
            1 => self.write(at, 1),
            _ => self.cas(at),
        }
    }

    /// 16 to 256 bytes, half of the time across the end of a page into the next one, if that is ours.
    fn several(&mut self) {
        let words = 2 + self.rng.below(WORDS_MAX - 1);
        let page = self.rng.pick(&self.shared.pages);
        let in_page = self.shared.size.bytes() / 8;
        let next = page.checked_add(1).filter(|next| self.shared.pages.contains(next));
        let first = match next {
            Some(_) if self.rng.one_in(2) => in_page - 1 - self.rng.below(words - 1),
            _ if self.rng.one_in(2) => 0,
            _ => in_page - words,
        };
        let at = self.word_of(page, first);
        if self.rng.one_in(2) { self.read(at, words) } else { self.write(at, words) }
    }

    fn own_page(&mut self) {
        match self.rng.below(8) {
            0 if self.own.len() < OWN_MAX => self.alloc(),
            1 if !self.own.is_empty() => {
                let chosen = self.rng.below(self.own.len() as u64) as usize;
                let page = self.own.swap_remove(chosen);
                self.free(page);
                self.freed = Some(page);
            }
            2 if self.freed.is_some() => self.touch(self.freed),
            3 if self.rng.one_in(16) => {
                if let Some(page) = self.freed {
                    self.free(page);
                }
            }
            _ if !self.own.is_empty() => {
                let page = self.rng.pick(&self.own);
                self.touch(Some(page));
            }
            _ => self.alloc(),
        }
    }

    /// A page that some thread put on the board.
    fn foreign_page(&mut self) {
        let writer = self.rng.below(u64::from(self.writer) + 8);
        let at = self.word_of(self.shared.board, writer);
        let mut bytes = [0; 8];
        let read = self.address(at).map(|at| self.pool.read(at, &mut bytes));
        if let Some(Ok(())) = read {
            self.touch(PageId::new(u64::from_ne_bytes(bytes)));
        }
    }

    fn touch(&mut self, page: Option<PageId>) {
        let Some(page) = page else { return };
        let word = self.rng.below(4);
        let at = self.word_of(page, word);
        self.single(at);
    }

    fn alloc(&mut self) {
        let pool = self.pool.clone();
        let page = self.recorder.run(Action::Alloc { pages: 1 }, || {
            let result = pool.alloc_runs(1, 0, Fill::Zeroed);
            let pages = result.map(|runs| runs.iter().flat_map(|run| run.iter()).collect::<Vec<_>>());
            match pages {
                Ok(pages) => (Outcome::Pages(pages.iter().map(|page| page.raw()).collect()), Ok(pages)),
                Err(error) => (outcome(&error), Err(error)),
            }
        });
        if let Some(pages) = self.count(page) {
            self.own.extend(&pages);
            self.publish(pages.last().copied());
        }
    }

    fn publish(&mut self, page: Option<PageId>) {
        let at = self.word_of(self.shared.board, u64::from(self.writer));
        let (Some(at), Some(page)) = (self.address(at), page) else { return };
        // The board is no part of the history: what it says may be old, or nothing.
        let _ = self.pool.write(at, &page.raw().to_ne_bytes());
    }

    fn free(&mut self, page: PageId) {
        let pool = self.pool.clone();
        let freed = self.recorder.run(Action::Free { page: page.raw() }, || match pool.free_page(page) {
            Ok(()) => (Outcome::Done, Ok(())),
            Err(error) => (outcome(&error), Err(error)),
        });
        self.count(freed);
    }

    fn read(&mut self, at: u64, words: u64) {
        let Some(address) = self.address(at) else { return };
        let pool = self.pool.clone();
        let action = Action::Read { at, words: words as u32 };
        let values = self.recorder.run(action, || {
            let mut bytes = vec![0; words as usize * 8];
            match pool.read(address, &mut bytes) {
                Ok(()) => {
                    let values = words_of(&bytes);
                    (Outcome::Values(values.clone()), Ok(values))
                }
                Err(error) => (outcome(&error), Err(error)),
            }
        });
        if let Some(values) = self.count(values) {
            self.seen.extend((at..).step_by(8).zip(values));
        }
    }

    fn write(&mut self, at: u64, words: u64) {
        let Some(address) = self.address(at) else { return };
        let pool = self.pool.clone();
        let values: Vec<u64> = (0..words).map(|word| self.recorder.value(at + word * 8)).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.seen.extend((at..).step_by(8).zip(values.iter().copied()));
        let written = self.recorder.run(Action::Write { at, values }, || match pool.write(address, &bytes) {
            Ok(()) => (Outcome::Done, Ok(())),
            Err(error) => (outcome(&error), Err(error)),
        });
        self.count(written);
    }

    fn cas(&mut self, at: u64) {
        let Some(address) = self.address(at) else { return };
        let pool = self.pool.clone();
        let (old, new) = (self.seen.get(&at).copied().unwrap_or(0), self.recorder.value(at));
        let was = self.recorder.run(Action::Cas { at, old, new }, || match pool.cas(address, old, new) {
            Ok(was) => (Outcome::Was(was), Ok(was)),
            Err(error) => (outcome(&error), Err(error)),
        });
        if let Some(was) = self.count(was) {
            self.seen.insert(at, if was == old { new } else { was });
        }
    }

    fn address(&self, at: u64) -> Option<GAddr> {
        GAddr::from_raw(at, self.shared.size)
    }

    fn count<T>(&mut self, result: Result<T, PoolError>) -> Option<T> {
        self.tally.operations += 1;
        match result {
            Ok(value) => {
                self.errors_in_a_row = 0;
                Some(value)
            }
            Err(PoolError::NoSuchPage(_)) => None,
            Err(_) => {
                self.tally.failed += 1;
                self.errors_in_a_row += 1;
                None
            }
        }
    }
}

fn outcome(error: &PoolError) -> Outcome {
    match error {
        PoolError::NoSuchPage(_) => Outcome::Gone,
        other => Outcome::Unknown(other.to_string()),
    }
}

fn words_of(bytes: &[u8]) -> Vec<u64> {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    bytes.chunks_exact(8).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use daemon::{Daemon, DaemonConfig, RegionSource};
    use e2e::history;
    use pool::addr::{PageSize, RackId};
    use pool::proto::NodeId;
    use pool::transport::{Handler, Local};
    use std::sync::Arc;

    #[test]
    fn the_work_on_a_pool_of_one_process_is_much_and_right() {
        let (rack, page_size) = (RackId(0), PageSize::MIN);
        let config = DaemonConfig { rack, source: RegionSource::Memfd, size: 8 << 20, page_size };
        let daemon = Arc::new(Daemon::start(config).expect("it starts"));
        let handler: Arc<dyn Handler> = daemon.clone();
        let transport = Arc::new(Local::new());
        transport.register(NodeId::Daemon(rack), &handler);
        let pool = Pool::attach(daemon.region(), rack, transport).expect("it is there");
        let runs = pool.alloc_runs(9, 0, Fill::Zeroed).expect("there is room");
        let pages: Vec<String> =
            runs.iter().flat_map(|run| run.iter()).map(|page| page.raw().to_string()).collect();
        let shared = Shared::new(&pages.join(","), page_size, 16);
        let dir = tempfile::tempdir().expect("a directory can be made");
        let again = pool.clone();
        let door: Door = Arc::new(move || Ok(again.clone()));
        let until = Instant::now() + Duration::from_millis(700);
        let mut sum = Tally::default();
        std::thread::scope(|scope| {
            let start = |writer| {
                let mut worker = Worker::new(door.clone(), pool.clone(), &shared, dir.path(), writer, 1);
                scope.spawn(move || worker.work(until))
            };
            for thread in (1..5).map(start).collect::<Vec<_>>() {
                sum += thread.join().expect("it ends");
            }
        });
        let verdict = history::check(&history::load(dir.path()).expect("it can be read"));
        verdict.expect_none();
        assert_eq!((sum.failed, verdict.unknown), (0, 0));
        assert_eq!(sum.operations, verdict.operations as u64);
        assert!(sum.operations > 2000, "{verdict}");
        println!("{verdict}");
    }
}
