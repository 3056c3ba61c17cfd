//! A master over a daemon that only remembers which pages are allocated and freed.

#![allow(dead_code)]

use master::clock::Clock;
use master::store::{Store, Volatile};
use master::{Master, MasterConfig, MasterError, Pages};
use parking_lot::Mutex;
use pool::addr::{PageId, PageRun, PageSize, RackId};
use pool::proto::meta::{
    Attr, Caller, DirEntry, Extent, Ino, Kind, MetaError, MetaReply, MetaRequest, NewNode, RenameMode,
    SetAttr, Time,
};
use pool::proto::page::{PageError, PageReply, PageRequest, PageStat, Reconciled};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::fault::{Fate, Faulty};
use pool::transport::{Handler, Local, Transport};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

pub const HOME: NodeId = NodeId::Daemon(RackId(0));
pub const ROOT: Caller = Caller { uid: 0, gid: 0 };
pub const USER: Caller = Caller { uid: 1000, gid: 100 };
pub const PAGE: u64 = 4096;

/// A daemon that has every page that was taken from it and not given back.
#[derive(Default)]
pub struct FakeDaemon {
    state: Mutex<DaemonState>,
}

#[derive(Default)]
struct DaemonState {
    next: u64,
    live: BTreeSet<u64>,
    freed_twice: Vec<u64>,
}

impl FakeDaemon {
    /// Takes `count` pages in one run.
    pub fn alloc(&self, count: u32) -> PageRun {
        let mut state = self.state.lock();
        let first = state.next + 1;
        state.next += u64::from(count);
        state.live.extend(first..first + u64::from(count));
        PageRun::new(PageId::new(first).unwrap(), count).unwrap()
    }

    /// Loses a page, as a damaged region would.
    pub fn lose(&self, page: PageId) {
        self.state.lock().live.remove(&page.raw());
    }

    /// The mount gives back pages that no file took.
    pub fn take_back(&self, runs: &[PageRun]) {
        let mut state = self.state.lock();
        for page in runs.iter().flat_map(|run| run.iter()) {
            assert!(state.live.remove(&page.raw()), "{page} was freed though its commit was refused");
        }
    }

    pub fn live(&self) -> BTreeSet<u64> {
        self.state.lock().live.clone()
    }

    /// Pages that were freed when they were not allocated.
    pub fn freed_twice(&self) -> Vec<u64> {
        self.state.lock().freed_twice.clone()
    }

    fn free(&self, runs: &[PageRun]) -> u64 {
        let mut state = self.state.lock();
        let mut count = 0;
        for page in runs.iter().flat_map(|run| run.iter()) {
            if state.live.remove(&page.raw()) {
                count += 1;
            } else {
                state.freed_twice.push(page.raw());
            }
        }
        count
    }

    fn reconcile(&self, held: &[PageRun]) -> Reconciled {
        let held: BTreeSet<u64> = held.iter().flat_map(|run| run.iter()).map(PageId::raw).collect();
        let mut state = self.state.lock();
        let leaked = state.live.difference(&held).count() as u64;
        let missing =
            held.difference(&state.live).filter_map(|&p| PageRun::new(PageId::new(p)?, 1)).collect();
        state.live.retain(|page| held.contains(page));
        Reconciled { leaked, missing, clients: None }
    }
}

impl Handler for FakeDaemon {
    fn handle(&self, request: Request) -> Reply {
        let Request::Page(request) = request else { return Reply::Unsupported };
        Reply::Page(match request {
            PageRequest::Free { runs } => Ok(PageReply::Freed(self.free(&runs))),
            PageRequest::Reconcile { held, .. } => Ok(PageReply::Reconciled(self.reconcile(&held))),
            PageRequest::Stat => Ok(PageReply::Stat(PageStat { total: 1 << 20, free: 0 })),
            PageRequest::Sync { .. } => Ok(PageReply::Done),
            _ => Err(PageError::Os("not asked of this one".into())),
        })
    }
}

/// A clock that goes on by one second at each look.
#[derive(Default)]
pub struct StepClock(AtomicI64);

impl StepClock {
    /// The time of the last look.
    pub fn last(&self) -> Time {
        Time { sec: self.0.load(Ordering::Relaxed), nsec: 0 }
    }
}

