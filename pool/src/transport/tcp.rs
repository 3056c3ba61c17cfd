//! Messages over TCP: between hosts, and between processes of one.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`frame`] | the bytes |
//! | `conn` | one connection: frames out from any thread, frames in by one task |
//! | `peer` | the connections to one node: made when wanted, and again after they broke |
//! | `server` | the connections that others made |
//!
//! Requests that are long, or whose replies may be, go by another connection than short ones, which so
//! never wait behind them. A request has a deadline, after which it is an error; a connection that breaks
//! is one at once to all whose replies were to come by it. Nothing is ever sent twice.
//!
//! Nobody is authenticated and nothing is encrypted. What accidents and strangers do is noticed: a frame
//! that does not check out ends its connection.

mod conn;
pub mod frame;
mod peer;
mod server;

pub use server::Server;

use super::{Done, Handler, Transport, TransportError};
use crate::proto::{NodeId, Reply, Request};
use conn::Waiting;
use parking_lot::{Condvar, Mutex, RwLock};
use peer::Peer;
use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
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
    runtime: Option<Runtime>,
}

struct Shared {
    me: Option<NodeId>,
    cluster: Mutex<u128>,
    deadline: Duration,
    handle: Handle,
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
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("pool-tcp")
            .enable_io()
            .enable_time()
            .build()?;
        let shared = Arc::new(Shared {
            me: config.me,
            cluster: Mutex::new(config.cluster),
            deadline: config.deadline,
            handle: runtime.handle().clone(),
            peers: RwLock::default(),
            watch: RwLock::default(),
            next_id: AtomicU64::new(1),
            waiting: AtomicU64::new(0),
            clock: Notify::new(),
        });
        runtime.spawn(keep_time(Arc::downgrade(&shared)));
        Ok(Arc::new(Self { shared, runtime: Some(runtime) }))
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
        let peers = std::mem::take(&mut *self.shared.peers.write());
        peers.into_values().for_each(|peer| peer.close());
        // May be the last owner's doing within a task, where nothing may be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Sends `request`; `done` is called in any case, and once.
    fn start(self: &Arc<Self>, to: NodeId, request: &Request, done: Done<Reply>) {
        let peer = self.peers.read().get(&to).cloned();
        let Some(peer) = peer else { return done(Err(TransportError::NoSuchNode(to))) };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = match frame::encode(frame::Kind::Request, id, request) {
            Ok(frame) => frame,
            Err(e) => return done(Err(TransportError::Broken(to, e.to_string()))),
        };
        if self.waiting.fetch_add(1, Ordering::AcqRel) == 0 {
            self.clock.notify_one();
        }
        let shared = Arc::clone(self);
        let done: Done<Reply> = Box::new(move |reply| {
            shared.waiting.fetch_sub(1, Ordering::AcqRel);
            done(reply);
        });
        let waiting = Waiting { done, until: Instant::now() + self.deadline };
        peer.send(self, is_bulk(request, frame.len()), id, frame, waiting);
    }

    fn lost(&self, node: NodeId) {
        if let Some(watch) = &*self.watch.read() {
            watch(node);
        }
    }
}

/// Whether a request is long, or its reply may be.
fn is_bulk(request: &Request, len: usize) -> bool {
    use crate::proto::far::FarRequest;
    use crate::proto::meta::MetaRequest::{ListXattr, Map, ReadDir};
    use crate::proto::page::PageRequest;
    use crate::proto::peer::PeerRequest;
    const LONG: usize = 20 << 10;
    len > LONG
        || match request {
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

impl Tcp {
    fn begin(&self, to: NodeId, request: &Request) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        let filled = Arc::clone(&slot);
        let done: Done<Reply> = Box::new(move |reply| {
            *filled.reply.lock() = Some(reply);
            filled.came.notify_one();
        });
        self.shared.start(to, request, done);
        slot
    }
}

impl Transport for Tcp {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        self.begin(to, &request).wait()
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        let slots: Vec<_> = requests.iter().map(|request| self.begin(to, request)).collect();
        slots.iter().map(|slot| slot.wait()).collect()
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        self.shared.start(to, &request, done);
    }

    fn set_addr(&self, node: NodeId, addr: String) {
        Tcp::set_addr(self, node, addr);
    }
}
