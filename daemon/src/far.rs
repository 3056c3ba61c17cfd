//! Clients that cannot map this rack's memory: their sessions, and what they do to bytes, which the daemon does for
//! them as a client of its own rack ([`proto::far`](pool::proto::far)).
//!
//! What is all in this rack is done on the thread that has read the request; nothing there waits. The rest is done on
//! threads of its own, which wait for other racks and for pages that move: none that other daemons wait for.
//!
//! An access begins only under a ticket that is good and a session that is there, and counts as under way until it
//! is over; a session that is replaced is answered for when none is.
//!
//! **Pages that a client took.** It is told when it enters again whether they may be gone: whether the master was told
//! meanwhile that there are no clients, or they were given up since nothing was heard of it ([`takers`](crate::takers)).
//! Of the sessions of this daemon that is known ([`Roll`]). Of others it goes by the age in the region, which every
//! such event changes before anything is freed, and which a client hears with every sign of life: if it is the one that it
//! names, there was none since it was last known to be there. For [`GRACE`] after its start a daemon that found its region
//! counts a client more, so until then nothing happens behind the back of those that are still to come.
//!
//! Locks: the roll, then the sessions or the takers; those are leaves. Nobody is answered while one of them is locked.

use crate::context::Context;
use crate::server::{Node, Once};
use crate::takers::Takers;
use parking_lot::Mutex;
use pool::Pool;
use pool::PoolError;
use pool::addr::{GAddr, PageId};
use pool::cxl::layout::AT_GIVEN_UP;
use pool::cxl::protocol::SharedWord;
use pool::in_place::Why;
use pool::proto::cluster::ClientName;
use pool::proto::far::{
    ALONE, FAR_MAX, FarError, FarReply, FarRequest, GRACE, KEEP, KEEP_ALONE, LEASE, NAME_MAX, Ticket,
    ZERO_MAX,
};
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Answer, Handler, Transport, TransportError};
use pool::workers::Workers;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The most sessions at once.
const SESSIONS: usize = 1024;

/// A client.
struct Session {
    by: String,
    client: u64,
    /// When it ends, unless it is renewed; nanoseconds of the daemon's clock.
    until: u64,
    /// By which connection it was heard of last, unless that has ended.
    connection: Option<u64>,
    /// Accesses that have begun and are not over.
    under_way: u32,
    /// It is no more, but for what is under way.
    ended: bool,
    /// Told when nothing is under way any more.
    waiting: Vec<Box<dyn FnOnce() + Send>>,
}

/// A client without a session.
struct Absent {
    /// From when on it is no more; nanoseconds of the daemon's clock.
    until: u64,
    /// Its connection, if that has not ended.
    connection: Option<u64>,
}

/// What is known of clients beyond their sessions.
#[derive(Default)]
struct Roll {
    /// Sessions, also ended ones, with their clients, of which pages that they have taken, and that no file has, cannot
    /// have been freed.
    unswept: HashMap<u64, u64>,
    /// Clients that may come back.
    absent: HashMap<u64, Absent>,
}

/// A session that is over: its client and the connection of that.
type Ended = (u64, Option<u64>);

/// The clients without CXL of this rack.
pub(crate) struct Far {
    ctx: Arc<Context>,
    sessions: Mutex<HashMap<u64, Session>>,
    roll: Mutex<Roll>,
    takers: Arc<Takers>,
    /// The pool, as this daemon uses it.
    pool: Pool,
    /// Threads for accesses that wait.
    workers: Workers,
    /// The region was there before this daemon: it may have had such clients.
    inherited: bool,
    random: RandomState,
    next: AtomicU64,
}

/// An access that has begun.
struct UnderWay {
    far: Arc<Far>,
    session: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.far.over(self.session);
    }
}

/// An access of a client, not looked at.
enum Access {
    Read(u32),
    Write(Vec<u8>),
    Zero(u32),
    Cas { old: u64, new: u64 },
}

impl Far {
    /// None yet. `inherited`: the region was there before.
    pub fn new(ctx: &Arc<Context>, itself: Arc<Itself>, takers: Arc<Takers>, inherited: bool) -> Arc<Self> {
        let pool = Pool::within(ctx.in_place.clone(), ctx.rack, itself);
        let (sessions, roll, random) = Default::default();
        let (ctx, workers, next) = (Arc::clone(ctx), Workers::new("pool-far", 64), AtomicU64::new(1));
        Arc::new(Self { ctx, sessions, roll, takers, pool, workers, inherited, random, next })
    }

