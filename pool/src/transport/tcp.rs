//! Messages over TCP: between hosts, and between processes of one.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`frame`] | the bytes |
//! | `loops` | the threads that wait for sockets |
//! | `line` | one connection that a thread asks by and waits at |
//! | `calls` | the lines to one node |
//! | `conn` | one connection of many requests: frames out from any thread, frames in by one task |
//! | `peer` | the connections to one node: made when wanted, and again after they broke |
//! | `server` | the connections that others made |
//!
//! **Who waits for a reply** ([`call`](Transport::call)) has a line to itself meanwhile, and reads the reply by itself: at most two
//! threads are woken, the server's and this one, as with two that do nothing else (`examples/tcp_floor.rs` shows both).
//! To wake a thread costs more than all else that a short request does: by a lane there were two or three more to wake.
//! Where there are processors to spare both look for a [while](crate::spin) before they sleep, and none is woken.
//! A line is opened when there is no idle one, so there are as many as threads that have waited at once, up to a limit; the
//! requests above it go by lanes. One that has been idle for a while is closed when another is given back.
//!
//! **Other requests** share two lanes. Those that are long, or whose replies may be, go by another than short ones, which
//! so never wait behind them. By a lane goes also what tells a node that this one is there, as it is to think so for as long
//! as that connection lasts.
//!
//! A request has a deadline, after which it is an error; a connection that breaks is one at once to all whose replies were to
//! come by it. Nothing is ever sent twice.
//!
//! **A child that was forked** has no part in its parent's connections: its requests fail.
//!
//! Nobody is authenticated and nothing is encrypted. What accidents and strangers do is noticed: a frame
//! that does not check out ends its connection.

mod calls;
mod conn;
pub mod frame;
mod line;
mod loops;
mod peer;
mod server;

pub use server::Server;

use super::{Done, Handler, Transport, TransportError};
use crate::proto::meta::MetaRequest;
use crate::proto::mount::MountRequest;
use crate::proto::{NodeId, Reply, Request};
use conn::Waiting;
use frame::Hello;
use loops::{Handles, Loops};
use parking_lot::{Condvar, Mutex, RwLock};
use peer::Peer;
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How precisely deadlines are kept.
const TICK: Duration = Duration::from_millis(20);

/// Called with a node when a connection to it is lost.
pub type Watch = Box<dyn Fn(NodeId) + Send + Sync>;

/// What a transport over TCP is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// Who this is; `None` for a client, which serves nothing.
    pub me: Option<NodeId>,
    /// The cluster, which the other side must be of too; 0: not known yet, any.
    pub cluster: u128,
    /// How long a request may take.
    pub deadline: Duration,
}

/// A transport over TCP.
pub struct Tcp {
    shared: Arc<Shared>,
    _loops: Loops,
}

struct Shared {
    me: Option<NodeId>,
    cluster: Mutex<u128>,
    deadline: Duration,
    loops: Handles,
    /// A child that was forked has no part in the connections.
    process: u32,
    peers: RwLock<HashMap<NodeId, Arc<Peer>>>,
    watch: RwLock<Option<Watch>>,
    next_id: AtomicU64,
    /// Requests that have not been answered; and the clock is woken when there is a first.
    waiting: AtomicU64,
    clock: Notify,
}

