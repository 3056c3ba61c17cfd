//! Barriers: callers that wait for each other by a name.
//!
//! A caller's answer is kept until the last party has come, or its time is up; no thread waits with it.
//! One thread watches the time, and only while somebody waits. A caller whose time is up has not come: it
//! no longer counts for the others.
//!
//! Answers are given with no lock held.

use parking_lot::{Condvar, Mutex};
use pool::proto::cluster::ClusterError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest time that anybody may wait.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest name, in bytes, and the most parties.
const NAME_MAX: usize = 256;
const MOST: u32 = 1 << 16;

/// Takes the answer of a barrier; called once, and must not wait for anything.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), ClusterError>) + Send>;

/// All barriers. Clones are the same ones.
#[derive(Clone, Default)]
pub(crate) struct Barriers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Somebody came whose time is up earlier, or nobody waits any more.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: HashMap<String, Barrier>,
    /// The thread that watches the time runs.
    watched: bool,
    closed: bool,
}

struct Barrier {
    parties: u32,
    waiters: Vec<Waiter>,
}

struct Waiter {
    until: Instant,
    answer: Answer,
}

impl Barriers {
    /// Somebody has come to the barrier `name`, for which `parties` must.
    pub(crate) fn wait(&self, name: String, parties: u32, time: Duration, answer: Answer) {
        let waiter = Waiter { until: Instant::now() + time.min(LONGEST), answer };
        match self.enter(name, parties, waiter) {
            Ok(all) => all.into_iter().for_each(|waiter| (waiter.answer)(Ok(()))),
            Err((waiter, why)) => (waiter.answer)(Err(ClusterError::Refused(why))),
        }
    }

    /// Nobody waits any more, nor will. Who waits is refused.
    pub(crate) fn close(&self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        self.0.changed.notify_all();
        drop(state);
        for waiter in waiting.into_values().flat_map(|barrier| barrier.waiters) {
            (waiter.answer)(Err(ended()));
        }
    }

    /// Those that go on, if this was the last.
    fn enter(&self, name: String, parties: u32, waiter: Waiter) -> Result<Vec<Waiter>, (Waiter, String)> {
        if parties == 0 || parties > MOST || name.len() > NAME_MAX {
            let why = format!("a barrier has 1 to {MOST} parties and a name of at most {NAME_MAX} bytes");
            return Err((waiter, why));
        }
        let mut state = self.0.state.lock();
        if state.closed {
            return Err((waiter, ended().to_string()));
        }
        let expected = state.waiting.get(&name).map_or(parties, |barrier| barrier.parties);
        if expected != parties {
            return Err((
                waiter,
                format!("others wait at barrier {name:?} for {expected} parties, not {parties}"),
            ));
        }
        let mut all = state.waiting.remove(&name).map_or_else(Vec::new, |barrier| barrier.waiters);
        self.0.changed.notify_all();
        if all.len() + 1 == parties as usize {
            all.push(waiter);
            return Ok(all);
        }
        let watched = if state.watched { Ok(()) } else { self.watch() };
        state.watched = watched.is_ok();
        let refused = match watched {
            Ok(()) => {
                all.push(waiter);
                None
            }
            Err(why) => Some((waiter, format!("cannot start a thread: {why}"))),
        };
        if !all.is_empty() {
            state.waiting.insert(name, Barrier { parties, waiters: all });
        }
        refused.map_or(Ok(Vec::new()), Err)
    }

    fn watch(&self) -> std::io::Result<()> {
        let shared = Arc::clone(&self.0);
        std::thread::Builder::new().name("barriers".into()).spawn(move || shared.watch()).map(drop)
    }
}

impl Shared {
    /// Refuses those whose time is up, until nobody waits.
    fn watch(&self) {
        let mut state = self.state.lock();
        loop {
            let late = state.take_late(Instant::now());
            if !late.is_empty() {
                drop(state);
                for (name, waiter) in late {
                    let why = format!("not all parties of barrier {name:?} came in time");
                    (waiter.answer)(Err(ClusterError::Refused(why)));
                }
                state = self.state.lock();
                continue;
            }
            let Some(next) = state.next() else {
                state.watched = false;
                return;
            };
            self.changed.wait_until(&mut state, next);
        }
    }
}

