//! A cluster in this process for tests: several racks, each a file in `/dev/shm`, a master that knows
//! nothing but where pages are, and a net that loses and delays messages as it is told.
//!
//! Every message is carried by a thread of its own, so that messages overtake each other.

use super::{PageAnswer, Remote};
use crate::context::Context;
use crate::counters::Counters;
use crate::frames::FrameTable;
use crate::migrate::{Halt, Step, Steps};
use crate::recover;
use parking_lot::{Mutex, RwLock};
use pool::addr::{GAddr, PageId, PageRun, PageSize, RackId};
use pool::cxl::frames::{Content, Frames, State};
use pool::cxl::region::{Region, RegionError, RegionSource, Spec};
use pool::heat::HalfLife;
use pool::in_place::{InPlace, Why};
use pool::proto::cluster::{BLOCK, Cluster, ClusterError, ClusterReply, ClusterRequest, Move, SwapToken};
use pool::proto::page::{PageError, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::swap::{SwapPolicy, Watermark};
use pool::transport::{Done, Transport, TransportError};
use pool::workers::Workers;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

pub const SIZE: PageSize = PageSize::MIN;
/// Longer than anything takes unless it hangs.
pub const LONG: Duration = Duration::from_secs(20);

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Deliver,
    /// It is lost; the sender hears nothing in time.
    Lose,
    /// It is carried out; the sender hears nothing in time.
    LoseReply,
    /// The sender hears nothing in time; it is carried out when the test says so.
    Late,
    /// It waits until the test says so, and so does the sender.
    Hold,
    /// It is carried out; the reply waits until the test says so.
    HoldReply,
}

type Rule = Box<dyn Fn(NodeId, NodeId, &Request) -> Fate + Send + Sync>;

/// The threads that carry messages.
struct Threads(Workers);

impl Default for Threads {
    fn default() -> Self {
        Self(Workers::new("test-net", 64))
    }
}

#[derive(Default)]
pub struct Net {
    nodes: RwLock<HashMap<NodeId, Weak<Remote>>>,
    dead: RwLock<HashSet<NodeId>>,
    master: Mutex<Master>,
    rule: RwLock<Option<Rule>>,
    kept: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    threads: Threads,
    seen: Mutex<Vec<(NodeId, NodeId, Request)>>,
}

impl Net {
    pub fn set_rule(&self, rule: impl Fn(NodeId, NodeId, &Request) -> Fate + Send + Sync + 'static) {
        *self.rule.write() = Some(Box::new(rule));
    }

    pub fn clear_rule(&self) {
        *self.rule.write() = None;
    }

    /// Lets what was kept go on.
    pub fn release(&self) {
        let kept = std::mem::take(&mut *self.kept.lock());
        kept.into_iter().for_each(|go_on| go_on());
    }

    pub fn kept(&self) -> usize {
        self.kept.lock().len()
    }

    pub fn kill(&self, rack: RackId) {
        self.dead.write().insert(NodeId::Daemon(rack));
    }

    pub fn is_dead(&self, node: NodeId) -> bool {
        self.dead.read().contains(&node)
    }

    /// How many messages were sent of which this is true.
    pub fn count(&self, of: impl Fn(NodeId, NodeId, &Request) -> bool) -> usize {
        self.seen.lock().iter().filter(|(from, to, request)| of(*from, *to, request)).count()
    }

    pub fn home_of(&self, page: PageId) -> Option<RackId> {
        self.master.lock().home_of(page)
    }

    /// The page has been freed.
    pub fn forget(&self, page: PageId) {
        self.master.lock().moved.remove(&page);
    }

    /// Carries out `request`, and gives the reply to `done`.
    fn serve(self: &Arc<Self>, to: NodeId, request: Request, done: Done<Reply>) {
        if self.is_dead(to) {
            return done(Err(TransportError::Broken(to, "it is dead".into())));
        }
        match (to, request) {
            (NodeId::Master, Request::Cluster(request)) => {
                let reply = self.master.lock().serve(request);
                done(Ok(Reply::Cluster(reply)));
            }
            (_, Request::Peer(request)) => {
                let node = self.nodes.read().get(&to).and_then(Weak::upgrade);
                let Some(node) = node else { return done(Err(TransportError::NoSuchNode(to))) };
                let net = Arc::clone(self);
                node.serve_peer(
                    request,
                    Box::new(move |reply| {
                        // Who dies in the middle of it does not answer.
                        let lost = net.is_dead(to).then(|| TransportError::Broken(to, "it died".into()));
                        done(lost.map_or(Ok(Reply::Peer(reply)), Err));
                    }),
                );
            }
            _ => done(Err(TransportError::Mismatch(to))),
        }
    }

