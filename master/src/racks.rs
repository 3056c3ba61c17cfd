//! Who belongs to the cluster: the racks, the daemon that serves each, and how they do.
//!
//! Plain data; time is an argument, counted from any moment on. A rack is known from its first joining on,
//! also after a restart of the master (from the store), but only a daemon that has joined in this term of
//! the master serves it.

use pool::addr::RackId;
use pool::proto::cluster::{Cluster, ClusterError, Rack, RackJoin, RackStats, Ways};
use std::collections::BTreeMap;
use std::time::Duration;

/// Without a beat for this long, a daemon does not count as alive.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// The racks of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Racks {
    known: BTreeMap<RackId, Known>,
}

#[derive(Debug)]
struct Known {
    join: RackJoin,
    /// As [`Rack::cas`].
    cas: String,
    stats: RackStats,
    presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// Not since the start of the master.
    Unseen,
    /// Heard of then.
    Heard(Duration),
    /// It has left.
    Left,
}

impl Known {
    fn is_alive(&self, now: Duration) -> bool {
        matches!(self.presence, Presence::Heard(at) if now.saturating_sub(at) < SILENCE)
    }
}

/// Whether a daemon that wants to serve a rack fits the cluster: its region does.
///
/// # Errors
/// `OtherCluster`, `PageSize`
pub(crate) fn check_region(join: &RackJoin, cluster: &Cluster) -> Result<(), ClusterError> {
    if join.cluster != 0 && join.cluster != cluster.id {
        return Err(ClusterError::OtherCluster { found: join.cluster, wanted: cluster.id });
    }
    if join.page_size != cluster.page_size {
        return Err(ClusterError::PageSize { found: join.page_size, wanted: cluster.page_size });
    }
    Ok(())
}

impl Racks {
    /// A rack that was there before the start of the master.
    pub(crate) fn remember(&mut self, join: RackJoin) {
        let (stats, cas) = (RackStats::default(), String::new());
        let known = Known { stats, presence: Presence::Unseen, cas, join };
        self.known.insert(known.join.rack, known);
    }

    /// Whether this daemon may serve its rack now.
    ///
    /// # Errors
    /// `RackInUse`
    pub(crate) fn check(&self, join: &RackJoin, now: Duration) -> Result<(), ClusterError> {
        match self.known.get(&join.rack) {
            Some(known) if known.is_alive(now) && known.join.incarnation != join.incarnation => {
                Err(ClusterError::RackInUse { rack: join.rack, addr: known.join.addr.clone() })
            }
            _ => Ok(()),
        }
    }

    /// How the rack joined last.
    pub(crate) fn last_join(&self, rack: RackId) -> Option<&RackJoin> {
        self.known.get(&rack).map(|known| &known.join)
    }

    /// This daemon serves its rack from now on. Returns whether it did not before.
    pub(crate) fn join(&mut self, join: RackJoin, now: Duration) -> bool {
        let before = self.known.get(&join.rack);
        let again = before
            .filter(|known| known.join.incarnation == join.incarnation && known.presence != Presence::Unseen);
        let stats = again.map(|known| known.stats);
        let cas = again.map(|known| known.cas.clone()).unwrap_or_default();
        let known = Known { stats: stats.unwrap_or_default(), presence: Presence::Heard(now), cas, join };
        self.known.insert(known.join.rack, known);
        stats.is_none()
    }

    /// The daemon of the rack is still there.
    ///
    /// # Errors
    /// `NotJoined`
    pub(crate) fn beat(
        &mut self,
        rack: RackId,
        incarnation: u64,
        stats: RackStats,
        ways: Ways,
        now: Duration,
    ) -> Result<(), ClusterError> {
        let known = self.serving(rack, incarnation)?;
        (known.stats, known.join.transport, known.cas) = (stats, ways.transport, ways.cas);
        known.presence = Presence::Heard(now);
        Ok(())
    }

    /// The daemon of the rack ends.
    ///
    /// # Errors
    /// `NotJoined`
    pub(crate) fn leave(&mut self, rack: RackId, incarnation: u64) -> Result<(), ClusterError> {
        self.serving(rack, incarnation)?.presence = Presence::Left;
        Ok(())
    }

    fn serving(&mut self, rack: RackId, incarnation: u64) -> Result<&mut Known, ClusterError> {
        let known = self.known.get_mut(&rack).filter(|known| {
            known.join.incarnation == incarnation && matches!(known.presence, Presence::Heard(_))
        });
        known.ok_or(ClusterError::NotJoined(rack))
    }

    /// Whether a daemon with this incarnation serves the rack, as far as known.
    pub(crate) fn is_served_by(&self, rack: RackId, incarnation: u64) -> bool {
        let known = self.known.get(&rack).filter(|known| matches!(known.presence, Presence::Heard(_)));
        known.is_some_and(|known| known.join.incarnation == incarnation)
    }

    /// Whether the rack's daemon is there, as far as known.
    pub(crate) fn is_alive(&self, rack: RackId, now: Duration) -> bool {
        self.known.get(&rack).is_some_and(|known| known.is_alive(now))
    }

    /// The racks that have not left, if all of their daemons are there and have said that they have no
    /// clients, and those that have left had none.
    pub(crate) fn quiet(&self, now: Duration) -> Option<Vec<RackId>> {
        let mut quiet = Vec::with_capacity(self.known.len());
        for (rack, known) in &self.known {
            let left = known.presence == Presence::Left;
            if known.stats.clients > 0 || !(left || known.is_alive(now)) {
                return None;
            }
            quiet.extend(Some(*rack).filter(|_| !left));
        }
        Some(quiet)
    }

