//! The page index: which frame holds a page. An open-addressing hash table in shared memory.
//!
//! An entry is a frame's number; its key is the page id in that frame's descriptor, so an entry is
//! only ever a hint that is verified there. Searches go from [`index_home`] upwards, around the end,
//! until the page or an empty entry is found. A descriptor is written before its entry is, and cleared
//! after its entry is removed.
//!
//! Only the daemon writes, one thread at a time; clients read without any lock. Deleting leaves no mark:
//! entries behind the deleted one are moved up, so that searches stay short for ever. (Marks of deleted
//! entries fill a table that is always in motion: after some turnovers a search for a page that is not
//! there looks at every entry.) A search that runs while an entry is moved may miss it. So a miss
//! counts only if the index's version was even and the same before and after: the daemon makes it odd
//! before it moves entries and even again afterwards. A hit needs no version, since its descriptor
//! proves it; so the hit path reads nothing but its entry.

use super::frames::{Frames, id_in};
use super::layout::{AT_INDEX_VERSION, ENTRY_LEN, index_home};
use super::protocol::SharedWord;
use super::region::Region;
use crate::addr::{FrameNo, PageId};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

const EMPTY: u32 = 0;

/// How long a search waits for the daemon to be done with moving entries.
const PATIENCE: Duration = Duration::from_secs(3);

/// The index is being changed, and that does not end: the daemon has died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsettled;

/// The page index of a region.
#[derive(Clone, Copy)]
pub struct Index<'r> {
    region: &'r Region,
    at: u64,
    entries: u64,
}

impl<'r> Index<'r> {
    /// The index of `region`.
    #[inline]
    pub fn new(region: &'r Region) -> Self {
        let g = region.geometry();
        Self { region, at: g.index_at, entries: g.index_entries }
    }

    #[inline]
    fn load(self, entry: u64) -> u32 {
        self.region.load_u32(self.at + entry * ENTRY_LEN, Ordering::Acquire)
    }

    fn store(self, entry: u64, value: u32) {
        self.region.store_u32(self.at + entry * ENTRY_LEN, value, Ordering::Release);
    }

    /// The id that the descriptor of an entry's frame names.
    #[inline]
    fn key(self, value: u32) -> Option<u64> {
        let word = Frames::new(self.region).word(FrameNo(value.wrapping_sub(1)))?;
        Some(id_in(word.load(Ordering::Acquire)))
    }

    /// The entries in the order of a search for `page`, up to the first empty one.
    #[inline]
    fn search(self, page: PageId) -> impl Iterator<Item = (u64, u32)> {
        let home = index_home(page.raw(), self.entries);
        (0..self.entries)
            .map(move |step| (home + step) & (self.entries - 1))
            .map(move |entry| (entry, self.load(entry)))
            .take_while(|(_, value)| *value != EMPTY)
    }

    /// The frame whose descriptor names `page`, in whatever state; `None` if there is none.
    ///
    /// # Errors
    /// [`Unsettled`] after some seconds.
    #[inline]
    pub fn lookup(self, page: PageId) -> Result<Option<FrameNo>, Unsettled> {
        match self.search_once(page) {
            None => self.lookup_surely(page),
            found => Ok(found),
        }
    }

    #[inline]
    fn search_once(self, page: PageId) -> Option<FrameNo> {
        self.search(page)
            .find(|(_, value)| self.key(*value) == Some(page.raw()))
            .map(|(_, value)| FrameNo(value - 1))
    }

    /// Whether `page` is in the index; for the daemon, while nothing else changes it.
    pub fn contains(self, page: PageId) -> bool {
        self.search_once(page).is_some()
    }