    fn start(self: &Arc<Self>, from: NodeId, to: NodeId, request: Request, done: Done<Reply>) {
        if self.is_dead(from) {
            return done(Err(TransportError::Broken(to, "we are dead".into())));
        }
        self.seen.lock().push((from, to, request.clone()));
        let fate = self.rule.read().as_ref().map_or(Fate::Deliver, |rule| rule(from, to, &request));
        let net = Arc::clone(self);
        let late: Done<Reply> = Box::new(|_| {});
        self.threads.0.run(move || match fate {
            Fate::Deliver => net.serve(to, request, done),
            Fate::Lose => done(Err(TransportError::TimedOut(to))),
            Fate::LoseReply => {
                net.serve(to, request, Box::new(move |_| done(Err(TransportError::TimedOut(to)))));
            }
            Fate::Late => {
                let again = Arc::clone(&net);
                net.kept.lock().push(Box::new(move || again.serve(to, request, late)));
                done(Err(TransportError::TimedOut(to)));
            }
            Fate::Hold => {
                let again = Arc::clone(&net);
                net.kept.lock().push(Box::new(move || again.serve(to, request, done)));
            }
            Fate::HoldReply => {
                let keep = Arc::clone(&net);
                net.serve(
                    to,
                    request,
                    Box::new(move |reply| keep.kept.lock().push(Box::new(move || done(reply)))),
                );
            }
        });
    }
}

/// The net as one node sees it.
struct Port {
    net: Arc<Net>,
    from: NodeId,
}

impl Transport for Port {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        let (sender, receiver) = channel();
        self.start(to, request, Box::new(move |reply| drop(sender.send(reply))));
        // No sender: the node was halted in the middle of it.
        receiver.recv_timeout(LONG).unwrap_or(Err(TransportError::TimedOut(to)))
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        self.net.start(self.from, to, request, done);
    }
}

/// Where pages are, by the rules of [`pool::proto::cluster`].
#[derive(Default)]
struct Master {
    moved: BTreeMap<PageId, RackId>,
    incarnations: HashMap<RackId, u64>,
    committed: HashSet<SwapToken>,
    resolved: HashSet<SwapToken>,
}

impl Master {
    /// Rack r has the block r.
    fn home_of(&self, page: PageId) -> Option<RackId> {
        let block = RackId((page.raw() / BLOCK) as u16);
        self.moved.get(&page).copied().or(self.incarnations.contains_key(&block).then_some(block))
    }

    fn serve(&mut self, request: ClusterRequest) -> Result<ClusterReply, ClusterError> {
        match request {
            ClusterRequest::Locate { pages } => Ok(self.homes(&pages)),
            ClusterRequest::Commit { token, home, moves } => self.commit(token, home, &moves),
            ClusterRequest::Resolve { token, pages } => {
                self.resolved.insert(token);
                Ok(self.homes(&pages))
            }
            _ => Err(ClusterError::Refused("not a question about pages".into())),
        }
    }

    fn homes(&self, pages: &[PageId]) -> ClusterReply {
        ClusterReply::Homes(pages.iter().map(|page| self.home_of(*page)).collect())
    }

    fn commit(&mut self, token: SwapToken, home: u64, moves: &[Move]) -> Result<ClusterReply, ClusterError> {
        if self.committed.contains(&token) {
            return Ok(ClusterReply::Done);
        }
        let is = |rack: RackId, incarnation: u64| self.incarnations.get(&rack) == Some(&incarnation);
        let current = is(token.rack, token.incarnation) && moves.first().is_some_and(|m| is(m.from, home));
        let there = moves.iter().all(|m| self.home_of(m.page) == Some(m.from));
        if !current || !there || self.resolved.contains(&token) {
            return Err(ClusterError::Refused("no such swap".into()));
        }
        self.moved.extend(moves.iter().map(|m| (m.page, m.to)));
        self.committed.insert(token);
        Ok(ClusterReply::Done)
    }
}

/// Kills the daemon of `rack` at `step`, once.
pub struct Crash {
    net: Arc<Net>,
    rack: RackId,
    step: Mutex<Option<Step>>,
    pub steps: Mutex<Vec<Step>>,
}

impl Crash {
    pub fn at(&self, step: Option<Step>) {
        *self.step.lock() = step;
    }
}

impl Steps for Crash {
    fn at(&self, step: Step) -> Result<(), Halt> {
        self.steps.lock().push(step);
        if *self.step.lock() == Some(step) {
            self.net.kill(self.rack);
        }
        if self.net.is_dead(NodeId::Daemon(self.rack)) { Err(Halt) } else { Ok(()) }
    }
}

