//! The entries of one directory: by place for listing, by name for looking up.
//!
//! Invariants: each name is in one entry, and `index` has one slot an entry, with the hash of its name.
//! A name is stored once, in its entry. A cookie is never given to a second entry while the directory is
//! in memory, so a listing can go on after any cookie it has seen, whatever was added or removed.

use hashbrown::{HashTable, hash_table};
use pool::proto::meta::Ino;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

/// The cookie of `.`.
pub(crate) const DOT: u64 = 1;
/// The cookie of `..`.
pub(crate) const DOT_DOT: u64 = 2;
/// The cookie of the first entry of a directory.
const FIRST: u64 = 3;

/// A name and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Inode.
    pub ino: Ino,
    /// Name.
    pub name: Box<[u8]>,
}

/// The hash is kept so that the table can grow without looking at any name.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    cookie: u64,
}

/// The entries of a directory, without `.` and `..`.
#[derive(Debug)]
pub(crate) struct Dir {
    /// The directory that holds this one; the root holds itself.
    pub parent: Ino,
    entries: BTreeMap<u64, Entry>,
    index: HashTable<Slot>,
    hasher: RandomState,
    next: u64,
}

impl Dir {
    /// An empty directory in `parent`.
    pub(crate) fn new(parent: Ino) -> Self {
        Self {
            parent,
            entries: BTreeMap::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            next: FIRST,
        }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is it empty?
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A cookie that no entry has had.
    pub(crate) fn fresh_cookie(&self) -> u64 {
        self.next
    }

    /// Takes the place of `other`: no cookie that had an entry there is given out here.
    pub(crate) fn go_on_after(&mut self, other: &Self) {
        self.next = self.next.max(other.next);
    }

    /// The entry of this name: its cookie and inode.
    pub(crate) fn find(&self, name: &[u8]) -> Option<(u64, Ino)> {
        let hash = self.hasher.hash_one(name);
        let slot = self.index.find(hash, |slot| self.is(slot, hash, name))?;
        Some((slot.cookie, self.entries.get(&slot.cookie)?.ino))
    }

    /// The entries that come after `cookie`, in order.
    pub(crate) fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        let from = (std::ops::Bound::Excluded(cookie), std::ops::Bound::Unbounded);
        self.entries.range::<u64, _>(from).map(|(&cookie, entry)| (cookie, entry))
    }

    /// Puts an entry at a cookie, in the place of one that was there. The name must not be that of
    /// another entry.
    pub(crate) fn put(&mut self, cookie: u64, entry: Entry) {
        self.remove(cookie);
        let hash = self.hasher.hash_one(&*entry.name);
        self.index.insert_unique(hash, Slot { hash, cookie }, |slot| slot.hash);
        self.entries.insert(cookie, entry);
        self.next = self.next.max(cookie.saturating_add(1));
    }

    /// Removes the entry at a cookie.
    pub(crate) fn remove(&mut self, cookie: u64) -> Option<Entry> {
        let entry = self.entries.remove(&cookie)?;
        let hash = self.hasher.hash_one(&*entry.name);
        if let Ok(slot) = self.index.find_entry(hash, |slot| slot.cookie == cookie) {
            hash_table::OccupiedEntry::remove(slot);
        }
        if self.index.capacity() > 64 && self.index.len() * 4 < self.index.capacity() {
            self.index.shrink_to(self.index.len() * 2, |slot| slot.hash);
        }
        Some(entry)
    }

    fn is(&self, slot: &Slot, hash: u64, name: &[u8]) -> bool {
        slot.hash == hash && self.entries.get(&slot.cookie).is_some_and(|entry| &*entry.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, ino: u64) -> Entry {
        Entry { ino: Ino(ino), name: name.as_bytes().into() }
    }

    #[test]
    fn a_listing_goes_on_after_a_removed_entry() {
        let mut dir = Dir::new(Ino::ROOT);
        for i in 0..10 {
            dir.put(dir.fresh_cookie(), entry(&format!("n{i}"), 10 + i));
        }
        dir.remove(7);
        let seen: Vec<u64> = dir.after(7).map(|(_, e)| e.ino.0).collect();
        assert_eq!(seen, [15, 16, 17, 18, 19]);
        assert_eq!(dir.find(b"n4"), None);
        assert_eq!(dir.find(b"n5"), Some((8, Ino(15))));
    }

    #[test]
    fn a_cookie_is_not_given_out_again() {
        let mut dir = Dir::new(Ino::ROOT);
        dir.put(dir.fresh_cookie(), entry("a", 2));
        let last = dir.fresh_cookie();
        dir.put(last, entry("b", 3));
        dir.remove(last);
        assert!(dir.fresh_cookie() > last);
    }

    #[test]
    fn replacing_an_entry_forgets_its_old_name() {
        let mut dir = Dir::new(Ino::ROOT);
        dir.put(3, entry("old", 2));
        dir.put(3, entry("new", 2));
        assert_eq!((dir.find(b"old"), dir.find(b"new")), (None, Some((3, Ino(2)))));
        assert_eq!((dir.len(), dir.index.len()), (1, 1));
    }

    #[test]
    fn the_index_finds_every_name_while_it_grows_and_shrinks() {
        let mut dir = Dir::new(Ino::ROOT);
        for i in 0..5000u64 {
            dir.put(dir.fresh_cookie(), entry(&i.to_string(), i));
        }
        for i in (0..5000u64).filter(|i| i % 50 != 0) {
            let (cookie, ino) = dir.find(i.to_string().as_bytes()).unwrap();
            assert_eq!(ino, Ino(i));
            dir.remove(cookie);
        }
        assert!((0..5000u64).all(|i| dir.find(i.to_string().as_bytes()).is_some() == (i % 50 == 0)));
        assert!(dir.index.capacity() < 1000, "{}", dir.index.capacity());
    }
}