impl Tcp {
    /// A transport that knows no node yet.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn new(config: TcpConfig) -> io::Result<Arc<Self>> {
        let loops = Loops::start(loops_of(config.me), config.me.is_some())?;
        let shared = Arc::new(Shared {
            me: config.me,
            cluster: Mutex::new(config.cluster),
            deadline: config.deadline,
            loops: loops.handles(),
            process: std::process::id(),
            peers: RwLock::default(),
            watch: RwLock::default(),
            next_id: AtomicU64::new(1),
            waiting: AtomicU64::new(0),
            clock: Notify::new(),
        });
        shared.loops.next().spawn(keep_time(Arc::downgrade(&shared)));
        Ok(Arc::new(Self { shared, _loops: loops }))
    }

    /// As [`Transport::call`], with another deadline.
    ///
    /// # Errors
    /// As [`Transport::call`].
    pub fn call_within(
        &self,
        to: NodeId,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, TransportError> {
        self.shared.call(to, request, limit)
    }

    /// Says where a node is: `HOST:PORT`. If it was elsewhere before, the connections there are closed.
    pub fn set_addr(&self, node: NodeId, addr: String) {
        let mut peers = self.shared.peers.write();
        match peers.get(&node) {
            Some(peer) if peer.addr() == addr => {}
            _ => {
                let old = peers.insert(node, Arc::new(Peer::new(node, addr)));
                drop(peers);
                if let Some(old) = old {
                    old.close();
                }
            }
        }
    }

    /// Whether this is the process that made it, and not a child that was forked.
    pub(crate) fn is_ours(&self) -> bool {
        self.shared.is_ours()
    }

    /// Says which cluster this is, once that is known.
    pub fn set_cluster(&self, cluster: u128) {
        *self.shared.cluster.lock() = cluster;
    }

    /// Calls `watch` with a node when a connection to it is lost; it must not wait.
    pub fn set_watch(&self, watch: Watch) {
        *self.shared.watch.write() = Some(watch);
    }

    /// Serves the requests to `me` that come to `listener`, until the server is dropped.
    ///
    /// # Errors
    /// What the system says.
    pub fn serve(&self, listener: TcpListener, me: NodeId, handler: Arc<dyn Handler>) -> io::Result<Server> {
        Server::start(&self.shared, listener, me, handler)
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        // To shut a connection down would do so for the parent too.
        if self.is_ours() {
            let peers = std::mem::take(&mut *self.shared.peers.write());
            peers.into_values().for_each(|peer| peer.close());
        }
    }
}

/// How many loops a node has. What the master is asked is done one after another, whoever does it; daemons also copy
/// what is long.
fn loops_of(me: Option<NodeId>) -> usize {
    match me {
        Some(NodeId::Daemon(_)) => 2,
        Some(NodeId::Master) | None => 1,
    }
}

impl Shared {
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    fn hello(&self, to: NodeId) -> Hello {
        Hello { from: self.me, to, cluster: *self.cluster.lock() }
    }

    /// Sends `request`, and waits for the reply.
    fn call(
        self: &Arc<Self>,
        to: NodeId,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, TransportError> {
        debug_assert!(Handle::try_current().is_err(), "a loop must not wait");
        let until = Instant::now() + limit;
        let outgoing = self.outgoing(to, request)?;
        if !shows_presence(request)
            && let Some(reply) = outgoing.peer.call(self, outgoing.id, &outgoing.frame, until)
        {
            return reply;
        }
        let (slot, done) = Slot::new();
        self.send(outgoing, is_bulk(request), until, done);
        slot.wait()
    }

    /// Sends `request`; `done` is called in any case, and once.
    fn start(self: &Arc<Self>, to: NodeId, request: &Request, done: Done<Reply>) {
        match self.outgoing(to, request) {
            Ok(outgoing) => {
                self.send(outgoing, is_bulk(request), Instant::now() + self.limit(request), done);
            }
            Err(error) => done(Err(error)),
        }
    }

    /// How long the reply may take.
    fn limit(&self, request: &Request) -> Duration {
        let clones = |request: &MetaRequest| matches!(request, MetaRequest::CloneTree { .. });
        match request {
            Request::Meta(request) | Request::Mount(MountRequest::Do { request, .. }) if clones(request) => {
                TREE
            }
            _ => self.deadline,
        }
    }

    fn outgoing(&self, to: NodeId, request: &Request) -> Result<Outgoing, TransportError> {
        let broken = |why: String| TransportError::Broken(to, why);
        // Before any lock: in a child none can be relied on to be free.
        if !self.is_ours() {
            return Err(broken(
                "this process was forked, and has no part in its parent's connections".into(),
            ));
        }
        let peer = self.peers.read().get(&to).cloned().ok_or(TransportError::NoSuchNode(to))?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = frame::encode(frame::Kind::Request, id, request).map_err(|e| broken(e.to_string()))?;
        Ok(Outgoing { peer, id, frame })
    }

    /// Sends a request by a lane.
    fn send(self: &Arc<Self>, outgoing: Outgoing, bulk: bool, until: Instant, done: Done<Reply>) {
        let Outgoing { peer, id, frame } = outgoing;
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.clock.notify_one();
        }
        let shared = Arc::clone(self);
        let done: Done<Reply> = Box::new(move |reply| {
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            done(reply);
        });
        let bulk = bulk || frame.len() > LONG;
        peer.send(self, bulk, id, frame, Waiting { done, until });
    }

