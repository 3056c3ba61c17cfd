//! How many lanes each queue has.
//!
//! A request waits in its queue until a lane of that queue is free. If all lanes of a queue wait for
//! something themselves, that something may be a request in the same queue (data that the kernel must
//! write back, an inode that another mount wants given up), and nothing would ever move. So a queue in
//! which nothing moves gets another lane: at once when a lane says that it is [about to
//! wait](about_to_wait), and otherwise after [`STUCK`], by a thread that looks on while a queue has no
//! free lane, and sleeps while all have.
//!
//! The kernel gives a new entry only requests that come after it, and those that wait when one of them has
//! been answered. So a new lane has the kernel make a request of which nothing is wanted (a [nudge]). It
//! must be about a regular file that the kernel knows: one that was used lately.
//!
//! Lanes are never given up: the kernel knows no way to take an entry back.
//!
//! Lock order: `handles` is a leaf, as is `watching`.
//!
//! [nudge]: super::wire::nudge

use super::entry::Entry;
use super::{lane, wire};
use crate::fuse::decide::Decider;
use parking_lot::{Condvar, Mutex};
use pool::proto::meta::Ino;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long nothing may move in a queue before it gets another lane.
const STUCK: Duration = Duration::from_millis(5);
/// The most lanes of a queue. One takes a thread, and as much memory as the largest request that it had.
const MOST_LANES: usize = 256;

/// No more lanes can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLane;

/// The lanes of a mount.
pub struct Crew {
    /// Who decides about requests.
    pub decider: Arc<Decider>,
    /// The one user who is let in, if it is not everyone.
    pub owner: Option<u32>,
    device: Arc<OwnedFd>,
    payload: usize,
    queues: Vec<Queue>,
    handles: Mutex<Vec<JoinHandle<()>>>,
    over: AtomicBool,
    /// A queue has no free lane: somebody must look on.
    watching: Mutex<bool>,
    dry: Condvar,
    /// The same as `watching`, without the lock.
    alert: AtomicBool,
    /// Nudges so far.
    nudges: AtomicUsize,
}

/// A queue: that of one processor.
#[derive(Default)]
struct Queue {
    lanes: AtomicUsize,
    /// Lanes that wait for a request. May be one too many for the moment in which a lane takes one.
    free: AtomicUsize,
    /// Requests answered, modulo the size of the counter.
    answered: AtomicUsize,
    /// A regular file that was used lately; 0 before there is one.
    file: AtomicU64,
}

thread_local! {
    /// The lane that this thread is.
    static LANE: RefCell<Option<(Weak<Crew>, u16)>> = const { RefCell::new(None) };
}

/// The calling thread is going to wait for something that may take another request to the same mount. If
/// it is a lane, its queue gets another one when it has none to spare.
///
/// # Errors
/// If there can be no more; then do not wait.
pub fn about_to_wait() -> Result<(), NoLane> {
    let lane = LANE.with_borrow(|lane| lane.as_ref().map(|(crew, queue)| (crew.upgrade(), *queue)));
    match lane {
        Some((Some(crew), queue)) => crew.relieve(queue),
        _ => Ok(()),
    }
}

