//! A master in memory: racks, blocks of ids, and where pages are.

use parking_lot::Mutex;
use pool::addr::{PageId, PageRun, PageSize, RackId};
use pool::proto::cluster::{
    BLOCK, ClientName, Cluster, ClusterError, ClusterReply, ClusterRequest, Move, Rack, RackJoin, RackStats,
    SwapToken,
};
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::collections::{BTreeMap, HashMap, HashSet};

pub struct TestMaster {
    cluster: Cluster,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    racks: BTreeMap<RackId, Rack>,
    /// The rack of each block.
    blocks: Vec<RackId>,
    moved: HashMap<PageId, RackId>,
    resolved: HashSet<SwapToken>,
    gone: Vec<PageId>,
    died: Vec<ClientName>,
    /// Pages of files.
    owned: HashSet<PageId>,
    joins: usize,
}

impl TestMaster {
    pub fn new(page_size: u64) -> Self {
        let page_size = PageSize::from_bytes(page_size).unwrap();
        Self { cluster: Cluster { id: 0xC0FFEE, page_size, term: 1 }, state: Mutex::default() }
    }

    /// Forgets who joined, as a master that lost its memory.
    pub fn forget(&self) {
        self.state.lock().racks.clear();
    }

    pub fn joins(&self) -> usize {
        self.state.lock().joins
    }

    pub fn rack(&self, rack: RackId) -> Option<Rack> {
        self.state.lock().racks.get(&rack).cloned()
    }

    /// What it was told of pages that are gone.
    pub fn gone(&self) -> Vec<PageId> {
        self.state.lock().gone.clone()
    }

    /// A file has this page from now on.
    pub fn own(&self, page: PageId) {
        self.state.lock().owned.insert(page);
    }

    /// The clients that it was told of that are no more.
    pub fn died(&self) -> Vec<ClientName> {
        self.state.lock().died.clone()
    }

    fn answer(&self, request: ClusterRequest) -> Result<ClusterReply, ClusterError> {
        let state = &mut *self.state.lock();
        match request {
            ClusterRequest::Describe => Ok(ClusterReply::Cluster(self.cluster)),
            ClusterRequest::Join(join) => self.join(state, join),
            ClusterRequest::Beat { rack, incarnation, stats, .. } => {
                state.member(rack, incarnation)?.stats = stats;
                Ok(ClusterReply::Racks(state.racks.values().cloned().collect()))
            }
            ClusterRequest::Leave { rack, incarnation } => {
                state.member(rack, incarnation)?.alive = false;
                Ok(ClusterReply::Done)
            }
            ClusterRequest::TakeBlock { rack, incarnation } => {
                state.member(rack, incarnation)?;
                state.blocks.push(rack);
                Ok(ClusterReply::Block { number: state.blocks.len() as u64 - 1 })
            }
            ClusterRequest::Locate { pages } => Ok(state.homes(&pages)),
            ClusterRequest::Resolve { token, pages } => {
                state.resolved.insert(token);
                Ok(state.homes(&pages))
            }
            ClusterRequest::Commit { token, moves, .. } => {
                if state.resolved.contains(&token) {
                    return Err(ClusterError::Refused("resolved".into()));
                }
                state.moved.extend(moves.iter().map(|Move { page, to, .. }| (*page, *to)));
                Ok(ClusterReply::Done)
            }
            ClusterRequest::Gone { pages, .. } => {
                state.moved.retain(|page, _| !pages.contains(page));
                state.gone.extend(pages);
                Ok(ClusterReply::Done)
            }
            ClusterRequest::Racks => Ok(ClusterReply::Racks(state.racks.values().cloned().collect())),
            ClusterRequest::Died { client, .. } => {
                state.died.push(client);
                Ok(ClusterReply::Done)
            }
            ClusterRequest::Unowned { pages } => {
                assert!(!state.died.is_empty(), "the client could still give them to a file");
                let all = pages.iter().flat_map(|run| run.iter());
                let unowned = all.filter(|page| !state.owned.contains(page));
                Ok(ClusterReply::Runs(unowned.filter_map(|page| PageRun::new(page, 1)).collect()))
            }
            ClusterRequest::Barrier { .. } => Err(ClusterError::Refused("no barriers or mounts here".into())),
        }
    }

    fn join(&self, state: &mut State, join: RackJoin) -> Result<ClusterReply, ClusterError> {
        if join.page_size != self.cluster.page_size {
            return Err(ClusterError::PageSize { found: join.page_size, wanted: self.cluster.page_size });
        }
        if let Some(rack) = state.racks.get(&join.rack)
            && rack.alive
            && rack.join.region_id != join.region_id
        {
            return Err(ClusterError::RackInUse { rack: join.rack, addr: rack.join.addr.clone() });
        }
        state.joins += 1;
        state
            .racks
            .insert(join.rack, Rack { join, cas: String::new(), alive: true, stats: RackStats::default() });
        Ok(ClusterReply::Cluster(self.cluster))
    }
}

impl State {
    fn member(&mut self, rack: RackId, incarnation: u64) -> Result<&mut Rack, ClusterError> {
        let known = self.racks.get_mut(&rack);
        known.filter(|rack| rack.join.incarnation == incarnation).ok_or(ClusterError::NotJoined(rack))
    }

    fn homes(&self, pages: &[PageId]) -> ClusterReply {
        let home = |page: &PageId| {
            self.moved.get(page).or_else(|| self.blocks.get((page.raw() / BLOCK) as usize)).copied()
        };
        ClusterReply::Homes(pages.iter().map(home).collect())
    }
}

impl Handler for TestMaster {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Cluster(request) => Reply::Cluster(self.answer(request)),
            _ => Reply::Unsupported,
        }
    }
}
