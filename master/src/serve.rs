//! Serves requests: reads under the lock, or plans, commits and applies; then gives freed pages back. What
//! is asked about the cluster goes to [`cluster`](crate::cluster).

mod clone;
mod listing;
mod mount;

use crate::clock::{Clock, SystemClock};
use crate::cluster::{AddressBook, ClusterState};
use crate::compare::Comparer;
use crate::config::MasterConfig;
use crate::error::MasterError;
use crate::mounts::Mounts;
use crate::namespace::edit::Edit;
use crate::namespace::{Namespace, check, ops};
use crate::reclaim::{Homes, Reclaimer};
use crate::recovery::{self, Holders, MissingPages, Recovered, Recovery};
use crate::store::sled::{Identity, SledStore, Tuning};
use crate::store::{Store, StoreError, Volatile};
use parking_lot::{Mutex, RwLock, RwLockUpgradableReadGuard};
use pool::addr::{PageRun, RackId};
use pool::proto::cluster::{Cluster, ClusterError, ClusterReply, ClusterRequest};
use pool::proto::meta::{MetaError, MetaReply, MetaRequest};
use pool::proto::mount::MountError;
use pool::proto::{Reply, Request};
use pool::transport::{Answer, Handler, Transport};
use pool::workers::Workers;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// The most entries of a directory, or parts of a file, that are listed without a thread of their own.
const LITTLE: u32 = 256;

/// The master of a pool.
pub struct Master {
    core: Arc<Core>,
}

/// What threads work on.
struct Core {
    /// First in the lock order; see the crate's description.
    ns: RwLock<Namespace>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    reclaimer: Reclaimer,
    recovery: Recovery,
    /// For a master of a cluster.
    cluster: Option<Arc<ClusterState>>,
    /// For a master of a cluster. Before the namespace in the lock order.
    mounts: Option<Mutex<Mounts>>,
    comparer: Comparer,
    workers: Workers,
}

impl Master {
    /// Opens the store that `config` names (or none), and checks what it holds. With one daemon, tells it,
    /// through `transport`, which pages have an owner; in a cluster that is done when daemons join.
    ///
    /// # Errors
    /// The store cannot be opened or does not fit `config`, or the daemon does not answer; `Damaged` if
    /// `config` does not say to repair.
    pub fn open(config: MasterConfig, transport: Arc<dyn Transport>) -> Result<Self, MasterError> {
        let identity = Identity { pool: config.pool_id, page_size: config.page_size };
        let store: Box<dyn Store> = match &config.store {
            None => Box::new(Volatile),
            Some(dir) => Box::new(SledStore::open(dir, identity, Tuning::default())?),
        };
        Self::open_with(&config, transport, store, Arc::new(SystemClock))
    }

    /// As [`open`](Self::open), with this store and this clock.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        config: &MasterConfig,
        transport: Arc<dyn Transport>,
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MasterError> {
        Self::open_cluster(config, transport, store, clock, Box::new(|_, _| {}))
    }

