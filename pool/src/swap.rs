//! When a page of another rack is worth moving here, and when its home lets it go: pure decisions.
//!
//! The rule is Rcmp's (ACM TACO 21(1), 2024, doi 10.1145/3634916): below the watermark a page is accessed
//! where it is, at or above it the page is asked for. The home refuses when it uses the page at least as
//! much. A refusal cools the requester, so that two racks that use a page alike do not pass it to and
//! fro, and do not ask for it at every access either.

use std::time::Duration;

/// What to do about an access to a page of another rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Access it where it is.
    Direct,
    /// Access it where it is, and ask for it.
    Swap,
}

/// Decides about swaps. Called from many threads; must be quick, and must not block.
pub trait SwapPolicy: Send + Sync {
    /// What to do about an access with which the page has `heat` here. `cooling`: how long ago its home
    /// last refused it, if it has.
    fn choose(&self, heat: f64, refused: Option<Duration>) -> Choice;

    /// Whether the home, where a page has the heat `here`, lets it go to a rack where it has `there`.
    fn lets_go(&self, here: f64, there: f64) -> bool;

    /// Whether no heat that there can be makes a page be asked for: then nobody need count accesses.
    fn never_asks(&self) -> bool {
        false
    }
}

/// The policy of Rcmp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermark {
    /// Heat from which on a page is asked for. Infinite: never.
    pub watermark: f64,
    /// How long after a refusal a page is not asked for again.
    pub cooling: Duration,
}

impl Watermark {
    /// No page ever moves.
    pub const NEVER: Self = Self { watermark: f64::INFINITY, cooling: Duration::ZERO };
}

impl SwapPolicy for Watermark {
    fn choose(&self, heat: f64, refused: Option<Duration>) -> Choice {
        let cooling = refused.is_some_and(|ago| ago < self.cooling);
        if heat >= self.watermark && !cooling { Choice::Swap } else { Choice::Direct }
    }

    fn lets_go(&self, here: f64, there: f64) -> bool {
        here < there
    }

    fn never_asks(&self) -> bool {
        // Heat is at most what there are accesses in 1.5 half-lives: this would take a day of a billion a second.
        self.watermark > 1e14
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Watermark = Watermark { watermark: 3.0, cooling: Duration::from_millis(10) };

    #[test]
    fn a_page_is_asked_for_from_the_watermark_on() {
        assert_eq!(POLICY.choose(2.9, None), Choice::Direct);
        assert_eq!(POLICY.choose(3.0, None), Choice::Swap);
        assert_eq!(Watermark::NEVER.choose(f64::MAX, None), Choice::Direct);
        assert!(Watermark::NEVER.never_asks() && !POLICY.never_asks());
    }

    #[test]
    fn a_refused_page_is_not_asked_for_while_it_cools() {
        assert_eq!(POLICY.choose(100.0, Some(Duration::from_millis(9))), Choice::Direct);
        assert_eq!(POLICY.choose(100.0, Some(Duration::from_millis(10))), Choice::Swap);
    }

    #[test]
    fn the_home_keeps_what_it_uses_as_much() {
        assert!(POLICY.lets_go(2.9, 3.0));
        assert!(!POLICY.lets_go(3.0, 3.0));
    }
}
