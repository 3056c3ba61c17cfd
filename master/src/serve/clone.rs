//! Cloning a tree: at once for who is alone, and bit by bit where others are to be served meanwhile.
//!
//! In a cluster a thread has the tree [frozen](crate::mounts::tree), copies it, has the copy written down and
//! puts it into the namespace. Each of that is done a [`SLICE`] at a time, and what takes long is done without any
//! lock. So whoever has nothing to do with the tree waits for no more than a slice.
//!
//! **The copy's one commit point is the store's batch.** Up to there a failure leaves nothing; after it nothing
//! can fail. A master that dies has the clone, or not, by whether the batch is whole.

use super::mount::Effects;
use super::{Core, refused};
use crate::mounts::tree::{Frozen, Tree};
use crate::mounts::{Mounts, Parked};
use crate::namespace::ops::{Made, TreeCopy};
use parking_lot::{RwLockUpgradableReadGuard, RwLockWriteGuard};
use pool::proto::meta::{Attr, Caller, Ino, MetaError, MetaReply, MetaRequest};
use pool::proto::mount::{Answer as Answered, MountError, MountReply, MountRequest};
use pool::transport::Answer;
use std::sync::Arc;

/// Inodes that are looked at, copied or put in while others wait.
const SLICE: usize = 512;

impl Core {
    /// Clones a tree while nobody else changes anything.
    pub(super) fn clone_at_once(&self, from: Ino, to: Ino, caller: Caller) -> Result<MetaReply, MetaError> {
        let ns = self.ns.upgradable_read();
        let (first, room) = (ns.next_ino(), ns.room());
        let mut copy = TreeCopy::new(&ns, (from, to), (caller, self.clock.now()), (first, room))?;
        copy.go_on(&ns, usize::MAX)?;
        let (mut changes, mut made) = copy.finish();
        let mark = ns.mark_up_to(Some(made.end()))?;
        changes.extend(mark.clone());
        self.store.commit(&changes).map_err(refused)?;
        let mut ns = RwLockUpgradableReadGuard::upgrade(ns);
        mark.into_iter().for_each(|mark| ns.apply(mark));
        ns.expect(made.end() - first);
        while !made.put(&mut ns, usize::MAX) {}
        Ok(MetaReply::Attr(ns.attr(to)?))
    }

    /// Begins to clone a tree for a mount.
    pub(super) fn begin_clone(
        &self,
        m: &mut Mounts,
        session: u64,
        tree: Tree,
        answer: Answer,
        fx: &mut Effects,
    ) {
        if m.closed {
            return fx.answers.push((answer, Err(MountError::Ending)));
        }
        if !m.sessions.is_alive(session) {
            return fx.answers.push((answer, Err(MountError::Expired)));
        }
        let id = m.number();
        let request = MetaRequest::CloneTree { from: tree.from, to: tree.to, caller: tree.caller };
        let mut parked = Parked::new(id, session, MountRequest::Do { session, request }, answer);
        parked.changes.insert(tree.to);
        parked.tree = Some(tree);
        m.park(parked);
    }

    /// Goes on with the clone that is parked under this number.
    pub(super) fn go_on_cloning(self: &Arc<Self>, id: u64) {
        let result = loop {
            match self.freeze(id) {
                Frozen::More => {}
                Frozen::All { from, to, caller, count } => {
                    break self.clone_frozen((from, to), caller, count);
                }
                Frozen::Refused => break Err(MetaError::NotPermitted),
                Frozen::Waits | Frozen::Gone => return,
            }
        };
        self.enter(|_, m, fx| {
            let granted = result.iter().cloned().collect();
            let Some((parked, seq)) = m.cloned(id, result.as_ref().ok().map(|attr| attr.ino)) else { return };
            let result = result.map(MetaReply::Attr);
            let answer = Answered { seq, result, granted, extents: None };
            fx.answers.push((parked.answer, Ok(MountReply::Answer(answer))));
        });
    }

    fn freeze(self: &Arc<Self>, id: u64) -> Frozen {
        let mut frozen = Frozen::Gone;
        self.enter(|core, m, _| frozen = m.freeze(&core.ns.read(), id, SLICE, core.clock.elapsed()));
        frozen
    }

    /// Clones a tree of at most `count` inodes that stands still.
    fn clone_frozen(&self, what: (Ino, Ino), caller: Caller, count: u64) -> Result<Attr, MetaError> {
        let first = self.expect(count)?;
        let copied = self.copy_frozen(what, caller, (first, count));
        let more = copied.as_ref().map_or(count, |made| first + count - made.end());
        self.ns.write().expect_no_more(more);
        let mut made = copied?;
        loop {
            let mut ns = self.ns.write();
            if made.put(&mut ns, SLICE) {
                return ns.attr(what.1);
            }
            RwLockWriteGuard::unlock_fair(ns);
        }
    }

    /// Copies a tree that stands still, and has the copy written down.
    fn copy_frozen(&self, what: (Ino, Ino), caller: Caller, numbers: (u64, u64)) -> Result<Made, MetaError> {
        let mut copy = TreeCopy::new(&self.ns.read(), what, (caller, self.clock.now()), numbers)?;
        while !copy.go_on(&self.ns.read(), SLICE)? {}
        let (changes, made) = copy.finish();
        self.store.commit(&changes).map_err(refused)?;
        Ok(made)
    }

    /// Gives out so many inode numbers. The first of them.
    fn expect(&self, count: u64) -> Result<u64, MetaError> {
        let ns = self.ns.upgradable_read();
        if ns.room() < count {
            return Err(MetaError::NoSpace("there are as many inodes as there may be".into()));
        }
        let mark = ns.mark_up_to(ns.next_ino().checked_add(count))?;
        self.store.commit(mark.as_slice()).map_err(refused)?;
        let mut ns = RwLockUpgradableReadGuard::upgrade(ns);
        mark.into_iter().for_each(|mark| ns.apply(mark));
        Ok(ns.expect(count))
    }
}
