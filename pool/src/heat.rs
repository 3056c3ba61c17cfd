//! How much a page is used: a counter that halves every half-life and grows by one at each access.
//!
//! Pure arithmetic; the time is an argument, in nanoseconds of any clock that does not go backwards.

use std::time::Duration;

/// The time in which heat halves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HalfLife(f64);

impl HalfLife {
    /// Heat halves in `time`, which is taken to be at least a microsecond.
    pub fn new(time: Duration) -> Self {
        Self((time.as_nanos() as f64).max(1000.0))
    }

    /// The part of some heat that is left after `elapsed` nanoseconds.
    fn left(self, elapsed: u64) -> f64 {
        (-(elapsed as f64) / self.0).exp2()
    }

    /// The heat after `elapsed` nanoseconds of something that was `before` and was then accessed `count`
    /// times, evenly spread over that time.
    pub fn after(self, before: f64, count: u64, elapsed: u64) -> f64 {
        let left = self.left(elapsed);
        if elapsed == 0 {
            return before + count as f64;
        }
        // An access x nanoseconds ago is worth left(x): the mean of that over the time elapsed.
        let mean = self.0 / (std::f64::consts::LN_2 * elapsed as f64) * (1.0 - left);
        before * left + count as f64 * mean
    }
}

/// The heat of a page, as counted access by access.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Heat {
    value: f64,
    at: u64,
}

impl Heat {
    /// The heat at the time `now`.
    pub fn value(&self, now: u64, half_life: HalfLife) -> f64 {
        self.value * half_life.left(now.saturating_sub(self.at))
    }

    /// Counts an access at `now`; returns the heat with it.
    pub fn touch(&mut self, now: u64, half_life: HalfLife) -> f64 {
        self.value = self.value(now, half_life) + 1.0;
        self.at = self.at.max(now);
        self.value
    }

    /// Forgets all accesses.
    pub fn cool(&mut self) {
        self.value = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn half_life() -> HalfLife {
        HalfLife::new(Duration::from_millis(1))
    }

    #[test]
    fn heat_halves_in_a_half_life() {
        let mut heat = Heat::default();
        assert_eq!(heat.touch(5 * MS, half_life()), 1.0);
        assert_eq!(heat.touch(6 * MS, half_life()), 1.5);
        assert_eq!(heat.value(7 * MS, half_life()), 0.75);
        assert_eq!(heat.value(0, half_life()), 1.5, "a clock that went backwards cools nothing");
        heat.cool();
        assert_eq!(heat.value(7 * MS, half_life()), 0.0);
    }

    #[test]
    fn counting_in_bulk_is_counting_one_by_one() {
        for (count, elapsed) in [(1000u64, MS), (50, 10 * MS), (100_000, MS / 10)] {
            let mut heat = Heat { value: 7.0, at: 0 };
            for i in 0..count {
                heat.touch(elapsed * (2 * i + 1) / (2 * count), half_life());
            }
            let one_by_one = heat.value(elapsed, half_life());
            let in_bulk = half_life().after(7.0, count, elapsed);
            assert!((one_by_one / in_bulk - 1.0).abs() < 0.01, "{one_by_one} {in_bulk}");
        }
        assert_eq!(half_life().after(2.0, 3, 0), 5.0);
    }
}
