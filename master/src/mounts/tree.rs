//! A tree that is to be cloned: how it comes to stand still without all of it being looked at at once.
//!
//! The request is parked like any other that waits, and what is in its `changes` is nobody else's to change. Only the
//! whole tree is not found in one go: [`Mounts::freeze`] adds a number of inodes each time, from the top down, and
//! has revoked the right to write to them. As the entries of a directory do not change once it has been added, all is
//! found in the end.
//!
//! An older request may go on to change what was added: then that is looked at again ([`Mounts::disturbed`]). When
//! nothing is left to be looked at or waited for, the clone is *carried out*, by a thread that does not hold the lock of
//! [`Mounts`]. From then on it waits for nobody, so also what is older waits for it, and the tree stands still.
//!
//! A thread that is at work on a clone is among what it waits for, as the request's own number.

use super::leases::{Mode, Need};
use super::{Inodes, Mounts, Parked};
use crate::namespace::{Namespace, ops};
use pool::proto::meta::{Caller, Ino};
use pool::proto::mount::Seq;
use std::time::Duration;

/// A tree to be cloned.
pub(crate) struct Tree {
    pub from: Ino,
    pub to: Ino,
    pub caller: Caller,
    /// Inodes still to be looked at.
    todo: Vec<Ino>,
    /// Those that are to be looked at again when what is waited for now is done.
    again: Vec<Ino>,
    /// All stands still.
    pub carried_out: bool,
}

/// How far freezing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// There is more to look at.
    More,
    /// Others must do something first; then the request waits for nothing any more.
    Waits,
    /// All stands still, and is carried out from now on: a tree of at most `count` inodes below its top.
    All { from: Ino, to: Ino, caller: Caller, count: u64 },
    /// Something in it belongs to somebody else.
    Refused,
    /// The request is not there any more.
    Gone,
}

impl Tree {
    /// `from`, which is to be cloned into `to`.
    pub(crate) fn new(from: Ino, to: Ino, caller: Caller) -> Self {
        Self { from, to, caller, todo: vec![from, to], again: Vec::new(), carried_out: false }
    }
}

impl Mounts {
    /// Looks at `most` inodes more of the tree that the parked request `id` is to clone.
    pub(crate) fn freeze(&mut self, ns: &Namespace, id: u64, most: usize, now: Duration) -> Frozen {
        let Some(mut parked) = self.take_parked(id) else { return Frozen::Gone };
        let Some(mut tree) = parked.tree.take() else { return Frozen::Gone };
        let mut refused = false;
        for _ in 0..most {
            let Some(ino) = tree.todo.pop() else { break };
            let need = if ino == tree.to { Need::Replace } else { Need::Share };
            parked.changes.insert(ino);
            let inode = ns.get(ino);
            if inode.is_some_and(|inode| !ops::may_copy(tree.caller, inode)) {
                refused = true;
                break;
            }
            if self.claim(&mut parked, ino, &need, now) {
                let entries = inode.and_then(|inode| inode.dir()).into_iter().flat_map(|dir| dir.after(0));
                let new = entries.map(|(_, entry)| entry.ino).filter(|ino| !parked.changes.contains(ino));
                tree.todo.extend(new);
            } else {
                tree.again.push(ino);
            }
        }
        let own = (0, id);
        let frozen = if refused {
            Frozen::Refused
        } else if !tree.todo.is_empty() {
            Frozen::More
        } else if tree.again.is_empty() && parked.waits.iter().all(|wait| *wait == own) {
            tree.carried_out = true;
            let count = (parked.changes.len() as u64).saturating_sub(2);
            Frozen::All { from: tree.from, to: tree.to, caller: tree.caller, count }
        } else {
            tree.todo = std::mem::take(&mut tree.again);
            parked.waits.remove(&own);
            Frozen::Waits
        };
        parked.tree = Some(tree);
        self.park(parked);
        frozen
    }

    /// Has revoked what is in the way of this being done to `ino`; false if older requests must be done with it first.
    fn claim(&mut self, parked: &mut Parked, ino: Ino, need: &Need, now: Duration) -> bool {
        let session = parked.session;
        let before: Vec<u64> = self
            .parked
            .iter()
            .filter(|other| other.goes_before(parked.id, ino))
            .map(|other| other.id)
            .collect();
        parked.waits.extend(before.iter().map(|id| (0, *id)));
        parked.waits.extend(self.sessions.outstanding(session, ino).into_iter().map(|seq| (session, seq)));
        for (other, what) in self.leases.conflicts(ino, session, need) {
            let seq = self.sessions.revoke(other, ino, what, &mut self.seq, now);
            parked.waits.extend(seq.map(|seq| (other, seq)));
        }
        before.is_empty()
    }

