//! The connections to one node: made when they are wanted, and again after they broke.
//!
//! Who waits for a reply uses a line of its own ([`calls`](super::calls)); all other requests, and those for which there
//! is no line, share two lanes.
//!
//! While a connection is being made requests for it wait in the lane; a node that cannot be reached is
//! left alone for a moment, in which requests fail at once.
//!
//! Lock order: a lane's state, then a connection's locks. Answers are handed over with neither held.

use super::Shared;
use super::calls::{Calls, Got, Place};
use super::conn::{Conn, Waiting, fail};
use super::frame::{self, Hello, WELCOME};
use super::line::{Fault, Line};
use crate::proto::{NodeId, Reply};
use crate::transport::TransportError;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a node that could not be reached is left alone.
const ALONE: Duration = Duration::from_millis(100);

/// A node, and how to reach it.
pub(super) struct Peer {
    node: NodeId,
    addr: String,
    /// For short and for long messages.
    lanes: [Arc<Lane>; 2],
    /// For whoever waits for a reply.
    calls: Arc<Calls>,
}

/// One connection after another.
struct Lane {
    node: NodeId,
    state: Mutex<State>,
}

enum State {
    /// Not tried, or not tried again, until then; for this reason.
    Down(Option<(Instant, String)>),
    /// These are to be sent when it is up: id, frame, who waits.
    Connecting(Vec<(u64, Vec<u8>, Waiting)>),
    Up(Arc<Conn>),
    Closed,
}

impl Peer {
    pub fn new(node: NodeId, addr: String) -> Self {
        let lane = || Arc::new(Lane { node, state: Mutex::new(State::Down(None)) });
        Self { node, addr, lanes: [lane(), lane()], calls: Arc::default() }
    }

    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Sends a request, by a line of this thread's, and waits for the reply. `None` if there is no line, and the request has
    /// to be sent by a lane.
    pub fn call(
        &self,
        shared: &Arc<Shared>,
        id: u64,
        frame: &[u8],
        until: Instant,
    ) -> Option<Result<Reply, TransportError>> {
        let (place, mut line) = match self.line(shared, until) {
            Ok(Some(line)) => line,
            Ok(None) => return None,
            Err(Fault::Late) => return Some(Err(TransportError::TimedOut(self.node))),
            // A node that takes no more connections may have accepted a lane.
            Err(Fault::Broken(_)) if self.lanes.iter().any(|lane| lane.is_there()) => return None,
            Err(Fault::Broken(why)) => return Some(Err(TransportError::Broken(self.node, why))),
        };
        let fault = match line.ask(id, frame, until) {
            Ok(reply) => {
                place.back(line);
                return Some(Ok(reply));
            }
            Err(fault) => fault,
        };
        self.calls.forget_idle();
        Some(Err(match fault {
            Fault::Late => TransportError::TimedOut(self.node),
            Fault::Broken(why) => {
                log::debug!("{}: a connection ended: {why}", self.node);
                shared.lost_elsewhere(self.node);
                TransportError::Broken(self.node, why)
            }
        }))
    }

    /// A line, opened if need be; `None` if there are as many as there may be.
    fn line(&self, shared: &Arc<Shared>, until: Instant) -> Result<Option<(Place, Line)>, Fault> {
        loop {
            match self.calls.get() {
                Got::Line(place, line) if line.is_quiet() => return Ok(Some((place, line))),
                // It has ended since, and nothing was sent by it.
                Got::Line(..) => {
                    self.calls.forget_idle();
                    shared.lost_elsewhere(self.node);
                }
                Got::Place(place) => return self.open_line(shared, place, until).map(Some),
                Got::Full => return Ok(None),
                Got::Down(why) => return Err(Fault::Broken(why)),
            }
        }
    }

    fn open_line(&self, shared: &Arc<Shared>, place: Place, until: Instant) -> Result<(Place, Line), Fault> {
        let (sender, receiver) = sync_channel(1);
        let (addr, hello) = (self.addr.clone(), shared.hello(self.node));
        shared.loops.next().spawn(async move {
            let opened =
                open(&addr, &hello).await.and_then(|stream| stream.into_std().map_err(|e| e.to_string()));
            // Nobody may be waiting any more. The place is taken until here in any case.
            let _ = sender.send((place, opened));
        });
        match receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok((place, Ok(stream))) => place.line(stream).map(|line| (place, line)),
            Ok((_, Err(why))) => {
                self.calls.failed(why.clone());
                Err(Fault::Broken(why))
            }
            Err(RecvTimeoutError::Timeout) => Err(Fault::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Fault::Broken("it was closed".into())),
        }
    }

    /// Sends a request by a lane, after connecting if need be.
    pub fn send(&self, shared: &Arc<Shared>, bulk: bool, id: u64, frame: Vec<u8>, waiting: Waiting) {
        let lane = &self.lanes[usize::from(bulk)];
        let mut state = lane.state.lock();
        if matches!(&*state, State::Up(conn) if conn.is_closed()) {
            *state = State::Down(None);
        }
        let refused = match &mut *state {
            State::Up(conn) => {
                let conn = Arc::clone(conn);
                drop(state);
                conn.request(id, frame, waiting).err()
            }
            State::Connecting(queue) => {
                queue.push((id, frame, waiting));
                None
            }
            State::Down(Some((until, why))) if Instant::now() < *until => Some((waiting, why.clone())),
            State::Down(_) => {
                *state = State::Connecting(vec![(id, frame, waiting)]);
                let (lane, addr, shared) = (Arc::clone(lane), self.addr.clone(), Arc::clone(shared));
                let handle = shared.loops.next().clone();
                handle.spawn(async move { lane.connect(addr, shared).await });
                None
            }
            State::Closed => Some((waiting, "it has gone".into())),
        };
        if let Some((waiting, why)) = refused {
            fail(self.node, vec![waiting], &why);
        }
    }

    /// Fails what waited too long; says when the next does.
    pub fn expire(&self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for lane in &self.lanes {
            let (late, then) = lane.expired(now);
            next = next.into_iter().chain(then).min();
            for waiting in late {
                (waiting.done)(Err(TransportError::TimedOut(self.node)));
            }
        }
        next
    }

    /// Closes the connections for good.
    pub fn close(&self) {
        self.calls.close();
        for lane in &self.lanes {
            match std::mem::replace(&mut *lane.state.lock(), State::Closed) {
                State::Up(conn) => {
                    conn.close();
                    fail(self.node, conn.abandon(), "it was closed");
                }
                State::Connecting(queue) => fail(self.node, waiting(queue), "it was closed"),
                State::Down(_) | State::Closed => {}
            }
        }
    }
}

