//! Threads that do something every so often until they are told to end.

use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

/// Such threads, which end together.
#[derive(Default)]
pub(crate) struct Pulse {
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pulse {
    /// Calls `act` every `period` on a thread of its own; first after one `period`.
    pub fn every(
        &self,
        period: Duration,
        name: &str,
        mut act: impl FnMut() + Send + 'static,
    ) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let run = move || {
            while !stop.wait(period) {
                act();
            }
        };
        self.threads.lock().push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Ends the threads, and waits for what they are doing.
    pub fn stop(&self) {
        *self.stop.stopped.lock() = true;
        self.stop.changed.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                log::error!("a thread of the daemon has panicked");
            }
        }
    }
}

impl Stop {
    /// Waits for `time`. True if that was cut short by the end.
    fn wait(&self, time: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        self.changed.wait_while_for(&mut stopped, |stopped| !*stopped, time);
        *stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_stopped_pulse_acts_no_more() {
        let pulse = Pulse::default();
        let (sender, receiver) = channel();
        pulse.every(Duration::from_millis(1), "test", move || sender.send(()).unwrap()).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)), Ok(()));
        pulse.stop();
        while receiver.try_recv().is_ok() {}
        assert!(receiver.recv().is_err(), "the thread and its sender are gone");
    }
}