impl Clock for StepClock {
    fn now(&self) -> Time {
        Time { sec: self.0.fetch_add(1, Ordering::Relaxed) + 1, nsec: 0 }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed) as u64)
    }
}

/// What a master needs around it.
pub struct World {
    pub daemon: Arc<FakeDaemon>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<StepClock>,
    pub config: MasterConfig,
    _handler: Arc<dyn Handler>,
}

impl World {
    pub fn new() -> Self {
        let daemon = Arc::new(FakeDaemon::default());
        let local = Local::new();
        let handler: Arc<dyn Handler> = daemon.clone();
        local.register(HOME, &handler);
        let config = MasterConfig {
            store: None,
            page_size: PageSize::MIN,
            max_inodes: 1 << 40,
            pool_id: 7,
            pages: Pages::Daemon(HOME),
            root: ROOT,
            repair: false,
        };
        Self { daemon, transport: Arc::new(local), clock: Arc::default(), config, _handler: handler }
    }

    /// One in which a third of the requests to free pages, and a third of the answers, are lost.
    pub fn with_lossy_frees(seed: u64) -> Self {
        let mut world = Self::new();
        let count = AtomicU64::new(seed);
        let rule = move |_: NodeId, request: &Request| match request {
            Request::Page(PageRequest::Free { .. }) => {
                let n = count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                [Fate::Deliver, Fate::DropRequest, Fate::DropReply][n as usize % 3]
            }
            _ => Fate::Deliver,
        };
        world.transport = Arc::new(Faulty::new(world.transport, rule));
        world
    }

    pub fn open_on(&self, store: Box<dyn Store>) -> Result<Master, MasterError> {
        Master::open_with(&self.config, self.transport.clone(), store, self.clock.clone())
    }

    /// As `open_on`, where damage is mended.
    pub fn repair_on(&self, store: Box<dyn Store>) -> Result<Master, MasterError> {
        let config = MasterConfig { repair: true, ..self.config.clone() };
        Master::open_with(&config, self.transport.clone(), store, self.clock.clone())
    }
}

/// What a refusal to open damaged names says: how much is wrong, and the whole sentence.
pub fn damage(refused: Result<Master, MasterError>) -> (usize, String) {
    match refused.err() {
        Some(why @ MasterError::Damaged { count, .. }) => (count, why.to_string()),
        other => panic!("{other:?}"),
    }
}

/// A master without a store, and short ways to ask it.
pub struct Fixture {
    pub world: World,
    pub master: Master,
}

pub type Result<T, E = MetaError> = std::result::Result<T, E>;

impl Fixture {
    pub fn new() -> Self {
        let world = World::new();
        let master = world.open_on(Box::new(Volatile)).unwrap();
        Self { world, master }
    }

    pub fn with_max_inodes(max: u64) -> Self {
        let mut world = World::new();
        world.config.max_inodes = max;
        let master = world.open_on(Box::new(Volatile)).unwrap();
        Self { world, master }
    }

    pub fn ask(&self, request: MetaRequest) -> Result<MetaReply> {
        ask(&self.master, request)
    }

    /// Asks something that is answered by attributes.
    pub fn attr_of(&self, request: MetaRequest) -> Result<Attr> {
        match self.ask(request)? {
            MetaReply::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    pub fn now(&self) -> Time {
        self.world.clock.last()
    }

    pub fn make_as(
        &self,
        caller: Caller,
        parent: Ino,
        name: &str,
        node: NewNode,
        perm: u16,
        umask: u16,
    ) -> Result<Attr> {
        self.attr_of(MetaRequest::Make { parent, name: name.into(), caller, node, perm, umask })
    }

    pub fn make(&self, parent: Ino, name: &str, node: NewNode) -> Result<Attr> {
        let perm = if node == NewNode::Dir { 0o755 } else { 0o644 };
        self.make_as(ROOT, parent, name, node, perm, 0)
    }

    pub fn file(&self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, NewNode::File).unwrap().ino
    }

    pub fn dir(&self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, NewNode::Dir).unwrap().ino
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        self.attr_of(MetaRequest::GetAttr { ino }).unwrap()
    }

    pub fn lookup(&self, parent: Ino, name: &str) -> Result<Attr> {
        self.attr_of(MetaRequest::Lookup { parent, name: name.into() })
    }

    pub fn unlink(&self, parent: Ino, name: &str) -> Result<Attr> {
        self.attr_of(MetaRequest::Unlink { parent, name: name.into() })
    }

