//! Locks that programs take on files: flock(2) and fcntl(2), across all mounts.
//!
//! Plain data; nothing is sent and nobody sleeps here. Who must wait gets [`Answer::Waiting`], and is told later, by a
//! [`Ticket`] among [`LockTable::granted`], that it has the lock.
//!
//! **Rules**, as in the man pages. An owner's locks never conflict with each other: a new one replaces what it covers.
//! Two owners conflict where their ranges meet and one of them writes. flock(2) and fcntl(2) do not see each other, and a
//! lock of flock(2) covers the whole file; to change its mode is to give it up and ask again, so that others may come
//! between. Who asked first is served first among those that wait, but a request that nothing held is in the way of is
//! granted at once, also before those that wait.
//!
//! **Deadlock.** An owner waits for the owners that hold what is in its way. A request of fcntl(2) that would close a
//! circle of such waits is refused ([`Answer::Deadlock`]). The circle is looked for in the table as it is, so nothing has to be
//! kept up to date. Requests of flock(2) may deadlock, as on every system.
//!
//! **Invariants:** the ranges of one owner are disjoint ([`held`]); no two owners conflict; each ticket that waits has
//! something in its way.

pub mod held;
#[cfg(test)]
mod tests;

use held::{Held, Ranges};
use pool::proto::meta::Ino;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::RangeInclusive;

/// Locks and waits of one session, at most: a mount that takes without end must not fill the master's memory.
const MOST_OF_A_SESSION: usize = 1 << 20;

/// A mount.
pub(crate) type Session = u64;

/// Which of the two kinds of locks that do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// flock(2)
    Flock,
    /// fcntl(2): `F_SETLK` and the locks of open file descriptions.
    Posix,
}

/// Who has a lock: an owner of a mount, as its kernel numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner {
    /// Which mount.
    pub session: Session,
    /// Which of its kernel's owners.
    pub id: u64,
}

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Others may read.
    Read,
    /// Nobody else.
    Write,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// The file.
    pub ino: Ino,
    /// Which kind of lock.
    pub family: Family,
    /// For whom.
    pub owner: Owner,
    /// How.
    pub mode: Mode,
    /// Bytes, first to last; the whole file is `0..=u64::MAX`.
    pub range: RangeInclusive<u64>,
    /// The process that asks, as `F_GETLK` shows it.
    pub pid: u32,
}

/// A lock that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Whose it is.
    pub owner: Owner,
    /// How.
    pub mode: Mode,
    /// Its bytes, first to last.
    pub range: RangeInclusive<u64>,
    /// The process that took it.
    pub pid: u32,
}

/// Names a wait; chosen by the caller, used once.
pub(crate) type Ticket = u64;

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has the lock.
    Granted,
    /// This is in the way (`EAGAIN`).
    Conflict(Conflict),
    /// It will be told.
    Waiting,
    /// It would wait for itself (`EDEADLK`).
    Deadlock,
    /// Its mount has as many locks as it may (`ENOLCK`).
    TooMany,
}

/// Locks of one kind on one file: never conflicting.
#[derive(Debug, Default)]
struct File {
    owners: BTreeMap<Owner, Ranges>,
    /// In the order of asking.
    waiting: VecDeque<Ticket>,
}

/// All locks, and who waits for which.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    files: HashMap<(Ino, Family), File>,
    waits: HashMap<Ticket, Request>,
    /// Tickets by owner, of those that wait.
    waiting_of: HashMap<Owner, Vec<Ticket>>,
    /// Ranges held and tickets that wait, by session.
    count: HashMap<Session, usize>,
    granted: Vec<Ticket>,
}

impl File {
    /// The first lock of another owner that this would conflict with.
    fn conflict(&self, owner: Owner, mode: Mode, range: &RangeInclusive<u64>) -> Option<Conflict> {
        self.conflicts(owner, mode, range).min_by_key(|c| *c.range.start())
    }

