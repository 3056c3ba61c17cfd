//! What this daemon knows of the other racks: as the master last told, and as changed by its own
//! allocations since. Plain data behind a lock that is a leaf; nothing here sends a message.

use parking_lot::RwLock;
use pool::addr::RackId;
use pool::proto::cluster::Rack;
use pool::proto::page::PageStat;
use std::cmp::Reverse;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    incarnation: u64,
    addr: String,
    alive: bool,
    total: u64,
    free: u64,
}

/// What is new about a rack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Which.
    pub rack: RackId,
    /// Where its daemon is now, if that has changed.
    pub addr: Option<String>,
    /// Its daemon has been started anew, or has gone: what it knew of us is forgotten.
    pub lost: bool,
}

/// The other racks.
pub(crate) struct Racks {
    me: RackId,
    known: RwLock<BTreeMap<RackId, Known>>,
}

impl Racks {
    pub fn new(me: RackId) -> Self {
        Self { me, known: RwLock::default() }
    }

    /// Takes over what the master says; tells what is new.
    pub fn learn(&self, racks: &[Rack]) -> Vec<News> {
        let mut known = self.known.write();
        let mut news = Vec::new();
        for rack in racks.iter().filter(|rack| rack.join.rack != self.me) {
            let now = Known {
                incarnation: rack.join.incarnation,
                addr: rack.join.addr.clone(),
                alive: rack.alive,
                total: rack.stats.total,
                free: rack.stats.free,
            };
            let before = known.insert(rack.join.rack, now.clone());
            let moved = before.as_ref().is_none_or(|before| before.addr != now.addr);
            let lost = before
                .is_some_and(|before| before.incarnation != now.incarnation || (before.alive && !now.alive));
            if moved || lost {
                news.push(News { rack: rack.join.rack, addr: moved.then_some(now.addr), lost });
            }
        }
        news
    }

    /// Where the daemon of that rack listens, if it is there.
    pub fn addr(&self, rack: RackId) -> Option<String> {
        self.known.read().get(&rack).filter(|rack| rack.alive).map(|rack| rack.addr.clone())
    }

    /// The racks to ask for pages, those with the most room first, and how much that was.
    pub fn by_room(&self) -> Vec<(RackId, u64)> {
        let known = self.known.read();
        let mut racks: Vec<_> =
            known.iter().filter(|(_, rack)| rack.alive).map(|(id, rack)| (*id, rack.free)).collect();
        racks.sort_by_key(|(id, free)| (Reverse(*free), *id));
        racks
    }

    /// How much there is in the racks that are there.
    pub fn stat(&self) -> PageStat {
        let known = self.known.read();
        let alive = known.values().filter(|rack| rack.alive);
        alive.fold(PageStat::default(), |sum, rack| PageStat {
            total: sum.total + rack.total,
            free: sum.free + rack.free,
        })
    }

    /// `rack` has given `pages` pages out, to us.
    pub fn gave(&self, rack: RackId, pages: u64) {
        self.change(rack, |free| free.saturating_sub(pages));
    }

    /// `rack` has taken `pages` pages back.
    pub fn took(&self, rack: RackId, pages: u64) {
        self.change(rack, |free| free.saturating_add(pages));
    }

    /// `rack` has no page left to give out.
    pub fn is_full(&self, rack: RackId) {
        self.change(rack, |_| 0);
    }

    fn change(&self, rack: RackId, change: impl FnOnce(u64) -> u64) {
        if let Some(known) = self.known.write().get_mut(&rack) {
            known.free = change(known.free).min(known.total);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageSize;
    use pool::proto::cluster::{RackJoin, RackStats};

    fn rack(id: u16, incarnation: u64, alive: bool, free: u64) -> Rack {
        let join = RackJoin {
            rack: RackId(id),
            cluster: 1,
            page_size: PageSize::MIN,
            incarnation,
            addr: format!("host:{id}"),
            region: "/dev/shm/x".into(),
            region_id: 1,
            transport: "tcp".into(),
        };
        Rack {
            join,
            cas: String::new(),
            alive,
            stats: RackStats { total: 100, free, ..RackStats::default() },
        }
    }

    #[test]
    fn the_rack_with_the_most_room_is_asked_first_and_a_dead_one_never() {
        let racks = Racks::new(RackId(0));
        racks.learn(&[rack(0, 1, true, 99), rack(1, 1, true, 5), rack(2, 1, true, 7), rack(3, 1, false, 50)]);
        assert_eq!(racks.by_room(), [(RackId(2), 7), (RackId(1), 5)]);
        racks.gave(RackId(2), 3);
        assert_eq!(racks.by_room(), [(RackId(1), 5), (RackId(2), 4)]);
        assert_eq!(racks.stat(), PageStat { total: 200, free: 9 });
        racks.took(RackId(2), 1000);
        racks.is_full(RackId(1));
        assert_eq!(racks.stat(), PageStat { total: 200, free: 100 });
    }

    #[test]
    fn a_new_incarnation_and_a_death_are_news_and_a_sign_of_life_is_not() {
        let racks = Racks::new(RackId(0));
        let first = racks.learn(&[rack(1, 1, true, 5)]);
        let addr = Some("host:1".to_string());
        assert_eq!(first, [News { rack: RackId(1), addr, lost: false }]);
        assert_eq!(racks.learn(&[rack(1, 1, true, 9)]), []);
        let lost = [News { rack: RackId(1), addr: None, lost: true }];
        assert_eq!(racks.learn(&[rack(1, 2, true, 9)]), lost);
        assert_eq!(racks.learn(&[rack(1, 2, false, 9)]), lost);
        assert_eq!(racks.learn(&[rack(1, 2, true, 9)]), []);
    }
}
