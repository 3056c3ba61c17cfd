//! Every word of a table: the root, the trie, segments, slots and records. Arithmetic only.
//!
//! All words are 8 bytes, aligned, in the byte order of the processor.
//!
//! | root, a page | |
//! | --- | --- |
//! | 0 | [`MAGIC`] |
//! | 8 | the seed of the hash |
//! | 16 | slots of a segment |
//! | 64... | addresses of the trie's pages, 0 for those that there are not yet |
//!
//! The **trie** is an array of words in heap order: node 1 is for all keys, nodes `2n` and `2n + 1` for the
//! halves of those of `n`, by the next bit of the hash from the top. A word is 0 (nothing yet), the address of a
//! segment with bit 0 set (a leaf), or [`SPLIT`].
//!
//! | segment, a page | |
//! | --- | --- |
//! | 0 | its node in the trie |
//! | 8, 16 | the segments that it is split into, 0 before that |
//! | 24 | so many slots from the first on have been moved to those |
//! | 64... | slots: a [`Head`] each |
//!
//! | record | |
//! | --- | --- |
//! | 0 | [state](Header::state): an identity, and in bit 0 whether nobody has begun to replace it |
//! | 8 | CRC-32 of what follows and of the identity (low half), upper half of the key's hash (high half) |
//! | 16 | the next record of the chain: its address by 64, or 0 |
//! | 24 | length of the key (low 24 bits) and of the value (high 40 bits) |
//! | 32... | the key, then the value, each filled up to a multiple of 8 |
//!
//! If that is more than a page, 32 is a number of runs, and each run's first page and count follow: the key and
//! the value are there.

use crate::addr::{GAddr, PageId, PageRun, PageSize};

/// What a root begins with.
pub const MAGIC: u64 = u64::from_be_bytes(*b"rcmpdht1");
/// Where the seed is in a root.
pub const SEED: u64 = 8;
/// Where a root says how many slots a segment has.
pub const SLOTS: u64 = 16;
/// Bytes before the array of words in a root and in a segment.
pub const PREFIX: u64 = 64;
/// Where a segment names those that it is split into.
pub const CHILDREN: [u64; 2] = [8, 16];
/// Where a segment says how far its split is.
pub const CURSOR: u64 = 24;
/// A node of the trie whose segment was split.
pub const SPLIT: u64 = 2;
/// Bytes of a record before its key.
pub const HEADER: usize = 32;
/// The longest key, in bytes.
pub const KEY_MAX: u64 = (1 << 24) - 1;
/// The longest value, in bytes.
pub const VALUE_MAX: u64 = (1 << 40) - 1;
/// The deepest node of the trie: records keep so many bits of the hash.
pub const DEPTH_MAX: u32 = 31;

/// Binary logarithm of what records are aligned to.
const GRAIN: u32 = 6;
const ADDR_BITS: u32 = 46;
const FROZEN: u64 = 1 << ADDR_BITS;
const TAG_SHIFT: u32 = ADDR_BITS + 1;
const TAG_MAX: u64 = (1 << (64 - TAG_SHIFT)) - 1;

/// `n` filled up to a multiple of 8.
pub const fn padded(n: u64) -> u64 {
    n.next_multiple_of(8)
}

/// The address of a record in 46 bits; `None` for one past 4 PiB, or that is not aligned.
pub const fn pack(at: GAddr) -> Option<u64> {
    let packed = at.raw() >> GRAIN;
    if packed >= FROZEN || packed << GRAIN != at.raw() { None } else { Some(packed) }
}

/// The address that was [packed](pack); `None` for 0 and for what is none.
pub const fn unpack(packed: u64, size: PageSize) -> Option<GAddr> {
    if packed >= FROZEN { None } else { GAddr::from_raw(packed << GRAIN, size) }
}

/// The content of a slot: the first record of its chain, whether it is frozen, and a tag of 17 bits that is
/// another after each change. 0 is a slot that nothing was ever put into; a tag is never 0 otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head(pub u64);

impl Head {
    /// A slot that a split fills for the first time.
    pub const fn first(packed: u64) -> Self {
        Self(1 << TAG_SHIFT | packed)
    }