    /// One lock of each other owner that this would conflict with.
    fn conflicts(
        &self,
        owner: Owner,
        mode: Mode,
        range: &RangeInclusive<u64>,
    ) -> impl Iterator<Item = Conflict> {
        self.owners.iter().filter(move |(other, _)| **other != owner).filter_map(move |(other, ranges)| {
            let in_the_way = |held: &Held| mode == Mode::Write || held.mode == Mode::Write;
            let held = ranges.meeting(range).find(in_the_way)?;
            Some(Conflict { owner: *other, mode: held.mode, range: held.range(), pid: held.pid })
        })
    }

    fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.waiting.is_empty()
    }
}

impl LockTable {
    /// What a request would find in its way (`F_GETLK`).
    pub(crate) fn test(&self, request: &Request) -> Option<Conflict> {
        let file = self.files.get(&(request.ino, request.family))?;
        file.conflict(request.owner, request.mode, &request.range)
    }

    /// Takes the lock, or says what is in the way.
    pub(crate) fn set(&mut self, request: &Request) -> Answer {
        if self.is_full(request.owner.session) {
            return Answer::TooMany;
        }
        self.give_up_before(request);
        match self.test(request) {
            Some(conflict) => {
                self.settle(request.ino, request.family);
                Answer::Conflict(conflict)
            }
            None => {
                self.hold(request);
                self.settle(request.ino, request.family);
                Answer::Granted
            }
        }
    }

    /// Takes the lock, or waits for it as `ticket`, which must be new.
    pub(crate) fn wait(&mut self, ticket: Ticket, request: Request) -> Answer {
        let answer = self.set(&request);
        if !matches!(answer, Answer::Conflict(_)) {
            return answer;
        }
        if request.family == Family::Posix && self.would_wait_for_itself(&request) {
            return Answer::Deadlock;
        }
        *self.count.entry(request.owner.session).or_default() += 1;
        self.file(&request).waiting.push_back(ticket);
        self.waiting_of.entry(request.owner).or_default().push(ticket);
        self.waits.insert(ticket, request);
        Answer::Waiting
    }

