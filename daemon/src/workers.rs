//! Threads for what has to wait: for clients to let go of a page, for another rack, for the master.
//!
//! A job is never refused. There are as many threads as jobs that wait at once, up to a limit; beyond it
//! jobs queue. Threads that have had nothing to do for a while end.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The most threads.
const MOST: usize = 64;
/// How long a thread waits for a job before it ends.
const LINGER: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A pool of threads. Clones are the same pool.
#[derive(Clone, Default)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

impl Workers {
    /// Runs `job` on some thread, soon. After [`close`](Self::close) it is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        queue.jobs.push_back(Box::new(job));
        if queue.idle >= queue.jobs.len() || queue.threads == MOST {
            self.shared.changed.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        match std::thread::Builder::new().name("pool-worker".into()).spawn(move || work(&shared)) {
            Ok(_) => queue.threads += 1,
            Err(e) if queue.threads > 0 => log::warn!("cannot start a thread, so some things wait: {e}"),
            Err(e) => {
                log::error!("cannot start a thread: {e}");
                let job = queue.jobs.pop_back();
                drop(queue);
                job.into_iter().for_each(|job| job());
            }
        }
    }

    /// Drops jobs that have not begun, and waits for those that have.
    pub fn close(&self) {
        let mut queue = self.shared.queue.lock();
        queue.closed = true;
        let dropped = std::mem::take(&mut queue.jobs);
        self.shared.changed.notify_all();
        self.shared.changed.wait_while(&mut queue, |queue| queue.threads > 0);
        drop(queue);
        drop(dropped);
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if let Some(job) = queue.jobs.pop_front() {
            drop(queue);
            job();
            queue = shared.queue.lock();
            continue;
        }
        if queue.closed {
            break;
        }
        queue.idle += 1;
        let waited = shared.changed.wait_for(&mut queue, LINGER);
        queue.idle -= 1;
        if waited.timed_out() && queue.jobs.is_empty() {
            break;
        }
    }
    queue.threads -= 1;
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_job_that_waits_for_another_does_not_hold_it_up() {
        let workers = Workers::default();
        let (to_first, from_second) = channel();
        let (done, finished) = channel();
        workers.run(move || done.send(from_second.recv_timeout(Duration::from_secs(20))).unwrap());
        workers.run(move || to_first.send(7).unwrap());
        assert_eq!(finished.recv_timeout(Duration::from_secs(20)).unwrap(), Ok(7));
        workers.close();
        workers.run(|| panic!("closed"));
    }

    #[test]
    fn more_jobs_than_threads_are_all_done() {
        let workers = Workers::default();
        let (sender, receiver) = channel();
        for i in 0..10 * MOST {
            let sender = sender.clone();
            workers.run(move || {
                std::thread::sleep(Duration::from_millis(1));
                sender.send(i).unwrap();
            });
        }
        let mut seen: Vec<_> = receiver.iter().take(10 * MOST).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..10 * MOST).collect::<Vec<_>>());
        workers.close();
    }
}
