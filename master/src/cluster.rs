//! The cluster as the master serves it: racks, directory, barriers, over one store.
//!
//! A change of the directory is planned, committed to the store, and applied, as one of the namespace is;
//! `changing` keeps changes apart meanwhile, so that the directory itself is locked for writing only for
//! moments, and looking up homes never waits for the store.
//!
//! Locks, in order: `changing`, then the directory or the members (one of the two), which are leaves. The
//! store's own come after `changing`. No message is sent under any of them.

mod load;

pub(crate) use load::Loader;

use crate::barrier::{Answer, Barriers};
use crate::change::{Change, ClusterChange};
use crate::clock::Clock;
use crate::directory::Directory;
use crate::racks::{Racks, check_region};
use crate::store::{Store, StoreError};
use crate::sweep::{Sweeper, Task};
use parking_lot::{Mutex, RwLock};
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::NodeId;
use pool::proto::cluster::{
    Cluster, ClusterError, ClusterReply, ClusterRequest, Move, RackJoin, RackStats, SwapToken, Ways,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Is told where daemons are reached, before anything is sent to them: `HOST:PORT`.
pub type AddressBook = Box<dyn Fn(NodeId, &str) + Send + Sync>;

/// The most pages whose homes are looked up in passing.
const FEW: usize = 1024;

/// What the master knows and serves of a cluster.
pub(crate) struct ClusterState {
    cluster: Cluster,
    /// Changes are made one at a time.
    changing: Mutex<()>,
    directory: RwLock<Directory>,
    members: Mutex<Members>,
    barriers: Barriers,
    store: Arc<dyn Store>,
    /// Something was committed since the store was last synced.
    unsettled: AtomicBool,
    clock: Arc<dyn Clock>,
    addresses: AddressBook,
}

struct Members {
    racks: Racks,
    sweeper: Sweeper,
}

impl ClusterState {
    /// What was loaded, in the term of `cluster`.
    pub(crate) fn new(
        cluster: Cluster,
        (racks, directory): (Racks, Directory),
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        addresses: AddressBook,
    ) -> Self {
        Self {
            cluster,
            changing: Mutex::default(),
            directory: RwLock::new(directory),
            members: Mutex::new(Members { racks, sweeper: Sweeper::default() }),
            barriers: Barriers::default(),
            store,
            unsettled: AtomicBool::new(false),
            clock,
            addresses,
        }
    }

    /// What cluster this is.
    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster
    }

    /// Whether a request is answered without waiting for the store or for much to be done.
    pub(crate) fn is_quick(&self, request: &ClusterRequest) -> bool {
        match request {
            ClusterRequest::Describe | ClusterRequest::Racks | ClusterRequest::Beat { .. } => true,
            ClusterRequest::Locate { pages } => pages.len() <= FEW && self.directory.try_read().is_some(),
            _ => false,
        }
    }

    /// Answers any request about racks and where pages are.
    pub(crate) fn serve(&self, request: ClusterRequest) -> Result<ClusterReply, ClusterError> {
        match request {
            ClusterRequest::Describe => Ok(ClusterReply::Cluster(self.cluster)),
            ClusterRequest::Join(join) => self.join(join),
            ClusterRequest::Beat { rack, incarnation, stats, ways, .. } => {
                self.beat(rack, incarnation, stats, ways)
            }
            ClusterRequest::Leave { rack, incarnation } => self.leave(rack, incarnation),
            ClusterRequest::TakeBlock { rack, incarnation } => self.take_block(rack, incarnation),
            ClusterRequest::Locate { pages } => Ok(self.locate(&pages)),
            ClusterRequest::Commit { token, home, moves } => self.commit(token, home, &moves),
            ClusterRequest::Resolve { token, pages } => self.resolve(token, &pages),
            ClusterRequest::Gone { rack, pages } => self.gone(rack, &pages),
            ClusterRequest::Racks => Ok(self.list()),
            ClusterRequest::Barrier { .. } | ClusterRequest::Died { .. } | ClusterRequest::Unowned { .. } => {
                Err(ClusterError::Refused("this is not about racks and where pages are".into()))
            }
        }
    }

    /// Somebody waits at a barrier.
    pub(crate) fn wait(&self, name: String, parties: u32, wait_ms: u64, answer: Answer) {
        self.barriers.wait(name, parties, Duration::from_millis(wait_ms), answer);
    }

    /// Refuses those who wait.
    pub(crate) fn close(&self) {
        self.barriers.close();
    }

    fn join(&self, join: RackJoin) -> Result<ClusterReply, ClusterError> {
        let (rack, incarnation) = (join.rack, join.incarnation);
        check_region(&join, &self.cluster)?;
        let _changing = self.changing.lock();
        let is_known = {
            let members = self.members.lock();
            members.racks.check(&join, self.clock.elapsed())?;
            members.racks.last_join(rack) == Some(&join)
        };
        self.directory.read().check_joining(rack, incarnation)?;
        if !is_known {
            self.store(vec![ClusterChange::PutRack(join.clone())])?;
        }
        (self.addresses)(NodeId::Daemon(rack), &join.addr);
        self.directory.write().joined(rack, incarnation)?;
        let mut members = self.members.lock();
        log::info!("rack {rack}: its daemon is at {}", join.addr);
        if members.racks.join(join, self.clock.elapsed()) {
            members.sweeper.joined(rack, incarnation);
        }
        Ok(ClusterReply::Cluster(self.cluster))
    }

    fn beat(
        &self,
        rack: RackId,
        incarnation: u64,
        stats: RackStats,
        ways: Ways,
    ) -> Result<ClusterReply, ClusterError> {
        let now = self.clock.elapsed();
        let mut members = self.members.lock();
        members.racks.beat(rack, incarnation, stats, ways, now)?;
        if stats.clients > 0 {
            members.sweeper.used();
        }
        Ok(ClusterReply::Racks(members.racks.list(now)))
    }

    fn leave(&self, rack: RackId, incarnation: u64) -> Result<ClusterReply, ClusterError> {
        let _changing = self.changing.lock();
        if !self.members.lock().racks.is_served_by(rack, incarnation) {
            return Err(ClusterError::NotJoined(rack));
        }
        self.store(vec![ClusterChange::DelRack(rack)])?;
        self.members.lock().racks.leave(rack, incarnation)?;
        log::info!("rack {rack}: its daemon has left");
        Ok(ClusterReply::Done)
    }

    fn list(&self) -> ClusterReply {
        ClusterReply::Racks(self.members.lock().racks.list(self.clock.elapsed()))
    }

    fn take_block(&self, rack: RackId, incarnation: u64) -> Result<ClusterReply, ClusterError> {
        let _changing = self.changing.lock();
        let change = self.directory.read().plan_block(rack, incarnation)?;
        let ClusterChange::PutBlock(number, _) = change else {
            return Err(ClusterError::Refused("no block".into()));
        };
        self.make(vec![change], |_| {})?;
        // Were it forgotten after loss of power, another rack would give out the same ids.
        self.settle()?;
        Ok(ClusterReply::Block { number })
    }

    fn locate(&self, pages: &[PageId]) -> ClusterReply {
        let directory = self.directory.read();
        ClusterReply::Homes(pages.iter().map(|page| directory.home(*page)).collect())
    }

    fn commit(&self, token: SwapToken, home: u64, moves: &[Move]) -> Result<ClusterReply, ClusterError> {
        // Joining takes this lock too: whoever serves the home now serves it until the pages have moved.
        let _changing = self.changing.lock();
        let changes = self.directory.read().plan_commit(token, moves)?;
        if !changes.is_empty() {
            self.check_home(token, home, moves)?;
        }
        self.make(changes, |directory| directory.committed(token))?;
        Ok(ClusterReply::Done)
    }

    /// Whether the rack that gives pages is served by the daemon that froze them. Another in its place has
    /// asked where they are, and goes by the answer.
    fn check_home(&self, token: SwapToken, home: u64, moves: &[Move]) -> Result<(), ClusterError> {
        let members = self.members.lock();
        let mut giving = moves.iter().map(|m| m.from).filter(|from| *from != token.rack);
        match giving.find(|from| !members.racks.is_served_by(*from, home)) {
            Some(rack) => Err(ClusterError::Refused(format!(
                "swap {} was prepared by a daemon that does not serve rack {rack} any more",
                token.number
            ))),
            None => Ok(()),
        }
    }

    fn resolve(&self, token: SwapToken, pages: &[PageId]) -> Result<ClusterReply, ClusterError> {
        let _changing = self.changing.lock();
        self.directory.write().resolve(token)?;
        Ok(self.locate(pages))
    }

    fn gone(&self, rack: RackId, pages: &[PageId]) -> Result<ClusterReply, ClusterError> {
        let _changing = self.changing.lock();
        let changes = self.directory.read().plan_gone(rack, pages);
        self.make(changes, |_| {})?;
        Ok(ClusterReply::Done)
    }

    /// Commits changes that were planned under `changing`, then applies them and does `also`.
    fn make(
        &self,
        changes: Vec<ClusterChange>,
        also: impl FnOnce(&mut Directory),
    ) -> Result<(), ClusterError> {
        if !changes.is_empty() {
            self.store(changes.clone())?;
        }
        let mut directory = self.directory.write();
        changes.iter().for_each(|change| directory.apply(change));
        also(&mut directory);
        Ok(())
    }

    fn store(&self, changes: Vec<ClusterChange>) -> Result<(), ClusterError> {
        let changes: Vec<_> = changes.into_iter().map(Change::Cluster).collect();
        self.store.commit(&changes).map_err(|why| refused(&why))?;
        self.unsettled.store(true, Ordering::Release);
        Ok(())
    }

    /// What was answered survives loss of power from now on.
    ///
    /// # Errors
    /// `Store`
    pub(crate) fn settle(&self) -> Result<(), ClusterError> {
        if !self.unsettled.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.store.sync().map_err(|why| {
            self.unsettled.store(true, Ordering::Release);
            refused(&why)
        })
    }

    /// Forgets the swaps of a daemon that it says are over.
    pub(crate) fn prune(&self, rack: RackId, incarnation: u64, oldest: u64) {
        let _changing = self.changing.lock();
        self.directory.write().prune(rack, incarnation, oldest);
    }

    /// These runs, sorted by the rack that they are in; parts that are nowhere are under `None`.
    pub(crate) fn by_home(&self, runs: &[PageRun]) -> BTreeMap<Option<RackId>, Vec<PageRun>> {
        let mut sorted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let directory = self.directory.read();
        for run in runs {
            directory.split(*run, &mut |home, part| sorted.entry(home).or_default().push(part));
        }
        sorted
    }

    /// The parts of these runs that are in `rack`.
    pub(crate) fn at_home(&self, runs: &[PageRun], rack: RackId) -> Vec<PageRun> {
        let mut found = Vec::new();
        let directory = self.directory.read();
        for run in runs {
            directory.split(*run, &mut |home, part| found.extend(Some(part).filter(|_| home == Some(rack))));
        }
        found
    }

    /// Whether the daemon of the rack is there, as far as known.
    pub(crate) fn is_alive(&self, rack: RackId) -> bool {
        self.members.lock().racks.is_alive(rack, self.clock.elapsed())
    }

    /// The racks to ask whether they have clients, if it looks as if none had.
    pub(crate) fn quiet(&self) -> Option<Vec<RackId>> {
        self.members.lock().racks.quiet(self.clock.elapsed())
    }

    /// What to compare now, and with which incarnation; see [`Sweeper::due`].
    pub(crate) fn due(&self, rack: RackId) -> Option<(Task, u64)> {
        let mut members = self.members.lock();
        let quiet = members.racks.quiet(self.clock.elapsed()).is_some();
        let (task, incarnation) = members.sweeper.due(rack, quiet)?;
        if members.racks.is_served_by(rack, incarnation) {
            return Some((task, incarnation));
        }
        members.sweeper.done(rack, incarnation, false);
        None
    }

    /// A comparison has ended, well or not.
    pub(crate) fn compared(&self, rack: RackId, incarnation: u64, well: bool) {
        self.members.lock().sweeper.done(rack, incarnation, well);
    }

    /// Pages that are not in the rack of their block, and the bytes of memory that they take.
    pub(crate) fn moved(&self) -> (u64, u64) {
        self.directory.read().moved()
    }
}

fn refused(why: &StoreError) -> ClusterError {
    ClusterError::Store(why.to_string())
}
