//! One-sided access by RDMA verbs, on InfiniBand and RoCE.
//!
//! | module | what it owns |
//! | --- | --- |
//! | `verbs` | devices, queues, registrations as owned objects; alone in knowing rdma-sys |
//! | `arena` | buffers |
//! | `data` | the holder's end of a link: reads and writes |
//! | `messages` | short requests and replies, both ends |
//! | `poller` | the thread that takes completions nobody else is waiting for |
//!
//! A link from one daemon to another is [`LANES`] reliable connected queue pairs for reads and writes, and one for
//! messages; the link back is another. The daemons tell each other the numbers of their queue pairs over TCP
//! ([`racks`](super::Racks)), not by rdma_cm: they have a connection already, and the answer carries the
//! key that the link is for. What makes it safe is written in [`fabric`](super::fabric).
//!
//! The frames of the region are registered once, in as many pieces as the device demands, for all links
//! together; from then on the region keeps its memory. Reads and writes of clients go between the home's frames and a
//! registered buffer; pages that move are read from the home's frame straight into the frame they are to
//! have.
//!
//! Compare-and-swap is not done by the device: it goes as a message, and the processor of the home does it. Most
//! devices' atomic operations are atomic among themselves only (`IBV_ATOMIC_HCA`), and a word that both devices
//! and processors change would lose changes. It is so also where a device says that its operations are atomic with
//! the processor's (`IBV_ATOMIC_GLOB`): there is no such device here to try that on, and a promise of all
//! words being linearizable is not made to rest on something untried. What the device says is in `rcmp status`.

mod arena;
mod data;
mod messages;
mod poller;
mod verbs;

use super::fabric::{Accepted, Begun, Fabric, Link};
use super::{Done, Handler};
use crate::cxl::region::Region;
use crate::proto::{NodeId, Reply, Request};
use arena::{Arena, FrameMemory};
use data::{Data, Extent, Job, PIECES, SLOTS, Timing};
use messages::{BUFFERS, LONGEST, Messages};
use parking_lot::Mutex;
use poller::{Completer, Poller};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use verbs::{Address, Channel, Cq, Device, Memory, Mr, Pd, Qp};

/// Queue pairs of a link for reads and writes.
pub const LANES: usize = 2;
/// Bytes of a buffer: the longest access of a client.
const BUFFER: usize = crate::proto::page::ACCESS_MAX;
/// Bytes that are copied into a request, where the device can.
const INLINE: u32 = 128;
/// Requests that a queue pair for reads and writes holds.
const DEPTH: u32 = SLOTS as u32 * PIECES;
/// The pause between two attempts to open a device that has been removed.
const REOPEN: Duration = Duration::from_secs(1);
/// The version of an offer and its answer.
const VERSION: u32 = 1;

/// How RDMA is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdmaConfig {
    /// The device; else the one that has the address `near`, else the first whose port is up.
    pub device: Option<String>,
    /// The address of this daemon.
    pub near: Option<IpAddr>,
    /// How long an access, or a message, may take.
    pub deadline: Duration,
    /// How long to look for a completion before sleeping.
    pub spin: Duration,
}

/// A device that can be used.
pub struct RdmaDevice {
    device: Arc<Device>,
    config: RdmaConfig,
}

impl RdmaDevice {
    /// Opens a device.
    ///
    /// # Errors
    /// A sentence, if there is no library, no driver, or no device whose port is up.
    pub fn open(config: RdmaConfig) -> Result<Self, String> {
        Ok(Self { device: Device::open(config.device.as_deref(), config.near)?, config })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        let emulated = if self.device.is_emulated() { ", emulated: slower than TCP" } else { "" };
        format!("{}{emulated}", self.device.describe())
    }

    /// Registers the frames of `region`.
    ///
    /// # Errors
    /// A sentence, if the device or the limit on locked memory does not allow it.
    pub fn register(self, region: Arc<Region>) -> Result<Arc<Rdma>, String> {
        let Self { device, config } = self;
        let (name, atomics) = (device.describe(), device.limits().atomics);
        let open = Open::new(&device, &region, &config)?;
        let state = Mutex::new((Some(Arc::new(open)), Instant::now()));
        Ok(Arc::new(Rdma { state, name, atomics, region, config }))
    }
}