    /// The request `id` is about to change these inodes: trees that they are in are newer, and look at them again.
    pub(crate) fn disturbed(&mut self, id: u64, inos: &Inodes) {
        for other in self.parked.iter_mut().filter(|other| other.id > id) {
            if let Some(tree) = &mut other.tree {
                tree.again.extend(inos.iter().filter(|ino| other.changes.contains(*ino)));
            }
        }
    }

    /// Takes out the request with this number.
    pub(crate) fn take_parked(&mut self, id: u64) -> Option<Parked> {
        let at = self.parked.iter().position(|parked| parked.id == id)?;
        Some(self.parked.remove(at))
    }

    /// The clone of a tree is over; who asked for it has `to` as a lease if it went well.
    pub(crate) fn cloned(&mut self, id: u64, granted: Option<Ino>) -> Option<(Parked, Seq)> {
        let parked = self.take_parked(id)?;
        self.seq += 1;
        if let Some(ino) = granted
            && self.sessions.is_there(parked.session)
        {
            self.leases.grant(ino, parked.session, Mode::Shared, self.seq);
        }
        self.is_done(id);
        Some((parked, self.seq))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, Meta};
    use crate::mounts::grace::Grace;
    use crate::namespace::Limits;
    use pool::addr::{PageSize, RackId};
    use pool::proto::cluster::ClientName;
    use pool::proto::meta::{Kind, MetaRequest, Time};
    use pool::proto::mount::{MountRequest, Revoked};
    use std::collections::HashSet;

    const ROOT: Caller = Caller { uid: 0, gid: 0 };
    const TOP: Ino = Ino(10);
    const TO: Ino = Ino(11);
    const CLIENT: (RackId, ClientName) = (RackId(0), ClientName::Mapped(1));
    const NOW: Duration = Duration::ZERO;
    const ALL: usize = usize::MAX;

    fn put(ns: &mut Namespace, parent: Ino, ino: Ino, kind: Kind) {
        let time = Time::default();
        let (atime, mtime, ctime, btime) = (time, time, time, time);
        let meta = Meta {
            kind,
            perm: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            pages: 0,
            atime,
            mtime,
            ctime,
            btime,
        };
        ns.apply(Change::PutInode(ino, meta));
        let (cookie, name) = (ino.0 + 2, ino.0.to_string().into_bytes().into());
        ns.apply(Change::PutEntry { parent, cookie, ino, name });
    }

    /// Directories 10, which has the directory 20 with files 21 to 29, and 11.
    fn names() -> Namespace {
        let mut ns = Namespace::empty(Limits { page_size: PageSize::MIN, max_inodes: 1 << 20 });
        for (parent, dir) in [(Ino::ROOT, Ino::ROOT), (Ino::ROOT, TOP), (Ino::ROOT, TO), (TOP, Ino(20))] {
            put(&mut ns, parent, dir, Kind::Dir);
        }
        (21..30).for_each(|file| put(&mut ns, Ino(20), Ino(file), Kind::File));
        ns
    }

    fn request(m: &mut Mounts, session: u64) -> Parked {
        let request = MountRequest::Do { session, request: MetaRequest::StatFs };
        Parked::new(m.number(), session, request, Box::new(|_| {}))
    }

    /// Mounts with the sessions 1 and 2, and a clone that a thread is at work on.
    fn parked(m: &mut Mounts) -> u64 {
        m.sessions.open(1, "one".into(), CLIENT, NOW);
        m.sessions.open(2, "two".into(), CLIENT, NOW);
        let mut parked = request(m, 1);
        let id = parked.id;
        parked.waits.insert((0, id));
        parked.tree = Some(Tree::new(TOP, TO, ROOT));
        m.park(parked);
        id
    }

    fn waits(m: &Mounts, id: u64) -> HashSet<(u64, u64)> {
        m.parked.iter().find(|parked| parked.id == id).unwrap().waits.clone()
    }

    const FROZEN: Frozen = Frozen::All { from: TOP, to: TO, caller: ROOT, count: 10 };

