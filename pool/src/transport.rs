//! Carrying messages between the parties of a cluster, without interpreting them.
//!
//! [`Local`] carries them within a process, by value. Whoever sends does not know the difference.

pub mod fault;
mod local;

pub use local::Local;

use crate::proto::{NodeId, Reply, Request};
use thiserror::Error;

/// Serves requests that arrive at a node.
pub trait Handler: Send + Sync {
    /// Answers one request. Called from many threads at once. Never waits for another request to the
    /// same node.
    fn handle(&self, request: Request) -> Reply;
}

/// Carries requests to nodes and brings their replies.
pub trait Transport: Send + Sync {
    /// Sends `request` to `to` and waits for the reply.
    ///
    /// # Errors
    /// [`TransportError`] when there is no reply; the request may or may not have been carried out.
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError>;
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// No such node is known here.
    #[error("{0:?} is not reachable: no such node in this cluster")]
    NoSuchNode(NodeId),
    /// The node did not answer in time.
    #[error("{0:?} did not answer in time")]
    TimedOut(NodeId),
    /// The node's answer is not one to this request.
    #[error("{0:?} gave an answer that does not fit the request")]
    Mismatch(NodeId),
}
