//! The beginning of a page of objects: which of its objects are used. It is in the page, and goes where
//! the page goes.
//!
//! | at | word |
//! | --- | --- |
//! | 0 | mark: the page is of use, or retired |
//! | 8 | the page's id |
//! | 16 | class: size of the objects, and above that their number |
//! | 24 | check over id and class |
//! | 32.. | map: a bit for each of 56 objects, 1 if it is used, above a check byte |
//!
//! How many are used is not written down but counted, since every change of the map must be a single
//! store: who is killed between two stores leaves a header that is right. A page is retired while its
//! header is made, and when all its objects are gone; one that is retired for the second reason is never of
//! use again, wherever it goes, so whoever finds it may free it.
//!
//! The caller keeps the page where it is meanwhile, and is the only one who writes the header.

use super::class::{Class, MAP_AT, PER_WORD};
use pool::addr::PageId;
use pool::cxl::protocol::SharedWord;
use pool::cxl::region::{Region, Word};
use std::sync::atomic::Ordering;

/// `rchfsobj`, little endian.
const IN_USE: u64 = u64::from_le_bytes(*b"rchfsobj");
/// `retired.`.
const RETIRED: u64 = u64::from_le_bytes(*b"retired.");
const MARK_AT: u64 = 0;
const PAGE_AT: u64 = 8;
const CLASS_AT: u64 = 16;
const CHECK_AT: u64 = 24;

/// 64 bits of the golden ratio. Without eight equal bits in a row it carries every single flipped bit into
/// the highest byte of a product.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The header is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// Why an object cannot be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No object begins there, or it is not used.
    NoSuchObject,
    /// See [`Damaged`].
    Damaged,
}

impl From<Damaged> for Fault {
    fn from(_: Damaged) -> Self {
        Self::Damaged
    }
}

/// What a page begins with.
pub(super) enum Found<'r> {
    /// The header of a page of objects.
    Header(Header<'r>),
    /// It was one.
    Retired,
    /// Nothing of the kind.
    Nothing,
    /// The header of this page, but it is wrong.
    Damaged,
}

/// What a whole map says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// Some object is free.
    pub room: bool,
    /// All are.
    pub empty: bool,
}

/// The header of a page, which is in a frame of the region.
pub(super) struct Header<'r> {
    region: &'r Region,
    /// Where the page begins.
    at: u64,
    page: PageId,
    class: Class,
}

