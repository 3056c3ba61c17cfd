//! Threads for what has to wait or may take long: for servers, which answer the rest at once.
//!
//! Jobs begin in the order in which they came. There are as many threads as jobs that run at once, up to a
//! limit; threads that have had nothing to do for a while end, so a server that is asked nothing has none.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

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

struct Shared {
    name: &'static str,
    most: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// A few threads. Clones are the same ones.
#[derive(Clone)]
pub struct Workers(Arc<Shared>);

impl Workers {
    /// At most `most` threads called `name`; none until there is something to do.
    pub fn new(name: &'static str, most: usize) -> Self {
        let (queue, changed) = Default::default();
        Self(Arc::new(Shared { name, most, queue, changed }))
    }

    /// Runs `job` on some thread, soon. After [`close`](Self::close) it is dropped.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut queue = self.0.queue.lock();
        if queue.closed {
            return;
        }
        queue.jobs.push_back(Box::new(job));
        if queue.idle >= queue.jobs.len() || queue.threads == self.0.most {
            self.0.changed.notify_one();
            return;
        }
        let shared = Arc::clone(&self.0);
        match std::thread::Builder::new().name(self.0.name.into()).spawn(move || shared.work()) {
            Ok(_) => queue.threads += 1,
            Err(why) if queue.threads > 0 => log::warn!("cannot start a thread, so requests wait: {why}"),
            Err(why) => {
                log::error!("cannot start a thread: {why}");
                let job = queue.jobs.pop_back();
                drop(queue);
                job.into_iter().for_each(|job| job());
            }
        }
    }

    /// Drops jobs that have not begun, and waits for those that have.
    pub fn close(&self) {
        let mut queue = self.0.queue.lock();
        queue.closed = true;
        let dropped = std::mem::take(&mut queue.jobs);
        self.0.changed.notify_all();
        self.0.changed.wait_while(&mut queue, |queue| queue.threads > 0);
        drop(queue);
        drop(dropped);
    }
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.next() {
            // What a panic was about has been said where it came from; the thread serves others too.
            if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!("a request failed in a way that it never should, and is not answered");
            }
        }
    }

    /// The next job; `None` if this thread is to end, and no longer counts.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                break;
            }
            queue.idle += 1;
            let waited = self.changed.wait_for(&mut queue, LINGER);
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
        self.changed.notify_all();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const MOST: usize = 16;
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_job_that_waits_for_another_does_not_hold_it_up() {
        let workers = Workers::new("test", MOST);
        let (to_first, from_second) = channel();
        let (done, finished) = channel();
        workers.run(move || done.send(from_second.recv_timeout(LONG)).unwrap());
        workers.run(move || to_first.send(7).unwrap());
        assert_eq!(finished.recv_timeout(LONG).unwrap(), Ok(7));
        workers.close();
    }

    #[test]
    fn many_jobs_are_all_done_and_none_after_the_end() {
        let workers = Workers::new("test", MOST);
        let (sender, receiver) = channel();
        for i in 0..20 * MOST {
            let sender = sender.clone();
            workers.run(move || sender.send(i).unwrap());
        }
        drop(sender);
        let mut seen: Vec<_> = receiver.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..20 * MOST).collect::<Vec<_>>());
        workers.run(|| panic!("said on purpose"));
        workers.close();
        workers.run(|| panic!("it was closed"));
    }
}
