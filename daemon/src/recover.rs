//! Finding out from a region's descriptors what a daemon must know: which frames are free, which pages
//! there are.
//!
//! The page index is made anew, whatever was in it. Clients that live on while a daemon starts wait for
//! that only if they look for a page that is not entered yet.
//!
//! Reads only as many descriptors as have ever been used. Descriptors that make no sense are reported,
//! and their frames never given out; a page that was lost that way is missed by its owner
//! (`PageRequest::Reconcile`), never replaced by another.

use crate::extents::{FreeFrames, Intervals};
use crate::frames::{FrameState, Ids};
use pool::addr::{FrameNo, PageId};
use pool::cxl::frames::{Content, Frames, State, word_of};
use pool::cxl::index::Index;
use pool::cxl::layout::{AT_FRAMES_USED, AT_NEXT_ID};
use pool::cxl::protocol::{SharedWord, release};
use pool::cxl::region::{Found, Kind, Region};
use pool::cxl::slots::Slots;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;

/// A frame whose descriptor makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// Which.
    pub frame: FrameNo,
    /// What its descriptor says.
    pub word: u64,
    /// Why that is not right.
    pub why: BadWhy,
}

/// Why a descriptor is not right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadWhy {
    /// The check over it does not hold.
    Check,
    /// It names a page that was never given out.
    NeverGivenOut,
    /// Another frame holds that page too.
    Twice,
}

/// What the daemon found when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing; the region was made.
    Created,
    /// A region.
    Reopened {
        /// Whether the last daemon ended in order.
        clean: bool,
        /// Pages there are.
        pages: u64,
        /// Frames that are not used, because what is known about them is damaged.
        bad: Vec<BadFrame>,
    },
}

/// Whose pages a region can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Only those that were given out here: the pool is this one rack.
    Here,
    /// Those of any rack of a cluster, whose master gives out the ids.
    Cluster,
}

/// Takes over `region`.
pub(crate) fn recover(region: &Region, found: Found, origin: Origin) -> (FrameState, Opened) {
    let total = region.geometry().frames as u64;
    let clean = region.is_clean();
    region.set_clean(false);
    Slots::new(region).release_dead();
    let frames_used = region.word(AT_FRAMES_USED).load(Ordering::Acquire).min(total);
    let next_id = region.word(AT_NEXT_ID).load(Ordering::Acquire).max(PageId::FIRST.raw());
    let mut free = FreeFrames::default();
    let id_limit = match origin {
        Origin::Here => next_id,
        Origin::Cluster => PageId::LIMIT,
    };
    let index = Index::new(region);
    index.unsettle();
    if found == Found::Region {
        region.clear_index();
    }
    let (pages, bad) = scan(region, frames_used, id_limit, &mut free);
    index.settle();
    free.insert(frames_used..total);
    let mut zero = Intervals::default();
    // A file on a disk that lost power may hold anything in frames that it does not know to be used.
    if region.kind().returns_memory() || (found == Found::Nothing && region.kind() == Kind::DiskFile) {
        zero.insert(frames_used..total);
    }
    let state = FrameState {
        free,
        zero,
        trimming: 0,
        quarantined: bad.len() as u64,
        reserve: 0,
        ids: match origin {
            Origin::Here => Ids::Own { next: next_id, limit: next_id },
            Origin::Cluster => Ids::Given(VecDeque::new()),
        },
        coming: HashSet::new(),
        unsettled: Intervals::default(),
        frames_used,
        freed: found == Found::Region,
        closed: false,
    };
    let opened = match found {
        Found::Nothing => Opened::Created,
        Found::Region => Opened::Reopened { clean, pages, bad },
    };
    (state, opened)
}

/// Looks at the first `used` descriptors. Returns how many pages there are, and what is damaged.
fn scan(region: &Region, used: u64, id_limit: u64, free: &mut FreeFrames) -> (u64, Vec<BadFrame>) {
    let (mut pages, mut bad) = (0, Vec::new());
    let mut free_from = 0;
    for frame in 0..used {
        let word = Frames::new(region).word(FrameNo(frame as u32)).map_or(0, |w| w.load(Ordering::Acquire));
        if word == 0 {
            continue;
        }
        free.insert(free_from..frame);
        free_from = frame + 1;
        match adopt(region, FrameNo(frame as u32), id_limit) {
            Ok(()) => pages += 1,
            Err(why) => bad.push(BadFrame { frame: FrameNo(frame as u32), word, why }),
        }
    }
    free.insert(free_from..used);
    (pages, bad)
}

/// Makes sure that the page in `frame` can be found.
fn adopt(region: &Region, frame: FrameNo, id_limit: u64) -> Result<(), BadWhy> {
    let descriptors = Frames::new(region);
    let Content::Page(page, state) = descriptors.content(frame) else { return Err(BadWhy::Check) };
    if page.raw() >= id_limit {
        return Err(BadWhy::NeverGivenOut);
    }
    if state == State::Coming {
        return Ok(());
    }
    if Index::new(region).contains(page) {
        return Err(BadWhy::Twice);
    }
    Index::new(region).insert(page, frame);
    // A crash came between the marking and the freeing of the page: it was not freed.
    if state == State::Freeing
        && let Some(word) = descriptors.word(frame)
    {
        release(&word, word_of(page, State::Stable, frame));
    }
    Ok(())
}
