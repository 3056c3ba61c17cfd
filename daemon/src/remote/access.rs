//! One access of a client to a page of another rack: carried out by reference, or by message for
//! compare-and-swap; and what to do when it was not.
//!
//! An access that the home says it has not done is tried again until its deadline. One of which that is
//! not known is tried again only if it is a read: a write that is done twice could undo what was written
//! in between. Its caller is told that the outcome is unknown.

use super::Remote;
use super::table::Link;
use pool::addr::{GAddr, PageId, RackId};
use pool::proto::page::{ACCESS_MAX, PageError, PageReply};
use pool::proto::peer::{PeerReply, PeerRequest, Reference, RemoteAt};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Access, TransportError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Takes the answer to a client's request.
pub(crate) type PageAnswer = Box<dyn FnOnce(Result<PageReply, PageError>) + Send>;

/// What a client wants.
pub(super) enum Op {
    Read(u32),
    Write(Vec<u8>),
    Cas { old: u64, new: u64 },
}

/// A request that has not been answered.
pub(super) struct Pending {
    pub op: Op,
    pub at: GAddr,
    pub deadline: Instant,
    /// How often it was tried in vain.
    pub tries: u32,
    pub answer: PageAnswer,
}

impl Pending {
    pub fn finish(self, result: Result<PageReply, PageError>) {
        (self.answer)(result);
    }

    /// Whether it is done by reference.
    pub fn is_by_reference(&self) -> bool {
        !matches!(self.op, Op::Cas { .. })
    }
}

/// By what an access is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub page: PageId,
    pub home: RackId,
    pub reference: Reference,
}

/// What came of an access.
enum Outcome {
    Answer(Result<PageReply, PageError>),
    /// Not done; the reference is worthless.
    Fenced,
    /// Not done; the page is being moved.
    Moving,
    /// Not done; the page is not there.
    Absent,
    /// Not done, or harmless to repeat; the home cannot be reached.
    Failed(TransportError),
}

impl Remote {
    /// Whether a client may ask for this.
    pub(super) fn check(&self, at: GAddr, op: &Op) -> Result<PageId, PageError> {
        let size = self.page_size();
        let page = at.page(size).filter(|page| page.raw() < size.id_limit());
        let page =
            page.ok_or_else(|| PageError::Invalid(format!("{at:?} is not an address of this pool")))?;
        let len = match op {
            Op::Read(len) => *len as u64,
            Op::Write(data) => data.len() as u64,
            Op::Cas { .. } => 8,
        };
        if len > ACCESS_MAX as u64 || at.offset(size) + len > size.bytes() {
            return Err(PageError::Invalid(format!(
                "{len} bytes at {at:?}: an access is at most {ACCESS_MAX} bytes, all in one page"
            )));
        }
        if matches!(op, Op::Cas { .. }) && !at.raw().is_multiple_of(8) {
            return Err(PageError::Invalid(format!("{at:?} is not a multiple of 8")));
        }
        Ok(page)
    }

    /// Makes the access. If it is by reference, it has been counted as under way.
    pub(super) fn make(self: &Arc<Self>, path: Path, mut pending: Pending) {
        let (to, size) = (NodeId::Daemon(path.home), self.page_size());
        let Reference { offset, key } = path.reference;
        let at = RemoteAt { offset: offset + pending.at.offset(size), key, holder: self.context.rack };
        let remote = Arc::clone(self);
        let transport = &self.context.transport;
        self.context.counters.direct.add(1);
        match &mut pending.op {
            Op::Read(len) => {
                let len = *len;
                transport.start_read(
                    to,
                    at,
                    len,
                    Box::new(move |result| remote.read_done(path, pending, result)),
                );
            }
            Op::Write(data) => {
                // Kept, for the case that the home says it has not been done.
                let data = data.clone();
                let done = move |result| remote.write_done(path, pending, result);
                transport.start_write(to, at, data, Box::new(done));
            }
            Op::Cas { old, new } => {
                let request = PeerRequest::Cas { at: pending.at, old: *old, new: *new };
                let done = move |result| remote.cas_done(path, pending, result);
                transport.start(to, Request::Peer(request), Box::new(done));
            }
        }
    }

    fn read_done(
        self: &Arc<Self>,
        path: Path,
        pending: Pending,
        result: Result<Access<Vec<u8>>, TransportError>,
    ) {
        let outcome = match result {
            Ok(Access::Done(data)) => {
                self.context.counters.bytes_out.add(data.len() as u64);
                Outcome::Answer(Ok(PageReply::Data(data)))
            }
            Ok(Access::Fenced) => Outcome::Fenced,
            Err(error) => Outcome::Failed(error),
        };
        self.settle_access(path, pending, outcome);
    }

