//! Two transports as one: the own daemon by one way, everybody else by another.

use super::{Access, Done, Transport, TransportError};
use crate::proto::peer::RemoteAt;
use crate::proto::{NodeId, Reply, Request};
use std::sync::Arc;

/// Sends what is for one node by one transport, and all else by another. For a client: the rings to its
/// rack's daemon, TCP to the master.
pub struct Route {
    near: NodeId,
    by: Arc<dyn Transport>,
    others: Arc<dyn Transport>,
}

impl Route {
    /// Sends to `near` by `by`, and to all others by `others`.
    pub fn new(near: NodeId, by: Arc<dyn Transport>, others: Arc<dyn Transport>) -> Self {
        Self { near, by, others }
    }

    #[inline]
    fn way(&self, to: NodeId) -> &dyn Transport {
        if to == self.near { &*self.by } else { &*self.others }
    }
}

impl Transport for Route {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        self.way(to).call(to, request)
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        self.way(to).call_all(to, requests)
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        self.way(to).start(to, request, done);
    }

    fn start_read(&self, to: NodeId, at: RemoteAt, len: u32, done: Done<Access<Vec<u8>>>) {
        self.way(to).start_read(to, at, len, done);
    }

    fn start_write(&self, to: NodeId, at: RemoteAt, data: Vec<u8>, done: Done<Access<()>>) {
        self.way(to).start_write(to, at, data, done);
    }
}
