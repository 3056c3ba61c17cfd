//! Messages from a client process to its rack's daemon, through a channel in the region.
//!
//! A thread takes a free entry of the channel, puts its request in, and waits for the answer: it looks for
//! a while, then sleeps. How that works between two processes is in [`cxl::ring`](crate::cxl::ring).
//!
//! Lock order: [`Entries`]' lock is a leaf.

mod entries;

use super::{Transport, TransportError};
use crate::addr::RackId;
use crate::cxl::protocol::SharedWord;
use crate::cxl::region::{Region, Slept};
use crate::cxl::ring::protocol;
use crate::cxl::ring::{BODY_MAX, Channel, Entry, Rings, Status, decode, encode};
use crate::cxl::slots::ClientId;
use crate::proto::{NodeId, Reply, Request};
use crate::spin::Spin;
use entries::{Entries, Held};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long a sleep lasts at first and at most, before the client looks whether the daemon is still there.
const SLEEP: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// The same where the kernel cannot wake, and the client just looks now and then.
const BACKOFF: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(1));

/// Why a client gets no channel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RingError {
    /// The region belongs to another rack.
    #[error("{name} belongs to rack {found}, not {wanted}; name that rack's region")]
    WrongRack {
        /// The region.
        name: String,
        /// Its rack.
        found: RackId,
        /// The rack asked for.
        wanted: RackId,
    },
    /// The region was made without channels.
    #[error("{name} was made without channels for other processes; make it anew, by rcmp-daemon")]
    NoChannels {
        /// The region.
        name: String,
    },
    /// As many clients are there as the region was made for.
    #[error("all {channels} channels of {name} are taken; stop a client, or make the region with more")]
    AllTaken {
        /// The region.
        name: String,
        /// How many it has.
        channels: u32,
    },
}

/// A client's channel to the daemon of its rack.
pub struct RingTransport {
    region: Arc<Region>,
    rack: RackId,
    deadline: Duration,
    /// The process that claimed the channel; a child that was forked has no part in it.
    process: u32,
    channel: u32,
    entries: Entries,
    spin: Spin,
    /// The daemon's life that was found to be over; 0 none.
    dead: AtomicU64,
}

