//! Addresses and ids of the pool: plain numbers with checked arithmetic, never pointers.
//!
//! A page id is never given out twice in the life of a pool, so an id is also a proof of identity:
//! whatever a frame descriptor says about page 17 is about the only page 17 there has ever been.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of a page id. A [`GAddr`] is a page id and an offset of at least 12 bits in 64 bits, and a
/// frame descriptor holds the id, a state and a checksum in one 64-bit word. A pool of larger pages
/// has fewer ids ([`PageSize::id_limit`]).
pub const PAGE_ID_BITS: u32 = 52;

/// The size of a page: a power of two from 4 KiB to 2 MiB, fixed when the pool is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageSize(u8);

impl PageSize {
    /// 4 KiB, the smallest page and the default.
    pub const MIN: Self = Self(12);
    /// 2 MiB, the largest page.
    pub const MAX: Self = Self(21);

    /// The page size of `bytes` bytes; `None` unless it is a power of two from 4 KiB to 2 MiB.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        if !bytes.is_power_of_two() {
            return None;
        }
        Self::from_shift(bytes.trailing_zeros())
    }

    /// The page size of `1 << shift` bytes; `None` unless `shift` is 12 to 21.
    pub const fn from_shift(shift: u32) -> Option<Self> {
        if shift >= Self::MIN.0 as u32 && shift <= Self::MAX.0 as u32 {
            Some(Self(shift as u8))
        } else {
            None
        }
    }

    /// Bytes in a page.
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Binary logarithm of [`bytes`](Self::bytes).
    pub const fn shift(self) -> u32 {
        self.0 as u32
    }

    /// One past the largest page id that fits a [`GAddr`] of this page size.
    pub const fn id_limit(self) -> u64 {
        1 << (64 - self.shift())
    }

    /// The number of the page that holds byte `at` of something laid out in pages.
    pub const fn page_of(self, at: u64) -> u64 {
        at >> self.0
    }

    /// Where byte `at` lies within its page.
    pub const fn offset_of(self, at: u64) -> u64 {
        at & (self.bytes() - 1)
    }

    /// How many pages `len` bytes take.
    pub const fn pages_for(self, len: u64) -> u64 {
        len.div_ceil(self.bytes())
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes() {
            b if b >= 1 << 20 => write!(f, "{}M", b >> 20),
            b => write!(f, "{}K", b >> 10),
        }
    }
}

/// The identity of a page; never reused, never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageId(u64);

impl PageId {
    /// The first id a pool gives out.
    pub const FIRST: Self = Self(1);
    /// One past the last id a pool can give out.
    pub const LIMIT: u64 = 1 << PAGE_ID_BITS;

    /// The page with number `raw`; `None` for zero and for numbers of more than 52 bits.
    pub const fn new(raw: u64) -> Option<Self> {
        if raw == 0 || raw >= Self::LIMIT { None } else { Some(Self(raw)) }
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The id `n` further on; `None` past the end of the id space.
    pub const fn checked_add(self, n: u64) -> Option<Self> {
        match self.0.checked_add(n) {
            Some(raw) => Self::new(raw),
            None => None,
        }
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:x}", self.0)
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A run of `count` pages with consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PageRun {
    /// The first page.
    pub first: PageId,
    /// How many pages; at least one.
    pub count: u32,
}

impl PageRun {
    /// The run of `count` pages from `first`; `None` if it is empty or leaves the id space.
    pub const fn new(first: PageId, count: u32) -> Option<Self> {
        if count == 0 || first.checked_add(count as u64 - 1).is_none() {
            return None;
        }
        Some(Self { first, count })
    }

    /// The page `i` places into the run; `None` outside it.
    pub const fn get(self, i: u32) -> Option<PageId> {
        if i < self.count { self.first.checked_add(i as u64) } else { None }
    }

    /// The number one past the last id of the run.
    pub const fn end(self) -> u64 {
        self.first.raw() + self.count as u64
    }

    /// The ids in order.
    pub fn iter(self) -> impl Iterator<Item = PageId> {
        (0..self.count).filter_map(move |i| self.get(i))
    }
}

/// The place of a page in a rack's CXL memory: a number within the one segment there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameNo(pub u32);

/// The id of a rack in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RackId(pub u16);

impl fmt::Display for RackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A global address: 64 bits, a page id above and an offset in the page below. How many bits the
/// offset has depends on the pool's [`PageSize`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GAddr(u64);

impl GAddr {
    /// Byte `offset` of `page`; `None` if the offset is not within a page or a pool of this page size
    /// has no such page.
    pub const fn new(page: PageId, offset: u64, size: PageSize) -> Option<Self> {
        if offset >= size.bytes() || page.raw() >= size.id_limit() {
            return None;
        }
        Some(Self(page.raw() << size.shift() | offset))
    }

    /// The address with this bit pattern, as from [`raw`](Self::raw); `None` if it names no page.
    pub const fn from_raw(raw: u64, size: PageSize) -> Option<Self> {
        match PageId::new(raw >> size.shift()) {
            Some(_) => Some(Self(raw)),
            None => None,
        }
    }

    /// The bit pattern.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The page; `None` if the address was made for another page size and names none in this one.
    pub const fn page(self, size: PageSize) -> Option<PageId> {
        PageId::new(self.0 >> size.shift())
    }

    /// The offset within the page, in bytes.
    pub const fn offset(self, size: PageSize) -> u64 {
        size.offset_of(self.0)
    }

    /// The address `bytes` further on (consecutive ids are consecutive addresses); `None` past the
    /// end of the address space.
    pub const fn checked_add(self, bytes: u64, size: PageSize) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(raw) => Self::from_raw(raw, size),
            None => None,
        }
    }
}

impl fmt::Debug for GAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_are_powers_of_two_from_4k_to_2m() {
        assert_eq!(PageSize::from_bytes(4096), Some(PageSize::MIN));
        assert_eq!(PageSize::from_bytes(2 << 20), Some(PageSize::MAX));
        for bad in [0, 1, 2048, 4097, 6144, 4 << 20, u64::MAX] {
            assert_eq!(PageSize::from_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_keeps_page_and_offset() {
        let size = PageSize::from_bytes(65536).unwrap();
        let page = PageId::new(0x1234).unwrap();
        let at = GAddr::new(page, 65535, size).unwrap();
        assert_eq!((at.page(size), at.offset(size)), (Some(page), 65535));
        let next = at.checked_add(1, size).unwrap();
        assert_eq!((next.page(size), next.offset(size)), (page.checked_add(1), 0));
        assert_eq!(GAddr::new(page, 65536, size), None);
    }

    #[test]
    fn arithmetic_past_the_end_is_none() {
        let last = PageId::new(PageId::LIMIT - 1).unwrap();
        assert_eq!(last.checked_add(1), None);
        assert_eq!(PageRun::new(last, 2), None);
        assert_eq!(PageId::new(0), None);
        assert_eq!(GAddr::new(last, 0, PageSize::MAX), None);
        let at = GAddr::new(last, PageSize::MIN.bytes() - 1, PageSize::MIN).unwrap();
        assert_eq!(at.raw(), u64::MAX);
        assert_eq!(at.checked_add(1, PageSize::MIN), None);
    }
}
