//! The daemon's side of the rings: finds requests, hands them out, and writes answers.
//!
//! One thread calls [`Server::run`]; it serves all channels. Answers may be given from any thread, at any
//! time. What is read from shared memory is never used unchecked: at worst a client that overwrites it
//! gets no answer.
//!
//! A restarted daemon serves what was submitted and not yet taken by the one before. What that one had
//! taken, or may have, is answered with [`Status::Lost`]: a request is carried out at most once.
//!
//! Locks: `poller` is a leaf, but for what `serve` locks, which is called under it and must not call the
//! server. It is not held during a sleep.

use super::protocol::{self, Kind, RingWord, Use};
use super::{BODY_MAX, Channel, Entry, Rings, Status, decode, encode};
use crate::cxl::layout::ENTRIES;
use crate::cxl::protocol::SharedWord;
use crate::cxl::region::{Region, Slept};
use crate::cxl::slots::ClientId;
use crate::proto::{Reply, Request};
use crate::spin::Spin;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Channels of which an entry is watched at a time.
const WATCHES: usize = 4;
/// How many requests may come by other ways before a watch that sees none moves on.
const CREDIT: u32 = 16;
/// The longest sleep. Nothing depends on it but recovery from overwritten memory.
const SLEEP: Duration = Duration::from_secs(1);
/// How long the poller waits between two looks where it cannot sleep at a word, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Why the channels of a region cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServeError {
    /// It has none.
    #[error("{0} was made without channels for other processes; remove it to make it anew with some")]
    NoChannels(String),
    /// A server of this process has not let go of all requests yet.
    #[error("the channels of {0} are still served; wait until all requests are answered")]
    Served(String),
}

/// Serves the channels of a region. There is one for a region at a time: it must have gone, and so must
/// all [`ReplyHandle`]s that it gave out, before there is another.
pub struct Server {
    region: Arc<Region>,
    /// For each channel what its handles share: who holds one more has not answered yet.
    channels: Box<[Arc<Served>]>,
    poller: Mutex<Poller>,
    spin: Spin,
    stopped: AtomicBool,
}

/// A channel, as the handles of its requests know it.
struct Served {
    service: Arc<Service>,
    number: u32,
}

/// Ends when the server and all handles have gone.
struct Service(Arc<Region>);

impl Drop for Service {
    fn drop(&mut self) {
        self.0.end_service();
    }
}

/// What only the poller changes.
struct Poller {
    /// For each entry of each channel, what was taken last.
    last: Box<[Use]>,
    watches: [Option<Watch>; WATCHES],
    /// The watch that moves on next.
    next: usize,
    backoff: Duration,
}

/// An entry that is watched.
#[derive(Clone, Copy)]
struct Watch {
    channel: u32,
    entry: u32,
    credit: u32,
}

/// A request that has arrived.
pub struct Call {
    /// The process that asks; see [`ClientId`]. 0 if it is gone.
    pub client: u64,
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: ReplyHandle,
}

/// The right, and duty, to answer one request. Dropped without an answer it gives an error to the client.
pub struct ReplyHandle {
    channel: Arc<Served>,
    entry: u32,
    this: Use,
    answered: bool,
}

