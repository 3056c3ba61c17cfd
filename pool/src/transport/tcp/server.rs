//! The connections that others made.

use super::Shared;
use super::conn::Conn;
use super::frame::{self, HELLO, Hello};
use super::loops::Handles;
use crate::proto::NodeId;
use crate::transport::Handler;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a stranger may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// The most connections at once.
const CONNECTIONS: usize = 4096;
/// How long to wait when the system has no more descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped; then its connections are closed.
pub struct Server {
    addr: SocketAddr,
    /// Tells all tasks that it is over, by being dropped.
    _alive: watch::Sender<()>,
}

struct Serving {
    me: NodeId,
    shared: Weak<Shared>,
    loops: Handles,
    handler: Arc<dyn Handler>,
    connections: AtomicUsize,
    complaints: Complaints,
}

impl Server {
    pub(super) fn start(
        shared: &Arc<Shared>,
        listener: std::net::TcpListener,
        me: NodeId,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let accepting = shared.loops.next().clone();
        let _inside = accepting.enter();
        let listener = TcpListener::from_std(listener)?;
        let (alive, over) = watch::channel(());
        let serving = Arc::new(Serving {
            me,
            shared: Arc::downgrade(shared),
            loops: shared.loops.clone(),
            handler,
            connections: AtomicUsize::new(0),
            complaints: Complaints::default(),
        });
        accepting.spawn(accept(serving, listener, over));
        Ok(Self { addr, _alive: alive })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn accept(serving: Arc<Serving>, listener: TcpListener, mut over: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = over.changed() => return,
        };
        // It is served by another loop, maybe.
        let accepted = accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from)));
        match accepted {
            Ok((stream, from)) => {
                let (serving, over) = (Arc::clone(&serving), over.clone());
                let handle = serving.loops.next().clone();
                handle.spawn(async move { serving.connection(stream, from, over).await });
            }
            Err(e) => {
                serving.complaints.log(&format!("cannot accept connections: {e}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Serving {
    async fn connection(&self, stream: std::net::TcpStream, from: SocketAddr, mut over: watch::Receiver<()>) {
        let many = self.connections.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS;
        let spoken = timeout(HANDSHAKE, self.handshake(stream, many)).await;
        match spoken.unwrap_or_else(|_| Err("it does not say who it is".into())) {
            Ok(stream) => {
                let (conn, half) = Conn::new(stream);
                tokio::spawn(Arc::clone(&conn).write());
                let all = || Arc::clone(&self.handler);
                let handler = all().for_connection().unwrap_or_else(all);
                let reading = Arc::clone(&conn).read(half, Some(handler));
                tokio::select! {
                    why = reading => log::debug!("{from}: the connection ended: {why}"),
                    _ = over.changed() => conn.close(),
                }
            }
            Err(why) => self.complaints.log(&format!("a connection from {from} was refused: {why}")),
        }
        self.connections.fetch_sub(1, Ordering::AcqRel);
    }

    /// Hears who it is, and accepts or refuses it.
    async fn handshake(&self, stream: std::net::TcpStream, many: bool) -> Result<TcpStream, String> {
        let mut stream = TcpStream::from_std(stream).map_err(|e| e.to_string())?;
        let mut bytes = [0; HELLO];
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        stream.read_exact(&mut bytes).await.map_err(|e| e.to_string())?;
        let refusal = if many { Some("too many connections".into()) } else { self.refusal(&bytes) };
        let welcome = frame::welcome(refusal.as_deref());
        stream.write_all(&welcome).await.map_err(|e| e.to_string())?;
        refusal.map_or(Ok(stream), Err)
    }

    fn refusal(&self, bytes: &[u8; HELLO]) -> Option<String> {
        let hello = match Hello::decode(bytes) {
            Ok(hello) => hello,
            Err(e) => return Some(e.to_string()),
        };
        if hello.to != self.me {
            return Some(format!("this is {}, not {}", self.me, hello.to));
        }
        let ours = self.shared.upgrade().map_or(0, |shared| *shared.cluster.lock());
        let other = hello.cluster != 0 && ours != 0 && hello.cluster != ours;
        other.then(|| format!("this is cluster {ours:032x}, not {:032x}", hello.cluster))
    }
}

/// Says what strangers do wrong, but not as often as they do it.
#[derive(Default)]
struct Complaints {
    /// Milliseconds since `start` at which the next may be logged.
    next: AtomicU64,
    start: std::sync::OnceLock<Instant>,
}

impl Complaints {
    fn log(&self, what: &str) {
        const APART: u64 = 1000;
        let now = self.start.get_or_init(Instant::now).elapsed().as_millis() as u64;
        let next = self.next.load(Ordering::Relaxed);
        let first = now >= next
            && self.next.compare_exchange(next, now + APART, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first {
            log::warn!("{what}");
        }
    }
}
