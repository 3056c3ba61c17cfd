//! Messages within one process: a call is a call of the node's handler.

use super::{Handler, Transport, TransportError};
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
}

impl Transport for Local {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        let node = self.nodes.read().get(&to).and_then(Weak::upgrade);
        Ok(node.ok_or(TransportError::NoSuchNode(to))?.handle(request))
    }
}
