//! Carrying messages between the parties of a cluster, without interpreting them.
//!
//! [`Local`] carries them within a process, by value; [`RingTransport`] through the memory of a rack.
//! [`Route`] joins two transports. Whoever sends does not know the difference.
//!
//! Besides messages a transport reads and writes the memory of other racks ([`Transport::start_read`]):
//! one-sided where the hardware can ([`fabric`]), by a message to the daemon there where it cannot. [`Racks`]
//! decides that for each rack.

pub mod fabric;
pub mod fault;
mod local;
mod racks;
#[cfg(feature = "rdma")]
pub mod rdma;
mod ring;
mod route;
pub mod tcp;

pub use local::Local;
pub use racks::Racks;
pub use ring::{RingError, RingTransport};
pub use route::Route;
pub use tcp::{Tcp, TcpConfig};

use crate::proto::cluster::Ways;
use crate::proto::peer::{PeerReply, PeerRequest, RemoteAt};
use crate::proto::{NodeId, Reply, Request};
use fabric::broken;
use std::sync::Arc;
use thiserror::Error;

/// Who compares and swaps words, in [`Ways::cas`].
const CAS: &str = "home CPU";

/// Takes an answer; called once, from any thread, and must not wait for anything.
pub type Done<T> = Box<dyn FnOnce(Result<T, TransportError>) + Send>;

/// Takes the reply of a [`Handler`]; as [`Done`].
pub type Answer = Box<dyn FnOnce(Reply) + Send>;

/// Serves requests that arrive at a node.
pub trait Handler: Send + Sync {
    /// Answers one request. Called from many threads at once. Never waits for another request to the
    /// same node.
    fn handle(&self, request: Request) -> Reply;

    /// Answers one request, now or later and from any thread; what a transport calls that cannot spare the
    /// thread. Must not wait for another node, nor for a client.
    fn serve(self: Arc<Self>, request: Request, answer: Answer) {
        answer(self.handle(request));
    }

    /// What serves one connection, if that matters to the node: dropped when the connection has ended. Else all
    /// are served by the node itself.
    fn for_connection(self: Arc<Self>) -> Option<Arc<dyn Handler>> {
        None
    }
}

/// Carries requests to nodes and brings their replies.
pub trait Transport: Send + Sync {
    /// Sends `request` to `to` and waits for the reply.
    ///
    /// # Errors
    /// [`TransportError`] when there is no reply; the request may or may not have been carried out.
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError>;

    /// As [`call`](Self::call), of several requests at once; the replies are in the order of the requests.
    /// They are carried out in any order.
    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        requests.into_iter().map(|request| self.call(to, request)).collect()
    }

    /// As [`call`](Self::call), without waiting: `done` gets the reply, or an error when the time is up.
    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        done(self.call(to, request));
    }

    /// Says where `node` is now: `HOST:PORT`. Nothing to a transport that finds its nodes otherwise.
    fn set_addr(&self, node: NodeId, addr: String) {
        let _ = (node, addr);
    }

    /// Reads `len` bytes of the region of the daemon `to`. Aligned words are read in one piece.
    fn start_read(&self, to: NodeId, at: RemoteAt, len: u32, done: Done<Access<Vec<u8>>>) {
        let request = Request::Peer(PeerRequest::ReadAt { at, len });
        let take = move |reply| match reply {
            Reply::Peer(Ok(PeerReply::Data(data))) if data.len() == len as usize => Ok(Access::Done(data)),
            Reply::Peer(Ok(PeerReply::Fenced)) => Ok(Access::Fenced),
            _ => Err(TransportError::Mismatch(to)),
        };
        self.start(to, request, Box::new(move |reply| done(reply.and_then(take))));
    }

    /// Writes to the region of the daemon `to`. Aligned words are written in one piece.
    fn start_write(&self, to: NodeId, at: RemoteAt, data: Vec<u8>, done: Done<Access<()>>) {
        let request = Request::Peer(PeerRequest::WriteAt { at, data });
        let take = move |reply| match reply {
            Reply::Peer(Ok(PeerReply::Done)) => Ok(Access::Done(())),
            Reply::Peer(Ok(PeerReply::Fenced)) => Ok(Access::Fenced),
            _ => Err(TransportError::Mismatch(to)),
        };
        self.start(to, request, Box::new(move |reply| done(reply.and_then(take))));
    }

    /// Accepts one-sided access by `from`, which offers a link; what it is to be told. Until
    /// [`cut`](Self::cut). Replaces any before it.
    ///
    /// # Errors
    /// A sentence, if there is none here.
    fn accept_link(&self, from: NodeId, offer: &[u8]) -> Result<Vec<u8>, String> {
        let _ = (from, offer);
        Err("the other daemon has no RDMA".into())
    }

    /// Ends one-sided access by `from`. When this returns none is under way, and none can begin until the next
    /// [`accept_link`](Self::accept_link).
    fn cut(&self, from: NodeId) {
        let _ = from;
    }

    /// One-sided access to `to`, by `key` if that is given, is over: what is under way fails. It may be tried anew.
    fn unlink(&self, to: NodeId, key: Option<u64>) {
        let _ = (to, key);
    }

    /// Whether [`fetch`](Self::fetch) from there may succeed now.
    fn can_fetch(&self, from: NodeId) -> bool {
        let _ = from;
        false
    }

    /// Whether `to` may be able to [fetch](Self::fetch) from here now.
    fn can_lend(&self, to: NodeId) -> bool {
        let _ = to;
        false
    }

    /// Copies `len` bytes at `at` of the region of the daemon `from` to `into` of this one's, one-sided.
    ///
    /// # Errors
    /// [`TransportError`], if that cannot be done; what is at `into` is then unspecified, but does not change any
    /// more.
    fn fetch(&self, from: NodeId, at: u64, into: u64, len: u64) -> Result<(), TransportError> {
        let _ = (at, into, len);
        Err(broken(from, "there is none here"))
    }

    /// How other daemons are reached, and who does compare-and-swap for them here.
    fn ways(&self) -> Ways {
        Ways { transport: "tcp".into(), cas: CAS.into() }
    }
}

/// What came of a one-sided access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access<T> {
    /// It was done.
    Done(T),
    /// The right to access that memory has been taken back; nothing was done.
    Fenced,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// No such node is known here.
    #[error("{0} is not reachable: no such node in this cluster")]
    NoSuchNode(NodeId),
    /// The node did not answer in time.
    #[error("{0} did not answer in time")]
    TimedOut(NodeId),
    /// The node cannot be connected to, or the connection broke; what was asked may or may not have been
    /// done.
    #[error("no connection to {0}: {1}")]
    Broken(NodeId, String),
    /// The request, or what came back, is too long for the way there. If it was the reply, the request has
    /// been carried out.
    #[error(
        "a message of {len} bytes does not fit the way to {to}, which carries {max}; ask for less at a time"
    )]
    TooLarge {
        /// The node.
        to: NodeId,
        /// Bytes of the message.
        len: usize,
        /// The most bytes of one.
        max: usize,
    },
    /// The node's answer is not one to this request.
    #[error("{0} gave an answer that does not fit the request")]
    Mismatch(NodeId),
}