    pub fn rmdir(&self, parent: Ino, name: &str) -> Result<Attr> {
        self.attr_of(MetaRequest::Rmdir { parent, name: name.into() })
    }

    pub fn link(&self, ino: Ino, parent: Ino, name: &str) -> Result<Attr> {
        self.attr_of(MetaRequest::Link { ino, parent, name: name.into() })
    }

    pub fn rename(&self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Result<Option<Attr>> {
        let (parent, new_parent) = (from.0, to.0);
        let (name, new_name) = (from.1.into(), to.1.into());
        match self.ask(MetaRequest::Rename { parent, name, new_parent, new_name, mode })? {
            MetaReply::Renamed { replaced } => Ok(replaced),
            other => panic!("{other:?}"),
        }
    }

    pub fn setattr_as(&self, caller: Caller, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.attr_of(MetaRequest::SetAttr { ino, caller, set })
    }

    pub fn setattr(&self, ino: Ino, set: SetAttr) -> Result<Attr> {
        self.setattr_as(ROOT, ino, set)
    }

    pub fn forget(&self, ino: Ino) {
        assert_eq!(self.ask(MetaRequest::Forget { inos: vec![ino] }), Ok(MetaReply::Done));
    }

    pub fn commit(&self, ino: Ino, extents: &[Extent], size: u64) -> Result<Attr> {
        let extents = extents.to_vec();
        self.attr_of(MetaRequest::Commit { ino, extents, size, touch: true, kill_suid: false, set: None })
    }

    /// Gives `count` new pages to a file from its page `at` on, and sets its size to match.
    pub fn write(&self, ino: Ino, at: u64, count: u32) -> Extent {
        let extent = Extent { at, run: self.world.daemon.alloc(count) };
        self.commit(ino, &[extent], extent.end() * PAGE).unwrap();
        extent
    }

    pub fn map(&self, ino: Ino) -> Vec<Extent> {
        match self.ask(MetaRequest::Map { ino, from: 0, limit: u32::MAX }).unwrap() {
            MetaReply::Map { extents, next: None, .. } => extents,
            other => panic!("{other:?}"),
        }
    }

    pub fn entries(&self, ino: Ino, after: u64, limit: u32) -> Vec<DirEntry> {
        match self.ask(MetaRequest::ReadDir { ino, after, limit, plus: false }).unwrap() {
            MetaReply::Entries(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    /// Names in a directory, in order, without `.` and `..`.
    pub fn names(&self, ino: Ino) -> Vec<String> {
        let entries = self.entries(ino, 2, u32::MAX);
        entries.into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect()
    }

    /// Everything the daemon has belongs to a file, and the other way round, and the tree is one.
    pub fn check(&self) {
        assert_eq!(self.master.check(), Vec::<String>::new());
        assert_eq!(self.world.daemon.freed_twice(), Vec::<u64>::new());
    }
}

pub fn ask(master: &Master, request: MetaRequest) -> Result<MetaReply> {
    match master.handle(Request::Meta(request)) {
        Reply::Meta(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A line for everything there is that the root leads to: attributes, names, attributes by name, pages.
pub fn dump(master: &Master) -> Vec<String> {
    let mut lines = vec![format!("{:?}", ask(master, MetaRequest::GetAttr { ino: Ino::ROOT }))];
    let mut todo = vec![Ino::ROOT];
    while let Some(dir) = todo.pop() {
        let all = MetaRequest::ReadDir { ino: dir, after: 2, limit: u32::MAX, plus: true };
        let Ok(MetaReply::Entries(entries)) = ask(master, all) else { panic!("{dir:?} cannot be listed") };
        for entry in entries {
            let ino = entry.ino;
            todo.extend(Some(ino).filter(|_| entry.kind == Kind::Dir));
            let more = [
                ask(master, MetaRequest::ListXattr { ino }),
                ask(master, MetaRequest::ReadLink { ino }),
                ask(master, MetaRequest::Map { ino, from: 0, limit: u32::MAX }),
            ];
            lines.push(format!("{dir:?} {entry:?} {more:?}"));
        }
    }
    lines
}

pub fn run(first: u64, count: u32) -> PageRun {
    PageRun::new(PageId::new(first).unwrap(), count).unwrap()
}
