//! Gives pages that no file has any more back to the daemons that hold them.
//!
//! A page that could not be given back is kept in a list and tried again: with the next ones if there is
//! one daemon, when its daemon is heard of in a cluster. Doing so twice is harmless, since the id of a page
//! is never used again; and what is still in the list when the process ends is found when pages and files
//! are compared.

use crate::cluster::ClusterState;
use crate::error::MasterError;
use parking_lot::Mutex;
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::page::{PageReply, PageRequest, Reconciled};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// The most runs in one message.
pub(crate) const BATCH: usize = 16_384;

/// Who holds which pages.
pub(crate) enum Homes {
    /// One daemon all of them.
    One(NodeId),
    /// The daemon of the rack that the directory says.
    Cluster(Arc<ClusterState>),
}

/// The way to the daemons.
pub(crate) struct Reclaimer {
    transport: Arc<dyn Transport>,
    homes: Homes,
    state: Mutex<State>,
}

/// What is owed. Taken out while a message is under way, so that the lock is not held then.
#[derive(Default)]
struct State {
    /// Pages that no file has but that a daemon may still hold.
    owed: Vec<PageRun>,
    /// Racks that are not asked until their daemons are heard of again.
    silent: HashSet<RackId>,
}

impl Reclaimer {
    /// Pages go back to `homes`.
    pub(crate) fn new(transport: Arc<dyn Transport>, homes: Homes) -> Self {
        Self { transport, homes, state: Mutex::default() }
    }

    /// Gives these pages back; if there is one daemon, also those that could not be given back before.
    pub(crate) fn free(&self, freed: Vec<PageRun>) {
        match &self.homes {
            Homes::One(node) => {
                let mut all = std::mem::take(&mut self.state.lock().owed);
                all.extend(freed);
                self.free_at(*node, &all);
            }
            Homes::Cluster(cluster) => self.free_in(cluster, &freed),
        }
    }

    /// Gives back what could not be given back before.
    pub(crate) fn retry(&self) {
        let owed = std::mem::take(&mut self.state.lock().owed);
        if !owed.is_empty() {
            self.free(owed);
        }
    }

    /// The daemon of this rack is there.
    pub(crate) fn heard(&self, rack: RackId) {
        self.state.lock().silent.remove(&rack);
    }

    fn free_in(&self, cluster: &ClusterState, freed: &[PageRun]) {
        for (home, runs) in cluster.by_home(freed) {
            let Some(rack) = home else {
                log::warn!("{} runs of pages are in no rack, so nobody can free them", runs.len());
                continue;
            };
            if !cluster.is_alive(rack) || self.state.lock().silent.contains(&rack) {
                self.state.lock().owed.extend(runs);
            } else if !self.free_at(NodeId::Daemon(rack), &runs) {
                self.state.lock().silent.insert(rack);
            }
        }
    }

    /// Whether all these pages could be given back to `node`; the others are owed.
    fn free_at(&self, node: NodeId, mut rest: &[PageRun]) -> bool {
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BATCH));
            if let Err(why) = self.ask(node, PageRequest::Free { runs: now.to_vec() }) {
                log::warn!("{} runs of pages could not be freed, and will be later: {why}", rest.len());
                self.state.lock().owed.extend(rest);
                return false;
            }
            rest = later;
        }
        true
    }

    /// Tells a daemon every page among `ids` that has an owner.
    pub(crate) fn reconcile(
        &self,
        node: NodeId,
        held: Vec<PageRun>,
        ids: Range<u64>,
        free: bool,
    ) -> Result<Reconciled, MasterError> {
        match self.ask(node, PageRequest::Reconcile { held, ids, free })? {
            PageReply::Reconciled(found) => Ok(found),
            _ => Err(MasterError::Mismatch),
        }
    }

    /// As [`reconcile`](Self::reconcile), of all pages of the one daemon.
    pub(crate) fn reconcile_all(&self, node: NodeId, held: Vec<PageRun>) -> Result<Reconciled, MasterError> {
        self.reconcile(node, held, 0..PageId::LIMIT, true)
    }

    fn ask(&self, node: NodeId, request: PageRequest) -> Result<PageReply, MasterError> {
        match self.transport.call(node, Request::Page(request))? {
            Reply::Page(reply) => Ok(reply?),
            _ => Err(MasterError::Mismatch),
        }
    }
}