/// A rack and its daemon.
pub struct Node {
    pub rack: RackId,
    pub remote: Arc<Remote>,
    pub context: Arc<Context>,
    pub crash: Arc<Crash>,
}

/// How racks are made.
#[derive(Clone)]
pub struct Plan {
    /// Pages that a rack has room for, and of these those kept for swaps.
    pub frames: u64,
    pub reserve: u64,
    pub policy: Arc<dyn SwapPolicy>,
    pub half_life: Duration,
    pub deadline: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        let policy = Arc::new(Watermark::NEVER);
        let (half_life, deadline) = (Duration::from_secs(60), Duration::from_secs(10));
        Self { frames: 64, reserve: 4, policy, half_life, deadline }
    }
}

impl Plan {
    /// Pages move when they have been accessed `watermark` times.
    pub fn swapping(watermark: f64) -> Self {
        let policy = Arc::new(Watermark { watermark, cooling: Duration::from_millis(5) });
        Self { policy, ..Self::default() }
    }
}

/// The racks of a cluster.
pub struct Racks {
    pub net: Arc<Net>,
    pub plan: Plan,
    dir: tempfile::TempDir,
    pub nodes: Vec<Option<Node>>,
    incarnations: u64,
}

impl Racks {
    pub fn new(count: u16, plan: Plan) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let net = Arc::new(Net::default());
        let mut racks = Self { net, plan, dir, nodes: Vec::new(), incarnations: 0 };
        racks.nodes.resize_with(count as usize, || None);
        (0..count).for_each(|rack| racks.start(rack));
        racks
    }

    pub fn start(&mut self, number: u16) {
        let rack = RackId(number);
        self.incarnations += 1;
        let incarnation = self.incarnations;
        let cluster = Cluster { id: 1, page_size: SIZE, term: 1 };
        let (region, state) = self.open(rack);
        let region = Arc::new(region);
        let frames = Arc::new(FrameTable::new(Arc::clone(&region), state));
        frames.set_reserve(self.plan.reserve);
        // Of the rack's block; none that an earlier daemon of the rack may have used.
        let first = number as u64 * BLOCK + incarnation * 1000;
        frames.add_id_range(first..first + 1000);
        let node = NodeId::Daemon(rack);
        let context = Arc::new(Context {
            rack,
            incarnation,
            cluster: RwLock::new(cluster),
            frames,
            in_place: InPlace::new(region),
            transport: Arc::new(Port { net: Arc::clone(&self.net), from: node }),
            policy: Arc::clone(&self.plan.policy),
            half_life: HalfLife::new(self.plan.half_life),
            deadline: self.plan.deadline,
            workers: Workers::new("pool-worker", 64),
            counters: Counters::default(),
            started: Instant::now(),
        });
        let crash = Arc::new(Crash {
            net: Arc::clone(&self.net),
            rack,
            step: Mutex::new(None),
            steps: Mutex::default(),
        });
        let remote = Remote::with_steps(Arc::clone(&context), Some(crash.clone()));
        self.net.master.lock().incarnations.insert(rack, incarnation);
        self.net.dead.write().remove(&node);
        self.net.nodes.write().insert(node, Arc::downgrade(&remote));
        self.nodes[number as usize] = Some(Node { rack, remote, context, crash });
    }

    fn open(&self, rack: RackId) -> (Region, crate::frames::FrameState) {
        let source = RegionSource::Path(self.dir.path().join(format!("rack{rack}")));
        let size = self.plan.frames * SIZE.bytes();
        let spec = Spec { rack, page_size: SIZE, size, cluster: None, channels: 0 };
        let start = Instant::now();
        let (region, found) = loop {
            match Region::open(&source, &spec) {
                // Some thread has not yet let go of the daemon before.
                Err(RegionError::InUse { .. }) if start.elapsed() < LONG => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        let (state, _) = recover::recover(&region, found, recover::Origin::Cluster);
        (region, state)
    }

    /// Ends a daemon at once.
    pub fn kill(&mut self, rack: u16) {
        self.net.kill(RackId(rack));
        if let Some(node) = self.nodes[rack as usize].take() {
            node.remote.close();
            node.context.workers.close();
        }
    }

    /// A new daemon for a rack whose daemon is dead, which settles what that was in the middle of.
    pub fn restart(&mut self, rack: u16) {
        self.kill(rack);
        self.start(rack);
        self.node(rack).remote.settle_limbo().unwrap();
        let others = self.nodes.iter().flatten().filter(|node| node.rack != RackId(rack));
        others.for_each(|node| node.remote.peer_lost(RackId(rack)));
    }

    pub fn node(&self, rack: u16) -> &Node {
        self.nodes[rack as usize].as_ref().unwrap()
    }
}

impl Drop for Racks {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|rack| self.kill(rack as u16));
        self.net.kept.lock().clear();
        self.net.threads.0.close();
    }
}