    /// Ends those that were not heard of; how many there are.
    pub fn sweep(&self) -> usize {
        let (left, told) = self.sweep_under(&mut self.roll.lock());
        told.into_iter().for_each(|tell| tell());
        left
    }

    /// As [`sweep`](Self::sweep); also returns who is to be told when the roll is not locked any more.
    fn sweep_under(&self, roll: &mut Roll) -> (usize, Vec<Box<dyn FnOnce() + Send>>) {
        let now = self.ctx.now();
        let (mut told, mut ended) = (Vec::new(), Vec::new());
        let mut sessions = self.sessions.lock();
        for session in sessions.values_mut().filter(|session| !session.ended && session.until < now) {
            log::info!("client without CXL has gone: {}", session.by);
            session.ended = true;
        }
        sessions.retain(|_, session| {
            let stays = !session.ended || session.under_way > 0;
            if !stays {
                ended.push((session.client, session.connection));
                told.append(&mut session.waiting);
            }
            stays
        });
        // What is under way may hold pages that no file has.
        let left = sessions.len();
        drop(sessions);
        ended.into_iter().for_each(|ended| self.is_absent(roll, ended));
        (left, told)
    }

    /// The client has lost a session, and may have no other.
    fn is_absent(&self, roll: &mut Roll, (client, connection): Ended) {
        if !self.sessions.lock().values().any(|session| session.client == client) {
            let keep = if connection.is_some() { KEEP } else { KEEP_ALONE };
            roll.absent.insert(client, Absent { until: self.ctx.now() + nanos(keep), connection });
        }
    }

    /// As [`sweep`](Self::sweep), for the master, which may have pages freed that no file has if there are none; with one
    /// more while clients of the daemon before this one may still come.
    pub fn sweep_and_expect(&self) -> usize {
        let mut roll = self.roll.lock();
        let (left, told) = self.sweep_under(&mut roll);
        let count = left + usize::from(self.is_young());
        if count == 0 {
            // Who enters after that takes other pages.
            roll.unswept.clear();
            self.grow_older();
        }
        drop(roll);
        told.into_iter().for_each(|tell| tell());
        count
    }

    /// Clients that were absent for too long are no more.
    pub fn look_for_gone(&self) {
        let now = self.ctx.now();
        let mut roll = self.roll.lock();
        let gone: Vec<u64> =
            roll.absent.extract_if(|_, absent| absent.until <= now).map(|(client, _)| client).collect();
        for client in gone {
            self.is_gone(&mut roll, client);
        }
    }

    /// What the client has taken is not its own any more.
    fn is_gone(&self, roll: &mut Roll, client: u64) {
        // Before anything is freed, which whoever is told that it died does when the roll is not locked.
        if self.takers.died(ClientName::Far(client)) {
            roll.unswept.retain(|_, of| *of != client);
            self.grow_older();
        }
    }

    /// What changes whenever pages of clients without sessions are given up.
    fn age(&self) -> u64 {
        let region = self.ctx.frames.region();
        region.region_id().wrapping_add(region.word(AT_GIVEN_UP).load(Ordering::Acquire))
    }

    fn grow_older(&self) {
        self.ctx.frames.region().word(AT_GIVEN_UP).fetch_add(1);
    }

    fn is_young(&self) -> bool {
        self.inherited && self.ctx.started.elapsed() < GRACE
    }

    /// Begins no more accesses, and waits for those on threads.
    pub fn close(&self) {
        self.workers.close();
    }

    /// The connection has ended: its sessions do so too, soon, unless they come by another.
    fn disconnected(&self, connection: u64) {
        let soon = self.ctx.now() + nanos(ALONE);
        let mut roll = self.roll.lock();
        for absent in roll.absent.values_mut().filter(|absent| absent.connection == Some(connection)) {
            (absent.until, absent.connection) = (self.ctx.now() + nanos(KEEP_ALONE), None);
        }
        for session in self.sessions.lock().values_mut().filter(|s| s.connection == Some(connection)) {
            (session.until, session.connection) = (session.until.min(soon), None);
        }
    }

