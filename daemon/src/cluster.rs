//! The daemon of a rack as a member of a cluster: how it starts, stays in touch with the master, and ends.
//!
//! It starts in this order: learn what the cluster is, open the region as part of it, join, find out what
//! the region holds, settle what swaps were interrupted by the last end, serve. A page whose swap is not
//! settled is frozen; if the master cannot say yet where it belongs, the others are served meanwhile.
//!
//! When the master goes away the rack's own pages and the references there are go on to work. What needs
//! the master fails after its deadline. When the master is back, and does not know this daemon any more,
//! the daemon joins anew.

use crate::config::{ClusterConfig, DaemonError};
use crate::context::Context;
use crate::counters::Counters;
use crate::far::{Connection, Far, Itself};
use crate::frames::FrameTable;
use crate::ids::Ids;
use crate::member::{self, MasterError, Member};
use crate::objects::Objects;
use crate::pulse::Pulse;
use crate::racks::Racks;
use crate::recover::{self, Opened};
use crate::remote::{PageHooks, Remote};
use crate::rings::Rings;
use crate::server::Node;
use crate::take::BATCH;
use crate::takers::Takers;
use crate::trim::Trimmer;
use parking_lot::{Mutex, RwLock};
use pool::addr::RackId;
use pool::cxl::layout::SUPERBLOCK_LEN;
use pool::cxl::region::{Found, Region, RegionError, RegionSource, Spec};
use pool::cxl::slots::Slots;
use pool::heat::HalfLife;
use pool::in_place::InPlace;
use pool::proto::cluster::{Cluster, ClusterError, Rack, RackJoin, RackStats};
use pool::proto::page::PageKind;
use pool::proto::{NodeId, Reply, Request};
use pool::swap::Watermark;
use pool::transport::{Answer, Handler, Transport};
use pool::workers::Workers;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

/// The pause between two attempts to reach the master.
const RETRY: Duration = Duration::from_millis(100);

/// A running daemon of a cluster. Ends in order when it is dropped.
pub struct ClusterDaemon {
    node: Arc<Node>,
    opened: Opened,
    trimmer: Trimmer,
    rings: Arc<Rings>,
    pulse: Pulse,
    ended: AtomicBool,
}

impl ClusterDaemon {
    /// Joins the cluster whose master `transport` reaches, with the region that `config` names, and serves
    /// the rings in it. Requests from elsewhere come by [`Handler`].
    ///
    /// # Errors
    /// [`DaemonError`], with what to do about it.
    pub fn start(config: ClusterConfig, transport: Arc<dyn Transport>) -> Result<Arc<Self>, DaemonError> {
        config.check()?;
        let until = Instant::now() + config.patience;
        let cluster = patiently(until, is_silent, || member::describe(&*transport))?;
        let (rack, page_size) = (config.rack, cluster.page_size);
        let spec =
            Spec { rack, page_size, size: config.size, cluster: Some(cluster.id), channels: config.clients };
        let (region, found) = Region::open(&config.source, &spec).map_err(of_cluster)?;
        let reserve = config.swap.reserve_of(region.geometry().data_bytes());
        let reserve = page_size.pages_for(reserve.inspect_err(|_| forget(&config, found))?);
        let member = Arc::new(Member::new(Arc::clone(&transport), introduction(&config, &region)));
        let cluster = join(&member, found, until).inspect_err(|_| forget(&config, found))?;
        let (state, opened) = recover::recover(&region, found, recover::Origin::Cluster);
        // Else a region that loses power would claim that it was left in order.
        region.sync(0..SUPERBLOCK_LEN).map_err(DaemonError::Superblock)?;
        crate::report(&region, &opened);
        let frames = Arc::new(FrameTable::new(Arc::new(region), state));
        frames.set_reserve(reserve);
        let trimmer = Trimmer::start(&frames).map_err(DaemonError::Thread)?;
        let node = node(&config, cluster, transport, frames, member, found);
        let rings = Arc::new(Rings::start(&node)?);
        let rings = Arc::clone(node.rings.get_or_init(|| rings));
        let (pulse, ended) = (Pulse::default(), AtomicBool::new(false));
        let daemon = Arc::new(Self { node, opened, trimmer, rings, pulse, ended });
        daemon.stay(config.beat).map_err(DaemonError::Thread)?;
        Ok(daemon)
    }

    /// Gives signs of life, and looks for clients that died, from now on.
    fn stay(&self, period: Duration) -> std::io::Result<()> {
        // Clients of the daemon before this one may still be there.
        let clients = Arc::new(AtomicU64::new(self.rings.sweep() as u64));
        let mut heart = Heart {
            node: Arc::clone(&self.node),
            clients: Arc::clone(&clients),
            silent: false,
            unsettled: true,
        };
        // The other racks are known from the beginning.
        heart.beat();
        self.pulse.every(period, "pool-beat", move || heart.beat())?;
        let node = Arc::clone(&self.node);
        self.pulse.every(period, "pool-heirs", move || node.give_back_of_the_dead())?;
        let rings = Arc::clone(&self.rings);
        self.pulse.every(period, "pool-sweep", move || {
            clients.store(rings.sweep() as u64, Ordering::Relaxed);
        })
    }

