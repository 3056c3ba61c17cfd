//! The page index: which frame holds a page. An open-addressing hash table in shared memory.
//!
//! An entry is a frame's number; its key is the page id in that frame's descriptor, so an entry is
//! only ever a hint that is verified there. Searches go from [`index_home`] upwards, around the end,
//! until the page or an empty entry is found.
//!
//! Only the daemon writes, one thread at a time; clients read without any lock. That is safe because
//! an entry never moves, and because a deleted entry becomes empty (which ends searches) only when
//! the entry after it is empty, so that no search that passes it can find anything behind it.
//!
//! A descriptor is written before its entry is, and cleared after its entry is removed.

use super::frames::{Frames, id_in};
use super::layout::{ENTRY_LEN, index_home};
use super::protocol::SharedWord;
use super::region::Region;
use crate::addr::{FrameNo, PageId};
use std::sync::atomic::Ordering;

const EMPTY: u32 = 0;
const DELETED: u32 = u32::MAX;

/// The page index of a region.
#[derive(Clone, Copy)]
pub struct Index<'r> {
    region: &'r Region,
    at: u64,
    entries: u64,
}

impl<'r> Index<'r> {
    /// The index of `region`.
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

    /// The entries in the order of a search for `page`, up to the first empty one.
    #[inline]
    fn search(self, page: PageId) -> impl Iterator<Item = (u64, u32)> {
        let home = index_home(page.raw(), self.entries);
        (0..self.entries)
            .map(move |step| (home + step) & (self.entries - 1))
            .map(move |entry| (entry, self.load(entry)))
            .take_while(|(_, value)| *value != EMPTY)
    }

    /// The frame whose descriptor names `page`, in whatever state.
    #[inline]
    pub fn lookup(self, page: PageId) -> Option<FrameNo> {
        let frames = Frames::new(self.region);
        self.search(page).filter(|(_, value)| *value != DELETED).map(|(_, value)| FrameNo(value - 1)).find(
            |frame| frames.word(*frame).is_some_and(|word| id_in(word.load(Ordering::Acquire)) == page.raw()),
        )
    }

    /// Enters `page`, which is not in the index, as held by `frame`. False if the index is full, which a
    /// sound one never is: it has twice as many entries as there are frames.
    pub fn insert(self, page: PageId, frame: FrameNo) -> bool {
        let home = index_home(page.raw(), self.entries);
        let free = (0..self.entries)
            .map(|step| (home + step) & (self.entries - 1))
            .find(|entry| matches!(self.load(*entry), EMPTY | DELETED));
        if let Some(entry) = free {
            self.store(entry, frame.0 + 1);
        }
        free.is_some()
    }

    /// Removes the entry of `page` that points to `frame`. False if there is none.
    pub fn remove(self, page: PageId, frame: FrameNo) -> bool {
        let found = self.search(page).find(|(_, value)| *value == frame.0 + 1);
        let Some((mut entry, _)) = found else { return false };
        let mask = self.entries - 1;
        if self.load((entry + 1) & mask) != EMPTY {
            self.store(entry, DELETED);
            return true;
        }
        // Nothing can be found behind this entry, nor then behind deleted ones in front of it.
        self.store(entry, EMPTY);
        for _ in 1..self.entries {
            entry = entry.wrapping_sub(1) & mask;
            if self.load(entry) != DELETED {
                break;
            }
            self.store(entry, EMPTY);
        }
        true
    }
}