    /// What follows this one when the chain begins at `packed` (0 for none).
    pub const fn next(self, packed: u64) -> Self {
        let tag = self.0 >> TAG_SHIFT;
        let tag = if tag == TAG_MAX { 1 } else { tag + 1 };
        Self(tag << TAG_SHIFT | packed)
    }

    /// Whether nothing was ever put here.
    pub const fn is_untouched(self) -> bool {
        self.0 == 0
    }

    /// Whether it will never change again.
    pub const fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// The same, frozen.
    pub const fn frozen(self) -> Self {
        Self(self.0 | FROZEN)
    }

    /// The first record, packed; 0 for none.
    pub const fn packed(self) -> u64 {
        self.0 & (FROZEN - 1)
    }
}

/// The first words of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Twice its identity, plus 1 while nobody has begun to replace it.
    pub state: u64,
    /// CRC and upper half of the hash.
    pub check: u64,
    /// The next record, packed.
    pub link: u64,
    /// Lengths.
    pub lens: u64,
}

impl Header {
    /// The header that `bytes` begin with; `None` if they are too few.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            state: word(bytes, 0)?,
            check: word(bytes, 8)?,
            link: word(bytes, 16)?,
            lens: word(bytes, 24)?,
        })
    }

    /// Bytes of the key.
    pub const fn key_len(self) -> u64 {
        self.lens & KEY_MAX
    }

    /// Bytes of the value.
    pub const fn value_len(self) -> u64 {
        self.lens >> 24
    }

    /// Bytes of key and value, as they are stored.
    pub const fn payload(self) -> u64 {
        padded(self.key_len()) + padded(self.value_len())
    }

    /// Whether key and value are in pages of their own.
    pub const fn is_large(self, size: PageSize) -> bool {
        HEADER as u64 + self.payload() > size.bytes()
    }

    /// Whether nobody has begun to replace it.
    pub const fn is_live(self) -> bool {
        self.state & 1 == 1
    }

    /// The upper half of the key's hash.
    pub const fn hash(self) -> u32 {
        (self.check >> 32) as u32
    }

    /// Which half of the keys of a node at `depth` this belongs to.
    pub const fn side(self, depth: u32) -> usize {
        (self.hash() >> (DEPTH_MAX - depth) & 1) as usize
    }
}

/// Whether the key and the value, or what stands for them, are as they were written. `bytes` is the whole record.
pub fn is_sound(bytes: &[u8]) -> bool {
    match (Header::of(bytes), bytes.get(16..)) {
        (Some(header), Some(rest)) => header.check as u32 == crc(header.state, header.hash(), rest),
        _ => false,
    }
}

/// Gives a record, which is complete but for its first three words, an identity and a next one.
pub fn seal(bytes: &mut [u8], identity: u64, hash: u32, link: u64) {
    let state = identity << 1 | 1;
    bytes[16..24].copy_from_slice(&link.to_ne_bytes());
    let check = u64::from(crc(state, hash, &bytes[16..])) | u64::from(hash) << 32;
    bytes[..8].copy_from_slice(&state.to_ne_bytes());
    bytes[8..16].copy_from_slice(&check.to_ne_bytes());
}

#[inline]
fn crc(state: u64, hash: u32, rest: &[u8]) -> u32 {
    let identity = state >> 1;
    let mut crc = crc32fast::Hasher::new_with_initial((identity ^ identity >> 32) as u32 ^ hash);
    crc.update(rest);
    crc.finalize()
}

/// The word at byte `at`.
#[inline]
pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_ne_bytes(*word))
}