    #[cold]
    fn lookup_surely(self, page: PageId) -> Result<Option<FrameNo>, Unsettled> {
        let version = self.region.word(AT_INDEX_VERSION);
        let deadline = Instant::now() + PATIENCE;
        for round in 0u64.. {
            let before = version.load(Ordering::Acquire);
            if let Some(frame) = self.search_once(page) {
                return Ok(Some(frame));
            }
            // Pairs with the fence in `unsettle`: who saw a moved entry sees the version that it has now.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && version.load(Ordering::Relaxed) == before {
                return Ok(None);
            }
            if round > 100 {
                std::thread::yield_now();
            }
            if round > 1000 && Instant::now() > deadline {
                break;
            }
        }
        Err(Unsettled)
    }

    /// From here on a search that finds nothing waits. For moving entries, and for making the index anew.
    pub fn unsettle(self) {
        let version = self.region.word(AT_INDEX_VERSION);
        version.store(version.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// The end of [`unsettle`](Self::unsettle).
    pub fn settle(self) {
        let version = self.region.word(AT_INDEX_VERSION);
        version.store((version.load(Ordering::Relaxed) | 1).wrapping_add(1), Ordering::Release);
    }

    /// Enters `page`, which is not in the index, as held by `frame`. False if the index is full, which a
    /// sound one never is: it has twice as many entries as there are frames.
    pub fn insert(self, page: PageId, frame: FrameNo) -> bool {
        let home = index_home(page.raw(), self.entries);
        let mut places = (0..self.entries).map(|step| (home + step) & (self.entries - 1));
        let free = places.find(|entry| self.load(*entry) == EMPTY);
        if let Some(entry) = free {
            self.store(entry, frame.0 + 1);
        }
        free.is_some()
    }

    /// Removes the entry of `page` that points to `frame`. False if there is none.
    ///
    /// Entries of consecutive ids are best removed from the last to the first: mostly nothing lies
    /// behind them then.
    pub fn remove(self, page: PageId, frame: FrameNo) -> bool {
        let found = self.search(page).find(|(_, value)| *value == frame.0 + 1);
        let Some((mut hole, _)) = found else { return false };
        let mask = self.entries - 1;
        let mut moved = false;
        let mut at = hole;
        for _ in 1..self.entries {
            at = (at + 1) & mask;
            let value = self.load(at);
            if value == EMPTY {
                break;
            }
            // An entry may move to the hole unless a search for it starts only behind the hole.
            let home = self.key(value).map_or(at, |id| index_home(id, self.entries));
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                if !moved {
                    self.unsettle();
                    moved = true;
                }
                self.store(hole, value);
                hole = at;
            }
        }
        self.store(hole, EMPTY);
        if moved {
            self.settle();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{PageSize, RackId};
    use crate::cxl::frames::{State, word_of};
    use crate::cxl::protocol::release;
    use crate::cxl::region::{RegionSource, Spec};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    const FRAMES: u64 = 4096;

    /// A full rack whose runs of pages come and go.
    struct Churn {
        region: Arc<Region>,
        live: Vec<(PageId, FrameNo)>,
        free: Vec<u32>,
        next: u64,
        random: u64,
    }

    impl Churn {
        fn new() -> Self {
            let (rack, page_size, size) = (RackId(0), PageSize::MIN, FRAMES * 4096);
            let spec = Spec { rack, page_size, size, cluster: None, channels: 0 };
            let (region, _) = Region::open(&RegionSource::Memfd, &spec).unwrap();
            Self {
                region: Arc::new(region),
                live: Vec::new(),
                free: (0..FRAMES as u32).collect(),
                next: 1,
                random: 1,
            }
        }

        fn below(&mut self, n: u64) -> u64 {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.random >> 33) % n
        }

        fn put(&mut self, count: u64) {
            for _ in 0..count.min(self.free.len() as u64) {
                let at = self.below(self.free.len() as u64) as usize;
                let (page, frame) = (PageId::new(self.next).unwrap(), FrameNo(self.free.swap_remove(at)));
                self.next += 1;
                let word = Frames::new(&self.region).word(frame).unwrap();
                release(&word, word_of(page, State::Stable, frame));
                assert!(Index::new(&self.region).insert(page, frame));
                self.live.push((page, frame));
            }
        }

        fn take(&mut self, count: u64) {
            for _ in 0..count.min(self.live.len() as u64) {
                let at = self.below(self.live.len() as u64) as usize;
                let (page, frame) = self.live.swap_remove(at);
                assert!(Index::new(&self.region).remove(page, frame));
                assert!(!Index::new(&self.region).remove(page, frame));
                release(&Frames::new(&self.region).word(frame).unwrap(), 0);
                self.free.push(frame.0);
                assert_eq!(Index::new(&self.region).lookup(page), Ok(None));
            }
        }

        /// Mean entries that a search for a page that is not there looks at.
        fn miss_cost(&self) -> f64 {
            let index = Index::new(&self.region);
            let ids = self.next + 1000..self.next + 11_000;
            let looked: usize = ids.filter_map(PageId::new).map(|page| index.search(page).count()).sum();
            looked as f64 / 10_000.0
        }
    }

    #[test]
    fn every_page_that_is_there_is_found_and_no_other_through_long_churn() {
        let mut churn = Churn::new();
        for round in 0..400 {
            let count = 1 + churn.below(300);
            churn.put(if round % 50 == 0 { FRAMES } else { count });
            for (page, frame) in &churn.live {
                assert_eq!(Index::new(&churn.region).lookup(*page), Ok(Some(*frame)));
            }
            let count = 1 + churn.below(300);
            churn.take(if round % 70 == 0 { FRAMES } else { count });
        }
        churn.take(FRAMES);
        let left =
            (0..Index::new(&churn.region).entries).filter(|e| Index::new(&churn.region).load(*e) != EMPTY);
        assert_eq!(left.count(), 0);
    }

    #[test]
    fn searches_stay_short_in_a_full_rack_that_is_always_in_motion() {
        let mut churn = Churn::new();
        churn.put(FRAMES);
        let fresh = churn.miss_cost();
        for _ in 0..2000 {
            churn.take(64);
            churn.put(64);
        }
        let worn = churn.miss_cost();
        println!("a miss looks at {fresh:.1} entries when fresh, {worn:.1} after 31 turnovers");
        assert!(worn < 3.0 * fresh + 10.0, "{worn}");
    }

    /// A reader looks for pages that stay while others around them come and go.
    #[test]
    fn a_search_never_misses_a_page_that_stays() {
        let mut churn = Churn::new();
        churn.put(FRAMES);
        let stay: Vec<_> = (0..500).map(|_| churn.live.pop().unwrap()).collect();
        let (stop, region) = (AtomicBool::new(false), Arc::clone(&churn.region));
        let gone = PageId::new(1 << 40).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for (page, frame) in &stay {
                            assert_eq!(Index::new(&region).lookup(*page), Ok(Some(*frame)));
                        }
                        assert_eq!(Index::new(&region).lookup(gone), Ok(None));
                    }
                });
            }
            for _ in 0..2000 {
                churn.take(200);
                churn.put(200);
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