impl Server {
    /// Takes over the channels of `region`, whose owner is this process.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn new(region: Arc<Region>) -> Result<Self, ServeError> {
        let name = || region.name().to_owned();
        let rings = Rings::new(&region).ok_or_else(|| ServeError::NoChannels(name()))?;
        if !region.begin_service() {
            return Err(ServeError::Served(name()));
        }
        let service = Arc::new(Service(Arc::clone(&region)));
        let served = |number| Arc::new(Served { service: Arc::clone(&service), number });
        let channels: Box<[_]> = (0..rings.channels()).map(served).collect();
        protocol::get_up(&rings.poller());
        for channel in (0..rings.channels()).filter_map(|number| rings.channel(number)) {
            take_over(channel);
        }
        rings.serving().store(fresh_number(), Ordering::Release);
        let poller = Mutex::new(Poller {
            last: vec![Use::default(); channels.len() * ENTRIES as usize].into(),
            watches: [None; WATCHES],
            next: 0,
            backoff: BACKOFF.0,
        });
        Ok(Self { region, channels, poller, spin: Spin::for_requests(), stopped: AtomicBool::new(false) })
    }

    /// Hands requests to `serve` as they come, until [`stop`](Self::stop). `serve` must not wait for
    /// anything. Looks for a while, then sleeps.
    pub fn run(&self, mut serve: impl FnMut(Call)) {
        let mut poller = self.poller.lock();
        while !self.stopped.load(Ordering::Acquire) {
            let found = self.spin.until(|| {
                let served = self.pass(&mut poller, &mut serve);
                (served > 0 || self.stopped.load(Ordering::Relaxed)).then_some(())
            });
            match found {
                Some(()) => {
                    poller.backoff = BACKOFF.0;
                    MutexGuard::bump(&mut poller);
                }
                None => {
                    let began = Instant::now();
                    self.sleep(&mut poller);
                    self.spin.slept(began.elapsed());
                }
            }
        }
    }

    /// Hands the requests that there are to `serve`; returns how many.
    pub fn poll(&self, mut serve: impl FnMut(Call)) -> usize {
        self.pass(&mut self.poller.lock(), &mut serve)
    }

    /// Makes [`run`](Self::run) return.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let Some(rings) = Rings::new(&self.region) else { return };
        if protocol::rouse(&rings.poller()) {
            rings.poller().wake();
        }
    }

    /// Frees the channels of clients that are dead, or have left with answers outstanding, once those are
    /// given. Returns how many channels the living have.
    pub fn sweep(&self) -> usize {
        let Some(rings) = Rings::new(&self.region) else { return 0 };
        let channels = (0..rings.channels()).filter_map(|number| rings.channel(number));
        channels.filter(|channel| !self.sweep_one(*channel)).count()
    }

    /// Whether the channel is free, or has no living owner.
    fn sweep_one(&self, channel: Channel<'_>) -> bool {
        let owner = channel.owner().load(Ordering::Acquire);
        let Some(client) = ClientId::from_raw(owner) else { return true };
        let left = || channel.leaving().load(Ordering::Acquire) != 0;
        let dead = !client.is_alive();
        if !dead && !left() {
            return false;
        }
        // While the poller takes nothing, and what it took has been answered.
        let _poller = self.poller.lock();
        let answered = Arc::strong_count(&self.channels[channel.number as usize]) == 1;
        // Pairs with the release of a handle, after its answer.
        fence(Ordering::Acquire);
        // A process that lives may have claimed the channel anew by now.
        if answered && channel.owner().load(Ordering::Acquire) == owner && (dead || left()) {
            channel.release();
        }
        true
    }

    fn pass(&self, poller: &mut Poller, serve: &mut impl FnMut(Call)) -> usize {
        let Some(rings) = Rings::new(&self.region) else { return 0 };
        let mut served = 0;
        for at in 0..WATCHES {
            if let Some(Watch { channel, entry, .. }) = poller.watches[at]
                && let Some(channel) = rings.channel(channel)
                && self.take(poller, channel, entry, serve)
            {
                poller.watches[at].iter_mut().for_each(|watch| watch.credit = CREDIT);
                served += 1;
            }
        }
        for group in 0..rings.groups() {
            for bit in bits(protocol::take_bits(&rings.bells(group))) {
                if let Some(channel) = rings.channel(group * 64 + bit) {
                    served += self.take_all(poller, channel, serve);
                }
            }
        }
        served
    }

    /// Takes all that a channel's bitmap says there is.
    fn take_all(&self, poller: &mut Poller, channel: Channel<'_>, serve: &mut impl FnMut(Call)) -> usize {
        let mut first = None;
        let mut served = 0;
        for entry in bits(protocol::take_bits(&channel.submitted())) {
            if self.take(poller, channel, entry, serve) {
                first = first.or(Some(entry));
                served += 1;
            }
        }
        if let Some(entry) = first {
            poller.consider(channel, entry);
        }
        served
    }

    /// Takes what is in an entry, if there is something that was not taken yet.
    #[inline]
    fn take(
        &self,
        poller: &mut Poller,
        channel: Channel<'_>,
        entry: u32,
        serve: &mut impl FnMut(Call),
    ) -> bool {
        let Some(cell) = channel.entry(entry) else { return false };
        let last = &mut poller.last[(channel.number * ENTRIES + entry) as usize];
        let Some((this, kind)) = protocol::look(&cell.state(), *last) else { return false };
        *last = this;
        let served = Arc::clone(&self.channels[channel.number as usize]);
        let mut reply = ReplyHandle { channel: served, entry, this, answered: false };
        if kind == Kind::Withdrawn {
            return true;
        }
        match cell.get(|_, message| decode(message)).flatten() {
            Some(request) => {
                let client = channel.owner().load(Ordering::Acquire);
                serve(Call { client, request, reply });
            }
            None => reply.finish(Status::Malformed, &[]),
        }
        true
    }

    /// Sleeps until there may be something to do.
    #[cold]
    fn sleep(&self, poller: &mut MutexGuard<'_, Poller>) {
        let Some(rings) = Rings::new(&self.region) else { return };
        for at in 0..WATCHES {
            poller.retire(rings, at);
        }
        let word = rings.poller();
        let expected = protocol::lie_down(&word);
        let called = (0..rings.groups()).any(|group| rings.bells(group).load(Ordering::Relaxed) != 0);
        if !called && !self.stopped.load(Ordering::SeqCst) {
            let backoff = poller.backoff;
            let slept = MutexGuard::unlocked(poller, || {
                let slept = word.sleep(expected, SLEEP);
                if slept == Slept::Impossible {
                    std::thread::sleep(backoff);
                }
                slept
            });
            if slept == Slept::Impossible {
                poller.backoff = (backoff * 2).min(BACKOFF.1);
            }
        }
        protocol::get_up(&word);
    }
}