    /// As [`open_with`](Self::open_with), for a transport that must be told where daemons are.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_cluster(
        config: &MasterConfig,
        transport: Arc<dyn Transport>,
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
        addresses: AddressBook,
    ) -> Result<Self, MasterError> {
        let store: Arc<dyn Store> = store.into();
        let Recovered { ns, mut recovery, holders } = recovery::recover(config, &*store, clock.now())?;
        let held = recovery::held(&ns);
        let (reclaimer, cluster) = match holders {
            Holders::One(node) => {
                let reclaimer = Reclaimer::new(transport, Homes::One(node));
                let found = reclaimer.reconcile_all(node, held)?;
                recovery.leaked = found.leaked;
                recovery.missing = recovery::missing(&ns, &found.missing);
                (reclaimer, None)
            }
            Holders::Cluster(cluster, loaded) => {
                let state = ClusterState::new(cluster, loaded, store.clone(), clock.clone(), addresses);
                let cluster = Arc::new(state);
                let nowhere = cluster.by_home(&held).remove(&None).unwrap_or_default();
                recovery.missing = recovery::missing(&ns, &nowhere);
                (Reclaimer::new(transport, Homes::Cluster(cluster.clone())), Some(cluster))
            }
        };
        let (comparer, workers) = (Comparer::default(), Workers::new("master-worker", 16));
        let ns = RwLock::new(ns);
        let mounts = cluster.as_ref().map(|cluster| Mutex::new(Mounts::new(cluster.cluster().term)));
        let core = Core { ns, store, clock, reclaimer, recovery, cluster, mounts, comparer, workers };
        let core = Arc::new(core);
        if core.mounts.is_some() {
            let time = Arc::downgrade(&core);
            let thread = std::thread::Builder::new().name("master-time".into());
            thread.spawn(move || mount::keep_time(&time)).map_err(MasterError::Thread)?;
        }
        Ok(Self { core })
    }

    /// What opening found, and did about it.
    pub fn recovery(&self) -> &Recovery {
        &self.core.recovery
    }

    /// What cluster this is the master of, in which term; `None` for one of the embedded pool.
    pub fn cluster(&self) -> Option<Cluster> {
        self.core.cluster.as_ref().map(|cluster| cluster.cluster())
    }

    /// Pages of files that do not exist, as found when it was opened and when daemons joined since.
    pub fn missing(&self) -> Vec<MissingPages> {
        let mut all = self.core.recovery.missing.clone();
        all.extend(self.core.comparer.missing());
        all
    }

    /// Pages that are in another rack than they were made in, and the bytes of memory that it takes to know.
    pub fn moved(&self) -> (u64, u64) {
        self.core.cluster.as_ref().map_or((0, 0), |cluster| cluster.moved())
    }

    /// Ends in good order: who waits is refused, pages still owed go back, and the store is brought up to date
    /// and closed. Requests that change something fail afterwards.
    ///
    /// # Errors
    /// The store could not be brought up to date. Nothing answered is lost.
    pub fn shutdown(&self) -> Result<(), MasterError> {
        self.stop();
        self.core.reclaimer.retry();
        Ok(self.core.store.close()?)
    }

    /// What is wrong with the namespace, a sentence each; nothing if all is well. Takes a while.
    pub fn check(&self) -> Vec<String> {
        check::problems(&self.core.ns.read())
    }

    /// How many mounts of the file system there are, and how many inodes they hold leases of.
    pub fn mounts(&self) -> (usize, usize) {
        self.core.count_mounts()
    }

    fn stop(&self) {
        self.core.close_mounts();
        if let Some(cluster) = &self.core.cluster {
            cluster.close();
        }
        self.core.workers.close();
    }
}

impl Drop for Master {
    /// Its threads hold the store.
    fn drop(&mut self) {
        self.stop();
    }
}

impl Core {
    fn handle(self: &Arc<Self>, request: Request) -> Reply {
        match (request, &self.cluster) {
            (Request::Meta(request), _) => Reply::Meta(self.serve(request)),
            (Request::Cluster(request), Some(cluster)) => {
                Reply::Cluster(self.serve_cluster(cluster, request))
            }
            (Request::Mount(request), _) => {
                let (sender, receiver) = channel();
                self.serve_mount(request, Box::new(move |reply| drop(sender.send(reply))));
                receiver.recv().unwrap_or(Reply::Mount(Err(MountError::Ending)))
            }
            _ => Reply::Unsupported,
        }
    }

    /// Whether a request is answered without waiting for the store or for much to be done.
    fn is_quick(&self, request: &Request) -> bool {
        match request {
            Request::Meta(request) => reads_little(request) && self.ns.try_read().is_some(),
            Request::Cluster(request) => {
                self.cluster.as_ref().is_none_or(|cluster| cluster.is_quick(request))
            }
            Request::Page(_) | Request::Peer(_) | Request::Mount(_) | Request::Far(_) => true,
        }
    }