    /// All racks, in the order of their ids.
    pub(crate) fn list(&self, now: Duration) -> Vec<Rack> {
        let rack = |known: &Known| Rack {
            join: known.join.clone(),
            cas: known.cas.clone(),
            alive: known.is_alive(now),
            stats: known.stats,
        };
        self.known.values().map(rack).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageSize;

    const T0: Duration = Duration::from_secs(100);
    const CLUSTER: Cluster = Cluster { id: 7, page_size: PageSize::MIN, term: 1 };

    fn join(rack: u16, incarnation: u64) -> RackJoin {
        RackJoin {
            rack: RackId(rack),
            cluster: 0,
            page_size: PageSize::MIN,
            incarnation,
            addr: format!("host:{incarnation}"),
            region: "/dev/shm/r".into(),
            region_id: 1,
            transport: "tcp".into(),
        }
    }

    fn ways(transport: &str) -> Ways {
        Ways { transport: transport.into(), cas: "home CPU".into() }
    }

    fn after(millis: u64) -> Duration {
        T0 + Duration::from_millis(millis)
    }

    #[test]
    fn a_rack_in_use_is_refused_until_its_daemon_is_silent_for_five_seconds() {
        let mut racks = Racks::default();
        assert!(racks.join(join(3, 1), T0));
        racks.beat(RackId(3), 1, RackStats::default(), ways("tcp"), after(1000)).unwrap();
        let addr = "host:1".into();
        let in_use = Err(ClusterError::RackInUse { rack: RackId(3), addr });
        assert_eq!(racks.check(&join(3, 2), after(5999)), in_use);
        assert_eq!(racks.check(&join(3, 1), after(5999)), Ok(()));
        assert_eq!(racks.check(&join(4, 2), after(5999)), Ok(()));
        assert!(racks.list(after(5999))[0].alive);
        assert!(!racks.list(after(6000))[0].alive);
        assert_eq!(racks.check(&join(3, 2), after(6000)), Ok(()));
        assert!(racks.join(join(3, 2), after(6000)));
        assert_eq!(
            racks.beat(RackId(3), 1, RackStats::default(), ways("tcp"), after(6001)),
            Err(ClusterError::NotJoined(RackId(3)))
        );
    }

    #[test]
    fn a_late_beat_brings_a_daemon_back_and_nobody_else() {
        let mut racks = Racks::default();
        racks.join(join(3, 1), T0);
        assert!(!racks.list(after(60_000))[0].alive);
        racks
            .beat(RackId(3), 1, RackStats { free: 9, ..RackStats::default() }, ways("rdma:1"), after(60_000))
            .unwrap();
        let listed = racks.list(after(60_001));
        assert!(listed[0].alive && listed[0].stats.free == 9);
        assert!(!racks.join(join(3, 1), after(60_002)), "it is the same daemon");
        assert_eq!(racks.list(after(60_003))[0].stats.free, 9);
    }

    #[test]
    fn a_rack_that_was_left_is_free_at_once() {
        let mut racks = Racks::default();
        racks.join(join(3, 1), T0);
        assert_eq!(racks.leave(RackId(3), 2), Err(ClusterError::NotJoined(RackId(3))));
        racks.leave(RackId(3), 1).unwrap();
        assert!(!racks.list(T0)[0].alive);
        assert_eq!(racks.check(&join(3, 2), T0), Ok(()));
        assert_eq!(
            racks.beat(RackId(3), 1, RackStats::default(), ways("tcp"), T0),
            Err(ClusterError::NotJoined(RackId(3)))
        );
    }

    #[test]
    fn a_rack_that_was_there_before_is_known_but_has_to_join() {
        let mut racks = Racks::default();
        racks.remember(join(3, 1));
        assert!(!racks.list(T0)[0].alive);
        assert_eq!(
            racks.beat(RackId(3), 1, RackStats::default(), ways("tcp"), T0),
            Err(ClusterError::NotJoined(RackId(3)))
        );
        assert!(racks.join(join(3, 1), T0), "it is new to this term");
        assert!(racks.list(T0)[0].alive);
    }

    #[test]
    fn a_region_of_another_cluster_or_page_size_is_refused() {
        assert_eq!(check_region(&join(1, 1), &CLUSTER), Ok(()));
        assert_eq!(check_region(&RackJoin { cluster: 7, ..join(1, 1) }, &CLUSTER), Ok(()));
        let other = check_region(&RackJoin { cluster: 8, ..join(1, 1) }, &CLUSTER);
        assert_eq!(other, Err(ClusterError::OtherCluster { found: 8, wanted: 7 }));
        let large = check_region(&RackJoin { page_size: PageSize::MAX, ..join(1, 1) }, &CLUSTER);
        assert_eq!(large, Err(ClusterError::PageSize { found: PageSize::MAX, wanted: PageSize::MIN }));
    }

    #[test]
    fn it_is_quiet_when_every_rack_says_that_it_has_no_clients() {
        let mut racks = Racks::default();
        racks.remember(join(1, 1));
        assert_eq!(racks.quiet(T0), None, "nobody knows");
        racks.join(join(1, 1), T0);
        racks.join(join(2, 1), T0);
        assert_eq!(racks.quiet(T0), Some(vec![RackId(1), RackId(2)]));
        let busy = RackStats { clients: 1, ..RackStats::default() };
        racks.beat(RackId(2), 1, busy, ways("tcp"), T0).unwrap();
        assert_eq!(racks.quiet(T0), None);
        racks.leave(RackId(2), 1).unwrap();
        assert_eq!(racks.quiet(T0), None, "its clients may still be there");
        racks.join(join(2, 2), T0);
        racks.leave(RackId(2), 2).unwrap();
        assert_eq!(racks.quiet(T0), Some(vec![RackId(1)]));
        assert_eq!(racks.quiet(after(5000)), None, "rack 1 is silent");
    }
}