    #[test]
    fn a_tree_is_found_bit_by_bit_and_nobody_may_write_to_it_any_more() {
        let (ns, mut m) = (names(), Mounts::new(1, Grace::default(), Vec::new()));
        let id = parked(&mut m);
        m.leases.grant(Ino(25), 2, Mode::Exclusive, 1);
        m.leases.grant(Ino(26), 2, Mode::Shared, 1);
        let mut steps = 0;
        while m.freeze(&ns, id, 3, NOW) == Frozen::More {
            steps += 1;
        }
        assert_eq!(steps, 3, "12 inodes, the last of which say that there are no more");
        let waits = waits(&m, id);
        assert_eq!(waits.iter().map(|(session, _)| *session).collect::<Vec<_>>(), [2]);
        let (_, seq) = *waits.iter().next().unwrap();
        assert_eq!(m.sessions.acknowledged(2, seq), Some((Ino(25), Revoked::Writing)));
        m.leases.reduce(Ino(25), 2, Some(Mode::Shared));
        m.parked[0].waits.clear();
        assert_eq!(m.freeze(&ns, id, 3, NOW), FROZEN);
        assert_eq!(m.freeze(&ns, id + 1, 3, NOW), Frozen::Gone);
    }

    #[test]
    fn what_an_older_request_is_about_to_change_is_waited_for_and_looked_at_again() {
        let (mut ns, mut m) = (names(), Mounts::new(1, Grace::default(), Vec::new()));
        let mut older = request(&mut m, 2);
        older.changes.insert(Ino(20));
        let id = parked(&mut m);
        let (number, changes) = (older.id, older.changes.clone());
        m.park(older);
        assert_eq!(m.freeze(&ns, id, ALL, NOW), Frozen::Waits);
        assert_eq!(waits(&m, id), HashSet::from([(0, number)]));
        // It makes a file, which its mount may write.
        m.take_parked(number);
        m.disturbed(number, &changes);
        put(&mut ns, Ino(20), Ino(30), Kind::File);
        m.leases.grant(Ino(30), 2, Mode::Exclusive, 1);
        m.is_done(number);
        assert_eq!(m.freeze(&ns, id, ALL, NOW), Frozen::Waits);
        assert_eq!(waits(&m, id).iter().map(|(session, _)| *session).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_an_older_request_changes_after_it_was_looked_at_is_looked_at_again() {
        let (mut ns, mut m) = (names(), Mounts::new(1, Grace::default(), Vec::new()));
        let older = request(&mut m, 2);
        let id = parked(&mut m);
        assert_eq!(m.freeze(&ns, id, 3, NOW), Frozen::More);
        m.disturbed(older.id, &Inodes::from([Ino(20), Ino(99)]));
        put(&mut ns, Ino(20), Ino(30), Kind::File);
        m.leases.grant(Ino(30), 2, Mode::Exclusive, 1);
        // First all that was known to be left.
        assert_eq!(m.freeze(&ns, id, ALL, NOW), Frozen::Waits);
        assert_eq!(waits(&m, id), HashSet::new());
        assert_eq!(m.freeze(&ns, id, ALL, NOW), Frozen::Waits);
        assert_eq!(waits(&m, id).len(), 1, "the new file");
    }

    #[test]
    fn older_requests_wait_for_a_clone_only_while_it_is_carried_out() {
        let (ns, mut m) = (names(), Mounts::new(1, Grace::default(), Vec::new()));
        let older = request(&mut m, 2);
        let id = parked(&mut m);
        assert_eq!(m.freeze(&ns, id, 3, NOW), Frozen::More);
        assert!(!m.parked[0].goes_before(older.id, TO));
        assert!(m.parked[0].goes_before(id + 1, TO));
        assert_eq!(m.freeze(&ns, id, ALL, NOW), FROZEN);
        assert!(m.parked[0].goes_before(older.id, TO));
        assert!(!m.parked[0].goes_before(older.id, Ino::ROOT));
    }

    #[test]
    fn who_asks_is_granted_what_was_made_unless_it_is_gone() {
        let (ns, mut m) = (names(), Mounts::new(1, Grace::default(), Vec::new()));
        let id = parked(&mut m);
        assert_eq!(m.freeze(&ns, id, ALL, NOW), FROZEN);
        let mut newer = request(&mut m, 2);
        newer.waits.insert((0, id));
        m.park(newer);
        m.sessions.close(1);
        assert!(m.cloned(id, Some(TO)).is_some());
        assert_eq!((m.leases.mode(TO, 1), m.parked[0].waits.len()), (None, 0));
        assert!(m.cloned(id, Some(TO)).is_none());
    }
}