impl RingTransport {
    /// Claims a channel of the region of `rack`. A request is given up after `deadline`.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn new(region: Arc<Region>, rack: RackId, deadline: Duration) -> Result<Self, RingError> {
        let name = || region.name().to_owned();
        if region.rack() != rack {
            return Err(RingError::WrongRack { name: name(), found: region.rack(), wanted: rack });
        }
        let rings = Rings::new(&region).ok_or_else(|| RingError::NoChannels { name: name() })?;
        let claimed = rings.claim(ClientId::this_process());
        let (channel, generation) =
            claimed.ok_or_else(|| RingError::AllTaken { name: name(), channels: rings.channels() })?;
        let (channel, entries) = (channel.number, Entries::new(generation));
        let (process, dead) = (std::process::id(), AtomicU64::new(0));
        Ok(Self { region, rack, deadline, process, channel, entries, spin: Spin::for_answers(), dead })
    }

    /// The number of the channel.
    pub fn channel(&self) -> u32 {
        self.channel
    }

    fn node(&self) -> NodeId {
        NodeId::Daemon(self.rack)
    }

    fn gone(&self) -> TransportError {
        let what = format!("it does not run; start the daemon of {} again", self.region.name());
        TransportError::Broken(self.node(), what)
    }

    /// What this transport claimed, of a region that was found to have it.
    #[inline]
    fn view(&self) -> Option<(Rings<'_>, Channel<'_>)> {
        let rings = Rings::new(&self.region)?;
        Some((rings, rings.channel(self.channel)?))
    }

    #[inline]
    fn cell(&self, entry: u32) -> Option<Entry<'_>> {
        self.view()?.1.entry(entry)
    }

    #[inline]
    fn is_done(&self, held: Held) -> bool {
        self.cell(held.entry).is_some_and(|cell| protocol::is_done(&cell.state(), held.this))
    }

    /// Whether somebody serves the channel, as far as is known without a system call.
    #[inline]
    fn check_daemon(&self, rings: Rings<'_>) -> Result<(), TransportError> {
        let serving = rings.serving().load(Ordering::Relaxed);
        if serving == 0 || serving == self.dead.load(Ordering::Relaxed) { Err(self.gone()) } else { Ok(()) }
    }

    /// Puts a request in an entry that `pick` finds, and hands it over.
    /// [`announce`](Self::announce) must follow.
    #[inline]
    fn submit(&self, request: &Request, pick: impl FnOnce() -> Option<Held>) -> Result<Held, TransportError> {
        let to = self.node();
        let submitted = encode(request, |bytes| {
            if bytes.len() > BODY_MAX {
                return Err(TransportError::TooLarge { to, len: bytes.len(), max: BODY_MAX });
            }
            let held = pick().ok_or(TransportError::TimedOut(to))?;
            if let Some(cell) = self.cell(held.entry) {
                cell.put(Status::Reply, bytes);
                protocol::submit(&cell.state(), held.this);
            }
            Ok(held)
        });
        submitted.unwrap_or_else(|error| Err(TransportError::Broken(to, error.to_string())))
    }

    /// Makes the daemon see the submissions of the entries `mask`.
    #[inline]
    fn announce(&self, rings: Rings<'_>, channel: Channel<'_>, mask: u64) {
        let entry = mask.trailing_zeros();
        if mask.is_power_of_two() && protocol::is_watched(&channel.watched(), entry) {
            return;
        }
        let (bell, bit) = channel.bell();
        protocol::ring(&channel.submitted(), mask, &bell, bit);
        if protocol::rouse(&rings.poller()) {
            rings.poller().wake();
        }
    }

    /// Waits for the answer, takes it, and gives the entry back.
    #[inline]
    fn collect(&self, held: Held, deadline: &Deadline) -> Result<Reply, TransportError> {
        let Some(cell) = self.cell(held.entry) else { return Err(self.gone()) };
        let state = cell.state();
        if self.spin.until(|| protocol::is_done(&state, held.this).then_some(())).is_none() {
            let began = Instant::now();
            self.sleep(cell, held, deadline.get())?;
            self.spin.slept(began.elapsed());
        }
        let reply = cell.get(|status, message| self.reply(status, message));
        self.entries.release(held);
        reply.unwrap_or_else(|| Err(TransportError::Mismatch(self.node())))
    }

    #[inline]
    fn reply(&self, status: Status, message: &[u8]) -> Result<Reply, TransportError> {
        let to = self.node();
        let broken = |why: &str| Err(TransportError::Broken(to, why.into()));
        match status {
            Status::Reply => decode(message).ok_or(TransportError::Mismatch(to)),
            Status::Malformed => {
                broken("it cannot read the request; client and daemon must be of the same version")
            }
            Status::Lost => broken("it was restarted; what was asked may or may not have been done"),
            Status::Dropped => broken("it gave no answer; what was asked may or may not have been done"),
            Status::TooLarge => {
                let len = message.try_into().map_or(0, u64::from_le_bytes) as usize;
                Err(TransportError::TooLarge { to, len, max: BODY_MAX })
            }
        }
    }

    /// Sleeps until the answer is there; gives the entry up if it does not come.
    #[cold]
    fn sleep(&self, cell: Entry<'_>, held: Held, deadline: Instant) -> Result<(), TransportError> {
        let state = cell.state();
        if !protocol::doze(&state, held.this) {
            return self.settle(cell, held, TransportError::Mismatch(self.node()));
        }
        let asleep = held.this.state(protocol::Kind::Asleep);
        let (mut limit, mut backoff) = (SLEEP.0, BACKOFF.0);
        let mut checked = Instant::now();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.sleep(asleep, limit.min(left)) == Slept::Impossible {
                std::thread::sleep(backoff.min(left));
                backoff = (backoff * 2).min(BACKOFF.1);
            }
            if protocol::is_done(&state, held.this) {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return self.withdraw(cell, held, TransportError::TimedOut(self.node()));
            }
            if now >= checked + limit {
                if !self.daemon_is_alive() {
                    return self.withdraw(cell, held, self.gone());
                }
                (checked, limit) = (now, (limit * 2).min(SLEEP.1));
            }
        }
    }

    /// Gives up with `error`, unless the answer has come just now.
    fn withdraw(&self, cell: Entry<'_>, held: Held, error: TransportError) -> Result<(), TransportError> {
        protocol::withdraw(&cell.state(), held.this);
        self.settle(cell, held, error)
    }

    /// Gives the entry up with `error`, unless the answer is there.
    fn settle(&self, cell: Entry<'_>, held: Held, error: TransportError) -> Result<(), TransportError> {
        if protocol::is_done(&cell.state(), held.this) {
            return Ok(());
        }
        self.entries.give_up(held);
        Err(error)
    }

    fn daemon_is_alive(&self) -> bool {
        let Some((rings, _)) = self.view() else { return false };
        let serving = rings.serving().load(Ordering::Acquire);
        if serving == 0 {
            return false;
        }
        let alive = rings.owner_is_alive();
        if !alive {
            self.dead.store(serving, Ordering::Relaxed);
        }
        alive
    }
}