    /// As [`lost`](Self::lost), on a thread that may hold what the watch takes.
    fn lost_elsewhere(self: &Arc<Self>, node: NodeId) {
        let shared = Arc::downgrade(self);
        self.loops.next().spawn(async move {
            if let Some(shared) = shared.upgrade() {
                shared.lost(node);
            }
        });
    }

    fn lost(&self, node: NodeId) {
        if let Some(watch) = &*self.watch.read() {
            watch(node);
        }
    }
}

/// A request that can be sent.
struct Outgoing {
    peer: Arc<Peer>,
    id: u64,
    frame: Vec<u8>,
}

/// How long it may take to clone a tree, which may have any number of files.
const TREE: Duration = Duration::from_secs(600);

/// Bytes of a message that others should not have to wait behind.
const LONG: usize = 20 << 10;

/// Whether a node takes it that whoever asks this is there as long as the connection is by which it came.
fn shows_presence(request: &Request) -> bool {
    use crate::proto::far::FarRequest::{Enter, Leave, Renew};
    matches!(request, Request::Far(Enter { .. } | Renew { .. } | Leave { .. }))
}

/// Whether the reply to a request may be long, or the request is meant for much.
fn is_bulk(request: &Request) -> bool {
    use crate::proto::far::FarRequest;
    use crate::proto::meta::MetaRequest::{ListXattr, Map, ReadDir};
    use crate::proto::page::PageRequest;
    use crate::proto::peer::PeerRequest;
    match request {
        Request::Peer(PeerRequest::Prepare { .. }) | Request::Page(PageRequest::Reconcile { .. }) => true,
        Request::Peer(PeerRequest::ReadAt { len, .. }) => *len as usize > LONG,
        Request::Far(FarRequest::Read { len, .. }) => *len as usize > LONG,
        Request::Meta(ReadDir { .. } | Map { .. } | ListXattr { .. }) => true,
        _ => false,
    }
}

/// Fails requests whose time is up; sleeps while there are none.
async fn keep_time(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        if strong.waiting.load(Ordering::Acquire) == 0 {
            strong.clock.notified().await;
        }
        let peers: Vec<_> = strong.peers.read().values().cloned().collect();
        let now = Instant::now();
        let next = peers.iter().filter_map(|peer| peer.expire(now)).min();
        drop((strong, peers));
        let rest = next.map_or(TICK, |next| next.saturating_duration_since(now));
        tokio::time::sleep(rest.clamp(TICK, 25 * TICK)).await;
    }
}

/// Where a thread waits for a reply.
#[derive(Default)]
struct Slot {
    reply: Mutex<Option<Result<Reply, TransportError>>>,
    came: Condvar,
}

impl Slot {
    /// A place to wait, and what ends the wait.
    fn new() -> (Arc<Self>, Done<Reply>) {
        let slot = Arc::new(Self::default());
        let filled = Arc::clone(&slot);
        let done = move |reply| {
            *filled.reply.lock() = Some(reply);
            filled.came.notify_one();
        };
        (slot, Box::new(done))
    }

    fn wait(&self) -> Result<Reply, TransportError> {
        let mut reply = self.reply.lock();
        loop {
            if let Some(reply) = reply.take() {
                return reply;
            }
            self.came.wait(&mut reply);
        }
    }
}

impl Transport for Tcp {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        self.shared.call(to, &request, self.shared.limit(&request))
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        if let [request] = &requests[..] {
            return vec![self.shared.call(to, request, self.shared.limit(request))];
        }
        let begin = |request| {
            let (slot, done) = Slot::new();
            self.shared.start(to, request, done);
            slot
        };
        let slots: Vec<_> = requests.iter().map(begin).collect();
        slots.iter().map(|slot| slot.wait()).collect()
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        self.shared.start(to, &request, done);
    }

    fn set_addr(&self, node: NodeId, addr: String) {
        Tcp::set_addr(self, node, addr);
    }
}
