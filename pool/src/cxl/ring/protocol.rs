//! The order of loads, stores and fences by which a client and the daemon's poller pass an entry to and
//! fro, and by which neither sleeps on while the other waits for it.
//!
//! **An entry** has one state word: a kind, a ticket that is new for each use of the entry, and the
//! generation of the channel. Who may write what is in the entry follows from the kind:
//!
//! ```text
//! FREE --submit--> SUBMITTED --doze--> ASLEEP --withdraw--> WITHDRAWN
//!                      |                 |                      |
//!                    finish            finish                 finish
//!                      v                 v                      v
//!                    DONE              DONE                   DONE --submit--> SUBMITTED, next ticket
//! ```
//!
//! The client writes message and state up to SUBMITTED and reads the answer after DONE; in between the
//! daemon does, and it alone makes an entry DONE. So an entry is not used again before the daemon has let
//! go of it, also if the client gave up waiting: WITHDRAWN asks the daemon not to begin, if it has not
//! begun. The daemon takes a ticket once, however often it looks.
//!
//! **Finding what was submitted.** A poller that is awake watches one entry of a busy channel, by its
//! state word, and says so in the channel's record: submitting there touches no other shared line, and a
//! round trip is one line there and back. All other submissions set a bit of the channel's bitmap, then
//! the channel's doorbell. Bits only say where to look; the states say what there is.
//!
//! ```text
//! client                                poller
//! submit: state = SUBMITTED             unwatch: watched = none
//!         full fence                             full fence
//!         watched == entry?                      state == SUBMITTED?
//!         no: bit, doorbell
//!         full fence                    lie down: word = asleep
//!         word == asleep?                         full fence
//!         yes: change word, wake                  any doorbell?  no: sleep while word is unchanged
//! ```
//!
//! With full fences on both sides at least one sees the other, both times. A poller that takes doorbells
//! takes the doorbell first and the bitmap after it, the client sets them the other way round; so a
//! bit whose doorbell was taken too early has its doorbell rung again.
//!
//! **Waiting for the answer.** The client makes the state ASLEEP and sleeps at it while it is that; the
//! daemon replaces the state and sees by what was there whether to wake somebody. There is one word, so
//! nothing to be ordered.
//!
//! A client that is killed anywhere here leaves nothing in others' way: the poller alone clears its mark
//! of being asleep, so the next client wakes it if one died just before doing so.
//!
//! As in [`cxl::protocol`](crate::cxl::protocol) the functions are generic, so that the very code also runs
//! under a model checker (`tests/ring_model.rs`).

use crate::cxl::protocol::SharedWord;
use std::sync::atomic::Ordering;

/// A shared word with the operations that rings need besides; each a full barrier.
pub trait RingWord: SharedWord {
    /// Stores `value`; returns what was there.
    fn swap(&self, value: u64) -> u64;
    /// Sets the bits of `mask`.
    fn set(&self, mask: u64);
    /// Clears the bits of `mask`.
    fn clear(&self, mask: u64);
    /// Adds `n`, wrapping.
    fn add(&self, n: u64);
}

/// What may be done with an entry, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never used since the channel was claimed: the client's.
    Free,
    /// Holds a request: the daemon's.
    Submitted,
    /// As [`Submitted`](Self::Submitted); who waits sleeps.
    Asleep,
    /// Holds a request that nobody waits for any more: the daemon's.
    Withdrawn,
    /// Holds an answer: the client's.
    Done,
}

/// In the poller's word: it sleeps, or is about to. Above it: how often it was woken.
const ASLEEP: u64 = 1;
const RUNG: u64 = 2;

const KIND_BITS: u32 = 3;
const TICKET_BITS: u32 = 29;

/// One use of an entry: the generation of the channel, and a ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use(u64);

impl Use {
    /// The first use of an entry in a generation; nothing is submitted with it.
    pub const fn first(generation: u32) -> Self {
        Self((generation as u64) << TICKET_BITS)
    }

    /// The use after this one. Tickets come round after 2^29 uses; only neighbours must differ.
    pub const fn next(self) -> Self {
        let ticket = (self.0 + 1) & ((1 << TICKET_BITS) - 1);
        Self(self.0 >> TICKET_BITS << TICKET_BITS | ticket)
    }

    /// The state word of this use.
    pub const fn state(self, kind: Kind) -> u64 {
        self.0 << KIND_BITS | kind as u64
    }

    /// The use that a state word is about.
    pub const fn of(state: u64) -> Self {
        Self(state >> KIND_BITS)
    }
}

