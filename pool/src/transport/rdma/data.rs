//! The holder's end of a link as far as memory is concerned: reads and writes of the home's frames.
//!
//! An access takes a slot of the arena, is posted to one of the queue pairs, and is over when its last request
//! completes. An access whose ends are no multiples of 8 is posted as up to three requests, so that whole
//! words are copied apart from parts of words; queue pairs work in order, so only the last says when it is done.
//!
//! Whoever posts an access while no other is under way *watches*: it looks for its completion itself for a moment, since
//! a hand-over to another thread costs more than the access. It then takes the completions of accesses that others
//! begin meanwhile too, and neither these nor the poller, which would only be in its way, do anything about them. Whoever
//! begins one first counts it as under way and then looks whether somebody watches; a watcher first ceases to be one and then
//! looks whether anything is under way; so one of the two leaves it to the poller in the end. When there are no free slots accesses wait in a queue, which is
//! bounded.
//!
//! Once the link has failed nothing is begun any more and no slot is used again; what is under way ends when the
//! device says so, or when the queue pairs have been destroyed.
//!
//! Locks: `lanes`, then `table`, a leaf. Callbacks are called with neither held.

use super::arena::{Arena, Slot};
use super::poller::Completer;
use super::verbs::{Completion, Cq, Local, Qp, What, Work, meaning};
use crate::transport::fabric::Landed;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Accesses under way at once on a link.
pub(super) const SLOTS: u16 = 64;
/// Requests that one access is at most.
pub(super) const PIECES: u32 = 3;
/// Accesses that wait for a slot.
const QUEUE: usize = 1024;
/// How long the device may take to end what was under way on a link that has failed.
const GRACE: Duration = Duration::from_secs(1);
/// The number, in a queue pair's list of memories, of the arena; those of the own frames follow.
const ARENA: usize = 0;

/// A part of a region that is registered in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Extent {
    /// Where it begins in the region.
    pub start: u64,
    /// Its length.
    pub len: u64,
    /// Its address for the device.
    pub addr: u64,
    /// Its key.
    pub rkey: u32,
}

impl Extent {
    /// Where in it `len` bytes at `offset` of the region are.
    pub fn place(&self, offset: u64, len: u64) -> Option<u64> {
        let into = offset.checked_sub(self.start)?;
        (into.checked_add(len)? <= self.len).then_some(into)
    }
}

/// What is wanted.
pub(super) enum Job {
    Read { offset: u64, len: usize, done: Landed<Vec<u8>> },
    Write { offset: u64, data: Vec<u8>, done: Landed<()> },
    Fetch { from: u64, into: u64, len: usize, done: Landed<()> },
}

impl Job {
    /// What is accessed at the home.
    fn range(&self) -> (u64, usize) {
        match self {
            Self::Read { offset, len, .. } => (*offset, *len),
            Self::Write { offset, data, .. } => (*offset, data.len()),
            Self::Fetch { from, len, .. } => (*from, *len),
        }
    }

    fn fail(self, why: &str) {
        match self {
            Self::Read { done, .. } => done(Err(why.into())),
            Self::Write { done, .. } | Self::Fetch { done, .. } => done(Err(why.into())),
        }
    }
}

/// An access that is under way.
struct Op {
    job: Job,
    slot: Slot,
    /// From the first time on that the poller has looked: who begins an access does not look at the clock.
    until: Option<Instant>,
}

#[derive(Default)]
struct Table {
    /// By slot.
    ops: Vec<Option<Op>>,
    free: Vec<Slot>,
    queue: VecDeque<Job>,
    /// When the link failed, and why.
    failed: Option<(Instant, String)>,
}

/// How a link behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// How long who posts looks for the completion itself.
    pub spin: Duration,
    /// How long an access may take.
    pub deadline: Duration,
}

/// See the module.
pub(super) struct Data {
    cq: Arc<Cq>,
    /// None once it is closed.
    lanes: RwLock<Vec<Qp>>,
    arena: Arc<Arena>,
    table: Mutex<Table>,
    /// Of each slot: how many accesses have used it.
    epochs: Vec<AtomicU32>,
    in_flight: AtomicUsize,
    watching: AtomicUsize,
    up: AtomicBool,
    /// The home's memory, and ours.
    there: Vec<Extent>,
    here: Vec<Extent>,
    timing: Timing,
}

