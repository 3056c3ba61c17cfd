//! Which page goes to another rack when there is no room for one that comes: CLOCK over the frames.
//!
//! A client sets the reference bit of a page that it touches, if it is not set; the hand clears it. A page whose
//! bit is still clear when the hand comes again is the victim. Sweeping costs only when a victim is wanted.

use super::FrameTable;
use pool::addr::{FrameNo, PageId};
use pool::cxl::frames::{Content, Frames, REFERENCED, State};
use pool::cxl::protocol::SharedWord;
use std::sync::atomic::Ordering;

/// The most frames that one search looks at; the next goes on from there.
const STEPS: u64 = 1 << 16;

impl FrameTable {
    /// A page that no client has touched since the hand last came by, and that is not `unfit`. `None` if there
    /// is none among the next frames.
    pub fn victim(&self, unfit: &dyn Fn(PageId) -> bool) -> Option<PageId> {
        let used = self.state.lock().frames_used;
        let frames = Frames::new(&self.region);
        for _ in 0..STEPS.min(2 * used) {
            let frame = FrameNo((self.hand.fetch_add(1, Ordering::Relaxed) % used) as u32);
            let Content::Page(page, State::Stable) = frames.content(frame) else { continue };
            let Some(hints) = frames.hints(frame) else { continue };
            let was = hints.load(Ordering::Relaxed);
            if was & REFERENCED != 0 {
                // A client that adds a sample at this moment uses the page, which may keep its bit.
                hints.swap_if(was, was & !REFERENCED);
            } else if !unfit(page) {
                return Some(page);
            }
        }
        None
    }
}