/// The kind that a state word says; `None` for one that nobody writes.
pub const fn kind(state: u64) -> Option<Kind> {
    match state & ((1 << KIND_BITS) - 1) {
        0 => Some(Kind::Free),
        1 => Some(Kind::Submitted),
        2 => Some(Kind::Asleep),
        3 => Some(Kind::Withdrawn),
        4 => Some(Kind::Done),
        _ => None,
    }
}

// --- The client's side.

/// Hands an entry to the daemon. What was written to it before is seen by who sees this.
#[inline]
pub fn submit<W: RingWord>(state: &W, this: Use) {
    state.swap(this.state(Kind::Submitted));
}

/// Whether the poller is sure to see the submission of `entry` without a doorbell; after [`submit`].
#[inline]
pub fn is_watched<W: RingWord>(watched: &W, entry: u32) -> bool {
    watched.load(Ordering::SeqCst) == entry as u64 + 1
}

/// Says where submissions are: entries `mask` of the channel whose doorbell is `bell`. After
/// [`submit`] of all of them.
#[inline]
pub fn ring<W: RingWord>(submitted: &W, mask: u64, bell: &W, channel_bit: u64) {
    submitted.set(mask);
    bell.set(channel_bit);
}

/// Whether the poller must be woken; after [`ring`].
#[inline]
pub fn rouse<W: RingWord>(poller: &W) -> bool {
    let asleep = poller.load(Ordering::SeqCst) & ASLEEP != 0;
    if asleep {
        // So that one who was about to sleep does not.
        poller.add(RUNG);
    }
    asleep
}

/// Whether the answer is there; if so it can be read.
#[inline]
pub fn is_done<W: RingWord>(state: &W, this: Use) -> bool {
    state.load(Ordering::Acquire) == this.state(Kind::Done)
}

/// Says that the client is going to sleep at the state word, while it is the state of
/// [`Kind::Asleep`]. False if the answer has come.
#[inline]
pub fn doze<W: RingWord>(state: &W, this: Use) -> bool {
    state.swap_if(this.state(Kind::Submitted), this.state(Kind::Asleep))
}

/// Gives up waiting, after [`doze`]. False if the answer has come. Else the entry stays the daemon's
/// until it is DONE.
#[inline]
pub fn withdraw<W: RingWord>(state: &W, this: Use) -> bool {
    state.swap_if(this.state(Kind::Asleep), this.state(Kind::Withdrawn))
}

// --- The daemon's side.

/// Takes a word of doorbells, or a channel's bitmap after its doorbell.
#[inline]
pub fn take_bits<W: RingWord>(word: &W) -> u64 {
    if word.load(Ordering::Acquire) == 0 { 0 } else { word.swap(0) }
}

/// What there is in an entry: its use, if that is not `last`, and its kind, if the daemon has something to
/// do with it.
#[inline]
pub fn look<W: RingWord>(state: &W, last: Use) -> Option<(Use, Kind)> {
    let word = state.load(Ordering::Acquire);
    match kind(word)? {
        _ if Use::of(word) == last => None,
        Kind::Free | Kind::Done => None,
        kind => Some((Use::of(word), kind)),
    }
}

/// Whether the entry still holds this use's request, so that it may be answered.
#[inline]
pub fn is_held<W: RingWord>(state: &W, this: Use) -> bool {
    let word = state.load(Ordering::Acquire);
    Use::of(word) == this && matches!(kind(word), Some(Kind::Submitted | Kind::Asleep | Kind::Withdrawn))
}

/// Hands an entry back. Whether its client must be woken.
#[inline]
pub fn finish<W: RingWord>(state: &W, this: Use) -> bool {
    state.swap(this.state(Kind::Done)) == this.state(Kind::Asleep)
}

/// Says that this entry is watched from now on.
#[inline]
pub fn watch<W: RingWord>(watched: &W, entry: u32) {
    watched.store(entry as u64 + 1, Ordering::Release);
}

/// Says that no entry of the channel is watched. The one that was must be looked at once more.
#[inline]
pub fn unwatch<W: RingWord>(watched: &W) {
    watched.store(0, Ordering::Release);
    W::fence();
}

/// Says that the poller is going to sleep at `poller`, while it is what this returns. All doorbells
/// must be looked at in between. Then, or after the sleep, [`get_up`].
#[inline]
pub fn lie_down<W: RingWord>(poller: &W) -> u64 {
    poller.set(ASLEEP);
    let word = poller.load(Ordering::Relaxed);
    W::fence();
    word
}

/// Says that the poller is awake.
#[inline]
pub fn get_up<W: RingWord>(poller: &W) {
    poller.clear(ASLEEP);
}
