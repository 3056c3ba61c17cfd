//! A client that cannot map its rack's memory: what it does to bytes is asked of the rack's daemon, by messages
//! ([`proto::far`](crate::proto::far)). Pages of other racks go the same way, by that daemon's Direct IO: so they
//! count, and move here when they are hot, as for every client of the rack; and there is one daemon that a client
//! has to agree with about what is in doubt.
//!
//! An access is cut into pieces of up to [`FAR_MAX`] bytes, in any number of pages, and [`WINDOW`] of them are asked
//! for together. Pieces end at multiples of 8, or where the access ends, so that every aligned word is moved whole.
//!
//! Each byte is touched once, as far as is known. A piece that the daemon refused, since the session had ended, is
//! asked for again under a new one. Of a piece that got no answer it is not known: it is an error, but for a read, and
//! for a caller that says that nobody else writes there. Then it is done again, after a new session has made sure that
//! the first attempt is over.
//!
//! Locks: the session's state is a leaf.

use super::access::Op;
use super::join::find;
use super::{Pool, access};
use crate::addr::{GAddr, RackId};
use crate::error::PoolError;
use crate::proto::far::{FAR_MAX, FarError, FarReply, FarRequest, RENEW, Ticket};
use crate::proto::page::{PageKind, PageReply, PageRequest};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::{Transport, TransportError};
use parking_lot::{Condvar, Mutex};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// How many pieces are asked for together: enough for what a file system reads at once.
const WINDOW: usize = 16;
/// How long an access is tried again when the daemon is away: longer than one needs that is started again, for which
/// the master waits until it is sure that the one before it has gone.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pause between two attempts to enter.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a client that goes waits for the daemon to hear of it.
const FAREWELL: Duration = Duration::from_millis(200);

/// A part of an access: consecutive bytes of the pool, and where they are in the caller's buffer.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub at: GAddr,
    pub range: Range<u64>,
}

/// The client's session at the daemon. Ends when it is dropped.
pub(super) struct Far {
    session: Arc<Session>,
}

struct Session {
    /// Reaches the daemon and the master.
    transport: Arc<dyn Transport>,
    rack: RackId,
    by: String,
    /// What the daemon knows this client by.
    client: u64,
    state: Mutex<State>,
    /// Somebody has entered, or failed to.
    entered: Condvar,
    /// It is over.
    ending: Condvar,
}

struct State {
    ticket: Ticket,
    /// What the daemon said last.
    age: u64,
    /// A thread is entering; others wait for it.
    entering: bool,
    lapses: u64,
    over: bool,
}

impl Far {
    /// Enters at the daemon of `rack`, which `transport` reaches as well as the master.
    pub fn enter(transport: Arc<dyn Transport>, rack: RackId, by: String) -> Result<Self, PoolError> {
        let nothing = Ticket { session: 0, until: 0 };
        let state = Mutex::new(State { ticket: nothing, age: 0, entering: false, lapses: 0, over: false });
        let (entered, ending) = Default::default();
        let client = RandomState::new().hash_one((std::process::id(), &by)) | 1;
        let session = Arc::new(Session { transport, rack, by, client, state, entered, ending });
        session.enter(0, Instant::now() + PATIENCE)?;
        let kept = Arc::clone(&session);
        let keep = move || kept.keep();
        let far = Self { session };
        let thread = std::thread::Builder::new().name("pool-far".into()).spawn(keep);
        thread.map_err(|e| PoolError::Os(format!("cannot start a thread: {e}")))?;
        Ok(far)
    }

    /// What the daemon knows this client by.
    pub fn name(&self) -> u64 {
        self.session.client
    }

    /// How often pages that this client had taken may have been taken from it, since it was not heard of.
    pub fn lapses(&self) -> u64 {
        self.session.state.lock().lapses
    }

    /// Makes sure that the daemon knows this client now; as [`lapses`](Self::lapses).
    pub fn check_in(&self) -> Result<u64, PoolError> {
        self.session.renew()?;
        Ok(self.lapses())
    }

