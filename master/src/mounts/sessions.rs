//! The mounts that there are: when they were heard of, and what they are still to acknowledge. Plain data; time is
//! an argument, counted from any moment on.
//!
//! A session that does not acknowledge is *doomed*: it is not renewed any more, so [`LEASE`] after it was last heard
//! of its mount has stopped relying on its leases, and they are given to others. So nobody waits longer than
//! [`ACKNOWLEDGE`] and [`LEASE`] together.

use pool::addr::RackId;
use pool::proto::cluster::ClientName;
use pool::proto::meta::Ino;
use pool::proto::mount::{ACKNOWLEDGE, LEASE, POLL, Revoke, Revoked, Seq};
use pool::transport::Answer;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// The most revocations in one answer to a poll.
const AT_ONCE: usize = 8192;

/// A mount.
pub(crate) struct Session {
    by: String,
    client: (RackId, ClientName),
    heard: Duration,
    doomed: bool,
    /// What it has not been told yet.
    queue: Vec<Revoke>,
    /// What it has not acknowledged, and since when; told or not.
    outstanding: BTreeMap<Seq, (Ino, Revoked, Duration)>,
    /// The numbers in `outstanding` by inode. Exactly those.
    of_inode: HashMap<Ino, Vec<Seq>>,
    /// Waits for something to be told, and since when.
    poll: Option<(Answer, Duration)>,
}

/// All sessions.
#[derive(Default)]
pub(crate) struct Sessions(HashMap<u64, Session>);

impl Sessions {
    /// A new one.
    pub(crate) fn open(&mut self, number: u64, by: String, client: (RackId, ClientName), now: Duration) {
        let session = Session {
            by,
            client,
            heard: now,
            doomed: false,
            queue: Vec::new(),
            outstanding: BTreeMap::new(),
            of_inode: HashMap::new(),
            poll: None,
        };
        self.0.insert(number, session);
    }

    /// Whether it is there and may be served.
    pub(crate) fn is_alive(&self, number: u64) -> bool {
        self.0.get(&number).is_some_and(|session| !session.doomed)
    }

    /// Whether it is there, also if it is doomed: its leases are still its own.
    pub(crate) fn is_there(&self, number: u64) -> bool {
        self.0.contains_key(&number)
    }

    /// It is heard of, and wants to be told what is revoked. A poll that was there before is given back.
    pub(crate) fn poll(
        &mut self,
        number: u64,
        answer: Answer,
        now: Duration,
    ) -> Result<Option<Answer>, Answer> {
        match self.0.get_mut(&number).filter(|session| !session.doomed) {
            Some(session) => {
                session.heard = now;
                Ok(session.poll.replace((answer, now)).map(|(old, _)| old))
            }
            None => Err(answer),
        }
    }

    /// Has something revoked. If that has been asked of it already, or more, it is not asked again. The number that
    /// must be acknowledged; `None` if it is not there.
    pub(crate) fn revoke(
        &mut self,
        number: u64,
        ino: Ino,
        what: Revoked,
        seq: &mut Seq,
        now: Duration,
    ) -> Option<Seq> {
        let session = self.0.get_mut(&number)?;
        let same = |(_, asked, _): &(Ino, Revoked, Duration)| {
            *asked == what || (*asked == Revoked::All && what == Revoked::Writing)
        };
        let of_inode = session.of_inode.entry(ino).or_default();
        if let Some(asked) = of_inode.iter().find(|asked| session.outstanding.get(asked).is_some_and(same)) {
            return Some(*asked);
        }
        *seq += 1;
        session.outstanding.insert(*seq, (ino, what.clone(), now));
        of_inode.push(*seq);
        session.queue.push(Revoke { seq: *seq, ino, what });
        Some(*seq)
    }

    /// The revocations of `ino` that the session has yet to acknowledge.
    pub(crate) fn outstanding(&self, number: u64, ino: Ino) -> Vec<Seq> {
        let Some(session) = self.0.get(&number) else { return Vec::new() };
        let all = session.of_inode.get(&ino).into_iter().flatten().copied();
        let counts =
            |seq: &Seq| session.outstanding.get(seq).is_some_and(|(_, what, _)| *what != Revoked::Unlinked);
        all.filter(counts).collect()
    }

    /// It has acknowledged this: what that was.
    pub(crate) fn acknowledged(&mut self, number: u64, seq: Seq) -> Option<(Ino, Revoked)> {
        let session = self.0.get_mut(&number)?;
        let (ino, what, _) = session.outstanding.remove(&seq)?;
        if let Some(of_inode) = session.of_inode.get_mut(&ino) {
            of_inode.retain(|other| *other != seq);
            if of_inode.is_empty() {
                session.of_inode.remove(&ino);
            }
        }
        Some((ino, what))
    }

    /// Takes out polls that there is something to say to, and those that have waited long enough.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<(Answer, Vec<Revoke>)> {
        let ready = self.0.values_mut().filter_map(|session| {
            let waited = session.poll.as_ref().is_some_and(|(_, since)| now.saturating_sub(*since) >= POLL);
            if session.queue.is_empty() && !waited {
                return None;
            }
            let (answer, _) = session.poll.take()?;
            let rest = session.queue.split_off(session.queue.len().min(AT_ONCE));
            Some((answer, std::mem::replace(&mut session.queue, rest)))
        });
        ready.collect()
    }

    /// Dooms those that do not acknowledge; their polls, which are refused, are given back. Removes those that have not
    /// been heard of.
    pub(crate) fn expire(&mut self, now: Duration) -> (Vec<Answer>, Vec<u64>) {
        let mut refused = Vec::new();
        for session in self.0.values_mut().filter(|session| !session.doomed) {
            let first = session.outstanding.values().map(|(_, _, since)| *since).min();
            if first.is_some_and(|since| now.saturating_sub(since) > ACKNOWLEDGE) {
                log::warn!(
                    "{} does not give up what it was asked to: its leases are left to lapse",
                    session.by
                );
                session.doomed = true;
                refused.extend(session.poll.take().map(|(answer, _)| answer));
            }
        }
        let late = |session: &Session| now.saturating_sub(session.heard) > LEASE;
        let gone: Vec<u64> = self.0.iter().filter(|(_, s)| late(s)).map(|(number, _)| *number).collect();
        for number in &gone {
            if let Some(session) = self.0.remove(number) {
                log::warn!(
                    "{} was not heard of for {LEASE:?}: its leases and locks are given up",
                    session.by
                );
                refused.extend(session.poll.map(|(answer, _)| answer));
            }
        }
        (refused, gone)
    }

    /// It is over; its poll is given back.
    pub(crate) fn close(&mut self, number: u64) -> Option<Answer> {
        self.0.remove(&number)?.poll.map(|(answer, _)| answer)
    }

    /// Those of this client.
    pub(crate) fn of_client(&self, client: (RackId, ClientName)) -> Vec<u64> {
        self.0.iter().filter(|(_, session)| session.client == client).map(|(number, _)| *number).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