impl Crew {
    /// A crew for `queues` queues of the connection `device`, whose largest payload is `payload` bytes. It
    /// has no lanes yet.
    pub fn new(
        decider: Arc<Decider>,
        owner: Option<u32>,
        device: OwnedFd,
        queues: usize,
        payload: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            decider,
            owner,
            device: Arc::new(device),
            payload,
            queues: (0..queues).map(|_| Queue::default()).collect(),
            handles: Mutex::default(),
            over: AtomicBool::new(false),
            watching: Mutex::default(),
            dry: Condvar::new(),
            alert: AtomicBool::new(false),
            nudges: AtomicUsize::new(0),
        })
    }

    /// Adds a lane to each queue, `lanes` times, and starts the thread that looks on. Each lane sends through
    /// `ready` whether it has what it needs, then waits for `go`, or ends when that is `false`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn muster(
        self: &Arc<Self>,
        lanes: usize,
        ready: &Sender<io::Result<()>>,
        go: &Gate,
    ) -> io::Result<()> {
        for _ in 0..lanes.clamp(1, MOST_LANES) {
            for queue in 0..self.queues.len() {
                self.add(queue as u16, Some((ready.clone(), go.clone())))?;
            }
        }
        let crew = self.clone();
        thread::Builder::new().name("rings".into()).spawn(move || crew.look_on()).map(|h| self.keep(h))
    }

    fn keep(&self, handle: JoinHandle<()>) {
        self.handles.lock().push(handle);
    }

    fn queue(&self, queue: u16) -> Option<&Queue> {
        self.queues.get(usize::from(queue))
    }

    /// Starts a lane. One that belongs to the first ones reports, and waits for its start.
    fn add(self: &Arc<Self>, queue: u16, start: Option<Start>) -> io::Result<()> {
        let Some(state) = self.queue(queue) else { return Err(io::ErrorKind::InvalidInput.into()) };
        // Counted before it runs, so that nobody else adds one for the same reason.
        state.lanes.fetch_add(1, Ordering::Relaxed);
        state.free.fetch_add(1, Ordering::Relaxed);
        let crew = self.clone();
        let run = move || {
            LANE.set(Some((Arc::downgrade(&crew), queue)));
            lane::pin(queue);
            let entry = Entry::new(crew.device.clone(), queue, crew.payload);
            let entry = match start {
                Some((ready, go)) => wait_for_start(entry, &ready, &go),
                None => entry.and_then(|entry| crew.join_in(entry)).map(Some),
            };
            match entry {
                Ok(Some(entry)) => lane::run(&crew, queue, entry),
                Ok(None) => {}
                Err(e) => log::error!("no further lane for ring {queue}: {e}"),
            }
            crew.left(queue);
        };
        match thread::Builder::new().name(format!("ring-{queue}")).spawn(run) {
            Ok(handle) => {
                self.keep(handle);
                Ok(())
            }
            Err(e) => {
                self.left(queue);
                Err(e)
            }
        }
    }

    /// Hands the entry of a later lane to the kernel, and sees to it that it gets what waits in its queue: this
    /// thread is on the processor of that queue.
    fn join_in(&self, mut entry: Entry) -> io::Result<Entry> {
        entry.register()?;
        let files = self.queues.iter().map(|q| q.file.load(Ordering::Relaxed)).filter(|&f| f != 0);
        let nudged = files.map(Ino).any(|file| {
            let number = self.nudges.fetch_add(1, Ordering::Relaxed) as u64;
            nix::unistd::write(&self.device, &wire::nudge(number, file)).is_ok()
        });
        if !nudged {
            // What waits is served after the next request to come, or when a lane is done.
            log::debug!("the kernel knows none of the files that were used last");
        }
        Ok(entry)
    }

    /// A lane of the queue has a request about this regular file.
    pub fn uses(&self, queue: u16, file: Ino) {
        if let Some(state) = self.queue(queue) {
            state.file.store(file.0, Ordering::Relaxed);
        }
    }

    /// A lane has ended. It was free, or is taken to have been.
    fn left(&self, queue: u16) {
        if let Some(state) = self.queue(queue) {
            state.lanes.fetch_sub(1, Ordering::Relaxed);
            state.free.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A lane of the queue has taken a request.
    pub fn took(&self, queue: u16) {
        let Some(state) = self.queue(queue) else { return };
        // In one order with what `wait_until_dry` does: one of the two sees the other.
        if state.free.fetch_sub(1, Ordering::SeqCst) == 1 && !self.alert.load(Ordering::SeqCst) {
            self.alert.store(true, Ordering::SeqCst);
            *self.watching.lock() = true;
            self.dry.notify_one();
        }
    }

    /// A lane of the queue has an answer.
    pub fn answered(&self, queue: u16) {
        let Some(state) = self.queue(queue) else { return };
        state.answered.fetch_add(1, Ordering::Relaxed);
        state.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Sees to it that the queue has a free lane, or one that will be.
    fn relieve(self: &Arc<Self>, queue: u16) -> Result<(), NoLane> {
        let state = self.queue(queue).ok_or(NoLane)?;
        if state.free.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        if state.lanes.load(Ordering::Relaxed) >= MOST_LANES || self.over.load(Ordering::Relaxed) {
            return Err(NoLane);
        }
        self.add(queue, None).map_err(|e| {
            log::warn!("no further lane for ring {queue}: {e}");
            NoLane
        })
    }

    /// Adds lanes to queues in which nothing moves, until the mount is gone.
    fn look_on(self: Arc<Self>) {
        let look = || self.queues.iter().map(Queue::if_dry).collect::<Vec<_>>();
        while self.wait_until_dry() {
            let mut before = look();
            loop {
                thread::sleep(STUCK);
                let now = look();
                for (queue, (now, before)) in now.iter().zip(&before).enumerate() {
                    if now.is_some() && now == before {
                        // If there is no more to be had the request waits for a lane that comes back.
                        let _ = self.relieve(queue as u16);
                    }
                }
                if now.iter().all(Option::is_none) || self.over.load(Ordering::Relaxed) {
                    break;
                }
                before = now;
            }
        }
    }

    /// Sleeps until a queue has no free lane; false if the mount is gone.
    fn wait_until_dry(&self) -> bool {
        let mut watching = self.watching.lock();
        *watching = false;
        self.alert.store(false, Ordering::SeqCst);
        // One that ran dry just before this was seen by nobody.
        if self.queues.iter().any(|q| q.if_dry().is_some()) {
            self.alert.store(true, Ordering::SeqCst);
            return !self.over.load(Ordering::Relaxed);
        }
        while !*watching && !self.over.load(Ordering::Relaxed) {
            self.dry.wait(&mut watching);
        }
        !self.over.load(Ordering::Relaxed)
    }

    /// No more lanes: the thread that looks on ends.
    pub fn dismiss(&self) {
        self.over.store(true, Ordering::Relaxed);
        let _watching = self.watching.lock();
        self.dry.notify_one();
    }

    /// Waits until every lane has ended. Only once the mount is gone: lanes end by that.
    pub fn join(&self) {
        self.dismiss();
        while let Some(handle) = { self.handles.lock().pop() } {
            // One that panicked has ended the process.
            let _ = handle.join();
        }
    }
}

impl Queue {
    /// How many requests it has answered, if it has no free lane.
    fn if_dry(&self) -> Option<usize> {
        let dry = self.lanes.load(Ordering::Relaxed) > 0 && self.free.load(Ordering::SeqCst) == 0;
        dry.then(|| self.answered.load(Ordering::Relaxed))
    }
}

/// Where the first lanes report that they could begin, and what they wait for then.
type Start = (Sender<io::Result<()>>, Gate);

/// Closed at first; then opened for all who wait, or never.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<Option<bool>>, Condvar)>);

impl Gate {
    /// Lets all pass (`true`) or turns them away.
    pub fn decide(&self, pass: bool) {
        *self.0.0.lock() = Some(pass);
        self.0.1.notify_all();
    }

    fn wait(&self) -> bool {
        let mut decided = self.0.0.lock();
        loop {
            match *decided {
                Some(pass) => return pass,
                None => self.0.1.wait(&mut decided),
            }
        }
    }
}

/// The entry, handed to the kernel, if the lane is to begin at all. Reports twice: when it has the entry, and
/// when the kernel has it.
fn wait_for_start(
    entry: io::Result<Entry>,
    ready: &Sender<io::Result<()>>,
    go: &Gate,
) -> io::Result<Option<Entry>> {
    let report = |result| drop(ready.send(result));
    let mut entry = match entry {
        Ok(entry) => entry,
        Err(e) => {
            report(Err(e));
            return Ok(None);
        }
    };
    report(Ok(()));
    if !go.wait() {
        return Ok(None);
    }
    match entry.register() {
        Ok(()) => {
            report(Ok(()));
            Ok(Some(entry))
        }
        Err(e) => {
            report(Err(e.into()));
            Ok(None)
        }
    }
}