    /// No longer waits. `false` if it does not wait: it was granted, or never asked.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(request) = self.stop_waiting(ticket) else { return false };
        self.tidy(request.ino, request.family);
        true
    }

    /// Gives up what the owner holds of the range.
    pub(crate) fn unlock(&mut self, ino: Ino, family: Family, owner: Owner, range: &RangeInclusive<u64>) {
        let Some(file) = self.files.get_mut(&(ino, family)) else { return };
        let Some(ranges) = file.owners.get_mut(&owner) else { return };
        let before = ranges.len();
        ranges.cut(range);
        let after = ranges.len();
        if after == 0 {
            file.owners.remove(&owner);
        }
        self.recount(owner.session, before, after);
        self.settle(ino, family);
    }

    /// Gives up all that the owner holds of the file, and no longer waits for it: it closed it.
    pub(crate) fn release_owner(&mut self, ino: Ino, family: Family, owner: Owner) {
        let tickets = self.waiting_of.get(&owner).cloned().unwrap_or_default();
        for ticket in tickets {
            if self.waits.get(&ticket).is_some_and(|r| (r.ino, r.family) == (ino, family)) {
                self.stop_waiting(ticket);
            }
        }
        self.unlock(ino, family, owner, &(0..=u64::MAX));
        self.tidy(ino, family);
    }

    /// Gives up all that a mount has: it is gone.
    pub(crate) fn release_session(&mut self, session: Session) {
        let tickets: Vec<Ticket> = self
            .waits
            .iter()
            .filter(|(_, r)| r.owner.session == session)
            .map(|(ticket, _)| *ticket)
            .collect();
        tickets.into_iter().for_each(|ticket| {
            self.stop_waiting(ticket);
        });
        let files: Vec<(Ino, Family)> = self.files.keys().copied().collect();
        for (ino, family) in files {
            if let Some(file) = self.files.get_mut(&(ino, family)) {
                file.owners.retain(|owner, _| owner.session != session);
            }
            self.settle(ino, family);
        }
        self.count.remove(&session);
    }

    /// The locks that a mount holds on the file, for whoever must know whether it has any.
    #[cfg(test)]
    fn held_of(&self, ino: Ino, family: Family, owner: Owner) -> Vec<(RangeInclusive<u64>, Mode)> {
        let ranges = self.files.get(&(ino, family)).and_then(|file| file.owners.get(&owner));
        ranges.into_iter().flat_map(|r| r.iter()).map(|held| (held.range(), held.mode)).collect()
    }

    /// The tickets that were granted since this was last asked, in the order in which they were.
    pub(crate) fn granted(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.granted)
    }

    fn file(&mut self, request: &Request) -> &mut File {
        self.files.entry((request.ino, request.family)).or_default()
    }

    fn is_full(&self, session: Session) -> bool {
        self.count.get(&session).is_some_and(|n| *n >= MOST_OF_A_SESSION)
    }

    fn recount(&mut self, session: Session, before: usize, after: usize) {
        let count = self.count.entry(session).or_default();
        *count = (*count + after).saturating_sub(before);
        if *count == 0 {
            self.count.remove(&session);
        }
    }

    /// A lock of flock(2) whose mode changes is given up first.
    fn give_up_before(&mut self, request: &Request) {
        if request.family == Family::Flock
            && let Some(file) = self.files.get_mut(&(request.ino, request.family))
            && let Some(ranges) = file.owners.get(&request.owner)
            && ranges.iter().any(|held| held.mode != request.mode)
        {
            let before = ranges.len();
            file.owners.remove(&request.owner);
            self.recount(request.owner.session, before, 0);
        }
    }

    fn hold(&mut self, request: &Request) {
        let ranges = self.file(request).owners.entry(request.owner).or_default();
        let before = ranges.len();
        ranges.put(&request.range, request.mode, request.pid);
        let after = ranges.len();
        self.recount(request.owner.session, before, after);
    }

    /// Grants what can be granted of what waits for the file, until nothing more can.
    fn settle(&mut self, ino: Ino, family: Family) {
        loop {
            let Some(file) = self.files.get(&(ino, family)) else { return };
            let free = file.waiting.iter().copied().find(|ticket| {
                self.waits.get(ticket).is_none_or(|r| file.conflict(r.owner, r.mode, &r.range).is_none())
            });
            let Some(ticket) = free else { break };
            if let Some(request) = self.stop_waiting(ticket) {
                self.hold(&request);
                self.granted.push(ticket);
            }
        }
        self.tidy(ino, family);
    }

    fn stop_waiting(&mut self, ticket: Ticket) -> Option<Request> {
        let request = self.waits.remove(&ticket)?;
        if let Some(tickets) = self.waiting_of.get_mut(&request.owner) {
            tickets.retain(|t| *t != ticket);
            if tickets.is_empty() {
                self.waiting_of.remove(&request.owner);
            }
        }
        if let Some(file) = self.files.get_mut(&(request.ino, request.family)) {
            file.waiting.retain(|t| *t != ticket);
        }
        self.recount(request.owner.session, 1, 0);
        Some(request)
    }

    fn tidy(&mut self, ino: Ino, family: Family) {
        if self.files.get(&(ino, family)).is_some_and(File::is_empty) {
            self.files.remove(&(ino, family));
        }
    }

    /// Whether those that hold what is in the way wait, each for the next, for the owner that asks.
    fn would_wait_for_itself(&self, request: &Request) -> bool {
        let mut seen = HashSet::new();
        let mut ahead: Vec<Owner> = self.holders(request);
        while let Some(owner) = ahead.pop() {
            if owner == request.owner {
                return true;
            }
            if seen.insert(owner) {
                let waits = self.waiting_of.get(&owner).into_iter().flatten();
                let posix = waits.filter_map(|t| self.waits.get(t)).filter(|r| r.family == Family::Posix);
                ahead.extend(posix.flat_map(|r| self.holders(r)));
            }
        }
        false
    }

    fn holders(&self, request: &Request) -> Vec<Owner> {
        let file = self.files.get(&(request.ino, request.family));
        let conflicts =
            file.into_iter().flat_map(|f| f.conflicts(request.owner, request.mode, &request.range));
        conflicts.map(|c| c.owner).collect()
    }
}
