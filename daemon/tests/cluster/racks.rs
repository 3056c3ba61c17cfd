//! Daemons and their master, for the tests.

use crate::master::TestMaster;
use daemon::{ClusterConfig, ClusterDaemon, DaemonError, RegionSource};
use parking_lot::RwLock;
use pool::addr::{GAddr, PageId, PageRun, PageSize, RackId};
use pool::proto::page::{PageError, PageKind, PageReply, PageRequest, PageStat};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::fault::{Fate, Faulty};
use pool::transport::{Handler, Local, Transport};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const PAGE: u64 = 4096;

type Rule = Box<dyn Fn(RackId, NodeId, &Request) -> Fate + Send + Sync>;

/// Some racks, which reach each other and their master within this process.
pub struct Racks {
    pub master: Arc<TestMaster>,
    pub daemons: Vec<Arc<ClusterDaemon>>,
    pub local: Arc<Local>,
    /// What becomes of what daemons send; the first argument sends.
    rule: Arc<RwLock<Rule>>,
    /// The transport holds nodes weakly.
    handlers: Vec<Arc<dyn Handler>>,
}

pub fn rack(id: usize) -> RackId {
    RackId(id as u16)
}

/// Racks that have no reserve and never swap: what is where is known.
pub fn config(id: usize, pages: u64) -> ClusterConfig {
    let mut config = ClusterConfig::new(rack(id), RegionSource::Memfd, pages * PAGE);
    config.swap.watermark = None;
    config.swap.reserve = Some(0);
    config.beat = Duration::from_millis(10);
    config.deadline = Duration::from_secs(10);
    config.patience = Duration::ZERO;
    config
}

impl Racks {
    /// A master, without any rack.
    pub fn none() -> Self {
        let (master, local) = (Arc::new(TestMaster::new(PAGE)), Arc::new(Local::new()));
        let handler: Arc<dyn Handler> = master.clone();
        local.register(NodeId::Master, &handler);
        let deliver: Rule = Box::new(|_, _, _| Fate::Deliver);
        let rule = Arc::new(RwLock::new(deliver));
        Self { master, daemons: Vec::new(), local, rule, handlers: vec![handler] }
    }

    /// As many racks as there are numbers, each with so many pages.
    pub fn new(pages: &[u64]) -> Self {
        let mut racks = Self::none();
        for (id, pages) in pages.iter().enumerate() {
            racks.start(config(id, *pages)).unwrap();
        }
        racks.settle();
        racks
    }

    pub fn start(&mut self, config: ClusterConfig) -> Result<Arc<ClusterDaemon>, DaemonError> {
        let rack = config.rack;
        let daemon = ClusterDaemon::start(config, self.transport_of(rack))?;
        let handler: Arc<dyn Handler> = daemon.clone();
        self.local.register(NodeId::Daemon(rack), &handler);
        self.handlers.push(handler);
        self.daemons.push(Arc::clone(&daemon));
        Ok(daemon)
    }

    /// Ends the daemon that was started as the `at`th in order.
    pub fn stop(&mut self, at: usize) {
        self.handlers.remove(at + 1);
        let daemon = self.daemons.remove(at);
        daemon.shutdown();
    }

    fn transport_of(&self, from: RackId) -> Arc<dyn Transport> {
        let rule = Arc::clone(&self.rule);
        let inner: Arc<dyn Transport> = self.local.clone();
        Arc::new(Faulty::new(inner, move |to, request: &Request| rule.read()(from, to, request)))
    }

    /// From now on this is what becomes of what daemons send.
    pub fn fate(&self, rule: impl Fn(RackId, NodeId, &Request) -> Fate + Send + Sync + 'static) {
        *self.rule.write() = Box::new(rule);
    }

    /// Waits until every rack knows how much the others have now.
    pub fn settle(&self) {
        until("racks know each other", || {
            let stats: Vec<PageStat> = (0..self.daemons.len()).map(|id| self.stat(id)).collect();
            let there: u64 = self.daemons.iter().map(|daemon| daemon.stats().free).sum();
            stats.iter().all(|stat| *stat == stats[0] && stat.free == there)
        });
    }

    pub fn ask(&self, id: usize, request: PageRequest) -> Result<PageReply, PageError> {
        match self.local.call(NodeId::Daemon(rack(id)), Request::Page(request)) {
            Ok(Reply::Page(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    pub fn alloc(&self, id: usize, pages: u64, leave: u64) -> Result<(Vec<PageRun>, u32), PageError> {
        match self.ask(id, PageRequest::Alloc { pages, leave, kind: PageKind::Plain })? {
            PageReply::Runs { runs, zeroed } => Ok((runs, zeroed)),
            other => panic!("{other:?}"),
        }
    }

    pub fn free(&self, id: usize, runs: &[PageRun]) -> Result<u64, PageError> {
        match self.ask(id, PageRequest::Free { runs: runs.to_vec() })? {
            PageReply::Freed(count) => Ok(count),
            other => panic!("{other:?}"),
        }
    }

    pub fn stat(&self, id: usize) -> PageStat {
        match self.ask(id, PageRequest::Stat) {
            Ok(PageReply::Stat(stat)) => stat,
            other => panic!("{other:?}"),
        }
    }

    /// Pages that are free in each rack.
    pub fn room(&self) -> Vec<u64> {
        self.daemons.iter().map(|daemon| daemon.stats().free).collect()
    }
}

/// Waits until `what` is true.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn count(runs: &[PageRun]) -> u64 {
    runs.iter().map(|run| run.count as u64).sum()
}

pub fn at(page: PageId, offset: u64) -> GAddr {
    GAddr::new(page, offset, PageSize::from_bytes(PAGE).unwrap()).unwrap()
}