    /// Sends `request` to the daemon, again if need be and if that does no harm.
    pub fn call(&self, request: PageRequest) -> Result<Reply, TransportError> {
        let session = &self.session;
        let until = Instant::now() + PATIENCE;
        loop {
            let ticket = session.state.lock().ticket;
            let error = match session.transport.call(session.daemon(), message(&request, ticket)) {
                Ok(Reply::Far(Ok(FarReply::Runs { runs, zeroed }))) => {
                    return Ok(Reply::Page(Ok(PageReply::Runs { runs, zeroed })));
                }
                Ok(Reply::Far(Err(FarError::Page(error)))) => return Ok(Reply::Page(Err(error))),
                Ok(Reply::Far(Err(FarError::Expired))) => TransportError::TimedOut(session.daemon()),
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let again = may_repeat(&request) && Instant::now() < until;
            if !again || session.enter(ticket.session, until).is_err() {
                return Err(error);
            }
        }
    }

    /// Has `op` done to `parts`, which are all of its bytes; done again what is in doubt, and may be, only if `still`
    /// says so.
    pub fn access(
        &self,
        pool: &Pool,
        parts: &[Piece],
        op: &mut dyn Op,
        still: &dyn Fn() -> bool,
    ) -> Result<(), PoolError> {
        let mut left = cut(pool, parts, op.most())?;
        // The next is the last.
        left.reverse();
        let until = Instant::now() + PATIENCE;
        while !left.is_empty() {
            let window = left.split_off(left.len().saturating_sub(WINDOW));
            let ticket = self.session.state.lock().ticket;
            let Some(why) = self.ask(pool, ticket, window, op, &mut left)? else { continue };
            if Instant::now() >= until {
                return Err(pool.explain(why));
            }
            self.session.enter(ticket.session, until)?;
            if !still() {
                return Err(PoolError::Lapsed);
            }
        }
        Ok(())
    }

    /// Asks for the pieces `window`, the last first. Those that are to be asked for again go back to `left`; why.
    fn ask(
        &self,
        pool: &Pool,
        ticket: Ticket,
        mut window: Vec<Piece>,
        op: &mut dyn Op,
        left: &mut Vec<Piece>,
    ) -> Result<Option<TransportError>, PoolError> {
        window.reverse();
        let to = self.session.daemon();
        let requests = window.iter().map(|piece| Request::Far(op.far(ticket, piece.at, &piece.range)));
        let replies = self.session.transport.call_all(to, requests.collect());
        if replies.len() != window.len() {
            return Err(pool.mismatch());
        }
        let (mut failed, mut again) = (None, None);
        for (piece, reply) in window.into_iter().zip(replies).rev() {
            match reply {
                Ok(Reply::Far(Ok(reply))) => {
                    if !op.take_far(&piece.range, reply) {
                        failed = Some(pool.mismatch());
                    }
                }
                Ok(Reply::Far(Err(FarError::Expired))) => {
                    left.push(piece);
                    again = Some(TransportError::TimedOut(to));
                }
                Ok(Reply::Far(Err(error))) => failed = Some(of(error)),
                Ok(_) => failed = Some(pool.mismatch()),
                Err(error) if op.repeats() => {
                    left.push(piece);
                    again = Some(error);
                }
                Err(error) => {
                    // Whatever comes next must not wait for this to be noticed.
                    self.session.forget(ticket);
                    failed = Some(pool.explain(error));
                }
            }
        }
        failed.map_or(Ok(again), Err)
    }
}

/// The pieces of up to `most` bytes that `parts` are made of.
fn cut(pool: &Pool, parts: &[Piece], most: u64) -> Result<Vec<Piece>, PoolError> {
    let size = pool.page_size();
    let mut pieces = Vec::with_capacity(parts.len());
    for part in parts.iter().filter(|part| !part.range.is_empty()) {
        let len = part.range.end - part.range.start;
        let bad = || access::bad(part.at, len);
        part.at.checked_add(len - 1, size).ok_or_else(bad)?;
        let mut done = 0;
        while done < len {
            let at = part.at.checked_add(done, size).ok_or_else(bad)?;
            let end = len.min(done + most - at.raw() % 8);
            pieces.push(Piece { at, range: part.range.start + done..part.range.start + end });
            done = end;
        }
    }
    Ok(pieces)
}

/// What is sent for `request`: pages for files are taken in the name of this client.
fn message(request: &PageRequest, ticket: Ticket) -> Request {
    match *request {
        PageRequest::Alloc { pages, leave, kind: kind @ PageKind::File } => {
            Request::Far(FarRequest::Alloc { ticket, pages, leave, kind })
        }
        _ => Request::Page(request.clone()),
    }
}

/// Whether asking twice does no harm. What is taken twice for files returns when this client is no more.
fn may_repeat(request: &PageRequest) -> bool {
    use crate::proto::page::PageKind::File;
    matches!(
        request,
        PageRequest::Stat
            | PageRequest::Where { .. }
            | PageRequest::Sync { .. }
            | PageRequest::Alloc { kind: File, .. }
    )
}

fn of(error: FarError) -> PoolError {
    match error {
        FarError::Page(error) => error.into(),
        error @ (FarError::Expired | FarError::TooMany(_)) => PoolError::Os(error.to_string()),
    }
}

impl Session {
    fn daemon(&self) -> NodeId {
        NodeId::Daemon(self.rack)
    }

