//! Keeps the session of a mount: polls the master, gives up what it revokes, tells it what was kept back.
//!
//! One thread does nothing but poll, so leases are renewed whatever else goes on; revocations are given up on threads
//! of their own; one more looks after files a few times a second.

use crate::fs::{Fs, Polled};
use parking_lot::{Condvar, Mutex};
use pool::workers::Workers;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

/// How often files are looked after: what was written is known to the master within this time, or soon after.
const TEND: Duration = Duration::from_millis(300);
/// The pause after the master did not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// Revocations that are given up at once.
const AT_ONCE: usize = 16;

/// The most that are acknowledged in one message.
const TOGETHER: usize = 256;

/// The threads that keep a session.
pub struct Keeper {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    fs: Arc<Fs>,
    workers: Workers,
    /// Sessions are recovered one at a time.
    recovering: Mutex<()>,
    over: Mutex<bool>,
    woken: Condvar,
}

impl Keeper {
    /// Keeps the session of `fs` from now on.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(fs: Arc<Fs>) -> io::Result<Self> {
        let workers = Workers::new("revoked", AT_ONCE);
        let (recovering, over, woken) = Default::default();
        let shared = Arc::new(Shared { fs, workers, recovering, over, woken });
        let (polling, tending) = (Arc::clone(&shared), Arc::clone(&shared));
        let mut threads = vec![Builder::new().name("poll".into()).spawn(move || polling.poll())?];
        threads.push(Builder::new().name("tend".into()).spawn(move || tending.tend())?);
        Ok(Self { shared, threads })
    }

    /// Ends the session, in good order.
    pub fn end(self) {
        let warn = |why| log::warn!("the master will know only after a while that this mount is over: {why}");
        // While revocations are still given up: what is told last may have to wait for one of this very mount.
        let left = self.shared.fs.leave(None).map_err(warn).ok();
        *self.shared.over.lock() = true;
        self.shared.woken.notify_all();
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that kept the session has panicked");
            }
        }
        if left.is_some() {
            let _ = self.shared.fs.leave(left).map_err(warn);
        }
        self.shared.workers.close();
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        *self.over.lock()
    }

    fn poll(self: Arc<Self>) {
        let mut silent = false;
        while !self.is_over() {
            match self.fs.poll() {
                Ok(Polled::Revoked(list)) => {
                    silent = false;
                    let share = (list.len() / AT_ONCE).clamp(1, TOGETHER);
                    for some in list.chunks(share) {
                        let (shared, some) = (Arc::clone(&self), some.to_vec());
                        self.workers.run(move || {
                            let done = some.iter().map(|revoke| shared.fs.give_up_lease(revoke)).collect();
                            if let Err(why) = shared.fs.acknowledge(done) {
                                log::debug!("a revocation cannot be acknowledged: {why}");
                            }
                        });
                    }
                }
                Ok(Polled::NewSession) => {
                    if self.is_over() {
                        return;
                    }
                    log::warn!("this mount was away from the master for too long, and is back");
                    let shared = Arc::clone(&self);
                    let recover = move || {
                        let _one = shared.recovering.lock();
                        shared.fs.recover();
                    };
                    if let Err(why) = Builder::new().name("recover".into()).spawn(recover) {
                        log::error!("cannot start a thread, so this mount cannot go on: {why}");
                    }
                }
                Err(why) => {
                    if !silent && !self.is_over() {
                        log::warn!("the master does not answer: {why}");
                    }
                    silent = true;
                    sleep(PAUSE);
                }
            }
        }
    }

    fn tend(&self) {
        let mut over = self.over.lock();
        while !*over {
            if self.woken.wait_for(&mut over, TEND).timed_out() {
                drop(over);
                self.fs.tend();
                over = self.over.lock();
            }
        }
    }
}
