//! What is known of pages of other racks: where they are, the references held to them, how hot they are,
//! and the requests that wait for one.
//!
//! Bounded: beyond [`CAPACITY`] pages those that have not been used of late are forgotten.

use super::access::Pending;
use parking_lot::{Mutex, MutexGuard};
use pool::addr::{PageId, RackId};
use pool::heat::Heat;
use pool::proto::peer::Reference;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The most pages that are remembered, as long as they are not all in use at once.
const CAPACITY: usize = 1 << 20;
const SHARDS: usize = 64;

/// How this daemon stands to a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Link {
    /// No reference, and nothing is being done about it.
    #[default]
    Idle,
    /// The master has been asked where the page is.
    Locating,
    /// Its home has been asked for a reference.
    Asking {
        /// The home has taken references to the page back since: what comes is not to be used.
        spoiled: bool,
    },
    /// It can be accessed.
    Held(Reference),
    /// It is being moved, or its home does not answer: tried again a little later.
    Pausing,
    /// The reference is being given back.
    Releasing,
}

/// What a search for the page's home has found out so far.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// The master has named the home: asked at this time.
    pub sure: Option<Instant>,
    /// This rack was named by the master, and does not have the page.
    pub missing: Option<RackId>,
    /// Attempts that came to nothing.
    pub rounds: u32,
    /// The last thing that went wrong.
    pub trouble: Option<String>,
}

/// Answers a request to give references up, once the last access by them is over.
pub(super) struct Revoked {
    left: AtomicUsize,
    answer: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Revoked {
    /// Calls `answer` when [`one_less`](Self::one_less) has been called `left` times.
    pub fn new(left: usize, answer: Box<dyn FnOnce() + Send>) -> Arc<Self> {
        Arc::new(Self { left: AtomicUsize::new(left), answer: Mutex::new(Some(answer)) })
    }

    /// One page less to wait for.
    pub fn one_less(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let answer = self.answer.lock().take();
            answer.into_iter().for_each(|answer| answer());
        }
    }
}

/// A page.
#[derive(Default)]
pub(super) struct Entry {
    /// Where it is, as far as known: a hint.
    pub home: Option<RackId>,
    pub link: Link,
    pub search: Search,
    /// Tells a pause from those before it.
    pub pause: u32,
    /// Accesses by reference that are under way.
    pub in_flight: u32,
    pub heat: Heat,
    /// When its home last refused to let it go.
    pub refused: Option<u64>,
    /// It is being moved here.
    pub swapping: bool,
    /// Requests that wait for a reference, the oldest first.
    pub queue: VecDeque<Pending>,
    /// An alarm is set for the deadline of a request in the queue.
    pub alarm: bool,
    /// To be told when no access is under way.
    pub revoked: Vec<Arc<Revoked>>,
    /// Used since the last sweep.
    pub used: bool,
}

impl Entry {
    fn is_at_rest(&self) -> bool {
        let resting = matches!(self.link, Link::Idle | Link::Held(_));
        resting && self.in_flight == 0 && self.queue.is_empty() && !self.swapping && self.revoked.is_empty()
    }
}

/// A reference that is to be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Surplus {
    pub page: PageId,
    pub home: RackId,
    pub key: u64,
}

pub(super) type Shard = HashMap<PageId, Entry>;

/// All of them. Lock: a shard; under it only leaves are taken: the state of the frames, of the swaps.
pub(super) struct Table {
    shards: Vec<Mutex<Shard>>,
    capacity: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_capacity(CAPACITY)
    }
}

impl Table {
    pub fn with_capacity(capacity: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, capacity: capacity.div_ceil(SHARDS) }
    }

    pub fn shard(&self, page: PageId) -> MutexGuard<'_, Shard> {
        let mixed = page.raw().wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        self.shards[mixed as usize % SHARDS].lock()
    }

    /// Every shard in turn.
    pub fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(|shard| shard.lock())
    }

    /// Makes room for one more page, if there is none; says which references are to be given back for it.
    pub fn make_room(&self, shard: &mut Shard) -> Vec<Surplus> {
        let mut surplus = Vec::new();
        for _ in 0..2 {
            if shard.len() < self.capacity {
                break;
            }
            shard.retain(|page, entry| {
                if !entry.is_at_rest() || std::mem::take(&mut entry.used) {
                    return true;
                }
                let (Link::Held(reference), Some(home)) = (entry.link, entry.home) else { return false };
                entry.link = Link::Releasing;
                surplus.push(Surplus { page: *page, home, key: reference.key });
                true
            });
            if !surplus.is_empty() {
                break;
            }
        }
        surplus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(raw: u64) -> PageId {
        PageId::new(raw).unwrap()
    }

    #[test]
    fn pages_that_were_not_used_are_forgotten_first_and_those_in_use_never() {
        let table = Table::with_capacity(4 * SHARDS);
        let reference = Reference { offset: 0, key: 5 };
        let home = Some(RackId(1));
        let mut shard = Shard::new();
        shard.insert(page(1), Entry { in_flight: 1, link: Link::Held(reference), home, ..Entry::default() });
        shard.insert(page(2), Entry { used: true, link: Link::Held(reference), home, ..Entry::default() });
        shard.insert(page(3), Entry { link: Link::Held(reference), home, ..Entry::default() });
        assert!(table.make_room(&mut shard).is_empty(), "there is room");
        shard.insert(page(4), Entry::default());
        let surplus = table.make_room(&mut shard);
        assert_eq!(surplus, [Surplus { page: page(3), home: RackId(1), key: 5 }]);
        assert!(!shard.contains_key(&page(4)));
        assert_eq!(shard[&page(3)].link, Link::Releasing);
        assert_eq!(shard[&page(1)].link, Link::Held(reference));
        assert_eq!(shard[&page(2)].link, Link::Held(reference));
    }

    #[test]
    fn what_was_used_is_forgotten_too_if_all_of_it_was() {
        let table = Table::with_capacity(2 * SHARDS);
        let mut shard = Shard::new();
        shard.insert(page(1), Entry { used: true, ..Entry::default() });
        shard.insert(page(2), Entry { used: true, ..Entry::default() });
        assert!(table.make_room(&mut shard).is_empty());
        assert!(shard.is_empty());
    }
}
