//! Keys by which an access was made of which it is not known whether it has been carried out, or still
//! will be.
//!
//! Such a write may lie in a socket, and be carried out when its caller has long been told that it failed.
//! So that it does not overwrite what is written later, the key is not used any more, and its home is
//! asked to withdraw it. Until the home has, no reference to a page of that home is acknowledged as given
//! up, so that the home, if it needs a page, withdraws the key by itself.

use parking_lot::RwLock;
use pool::addr::RackId;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The keys in doubt, each with the rack whose memory it opens.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    keys: RwLock<HashSet<(RackId, u64)>>,
    /// How many there are; mostly none, which is then seen without a lock.
    count: AtomicUsize,
}

impl Doubts {
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether `key` of `home` must not be used.
    pub fn is_raised(&self, home: RackId, key: u64) -> bool {
        !self.is_empty() && self.keys.read().contains(&(home, key))
    }

    /// Whether an access to `home` may still be carried out late.
    pub fn concern(&self, home: RackId) -> bool {
        !self.is_empty() && self.keys.read().iter().any(|key| key.0 == home)
    }

    /// `key` of `home` is in doubt. True if it was not before.
    pub fn raise(&self, home: RackId, key: u64) -> bool {
        let mut keys = self.keys.write();
        let new = keys.insert((home, key));
        self.count.store(keys.len(), Ordering::Release);
        new
    }

    /// `key` of `home` has been withdrawn.
    pub fn settle(&self, home: RackId, key: u64) {
        let mut keys = self.keys.write();
        keys.remove(&(home, key));
        self.count.store(keys.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: RackId = RackId(3);

    #[test]
    fn a_key_is_in_doubt_until_it_has_been_withdrawn() {
        let doubts = Doubts::default();
        assert!(!doubts.is_raised(HOME, 5) && !doubts.concern(HOME));
        assert!(doubts.raise(HOME, 5));
        assert!(!doubts.raise(HOME, 5));
        assert!(doubts.raise(HOME, 6));
        assert!(!doubts.is_raised(RackId(4), 5) && !doubts.concern(RackId(4)));
        doubts.settle(HOME, 5);
        assert!(!doubts.is_raised(HOME, 5) && doubts.is_raised(HOME, 6) && doubts.concern(HOME));
        doubts.settle(HOME, 6);
        assert!(!doubts.concern(HOME));
    }
}
