//! What has become of the swaps of one rack, in this term of the master.
//!
//! Swaps are numbered from 1 on by each incarnation of the rack's daemon. Of the present one it is
//! remembered which have been committed and which were fenced, from the oldest that is not over; what is
//! older is never committed. The present incarnation's successors make all its swaps void.

use pool::proto::cluster::ClusterError;
use std::collections::{BTreeMap, HashSet};

/// The most swaps of a daemon that are remembered. Beyond that the oldest count as over, whatever the
/// daemon says: it cannot commit them any more, and has to resolve them.
const MOST: usize = 1 << 16;

/// What has become of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Its pages have moved.
    Committed,
    /// Its pages will not move by it.
    Fenced,
    /// One or the other.
    Forgotten,
}

/// The swaps of a rack.
#[derive(Debug, Default)]
pub(super) struct Swaps {
    current: Option<u64>,
    /// Incarnations that never come back: those that were succeeded, 8 bytes a restart of a daemon, and
    /// those of which a swap was resolved that had never joined.
    past: HashSet<u64>,
    /// Lower numbers are over.
    oldest: u64,
    /// Never [`Outcome::Forgotten`].
    over: BTreeMap<u64, Outcome>,
}

impl Swaps {
    pub(super) fn has_joined(&self) -> bool {
        self.current.is_some()
    }

    pub(super) fn is_current(&self, incarnation: u64) -> bool {
        self.current == Some(incarnation)
    }

    pub(super) fn is_past(&self, incarnation: u64) -> bool {
        self.past.contains(&incarnation)
    }

    /// The present incarnation from now on.
    pub(super) fn join(&mut self, incarnation: u64) {
        if self.is_current(incarnation) {
            return;
        }
        self.past.extend(self.current.replace(incarnation));
        self.oldest = 0;
        self.over.clear();
    }

    /// What has become of a swap of the present incarnation; `None` if it may still be committed.
    pub(super) fn outcome(&self, number: u64) -> Option<Outcome> {
        if number < self.oldest { Some(Outcome::Forgotten) } else { self.over.get(&number).copied() }
    }

    pub(super) fn committed(&mut self, number: u64) {
        self.remember(number, Outcome::Committed);
    }

    /// Makes sure that a swap is not committed from now on.
    pub(super) fn fence(&mut self, incarnation: u64, number: u64) -> Result<(), ClusterError> {
        if !self.is_current(incarnation) {
            if !self.is_past(incarnation) && self.past.len() >= MOST {
                return Err(ClusterError::Refused("too many swaps of daemons that never joined".into()));
            }
            self.past.insert(incarnation);
        } else if self.outcome(number).is_none() {
            self.remember(number, Outcome::Fenced);
        }
        Ok(())
    }

    /// Swaps with lower numbers are over.
    pub(super) fn prune(&mut self, oldest: u64) {
        if oldest > self.oldest {
            self.oldest = oldest;
            self.over = self.over.split_off(&oldest);
        }
    }

    fn remember(&mut self, number: u64, outcome: Outcome) {
        self.over.insert(number, outcome);
        while self.over.len() > MOST
            && let Some((first, _)) = self.over.pop_first()
        {
            self.oldest = first + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_swaps_than_can_be_remembered_make_the_oldest_void() {
        let mut swaps = Swaps::default();
        swaps.join(1);
        for number in 1..=MOST as u64 + 5 {
            swaps.committed(number);
        }
        assert_eq!(swaps.over.len(), MOST);
        assert_eq!(swaps.outcome(5), Some(Outcome::Forgotten));
        assert_eq!(swaps.outcome(6), Some(Outcome::Committed));
        swaps.prune(u64::MAX);
        assert!(swaps.over.is_empty());
        assert_eq!(swaps.outcome(MOST as u64 + 9), Some(Outcome::Forgotten));
    }
}
