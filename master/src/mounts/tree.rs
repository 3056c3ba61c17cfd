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
use super::{Mounts, Parked};
use crate::namespace::{Namespace, ops};
use pool::proto::meta::{Caller, Ino};
use pool::proto::mount::Seq;
use std::collections::HashSet;
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
    pub(crate) fn disturbed(&mut self, id: u64, inos: &HashSet<Ino>) {
        for other in self.parked.iter_mut().filter(|other| other.id > id) {
            if let Some(tree) = &mut other.tree {
                tree.again.extend(inos.iter().filter(|ino| other.changes.contains(ino)));
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
