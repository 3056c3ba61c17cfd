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
use crate::change::{Change, ClusterChange};
use crate::locks::{self, Owner};
use crate::mounts::grace::Waiting;
use crate::mounts::leases::{Mode, Need};
use crate::mounts::tree::Tree;
use crate::mounts::{LockWait, Mounts, NOBODY, Parked, needs};
use crate::namespace::{Namespace, ops};
use parking_lot::MutexGuard;
use pool::addr::{PageRun, RackId};
use pool::proto::Reply;
use pool::proto::cluster::ClientName;
use pool::proto::meta::{Attr, Ino, Kind, MetaReply, MetaRequest};
use pool::proto::mount::{
    Acknowledged, Answer as Answered, FEW_EXTENTS, Granted, Lock, LockFamily, LockHow, Locked, MountError,
    MountReply, MountRequest, Revoked, Seq,
};
use pool::transport::Answer;
use std::borrow::Cow;
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
    /// Serves a request of a mount, now or when others have given up what is in its way. Waits for no lock and no disk: what
    /// would have to is handed to a thread.
    pub(super) fn serve_mount(self: &Arc<Self>, request: MountRequest, answer: Answer) {
        let Some(mounts) = &self.mounts else { return answer(Reply::Unsupported) };
        if !waits_for_disk(&request)
            && let Some(m) = mounts.try_lock()
            && !self.store.is_behind()
        {
            return self.serve_locked(m, request, answer);
        }
        let core = Arc::clone(self);
        self.workers.run(move || {
            if let Some(mounts) = &core.mounts {
                core.serve_locked(mounts.lock(), request, answer);
            }
        });
    }

    fn serve_locked(self: &Arc<Self>, m: MutexGuard<'_, Mounts>, request: MountRequest, answer: Answer) {
        match request {
            MountRequest::Do { session, request } if needs_no_lease(&request) => {
                let there = m.sessions.is_alive(session);
                drop(m);
                answer(Reply::Mount(if there {
                    let result = self.serve(request);
                    Ok(MountReply::Answer(Answered { seq: 0, result, granted: Vec::new() }))
                } else {
                    Err(MountError::Expired)
                }));
            }
            request => self.with(m, |core, m, fx| core.serve_in(m, request, answer, fx)),
        }
    }

    fn serve_in(&self, m: &mut Mounts, request: MountRequest, answer: Answer, fx: &mut Effects) {
        match request {
            request @ (MountRequest::Take { .. } | MountRequest::Do { .. })
                if m.grace.leases_hold() && !m.closed =>
            {
                m.grace.hold_up(request, answer);
            }
            MountRequest::Open { by, client } => {
                let session = m.number();
                log::info!("mounted by {by}");
                self.note_mount(ClusterChange::PutMount(session, client.0, client.1));
                m.sessions.open(session, by, client, self.clock.elapsed());
                fx.answers.push((answer, Ok(MountReply::Opened { session })));
            }
            MountRequest::Poll { session } => {
                let old = match m.sessions.poll(session, answer, self.clock.elapsed()) {
                    Ok(old) => old.map(|old| (old, Ok(MountReply::Revoked(Vec::new())))),
                    Err(answer) => Some((answer, Err(MountError::Expired))),
                };
                fx.answers.extend(old);
            }
            MountRequest::Acknowledge { session, done } => {
                for acknowledged in done {
                    self.acknowledge(m, session, acknowledged, fx);
                }
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Close { session } => {
                self.end(m, session, fx);
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
                self.forget(free, fx);
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Reclaim { session, was, open, locks, more } => {
                let reclaimed = self.reclaim(m, session, was, open, locks, more);
                fx.answers.push((answer, reclaimed));
            }
            MountRequest::Lock { session, lock, how } => self.lock(m, session, lock, how, answer, fx),
            MountRequest::Unlock { session, ino, family, owner, range, all } => {
                let owner = Owner { session, id: owner };
                if all {
                    m.locks.release_owner(ino, of_family(family), owner);
                } else {
                    m.locks.unlock(ino, of_family(family), owner, &range);
                }
                fx.answers.push((answer, Ok(MountReply::Done)));
            }
            MountRequest::Do { session, request: MetaRequest::CloneTree { from, to, caller } } => {
                self.begin_clone(m, session, Tree::new(from, to, caller), answer, fx);
            }
            MountRequest::Do { session, request: request @ MetaRequest::ReadDir { ino, plus, .. } } => {
                let listed = self.list(m, session, ino, plus, request);
                fx.answers.push((answer, listed));
            }
            request @ (MountRequest::Take { session, .. } | MountRequest::Do { session, .. }) => {
                self.operate(m, session, request, answer, fx);
            }
        }
    }

    /// Does something to the mounts, then what has become possible, and what follows outside of the lock.
    pub(super) fn enter(self: &Arc<Self>, act: impl FnOnce(&Self, &mut Mounts, &mut Effects)) {
        if let Some(mounts) = &self.mounts {
            self.with(mounts.lock(), act);
        }
    }

    fn with(
        self: &Arc<Self>,
        mut m: MutexGuard<'_, Mounts>,
        act: impl FnOnce(&Self, &mut Mounts, &mut Effects),
    ) {
        let mut fx = Effects::default();
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
        if m.grace.is_due(self.clock.elapsed()) {
            self.end_grace(m, fx);
        }
        for (request, answer) in m.grace.go_on(self.clock.elapsed()) {
            self.serve_in(m, request, answer, fx);
        }
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
        let Some((request, take)) = asked(&parked.request) else {
            return Attempt::Done(Ok(MountReply::Done));
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
        let Some((request, _)) = asked(&parked.request) else {
            return Attempt::Done(Ok(MountReply::Done));
        };
        let result = match MetaRequest::clone(&request) {
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
        let with_map = match (&*request, &result) {
            (MetaRequest::Lookup { .. } | MetaRequest::Make { .. }, Ok(MetaReply::Attr(attr))) => {
                Some(attr.ino)
            }
            _ => None,
        };
        for (ino, mode) in grants {
            let extents = if with_map == Some(ino) { FEW_EXTENTS } else { 0 };
            if let Some(found) = as_granted(&ns, ino, extents) {
                m.leases.grant(ino, session, mode, seq);
                granted.push(found);
            }
        }
        drop(ns);
        if let Some(attr) = nameless(&request, &result) {
            self.orphaned(m, attr.ino, session, fx);
        }
        Attempt::Done(Ok(MountReply::Answer(Answered { seq, result, granted })))
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
        if users.is_empty() && !m.grace.is_on() {
            return self.forget(vec![ino], fx);
        }
        let now = self.clock.elapsed();
        for other in users.iter().filter(|other| **other != session) {
            m.sessions.revoke(*other, ino, Revoked::Unlinked, &mut m.seq, now);
        }
        let may_come_back = m.grace.is_on().then_some(NOBODY);
        m.orphans.insert(ino, users.into_iter().chain(may_come_back).collect());
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

    /// The session is over.
    fn end(&self, m: &mut Mounts, session: u64, fx: &mut Effects) {
        let poll = m.sessions.close(session);
        fx.answers.extend(poll.map(|poll| (poll, Err(MountError::Expired))));
        self.gone(m, session, fx);
    }

    /// This client is no more, or not listened to any longer: nothing that comes of its sessions is carried out from now on.
    pub(super) fn client_died(self: &Arc<Self>, rack: RackId, client: ClientName) {
        self.enter(|core, m, fx| {
            for session in m.sessions.of_client((rack, client)) {
                core.end(m, session, fx);
            }
            for session in m.grace.died((rack, client)) {
                core.note_mount(ClusterChange::DelMount(session));
            }
        });
    }

    /// Remembers which sessions there are.
    fn note_mount(&self, change: ClusterChange) {
        if let Err(why) = self.store.commit(&[Change::Cluster(change)]) {
            log::error!("after another start of the master a mount may lose its locks: {why}");
        }
    }

    /// A mount that had another session, which is over, says what it had.
    fn reclaim(
        &self,
        m: &mut Mounts,
        session: u64,
        was: u64,
        open: Vec<Ino>,
        locks: Vec<Lock>,
        more: bool,
    ) -> Outcome {
        if !m.sessions.is_alive(session) {
            return Err(MountError::Expired);
        }
        let expected = m.grace.expects(was);
        let mut has =
            |lock: &Lock| expected && m.locks.set(&wanted(session, lock.clone())) == locks::Answer::Granted;
        let lost: Vec<Lock> = locks.into_iter().filter(|lock| !has(lock)).collect();
        let (ns, mut gone) = (self.ns.read(), Vec::new());
        for ino in open {
            if ns.get(ino).is_none() {
                gone.push(ino);
                continue;
            }
            if let Some(users) = m.orphans.get_mut(&ino) {
                users.insert(session);
            }
            // What it was granted since says more, and is given up by its own number.
            if m.leases.mode(ino, session).is_none() {
                m.leases.grant(ino, session, Mode::Used, 0);
            }
        }
        if expected && !more {
            m.grace.came(was);
            self.note_mount(ClusterChange::DelMount(was));
        }
        Ok(MountReply::Reclaimed { lost, gone })
    }

    /// Nobody is waited for any more.
    fn end_grace(&self, m: &mut Mounts, fx: &mut Effects) {
        let (missing, waiting) = m.grace.end();
        log::info!("{} of the mounts from before the start did not come back", missing.len());
        missing.into_iter().for_each(|session| self.note_mount(ClusterChange::DelMount(session)));
        let orphans: Vec<Ino> = m.orphans.keys().copied().collect();
        let free = m.unused(NOBODY, orphans);
        self.forget(free, fx);
        for Waiting { session, lock, how, answer } in waiting {
            self.lock(m, session, lock, how, answer, fx);
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
        let waiting = m.grace.take_waiting(|of| of == session);
        fx.answers.extend(waiting.into_iter().map(|waiting| (waiting.answer, Err(MountError::Expired))));
        self.note_mount(ClusterChange::DelMount(session));
    }

    fn lock(&self, m: &mut Mounts, session: u64, lock: Lock, how: LockHow, answer: Answer, fx: &mut Effects) {
        if !m.sessions.is_alive(session) {
            return fx.answers.push((answer, Err(MountError::Expired)));
        }
        if m.closed {
            return fx.answers.push((answer, Err(MountError::Ending)));
        }
        if m.grace.is_on() {
            return m.grace.wait(Waiting { session, lock, how, answer });
        }
        let request = wanted(session, lock);
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
            let asking = m.grace.take_waiting(|_| true).into_iter().map(|waiting| waiting.answer);
            let held_up = m.grace.take_held_up().into_iter().map(|(_, answer)| answer);
            let all = parked.chain(waits).chain(asking).chain(held_up);
            fx.answers.extend(all.map(|answer| (answer, Err(MountError::Ending))));
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

/// What a request is about, and whether it is for a lease, an exclusive one; `None` if it is for neither.
fn asked(request: &MountRequest) -> Option<(Cow<'_, MetaRequest>, Option<bool>)> {
    match request {
        MountRequest::Do { request, .. } => Some((Cow::Borrowed(request), None)),
        MountRequest::Take { ino, exclusive, .. } => {
            let map = MetaRequest::Map { ino: *ino, from: 0, limit: MAP };
            Some((Cow::Owned(map), Some(*exclusive)))
        }
        _ => None,
    }
}

/// Whether a request is to wait for the disk.
fn waits_for_disk(request: &MountRequest) -> bool {
    matches!(request, MountRequest::Do { request: MetaRequest::Sync, .. })
}

fn needs_no_lease(request: &MetaRequest) -> bool {
    matches!(request, MetaRequest::Sync | MetaRequest::StatFs | MetaRequest::ReadLink { .. })
}

/// An inode as a mount is granted it, with its map if that has at most `extents` runs of pages and shares none.
pub(super) fn as_granted(ns: &Namespace, ino: Ino, extents: u32) -> Option<Granted> {
    let inode = ns.get(ino)?;
    let attr = ns.attr(ino).ok()?;
    let map = match attr.kind {
        Kind::File if extents > 0 => ops::map(ns, ino, 0, extents).ok(),
        _ => None,
    };
    let extents = match map {
        Some(MetaReply::Map { extents, shared, next: None, .. }) if shared.is_empty() => Some(extents),
        _ => None,
    };
    Some(Granted { attr, bare: inode.xattrs.is_none(), extents })
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

fn wanted(session: u64, lock: Lock) -> locks::Request {
    locks::Request {
        ino: lock.ino,
        family: of_family(lock.family),
        owner: Owner { session, id: lock.owner },
        mode: if lock.exclusive { locks::Mode::Write } else { locks::Mode::Read },
        range: lock.range,
        pid: lock.pid,
    }
}

fn of_family(family: LockFamily) -> locks::Family {
    match family {
        LockFamily::Flock => locks::Family::Flock,
        LockFamily::Posix => locks::Family::Posix,
    }
}
