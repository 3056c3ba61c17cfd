//! Serves the mounts of a cluster: operations under leases, revocations, locks.
//!
//! **An operation** looks up what it needs of the leases of others ([`needs`]). What stands in its way is revoked, and
//! the request parked until that is acknowledged, or the session it was asked of is gone; then it is looked at anew.
//! It is carried out, and the leases that its answer grants are noted, under the one lock of [`Mounts`], so nothing
//! comes in between. A mount is granted nothing on an inode of which it has yet to acknowledge a revocation, and nobody
//! is granted anything on one that an older request waits to change. So requests wait for acknowledgements and for
//! older requests, and acknowledgements for no request at all: nobody waits in a circle.
//!
//! Only a clone of a tree is carried out without that lock, since it takes a while ([`clone`](super::clone)). While it is,
//! it waits for nobody, and all that need something of the tree wait for it.
//!
//! Lock order: `mounts`, then the namespace, then the store. Answers and pages that were freed are handed over when
//! the lock of `mounts` has been left.

use super::{Core, plan};
use crate::locks::{self, Owner};
use crate::mounts::leases::{Mode, Need};
use crate::mounts::tree::Tree;
use crate::mounts::{LockWait, Mounts, Parked, needs};
use crate::namespace::ops;
use pool::addr::PageRun;
use pool::proto::Reply;
use pool::proto::meta::{Attr, Ino, Kind, MetaReply, MetaRequest};
use pool::proto::mount::{
    Acknowledged, Answer as Answered, FEW_EXTENTS, Lock, LockFamily, LockHow, Locked, MountError, MountReply,
    MountRequest, Revoked, Seq,
};
use pool::transport::Answer;
use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often sessions, polls and waits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a wait for a lock is kept before the mount has to ask again: less than the deadline of a message.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Extents of a map sent at a time.
const MAP: u32 = 4096;

type Outcome = Result<MountReply, MountError>;

/// What is to be done when the lock has been left.
#[derive(Default)]
pub(super) struct Effects {
    pub answers: Vec<(Answer, Outcome)>,
    pub freed: Vec<PageRun>,
    /// Clones of trees that can go on.
    pub clones: Vec<u64>,
}

/// What an attempt at an operation comes to.
enum Attempt {
    Done(Outcome),
    Wait(HashSet<(u64, Seq)>),
}

