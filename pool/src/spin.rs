//! How long to look again and again before sleeping.
//!
//! A wake-up costs more than a short wait: 5 us on a busy processor, 30 us and more on one that has halted. So who waits
//! looks for a while first. Where processors are few that may take one from those who are waited for, so:
//!
//! - the time doubles when a sleep was so short that looking would have saved it, and halves when it was long;
//! - after the first few microseconds the processor is offered to others now and then, but not more often: the scheduler takes
//!   it that a thread which yields to another has had its share, and lets it wait when it has something to do;
//! - if others take it twice in a row there is none to spare: nobody in this process looks for a while then, which is
//!   longer each time. Who sleeps runs as soon as there is something to do; who looks waits for its turn.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time, in nanoseconds.
const MIN: u32 = 3_000;
/// The longest time of who waits for an answer, in nanoseconds: about two wake-ups.
const ANSWER: u32 = 100_000;
/// The longest time of who waits for requests: about what lies between two of a program that sends one after the other.
const REQUESTS: u32 = 250_000;
/// From when on the processor is offered to others, and how often.
const ALONE: Duration = Duration::from_micros(4);
const OFFER: Duration = Duration::from_micros(20);
/// Who has it back later than this has had to wait for somebody.
const TAKEN: Duration = Duration::from_micros(3);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// How long nobody looks when there was none, at first and at most.
const REST: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(64));

/// The time, as it has turned out well so far. For any number of threads.
pub(crate) struct Spin {
    time: AtomicU32,
    most: u32,
    /// Whether somebody took the processor when it was offered last.
    taken: AtomicBool,
}

/// Looking once: from when on, for how long.
pub(crate) struct Looking<'s> {
    spin: &'s Spin,
    began: Instant,
    limit: Duration,
    /// When the processor is offered next.
    offer: Duration,
}

impl Spin {
    /// For who waits for an answer.
    pub const fn for_answers() -> Self {
        Self { time: AtomicU32::new(ANSWER / 4), most: ANSWER, taken: AtomicBool::new(false) }
    }

    /// For who waits for requests.
    pub const fn for_requests() -> Self {
        Self { time: AtomicU32::new(ANSWER / 4), most: REQUESTS, taken: AtomicBool::new(false) }
    }

    /// Calls `look` until it finds something or the time is up; `None` then. Who sleeps after that should
    /// say [how long](Self::slept).
    #[inline]
    pub fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        for _ in 0..LOOKS {
            if let Some(found) = look() {
                return Some(found);
            }
            std::hint::spin_loop();
        }
        self.longer(look)
    }

    #[cold]
    fn longer<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let mut looking = self.begin();
        loop {
            let go_on = looking.go_on();
            for _ in 0..LOOKS {
                if let Some(found) = look() {
                    return Some(found);
                }
                std::hint::spin_loop();
            }
            if !go_on {
                return None;
            }
        }
    }

    /// Begins to look, for those who do that themselves.
    pub fn begin(&self) -> Looking<'_> {
        let began = Instant::now();
        let time = if CROWD.is_there(began) { 0 } else { self.time.load(Ordering::Relaxed) };
        Looking { spin: self, began, limit: Duration::from_nanos(time.into()), offer: ALONE }
    }

    /// What was not found by looking came after a sleep of this length.
    pub fn slept(&self, time: Duration) {
        let was = self.time.load(Ordering::Relaxed);
        let now =
            if time.as_nanos() < self.most.into() { (was * 2).min(self.most) } else { (was / 2).max(MIN) };
        // A change that another thread overwrites is no loss.
        if now != was {
            self.time.store(now, Ordering::Relaxed);
        }
    }
}

impl Looking<'_> {
    /// False if one should look once more and then sleep.
    #[inline]
    pub fn go_on(&mut self) -> bool {
        let time = self.began.elapsed();
        time < self.limit && (time < self.offer || self.may_go_on(time))
    }

    #[cold]
    fn may_go_on(&mut self, time: Duration) -> bool {
        if CROWD.is_there(self.began + time) {
            return false;
        }
        std::thread::yield_now();
        let after = self.began.elapsed();
        let taken = after - time > TAKEN;
        if self.spin.taken.swap(taken, Ordering::Relaxed) && taken {
            CROWD.came(self.began + after);
            return false;
        }
        self.offer = after + OFFER;
        true
    }
}

static CROWD: Crowd = Crowd { until: AtomicU64::new(0), rest: AtomicU64::new(0) };

/// Whether there are more threads than processors, as far as this process has noticed; in nanoseconds since
/// [`since`](Self::since). What one thread overwrites of another's is no loss.
struct Crowd {
    /// Until when it is taken to be still there.
    until: AtomicU64,
    /// How long that was, the last time.
    rest: AtomicU64,
}

impl Crowd {
    fn since(now: Instant) -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        now.saturating_duration_since(*START).as_nanos() as u64
    }

    fn is_there(&self, now: Instant) -> bool {
        Self::since(now) < self.until.load(Ordering::Relaxed)
    }

    fn came(&self, now: Instant) {
        let now = Self::since(now);
        let until = self.until.load(Ordering::Relaxed);
        if now < until {
            return;
        }
        let rest = self.rest.load(Ordering::Relaxed);
        // If it has stayed away for as long as that again it is another one.
        let again = now < until + rest;
        let (first, most) = (REST.0.as_nanos() as u64, REST.1.as_nanos() as u64);
        let rest = if again { (rest * 2).clamp(first, most) } else { first };
        self.rest.store(rest, Ordering::Relaxed);
        self.until.store(now + rest, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sleeps_make_it_short_and_short_ones_long() {
        let spin = Spin::for_answers();
        for _ in 0..10 {
            assert_eq!(spin.until(|| None::<()>), None);
            spin.slept(Duration::from_millis(1));
        }
        assert_eq!(spin.time.load(Ordering::Relaxed), MIN);
        (0..10).for_each(|_| spin.slept(Duration::from_micros(30)));
        assert_eq!(spin.time.load(Ordering::Relaxed), ANSWER);
    }

    #[test]
    fn what_comes_after_a_while_is_found() {
        let mut looks = 0;
        let found = Spin::for_answers().until(|| {
            looks += 1;
            (looks > LOOKS).then_some(looks)
        });
        assert_eq!(found, Some(LOOKS + 1));
    }

    #[test]
    fn a_crowd_is_left_alone_for_longer_each_time() {
        let crowd = Crowd { until: AtomicU64::new(0), rest: AtomicU64::new(0) };
        let (first, most) = REST;
        let mut now = Instant::now() + Duration::from_secs(1);
        assert!(!crowd.is_there(now));
        crowd.came(now);
        assert!(crowd.is_there(now + first / 2));
        assert!(!crowd.is_there(now + first));
        // It is still there whenever somebody looks again.
        for _ in 0..10 {
            now += Duration::from_nanos(crowd.rest.load(Ordering::Relaxed));
            crowd.came(now);
        }
        assert!(crowd.is_there(now + most - first));
        assert!(!crowd.is_there(now + most));
        now += 3 * most;
        crowd.came(now);
        assert!(!crowd.is_there(now + first), "another one begins anew");
    }
}
