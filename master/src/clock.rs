//! Where times come from, so that a test can say what time it is.

use pool::proto::meta::Time;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of the present time.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Time;

    /// The time since some moment before; never goes back, whatever is done to the clock on the wall.
    fn elapsed(&self) -> Duration;
}

/// The beginning of this process's time.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() },
            Err(before) => rounded_down(before.duration().as_secs() as i64, before.duration().subsec_nanos()),
        }
    }

    fn elapsed(&self) -> Duration {
        START.elapsed()
    }
}

/// The time this long before 1970, with `nsec` counted upwards as everywhere else.
fn rounded_down(sec: i64, nsec: u32) -> Time {
    match nsec {
        0 => Time { sec: -sec, nsec: 0 },
        n => Time { sec: -sec - 1, nsec: 1_000_000_000 - n },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_count_upwards_before_1970_too() {
        assert_eq!(rounded_down(1, 250_000_000), Time { sec: -2, nsec: 750_000_000 });
        assert_eq!(rounded_down(3, 0), Time { sec: -3, nsec: 0 });
    }
}
