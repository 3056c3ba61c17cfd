//! Finding a page of another rack, and getting a reference to it, for the requests that wait for that.
//!
//! Where a page is, is for the master to say; what is remembered here is a hint that saves asking. A page
//! is taken not to exist only if its home by the master's word does not have it, and neither had it at any
//! time since the master was asked.

use super::Remote;
use super::access::{Path, Pending};
use super::table::{Entry, Link, Search};
use pool::addr::{PageId, RackId};
use pool::cxl::frames::State;
use pool::proto::cluster::{BLOCK, ClusterReply, ClusterRequest};
use pool::proto::page::{PageError, PageReply};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::TransportError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a daemon says of a page that has left it that it is being moved: an answer of the master that
/// is not older than this is good enough to conclude that a page does not exist.
pub(super) const MEMORY: Duration = Duration::from_millis(250);

/// The first pause after something that came to nothing; each is twice as long as the last.
const PAUSE: Duration = Duration::from_micros(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_millis(10);
/// Pages in one question to the master.
const BATCH: usize = 4096;

/// What is to be done next about a page, once no lock is held.
pub(super) enum Next {
    Nothing,
    Answer(Vec<Pending>, Result<PageReply, PageError>),
    Access(Path, Vec<Pending>),
    Locate,
    Acquire(RackId),
    Pause(u32, Duration),
}

/// The questions to the master: one at a time, with all pages that have come up since the last.
#[derive(Default)]
pub(super) struct Locator {
    pub waiting: Vec<PageId>,
    pub asking: bool,
}

impl Remote {
    /// Changes what is known of `page`, and does what follows from that. Sets an alarm if requests wait then.
    pub(super) fn step(self: &Arc<Self>, page: PageId, change: impl FnOnce(&mut Entry) -> Next) {
        let (next, alarm) = {
            let mut shard = self.table.shard(page);
            let Some(entry) = shard.get_mut(&page) else { return };
            let next = change(entry);
            (next, to_arm(entry))
        };
        self.take(page, next);
        if let Some(at) = alarm {
            self.set_alarm(page, at);
        }
    }

    /// Goes on with what waits for `page`.
    pub(super) fn drive(self: &Arc<Self>, page: PageId) {
        self.step(page, |entry| self.next(page, entry));
    }

    /// As [`drive`](Self::drive), after a pause if the last attempts came to nothing.
    pub(super) fn pause_or_drive(self: &Arc<Self>, page: PageId) {
        self.step(page, |entry| self.pause_or_next(page, entry));
    }

    fn pause_or_next(&self, page: PageId, entry: &mut Entry) -> Next {
        let tired = entry.search.rounds > 0 && entry.link == Link::Idle && !entry.swapping;
        if tired && !entry.queue.is_empty() { pause(entry) } else { self.next(page, entry) }
    }

    /// What to do about a page of which somebody wants something.
    pub(super) fn next(&self, page: PageId, entry: &mut Entry) -> Next {
        if entry.queue.is_empty() {
            return Next::Nothing;
        }
        let here = self.context.frames.frame_of(page).map(|(_, state)| state);
        if here == Some(State::Stable) {
            entry.search = Search::default();
            return Next::Answer(entry.queue.drain(..).collect(), Ok(PageReply::Here));
        }
        if let (Link::Held(reference), Some(home)) = (entry.link, entry.home) {
            if !self.doubts.is_raised(home, reference.key) {
                let pending: Vec<Pending> = entry.queue.drain(..).collect();
                entry.in_flight += pending.iter().filter(|p| p.is_by_reference()).count() as u32;
                return Next::Access(Path { page, home, reference }, pending);
            }
            entry.link = Link::Idle;
        }
        if entry.link != Link::Idle || entry.swapping {
            return Next::Nothing;
        }
        if here.is_some() || self.swaps.is_moving(page) {
            return pause(entry);
        }
        let me = self.context.rack;
        let block = || self.blocks.read().get(&(page.raw() / BLOCK)).copied();
        if entry.home.is_none() && entry.search.rounds == 0 {
            entry.home = block();
        }
        match entry.home.filter(|home| *home != me) {
            Some(home) => {
                entry.link = Link::Asking { spoiled: false };
                Next::Acquire(home)
            }
            None => {
                entry.link = Link::Locating;
                Next::Locate
            }
        }
    }

    /// Does what [`next`](Self::next) said.
    pub(super) fn take(self: &Arc<Self>, page: PageId, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Answer(pending, result) => pending.into_iter().for_each(|p| p.finish(result.clone())),
            Next::Access(path, pending) => pending.into_iter().for_each(|p| self.make(path, p)),
            Next::Locate => self.ask_where(page),
            Next::Acquire(home) => self.acquire(page, home),
            Next::Pause(pause, time) => {
                let remote = Arc::clone(self);
                self.timer.at(Instant::now() + time, move || remote.pause_over(page, pause));
            }
        }
    }

    fn pause_over(self: &Arc<Self>, page: PageId, pause: u32) {
        self.step(page, |entry| {
            if entry.link != Link::Pausing || entry.pause != pause {
                return Next::Nothing;
            }
            entry.link = Link::Idle;
            self.next(page, entry)
        });
    }

    /// Something has changed about `page`: whoever waits for that need not wait any longer.
    pub(crate) fn wake(self: &Arc<Self>, page: PageId) {
        self.step(page, |entry| {
            if entry.link == Link::Pausing {
                entry.link = Link::Idle;
            }
            self.next(page, entry)
        });
    }

    fn acquire(self: &Arc<Self>, page: PageId, home: RackId) {
        let request = PeerRequest::Acquire { holder: self.context.rack, page };
        let remote = Arc::clone(self);
        let done = move |reply| remote.acquired(page, home, reply);
        self.context.transport.start(NodeId::Daemon(home), Request::Peer(request), Box::new(done));
    }

    fn acquired(self: &Arc<Self>, page: PageId, home: RackId, reply: Result<Reply, TransportError>) {
        self.step(page, |entry| {
            let Link::Asking { spoiled } = entry.link else { return Next::Nothing };
            entry.link = Link::Idle;
            match reply {
                Ok(Reply::Peer(Ok(PeerReply::Reference(reference)))) => {
                    if spoiled || self.doubts.is_raised(home, reference.key) {
                        entry.search.rounds = entry.search.rounds.max(1);
                    } else {
                        (entry.link, entry.home) = (Link::Held(reference), Some(home));
                        entry.search = Search::default();
                    }
                }
                Ok(Reply::Peer(Ok(PeerReply::Moving))) => entry.search.rounds = entry.search.rounds.max(1),
                Ok(Reply::Peer(Ok(PeerReply::NotHere))) => return self.not_there(page, entry, home),
                Ok(Reply::Peer(Err(error))) => note_trouble(entry, error.to_string()),
                Ok(_) => note_trouble(entry, TransportError::Mismatch(NodeId::Daemon(home)).to_string()),
                Err(error) => note_trouble(entry, error.to_string()),
            }
            self.pause_or_next(page, entry)
        });
    }

    /// `home` does not have the page: asks the master, at once unless that has been done often.
    fn not_there(&self, page: PageId, entry: &mut Entry, home: RackId) -> Next {
        entry.home = None;
        if entry.search.sure.take().is_some_and(|asked| asked.elapsed() < MEMORY) {
            entry.search.missing = Some(home);
        }
        if entry.search.rounds > 3 {
            return self.pause_or_next(page, entry);
        }
        // From now on it is no use to guess by the block.
        entry.search.rounds += 1;
        self.next(page, entry)
    }

    fn ask_where(self: &Arc<Self>, page: PageId) {
        {
            let mut locator = self.locator.lock();
            locator.waiting.push(page);
            if std::mem::replace(&mut locator.asking, true) {
                return;
            }
        }
        self.ask_master();
    }

    /// Asks the master about the pages that have come up, if any; the answer asks again.
    fn ask_master(self: &Arc<Self>) {
        let pages: Vec<PageId> = {
            let mut locator = self.locator.lock();
            let count = locator.waiting.len().min(BATCH);
            locator.asking = count > 0;
            locator.waiting.drain(..count).collect()
        };
        if pages.is_empty() {
            return;
        }
        let (remote, asked) = (Arc::clone(self), Instant::now());
        let request = Request::Cluster(ClusterRequest::Locate { pages: pages.clone() });
        let done = move |reply| {
            remote.ask_master();
            let homes = homes_in(reply, pages.len());
            for (i, page) in pages.into_iter().enumerate() {
                let home = homes.as_ref().map(|homes| homes[i]).map_err(String::clone);
                remote.located(page, asked, home);
            }
        };
        self.context.transport.start(NodeId::Master, request, Box::new(done));
    }

    /// The master has answered a question of the time `asked`.
    fn located(self: &Arc<Self>, page: PageId, asked: Instant, home: Result<Option<RackId>, String>) {
        self.step(page, |entry| {
            if entry.link != Link::Locating {
                return Next::Nothing;
            }
            entry.link = Link::Idle;
            let missing = entry.search.missing.take();
            match home {
                Err(trouble) => {
                    note_trouble(entry, trouble);
                    self.pause_or_next(page, entry)
                }
                Ok(None) => gone(page, entry),
                Ok(home) if home == missing => gone(page, entry),
                Ok(Some(home)) if home == self.context.rack => self.located_here(page, entry, asked),
                Ok(Some(home)) => {
                    self.learn(page, home);
                    (entry.home, entry.search.sure) = (Some(home), Some(asked));
                    self.next(page, entry)
                }
            }
        });
    }

    /// The master says that the page is in this rack. In this order: what arrives in between is seen in the
    /// frames, and what leaves again in between is remembered.
    fn located_here(&self, page: PageId, entry: &mut Entry, asked: Instant) -> Next {
        let moving = self.swaps.is_moving(page) || self.context.frames.frame_of(page).is_some();
        let left = self.swaps.has_left(page) || asked.elapsed() >= MEMORY;
        entry.home = None;
        if !moving && !left {
            return gone(page, entry);
        }
        entry.search.rounds = entry.search.rounds.max(1);
        let stable = matches!(self.context.frames.frame_of(page), Some((_, State::Stable)));
        if stable { self.next(page, entry) } else { self.pause_or_next(page, entry) }
    }

    /// Most pages are where their block was given to.
    fn learn(&self, page: PageId, home: RackId) {
        let block = page.raw() / BLOCK;
        if !self.blocks.read().contains_key(&block) {
            self.blocks.write().insert(block, home);
        }
    }

    /// Sets the alarm for the first of the requests that wait for `page`.
    pub(super) fn set_alarm(self: &Arc<Self>, page: PageId, at: Instant) {
        let remote = Arc::clone(self);
        self.timer.at(at, move || remote.alarm(page));
    }

    /// Answers requests that have waited for too long.
    fn alarm(self: &Arc<Self>, page: PageId) {
        let now = Instant::now();
        let (late, error, next) = {
            let mut shard = self.table.shard(page);
            let Some(entry) = shard.get_mut(&page) else { return };
            let (late, rest): (Vec<_>, Vec<_>) = entry.queue.drain(..).partition(|p| p.deadline <= now);
            entry.queue.extend(rest);
            let next = entry.queue.iter().map(|p| p.deadline).min();
            entry.alarm = next.is_some();
            let error = match (&entry.search.trouble, entry.link) {
                (Some(trouble), _) => PageError::Unreachable(trouble.clone()),
                (None, Link::Locating) => PageError::Unreachable("the master does not answer".into()),
                (None, Link::Asking { .. }) => {
                    PageError::Unreachable(format!("the rack that holds page {page} does not answer"))
                }
                (None, _) => PageError::Busy(page),
            };
            (late, error, next)
        };
        late.into_iter().for_each(|pending| pending.finish(Err(error.clone())));
        if let Some(at) = next {
            self.set_alarm(page, at);
        }
    }
}