impl Transport for RingTransport {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        if to != self.node() {
            return Err(TransportError::NoSuchNode(to));
        }
        let Some((rings, channel)) = self.view() else { return Err(self.gone()) };
        self.check_daemon(rings)?;
        let deadline = Deadline::new(self.deadline);
        let pick = || self.entries.pick(|| deadline.get(), |held| self.is_done(held));
        let held = self.submit(&request, pick)?;
        self.announce(rings, channel, 1 << held.entry);
        self.collect(held, &deadline)
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        let Some((rings, channel)) = self.view().filter(|_| to == self.node()) else {
            return requests.iter().map(|_| Err(TransportError::NoSuchNode(to))).collect();
        };
        let mut batch = Batch::new(self, rings, channel);
        for request in requests {
            batch.add(&request);
        }
        batch.finish()
    }
}

impl Drop for RingTransport {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let Some((_, channel)) = self.view() else { return };
        if self.entries.all_free(|held| self.is_done(held)) {
            channel.release();
        } else {
            channel.leaving().store(1, Ordering::Release);
        }
    }
}

/// Several requests under way at once. As many as there are free entries; when there is none, the oldest
/// answer is waited for, so that a batch that holds entries never waits for others to let go of theirs.
struct Batch<'t> {
    transport: &'t RingTransport,
    rings: Rings<'t>,
    channel: Channel<'t>,
    replies: Vec<Option<Result<Reply, TransportError>>>,
    under_way: VecDeque<(usize, Held, Deadline)>,
    /// Entries that were submitted and not announced.
    silent: u64,
    /// Once a request was not answered in time the rest is not tried.
    late: bool,
}

impl<'t> Batch<'t> {
    fn new(transport: &'t RingTransport, rings: Rings<'t>, channel: Channel<'t>) -> Self {
        let (replies, under_way) = (Vec::new(), VecDeque::new());
        Self { transport, rings, channel, replies, under_way, silent: 0, late: false }
    }

    fn add(&mut self, request: &Request) {
        let transport = self.transport;
        let deadline = Deadline::new(transport.deadline);
        let submitted = transport.check_daemon(self.rings).and_then(|()| {
            let pick = || self.entry(&deadline);
            transport.submit(request, pick)
        });
        match submitted {
            Ok(held) => {
                deadline.get();
                self.silent |= 1 << held.entry;
                self.under_way.push_back((self.replies.len(), held, deadline));
                self.replies.push(None);
            }
            Err(error) => self.replies.push(Some(Err(error))),
        }
    }

    fn entry(&mut self, deadline: &Deadline) -> Option<Held> {
        let transport = self.transport;
        while !self.late {
            if let Some(held) = transport.entries.try_pick(|held| transport.is_done(held)) {
                return Some(held);
            }
            if !self.collect_oldest() {
                let picked = transport.entries.pick(|| deadline.get(), |held| transport.is_done(held));
                self.late = picked.is_none();
                return picked;
            }
        }
        None
    }

    /// False if nothing is under way.
    fn collect_oldest(&mut self) -> bool {
        if self.silent != 0 {
            self.transport.announce(self.rings, self.channel, self.silent);
            self.silent = 0;
        }
        let Some((at, held, deadline)) = self.under_way.pop_front() else { return false };
        let reply = self.transport.collect(held, &deadline);
        self.late |= matches!(reply, Err(TransportError::TimedOut(_)));
        self.replies[at] = Some(reply);
        true
    }

    fn finish(mut self) -> Vec<Result<Reply, TransportError>> {
        while self.collect_oldest() {}
        let lost = || Err(TransportError::TimedOut(self.transport.node()));
        self.replies.into_iter().map(|reply| reply.unwrap_or_else(lost)).collect()
    }
}

/// When a request is given up; the clock is first looked at when that matters.
struct Deadline {
    after: Duration,
    at: OnceCell<Instant>,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        Self { after, at: OnceCell::new() }
    }

    fn get(&self) -> Instant {
        *self.at.get_or_init(|| Instant::now() + self.after)
    }
}
