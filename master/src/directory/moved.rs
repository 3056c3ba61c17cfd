//! The pages that are not in the rack of their block, in little memory.
//!
//! An entry is the 52 bits of a page id and the 16 of a rack in 9 bytes, and the hash table adds one; it is
//! between 7/16 and 7/8 full. So a page takes 11.4 to 22.9 bytes (a test holds it to that), against 18.3 to
//! 36.6 of a map of two integers.

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::{Entry, HashTable};
use pool::addr::{PageId, RackId};
use std::hash::BuildHasher;

/// A page id and a rack.
#[derive(Clone, Copy, Debug)]
struct Packed([u8; 9]);

impl Packed {
    fn new(page: PageId, rack: RackId) -> Self {
        let (page, rack) = (page.raw().to_le_bytes(), rack.0.to_le_bytes());
        let mut bytes = [0; 9];
        bytes[..7].copy_from_slice(&page[..7]);
        bytes[7..].copy_from_slice(&rack);
        Self(bytes)
    }

    fn page(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[..7].copy_from_slice(&self.0[..7]);
        u64::from_le_bytes(bytes)
    }

    fn rack(&self) -> RackId {
        RackId(u16::from_le_bytes([self.0[7], self.0[8]]))
    }
}

/// A map from page to rack.
#[derive(Debug, Default)]
pub(super) struct Moved {
    table: HashTable<Packed>,
    hasher: DefaultHashBuilder,
}

impl Moved {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// What it takes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.table.allocation_size()
    }

    pub(super) fn get(&self, page: PageId) -> Option<RackId> {
        let raw = page.raw();
        self.table.find(self.hasher.hash_one(raw), |entry| entry.page() == raw).map(Packed::rack)
    }

    /// Returns what was there.
    pub(super) fn insert(&mut self, page: PageId, rack: RackId) -> Option<RackId> {
        let (raw, hasher) = (page.raw(), &self.hasher);
        let same = |entry: &Packed| entry.page() == raw;
        match self.table.entry(hasher.hash_one(raw), same, |entry| hasher.hash_one(entry.page())) {
            Entry::Occupied(mut entry) => {
                Some(std::mem::replace(entry.get_mut(), Packed::new(page, rack)).rack())
            }
            Entry::Vacant(entry) => {
                entry.insert(Packed::new(page, rack));
                None
            }
        }
    }

    /// Returns what was there. A table that is mostly empty gives memory back.
    pub(super) fn remove(&mut self, page: PageId) -> Option<RackId> {
        let (raw, hasher) = (page.raw(), &self.hasher);
        let entry = self.table.find_entry(hasher.hash_one(raw), |entry| entry.page() == raw).ok()?;
        let (was, _) = entry.remove();
        if self.table.capacity() > 1024 && self.table.len() < self.table.capacity() / 8 {
            self.table.shrink_to(self.table.len() * 2, |entry| hasher.hash_one(entry.page()));
        }
        Some(was.rack())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(raw: u64) -> PageId {
        PageId::new(raw).unwrap()
    }

    #[test]
    fn the_largest_page_and_rack_are_kept() {
        let mut moved = Moved::default();
        let (page, rack) = (page(PageId::LIMIT - 1), RackId(u16::MAX));
        assert_eq!(moved.insert(page, rack), None);
        assert_eq!(moved.get(page), Some(rack));
        assert_eq!(moved.insert(page, RackId(3)), Some(rack));
        assert_eq!((moved.remove(page), moved.remove(page), moved.len()), (Some(RackId(3)), None, 0));
    }

    #[test]
    fn a_page_takes_at_most_23_bytes_and_gives_them_back() {
        let mut moved = Moved::default();
        let (mut least, mut most) = (f64::MAX, 0.0f64);
        for i in 1..=300_000u64 {
            moved.insert(page(i * 7919), RackId(i as u16));
            if i > 1000 {
                let each = moved.bytes() as f64 / i as f64;
                (least, most) = (least.min(each), most.max(each));
            }
        }
        assert!(least < 11.6 && most < 23.0, "{least} to {most} bytes a page");
        for i in 1..=300_000u64 {
            assert_eq!(moved.remove(page(i * 7919)), Some(RackId(i as u16)));
        }
        assert!(moved.bytes() < 64 << 10, "{}", moved.bytes());
    }
}
