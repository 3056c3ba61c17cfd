//! What this daemon says to the master as a member of its cluster: joining, signs of life, ids, leaving.
//!
//! Each is one message and waits for the answer; so nothing here is called where waiting is not allowed.
//! What swaps and references ask of the master is theirs ([`remote`](crate::remote)).

use pool::addr::{PageId, PageRun, RackId};
use pool::proto::cluster::{
    ClientName, Cluster, ClusterError, ClusterReply, ClusterRequest, Rack, RackJoin, RackStats, Ways,
};
use pool::proto::page::PageError;
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Transport, TransportError};
use std::sync::Arc;
use thiserror::Error;

/// Why the master did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum MasterError {
    /// It did not answer.
    #[error(transparent)]
    Unreachable(TransportError),
    /// It refused.
    #[error(transparent)]
    Refused(ClusterError),
}

impl From<MasterError> for PageError {
    fn from(error: MasterError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

const MISMATCH: MasterError = MasterError::Unreachable(TransportError::Mismatch(NodeId::Master));

/// Asks the master what this cluster is.
pub(crate) fn describe(transport: &dyn Transport) -> Result<Cluster, MasterError> {
    match ask(transport, ClusterRequest::Describe)? {
        ClusterReply::Cluster(cluster) => Ok(cluster),
        _ => Err(MISMATCH),
    }
}

fn ask(transport: &dyn Transport, request: ClusterRequest) -> Result<ClusterReply, MasterError> {
    match transport.call(NodeId::Master, Request::Cluster(request)) {
        Ok(Reply::Cluster(reply)) => reply.map_err(MasterError::Refused),
        Ok(_) => Err(MISMATCH),
        Err(error) => Err(MasterError::Unreachable(error)),
    }
}

/// This daemon, as the master knows it.
pub(crate) struct Member {
    transport: Arc<dyn Transport>,
    join: RackJoin,
}

impl Member {
    pub fn new(transport: Arc<dyn Transport>, join: RackJoin) -> Self {
        Self { transport, join }
    }

    fn ask(&self, request: ClusterRequest) -> Result<ClusterReply, MasterError> {
        ask(&*self.transport, request)
    }

    fn id(&self) -> (RackId, u64) {
        (self.join.rack, self.join.incarnation)
    }

    /// The number of this daemon's life.
    pub fn incarnation(&self) -> u64 {
        self.join.incarnation
    }

    /// Joins, also anew.
    pub fn join(&self) -> Result<Cluster, MasterError> {
        match self.ask(ClusterRequest::Join(self.join.clone()))? {
            ClusterReply::Cluster(cluster) => Ok(cluster),
            _ => Err(MISMATCH),
        }
    }

    /// Gives a sign of life; gets the racks there are.
    pub fn beat(&self, stats: RackStats, oldest_swap: u64, ways: Ways) -> Result<Vec<Rack>, MasterError> {
        let (rack, incarnation) = self.id();
        match self.ask(ClusterRequest::Beat { rack, incarnation, stats, oldest_swap, ways })? {
            ClusterReply::Racks(racks) => Ok(racks),
            _ => Err(MISMATCH),
        }
    }

    /// Takes a block of page ids; its number.
    pub fn take_block(&self) -> Result<u64, MasterError> {
        let (rack, incarnation) = self.id();
        match self.ask(ClusterRequest::TakeBlock { rack, incarnation })? {
            ClusterReply::Block { number } => Ok(number),
            _ => Err(MISMATCH),
        }
    }

    /// Pages that were freed here and made elsewhere.
    pub fn gone(&self, pages: Vec<PageId>) -> Result<(), MasterError> {
        match self.ask(ClusterRequest::Gone { rack: self.join.rack, pages })? {
            ClusterReply::Done => Ok(()),
            _ => Err(MISMATCH),
        }
    }

    /// A client of this rack is no more.
    pub fn died(&self, client: ClientName) -> Result<(), MasterError> {
        match self.ask(ClusterRequest::Died { rack: self.join.rack, client })? {
            ClusterReply::Done => Ok(()),
            _ => Err(MISMATCH),
        }
    }

    /// Which of these pages, in the order of their ids, no file has.
    pub fn unowned(&self, pages: Vec<PageRun>) -> Result<Vec<PageRun>, MasterError> {
        match self.ask(ClusterRequest::Unowned { pages })? {
            ClusterReply::Runs(runs) => Ok(runs),
            _ => Err(MISMATCH),
        }
    }

    /// Leaves in order.
    pub fn leave(&self) -> Result<(), MasterError> {
        let (rack, incarnation) = self.id();
        self.ask(ClusterRequest::Leave { rack, incarnation }).map(drop)
    }
}