    fn write_done(
        self: &Arc<Self>,
        path: Path,
        pending: Pending,
        result: Result<Access<()>, TransportError>,
    ) {
        let outcome = match result {
            Ok(Access::Done(())) => {
                if let Op::Write(data) = &pending.op {
                    self.context.counters.bytes_out.add(data.len() as u64);
                }
                Outcome::Answer(Ok(PageReply::Done))
            }
            Ok(Access::Fenced) => Outcome::Fenced,
            Err(error @ TransportError::NoSuchNode(_)) => Outcome::Failed(error),
            Err(error) => {
                // Before the access counts as over: from now on no Revoke is acknowledged.
                self.doubt(path.home, path.reference.key);
                Outcome::Answer(Err(unknown(&error)))
            }
        };
        self.settle_access(path, pending, outcome);
    }

    fn cas_done(self: &Arc<Self>, path: Path, pending: Pending, result: Result<Reply, TransportError>) {
        let outcome = match result {
            Ok(Reply::Peer(Ok(PeerReply::Was(was)))) => {
                self.context.counters.bytes_out.add(8);
                Outcome::Answer(Ok(PageReply::Was(was)))
            }
            Ok(Reply::Peer(Ok(PeerReply::Moving))) => Outcome::Moving,
            Ok(Reply::Peer(Ok(PeerReply::NotHere))) => Outcome::Absent,
            Ok(Reply::Peer(Err(error))) => Outcome::Answer(Err(error)),
            Ok(_) => Outcome::Answer(Err(unknown(&TransportError::Mismatch(NodeId::Daemon(path.home))))),
            Err(error @ TransportError::NoSuchNode(_)) => Outcome::Failed(error),
            Err(error) => Outcome::Answer(Err(unknown(&error))),
        };
        self.settle_access(path, pending, outcome);
    }

    /// The access is over: answers, or puts it back among those that wait.
    fn settle_access(self: &Arc<Self>, path: Path, mut pending: Pending, outcome: Outcome) {
        let mut revoked = Vec::new();
        let mut answered = None;
        {
            let mut shard = self.table.shard(path.page);
            let entry = shard.entry(path.page).or_default();
            if pending.is_by_reference() {
                entry.in_flight = entry.in_flight.saturating_sub(1);
            }
            if entry.in_flight == 0 {
                revoked = std::mem::take(&mut entry.revoked);
            }
            if !matches!(outcome, Outcome::Answer(_)) && entry.link == Link::Held(path.reference) {
                entry.link = Link::Idle;
            }
            match outcome {
                Outcome::Answer(result) => answered = Some((pending, result)),
                other => {
                    match other {
                        Outcome::Absent if entry.home == Some(path.home) => entry.home = None,
                        Outcome::Failed(error) => {
                            entry.home = None;
                            entry.search.trouble = Some(error.to_string());
                        }
                        _ => {}
                    }
                    pending.tries += 1;
                    entry.search.rounds = entry.search.rounds.max(pending.tries - 1);
                    entry.queue.push_front(pending);
                }
            }
        }
        revoked.into_iter().for_each(|revoked| revoked.one_less());
        match answered {
            Some((pending, result)) => pending.finish(result),
            None => self.pause_or_drive(path.page),
        }
    }

    /// It is not known whether a write by this key has been done, or still will be.
    pub(super) fn doubt(self: &Arc<Self>, home: RackId, key: u64) {
        if self.doubts.raise(home, key) {
            // The home is about to close it.
            self.context.transport.unlink(NodeId::Daemon(home), Some(key));
            self.withdraw(home, key, Duration::from_millis(20));
        }
    }

    /// Asks `home` to withdraw `key`, until it says that it has.
    fn withdraw(self: &Arc<Self>, home: RackId, key: u64, pause: Duration) {
        const LONGEST: Duration = Duration::from_secs(1);
        let remote = Arc::clone(self);
        let request = PeerRequest::Release { holder: self.context.rack, key, pages: Vec::new() };
        let done = move |reply| match reply {
            Ok(Reply::Peer(Ok(PeerReply::Done))) => remote.doubts.settle(home, key),
            _ if remote.is_closed() => {}
            _ => {
                let later = Arc::clone(&remote);
                let retry = move || later.withdraw(home, key, (2 * pause).min(LONGEST));
                remote.timer.at(Instant::now() + pause, retry);
            }
        };
        self.context.transport.start(NodeId::Daemon(home), Request::Peer(request), Box::new(done));
    }
}

fn unknown(error: &TransportError) -> PageError {
    PageError::Unreachable(format!("{error}; it may or may not have been done"))
}