/// An access's number: its slot, and which use of it.
fn id_of(slot: &Slot, epoch: u32) -> u64 {
    u64::from(epoch) << 16 | u64::from(slot.0)
}

impl Data {
    /// `lanes` are connected, complete into `cq`, and may name `arena` and then the extents of `here`.
    pub fn new(
        cq: Arc<Cq>,
        lanes: Vec<Qp>,
        (arena, slots): (Arc<Arena>, Vec<Slot>),
        (there, here): (Vec<Extent>, Vec<Extent>),
        timing: Timing,
    ) -> Self {
        let epochs = slots.iter().map(|_| AtomicU32::new(0)).collect();
        let ops = slots.iter().map(|_| None).collect();
        let table = Table { ops, free: slots, queue: VecDeque::new(), failed: None };
        let (table, lanes) = (Mutex::new(table), RwLock::new(lanes));
        let (in_flight, watching, up) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(true));
        Self { cq, lanes, arena, table, epochs, in_flight, watching, up, there, here, timing }
    }

    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Begins an access, or lets it wait for others. Gives it back if that cannot be done.
    pub fn start(&self, job: Job) -> Result<(), Job> {
        let (offset, len) = job.range();
        let fits = matches!(job, Job::Fetch { .. }) || len <= super::BUFFER;
        if !fits || !self.is_up() || self.there.iter().all(|e| e.place(offset, len as u64).is_none()) {
            return Err(job);
        }
        let slot = {
            let mut table = self.table.lock();
            match table.free.pop() {
                Some(slot) => slot,
                None if table.queue.len() < QUEUE && table.failed.is_none() => {
                    table.queue.push_back(job);
                    return Ok(());
                }
                None => return Err(job),
            }
        };
        let index = usize::from(slot.0);
        let epoch = self.epochs[index].load(Ordering::Acquire);
        self.launch(slot, job)?;
        if self.in_flight.load(Ordering::SeqCst) == 1 {
            self.watching.fetch_add(1, Ordering::SeqCst);
            self.watch_for(index, epoch);
            self.watching.fetch_sub(1, Ordering::SeqCst);
        }
        if self.in_flight.load(Ordering::SeqCst) > 0 && self.watching.load(Ordering::SeqCst) == 0 {
            // Left to the poller: see there.
            self.arm();
            self.take();
        }
        Ok(())
    }

    /// Looks for the end of an access for a while.
    fn watch_for(&self, index: usize, epoch: u32) {
        /// Looks between two glances at the clock.
        const LOOKS: u32 = 256;
        let mut begun = None;
        loop {
            for _ in 0..LOOKS {
                self.take();
                if self.epochs[index].load(Ordering::Acquire) != epoch {
                    return;
                }
            }
            if begun.get_or_insert_with(Instant::now).elapsed() >= self.timing.spin {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Posts an access. Gives it back if nothing of it was posted.
    fn launch(&self, slot: Slot, job: Job) -> Result<(), Job> {
        let lanes = self.lanes.read();
        let index = usize::from(slot.0);
        let Some(lane) = index.checked_rem(lanes.len()).map(|lane| &lanes[lane]) else { return Err(job) };
        let works = match self.works(&slot, &job) {
            Some(works) => works,
            None => {
                self.table.lock().free.push(slot);
                return Err(job);
            }
        };
        {
            let mut table = self.table.lock();
            if table.failed.is_some() {
                return Err(job);
            }
            table.ops[index] = Some(Op { job, slot, until: None });
            self.in_flight.fetch_add(1, Ordering::SeqCst);
        }
        for (number, work) in works.iter().flatten().enumerate() {
            if let Err(why) = lane.post(work) {
                drop(lanes);
                // What has been posted says itself how it ends, and what was not must be ended here.
                if number == 0
                    && let Some(op) = self.end(index)
                {
                    self.fail(&why);
                    return Err(op.job);
                }
                self.fail(&why);
                return Ok(());
            }
        }
        Ok(())
    }

    /// The requests that make up an access; data to be written are put where the device finds them.
    fn works(&self, slot: &Slot, job: &Job) -> Option<[Option<Work>; PIECES as usize]> {
        let (offset, len) = job.range();
        let at_home = |at: u64, len: usize| {
            let (extent, into) = self.there.iter().find_map(|e| Some((e, e.place(at, len as u64)?)))?;
            Some((extent.addr + into, extent.rkey))
        };
        let id = id_of(slot, self.epochs[usize::from(slot.0)].load(Ordering::Acquire));
        if let Job::Fetch { into, .. } = job {
            let here = self.here.iter().enumerate();
            let (number, at) = here.filter_map(|(n, e)| Some((n, e.place(*into, len as u64)?))).next()?;
            let (addr, rkey) = at_home(offset, len)?;
            let local = Local { mr: ARENA + 1 + number, at: at as usize, len };
            let work = Work { id, what: What::Read { addr, rkey }, local, signalled: true };
            return Some([Some(work), None, None]);
        }
        // The buffer lies to words as the memory there does.
        let shift = (offset % 8) as usize;
        if let Job::Write { data, .. } = job {
            self.arena.put(slot, shift, data);
        }
        let pieces = pieces(shift, len);
        let last = pieces.iter().rposition(|(_, len)| *len > 0)?;
        let mut works = [None; PIECES as usize];
        for (number, (at, len)) in pieces.into_iter().enumerate().filter(|(_, (_, len))| *len > 0) {
            let (addr, rkey) = at_home(offset + at as u64, len)?;
            let local = Local { mr: ARENA, at: self.arena.at(slot, shift + at), len };
            let what = match job {
                Job::Write { .. } => What::Write { addr, rkey },
                _ => What::Read { addr, rkey },
            };
            works[number] = Some(Work { id, what, local, signalled: number == last });
        }
        Some(works)
    }

    /// The access in this slot is over.
    fn end(&self, index: usize) -> Option<Op> {
        let op = self.table.lock().ops[index].take()?;
        self.ended(index);
        Some(op)
    }

    fn ended(&self, index: usize) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.epochs[index].fetch_add(1, Ordering::AcqRel);
    }

    /// Handles one completion; what is to be called, and what can be begun.
    fn completed(&self, completion: Completion, failure: &mut Option<String>) {
        let (index, epoch) = ((completion.id & 0xffff) as usize, (completion.id >> 16) as u32);
        let error = completion.result.err().map(meaning);
        let (job, slot, next) = {
            let mut table = self.table.lock();
            // Another request of the same access has ended it.
            if self.epochs.get(index).is_none_or(|e| e.load(Ordering::Acquire) != epoch) {
                return;
            }
            let Some(Op { job, slot, .. }) = table.ops[index].take() else { return };
            self.ended(index);
            let next = if error.is_none() && table.failed.is_none() { table.queue.pop_front() } else { None };
            match job {
                // What was read is in the slot still.
                Job::Write { .. } | Job::Fetch { .. } if error.is_none() && next.is_none() => {
                    table.free.push(slot);
                    (job, None, None)
                }
                _ => (job, Some(slot), next),
            }
        };
        if let Some(why) = error {
            job.fail(&why);
            failure.get_or_insert(why);
            return;
        }
        let data = match (&job, &slot) {
            (Job::Read { offset, len, .. }, Some(slot)) => self.arena.get(slot, (offset % 8) as usize, *len),
            _ => Vec::new(),
        };
        match (slot, next) {
            (Some(slot), Some(next)) => {
                if let Err(job) = self.launch(slot, next) {
                    job.fail("the link is down");
                }
            }
            (Some(slot), None) => self.table.lock().free.push(slot),
            (None, _) => {}
        }
        match job {
            Job::Read { done, .. } => done(Ok(data)),
            Job::Write { done, .. } | Job::Fetch { done, .. } => done(Ok(())),
        }
    }

    /// Takes and handles completions; whether there were any.
    fn take(&self) -> bool {
        let (mut any, mut failure) = (false, None);
        loop {
            match self.cq.poll(|completion| self.completed(completion, &mut failure)) {
                Ok(count) => {
                    any |= count > 0;
                    if count < Cq::MOST {
                        break;
                    }
                }
                Err(why) => {
                    failure.get_or_insert(why);
                    break;
                }
            }
        }
        if let Some(why) = failure {
            self.fail(&why);
        }
        any
    }

    /// Nothing is begun any more, and the device is told to end what is under way.
    pub fn fail(&self, why: &str) {
        self.up.store(false, Ordering::Release);
        let queue = {
            let mut table = self.table.lock();
            if table.failed.is_some() {
                return;
            }
            table.failed = Some((Instant::now(), why.into()));
            std::mem::take(&mut table.queue)
        };
        log::debug!("a link has failed: {why}");
        self.lanes.read().iter().for_each(Qp::fail);
        self.arm();
        queue.into_iter().for_each(|job| job.fail(why));
    }

    /// Destroys the queue pairs, after which nothing is under way.
    pub fn close(&self, why: &str) {
        self.fail(why);
        let lanes = std::mem::take(&mut *self.lanes.write());
        // What went well says so.
        self.take();
        drop(lanes);
        for index in 0..self.epochs.len() {
            if let Some(op) = self.end(index) {
                op.job.fail(why);
            }
        }
    }
}

/// `len` bytes of which the first lies `shift` bytes behind a word's beginning: what is before the first
/// whole word, whole words, and what is after the last; each as beginning and length, which may be 0.
fn pieces(shift: usize, len: usize) -> [(usize, usize); PIECES as usize] {
    let head = ((8 - shift) % 8).min(len);
    let words = (len - head) / 8 * 8;
    let tail = len - head - words;
    [(0, head), (head, words), (head + words, tail)]
}

impl Completer for Data {
    fn drain(&self) -> bool {
        self.watching.load(Ordering::SeqCst) == 0 && self.take()
    }

    fn arm(&self) {
        if self.is_busy()
            && self.watching.load(Ordering::SeqCst) == 0
            && let Err(why) = self.cq.arm()
        {
            log::debug!("{why}");
        }
    }

    fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    fn expire(&self, now: Instant) {
        // A watcher may have lost its processor.
        self.take();
        let (late, dead) = {
            let mut table = self.table.lock();
            let until = now + self.timing.deadline;
            let late = table.ops.iter_mut().flatten().any(|op| *op.until.get_or_insert(until) <= now);
            (late, table.failed.as_ref().is_some_and(|failed| now > failed.0 + GRACE))
        };
        if dead && self.is_busy() {
            self.close("the device does not end what it was asked");
        } else if late {
            self.fail("not done in time");
        }
    }

    fn device_lost(&self, why: &str) {
        self.fail(why);
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        self.close("it was closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_of_it_and_cut_at_words_only() {
        for shift in 0..8 {
            for len in 0..40 {
                let pieces = pieces(shift, len);
                let mut next = 0;
                for (at, piece) in pieces.iter().filter(|(_, piece)| *piece > 0) {
                    assert_eq!(*at, next);
                    next += piece;
                    assert!(next == len || (shift + next).is_multiple_of(8), "{shift} {len}: {pieces:?}");
                }
                assert_eq!(next, len);
            }
        }
        assert_eq!(pieces(0, 64), [(0, 0), (0, 64), (64, 0)]);
        assert_eq!(pieces(5, 20), [(0, 3), (3, 16), (19, 1)]);
    }

    #[test]
    fn an_extent_holds_what_is_all_in_it() {
        let extent = Extent { start: 100, len: 50, addr: 0, rkey: 0 };
        assert_eq!(extent.place(100, 50), Some(0));
        assert_eq!(extent.place(149, 1), Some(49));
        assert_eq!(
            (extent.place(99, 1), extent.place(149, 2), extent.place(120, u64::MAX)),
            (None, None, None)
        );
    }
}
