//! The thread that takes completions nobody else is waiting for.
//!
//! It looks for them without a pause while they come, and for a moment after the last; then it asks for an
//! event, **looks once more**, and only then sleeps: a completion that came before the question makes no
//! event, and is found by that look. Whoever leaves a request to this thread does the same two steps, so the
//! request's completion is either found by them or makes an event. Should an event be lost nevertheless,
//! the thread looks at everything again after [`BELT`], so nothing can wait for longer than that.

use super::verbs::{Channel, Device};
use parking_lot::{Mutex, RwLock};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest sleep while something is under way, and while nothing is.
const BELT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// How often to look whether the device is still there, for drivers that do not say so.
const PRESENCE: Duration = Duration::from_millis(500);

/// Has a completion queue.
pub(super) trait Completer: Send + Sync {
    /// Takes and handles what has come; whether there was something. Called from several threads.
    fn drain(&self) -> bool;
    /// Asks for an event if something is to come.
    fn arm(&self);
    /// Whether something is under way.
    fn is_busy(&self) -> bool;
    /// Ends what has been under way for too long.
    fn expire(&self, now: Instant);
    /// The device is of no use any more.
    fn device_lost(&self, why: &str);
}

struct Shared {
    device: Arc<Device>,
    channel: Arc<Channel>,
    completers: RwLock<Vec<Weak<dyn Completer>>>,
    stop: AtomicBool,
    wake: OwnedFd,
    spin: Duration,
}

/// The thread; ends when it is dropped.
pub(super) struct Poller {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Poller {
    /// Starts it. `spin`: how long it goes on looking after the last completion.
    pub fn start(device: &Arc<Device>, channel: &Arc<Channel>, spin: Duration) -> Result<Self, String> {
        device.dont_wait()?;
        // SAFETY: no operands in memory.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(format!("eventfd: {}", std::io::Error::last_os_error()));
        }
        let shared = Arc::new(Shared {
            device: Arc::clone(device),
            channel: Arc::clone(channel),
            completers: RwLock::default(),
            stop: AtomicBool::new(false),
            // SAFETY: a new descriptor that nobody else owns.
            wake: unsafe { OwnedFd::from_raw_fd(fd) },
            spin,
        });
        let run = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("pool-rdma".into()).spawn(move || run.run());
        let thread = Mutex::new(Some(thread.map_err(|e| format!("cannot start a thread: {e}"))?));
        Ok(Self { shared, thread })
    }

    /// Looks after `completer` too, for as long as it lives.
    pub fn add(&self, completer: Weak<dyn Completer>) {
        let mut completers = self.shared.completers.write();
        completers.retain(|completer| completer.strong_count() > 0);
        completers.push(completer);
        drop(completers);
        self.shared.rouse();
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.rouse();
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            log::error!("the thread that polls for completions has panicked");
        }
    }
}

impl Shared {
    fn rouse(&self) {
        let one = 1u64;
        // SAFETY: eight bytes to read; a full counter wakes as well.
        unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn run(&self) {
        let (mut last, mut checked, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        while !self.stop.load(Ordering::Acquire) {
            // Also while completions come without a pause.
            if checked.elapsed() >= BELT.0 {
                self.sleep(Duration::ZERO);
                self.expire();
                if looked.elapsed() >= PRESENCE {
                    self.look_for_device();
                    looked = Instant::now();
                }
                checked = Instant::now();
            }
            let all: Vec<_> = self.completers.read().iter().filter_map(Weak::upgrade).collect();
            let drain = || all.iter().fold(false, |found, completer| completer.drain() | found);
            if drain() {
                last = Instant::now();
                continue;
            }
            if last.elapsed() < self.spin {
                std::thread::yield_now();
                continue;
            }
            all.iter().for_each(|completer| completer.arm());
            if drain() {
                last = Instant::now();
                continue;
            }
            let busy = all.iter().any(|completer| completer.is_busy());
            // Not kept alive while asleep: what is dropped is to end at once.
            drop(all);
            if self.sleep(if busy { BELT.0 } else { BELT.1 }) {
                last = Instant::now();
            }
        }
    }

    fn expire(&self) {
        let now = Instant::now();
        for completer in self.completers.read().iter().filter_map(Weak::upgrade).collect::<Vec<_>>() {
            completer.expire(now);
        }
    }

    /// Sleeps until something comes, for at most `limit`; whether there may be completions.
    fn sleep(&self, limit: Duration) -> bool {
        let of = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut fds = [of(self.channel.fd()), of(self.wake.as_raw_fd()), of(self.device.event_fd())];
        // SAFETY: three entries, ours to write.
        unsafe { libc::poll(fds.as_mut_ptr(), 3, limit.as_millis() as i32) };
        let [completions, woken, event] = fds.map(|fd| fd.revents != 0);
        if completions {
            self.channel.clear();
        }
        if woken {
            let mut count = 0u64;
            // SAFETY: eight bytes to write.
            unsafe { libc::read(self.wake.as_raw_fd(), (&raw mut count).cast(), 8) };
        }
        if event {
            self.device_event();
        }
        completions
    }

    fn device_event(&self) {
        while let Some((what, fatal)) = self.device.next_event() {
            if !fatal {
                log::debug!("{}: {what}", self.device.describe());
                continue;
            }
            self.device_lost(&what);
        }
    }

    fn look_for_device(&self) {
        if self.device.is_newly_lost() {
            self.device_lost("it has been removed");
        }
    }

    fn device_lost(&self, why: &str) {
        log::warn!("{}: {why}", self.device.describe());
        for completer in self.completers.read().iter().filter_map(Weak::upgrade).collect::<Vec<_>>() {
            completer.device_lost(why);
        }
    }
}