impl<'r> Header<'r> {
    /// Looks at the header of `page`, whose frame begins at `at`.
    pub fn find(region: &'r Region, at: u64, page: PageId) -> Found<'r> {
        let word = |offset| region.word(at + offset).load(Ordering::Acquire);
        let mark = word(MARK_AT);
        if word(PAGE_AT) != page.raw() || !matches!(mark, IN_USE | RETIRED) {
            return Found::Nothing;
        }
        if mark == RETIRED {
            return Found::Retired;
        }
        let code = word(CLASS_AT);
        match Class::from_code(code, region.geometry().page_size) {
            Some(class) if word(CHECK_AT) == check(page, code) => {
                Found::Header(Self { region, at, page, class })
            }
            _ => Found::Damaged,
        }
    }

    /// Makes the header of a page that has no objects.
    pub fn make(region: &'r Region, at: u64, page: PageId, class: Class) -> Self {
        let header = Self { region, at, page, class };
        let store = |offset, value| region.word(at + offset).store(value, Ordering::Release);
        header.retire();
        store(PAGE_AT, page.raw());
        store(CLASS_AT, class.code());
        store(CHECK_AT, check(page, class.code()));
        for index in 0..class.words() {
            header.store(index, 0);
        }
        store(MARK_AT, IN_USE);
        header
    }

    /// The page, which is empty, is of no use from now on.
    pub fn retire(&self) {
        self.region.word(self.at + MARK_AT).store(RETIRED, Ordering::Release);
    }

    /// What the page is cut into.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Takes a free object and zeroes it; where it is in the page. Words of the map below `from` have no
    /// room, as is known; afterwards it says so of more.
    pub fn take(&self, from: &mut u64) -> Result<Option<u64>, Damaged> {
        while *from < self.class.words() {
            let used = self.load(*from)?;
            let free = self.class.mask(*from) & !used;
            if free != 0 {
                let bit = free.trailing_zeros() as u64;
                let offset = self.class.offset(*from * PER_WORD + bit);
                self.region.zero(self.at + offset, self.class.size());
                self.store(*from, used | 1 << bit);
                return Ok(Some(offset));
            }
            *from += 1;
        }
        Ok(None)
    }

    /// Gives the object at `offset` back. Returns the word of the map that has room now.
    pub fn give(&self, offset: u64) -> Result<u64, Fault> {
        let number = self.class.number(offset).ok_or(Fault::NoSuchObject)?;
        let (index, bit) = (number / PER_WORD, number % PER_WORD);
        let used = self.load(index)?;
        if used & 1 << bit == 0 {
            return Err(Fault::NoSuchObject);
        }
        self.store(index, used & !(1 << bit));
        Ok(index)
    }

    /// Whether no object is used, of which some are in word `index`, if any is. A page with a damaged map
    /// is not empty.
    pub fn is_empty(&self, index: u64) -> bool {
        self.load(index) == Ok(0) && (0..self.class.words()).all(|index| self.load(index) == Ok(0))
    }

    /// Looks at the whole map.
    pub fn survey(&self) -> Result<Survey, Damaged> {
        let mut survey = Survey { room: false, empty: true };
        for index in 0..self.class.words() {
            let used = self.load(index)?;
            survey.room |= used != self.class.mask(index);
            survey.empty &= used == 0;
        }
        Ok(survey)
    }

    fn word(&self, index: u64) -> Word<'r> {
        self.region.word(self.at + MAP_AT + index * 8)
    }

    /// The bits of word `index` of the map.
    fn load(&self, index: u64) -> Result<u64, Damaged> {
        let word = self.word(index).load(Ordering::Acquire);
        let used = word >> 8;
        let right = sealed(self.page, index, used) == word && used & !self.class.mask(index) == 0;
        if right { Ok(used) } else { Err(Damaged) }
    }

    fn store(&self, index: u64, used: u64) {
        self.word(index).store(sealed(self.page, index, used), Ordering::Release);
    }
}

/// A word of the map: the bits and the check over them, the page, and which word it is.
fn sealed(page: PageId, index: u64, used: u64) -> u64 {
    let place = page.raw().rotate_left(20).wrapping_add(index).wrapping_mul(GOLDEN);
    used << 8 | (used ^ place ^ place >> 32).wrapping_mul(GOLDEN) >> 56
}

fn check(page: PageId, code: u64) -> u64 {
    let mixed = (page.raw() ^ code.rotate_left(32)).wrapping_mul(GOLDEN);
    (mixed ^ mixed >> 29).wrapping_mul(GOLDEN) ^ code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_single_flipped_bit_of_the_map_is_noticed() {
        for raw in [1, 77, 0xF_FFFF_FFFF_FFFF, 0x5_5555_5555_5555] {
            let page = PageId::new(raw).unwrap();
            for index in [0, 1, 4680] {
                for used in [0, 1, 0x5555, (1 << 56) - 1] {
                    let word = sealed(page, index, used);
                    assert_eq!(word >> 8, used);
                    for bit in 0..64 {
                        let flipped = word ^ 1 << bit;
                        assert_ne!(sealed(page, index, flipped >> 8), flipped, "bit {bit} of {word:x}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_single_flipped_bit_of_the_class_is_noticed() {
        let (page, code) = (PageId::FIRST, 7 << 32 | 512);
        for bit in 0..64 {
            assert_ne!(check(page, code ^ 1 << bit), check(page, code));
        }
    }
}
