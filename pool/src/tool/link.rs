//! Asking the master.

use super::ToolError;
use crate::proto::cluster::{Cluster, ClusterError, ClusterReply, ClusterRequest, Rack};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::Transport;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one message waits at a barrier: less than a transport waits for an answer.
const BARRIER_STEP: Duration = Duration::from_secs(2);

/// The master of a cluster.
pub struct Master {
    addr: String,
    transport: Arc<dyn Transport>,
}

impl Master {
    /// The master at `addr`.
    ///
    /// # Errors
    /// If there is none.
    pub fn connect(addr: &str) -> Result<Self, ToolError> {
        let transport = crate::connect::to_master(addr)?;
        Ok(Self { addr: addr.into(), transport })
    }

    /// What the cluster is.
    pub fn describe(&self) -> Result<Cluster, ToolError> {
        match self.ask(ClusterRequest::Describe)? {
            ClusterReply::Cluster(cluster) => Ok(cluster),
            _ => Err(self.mismatch()),
        }
    }

    /// Its racks, in the order of their ids.
    pub fn racks(&self) -> Result<Vec<Rack>, ToolError> {
        match self.ask(ClusterRequest::Racks)? {
            ClusterReply::Racks(racks) => Ok(racks),
            _ => Err(self.mismatch()),
        }
    }

    /// Waits until so many have come to the barrier `name`, but no longer than `patience`.
    pub fn meet(&self, name: &str, parties: u32, patience: Duration) -> Result<(), ToolError> {
        let until = Instant::now() + patience;
        let request = || ClusterRequest::Barrier {
            name: name.into(),
            parties,
            wait_ms: BARRIER_STEP.as_millis() as u64,
        };
        loop {
            match self.ask(request()) {
                Ok(ClusterReply::Done) => return Ok(()),
                Ok(_) => return Err(self.mismatch()),
                Err(ToolError::Refused(_, ClusterError::Refused(_))) if Instant::now() < until => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn ask(&self, request: ClusterRequest) -> Result<ClusterReply, ToolError> {
        match self.transport.call(NodeId::Master, Request::Cluster(request))? {
            Reply::Cluster(reply) => reply.map_err(|error| ToolError::Refused(self.addr.clone(), error)),
            _ => Err(self.mismatch()),
        }
    }

    fn mismatch(&self) -> ToolError {
        ToolError::Mismatch(self.addr.clone())
    }
}