/// `len` bytes in pieces of at most `most`, cut between pages.
fn chunks(len: u64, most: u64, page: u64) -> impl Iterator<Item = Range<u64>> {
    let step = (most / page * page).max(page);
    (0..len.div_ceil(step)).map(move |n| n * step..((n + 1) * step).min(len))
}

/// A device with the frames of a region, whether it is there or not: when it has been removed all links by it
/// fail, and it is closed as soon as they have been dropped, which a driver may wait for; when it is back, who begins a link opens and
/// registers it anew.
pub struct Rdma {
    /// None while there is no device; and when it was last opened, or tried to.
    state: Mutex<(Option<Arc<Open>>, Instant)>,
    name: String,
    atomics: &'static str,
    region: Arc<Region>,
    config: RdmaConfig,
}

impl Rdma {
    /// The device, if it is there.
    fn open(&self) -> Result<Arc<Open>, String> {
        let mut state = self.state.lock();
        if let Some(open) = &state.0 {
            if !open.pd.device().is_lost() {
                return Ok(Arc::clone(open));
            }
            // Whoever has a link by it drops that by itself.
            *state = (None, Instant::now());
        }
        Err(format!("{} has been removed", self.name))
    }

    /// As [`open`](Self::open), but opens it again if it is back. May take as long as the registration of all memory does.
    fn reopen(&self) -> Result<Arc<Open>, String> {
        let gone = match self.open() {
            Ok(open) => return Ok(open),
            Err(gone) => gone,
        };
        {
            let mut state = self.state.lock();
            if state.1.elapsed() < REOPEN {
                return Err(gone);
            }
            // Others who come meanwhile go on without.
            state.1 = Instant::now();
        }
        let RdmaDevice { device, config } = RdmaDevice::open(self.config.clone())?;
        let open = Arc::new(Open::new(&device, &self.region, &config)?);
        log::info!("RDMA by {} again", device.describe());
        let mut state = self.state.lock();
        // Should another have been quicker, there is no harm in the older one's links.
        *state = (Some(Arc::clone(&open)), Instant::now());
        Ok(open)
    }
}

/// A device that is open, with the frames registered.
struct Open {
    poller: Arc<Poller>,
    frames: Vec<(Arc<Mr>, Extent)>,
    channel: Arc<Channel>,
    pd: Arc<Pd>,
    config: RdmaConfig,
}

impl Open {
    fn new(device: &Arc<Device>, region: &Arc<Region>, config: &RdmaConfig) -> Result<Self, String> {
        region.keep_memory();
        let (limits, g) = (device.limits(), *region.geometry());
        if limits.queue < DEPTH || (limits.message as u64) < g.page_size.bytes() {
            return Err(format!("{} is too small for this: {limits:?}", device.describe()));
        }
        let pd = Pd::new(device)?;
        let channel = Channel::new(device)?;
        let memory: Arc<dyn Memory> = Arc::new(FrameMemory(Arc::clone(region)));
        let mut frames = Vec::new();
        for range in chunks(g.data_bytes(), limits.mr_bytes, g.page_size.bytes()) {
            let mr = Mr::new(&pd, &memory, range.start as usize..range.end as usize, true)?;
            let ((addr, rkey), len) = (mr.remote(), range.end - range.start);
            frames.push((mr, Extent { start: g.frames_at + range.start, len, addr, rkey }));
        }
        let poller = Poller::start(device, &channel, config.spin)?;
        Ok(Self { poller: Arc::new(poller), frames, channel, pd, config: config.clone() })
    }
}

/// A queue pair for messages, before it is connected, with its completion queue and buffers.
type MessageEnd = (Arc<Cq>, Qp, (Arc<Arena>, Vec<arena::Slot>));

/// What the holder tells the home.
#[derive(serde::Serialize, serde::Deserialize)]
struct Offer {
    version: u32,
    data: Vec<Address>,
    messages: Address,
}

/// What the home tells the holder.
#[derive(serde::Serialize, serde::Deserialize)]
struct AnswerToIt {
    data: Vec<Address>,
    messages: Address,
    frames: Vec<Extent>,
}