    fn serve(self: &Arc<Self>, node: &Arc<Node>, connection: u64, request: FarRequest, answer: Answer) {
        let answer = Once::new(move |result: Result<Result<FarReply, FarError>, PageError>| {
            answer(Reply::Far(result.unwrap_or_else(|error| Err(FarError::Page(error)))));
        });
        match request {
            FarRequest::Enter { by, client, replaces, age } => {
                self.enter(connection, (by, client), (replaces, age), answer);
            }
            FarRequest::Renew { session } => answer.answer(Ok(self.renew(connection, session))),
            FarRequest::Leave { session } => {
                self.leave(session);
                answer.answer(Ok(Ok(FarReply::Done)));
            }
            FarRequest::Alloc { ticket, pages, leave, kind } => {
                self.alloc(node, ticket, PageRequest::Alloc { pages, leave, kind }, answer);
            }
            FarRequest::Read { ticket, at, len } => self.access(ticket, at, Access::Read(len), answer),
            FarRequest::Write { ticket, at, data } => self.access(ticket, at, Access::Write(data), answer),
            FarRequest::Zero { ticket, at, len } => self.access(ticket, at, Access::Zero(len), answer),
            FarRequest::Cas { ticket, at, old, new } => {
                self.access(ticket, at, Access::Cas { old, new }, answer);
            }
        }
    }

    fn enter(
        self: &Arc<Self>,
        connection: u64,
        (mut by, client): (String, u64),
        (replaces, age): (u64, u64),
        answer: Once<Result<FarReply, FarError>>,
    ) {
        let mut end = by.len().min(NAME_MAX);
        while !by.is_char_boundary(end) {
            end -= 1;
        }
        by.truncate(end);
        if self.sessions.lock().len() >= SESSIONS {
            return answer.answer(Ok(Err(FarError::TooMany(SESSIONS as u32))));
        }
        let far = Arc::clone(self);
        let begin = move || {
            log::info!("client without CXL: {by}");
            let until = far.ctx.now() + nanos(LEASE);
            let number = far.number();
            let (connection, waiting) = (Some(connection), Vec::new());
            let session = Session { by, client, until, connection, under_way: 0, ended: false, waiting };
            let mut roll = far.roll.lock();
            let now = far.age();
            let kept = roll.unswept.remove(&replaces).is_some() || age == now;
            roll.note(number, client);
            roll.absent.remove(&client);
            far.sessions.lock().insert(number, session);
            drop(roll);
            let ticket = Ticket { session: number, until };
            answer.answer(Ok(Ok(FarReply::Entered { ticket, kept, age: now })));
        };
        self.end(replaces, begin);
    }

    /// The client goes: it has told the master all that it had to tell.
    fn leave(&self, session: u64) {
        let client = self.sessions.lock().get(&session).map(|session| session.client);
        self.end(session, || {});
        let mut roll = self.roll.lock();
        if let Some(absent) = client.and_then(|client| roll.absent.get_mut(&client)) {
            absent.until = 0;
        }
    }

    /// Takes pages for a client.
    fn alloc(
        self: &Arc<Self>,
        node: &Arc<Node>,
        ticket: Ticket,
        request: PageRequest,
        answer: Once<Result<FarReply, FarError>>,
    ) {
        let (under_way, client) = match self.begin(ticket) {
            Ok(begun) => begun,
            Err(error) => return answer.answer(Ok(Err(error))),
        };
        let told = move |reply: Reply| {
            drop(under_way);
            answer.answer(Ok(match reply {
                Reply::Page(Ok(PageReply::Runs { runs, zeroed })) => Ok(FarReply::Runs { runs, zeroed }),
                Reply::Page(Err(error)) => Err(error.into()),
                _ => Err(PageError::Invalid("this is no answer to who takes pages".into()).into()),
            }));
        };
        node.serve_client(ClientName::Far(client), Request::Page(request), Box::new(told));
    }

    /// Never 0, nor one that another daemon of this rack has given out but by chance.
    fn number(&self) -> u64 {
        let number = self.random.hash_one((self.ctx.incarnation, self.next.fetch_add(1, Ordering::Relaxed)));
        number | 1
    }

    /// Ends a session; calls `then` once none of its accesses is under way.
    fn end(&self, session: u64, then: impl FnOnce() + Send + 'static) {
        let mut roll = self.roll.lock();
        let mut sessions = self.sessions.lock();
        match sessions.get_mut(&session) {
            Some(old) if old.under_way > 0 => {
                old.ended = true;
                old.waiting.push(Box::new(then));
            }
            _ => {
                let ended = sessions.remove(&session).map(|old| (old.client, old.connection));
                drop(sessions);
                ended.into_iter().for_each(|ended| self.is_absent(&mut roll, ended));
                drop(roll);
                then();
            }
        }
    }

    fn renew(&self, connection: u64, session: u64) -> Result<FarReply, FarError> {
        let now = self.ctx.now();
        // The pages that it took are its own now: the age must be of a moment when it has its session.
        let _roll = self.roll.lock();
        let mut sessions = self.sessions.lock();
        let found = sessions.get_mut(&session).filter(|found| !found.ended && found.until >= now);
        let found = found.ok_or(FarError::Expired)?;
        (found.connection, found.until) = (Some(connection), now + nanos(LEASE));
        Ok(FarReply::Renewed { ticket: Ticket { session, until: found.until }, age: self.age() })
    }

