//! How long to look again and again before sleeping.
//!
//! A wake-up costs more than a short wait, so who waits looks for a while first; but where cores are few
//! that takes the core from those who are waited for. So the time halves whenever it was spent for
//! nothing, and doubles when it was not; and after the first few microseconds the core is offered to others
//! between two looks.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The shortest time, in nanoseconds.
const MIN: u32 = 3_000;
/// The longest time, in nanoseconds: about two wake-ups.
const MAX: u32 = 100_000;
/// From when on the core is offered to others.
const ALONE: Duration = Duration::from_micros(4);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// The time, as it has turned out well so far. For any number of threads.
pub(crate) struct Spin(AtomicU32);

impl Spin {
    pub const fn new() -> Self {
        Self(AtomicU32::new(MAX / 4))
    }

    /// Calls `look` until it finds something or the time is up; `None` then.
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
        let began = Instant::now();
        let limit = Duration::from_nanos(self.0.load(Ordering::Relaxed).into());
        loop {
            let alone = began.elapsed() < ALONE;
            for _ in 0..if alone { LOOKS } else { 1 } {
                if let Some(found) = look() {
                    self.change(|time| (time * 2).min(MAX));
                    return Some(found);
                }
                std::hint::spin_loop();
            }
            if began.elapsed() >= limit {
                self.change(|time| (time / 2).max(MIN));
                return None;
            }
            if !alone {
                std::thread::yield_now();
            }
        }
    }

    /// A change that another thread overwrites is no loss.
    fn change(&self, to: impl FnOnce(u32) -> u32) {
        let was = self.0.load(Ordering::Relaxed);
        let now = to(was);
        if now != was {
            self.0.store(now, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_in_vain_gets_shorter_and_finding_gets_it_back() {
        let spin = Spin::new();
        for _ in 0..10 {
            assert_eq!(spin.until(|| None::<()>), None);
        }
        assert_eq!(spin.0.load(Ordering::Relaxed), MIN);
        for _ in 0..10 {
            let mut looks = 0;
            assert!(
                spin.until(|| {
                    looks += 1;
                    (looks > LOOKS).then_some(())
                })
                .is_some()
            );
        }
        assert_eq!(spin.0.load(Ordering::Relaxed), MAX);
    }
}