    fn serve_cluster(
        self: &Arc<Self>,
        cluster: &Arc<ClusterState>,
        request: ClusterRequest,
    ) -> Result<ClusterReply, ClusterError> {
        let heard = match &request {
            ClusterRequest::Join(join) => Some((join.rack, join.incarnation, 0)),
            ClusterRequest::Beat { rack, incarnation, oldest_swap, .. } => {
                Some((*rack, *incarnation, *oldest_swap))
            }
            _ => None,
        };
        let reply = match request {
            ClusterRequest::Barrier { name, parties, wait_ms } => {
                let (sender, receiver) = channel();
                // Nobody is there to be told if this thread has ended, which it does not while it waits.
                cluster.wait(name, parties, wait_ms, Box::new(move |result| drop(sender.send(result))));
                let ended = |_| Err(ClusterError::Refused("the master is ending".into()));
                receiver.recv().unwrap_or_else(ended).map(|()| ClusterReply::Done)
            }
            request => cluster.serve(request),
        }?;
        if let Some((rack, incarnation, oldest)) = heard {
            let (core, cluster) = (Arc::clone(self), Arc::clone(cluster));
            self.workers.run(move || core.follow_up(&cluster, rack, incarnation, oldest));
        }
        Ok(reply)
    }

    /// What the sign of life of a daemon gives rise to.
    fn follow_up(&self, cluster: &ClusterState, rack: RackId, incarnation: u64, oldest: u64) {
        cluster.prune(rack, incarnation, oldest);
        if let Err(why) = cluster.settle() {
            log::error!("where pages are cannot be made to survive loss of power: {why}");
        }
        self.reclaimer.heard(rack);
        self.reclaimer.retry();
        self.comparer.run(rack, cluster, &self.ns, &self.reclaimer);
    }

    fn serve(&self, request: MetaRequest) -> Result<MetaReply, MetaError> {
        match request {
            MetaRequest::Lookup { parent, name } => ops::lookup(&self.ns.read(), parent, &name),
            MetaRequest::GetAttr { ino } => ops::getattr(&self.ns.read(), ino),
            MetaRequest::ReadLink { ino } => ops::readlink(&self.ns.read(), ino),
            MetaRequest::ReadDir { ino, after, limit, plus } => {
                ops::readdir(&self.ns.read(), ino, after, limit, plus)
            }
            MetaRequest::Map { ino, from, limit } => ops::map(&self.ns.read(), ino, from, limit),
            MetaRequest::GetXattr { ino, name } => ops::getxattr(&self.ns.read(), ino, &name),
            MetaRequest::ListXattr { ino } => ops::listxattr(&self.ns.read(), ino),
            MetaRequest::StatFs => ops::statfs(&self.ns.read()),
            MetaRequest::Sync => self.sync(),
            MetaRequest::CloneTree { from, to, caller } => self.clone_at_once(from, to, caller),
            change => self.change(|edit| plan(edit, change)),
        }
    }

    /// Plans a change, commits it, applies it, and frees what it freed.
    fn change(
        &self,
        plan: impl FnOnce(&mut Edit) -> Result<MetaReply, MetaError>,
    ) -> Result<MetaReply, MetaError> {
        let (reply, freed) = self.plan_and_apply(plan)?;
        if !freed.is_empty() {
            self.reclaimer.free(freed);
        }
        Ok(reply)
    }

    /// Plans a change, commits it and applies it; also returns the pages that no file has now. Readers wait only
    /// while it is applied.
    fn plan_and_apply(
        &self,
        plan: impl FnOnce(&mut Edit) -> Result<MetaReply, MetaError>,
    ) -> Result<(MetaReply, Vec<PageRun>), MetaError> {
        let ns = self.ns.upgradable_read();
        let mut edit = Edit::new(&ns, self.clock.now());
        let reply = plan(&mut edit)?;
        let plan = edit.finish();
        if plan.changes.is_empty() {
            return Ok((reply, Vec::new()));
        }
        self.store.commit(&plan.changes).map_err(refused)?;
        let mut ns = RwLockUpgradableReadGuard::upgrade(ns);
        plan.changes.into_iter().for_each(|change| ns.apply(change));
        let freed = ns.count_places(plan.shared, plan.freed);
        Ok((reply, freed))
    }

