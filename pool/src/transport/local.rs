//! Messages within one process: a call is a call of the node's handler.

use super::{Done, Handler, Transport, TransportError};
use crate::proto::{NodeId, Reply, Request};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The transport of the embedded pool and of clusters in one process.
///
/// Holds its nodes weakly: a node that is dropped is a node that has gone.
#[derive(Default)]
pub struct Local {
    nodes: RwLock<HashMap<NodeId, Weak<dyn Handler>>>,
}

impl Local {
    /// A transport that knows no node yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `handler` the node `id`, in the place of any before it.
    pub fn register(&self, id: NodeId, handler: &Arc<dyn Handler>) {
        self.nodes.write().insert(id, Arc::downgrade(handler));
    }

    fn node(&self, id: NodeId) -> Result<Arc<dyn Handler>, TransportError> {
        self.nodes.read().get(&id).and_then(Weak::upgrade).ok_or(TransportError::NoSuchNode(id))
    }
}

impl Transport for Local {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        Ok(self.node(to)?.handle(request))
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        match self.node(to) {
            Ok(node) => node.serve(request, Box::new(move |reply| done(Ok(reply)))),
            Err(error) => done(Err(error)),
        }
    }
}