impl Poller {
    /// After a request came from an entry that is not watched: watch it, if that seems better than what is
    /// watched now.
    fn consider(&mut self, channel: Channel<'_>, entry: u32) {
        // One entry of a channel at a time, since the record names but one.
        let same = |watch: &Option<Watch>| watch.is_some_and(|watch| watch.channel == channel.number);
        let at = match self.watches.iter().position(same) {
            Some(at) => at,
            None => match self.watches.iter().position(Option::is_none) {
                Some(at) => at,
                None => {
                    self.next = (self.next + 1) % WATCHES;
                    self.next
                }
            },
        };
        match &mut self.watches[at] {
            Some(watch) if watch.channel == channel.number && watch.entry == entry => return,
            Some(watch) if watch.credit > 0 => {
                watch.credit -= 1;
                return;
            }
            Some(_) => self.retire(channel.rings, at),
            None => {}
        }
        self.watches[at] = Some(Watch { channel: channel.number, entry, credit: CREDIT });
        protocol::watch(&channel.watched(), entry);
    }

    /// Ends a watch; what came by it just now gets a doorbell.
    fn retire(&mut self, rings: Rings<'_>, at: usize) {
        let Some(Watch { channel, entry, .. }) = self.watches[at].take() else { return };
        let Some(channel) = rings.channel(channel) else { return };
        let Some(cell) = channel.entry(entry) else { return };
        protocol::unwatch(&channel.watched());
        let last = self.last[(channel.number * ENTRIES + entry) as usize];
        if protocol::look(&cell.state(), last).is_some() {
            let (bell, bit) = channel.bell();
            protocol::ring(&channel.submitted(), 1 << entry, &bell, bit);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(rings) = Rings::new(&self.region) {
            rings.serving().store(0, Ordering::Release);
        }
    }
}

impl ReplyHandle {
    /// Answers. Dropped if the client is not there any more; one that is too long for a message is
    /// replaced by an error.
    #[inline]
    pub fn answer(mut self, reply: &Reply) {
        let written = encode(reply, |bytes| match bytes.len() {
            len if len > BODY_MAX => self.finish(Status::TooLarge, &(len as u64).to_le_bytes()),
            _ => self.finish(Status::Reply, bytes),
        });
        if let Err(error) = written {
            log::error!("an answer that cannot be encoded: {error}");
        }
    }

    #[inline]
    fn finish(&mut self, status: Status, message: &[u8]) {
        self.answered = true;
        let Served { service, number } = &*self.channel;
        let channel = Rings::new(&service.0).and_then(|rings| rings.channel(*number));
        if let Some(cell) = channel.and_then(|channel| channel.entry(self.entry)) {
            put_back(cell, self.this, status, message);
        }
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        if !self.answered {
            self.finish(Status::Dropped, &[]);
        }
    }
}

#[inline]
fn put_back(cell: Entry<'_>, this: Use, status: Status, message: &[u8]) {
    if protocol::is_held(&cell.state(), this) {
        cell.put(status, message);
        if protocol::finish(&cell.state(), this) {
            cell.state().wake();
        }
    }
}

/// Settles what the daemon before this one left in a channel.
fn take_over(channel: Channel<'_>) {
    protocol::unwatch(&channel.watched());
    if channel.owner().load(Ordering::Acquire) == 0 {
        return;
    }
    let submitted = channel.submitted().load(Ordering::Acquire);
    if submitted != 0 {
        let (bell, bit) = channel.bell();
        bell.set(bit);
    }
    for (number, cell) in channel.entries().filter(|(number, _)| submitted >> number & 1 == 0) {
        if let Some((this, _)) = protocol::look(&cell.state(), Use::default()) {
            log::debug!("channel {}, entry {number}: lost by a restart", channel.number);
            put_back(cell, this, Status::Lost, &[]);
        }
    }
}

/// The numbers of the bits that are set.
fn bits(mut mask: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros());
        mask &= mask.wrapping_sub(1);
        bit
    })
}

/// A number that no daemon before had; not zero.
fn fresh_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(ClientId::this_process().raw()) | 1
}