    fn sync(&self) -> Result<MetaReply, MetaError> {
        self.reclaimer.retry();
        self.store.sync().map_err(refused)?;
        Ok(MetaReply::Done)
    }
}

impl Handler for Master {
    fn handle(&self, request: Request) -> Reply {
        self.core.handle(request)
    }

    /// What may wait for the store, for daemons or for others is handed to a thread or kept; the rest is
    /// answered at once.
    fn serve(self: Arc<Self>, request: Request, answer: Answer) {
        match (request, &self.core.cluster) {
            (Request::Cluster(ClusterRequest::Barrier { name, parties, wait_ms }), Some(cluster)) => {
                let answer = move |result: Result<(), ClusterError>| {
                    answer(Reply::Cluster(result.map(|()| ClusterReply::Done)));
                };
                cluster.wait(name, parties, wait_ms, Box::new(answer));
            }
            (Request::Mount(request), _) => self.core.serve_mount(request, answer),
            (request, _) if self.core.is_quick(&request) => answer(self.core.handle(request)),
            (request, _) => {
                let core = Arc::clone(&self.core);
                self.core.workers.run(move || answer(core.handle(request)));
            }
        }
    }
}

/// Whether a request only reads, and not much.
fn reads_little(request: &MetaRequest) -> bool {
    match request {
        MetaRequest::Lookup { .. }
        | MetaRequest::GetAttr { .. }
        | MetaRequest::ReadLink { .. }
        | MetaRequest::GetXattr { .. }
        | MetaRequest::ListXattr { .. }
        | MetaRequest::StatFs => true,
        MetaRequest::ReadDir { limit, .. } | MetaRequest::Map { limit, .. } => *limit <= LITTLE,
        _ => false,
    }
}

/// Plans any request that changes something.
fn plan(e: &mut Edit, request: MetaRequest) -> Result<MetaReply, MetaError> {
    match request {
        MetaRequest::SetAttr { ino, caller, set } => ops::setattr(e, ino, caller, &set),
        MetaRequest::Make { parent, name, caller, node, perm, umask } => {
            ops::make(e, &ops::Make { parent, name, caller, node, perm, umask })
        }
        MetaRequest::Link { ino, parent, name } => ops::link(e, ino, parent, &name),
        MetaRequest::Unlink { parent, name } => ops::unlink(e, parent, &name),
        MetaRequest::Rmdir { parent, name } => ops::rmdir(e, parent, &name),
        MetaRequest::Rename { parent, name, new_parent, new_name, mode } => {
            ops::rename(e, &ops::Rename { parent, name, new_parent, new_name, mode })
        }
        MetaRequest::Commit { ino, extents, size, touch, kill_suid } => {
            ops::commit(e, &ops::Commit { ino, extents, size, touch, kill_suid })
        }
        MetaRequest::Punch { ino, from, to } => ops::punch(e, ino, from, to),
        MetaRequest::Clone { from, to, pages, size, expect } => ops::clone(e, from, to, pages, size, expect),
        MetaRequest::SetXattr { ino, caller, name, value, mode } => {
            ops::setxattr(e, &ops::SetXattr { ino, caller, name, value, mode })
        }
        MetaRequest::RemoveXattr { ino, name } => ops::removexattr(e, ino, &name),
        MetaRequest::Forget { inos } => ops::forget(e, inos),
        MetaRequest::Lookup { .. }
        | MetaRequest::GetAttr { .. }
        | MetaRequest::ReadLink { .. }
        | MetaRequest::ReadDir { .. }
        | MetaRequest::Map { .. }
        | MetaRequest::GetXattr { .. }
        | MetaRequest::ListXattr { .. }
        | MetaRequest::StatFs
        | MetaRequest::Sync
        | MetaRequest::CloneTree { .. } => Err(MetaError::Invalid("this request is not planned".into())),
    }
}

/// How the store's refusal looks to who asked.
fn refused(why: StoreError) -> MetaError {
    match why {
        StoreError::NoSpace { .. } => MetaError::NoSpace(why.to_string()),
        StoreError::TooLong => MetaError::TooBig,
        _ => MetaError::Io(why.to_string()),
    }
}