    /// The region, for clients in this process.
    pub fn region(&self) -> Arc<Region> {
        Arc::clone(self.node.ctx.frames.region())
    }

    /// The cluster.
    pub fn cluster(&self) -> Cluster {
        *self.node.ctx.cluster.read()
    }

    /// What was there at the start.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The connection to another rack's daemon broke: what it knew of this one may be forgotten.
    pub fn peer_lost(&self, rack: RackId) {
        Remote::peer_lost(&self.node.remote, rack);
    }

    /// How this rack does.
    pub fn stats(&self) -> RackStats {
        self.node.stats(0)
    }

    /// Ends in order: leaves the cluster, answers what was asked, writes the region out. Clients may go on
    /// to read and write the pages that are in the rack.
    pub fn shutdown(&self) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        self.pulse.stop();
        self.rings.stop();
        if let Err(error) = self.node.member.leave() {
            log::warn!("the master was not told that this daemon ends: {error}");
        }
        self.node.remote.close();
        self.node.far.close();
        self.node.ctx.workers.close();
        self.node.peers.close();
        self.rings.close();
        self.node.ctx.frames.close();
        self.trimmer.join();
    }
}

impl Handler for ClusterDaemon {
    fn handle(&self, request: Request) -> Reply {
        let (sender, receiver) = mpsc::sync_channel(1);
        // The other end is there until the answer has come.
        self.node.serve(request, Box::new(move |reply| drop(sender.send(reply))));
        receiver.recv().unwrap_or(Reply::Unsupported)
    }

    fn serve(self: Arc<Self>, request: Request, answer: Answer) {
        self.node.serve(request, answer);
    }

    fn for_connection(self: Arc<Self>) -> Option<Arc<dyn Handler>> {
        Some(Arc::new(Connection::new(&self.node)))
    }
}

impl Drop for ClusterDaemon {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn node(
    config: &ClusterConfig,
    cluster: Cluster,
    transport: Arc<dyn Transport>,
    frames: Arc<FrameTable>,
    member: Arc<Member>,
    found: Found,
) -> Arc<Node> {
    let in_place = InPlace::new(Arc::clone(frames.region()));
    let swap = &config.swap;
    let watermark = swap.watermark.unwrap_or(Watermark::NEVER.watermark);
    let objects = Arc::new(Objects::new(Arc::clone(&frames), in_place.clone()));
    let ids = Arc::new(Ids::new(Arc::clone(&frames), Arc::clone(&member), config.deadline));
    let ctx = Arc::new(Context {
        rack: config.rack,
        incarnation: member.incarnation(),
        cluster: RwLock::new(cluster),
        frames,
        in_place,
        transport,
        policy: Arc::new(Watermark { watermark, cooling: swap.cooling }),
        half_life: HalfLife::new(swap.half_life),
        deadline: config.deadline,
        workers: workers(),
        counters: Counters::default(),
        started: Instant::now(),
    });
    let remote = Remote::new(Arc::clone(&ctx));
    remote.set_page_hooks(hooks(&objects));
    let (racks, peers, gone) = (Racks::new(config.rack), workers(), Mutex::default());
    let hits_before = Slots::new(ctx.frames.region()).hits();
    let rings = OnceLock::new();
    Arc::new_cyclic(|node| {
        let itself = Itself::new(NodeId::Daemon(ctx.rack), node.clone(), 2 * ctx.deadline);
        let takers = Arc::new(Takers::default());
        let far = Far::new(&ctx, itself, Arc::clone(&takers), found == Found::Region);
        Node { ctx, remote, objects, racks, member, ids, peers, far, takers, rings, gone, hits_before }
    })
}

/// Threads for requests that wait. Many, since most of them do nothing but wait for another rack.
fn workers() -> Workers {
    Workers::new("pool-worker", 64)
}

/// Pages of objects take what is free in them along when they move.
fn hooks(objects: &Arc<Objects>) -> PageHooks {
    let (arriving, departing) = (Arc::clone(objects), Arc::clone(objects));
    PageHooks {
        arrived: Box::new(move |page, kind| {
            if kind == PageKind::Objects {
                arriving.arrived(page);
            }
        }),
        departed: Box::new(move |page, kind| {
            if kind == PageKind::Objects {
                departing.departed(page);
            }
        }),
    }
}

/// The size of pages is for the cluster to choose, not for this daemon.
fn of_cluster(error: RegionError) -> DaemonError {
    match error {
        RegionError::PageSize { found, wanted, .. } => {
            DaemonError::Refused(ClusterError::PageSize { found, wanted })
        }
        error => error.into(),
    }
}

/// How the daemon introduces itself.
fn introduction(config: &ClusterConfig, region: &Region) -> RackJoin {
    let path = match &config.source {
        RegionSource::Memfd => "memfd".into(),
        RegionSource::Path(path) => std::path::absolute(path).unwrap_or(path.clone()).display().to_string(),
    };
    RackJoin {
        rack: config.rack,
        cluster: region.pool_id(),
        page_size: region.geometry().page_size,
        incarnation: RandomState::new().hash_one(&path) | 1,
        addr: config.addr.clone(),
        region: path,
        region_id: region.region_id(),
        transport: config.transport.clone(),
    }
}

/// Joins. A daemon that comes back to its own region waits for the master to notice that the one before
/// it, which must have ended, is gone.
fn join(member: &Member, found: Found, until: Instant) -> Result<Cluster, DaemonError> {
    let again = |error: &MasterError| {
        let predecessor = matches!(error, MasterError::Refused(ClusterError::RackInUse { .. }));
        is_silent(error) || (predecessor && found == Found::Region)
    };
    patiently(until, again, || member.join())
}

/// Removes a region that was made for nothing.
fn forget(config: &ClusterConfig, found: Found) {
    if let (RegionSource::Path(path), Found::Nothing) = (&config.source, found)
        && path.is_file()
        && let Err(error) = std::fs::remove_file(path)
    {
        log::warn!("cannot remove {}, which was made for nothing: {error}", path.display());
    }
}

fn is_silent(error: &MasterError) -> bool {
    matches!(error, MasterError::Unreachable(_))
}

/// Asks until there is an answer, or an error that is none of those that are worth to ask `again`.
fn patiently<T>(
    until: Instant,
    again: impl Fn(&MasterError) -> bool,
    ask: impl Fn() -> Result<T, MasterError>,
) -> Result<T, DaemonError> {
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if again(&error) && Instant::now() < until => std::thread::sleep(RETRY),
            Err(MasterError::Unreachable(error)) => return Err(DaemonError::Master(error)),
            Err(MasterError::Refused(error)) => return Err(DaemonError::Refused(error)),
        }
    }
}

