//! The mounts of a cluster's file system: their sessions, leases and locks, and requests that wait until others have
//! given something up. Plain data; nothing is sent from here. What is done with it is in
//! [`serve`](crate::serve).
//!
//! Not stored: a mount whose session is gone opens another, and asks for what it needs again.

pub(crate) mod leases;
pub(crate) mod needs;
mod sessions;
pub(crate) mod tree;

pub(crate) use sessions::Sessions;

use crate::locks::{LockTable, Ticket};
use leases::Leases;
use pool::proto::meta::Ino;
use pool::proto::mount::{MountRequest, Seq};
use pool::transport::Answer;
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tree::Tree;

/// Inodes, of which there may be very many.
pub(crate) type Inodes = hashbrown::HashSet<Ino>;

/// A request that waits for acknowledgements, or for older requests.
pub(crate) struct Parked {
    /// Older ones have lower numbers.
    pub id: u64,
    pub session: u64,
    pub request: MountRequest,
    pub answer: Answer,
    /// For which acknowledgements (session and number), and for which older requests (0 and number).
    pub waits: HashSet<(u64, u64)>,
    /// Names that were given up for its sake: session, directory, name. As nobody else is granted anything on that
    /// directory before this request is done, they stay given up.
    pub given_up: HashSet<(u64, Ino, Vec<u8>)>,
    /// What it will change.
    pub changes: Inodes,
    /// If it clones a tree: how far that has come.
    pub tree: Option<Tree>,
}

impl Parked {
    /// A request that has just come.
    pub(crate) fn new(id: u64, session: u64, request: MountRequest, answer: Answer) -> Self {
        let (waits, given_up) = Default::default();
        let changes = Inodes::default();
        Self { id, session, request, answer, waits, given_up, changes, tree: None }
    }

    /// Whether a thread carries it out, and it waits for nobody.
    pub(crate) fn is_carried_out(&self) -> bool {
        self.tree.as_ref().is_some_and(|tree| tree.carried_out)
    }

    /// Whether another request, with the number `id`, waits for this one if it needs `ino`.
    pub(crate) fn goes_before(&self, id: u64, ino: Ino) -> bool {
        (self.id < id || self.is_carried_out()) && self.changes.contains(&ino)
    }
}

/// A mount that waits for a lock.
pub(crate) struct LockWait {
    pub session: u64,
    pub answer: Answer,
    pub since: Duration,
}

/// All that is known of mounts.
pub(crate) struct Mounts {
    pub sessions: Sessions,
    pub leases: Leases,
    pub locks: LockTable,
    /// Inodes without a name, and the sessions that still use them.
    pub orphans: HashMap<Ino, HashSet<u64>>,
    pub parked: Vec<Parked>,
    pub lock_waits: HashMap<Ticket, LockWait>,
    pub seq: Seq,
    pub next: u64,
    pub closed: bool,
}

impl Mounts {
    /// None yet, in this term of the master: numbers of another are never given out again.
    pub(crate) fn new(term: u64) -> Self {
        let first = term << 40;
        Self {
            sessions: Sessions::default(),
            leases: Leases::default(),
            locks: LockTable::default(),
            orphans: HashMap::new(),
            parked: Vec::new(),
            lock_waits: HashMap::new(),
            seq: first,
            next: first + 1,
            closed: false,
        }
    }

    /// Keeps a request until what it waits for is done.
    pub(crate) fn park(&mut self, parked: Parked) {
        let at = self.parked.partition_point(|other| other.id < parked.id);
        self.parked.insert(at, parked);
    }

    /// The request with this number is done: nobody waits for it any more.
    pub(crate) fn is_done(&mut self, id: u64) {
        self.parked.iter_mut().for_each(|other| {
            other.waits.remove(&(0, id));
        });
    }

    /// A number never given out before: of a session or a ticket.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// `session` does not use these inodes; those of them that nobody uses, and that have no name, are returned.
    pub(crate) fn unused(&mut self, session: u64, inos: impl IntoIterator<Item = Ino>) -> Vec<Ino> {
        let mut free = Vec::new();
        for ino in inos {
            if let Some(users) = self.orphans.get_mut(&ino) {
                users.remove(&session);
                if users.is_empty() {
                    self.orphans.remove(&ino);
                    self.leases.remove(ino);
                    free.push(ino);
                }
            }
        }
        free
    }

    /// The session is gone, with its leases and locks. Returns inodes as [`unused`](Self::unused).
    pub(crate) fn remove_session(&mut self, session: u64) -> Vec<Ino> {
        self.leases.remove_session(session);
        self.locks.release_session(session);
        self.parked.iter_mut().for_each(|parked| parked.waits.retain(|(of, _)| *of != session));
        let orphans: Vec<Ino> = self.orphans.keys().copied().collect();
        self.unused(session, orphans)
    }
}