    /// An access of the session that the ticket is of, and its client.
    fn begin(self: &Arc<Self>, ticket: Ticket) -> Result<(UnderWay, u64), FarError> {
        let now = self.ctx.now();
        let mut sessions = self.sessions.lock();
        let found = sessions.get_mut(&ticket.session).filter(|found| !found.ended && found.until >= now);
        // A ticket that claims more than was given: the session is good for no longer than was given, either.
        let session = found.filter(|_| ticket.until >= now).ok_or(FarError::Expired)?;
        session.under_way += 1;
        Ok((UnderWay { far: Arc::clone(self), session: ticket.session }, session.client))
    }

    /// An access of the session is over.
    fn over(&self, number: u64) {
        let ended = {
            let mut sessions = self.sessions.lock();
            let Some(session) = sessions.get_mut(&number) else { return };
            session.under_way = session.under_way.saturating_sub(1);
            if !session.ended || session.under_way > 0 {
                return;
            }
            sessions.remove(&number)
        };
        if let Some(session) = ended {
            self.is_absent(&mut self.roll.lock(), (session.client, session.connection));
            session.waiting.into_iter().for_each(|tell| tell());
        }
    }

    fn access(
        self: &Arc<Self>,
        ticket: Ticket,
        at: GAddr,
        access: Access,
        answer: Once<Result<FarReply, FarError>>,
    ) {
        if let Err(error) = self.check(at, &access) {
            return answer.answer(Ok(Err(error.into())));
        }
        let under_way = match self.begin(ticket) {
            Ok((under_way, _)) => under_way,
            Err(error) => return answer.answer(Ok(Err(error))),
        };
        match self.here(at, access) {
            Ok(reply) => {
                drop(under_way);
                answer.answer(Ok(Ok(reply)));
            }
            Err((done, access)) => {
                let far = Arc::clone(self);
                self.workers.run(move || {
                    let result = far.anywhere(at, done, access);
                    drop(under_way);
                    answer.answer(Ok(result.map_err(FarError::Page)));
                });
            }
        }
    }

    /// Whether a client may ask for this.
    fn check(&self, at: GAddr, access: &Access) -> Result<(), PageError> {
        let size = self.pool.page_size();
        let (len, most) = match access {
            Access::Read(len) => (*len as usize, FAR_MAX),
            Access::Write(data) => (data.len(), FAR_MAX),
            Access::Zero(len) => (*len as usize, ZERO_MAX),
            Access::Cas { .. } => (8, 8),
        };
        if len == 0 || len > most {
            return Err(PageError::Invalid(format!("{len} bytes at {at:?}: from 1 to {most} are possible")));
        }
        let inside = |at: GAddr| at.page(size).is_some_and(|page: PageId| page.raw() < size.id_limit());
        if !inside(at) || !at.checked_add(len as u64 - 1, size).is_some_and(inside) {
            return Err(PageError::Invalid(format!("{len} bytes at {at:?} are not in this pool")));
        }
        if matches!(access, Access::Cas { .. }) && !at.raw().is_multiple_of(8) {
            return Err(PageError::Invalid(format!("{at:?} is not a multiple of 8")));
        }
        Ok(())
    }

    /// Makes the access, if it is all in this rack. Else how much of it was made, and the access again.
    fn here(&self, at: GAddr, access: Access) -> Result<FarReply, (u64, Access)> {
        let in_place = &self.ctx.in_place;
        match access {
            Access::Read(len) => {
                let mut data = Vec::with_capacity(len as usize);
                let mut append =
                    |s: &pool::in_place::Stretch<'_>| s.region.append(s.offset, s.len, &mut data);
                match in_place.look(at, 0..u64::from(len), &mut append) {
                    Ok(()) => Ok(FarReply::Data(data)),
                    Err(_) => Err((0, Access::Read(len))),
                }
            }
            Access::Write(data) => match in_place.write(at, &data) {
                Ok(()) => Ok(FarReply::Done),
                Err(stopped) => Err((stopped.done, Access::Write(data))),
            },
            Access::Zero(len) => {
                let mut zero = |s: &pool::in_place::Stretch<'_>| s.region.zero(s.offset, s.len as u64);
                match in_place.stretches(at, 0..u64::from(len), &mut zero) {
                    Ok(()) => Ok(FarReply::Done),
                    Err(stopped) => Err((stopped.done, Access::Zero(len))),
                }
            }
            Access::Cas { old, new } => match in_place.cas(at, old, new) {
                Ok(was) => Ok(FarReply::Was(was)),
                Err(stopped) => {
                    debug_assert!(stopped.why != Why::BadAddress, "checked");
                    Err((0, Access::Cas { old, new }))
                }
            },
        }
    }

