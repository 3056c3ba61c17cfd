//! Pages of other racks as the clients of this one use them, and pages of this rack as others use them:
//! references, access in place (Direct IO), and the moving of pages.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `table` | what is known of pages of other racks, and who waits for them |
//! | `search` | finding a page's home, and getting a reference to it |
//! | `access` | one access, and what to do if it was not done |
//! | `doubts` | keys by which an access was made whose fate is unknown |
//! | `peers` | what other daemons ask |
//! | `timer` | jobs for later |
//! | [`holders`](crate::holders) | who holds references to our pages |
//! | [`migrate`](crate::migrate) | swaps |
//!
//! A reference is used only from the moment its home gave it out to the moment its home takes it back. The
//! answer to a Revoke is the promise that no access by it is under way and none will begin; a request for
//! a reference that is under way at that time yields nothing.
//!
//! Nothing here waits, except what says so and is for worker threads. Locks: a shard of the table, and
//! under it leaves (the frames, the swaps, the doubts, the blocks); none while a message is sent.

mod access;
mod doubts;
mod peers;
mod search;
mod table;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod timer;

pub(crate) use access::PageAnswer;
pub(crate) use peers::PeerAnswer;

use crate::context::Context;
use crate::holders::Holders;
use crate::migrate::{Steps, Swaps};
use access::{Op, Pending};
use doubts::Doubts;
use parking_lot::{Condvar, Mutex, RwLock};
use pool::addr::{GAddr, PageId, PageSize, RackId};
use pool::cxl::frames::State;
use pool::proto::cluster::ClusterRequest;
use pool::proto::page::{PageError, PageKind, PageReply, PageRequest, Place};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::swap::Choice;
use search::Locator;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Link, Surplus, Table};
use timer::Timer;

/// How long a home waits for the holders of references to give them up, before it withdraws their keys: this
/// part of the deadline, but not less than [`PATIENCE_MIN`].
const PATIENCE_PART: u32 = 16;
const PATIENCE_MIN: Duration = Duration::from_millis(300);
/// Pages in one message about many.
const BATCH: usize = 4096;

/// What is to be done when pages come and go. Called on worker threads, once the page can be used, and once
/// it is gone.
pub(crate) struct PageHooks {
    /// A page has come from another rack.
    pub arrived: Box<dyn Fn(PageId, PageKind) + Send + Sync>,
    /// A page has gone to another rack.
    pub departed: Box<dyn Fn(PageId, PageKind) + Send + Sync>,
}

/// See the module.
pub(crate) struct Remote {
    pub(crate) context: Arc<Context>,
    pub(crate) holders: Holders,
    pub(crate) swaps: Swaps,
    pub(crate) timer: Timer,
    pub(crate) hooks: RwLock<Option<PageHooks>>,
    table: Table,
    doubts: Doubts,
    locator: Mutex<Locator>,
    /// The racks that blocks of page ids were given to, as far as they have come up: hints.
    blocks: RwLock<HashMap<u64, RackId>>,
    closed: Mutex<bool>,
    closing: Condvar,
}