fn pause(entry: &mut Entry) -> Next {
    entry.link = Link::Pausing;
    entry.pause = entry.pause.wrapping_add(1);
    let time = PAUSE.saturating_mul(1 << entry.search.rounds.min(10)).min(LONGEST);
    entry.search.rounds = entry.search.rounds.saturating_add(1);
    Next::Pause(entry.pause, time)
}

/// When the alarm is to be set for requests that wait, if it is not set yet.
fn to_arm(entry: &mut Entry) -> Option<Instant> {
    let first = entry.queue.iter().map(|pending| pending.deadline).min()?;
    (!std::mem::replace(&mut entry.alarm, true)).then_some(first)
}

/// The home could not be asked: it may be another by now.
fn note_trouble(entry: &mut Entry, trouble: String) {
    entry.home = None;
    entry.search.rounds = entry.search.rounds.max(1);
    entry.search.trouble = Some(trouble);
}

fn gone(page: PageId, entry: &mut Entry) -> Next {
    entry.search = Search::default();
    entry.home = None;
    Next::Answer(entry.queue.drain(..).collect(), Err(PageError::NoSuchPage(page)))
}

/// What the master says about `count` pages.
pub(super) fn homes_in(
    reply: Result<Reply, TransportError>,
    count: usize,
) -> Result<Vec<Option<RackId>>, String> {
    match reply {
        Ok(Reply::Cluster(Ok(ClusterReply::Homes(homes)))) if homes.len() == count => Ok(homes),
        Ok(Reply::Cluster(Err(error))) => Err(error.to_string()),
        Ok(_) => Err(TransportError::Mismatch(NodeId::Master).to_string()),
        Err(error) => Err(error.to_string()),
    }
}
