//! The frame descriptors: which page each frame holds, and whether it may be touched.
//!
//! A descriptor's first word is the only truth about its frame; the page index and what clients
//! remember are hints to find it. Only the daemon writes it. The second word holds hints about use:
//! clients set the reference bit, the daemon the rest.

use super::layout::{DESCRIPTOR_HINTS, DESCRIPTOR_WORD};
use super::protocol::SharedWord;
use super::region::{Region, Word};
use crate::addr::{FrameNo, PageId};
use crate::proto::page::PageKind;
use std::sync::atomic::Ordering;

const STATE_SHIFT: u32 = 8;
const ID_SHIFT: u32 = 12;
const CHECK_MASK: u64 = (1 << STATE_SHIFT) - 1;

/// Hint: a client has touched the page since the bit was last cleared.
pub const REFERENCED: u64 = 1;
/// Hint: the frame was all zero when it was given to its page.
pub const GIVEN_ZERO: u64 = 2;
/// Hints: whose the page is, two bits; see [`kind_in`].
const KIND_SHIFT: u32 = 2;
/// Hints: how often clients have touched the page, roughly: about one access in [`SAMPLE`] adds that
/// number. Bits 16 to 63: the counter is the top of the word, so what it carries out when it wraps
/// around is lost and changes no other hint.
pub const TOUCHES_SHIFT: u32 = 16;
/// Accesses that one sample stands for.
pub const SAMPLE: u64 = 32;

/// The hints of a page of this kind that nobody has touched.
#[inline]
pub const fn hints_of(kind: PageKind) -> u64 {
    let kind = match kind {
        PageKind::Plain => 0,
        PageKind::File => 1,
        PageKind::Objects => 2,
    };
    kind << KIND_SHIFT
}

/// Whose the page is whose hints these are.
#[inline]
pub const fn kind_in(hints: u64) -> PageKind {
    match hints >> KIND_SHIFT & 3 {
        1 => PageKind::File,
        2 => PageKind::Objects,
        _ => PageKind::Plain,
    }
}

/// What may be done with a page in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can be read and written.
    Stable,
    /// It is being taken away: no new access may begin. If that is not carried out it is stable again.
    Freeing,
    /// It is on its way to another rack: no new access may begin. Where it is, is for the master to say.
    Leaving,
    /// It is on its way here from another rack, and not yet in the index.
    Coming,
}

impl State {
    const fn code(self) -> u64 {
        match self {
            Self::Stable => 1,
            Self::Freeing => 2,
            Self::Leaving => 3,
            Self::Coming => 4,
        }
    }

    const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Stable),
            2 => Some(Self::Freeing),
            3 => Some(Self::Leaving),
            4 => Some(Self::Coming),
            _ => None,
        }
    }
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The frame holds no page.
    Free,
    /// The frame holds this page.
    Page(PageId, State),
    /// Nonsense: the check over the descriptor is wrong.
    Bad(u64),
}

/// The word of a frame that holds `page`.
#[inline]
pub const fn word_of(page: PageId, state: State, frame: FrameNo) -> u64 {
    let rest = page.raw() << ID_SHIFT | state.code() << STATE_SHIFT;
    rest | check(rest, frame)
}

/// A byte over all but the lowest byte of a descriptor's word, and the frame's number. A multiplier
/// without eight equal bits in a row carries each single flipped bit into the byte.
#[inline]
const fn check(rest: u64, frame: FrameNo) -> u64 {
    let mixed = (rest >> STATE_SHIFT) ^ ((frame.0 as u64) << 32);
    mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56
}

/// What `word` says about `frame`.
pub const fn content_of(word: u64, frame: FrameNo) -> Content {
    if word == 0 {
        return Content::Free;
    }
    let Some(state) = State::from_code(word >> STATE_SHIFT & 15) else { return Content::Bad(word) };
    match PageId::new(word >> ID_SHIFT) {
        Some(page) if check(word & !CHECK_MASK, frame) == word & CHECK_MASK => Content::Page(page, state),
        _ => Content::Bad(word),
    }
}

/// The page id that `word` claims; meaningful only if its check holds.
#[inline]
pub const fn id_in(word: u64) -> u64 {
    word >> ID_SHIFT
}

/// The descriptors of a region.
#[derive(Clone, Copy)]
pub struct Frames<'r>(&'r Region);

impl<'r> Frames<'r> {
    /// The descriptors of `region`.
    pub fn new(region: &'r Region) -> Self {
        Self(region)
    }

    /// The word of truth about `frame`; `None` if there is no such frame.
    #[inline(always)]
    pub fn word(self, frame: FrameNo) -> Option<Word<'r>> {
        Some(self.0.word(self.0.geometry().descriptor_at(frame)? + DESCRIPTOR_WORD))
    }

    /// The hints about `frame`; `None` if there is no such frame.
    #[inline(always)]
    pub fn hints(self, frame: FrameNo) -> Option<Word<'r>> {
        Some(self.0.word(self.0.geometry().descriptor_at(frame)? + DESCRIPTOR_HINTS))
    }

    /// What the descriptor of `frame` says now.
    pub fn content(self, frame: FrameNo) -> Content {
        self.word(frame).map_or(Content::Free, |word| content_of(word.load(Ordering::Acquire), frame))
    }

    /// Notes that `frame` is in use, by a store only if that is not noted yet.
    #[inline(always)]
    pub fn touch(self, frame: FrameNo) {
        if let Some(hints) = self.hints(frame)
            && hints.load(Ordering::Relaxed) & REFERENCED == 0
        {
            hints.fetch_or(REFERENCED);
        }
    }

    /// Adds a sample to the touches of the page in `frame`, which the caller has published.
    #[cold]
    pub fn add_sample(self, frame: FrameNo) {
        if let Some(hints) = self.hints(frame) {
            hints.fetch_add(SAMPLE << TOUCHES_SHIFT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_what_was_put_in() {
        for raw in [1, 2, 77, (1 << 52) - 1] {
            let page = PageId::new(raw).unwrap();
            for frame in [0, 1, 5000, u32::MAX - 2].map(FrameNo) {
                for state in [State::Stable, State::Freeing, State::Leaving, State::Coming] {
                    let word = word_of(page, state, frame);
                    assert_eq!(content_of(word, frame), Content::Page(page, state));
                    assert_eq!(id_in(word), raw);
                }
            }
        }
        assert_eq!(content_of(0, FrameNo(3)), Content::Free);
    }

    #[test]
    fn every_single_flipped_bit_is_noticed() {
        for raw in [1, 0x1234, 0xF_FFFF_FFFF_FFFF, 0x5_5555_5555_5555] {
            for frame in [0, 1, 4711, u32::MAX - 2].map(FrameNo) {
                let word = word_of(PageId::new(raw).unwrap(), State::Stable, frame);
                for bit in 0..64 {
                    let flipped = word ^ 1 << bit;
                    assert_eq!(content_of(flipped, frame), Content::Bad(flipped), "bit {bit} of {word:x}");
                }
            }
        }
    }

    #[test]
    fn a_descriptor_of_another_frame_is_noticed() {
        let word = word_of(PageId::new(99).unwrap(), State::Stable, FrameNo(1000));
        for bit in 0..32 {
            let other = FrameNo(1000 ^ 1 << bit);
            assert_eq!(content_of(word, other), Content::Bad(word), "bit {bit}");
        }
    }
}