impl Core {
    /// Serves a request of a mount, now or when others have given up what is in its way.
    pub(super) fn serve_mount(self: &Arc<Self>, request: MountRequest, answer: Answer) {
        let Some(mounts) = &self.mounts else { return answer(Reply::Unsupported) };
        if let MountRequest::Do { session, request } = request {
            return match request {
                MetaRequest::Sync => {
                    let core = Arc::clone(self);
                    self.workers.run(move || core.serve_plainly(session, MetaRequest::Sync, answer));
                }
                MetaRequest::StatFs
                | MetaRequest::ReadLink { .. }
                | MetaRequest::ReadDir { plus: false, .. } => {
                    self.serve_plainly(session, request, answer);
                }
                MetaRequest::ReadDir { ino, .. } => self.enter(|core, m, fx| {
                    let listed = core.list(m, session, ino, request);
                    fx.answers.push((answer, listed));
                }),
                MetaRequest::CloneTree { from, to, caller } => self.enter(|core, m, fx| {
                    core.begin_clone(m, session, Tree::new(from, to, caller), answer, fx);
                }),
                request => self.enter(|core, m, fx| {
                    core.operate(m, session, MountRequest::Do { session, request }, answer, fx);
                }),
            };
        }
        self.enter(|core, m, fx| match request {
            MountRequest::Open { by } => {
                let session = m.number();
                log::info!("mounted by {by}");
                m.sessions.open(session, by, core.clock.elapsed());
                fx.answers.push((answer, Ok(MountReply::Opened { session })));
            }
            MountRequest::Poll { session } => {
                let old = match m.sessions.poll(session, answer, core.clock.elapsed()) {
                    Ok(old) => old.map(|old| (old, Ok(MountReply::Revoked(Vec::new())))),
                    Err(answer) => Some((answer, Err(MountError::Expired))),
                };
                fx.answers.extend(old);
            }
            MountRequest::Acknowledge { session, done } => {
                for acknowledged in done {
                    core.acknowledge(m, session, acknowledged, fx);
                }
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Close { session } => {
                let poll = m.sessions.close(session);
                fx.answers.extend(poll.map(|poll| (poll, Err(MountError::Expired))));
                core.gone(m, session, fx);
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Release { session, inos } => {
                let mut unused = Vec::with_capacity(inos.len());
                for (ino, seq) in inos {
                    if m.leases.give_up(ino, session, seq) {
                        unused.push(ino);
                    }
                }
                let free = m.unused(session, unused);
                core.forget(free, fx);
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Lock { session, lock, how } => core.lock(m, session, lock, how, answer, fx),
            MountRequest::Unlock { session, ino, family, owner, range, all } => {
                let owner = Owner { session, id: owner };
                if all {
                    m.locks.release_owner(ino, of_family(family), owner);
                } else {
                    m.locks.unlock(ino, of_family(family), owner, &range);
                }
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            request @ (MountRequest::Take { session, .. } | MountRequest::Do { session, .. }) => {
                core.operate(m, session, request, answer, fx);
            }
        });
        let _ = mounts;
    }

    /// Serves what needs no lease.
    fn serve_plainly(&self, session: u64, request: MetaRequest, answer: Answer) {
        let there = self.mounts.as_ref().is_some_and(|mounts| mounts.lock().sessions.is_alive(session));
        answer(Reply::Mount(if there {
            let result = self.serve(request);
            Ok(MountReply::Answer(Answered { seq: 0, result, granted: Vec::new(), extents: None }))
        } else {
            Err(MountError::Expired)
        }));
    }

    /// Does something to the mounts, then what has become possible, and what follows outside of the lock.
    pub(super) fn enter(self: &Arc<Self>, act: impl FnOnce(&Self, &mut Mounts, &mut Effects)) {
        let Some(mounts) = &self.mounts else { return };
        let mut fx = Effects::default();
        let mut m = mounts.lock();
        act(self, &mut m, &mut fx);
        self.go_on(&mut m, &mut fx);
        drop(m);
        for (answer, outcome) in fx.answers {
            answer(Reply::Mount(outcome));
        }
        for id in fx.clones {
            let core = Arc::clone(self);
            self.workers.run(move || core.go_on_cloning(id));
        }
        if !fx.freed.is_empty() {
            let core = Arc::clone(self);
            self.workers.run(move || core.reclaimer.free(fx.freed));
        }
    }

    /// Goes on with what waits no longer.
    fn go_on(&self, m: &mut Mounts, fx: &mut Effects) {
        while let Some(at) = m.parked.iter().position(|parked| parked.waits.is_empty()) {
            let parked = &mut m.parked[at];
            if parked.tree.is_some() {
                parked.waits.insert((0, parked.id));
                fx.clones.push(parked.id);
                continue;
            }
            let parked = m.parked.remove(at);
            self.try_parked(m, parked, fx);
        }
        for ticket in m.locks.granted() {
            let wait = m.lock_waits.remove(&ticket);
            fx.answers.extend(wait.map(|wait| (wait.answer, Ok(MountReply::Locked(Locked::Granted)))));
        }
        let due = m.sessions.due(self.clock.elapsed());
        fx.answers.extend(due.into_iter().map(|(poll, queue)| (poll, Ok(MountReply::Revoked(queue)))));
    }

    fn operate(&self, m: &mut Mounts, session: u64, request: MountRequest, answer: Answer, fx: &mut Effects) {
        let id = m.number();
        self.try_parked(m, Parked::new(id, session, request, answer), fx);
    }

    /// Carries a request out, or parks it.
    fn try_parked(&self, m: &mut Mounts, mut parked: Parked, fx: &mut Effects) {
        if m.closed {
            return fx.answers.push((parked.answer, Err(MountError::Ending)));
        }
        match self.attempt(m, &mut parked, fx) {
            Attempt::Done(outcome) => {
                fx.answers.push((parked.answer, outcome));
                m.is_done(parked.id);
            }
            Attempt::Wait(waits) => {
                parked.waits = waits;
                m.park(parked);
            }
        }
    }

    /// Carries an operation out, or has revoked what is in its way.
    fn attempt(&self, m: &mut Mounts, parked: &mut Parked, fx: &mut Effects) -> Attempt {
        let session = parked.session;
        let (request, take) = match &parked.request {
            MountRequest::Do { request, .. } => (request.clone(), None),
            MountRequest::Take { ino, exclusive, .. } => {
                (MetaRequest::Map { ino: *ino, from: 0, limit: MAP }, Some(*exclusive))
            }
            _ => return Attempt::Done(Ok(MountReply::Done)),
        };
        let holds = |ino| m.leases.mode(ino, session) == Some(Mode::Exclusive);
        let mut needs = needs::of(&self.ns.read(), &request, holds);
        if take == Some(true) {
            needs.inodes.iter_mut().for_each(|(_, need)| *need = Need::Change);
        }
        match needs.held {
            _ if !m.sessions.is_there(session) => return Attempt::Done(Err(MountError::Expired)),
            None if !m.sessions.is_alive(session) => return Attempt::Done(Err(MountError::Expired)),
            Some(ino) if !holds(ino) => return Attempt::Done(Err(MountError::NotHeld(ino))),
            _ => {}
        }
        let waits = self.revoke(m, parked, &needs);
        if !waits.is_empty() {
            return Attempt::Wait(waits);
        }
        m.disturbed(parked.id, &parked.changes);
        let result = match request.clone() {
            change if is_change(&change) => {
                self.plan_and_apply(|edit| plan(edit, change)).map(|(reply, freed)| {
                    fx.freed.extend(freed);
                    reply
                })
            }
            read => self.serve(read),
        };
        m.seq += 1;
        let seq = m.seq;
        let mut grants = needs::grants(&request, &needs, &result);
        if let Some(exclusive) = take {
            let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
            grants.iter_mut().for_each(|(_, granted)| *granted = mode);
        }
        grants.sort_unstable();
        grants.dedup_by_key(|(ino, _)| *ino);
        let ns = self.ns.read();
        let mut granted = Vec::with_capacity(grants.len());
        for (ino, mode) in grants {
            if let Ok(attr) = ns.attr(ino) {
                m.leases.grant(ino, session, mode, seq);
                granted.push(attr);
            }
        }
        let extents = match (&request, &result) {
            (MetaRequest::Lookup { .. }, Ok(MetaReply::Attr(attr))) if attr.kind == Kind::File => {
                match ops::map(&ns, attr.ino, 0, FEW_EXTENTS) {
                    Ok(MetaReply::Map { extents, shared, next: None, .. }) if shared.is_empty() => {
                        Some(extents)
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        drop(ns);
        if let Some(attr) = nameless(&request, &result) {
            self.orphaned(m, attr.ino, session, fx);
        }
        Attempt::Done(Ok(MountReply::Answer(Answered { seq, result, granted, extents })))
    }

    /// Has revoked what is in the way of `session`. What must be acknowledged first, also by itself.
    fn revoke(&self, m: &mut Mounts, parked: &mut Parked, needs: &needs::Needs) -> HashSet<(u64, Seq)> {
        let (now, session) = (self.clock.elapsed(), parked.session);
        let mut waits = HashSet::new();
        let changes = needs.inodes.iter().filter(|(_, need)| need.is_change());
        parked.changes = changes.map(|(ino, _)| *ino).collect();
        for (ino, need) in &needs.inodes {
            // What an older request is about to change is not granted to anybody.
            let before = m.parked.iter().filter(|other| other.goes_before(parked.id, *ino));
            waits.extend(before.map(|other| (0, other.id)));
            waits.extend(m.sessions.outstanding(session, *ino).into_iter().map(|seq| (session, seq)));
            for (other, what) in m.leases.conflicts(*ino, session, need) {
                if let Revoked::Entry(name) = &what
                    && !parked.given_up.insert((other, *ino, name.clone()))
                {
                    continue;
                }
                let seq = m.sessions.revoke(other, *ino, what, &mut m.seq, now);
                waits.extend(seq.map(|seq| (other, seq)));
            }
        }
        waits
    }

    fn acknowledge(&self, m: &mut Mounts, session: u64, done: Acknowledged, fx: &mut Effects) {
        let Some((ino, what)) = m.sessions.acknowledged(session, done.seq) else { return };
        let left = if done.used { Some(Mode::Used) } else { None };
        match what {
            Revoked::All => m.leases.reduce(ino, session, left),
            Revoked::Writing if done.shared => m.leases.reduce(ino, session, Some(Mode::Shared)),
            Revoked::Writing => m.leases.reduce(ino, session, left),
            Revoked::Entry(_) => {}
            // What was granted since says that it was opened again meanwhile. It is released in the end.
            Revoked::Unlinked if done.used || m.leases.granted_after(ino, session, done.seq) => {}
            Revoked::Unlinked => {
                let free = m.unused(session, [ino]);
                self.forget(free, fx);
            }
        }
        m.parked.iter_mut().for_each(|parked| {
            parked.waits.remove(&(session, done.seq));
        });
    }

    /// `ino` has lost its last name, by `session`'s doing: it stays while somebody uses it.
    fn orphaned(&self, m: &mut Mounts, ino: Ino, session: u64, fx: &mut Effects) {
        let users = m.leases.holders(ino);
        if users.is_empty() {
            return self.forget(vec![ino], fx);
        }
        let now = self.clock.elapsed();
        for other in users.iter().filter(|other| **other != session) {
            m.sessions.revoke(*other, ino, Revoked::Unlinked, &mut m.seq, now);
        }
        m.orphans.insert(ino, users.into_iter().collect());
    }

    /// Frees inodes that nobody uses and that have no name.
    fn forget(&self, inos: Vec<Ino>, fx: &mut Effects) {
        if inos.is_empty() {
            return;
        }
        match self.plan_and_apply(|edit| ops::forget(edit, inos)) {
            Ok((_, freed)) => fx.freed.extend(freed),
            Err(why) => log::warn!("unlinked files keep their pages until the master is started anew: {why}"),
        }
    }

    /// The session is gone.
    fn gone(&self, m: &mut Mounts, session: u64, fx: &mut Effects) {
        let free = m.remove_session(session);
        self.forget(free, fx);
        for at in (0..m.parked.len()).rev() {
            // A clone that is carried out comes to its end.
            let other = &m.parked[at];
            if other.session == session && !other.is_carried_out() {
                let parked = m.parked.remove(at);
                m.is_done(parked.id);
                fx.answers.push((parked.answer, Err(MountError::Expired)));
            }
        }
        let waits: Vec<_> =
            m.lock_waits.iter().filter(|(_, wait)| wait.session == session).map(|(t, _)| *t).collect();
        for wait in waits.into_iter().filter_map(|ticket| m.lock_waits.remove(&ticket)) {
            fx.answers.push((wait.answer, Err(MountError::Expired)));
        }
    }

    fn lock(&self, m: &mut Mounts, session: u64, lock: Lock, how: LockHow, answer: Answer, fx: &mut Effects) {
        if !m.sessions.is_alive(session) {
            return fx.answers.push((answer, Err(MountError::Expired)));
        }
        let request = locks::Request {
            ino: lock.ino,
            family: of_family(lock.family),
            owner: Owner { session, id: lock.owner },
            mode: if lock.exclusive { locks::Mode::Write } else { locks::Mode::Read },
            range: lock.range,
            pid: lock.pid,
        };
        let came = match how {
            LockHow::Test => m.locks.test(&request).map_or(locks::Answer::Granted, locks::Answer::Conflict),
            LockHow::Try => m.locks.set(&request),
            LockHow::Wait => {
                let ticket = m.number();
                let came = m.locks.wait(ticket, request);
                if came == locks::Answer::Waiting {
                    let since = self.clock.elapsed();
                    m.lock_waits.insert(ticket, LockWait { session, answer, since });
                    return;
                }
                came
            }
        };
        let locked = match came {
            locks::Answer::Granted => Locked::Granted,
            locks::Answer::Conflict(c) => Locked::Conflict {
                exclusive: c.mode == locks::Mode::Write,
                range: c.range,
                pid: if c.owner.session == session { c.pid } else { 0 },
            },
            locks::Answer::Waiting => Locked::Later,
            locks::Answer::Deadlock => Locked::Deadlock,
            locks::Answer::TooMany => Locked::TooMany,
        };
        fx.answers.push((answer, Ok(MountReply::Locked(locked))));
    }

    /// What time brings: sessions that end, polls that are answered, waits that must be begun again.
    fn tick(self: &Arc<Self>) {
        self.enter(|core, m, fx| {
            let now = core.clock.elapsed();
            let (refused, gone) = m.sessions.expire(now);
            fx.answers.extend(refused.into_iter().map(|poll| (poll, Err(MountError::Expired))));
            for session in gone {
                core.gone(m, session, fx);
            }
            let late = |wait: &LockWait| now.saturating_sub(wait.since) > LOCK_WAIT;
            let late: Vec<_> = m.lock_waits.iter().filter(|(_, w)| late(w)).map(|(t, _)| *t).collect();
            for ticket in late {
                if m.locks.cancel(ticket)
                    && let Some(wait) = m.lock_waits.remove(&ticket)
                {
                    fx.answers.push((wait.answer, Ok(MountReply::Locked(Locked::Later))));
                }
            }
        });
    }

    /// Refuses all that waits, and what comes.
    pub(super) fn close_mounts(self: &Arc<Self>) {
        self.enter(|_, m, fx| {
            m.closed = true;
            let parked = m.parked.drain(..).map(|parked| parked.answer);
            let waits = m.lock_waits.drain().map(|(_, wait)| wait.answer);
            fx.answers.extend(parked.chain(waits).map(|answer| (answer, Err(MountError::Ending))));
        });
    }

    /// How many mounts there are, and inodes that they hold.
    pub(super) fn count_mounts(&self) -> (usize, usize) {
        self.mounts.as_ref().map_or((0, 0), |mounts| {
            let m = mounts.lock();
            (m.sessions.len(), m.leases.len())
        })
    }
}

/// Runs [`Core::tick`] until the master is gone.
pub(super) fn keep_time(core: &Weak<Core>) {
    while let Some(core) = core.upgrade() {
        core.tick();
        drop(core);
        std::thread::sleep(TICK);
    }
}

fn is_change(request: &MetaRequest) -> bool {
    !matches!(
        request,
        MetaRequest::Lookup { .. }
            | MetaRequest::GetAttr { .. }
            | MetaRequest::GetXattr { .. }
            | MetaRequest::ListXattr { .. }
            | MetaRequest::Map { .. }
    )
}

/// The inode that has lost its last name by this.
fn nameless<'r>(
    request: &MetaRequest,
    result: &'r Result<MetaReply, pool::proto::meta::MetaError>,
) -> Option<&'r Attr> {
    let removes = matches!(request, MetaRequest::Unlink { .. } | MetaRequest::Rmdir { .. });
    match result {
        Ok(MetaReply::Attr(attr)) if removes && attr.nlink == 0 => Some(attr),
        Ok(MetaReply::Renamed { replaced: Some(attr) }) if attr.nlink == 0 => Some(attr),
        _ => None,
    }
}

fn of_family(family: LockFamily) -> locks::Family {
    match family {
        LockFamily::Flock => locks::Family::Flock,
        LockFamily::Posix => locks::Family::Posix,
    }
}