impl Open {
    /// How long a packet waits for its acknowledgement, as verbs write it: so that all retries together take
    /// about half of the deadline, and at most some seconds.
    fn timeout(&self) -> u8 {
        let one = self.config.deadline.as_micros() as f64 / 16.0 / 4.096;
        one.log2().clamp(10.0, 17.0) as u8
    }

    fn message_end(&self) -> Result<MessageEnd, String> {
        let arena = Arena::new(2 * BUFFERS, LONGEST)?;
        let memory: Arc<dyn Memory> = arena.0.clone();
        let mr = Mr::new(&self.pd, &memory, 0..memory.range().1, false)?;
        let buffers = u32::from(BUFFERS);
        let cq = Cq::new(&self.channel, 2 * buffers + 16)?;
        let qp = Qp::new(&self.pd, &cq, (buffers, buffers), INLINE, vec![mr])?;
        Ok((cq, qp, arena))
    }

    fn extents(&self) -> Vec<Extent> {
        self.frames.iter().map(|(_, extent)| *extent).collect()
    }

    fn watch(&self, completer: &Arc<impl Completer + 'static>) {
        let completer: Weak<dyn Completer> = Arc::downgrade(&(Arc::clone(completer) as Arc<dyn Completer>));
        self.poller.add(completer);
    }
}

impl Fabric for Arc<Rdma> {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn atomics(&self) -> &'static str {
        self.atomics
    }

    fn begin(&self) -> Result<(Box<dyn Begun>, Vec<u8>), String> {
        let open = self.reopen()?;
        open.pd.device().look_at_port()?;
        let arena = Arena::new(SLOTS, BUFFER + 8)?;
        let memory: Arc<dyn Memory> = arena.0.clone();
        let buffers = Mr::new(&open.pd, &memory, 0..memory.range().1, false)?;
        let cq = Cq::new(&open.channel, LANES as u32 * (DEPTH + 16))?;
        let mut mrs = vec![buffers];
        mrs.extend(open.frames.iter().map(|(mr, _)| Arc::clone(mr)));
        let lane = |_| Qp::new(&open.pd, &cq, (DEPTH + 16, 1), INLINE, mrs.clone());
        let lanes = (0..LANES).map(lane).collect::<Result<Vec<_>, _>>()?;
        let messages = open.message_end()?;
        let data = lanes.iter().map(Qp::address).collect();
        let offer = encode(&Offer { version: VERSION, data, messages: messages.1.address() })?;
        Ok((Box::new(Half { open, cq, lanes, arena, messages }), offer))
    }

    fn accept(
        &self,
        offer: &[u8],
        handler: Weak<dyn Handler>,
    ) -> Result<(Arc<dyn Accepted>, Vec<u8>), String> {
        let offer: Offer = decode(offer)?;
        if offer.version != VERSION || offer.data.len() > 16 {
            return Err("its offer of a link is of another version".into());
        }
        // Not opened again here: who waits for this holds a lock.
        let open = self.open()?;
        open.pd.device().look_at_port()?;
        let (cq, qp, arena) = open.message_end()?;
        let timeout = open.timeout();
        let mrs: Vec<Arc<Mr>> = open.frames.iter().map(|(mr, _)| Arc::clone(mr)).collect();
        let mut lanes = Vec::new();
        for address in &offer.data {
            let lane = Qp::new(&open.pd, &cq, (1, 1), 0, mrs.clone())?;
            lane.connect(address, timeout)?;
            lanes.push(lane);
        }
        let data = lanes.iter().map(Qp::address).collect();
        let messages_at = qp.address();
        let messages = Messages::new(cq, qp, arena, None, Some(handler), self.config.deadline)?;
        messages.connect(&offer.messages, timeout)?;
        open.watch(&messages);
        let answer = encode(&AnswerToIt { data, messages: messages_at, frames: open.extents() })?;
        let _poller = Arc::clone(&open.poller);
        Ok((Arc::new(Incoming { lanes: Mutex::new(lanes), messages, _poller }), answer))
    }
}

fn encode(message: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    postcard::to_allocvec(message).map_err(|e| e.to_string())
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|_| "its offer of a link is not one of this version".into())
}