impl Remote {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Self::with_steps(context, None)
    }

    /// As [`new`](Self::new); `steps` is told of every step of a swap.
    pub fn with_steps(context: Arc<Context>, steps: Option<Arc<dyn Steps>>) -> Arc<Self> {
        let swaps = Swaps::new(&context, steps);
        Arc::new(Self {
            context,
            holders: Holders::default(),
            swaps,
            timer: Timer::default(),
            hooks: RwLock::new(None),
            table: Table::default(),
            doubts: Doubts::default(),
            locator: Mutex::default(),
            blocks: RwLock::default(),
            closed: Mutex::new(false),
            closing: Condvar::new(),
        })
    }

    /// Sets what is to be done when pages come and go.
    pub fn set_page_hooks(&self, hooks: PageHooks) {
        *self.hooks.write() = Some(hooks);
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.context.in_place.region().geometry().page_size
    }

    /// Read, Write, Cas, Where of clients. Never blocks; answers later.
    pub fn serve_page(self: &Arc<Self>, request: PageRequest, answer: PageAnswer) {
        match request {
            PageRequest::Read { at, len } => self.serve_access(at, Op::Read(len), answer),
            PageRequest::Write { at, data } => self.serve_access(at, Op::Write(data), answer),
            PageRequest::Cas { at, old, new } => self.serve_access(at, Op::Cas { old, new }, answer),
            PageRequest::Where { page } => {
                let remote = Arc::clone(self);
                self.context.workers.run(move || answer(remote.place(page)));
            }
            _ => answer(Err(PageError::Invalid("not an access to a page".into()))),
        }
    }

    fn serve_access(self: &Arc<Self>, at: GAddr, op: Op, answer: PageAnswer) {
        let page = match self.check(at, &op) {
            Ok(page) => page,
            Err(error) => return answer(Err(error)),
        };
        if self.is_stable_here(page) {
            return answer(Ok(PageReply::Here));
        }
        self.context.counters.misses.add(1);
        let deadline = Instant::now() + self.context.deadline;
        let pending = Pending { op, at, deadline, tries: 0, answer };
        let surplus = {
            let mut shard = self.table.shard(page);
            let surplus =
                if shard.contains_key(&page) { Vec::new() } else { self.table.make_room(&mut shard) };
            shard.entry(page).or_default();
            surplus
        };
        self.give_back(surplus);
        let (mut pending, mut swap) = (Some(pending), None);
        self.step(page, |entry| {
            entry.used = true;
            let now = self.context.now();
            let heat = entry.heat.touch(now, self.context.half_life);
            let refused = entry.refused.map(|at| Duration::from_nanos(now.saturating_sub(at)));
            if let (Link::Held(_), Some(home), false) = (entry.link, entry.home, entry.swapping)
                && self.context.policy.choose(heat, refused) == Choice::Swap
            {
                swap = self.begin_swap(page, home, heat);
                entry.swapping = swap.is_some();
            }
            // While the page is being moved, who has come first has a right to the answer first.
            entry.queue.extend(pending.take());
            self.next(page, entry)
        });
        if let Some(pending) = pending {
            // The page was forgotten in between, for which it must have been unused.
            return self.retry_later(pending);
        }
        if let Some(swap) = swap {
            let remote = Arc::clone(self);
            self.context.workers.run(move || remote.run_swap(swap));
        }
    }

    fn retry_later(self: &Arc<Self>, pending: Pending) {
        let remote = Arc::clone(self);
        let again = move || remote.serve_access(pending.at, pending.op, pending.answer);
        self.timer.at(Instant::now(), again);
    }

    pub(crate) fn is_stable_here(&self, page: PageId) -> bool {
        matches!(self.context.frames.frame_of(page), Some((_, State::Stable)))
    }

    /// Where a page is, and how hot here.
    fn place(&self, page: PageId) -> Result<PageReply, PageError> {
        let rack = self.locate(&[page])?.first().copied().flatten().ok_or(PageError::NoSuchPage(page))?;
        let (now, half_life) = (self.context.now(), self.context.half_life);
        let heat = if rack == self.context.rack {
            self.holders.heat(&self.context.frames, page, now, half_life)
        } else {
            self.table.shard(page).get(&page).map_or(0.0, |entry| entry.heat.value(now, half_life))
        };
        Ok(PageReply::Place(Place { rack, heat }))
    }

    /// Where pages are: as this rack knows, else as the master says. Waits for the master.
    pub fn locate(&self, pages: &[PageId]) -> Result<Vec<Option<RackId>>, PageError> {
        let mut found: Vec<Option<RackId>> = pages.iter().map(|page| self.known_home(*page)).collect();
        let unknown: Vec<usize> = (0..pages.len()).filter(|i| found[*i].is_none()).collect();
        for part in unknown.chunks(BATCH) {
            let asked: Vec<PageId> = part.iter().map(|i| pages[*i]).collect();
            for (i, home) in part.iter().zip(self.ask_homes(asked)?) {
                found[*i] = home;
            }
        }
        Ok(found)
    }

    pub(crate) fn known_home(&self, page: PageId) -> Option<RackId> {
        if self.context.frames.frame_of(page).is_some() && !self.swaps.is_moving(page) {
            return Some(self.context.rack);
        }
        let shard = self.table.shard(page);
        let entry = shard.get(&page)?;
        if matches!(entry.link, Link::Held(_)) { entry.home } else { None }
    }

    /// Asks the master. Waits for it.
    pub(crate) fn ask_homes(&self, pages: Vec<PageId>) -> Result<Vec<Option<RackId>>, PageError> {
        let count = pages.len();
        let request = Request::Cluster(ClusterRequest::Locate { pages });
        let reply = self.context.transport.call(NodeId::Master, request);
        search::homes_in(reply, count).map_err(PageError::Unreachable)
    }

    /// Waits until no other rack holds references to these pages of ours, which must not be stable any more.
    pub fn revoke(&self, pages: &[PageId]) {
        #[cfg(rchfs_breakable)]
        if pool::breakage::is("revoke") {
            return;
        }
        let mut by_holder: HashMap<RackId, Vec<PageId>> = HashMap::new();
        for page in pages {
            for holder in self.holders.take(*page) {
                by_holder.entry(holder).or_default().push(*page);
            }
        }
        if by_holder.is_empty() {
            return;
        }
        let left = Arc::new((Mutex::new(HashMap::<RackId, usize>::new()), Condvar::new()));
        let messages = by_holder.iter().flat_map(|(holder, pages)| {
            pages.chunks(BATCH).map(|part| (*holder, part.to_vec())).collect::<Vec<_>>()
        });
        let messages: Vec<(RackId, Vec<PageId>)> = messages.collect();
        for (holder, _) in &messages {
            *left.0.lock().entry(*holder).or_default() += 1;
        }
        for (holder, pages) in messages {
            let (left, home) = (Arc::clone(&left), self.context.rack);
            let done = move |reply| {
                if matches!(reply, Ok(Reply::Peer(Ok(PeerReply::Done)))) {
                    let mut counts = left.0.lock();
                    if let Some(count) = counts.get_mut(&holder) {
                        *count -= 1;
                    }
                } else {
                    // Will not acknowledge: there is nothing to wait for.
                    left.0.lock().insert(holder, usize::MAX);
                }
                left.1.notify_all();
            };
            let request = Request::Peer(PeerRequest::Revoke { home, pages });
            self.context.transport.start(NodeId::Daemon(holder), request, Box::new(done));
        }
        let mut counts = left.0.lock();
        let waiting =
            |counts: &mut HashMap<RackId, usize>| counts.values().any(|n| *n > 0 && *n < usize::MAX / 2);
        let patience = (self.context.deadline / PATIENCE_PART).max(PATIENCE_MIN);
        left.1.wait_while_for(&mut counts, waiting, patience);
        let silent: Vec<RackId> = counts.iter().filter(|(_, n)| **n > 0).map(|(holder, _)| *holder).collect();
        drop(counts);
        for holder in silent {
            log::warn!(
                "rack {holder} does not give up its references to pages of this rack: its key is withdrawn"
            );
            self.fence(holder, None);
        }
    }

    /// The daemon of that rack was lost, or has started anew: our references to its pages are worthless, and
    /// so are its references to ours; swaps with it are to be settled.
    pub fn peer_lost(self: &Arc<Self>, rack: RackId) {
        self.fence(rack, None);
        self.context.transport.unlink(NodeId::Daemon(rack), None);
        let mut waiting = Vec::new();
        for mut shard in self.table.shards() {
            for (page, entry) in shard.iter_mut().filter(|(_, entry)| entry.home == Some(rack)) {
                if matches!(entry.link, Link::Held(_)) {
                    entry.link = Link::Idle;
                }
                if !entry.queue.is_empty() {
                    waiting.push(*page);
                }
            }
        }
        waiting.into_iter().for_each(|page| self.drive(page));
        self.settle_swaps_of(rack);
    }

    /// A swap of `page` is over. `cool`: it stays where it is, and is not to be asked for again at once.
    pub(crate) fn swap_over(self: &Arc<Self>, page: PageId, cool: bool) {
        if let Some(entry) = self.table.shard(page).get_mut(&page) {
            entry.swapping = false;
            if cool {
                entry.refused = Some(self.context.now());
                entry.heat.cool();
            }
        }
        self.wake(page);
    }

    /// `page` is in the rack `home` now.
    pub(crate) fn set_home(&self, page: PageId, home: RackId) {
        if let Some(entry) = self.table.shard(page).get_mut(&page) {
            entry.home = Some(home);
        }
    }

    /// Gives references back that are not used.
    fn give_back(self: &Arc<Self>, surplus: Vec<Surplus>) {
        let mut by_key: HashMap<(RackId, u64), Vec<PageId>> = HashMap::new();
        for Surplus { page, home, key } in surplus {
            by_key.entry((home, key)).or_default().push(page);
        }
        for ((home, key), pages) in by_key {
            for part in pages.chunks(BATCH) {
                self.release(home, key, part.to_vec());
            }
        }
    }

    /// Until the answer these references are neither used nor asked for. A release whose fate is unknown
    /// may come late, when one of the pages has been asked for again: by then it must have another key.
    fn release(self: &Arc<Self>, home: RackId, key: u64, pages: Vec<PageId>) {
        let remote = Arc::clone(self);
        let request = PeerRequest::Release { holder: self.context.rack, key, pages: pages.clone() };
        let done = move |reply| {
            if !matches!(reply, Ok(Reply::Peer(Ok(PeerReply::Done)))) {
                remote.doubt(home, key);
            }
            for page in pages {
                remote.step(page, |entry| {
                    if entry.link == Link::Releasing {
                        entry.link = Link::Idle;
                    }
                    remote.next(page, entry)
                });
            }
        };
        self.context.transport.start(NodeId::Daemon(home), Request::Peer(request), Box::new(done));
    }

    /// Ends: nothing is tried again from now on, and worker threads that wait stop. What is in the middle of
    /// a swap stays as it is, for the next start to settle. To be called before the workers are closed.
    pub fn close(&self) {
        *self.closed.lock() = true;
        self.closing.notify_all();
        self.timer.close();
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.lock()
    }

    /// Waits for `time`; false at the end.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let mut closed = self.closed.lock();
        self.closing.wait_while_for(&mut closed, |closed| !*closed, time);
        !*closed
    }
}
