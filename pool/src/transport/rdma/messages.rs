//! Short messages over a queue pair of their own: requests one way, their replies the other.
//!
//! Each side has given the other as many buffers as messages can be on their way: the holder has at most
//! [`CREDITS`] requests without a reply, so neither side's buffers run out, and a message finds one (after replies that came too late to count, perhaps
//! at the second attempt, which the device makes by itself).
//! A message is a frame as on TCP, with its checksum.
//!
//! Locks: `qp`, then `sends`; `pending` is a leaf. Messages are handled, and callbacks called, with none held.

use super::arena::{Arena, Slot};
use super::poller::Completer;
use super::verbs::{Completion, Cq, Local, Qp, What, Work, meaning};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::tcp::frame::{self, Kind};
use crate::transport::{Answer, Done, Handler, TransportError, fabric::Unsent, fabric::broken};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The longest message.
pub(super) const LONGEST: usize = 4 << 10;
/// Requests without a reply.
const CREDITS: usize = 32;
/// Buffers for sending, and as many for receiving.
pub(super) const BUFFERS: u16 = 2 * CREDITS as u16;

struct Waiting {
    done: Done<Reply>,
    until: Instant,
}

#[derive(Default)]
struct Sends {
    free: Vec<Slot>,
    /// Under way, by slot.
    used: HashMap<u16, Slot>,
    queue: VecDeque<Vec<u8>>,
}

/// One end of the queue pair.
pub(super) struct Messages {
    cq: Arc<Cq>,
    /// None once it is closed.
    qp: RwLock<Option<Qp>>,
    arena: Arc<Arena>,
    sends: Mutex<Sends>,
    pending: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    up: AtomicBool,
    /// The other side, for the holder.
    to: Option<NodeId>,
    /// Who takes requests, for the home.
    handler: Option<Weak<dyn Handler>>,
    deadline: Duration,
    this: Weak<Self>,
}

impl Messages {
    /// `qp` is not connected yet, completes into `cq`, and may name `arena`, which has twice [`BUFFERS`] slots.
    pub fn new(
        cq: Arc<Cq>,
        qp: Qp,
        (arena, mut slots): (Arc<Arena>, Vec<Slot>),
        to: Option<NodeId>,
        handler: Option<Weak<dyn Handler>>,
        deadline: Duration,
    ) -> Result<Arc<Self>, String> {
        let receives = slots.split_off(usize::from(BUFFERS));
        for slot in &receives {
            let at = arena.at(slot, 0);
            qp.post_receive(u64::from(slot.0), Local { mr: 0, at, len: LONGEST })?;
        }
        let sends = Mutex::new(Sends { free: slots, ..Sends::default() });
        let (qp, up, pending) = (RwLock::new(Some(qp)), AtomicBool::new(true), Mutex::default());
        let next = AtomicU64::new(1);
        Ok(Arc::new_cyclic(|this| Self {
            cq,
            qp,
            arena,
            sends,
            pending,
            next,
            up,
            to,
            handler,
            deadline,
            this: this.clone(),
        }))
    }

