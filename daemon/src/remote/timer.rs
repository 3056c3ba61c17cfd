//! Jobs for later: one thread that sleeps until the next is due, and for as long as there is none.
//!
//! A job must not wait for anything; it hands what waits to the workers.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    /// By time, and in the order in which they came.
    jobs: BTreeMap<(Instant, u64), Job>,
    count: u64,
    running: bool,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// Runs jobs at given times. Ends when it is dropped; jobs that are not due by then are dropped.
#[derive(Default)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
}

impl Timer {
    /// Runs `job` at the time `at`.
    pub fn at(&self, at: Instant, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        let count = queue.count;
        queue.count += 1;
        let next = queue.jobs.keys().next().is_none_or(|first| at < first.0);
        queue.jobs.insert((at, count), Box::new(job));
        if !queue.running {
            let shared = Arc::clone(&self.shared);
            match std::thread::Builder::new().name("pool-timer".into()).spawn(move || run(&shared)) {
                Ok(_) => queue.running = true,
                Err(e) => log::error!("cannot start a thread, so some things wait: {e}"),
            }
        } else if next {
            self.shared.changed.notify_one();
        }
    }

    /// Drops all jobs, and takes no more.
    pub fn close(&self) {
        let dropped = {
            let mut queue = self.shared.queue.lock();
            queue.closed = true;
            std::mem::take(&mut queue.jobs)
        };
        self.shared.changed.notify_all();
        // Outside of the lock: a job may own the last hold on something that uses the timer.
        drop(dropped);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.close();
    }
}

fn run(shared: &Shared) {
    let mut queue = shared.queue.lock();
    while !queue.closed {
        let Some((&(at, count), _)) = queue.jobs.first_key_value() else {
            shared.changed.wait(&mut queue);
            continue;
        };
        if at > Instant::now() {
            shared.changed.wait_until(&mut queue, at);
            continue;
        }
        let job = queue.jobs.remove(&(at, count));
        drop(queue);
        job.into_iter().for_each(|job| job());
        queue = shared.queue.lock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn jobs_run_in_the_order_of_their_times() {
        let timer = Timer::default();
        let (sender, receiver) = channel();
        let start = Instant::now();
        for ms in [30, 10, 20] {
            let sender = sender.clone();
            timer.at(start + Duration::from_millis(ms), move || sender.send(ms).unwrap());
        }
        assert_eq!(receiver.iter().take(3).collect::<Vec<_>>(), [10, 20, 30]);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn a_closed_timer_drops_its_jobs() {
        let timer = Timer::default();
        let (sender, receiver) = channel::<()>();
        let job = sender.clone();
        timer.at(Instant::now() + Duration::from_secs(3600), move || drop(job));
        timer.close();
        timer.at(Instant::now(), move || drop(sender));
        assert!(receiver.recv().is_err(), "both ends are gone");
    }
}