/// A record with key and value in it, but for its first three words.
pub fn inline(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER + (padded(key.len() as u64) + padded(value.len() as u64)) as usize];
    let lens = key.len() as u64 | (value.len() as u64) << 24;
    bytes[24..32].copy_from_slice(&lens.to_ne_bytes());
    bytes[HEADER..HEADER + key.len()].copy_from_slice(key);
    let at = HEADER + padded(key.len() as u64) as usize;
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// A record whose key and value are in `runs`, but for its first three words.
pub fn outline(key_len: u64, value_len: u64, runs: &[PageRun]) -> Vec<u8> {
    let mut bytes = vec![0; 24];
    bytes.extend((key_len | value_len << 24).to_ne_bytes());
    bytes.extend((runs.len() as u64).to_ne_bytes());
    for run in runs {
        bytes.extend(run.first.raw().to_ne_bytes());
        bytes.extend(u64::from(run.count).to_ne_bytes());
    }
    bytes
}

/// The runs of a record made by [`outline`]; `None` if it is none.
pub fn runs(bytes: &[u8]) -> Option<Vec<PageRun>> {
    let count = usize::try_from(word(bytes, HEADER)?).ok()?;
    let list = bytes.get(HEADER + 8..)?.get(..count.checked_mul(16)?)?;
    let run = |pair: &[u8]| PageRun::new(PageId::new(word(pair, 0)?)?, u32::try_from(word(pair, 8)?).ok()?);
    list.chunks_exact(16).map(run).collect()
}

/// The hash of a key: the same in every process. Multiplications of 64 by 64 bits whose halves are added
/// without carry, a word at a time.
#[inline]
pub fn hash(seed: u64, key: &[u8]) -> u64 {
    const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let mut state = seed ^ fold(key.len() as u64 ^ FACTORS[0], FACTORS[1]);
    let mut words = key.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        state = fold(state ^ word, FACTORS[0]).wrapping_add(state.rotate_left(23));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    state = fold(state ^ u64::from_le_bytes(last), FACTORS[1]).wrapping_add(state.rotate_left(29));
    let mixed = (state ^ state >> 32).wrapping_mul(FACTORS[1]);
    (mixed ^ mixed >> 29).wrapping_mul(FACTORS[0]) ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_changes_at_every_step_and_is_never_untouched_again() {
        let mut head = Head(0);
        for _ in 0..TAG_MAX * 2 + 3 {
            let next = head.next(0);
            assert!(next != head && !next.is_untouched() && !next.is_frozen() && next.packed() == 0);
            head = next;
        }
        let frozen = Head::first(77).frozen();
        assert!(frozen.is_frozen() && frozen.packed() == 77 && !frozen.next(3).is_frozen());
    }

    #[test]
    fn a_record_is_sound_until_a_bit_of_it_changes() {
        let mut bytes = inline(b"key", b"a value of some length");
        seal(&mut bytes, 0x1234_5678_9abc, 0xfeed_beef, 99);
        assert!(is_sound(&bytes));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // Whether it is being replaced is no part of it.
            assert_eq!(is_sound(&damaged), bit == 0, "{bit}");
        }
        let header = Header::of(&bytes).unwrap();
        assert_eq!(
            (header.key_len(), header.value_len(), header.link, header.hash()),
            (3, 22, 99, 0xfeed_beef)
        );
    }

    #[test]
    fn the_list_of_runs_is_what_was_put_in() {
        let list = [PageRun::new(PageId::FIRST, 3), PageRun::new(PageId::FIRST, 900)].map(Option::unwrap);
        assert_eq!(runs(&outline(5, 70_000, &list)), Some(list.to_vec()));
        assert_eq!(runs(&[0xff; 64]), None);
    }

    #[test]
    fn keys_are_spread_over_both_halves_of_the_hash() {
        let mut high = [0u32; 64];
        let mut low = [0u32; 64];
        for key in 0u64..64_000 {
            let hash = hash(1, &key.to_be_bytes());
            high[(hash >> 58) as usize] += 1;
            low[((u64::from(hash as u32) * 64) >> 32) as usize] += 1;
        }
        assert!(high.iter().chain(&low).all(|count| (850..1150).contains(count)), "{high:?} {low:?}");
    }

    #[test]
    fn hashes_tell_keys_apart_that_differ_in_length_only() {
        let hashes: std::collections::HashSet<u64> = (0..100).map(|len| hash(7, &vec![0; len])).collect();
        assert_eq!(hashes.len(), 100);
    }
}