    /// The ticket is not to be used any more, and the session is to be replaced.
    fn forget(&self, ticket: Ticket) {
        let mut state = self.state.lock();
        if state.ticket.session == ticket.session {
            state.ticket.until = 0;
        }
        drop(state);
        self.ending.notify_all();
    }

    /// Replaces the session `old`, unless that has been done already.
    fn enter(&self, old: u64, until: Instant) -> Result<(), PoolError> {
        let mut state = self.state.lock();
        while state.entering {
            if self.entered.wait_until(&mut state, until).timed_out() {
                return Err(TransportError::TimedOut(self.daemon()).into());
            }
        }
        if state.ticket.session != old {
            return Ok(());
        }
        state.entering = true;
        drop(state);
        let result = self.try_enter(old, until);
        let mut state = self.state.lock();
        state.entering = false;
        let result = result.map(|(ticket, kept, age)| {
            (state.ticket, state.age) = (ticket, age);
            state.lapses += u64::from(!kept && old != 0);
        });
        drop(state);
        self.entered.notify_all();
        result
    }

    /// The new ticket, whether what was taken was kept, and the age now.
    fn try_enter(&self, replaces: u64, until: Instant) -> Result<(Ticket, bool, u64), PoolError> {
        let age = self.state.lock().age;
        loop {
            let (by, client) = (self.by.clone(), self.client);
            let request = FarRequest::Enter { by, client, replaces, age };
            let error = match self.transport.call(self.daemon(), Request::Far(request)) {
                Ok(Reply::Far(Ok(FarReply::Entered { ticket, kept, age }))) => {
                    return Ok((ticket, kept, age));
                }
                Ok(Reply::Far(Err(error))) => return Err(of(error)),
                Ok(Reply::Unsupported) => {
                    return Err(PoolError::Os(format!(
                        "{} serves no clients without CXL; use programs of the same version",
                        self.daemon()
                    )));
                }
                Ok(_) => return Err(TransportError::Mismatch(self.daemon()).into()),
                Err(error) => error,
            };
            if Instant::now() + PAUSE >= until || self.state.lock().over {
                return Err(error.into());
            }
            // It may have been started again, elsewhere.
            match find(&*self.transport, self.rack) {
                Ok(rack) => self.transport.set_addr(self.daemon(), rack.join.addr),
                Err(gone @ PoolError::NoSuchRack { .. }) => return Err(gone),
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Renews the session; enters anew if it has ended.
    fn renew(&self) -> Result<(), PoolError> {
        let ticket = self.state.lock().ticket;
        if ticket.until == 0 {
            return self.enter(ticket.session, Instant::now() + PATIENCE);
        }
        let request = FarRequest::Renew { session: ticket.session };
        match self.transport.call(self.daemon(), Request::Far(request)) {
            Ok(Reply::Far(Ok(FarReply::Renewed { ticket: new, age }))) => {
                let mut state = self.state.lock();
                if state.ticket.session == new.session {
                    state.age = age;
                }
                if state.ticket.session == new.session && state.ticket.until != 0 {
                    state.ticket.until = state.ticket.until.max(new.until);
                }
                Ok(())
            }
            _ => self.enter(ticket.session, Instant::now() + PATIENCE),
        }
    }

    /// Renews the session again and again, until it is over.
    fn keep(&self) {
        let mut silent = false;
        loop {
            let mut state = self.state.lock();
            if !state.over && state.ticket.until != 0 {
                self.ending.wait_for(&mut state, RENEW);
            }
            if state.over {
                return;
            }
            drop(state);
            match self.renew() {
                Ok(()) if std::mem::take(&mut silent) => log::info!("{} answers again", self.daemon()),
                Ok(()) => {}
                Err(error) => {
                    if !silent {
                        log::warn!("{error}");
                    }
                    silent = true;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let session = &self.session;
        let ticket = {
            let mut state = session.state.lock();
            state.over = true;
            state.ticket
        };
        session.ending.notify_all();
        let (sender, receiver) = sync_channel(1);
        let request = Request::Far(FarRequest::Leave { session: ticket.session });
        let done = move |_: Result<Reply, TransportError>| {
            // Nobody may be waiting any more.
            let _ = sender.send(());
        };
        session.transport.start(session.daemon(), request, Box::new(done));
        // If the daemon does not hear of it, it will notice.
        let _ = receiver.recv_timeout(FAREWELL);
    }
}

/// The most bytes of a piece that carries data.
pub(super) const DATA_MOST: u64 = FAR_MAX as u64;