/// An address.
pub fn at(page: PageId, offset: u64) -> GAddr {
    GAddr::new(page, offset, SIZE).unwrap()
}

/// Waits until `done`, which must come.
pub fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

impl Node {
    /// Pages of this rack that hold their number in every word.
    pub fn alloc(&self, count: u64) -> Vec<PageId> {
        let runs = self.context.frames.alloc(count, 0, pool::proto::page::PageKind::Plain).unwrap();
        let pages: Vec<PageId> = runs.iter().flat_map(|run| run.iter().collect::<Vec<_>>()).collect();
        for page in &pages {
            self.context.in_place.write(at(*page, 0), &image_of(*page)).unwrap();
        }
        pages
    }

    /// Asks the daemon, as a client does for a page that is not in its rack.
    pub fn ask(&self, request: PageRequest) -> Result<PageReply, PageError> {
        let (sender, receiver) = channel();
        let answer: PageAnswer = Box::new(move |reply| drop(sender.send(reply)));
        self.remote.serve_page(request, answer);
        receiver.recv_timeout(LONG).expect("no answer: a hang")
    }

    /// In place if the page is here, else by the daemon.
    fn either<T>(
        &self,
        page: PageId,
        mut here: impl FnMut() -> Result<T, pool::in_place::Stopped>,
        there: PageRequest,
        take: impl Fn(PageReply) -> Option<T>,
    ) -> Result<T, PageError> {
        loop {
            match here() {
                Ok(value) => return Ok(value),
                Err(stopped) if stopped.why == Why::Moving => {
                    self.context.in_place.wait(page).map_err(|_| PageError::Busy(page))?;
                }
                Err(stopped) => assert_eq!(stopped.why, Why::Absent),
            }
            match self.ask(there.clone())? {
                PageReply::Here => {}
                reply => return Ok(take(reply).expect("an answer to something else")),
            }
        }
    }

    pub fn read(&self, page: PageId, offset: u64, len: u32) -> Result<Vec<u8>, PageError> {
        let here = || {
            let mut data = vec![0; len as usize];
            self.context.in_place.read(at(page, offset), &mut data).map(|()| data)
        };
        let take = |reply| if let PageReply::Data(data) = reply { Some(data) } else { None };
        self.either(page, here, PageRequest::Read { at: at(page, offset), len }, take)
    }

    pub fn read_word(&self, page: PageId, offset: u64) -> Result<u64, PageError> {
        self.read(page, offset, 8).map(|data| u64::from_ne_bytes(data.try_into().unwrap()))
    }

    pub fn write(&self, page: PageId, offset: u64, data: &[u8]) -> Result<(), PageError> {
        let request = PageRequest::Write { at: at(page, offset), data: data.to_vec() };
        let here = || self.context.in_place.write(at(page, offset), data);
        self.either(page, here, request, |reply| (reply == PageReply::Done).then_some(()))
    }

    pub fn write_word(&self, page: PageId, offset: u64, word: u64) -> Result<(), PageError> {
        self.write(page, offset, &word.to_ne_bytes())
    }

    pub fn cas(&self, page: PageId, offset: u64, old: u64, new: u64) -> Result<u64, PageError> {
        let here = || self.context.in_place.cas(at(page, offset), old, new);
        let take = |reply| if let PageReply::Was(was) = reply { Some(was) } else { None };
        self.either(page, here, PageRequest::Cas { at: at(page, offset), old, new }, take)
    }

    pub fn holds(&self, page: PageId) -> bool {
        self.remote.is_stable_here(page)
    }

    /// What the descriptors of the rack say about `page`: the state of every copy.
    pub fn copies(&self, page: PageId) -> Vec<State> {
        let region = self.context.in_place.region();
        let contents =
            (0..region.geometry().frames).map(|n| Frames::new(region).content(pool::addr::FrameNo(n)));
        contents
            .filter_map(|content| match content {
                Content::Page(found, state) if found == page => Some(state),
                _ => None,
            })
            .collect()
    }

    /// Frees a page as the daemon does.
    pub fn free(&self, page: PageId) {
        assert!(self.try_free(page));
    }

    /// Frees a page if it is here.
    pub fn try_free(&self, page: PageId) -> bool {
        let runs = [PageRun::new(page, 1).unwrap()];
        self.context.frames.free(&runs, &|pages: &[PageId]| self.remote.revoke(pages)).unwrap() == 1
    }
}

/// What a page holds at first.
pub fn image_of(page: PageId) -> Vec<u8> {
    page.raw().to_ne_bytes().repeat(SIZE.bytes() as usize / 8)
}
