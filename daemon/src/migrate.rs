//! Swaps: moving a page of another rack here, and, where there is no room, a page of ours there.
//!
//! | requester | home | |
//! | --- | --- | --- |
//! | freeze the victim, revoke references to it | | the victim is `Leaving` |
//! | `Prepare` | freeze the page, revoke references to it, receive the victim | `Leaving`, `Coming` |
//! | receive the page | | `Coming` |
//! | `Commit` at the master | | **from here on the pages are where they go** |
//! | the page is stable, the victim is gone | | |
//! | `Finish` | the page is gone, the victim is stable | |
//!
//! At every moment there are two copies of a page at most, of which at most one can be touched; which of
//! them is the page, is what the master says. Who loses touch with the other side asks the master
//! (`Resolve`), after which that swap can never be committed; who asks after a restart need only ask where
//! the pages are, since the master refuses swaps in which an earlier incarnation of a daemon took part.
//!
//! A daemon takes part in at most one swap of a page at a time, and holds at most one copy of it: a page
//! of which it has a copy in any state is not received. So a copy here, and the master's word that the page is
//! here, mean that this copy is the page.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `requester` | the requester's side, as a state machine |
//! | `home` | the home's side |
//! | `limbo` | asking the master, and what follows from its answer |
//! | `recent` | pages that came or went a moment ago |
//!
//! Locks: all here are leaves.

mod home;
mod limbo;
mod recent;
mod requester;
#[cfg(test)]
mod tests;

use crate::context::Context;
use crate::frames::{Arriving, Departing};
use home::Guest;
use parking_lot::Mutex;
use pool::addr::PageId;
use pool::proto::cluster::SwapToken;
use recent::Recent;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Swaps that this rack asks for at once.
const MOST: usize = 16;
/// Swaps that other racks ask of this one at once.
const MOST_GUESTS: usize = 64;
/// How long a home waits for the end of a swap before it asks the master.
const FINISH_PATIENCE: Duration = Duration::from_secs(1);
/// How long a page that has come is not sent away again as a victim.
const RESIDENCE: Duration = Duration::from_millis(20);
/// How long it is remembered that a page has left: twice what an asker relies on.
const MEMORY: Duration = Duration::from_millis(500);

/// The steps of a swap, each named by what has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Requester: a victim has been frozen.
    VictimFrozen,
    /// Requester: nobody has references to the victim any more.
    VictimRevoked,
    /// Requester: the home is ready.
    Prepared,
    /// Requester: the page is here, but not yet to be used.
    Received,
    /// Requester: the master has been asked to commit, and has answered or not.
    Committed,
    /// Requester: the page can be used here.
    Arrived,
    /// Requester: the victim is gone.
    VictimGone,
    /// Requester: the home has been told.
    Finished,
    /// Home: the page has been frozen.
    PageFrozen,
    /// Home: nobody has references to the page any more.
    PageRevoked,
    /// Home: the victim is here, but not yet to be used.
    VictimReceived,
    /// Home: the requester is about to be told.
    Ready,
    /// Home: the end has been heard of.
    Finishing,
    /// Home: the page is gone.
    PageGone,
    /// Home: the victim can be used here.
    VictimArrived,
}

/// The daemon stops here: it is ending, or a test has it end. All stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Halt;

/// Is told of every step; for tests, which interrupt swaps there.
pub(crate) trait Steps: Send + Sync {
    /// `step` has just been done.
    fn at(&self, step: Step) -> Result<(), Halt>;
}

/// The numbers of the swaps that this daemon has asked for.
#[derive(Default)]
struct Numbers {
    last: u64,
    active: BTreeSet<u64>,
}

/// What a daemon knows about swaps that it takes part in.
pub(crate) struct Swaps {
    numbers: Mutex<Numbers>,
    /// Pages that take part in a swap, on either side, or did when an earlier daemon of this rack ended.
    moving: Mutex<HashSet<PageId>>,
    left: Mutex<Recent>,
    came: Mutex<Recent>,
    guests: Mutex<HashMap<SwapToken, Guest>>,
    limbo: Mutex<(Vec<Departing>, Vec<Arriving>)>,
    steps: Option<Arc<dyn Steps>>,
}

impl Swaps {
    /// What there is at the start: what an earlier daemon was in the middle of.
    pub fn new(context: &Context, steps: Option<Arc<dyn Steps>>) -> Self {
        let limbo = context.frames.limbo();
        let pages = limbo.0.iter().map(Departing::page).chain(limbo.1.iter().map(Arriving::page));
        Self {
            numbers: Mutex::default(),
            moving: Mutex::new(pages.collect()),
            left: Mutex::new(Recent::new(MEMORY)),
            came: Mutex::new(Recent::new(RESIDENCE)),
            guests: Mutex::default(),
            limbo: Mutex::new(limbo),
            steps,
        }
    }

    /// Whether a page takes part in a swap.
    pub fn is_moving(&self, page: PageId) -> bool {
        self.moving.lock().contains(&page)
    }

    /// Whether a page has left this rack a moment ago.
    pub fn has_left(&self, page: PageId) -> bool {
        self.left.lock().has(page, Instant::now())
    }

    /// Whether a page has come a moment ago.
    fn has_come(&self, page: PageId) -> bool {
        self.came.lock().has(page, Instant::now())
    }

    /// A page takes part in a swap from now on. False if it does already.
    fn set_moving(&self, page: PageId) -> bool {
        self.moving.lock().insert(page)
    }

    fn unset_moving(&self, page: PageId) {
        self.moving.lock().remove(&page);
    }

    /// A number for a new swap, unless there are too many.
    fn begin(&self) -> Option<u64> {
        let mut numbers = self.numbers.lock();
        if numbers.active.len() >= MOST {
            return None;
        }
        numbers.last += 1;
        let number = numbers.last;
        numbers.active.insert(number);
        Some(number)
    }

    fn end(&self, number: u64) {
        self.numbers.lock().active.remove(&number);
    }

    fn oldest(&self) -> u64 {
        let numbers = self.numbers.lock();
        numbers.active.first().copied().unwrap_or(numbers.last + 1)
    }

    fn at(&self, step: Step) -> Result<(), Halt> {
        self.steps.as_ref().map_or(Ok(()), |steps| steps.at(step))
    }
}
