//! How a page is cut into objects: which sizes there are, and where in a page they lie. Arithmetic only;
//! what is computed here is what a page of objects keeps for as long as it lives, so a change is a change
//! of the format.
//!
//! Sizes are the multiples of 8 up to 64, then multiples of 64, of which there are four for every doubling
//! (as far as there are so many). An object is therefore less than a quarter, or 63 bytes, larger than what
//! was asked for, and one of 64 bytes or more begins at a multiple of 64.

use pool::addr::PageSize;

/// Where the map of used objects begins.
pub(super) const MAP_AT: u64 = 32;
/// Objects that one word of the map tells of.
pub(super) const PER_WORD: u64 = 56;
/// Objects are at most this part of a page.
const SMALL_PART: u64 = 4;
/// What objects are aligned to from this size on.
const LINE: u64 = 64;

/// Objects of one size in pages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    size: u64,
    count: u64,
    first_at: u64,
}

impl Class {
    /// The objects in which `size` bytes are kept; `None` for no bytes and for more than fit.
    pub fn of(size: u64, page: PageSize) -> Option<Self> {
        if size == 0 || size > page.bytes() / SMALL_PART {
            return None;
        }
        let size = rounded(size);
        let mut count = (page.bytes() - MAP_AT) * PER_WORD / (size * PER_WORD + 8);
        while first_at(count) + count * size > page.bytes() {
            count -= 1;
        }
        Some(Self { size, count, first_at: first_at(count) })
    }

    /// The class that [`code`](Self::code) came from.
    pub fn from_code(code: u64, page: PageSize) -> Option<Self> {
        Self::of(code & u32::MAX as u64, page).filter(|class| class.code() == code)
    }

    /// A number for it: the size, and above that how many there are.
    pub fn code(self) -> u64 {
        self.count << 32 | self.size
    }

    /// Bytes of an object.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Objects in a page.
    #[cfg(test)]
    pub fn count(self) -> u64 {
        self.count
    }

    /// Words of the map.
    pub fn words(self) -> u64 {
        self.count.div_ceil(PER_WORD)
    }

    /// The bits of word `index` that stand for an object.
    pub fn mask(self, index: u64) -> u64 {
        let bits = self.count.saturating_sub(index * PER_WORD).min(PER_WORD);
        (1 << bits) - 1
    }

    /// Where object `number` lies in the page.
    pub fn offset(self, number: u64) -> u64 {
        self.first_at + number * self.size
    }

    /// Which object begins at `offset`.
    pub fn number(self, offset: u64) -> Option<u64> {
        let into = offset.checked_sub(self.first_at)?;
        let number = into / self.size;
        (into.is_multiple_of(self.size) && number < self.count).then_some(number)
    }
}

fn rounded(size: u64) -> u64 {
    if size <= LINE { size.next_multiple_of(8) } else { size.next_multiple_of(step(size)) }
}

fn step(size: u64) -> u64 {
    (size.next_power_of_two() / 8).max(LINE)
}

fn first_at(count: u64) -> u64 {
    (MAP_AT + count.div_ceil(PER_WORD) * 8).next_multiple_of(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_sizes() -> impl Iterator<Item = PageSize> {
        (12..=21).filter_map(PageSize::from_shift)
    }

    fn sizes(page: PageSize) -> impl Iterator<Item = u64> {
        (1..=page.bytes() / SMALL_PART).step_by(if page == PageSize::MIN { 1 } else { 7 })
    }

    #[test]
    fn objects_hold_what_was_asked_for_and_little_more() {
        for page in page_sizes() {
            for size in sizes(page) {
                let class = Class::of(size, page).unwrap();
                assert!(class.size() >= size && class.size() < size + (size / 4).max(64), "{size}");
                assert_eq!(Class::of(class.size(), page), Some(class), "{size}");
            }
        }
    }

    #[test]
    fn there_are_few_sizes() {
        let mut sizes: Vec<u64> =
            sizes(PageSize::MAX).filter_map(|size| Class::of(size, PageSize::MAX)).map(Class::size).collect();
        sizes.dedup();
        assert!(sizes.len() < 64, "{sizes:?}");
        assert_eq!(sizes[..14], [8, 16, 24, 32, 40, 48, 56, 64, 128, 192, 256, 320, 384, 448]);
    }

    #[test]
    fn objects_fill_the_page_behind_the_map_aligned() {
        for page in page_sizes() {
            for class in sizes(page).filter_map(|size| Class::of(size, page)) {
                assert!(class.offset(0) >= MAP_AT + class.words() * 8);
                assert!(class.offset(class.count()) <= page.bytes());
                assert!(class.offset(class.count() + 1) + 64 > page.bytes(), "{class:?} wastes room");
                let align = if class.size() < LINE { 8 } else { LINE };
                assert!(class.offset(0).is_multiple_of(align) && class.size().is_multiple_of(align));
            }
        }
    }

    #[test]
    fn only_the_beginnings_of_objects_are_objects() {
        let page = PageSize::MIN;
        for class in sizes(page).filter_map(|size| Class::of(size, page)) {
            let begins: Vec<u64> = (0..page.bytes()).filter(|at| class.number(*at).is_some()).collect();
            let expected: Vec<u64> = (0..class.count()).map(|number| class.offset(number)).collect();
            assert_eq!(begins, expected);
        }
    }

    #[test]
    fn a_code_says_which_class_and_nothing_else_is_one() {
        let page = PageSize::MIN;
        for class in sizes(page).filter_map(|size| Class::of(size, page)) {
            assert_eq!(Class::from_code(class.code(), page), Some(class));
            for bit in 0..64 {
                assert_eq!(Class::from_code(class.code() ^ 1 << bit, page), None, "{class:?}, bit {bit}");
            }
        }
    }

    #[test]
    fn masks_have_a_bit_for_every_object() {
        for page in page_sizes() {
            for class in sizes(page).filter_map(|size| Class::of(size, page)) {
                let bits: u32 = (0..class.words()).map(|index| class.mask(index).count_ones()).sum();
                assert_eq!(bits as u64, class.count());
                assert_eq!(class.mask(class.words()), 0);
            }
        }
    }
}
