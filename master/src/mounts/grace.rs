//! After a start of the master: waiting for the mounts that had sessions before. Plain data; time is an argument.
//!
//! **Invariant:** as long as such a mount may come back, nobody is granted a lock that it may have, and no inode is freed
//! that it may have open. The master remembers sessions in its store from their beginning to their end, so a mount whose
//! session had ended before, and whose locks others have had since, is not among those that are waited for and reclaims no
//! locks.
//!
//! Requests for locks wait meanwhile: not for long, and a mount that asks cannot tell that from a slow master.

use pool::addr::RackId;
use pool::proto::cluster::ClientName;
use pool::proto::mount::{GRACE, Lock, LockHow};
use pool::transport::Answer;
use std::collections::BTreeMap;
use std::time::Duration;

/// Who asks for a lock meanwhile.
pub(crate) struct Waiting {
    pub session: u64,
    pub lock: Lock,
    pub how: LockHow,
    pub answer: Answer,
}

/// The time of grace.
#[derive(Default)]
pub(crate) struct Grace {
    /// Sessions of which nothing was heard yet.
    awaited: BTreeMap<u64, (RackId, ClientName)>,
    /// When it ends at the latest; `None` if it has.
    until: Option<Duration>,
    /// In the order of asking.
    waiting: Vec<Waiting>,
}

impl Grace {
    /// Waits for these from `now` on.
    pub(crate) fn begin(awaited: BTreeMap<u64, (RackId, ClientName)>, now: Duration) -> Self {
        let until = (!awaited.is_empty()).then(|| now + GRACE);
        Self { awaited, until, waiting: Vec::new() }
    }

    /// Whether it has not ended.
    pub(crate) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Whether it is to end now.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now >= until || self.awaited.is_empty())
    }

    /// Whether the mount that had this session is waited for.
    pub(crate) fn expects(&self, was: u64) -> bool {
        self.awaited.contains_key(&was)
    }

    /// The mount that had this session has reclaimed everything.
    pub(crate) fn came(&mut self, was: u64) {
        self.awaited.remove(&was);
    }

    /// The sessions of this client, for which it is no use to wait any more.
    pub(crate) fn died(&mut self, client: (RackId, ClientName)) -> Vec<u64> {
        let mut died = Vec::new();
        self.awaited.retain(|session, of| {
            let stays = *of != client;
            died.extend((!stays).then_some(*session));
            stays
        });
        died
    }

    /// Somebody asks for a lock.
    pub(crate) fn wait(&mut self, waiting: Waiting) {
        self.waiting.push(waiting);
    }

    /// Those that ask, if `session` does.
    pub(crate) fn take_waiting(&mut self, of: impl Fn(u64) -> bool) -> Vec<Waiting> {
        self.waiting.extract_if(.., |waiting| of(waiting.session)).collect()
    }

    /// Ends; the sessions that were waited for in vain, and who has asked for locks.
    pub(crate) fn end(&mut self) -> (Vec<u64>, Vec<Waiting>) {
        self.until = None;
        let missing = std::mem::take(&mut self.awaited).into_keys().collect();
        (missing, std::mem::take(&mut self.waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: (RackId, ClientName) = (RackId(1), ClientName::Mapped(5));
    const OTHER: (RackId, ClientName) = (RackId(2), ClientName::Mapped(5));

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn without_mounts_before_there_is_none() {
        let grace = Grace::begin(BTreeMap::new(), secs(1));
        assert!(!grace.is_on() && !grace.is_due(secs(99)));
    }

    #[test]
    fn it_ends_when_all_are_back_or_dead_or_after_its_time() {
        let awaited = BTreeMap::from([(7, ONE), (8, OTHER), (9, ONE)]);
        let mut grace = Grace::begin(awaited, secs(1));
        assert!(grace.is_on() && !grace.is_due(secs(1)) && grace.is_due(secs(1) + GRACE));
        assert!(grace.expects(8) && !grace.expects(10));
        grace.came(8);
        assert!(!grace.expects(8) && !grace.is_due(secs(1)));
        assert_eq!(grace.died(ONE), [7, 9]);
        assert!(grace.is_due(secs(1)));
        assert!(grace.end().0.is_empty() && !grace.is_on() && !grace.is_due(secs(99)));
    }

    #[test]
    fn who_did_not_come_is_told_of_in_the_end() {
        let mut grace = Grace::begin(BTreeMap::from([(7, ONE), (8, OTHER)]), secs(0));
        grace.came(7);
        assert_eq!(grace.end().0, [8]);
    }
}
