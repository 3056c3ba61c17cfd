//! Where this client saw records last: a get that finds its key here takes one access.
//!
//! An entry says where a record is and what its state word was while it was live and part of its chain.
//! Whoever replaces a record first takes the live bit from it, for good. So if the record at that place still
//! has that state, it is the key's current one. An entry that is old, or two that were mixed by two threads, names
//! a state that is no longer there, and costs a look.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A record that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its address, packed.
    pub packed: u64,
    /// Its length in bytes; a multiple of 8.
    pub len: usize,
    /// Its state.
    pub state: u64,
}

const LEN_BITS: u32 = 18;

/// Places by the hashes of keys; a later one takes the place of an earlier one.
pub struct Places(Box<[[AtomicU64; 2]]>);

impl Places {
    /// Room for `entries`, a power of two; 16 bytes each.
    pub fn new(entries: usize) -> Self {
        Self((0..entries.next_power_of_two()).map(|_| Default::default()).collect())
    }

    #[inline]
    fn entry(&self, hash: u64) -> &[AtomicU64; 2] {
        // The top bits choose the segment and the low ones the slot; all of them are good.
        &self.0[(hash >> 16) as usize & (self.0.len() - 1)]
    }

    /// Where the record of a key with this hash was, if one was seen.
    #[inline]
    pub fn get(&self, hash: u64) -> Option<Place> {
        let [at, state] = self.entry(hash);
        let (at, state) = (at.load(Relaxed), state.load(Relaxed));
        // A state has 16 bits of its key's hash at the top.
        if state == 0 || state >> 48 != hash >> 48 {
            return None;
        }
        Some(Place { packed: at >> LEN_BITS, len: (at as usize & ((1 << LEN_BITS) - 1)) * 8, state })
    }

    /// A record of a key with this hash was seen, live.
    pub fn put(&self, hash: u64, place: Place) {
        let [at, state] = self.entry(hash);
        if place.len < 8 << LEN_BITS {
            at.store((place.packed << LEN_BITS) | (place.len as u64 / 8), Relaxed);
            state.store(place.state, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_by_its_hash_alone() {
        let places = Places::new(1000);
        let hash = 0xabcd_0000_1234_5678u64;
        let place = Place { packed: 1 << 45, len: 104, state: 0xabcd_0000_0000_0003 };
        places.put(hash, place);
        assert_eq!(places.get(hash), Some(place));
        assert_eq!(places.get(hash ^ 1 << 60), None);
        places.put(hash, Place { len: 8 << LEN_BITS, ..place });
        assert_eq!(places.get(hash), Some(place), "one that is too long is not kept");
    }
}