fn waiting(queue: Vec<(u64, Vec<u8>, Waiting)>) -> Vec<Waiting> {
    queue.into_iter().map(|(_, _, waiting)| waiting).collect()
}

impl Lane {
    fn is_there(&self) -> bool {
        matches!(&*self.state.lock(), State::Up(conn) if !conn.is_closed())
    }

    fn expired(&self, now: Instant) -> (Vec<Waiting>, Option<Instant>) {
        match &mut *self.state.lock() {
            State::Up(conn) => conn.expired(now),
            State::Connecting(queue) => {
                let (late, rest) = std::mem::take(queue).into_iter().partition(|(_, _, w)| w.until <= now);
                *queue = rest;
                (waiting(late), queue.iter().map(|(_, _, waiting)| waiting.until).min())
            }
            State::Down(_) | State::Closed => (Vec::new(), None),
        }
    }

    /// Connects, sends what waits for that, and reads until the connection ends.
    async fn connect(self: Arc<Self>, addr: String, shared: Arc<Shared>) {
        let (conn, half) = match open(&addr, &shared.hello(self.node)).await {
            Ok(stream) => Conn::new(stream),
            Err(why) => return self.give_up(why),
        };
        tokio::spawn(Arc::clone(&conn).write());
        let Some(queue) = self.is_up(&conn) else { return };
        for (id, frame, waiting) in queue {
            if let Err((waiting, why)) = conn.request(id, frame, waiting) {
                fail(self.node, vec![waiting], &why);
            }
        }
        // Held weakly while reading: dropping the transport must end this task, not be held up by it.
        let weak = Arc::downgrade(&shared);
        drop(shared);
        let why = Arc::clone(&conn).read(half, None).await;
        log::debug!("{}: the connection ended: {why}", self.node);
        fail(self.node, conn.abandon(), &why);
        if let Some(shared) = weak.upgrade() {
            shared.lost(self.node);
        }
    }

    /// The connection stands; returns what waited for it. `None` if it is not wanted any more.
    fn is_up(&self, conn: &Arc<Conn>) -> Option<Vec<(u64, Vec<u8>, Waiting)>> {
        let mut state = self.state.lock();
        match &mut *state {
            State::Connecting(queue) => {
                let queue = std::mem::take(queue);
                *state = State::Up(Arc::clone(conn));
                Some(queue)
            }
            State::Down(_) | State::Up(_) | State::Closed => {
                conn.close();
                None
            }
        }
    }

    fn give_up(&self, why: String) {
        let mut state = self.state.lock();
        let State::Connecting(queue) = &mut *state else { return };
        let queue = std::mem::take(queue);
        *state = State::Down(Some((Instant::now() + ALONE, why.clone())));
        drop(state);
        fail(self.node, waiting(queue), &why);
    }
}

/// Connects and introduces itself, in good time; else says what is wrong.
async fn open(addr: &str, hello: &Hello) -> Result<TcpStream, String> {
    match timeout(CONNECT, introduce(addr, hello)).await {
        Ok(opened) => opened.map_err(|why| format!("{addr}: {why}")),
        Err(_) => Err(format!("{addr} did not answer in {CONNECT:?}")),
    }
}

async fn introduce(addr: &str, hello: &Hello) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    let spoken = async {
        stream.set_nodelay(true)?;
        stream.write_all(&hello.encode()).await?;
        let mut welcome = [0; WELCOME];
        stream.read_exact(&mut welcome).await?;
        Ok::<_, std::io::Error>(welcome)
    };
    let welcome = spoken.await.map_err(|e| format!("no rchfs answers there: {e}"))?;
    match frame::refused(&welcome).map_err(|e| format!("no rchfs answers there: {e}"))? {
        None => Ok(stream),
        Some(len) => {
            let mut sentence = vec![0; len];
            stream.read_exact(&mut sentence).await.map_err(|e| e.to_string())?;
            Err(String::from_utf8_lossy(&sentence).into_owned())
        }
    }
}
