//! How an access to a frame and the taking away of that frame exclude each other.
//!
//! A client publishes the frames it is about to touch, then looks at their descriptors, and touches
//! them only if they still say what it expects; then it takes the publication back. A daemon that
//! takes a frame away first changes the descriptor, then waits until nobody has the frame published,
//! and only then gives the frame to another page:
//!
//! ```text
//! client                                 daemon
//! publish:  slot = frames                mark:     descriptor = freeing
//!           full fence                             full fence
//! check:    descriptor == expected?      wait:     until slot does not name the frame  (acquire)
//!           copy                         release:  descriptor = other page             (release)
//! retract:  slot = 0        (release)
//! ```
//!
//! With a full fence on both sides at least one of them sees the other: either the check fails, or
//! the daemon waits. `retract` and `wait` pair up, so that the copy has happened before the frame is
//! used again; `release` and `check` pair up, so that who sees a page's descriptor sees what was
//! written to the frame before the page was given out.
//!
//! A page id is never used twice, so a descriptor that is equal to the expected one has not been
//! something else in between.
//!
//! The functions are generic over [`SharedWord`], so that the very code that runs on shared memory is
//! also run under a model checker (`tests/access_model.rs`).

use std::sync::atomic::Ordering;

/// A 64-bit word that clients and daemon share.
pub trait SharedWord {
    /// Atomic load.
    fn load(&self, order: Ordering) -> u64;
    /// Atomic store.
    fn store(&self, value: u64, order: Ordering);
    /// Stores `new` if the word is `old`, and says whether it was.
    fn swap_if(&self, old: u64, new: u64) -> bool;
    /// Stores `value`; no later load of this thread is done before the store is seen by all who fence.
    fn store_first(&self, value: u64);
    /// A full fence: no load after it is done before a store in front of it is seen by all.
    fn fence();
}

/// What a slot says while its owner touches `count` frames from `first` on.
#[inline]
pub const fn range(first: u32, count: u32) -> u64 {
    (first as u64) << 32 | count as u64
}

/// The first frame that a slot's word names, and how many; 0 if it names none.
#[inline]
pub const fn named(word: u64) -> (u64, u64) {
    (word >> 32, word & u32::MAX as u64)
}

/// The client's half of an access, up to the check: says in `slot` which frames follow.
#[inline]
pub fn publish<W: SharedWord>(slot: &W, range: u64) {
    slot.store_first(range);
}

/// Whether a descriptor says `expected`; only after [`publish`] is that a promise for the time until
/// [`retract`].
#[inline]
pub fn check<W: SharedWord>(descriptor: &W, expected: u64) -> bool {
    #[cfg(rchfs_breakable)]
    if crate::breakage::is("check") {
        return true;
    }
    // Sequentially consistent, since that is what `store_first` orders; a plain load on x86-64.
    descriptor.load(Ordering::SeqCst) == expected
}

/// The end of an access.
#[inline]
pub fn retract<W: SharedWord>(slot: &W) {
    slot.store(0, Ordering::Release);
}

/// The end of an access that has written: when this returns all threads see what was written, so that the
/// write has happened before whatever its caller, or who hears from it, does next.
#[inline]
pub fn retract_written<W: SharedWord>(slot: &W) {
    slot.store_first(0);
}

/// The daemon's first step: the descriptor goes from `stable` to `marked`. False if it was not `stable`.
/// Any number of frames can be marked before one [`settle`].
#[inline]
pub fn mark<W: SharedWord>(descriptor: &W, stable: u64, marked: u64) -> bool {
    descriptor.swap_if(stable, marked)
}

/// Between the marking and the first look at a slot.
#[inline]
pub fn settle<W: SharedWord>() {
    W::fence();
}

/// What a slot names now; once that does not overlap a marked frame, its owner will not touch the frame.
#[inline]
pub fn observe<W: SharedWord>(slot: &W) -> u64 {
    #[cfg(rchfs_breakable)]
    if crate::breakage::is("slots") {
        return 0;
    }
    slot.load(Ordering::Acquire)
}

/// The daemon's last step: the descriptor of a frame that nobody touches says something else.
#[inline]
pub fn release<W: SharedWord>(descriptor: &W, word: u64) {
    descriptor.store(word, Ordering::Release);
}