impl State {
    fn next(&self) -> Option<Instant> {
        self.waiting.values().flat_map(|barrier| &barrier.waiters).map(|waiter| waiter.until).min()
    }

    fn take_late(&mut self, now: Instant) -> Vec<(String, Waiter)> {
        let mut late = Vec::new();
        self.waiting.retain(|name, barrier| {
            late.extend(
                barrier.waiters.extract_if(.., |waiter| waiter.until <= now).map(|w| (name.clone(), w)),
            );
            !barrier.waiters.is_empty()
        });
        late
    }
}

fn ended() -> ClusterError {
    ClusterError::Refused("the master is ending".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const LONG: Duration = Duration::from_secs(60);

    fn come(
        barriers: &Barriers,
        name: &str,
        parties: u32,
        time: Duration,
    ) -> Receiver<Result<(), ClusterError>> {
        let (sender, receiver) = channel();
        let answer = Box::new(move |result| sender.send(result).unwrap());
        barriers.wait(name.into(), parties, time, answer);
        receiver
    }

    fn answer(receiver: &Receiver<Result<(), ClusterError>>) -> Result<(), ClusterError> {
        receiver.recv_timeout(LONG).unwrap()
    }

    #[test]
    fn the_last_party_lets_all_go_and_the_name_is_free_again() {
        let barriers = Barriers::default();
        for _ in 0..3 {
            let first = [come(&barriers, "a", 3, LONG), come(&barriers, "a", 3, LONG)];
            let other = come(&barriers, "b", 2, LONG);
            assert!(first.iter().all(|receiver| receiver.try_recv().is_err()));
            let last = come(&barriers, "a", 3, LONG);
            assert_eq!(last.try_recv(), Ok(Ok(())), "answered by the call itself");
            assert!(first.iter().all(|receiver| receiver.try_recv() == Ok(Ok(()))));
            assert!(other.try_recv().is_err());
            assert_eq!(answer(&come(&barriers, "b", 2, LONG)), Ok(()));
        }
    }

    #[test]
    fn who_does_not_want_to_wait_longer_does_not_count() {
        let barriers = Barriers::default();
        let patient = come(&barriers, "a", 2, LONG);
        assert!(matches!(answer(&come(&barriers, "b", 2, Duration::ZERO)), Err(ClusterError::Refused(_))));
        let hasty = come(&barriers, "c", 2, Duration::from_millis(1));
        assert!(answer(&hasty).is_err());
        assert!(patient.try_recv().is_err());
        let again = come(&barriers, "c", 2, LONG);
        assert!(again.try_recv().is_err(), "the one who went away was counted");
        assert_eq!(answer(&come(&barriers, "a", 2, LONG)), Ok(()));
        assert_eq!(answer(&patient), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_the_others_go_on_waiting() {
        let barriers = Barriers::default();
        let waiting = come(&barriers, "a", 2, LONG);
        for (name, parties) in [("a", 3), ("x", 0), (&*"n".repeat(257), 2), ("x", u32::MAX)] {
            assert!(answer(&come(&barriers, name, parties, LONG)).is_err(), "{name} {parties}");
        }
        assert_eq!(answer(&come(&barriers, "a", 2, LONG)), Ok(()));
        assert_eq!(answer(&waiting), Ok(()));
    }

    #[test]
    fn the_end_refuses_all() {
        let barriers = Barriers::default();
        let waiting = come(&barriers, "a", 2, LONG);
        barriers.close();
        assert!(answer(&waiting).is_err());
        assert!(answer(&come(&barriers, "a", 1, LONG)).is_err());
    }

    #[test]
    fn the_thread_ends_when_nobody_waits() {
        let barriers = Barriers::default();
        let waiting = come(&barriers, "a", 2, LONG);
        assert!(barriers.0.state.lock().watched);
        assert_eq!(answer(&come(&barriers, "a", 2, LONG)), Ok(()));
        assert_eq!(answer(&waiting), Ok(()));
        let deadline = Instant::now() + LONG;
        while barriers.0.state.lock().watched {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