/// What is done every beat.
struct Heart {
    node: Arc<Node>,
    clients: Arc<AtomicU64>,
    /// The master did not answer the last time.
    silent: bool,
    /// Swaps that were interrupted by the last end are not settled yet.
    unsettled: bool,
}

impl Heart {
    fn beat(&mut self) {
        let node = Arc::clone(&self.node);
        let stats = node.stats(self.clients.load(Ordering::Relaxed));
        match node.member.beat(stats, node.remote.oldest_swap(), node.ctx.transport.ways()) {
            Ok(racks) => self.heard(&racks),
            Err(MasterError::Refused(ClusterError::NotJoined(_))) => self.rejoin(),
            Err(error) if !self.silent => {
                log::warn!("the master does not answer; pages of this rack are served nevertheless: {error}");
                self.silent = true;
            }
            Err(_) => {}
        }
        if self.silent {
            return;
        }
        if self.unsettled {
            match node.remote.settle_limbo() {
                Ok(()) => self.unsettled = false,
                Err(error) => log::warn!("pages of interrupted swaps stay frozen: {error}"),
            }
        }
        node.tell_gone();
        node.ids.retry();
        node.ids.look_ahead(&node.ctx.workers);
    }

    fn heard(&mut self, racks: &[Rack]) {
        if std::mem::take(&mut self.silent) {
            log::info!("the master answers again");
        }
        for news in self.node.racks.learn(racks) {
            if let Some(addr) = news.addr {
                self.node.ctx.transport.set_addr(NodeId::Daemon(news.rack), addr);
            }
            if news.lost {
                Remote::peer_lost(&self.node.remote, news.rack);
            }
        }
    }

    fn rejoin(&mut self) {
        match self.node.member.join() {
            Ok(cluster) => {
                log::info!("joined the cluster again, in term {}", cluster.term);
                *self.node.ctx.cluster.write() = cluster;
            }
            Err(error) => log::error!("this daemon is not part of the cluster any more: {error}"),
        }
    }
}

impl Node {
    /// How this rack does.
    fn stats(&self, mapped: u64) -> RackStats {
        let (stat, counters) = (self.ctx.frames.stat(), &self.ctx.counters);
        let far_clients = self.far.sweep() as u64;
        RackStats {
            total: stat.total,
            free: stat.free,
            clients: mapped + far_clients,
            far_clients,
            hits: Slots::new(self.ctx.frames.region()).hits().wrapping_sub(self.hits_before),
            misses: counters.misses.get(),
            direct: counters.direct.get(),
            swaps_in: counters.swaps_in.get(),
            swaps_out: counters.swaps_out.get(),
            swaps_refused: counters.swaps_refused.get(),
            bytes_out: counters.bytes_out.get(),
            bytes_in: counters.bytes_in.get(),
        }
    }

    /// Tells the master of pages that do not exist any more, so that it may forget that they had moved.
    fn tell_gone(&self) {
        let mut gone = std::mem::take(&mut *self.gone.lock());
        while !gone.is_empty() {
            let batch = gone.split_off(gone.len().saturating_sub(BATCH));
            if let Err(error) = self.member.gone(batch.clone()) {
                log::warn!("the master does not know yet that pages are gone: {error}");
                gone.extend(batch);
                self.gone.lock().append(&mut gone);
                return;
            }
        }
    }
}