/// A link that has been offered.
struct Half {
    open: Arc<Open>,
    cq: Arc<Cq>,
    lanes: Vec<Qp>,
    arena: (Arc<Arena>, Vec<arena::Slot>),
    messages: MessageEnd,
}

impl Begun for Half {
    fn finish(self: Box<Self>, to: NodeId, answer: &[u8]) -> Result<Arc<dyn Link>, String> {
        let Self { open, cq, lanes, arena, messages: (message_cq, qp, message_arena) } = *self;
        let answer: AnswerToIt = decode(answer)?;
        if answer.data.len() != lanes.len() {
            return Err("its answer does not fit the offer of a link".into());
        }
        let (timeout, config) = (open.timeout(), &open.config);
        let messages = Messages::new(message_cq, qp, message_arena, Some(to), None, config.deadline)?;
        messages.connect(&answer.messages, timeout)?;
        for (lane, address) in lanes.iter().zip(&answer.data) {
            lane.connect(address, timeout)?;
        }
        let timing = Timing { spin: config.spin, deadline: config.deadline };
        let data = Arc::new(Data::new(cq, lanes, arena, (answer.frames, open.extents()), timing));
        open.watch(&data);
        open.watch(&messages);
        Ok(Arc::new(Outgoing { data, messages, _poller: Arc::clone(&open.poller) }))
    }
}

/// The home's end.
struct Incoming {
    lanes: Mutex<Vec<Qp>>,
    messages: Arc<Messages>,
    _poller: Arc<Poller>,
}

impl Accepted for Incoming {
    fn close(&self) {
        drop(std::mem::take(&mut *self.lanes.lock()));
        self.messages.close("the link was closed");
    }

    fn is_up(&self) -> bool {
        self.messages.is_up()
    }
}

/// The holder's end.
struct Outgoing {
    data: Arc<Data>,
    messages: Arc<Messages>,
    _poller: Arc<Poller>,
}

impl Link for Outgoing {
    fn is_up(&self) -> bool {
        self.data.is_up() && self.messages.is_up()
    }

    fn close(&self, why: &str) {
        self.messages.close(why);
        self.data.close(why);
    }

    fn read(
        &self,
        offset: u64,
        len: u32,
        done: super::fabric::Landed<Vec<u8>>,
    ) -> Result<(), super::fabric::Landed<Vec<u8>>> {
        self.data.start(Job::Read { offset, len: len as usize, done }).map_err(|job| match job {
            Job::Read { done, .. } => done,
            // What is given back is what was given.
            Job::Write { .. } | Job::Fetch { .. } => Box::new(drop),
        })
    }

    fn write(
        &self,
        offset: u64,
        data: Vec<u8>,
        done: super::fabric::Landed<()>,
    ) -> Result<(), (Vec<u8>, super::fabric::Landed<()>)> {
        self.data.start(Job::Write { offset, data, done }).map_err(|job| match job {
            Job::Write { data, done, .. } => (data, done),
            Job::Read { .. } | Job::Fetch { .. } => (Vec::new(), Box::new(drop) as _),
        })
    }

    fn fetch(&self, from: u64, into: u64, len: u64) -> Result<(), String> {
        let (sender, receiver) = sync_channel(1);
        let len = usize::try_from(len).map_err(|_| "too long")?;
        // The other end is there until the callback has been called, which it always is.
        let done = Box::new(move |result| drop(sender.send(result)));
        if self.data.start(Job::Fetch { from, into, len, done }).is_err() {
            return Err("the link is down".into());
        }
        receiver.recv().unwrap_or_else(|_| Err("it was closed".into()))
    }

    fn request(&self, request: Request, done: Done<Reply>) -> Result<(), super::fabric::Unsent> {
        self.messages.request(request, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_registered_is_all_of_it_and_no_page_is_cut() {
        for (len, most, page) in
            [(1 << 20, u64::MAX, 4096), (10 * 4096, 3 * 4096 + 7, 4096), (4096, 100, 4096)]
        {
            let all: Vec<_> = chunks(len, most, page).collect();
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, len));
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(all.iter().all(|range| range.start % page == 0 && range.end % page == 0));
        }
    }
}