    /// Makes what is left of the access, of which `done` bytes are. Waits.
    fn anywhere(&self, at: GAddr, done: u64, access: Access) -> Result<FarReply, PageError> {
        let pool = &self.pool;
        let from = at.checked_add(done, pool.page_size());
        let from = from.ok_or_else(|| PageError::Invalid(format!("{at:?} is not in this pool")))?;
        let result = match access {
            Access::Read(len) => {
                let mut data = Vec::new();
                pool.read_into(at, len as usize, &mut data).map(|()| FarReply::Data(data))
            }
            Access::Write(data) => {
                let rest = data.get(done as usize..).unwrap_or_default();
                pool.write(from, rest).map(|()| FarReply::Done)
            }
            Access::Zero(len) => pool.zero(from, u64::from(len) - done).map(|()| FarReply::Done),
            Access::Cas { old, new } => pool.cas(at, old, new).map(FarReply::Was),
        };
        result.map_err(of_pool)
    }
}

impl Roll {
    fn note(&mut self, session: u64, client: u64) {
        // Clients that come and go for ever: then those that are cut off have to go by the age.
        if self.unswept.len() >= 64 * SESSIONS {
            self.unswept.clear();
        }
        self.unswept.insert(session, client);
    }
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// What a client is told of an error of this daemon as a client of itself.
fn of_pool(error: PoolError) -> PageError {
    match error {
        PoolError::NoSuchPage(page) => PageError::NoSuchPage(page),
        PoolError::Busy(page) => PageError::Busy(page),
        PoolError::Unreachable(why) => PageError::Unreachable(why),
        error @ PoolError::BadAddress { .. } => PageError::Invalid(error.to_string()),
        PoolError::Transport(error) => PageError::Unreachable(error.to_string()),
        error => PageError::Os(error.to_string()),
    }
}

/// Requests of this daemon to itself.
pub(crate) struct Itself {
    me: NodeId,
    node: Weak<Node>,
    /// How long a request may take.
    deadline: Duration,
}

impl Itself {
    /// To `node`, which is `me`, and which answers in less than `deadline`.
    pub fn new(me: NodeId, node: Weak<Node>, deadline: Duration) -> Arc<Self> {
        Arc::new(Self { me, node, deadline })
    }
}

impl Transport for Itself {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        self.call_all(to, vec![request]).pop().unwrap_or(Err(TransportError::NoSuchNode(to)))
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        let Some(node) = self.node.upgrade().filter(|_| to == self.me) else {
            return requests.iter().map(|_| Err(TransportError::NoSuchNode(to))).collect();
        };
        let answers: Vec<_> = requests
            .into_iter()
            .map(|request| {
                let (sender, receiver) = sync_channel(1);
                // The other end is there until the answer has come.
                node.serve(request, Box::new(move |reply| drop(sender.send(reply))));
                receiver
            })
            .collect();
        let until = Instant::now() + self.deadline;
        let wait = |answer: Receiver<Reply>| {
            let left = until.saturating_duration_since(Instant::now());
            answer.recv_timeout(left).map_err(|_| TransportError::TimedOut(to))
        };
        answers.into_iter().map(wait).collect()
    }
}

/// A connection to this daemon, over which such clients may come.
pub(crate) struct Connection {
    node: Arc<Node>,
    number: u64,
}

impl Connection {
    /// A new one.
    pub fn new(node: &Arc<Node>) -> Self {
        let number = node.far.next.fetch_add(1, Ordering::Relaxed);
        Self { node: Arc::clone(node), number }
    }
}

impl Handler for Connection {
    fn handle(&self, request: Request) -> Reply {
        let (sender, receiver) = sync_channel(1);
        let answer: Answer = Box::new(move |reply| drop(sender.send(reply)));
        match request {
            Request::Far(request) => self.node.far.serve(&self.node, self.number, request, answer),
            request => self.node.serve(request, answer),
        }
        receiver.recv().unwrap_or(Reply::Unsupported)
    }

    fn serve(self: Arc<Self>, request: Request, answer: Answer) {
        match request {
            Request::Far(request) => self.node.far.serve(&self.node, self.number, request, answer),
            request => self.node.serve(request, answer),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.node.far.disconnected(self.number);
    }
}