    /// Connects the queue pair, as [`Qp::connect`].
    pub fn connect(&self, to: &super::verbs::Address, timeout: u8) -> Result<(), String> {
        self.qp.read().as_ref().ok_or("it was closed")?.connect(to, timeout)
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Sends a request. Gives it back if it does not fit, or too many have no reply yet.
    pub fn request(&self, request: Request, done: Done<Reply>) -> Result<(), Unsent> {
        if !self.is_up() {
            return Err(Box::new((request, done)));
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = match frame::encode(Kind::Request, id, &request) {
            Ok(frame) if frame.len() <= LONGEST => frame,
            _ => return Err(Box::new((request, done))),
        };
        {
            let mut pending = self.pending.lock();
            if pending.len() >= CREDITS {
                return Err(Box::new((request, done)));
            }
            pending.insert(id, Waiting { done, until: Instant::now() + self.deadline });
        }
        self.send(frame);
        // Who failed the link in between may have missed it.
        if !self.is_up() {
            self.abandon("it was closed");
        }
        Ok(())
    }

    /// Sends a frame, now or when there is a buffer again.
    fn send(&self, frame: Vec<u8>) {
        let posted = {
            let qp = self.qp.read();
            let Some(qp) = &*qp else { return };
            let mut sends = self.sends.lock();
            sends.queue.push_back(frame);
            self.send_queued(qp, &mut sends)
        };
        if let Err(why) = posted {
            self.fail(&why);
        }
    }

    fn send_queued(&self, qp: &Qp, sends: &mut Sends) -> Result<(), String> {
        while let Some(slot) = sends.free.pop() {
            let Some(frame) = sends.queue.pop_front() else {
                sends.free.push(slot);
                break;
            };
            self.arena.put(&slot, 0, &frame);
            let local = Local { mr: 0, at: self.arena.at(&slot, 0), len: frame.len() };
            let id = u64::from(slot.0);
            sends.used.insert(slot.0, slot);
            qp.post(&Work { id, what: What::Send, local, signalled: true })?;
        }
        Ok(())
    }

    /// Handles one completion; what was received, if anything.
    fn completed(&self, completion: Completion) -> Result<Option<Vec<u8>>, String> {
        let len = completion.result.map_err(meaning)? as usize;
        let number = u16::try_from(completion.id).map_err(|_| "an unknown completion")?;
        let qp = self.qp.read();
        let Some(qp) = &*qp else { return Ok(None) };
        if number < BUFFERS {
            let mut sends = self.sends.lock();
            if let Some(slot) = sends.used.remove(&number) {
                sends.free.push(slot);
            }
            return self.send_queued(qp, &mut sends).map(|()| None);
        }
        let slot = Slot(number);
        let message = self.arena.get(&slot, 0, len.min(LONGEST));
        qp.post_receive(completion.id, Local { mr: 0, at: self.arena.at(&slot, 0), len: LONGEST })?;
        Ok(Some(message))
    }

    fn handle(&self, completion: Completion) {
        let received = self.completed(completion);
        let handled = received.and_then(|message| message.map_or(Ok(()), |message| self.received(&message)));
        if let Err(why) = handled
            && self.is_up()
        {
            log::debug!("the messages of a link have failed: {why}");
            self.fail(&why);
        }
    }

    fn received(&self, message: &[u8]) -> Result<(), String> {
        let header = frame::header(message).map_err(|e| e.to_string())?.ok_or("half a message")?;
        match (header.kind, &self.handler) {
            (Kind::Reply, None) => {
                let reply: Reply = frame::message(message).map_err(|e| e.to_string())?;
                let waiting = self.pending.lock().remove(&header.id);
                if let Some(waiting) = waiting {
                    (waiting.done)(Ok(reply));
                }
                Ok(())
            }
            (Kind::Request, Some(handler)) => {
                let request: Request = frame::message(message).map_err(|e| e.to_string())?;
                let handler = handler.upgrade().ok_or("nobody serves requests any more")?;
                handler.serve(request, self.answer(header.id));
                Ok(())
            }
            _ => Err("a message that does not belong there".into()),
        }
    }

    fn answer(&self, id: u64) -> Answer {
        let this = self.this.clone();
        Box::new(move |reply| {
            let Some(this) = this.upgrade() else { return };
            match frame::encode(Kind::Reply, id, &reply) {
                Ok(frame) if frame.len() <= LONGEST => this.send(frame),
                Ok(frame) => this.fail(&format!("a reply of {} bytes is too long", frame.len())),
                Err(why) => this.fail(&why.to_string()),
            }
        })
    }

    /// Nothing is sent any more, and nobody waits for replies.
    pub fn fail(&self, why: &str) {
        self.up.store(false, Ordering::Release);
        if let Some(qp) = &*self.qp.read() {
            qp.fail();
        }
        self.abandon(why);
    }

    fn abandon(&self, why: &str) {
        let pending = std::mem::take(&mut *self.pending.lock());
        let to = self.to.unwrap_or(NodeId::Master);
        pending.into_values().for_each(|waiting| (waiting.done)(Err(broken(to, why))));
    }

    /// Destroys the queue pair.
    pub fn close(&self, why: &str) {
        self.fail(why);
        let qp = self.qp.write().take();
        drop(qp);
    }
}

impl Completer for Messages {
    fn drain(&self) -> bool {
        let mut any = false;
        loop {
            match self.cq.poll(|completion| self.handle(completion)) {
                Ok(0) => return any,
                Ok(_) => any = true,
                Err(why) => {
                    self.fail(&why);
                    return any;
                }
            }
        }
    }

    fn arm(&self) {
        if self.is_up()
            && let Err(why) = self.cq.arm()
        {
            log::debug!("{why}");
        }
    }

    fn is_busy(&self) -> bool {
        !self.pending.lock().is_empty()
    }

    fn expire(&self, now: Instant) {
        let late: Vec<Waiting> = {
            let mut pending = self.pending.lock();
            let late: Vec<u64> = pending.iter().filter(|(_, w)| w.until <= now).map(|(id, _)| *id).collect();
            late.iter().filter_map(|id| pending.remove(id)).collect()
        };
        if late.is_empty() {
            return;
        }
        let to = self.to.unwrap_or(NodeId::Master);
        late.into_iter().for_each(|waiting| (waiting.done)(Err(TransportError::TimedOut(to))));
    }

    fn device_lost(&self, why: &str) {
        self.fail(why);
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.close("it was closed");
    }
}
