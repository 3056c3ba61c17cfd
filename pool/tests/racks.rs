//! Which way a daemon's messages and accesses go, with links that only pretend to be hardware.

use parking_lot::Mutex;
use pool::addr::{GAddr, PageId, PageSize, RackId};
use pool::proto::page::PageError;
use pool::proto::peer::{PeerReply, PeerRequest, RemoteAt};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::fabric::{Accepted, Begun, Fabric, Landed, Link, Unsent};
use pool::transport::{Access, Done, Handler, Racks, Transport, TransportError};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

const ME: RackId = RackId(0);
const HOME: NodeId = NodeId::Daemon(RackId(1));

/// The other daemon as reached by TCP: accepts links with its present key, and counts what it is asked.
#[derive(Default)]
struct Tcp {
    key: AtomicU64,
    no_rdma: AtomicBool,
    asked: Mutex<Vec<Request>>,
}

impl Tcp {
    fn count(&self, of: impl Fn(&PeerRequest) -> bool) -> usize {
        self.asked.lock().iter().filter(|r| matches!(r, Request::Peer(r) if of(r))).count()
    }

    fn links(&self) -> usize {
        self.count(|request| matches!(request, PeerRequest::Link { .. }))
    }

    fn accesses(&self) -> usize {
        self.count(|r| matches!(r, PeerRequest::ReadAt { .. } | PeerRequest::WriteAt { .. }))
    }
}

impl Transport for Tcp {
    fn call(&self, _: NodeId, request: Request) -> Result<Reply, TransportError> {
        self.asked.lock().push(request.clone());
        let key = self.key.load(Ordering::SeqCst);
        let Request::Peer(request) = request else { return Ok(Reply::Unsupported) };
        Ok(Reply::Peer(match request {
            PeerRequest::Link { .. } if self.no_rdma.load(Ordering::SeqCst) => {
                Err(PageError::Unreachable("the other daemon has no RDMA".into()))
            }
            PeerRequest::Link { .. } => Ok(PeerReply::Linked { key, answer: Vec::new() }),
            PeerRequest::ReadAt { at, .. } | PeerRequest::WriteAt { at, .. } if at.key != key => {
                Ok(PeerReply::Fenced)
            }
            PeerRequest::ReadAt { len, .. } => Ok(PeerReply::Data(vec![1; len as usize])),
            _ => Ok(PeerReply::Done),
        }))
    }
}

#[derive(Default)]
struct Wire {
    accesses: AtomicUsize,
    messages: AtomicUsize,
    cut: AtomicBool,
    closed: AtomicUsize,
}

#[derive(Clone)]
struct Pretended(Arc<Wire>);

impl Fabric for Pretended {
    fn describe(&self) -> String {
        "pretended".into()
    }

    fn atomics(&self) -> &'static str {
        "GLOB"
    }

    fn begin(&self) -> Result<(Box<dyn Begun>, Vec<u8>), String> {
        Ok((Box::new(self.clone()), Vec::new()))
    }

    fn accept(&self, _: &[u8], _: Weak<dyn Handler>) -> Result<(Arc<dyn Accepted>, Vec<u8>), String> {
        Ok((Arc::new(PretendedLink(Arc::clone(&self.0), AtomicBool::new(true))), vec![7]))
    }
}

impl Begun for Pretended {
    fn finish(self: Box<Self>, _: NodeId, _: &[u8]) -> Result<Arc<dyn Link>, String> {
        Ok(Arc::new(PretendedLink(self.0, AtomicBool::new(true))))
    }
}

struct PretendedLink(Arc<Wire>, AtomicBool);

impl PretendedLink {
    /// What becomes of an access: none by a link that is cut.
    fn outcome(&self) -> Result<(), String> {
        self.0.accesses.fetch_add(1, Ordering::SeqCst);
        if !self.0.cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.1.store(false, Ordering::SeqCst);
        Err("the wire is cut".into())
    }
}

impl Accepted for PretendedLink {
    fn close(&self) {
        self.1.store(false, Ordering::SeqCst);
        self.0.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn is_up(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }
}

impl Link for PretendedLink {
    fn is_up(&self) -> bool {
        self.1.load(Ordering::SeqCst)
    }

    fn close(&self, _: &str) {
        Accepted::close(self);
    }

    fn read(&self, _: u64, len: u32, done: Landed<Vec<u8>>) -> Result<(), Landed<Vec<u8>>> {
        done(self.outcome().map(|()| vec![2; len as usize]));
        Ok(())
    }

    fn write(&self, _: u64, _: Vec<u8>, done: Landed<()>) -> Result<(), (Vec<u8>, Landed<()>)> {
        done(self.outcome());
        Ok(())
    }

    fn fetch(&self, _: u64, _: u64, _: u64) -> Result<(), String> {
        self.outcome()
    }

    fn request(&self, _: Request, done: Done<Reply>) -> Result<(), Unsent> {
        self.0.messages.fetch_add(1, Ordering::SeqCst);
        done(Ok(Reply::Peer(Ok(PeerReply::Done))));
        Ok(())
    }
}

struct Nobody;

impl Handler for Nobody {
    fn handle(&self, _: Request) -> Reply {
        Reply::Unsupported
    }
}

struct Rig {
    tcp: Arc<Tcp>,
    wire: Arc<Wire>,
    racks: Arc<Racks>,
    handler: Arc<dyn Handler>,
}

impl Rig {
    fn new() -> Self {
        let (tcp, wire) = (Arc::new(Tcp::default()), Arc::new(Wire::default()));
        tcp.key.store(5, Ordering::SeqCst);
        let racks = Racks::over(ME, tcp.clone());
        let handler: Arc<dyn Handler> = Arc::new(Nobody);
        Self { tcp, wire, racks, handler }
    }

    /// With a link.
    fn linked() -> Self {
        let rig = Self::new();
        rig.attach();
        rig.until("rdma:1");
        rig
    }

    fn attach(&self) {
        self.racks.set_addr(HOME, "nowhere:1".into());
        self.racks.attach(Arc::new(Pretended(self.wire.clone())), &self.handler);
    }

    #[track_caller]
    fn until(&self, ways: &str) {
        let begun = Instant::now();
        while self.racks.ways().transport != ways {
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}, not {ways}", self.racks.ways());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn read(&self, key: u64) -> Result<Access<Vec<u8>>, TransportError> {
        let (sender, receiver) = channel();
        let at = RemoteAt { offset: 64, key, holder: ME };
        self.racks.start_read(HOME, at, 8, Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap()
    }

    fn write(&self, key: u64) -> Result<Access<()>, TransportError> {
        let (sender, receiver) = channel();
        let at = RemoteAt { offset: 64, key, holder: ME };
        self.racks.start_write(HOME, at, vec![0; 8], Box::new(move |result| sender.send(result).unwrap()));
        receiver.recv().unwrap()
    }
}

const BY_TCP: u8 = 1;
const BY_LINK: u8 = 2;

fn data(of: u8) -> Result<Access<Vec<u8>>, TransportError> {
    Ok(Access::Done(vec![of; 8]))
}

#[test]
fn an_access_goes_by_the_link_only_with_the_links_key() {
    let rig = Rig::linked();
    assert_eq!(rig.racks.ways().cas, "home CPU (device: GLOB)");
    assert_eq!(rig.read(5), data(BY_LINK));
    assert_eq!(rig.write(5), Ok(Access::Done(())));
    assert_eq!((rig.wire.accesses.load(Ordering::SeqCst), rig.tcp.accesses()), (2, 0));
    assert_eq!(rig.read(4), Ok(Access::Fenced), "an older key: the home decides");
    assert_eq!(rig.read(5), data(BY_LINK), "and the link stays");
    assert_eq!(rig.tcp.links(), 1);
}

#[test]
fn a_link_whose_key_was_withdrawn_is_replaced() {
    let rig = Rig::linked();
    rig.tcp.key.store(6, Ordering::SeqCst);
    assert_eq!(rig.read(6), data(BY_TCP), "never by the link, which may be dead");
    assert!(rig.wire.closed.load(Ordering::SeqCst) > 0);
    rig.until("rdma:1");
    assert_eq!(rig.read(6), data(BY_LINK));
}

#[test]
fn without_rdma_there_all_goes_by_tcp() {
    let rig = Rig::new();
    rig.tcp.no_rdma.store(true, Ordering::SeqCst);
    assert_eq!(rig.racks.ways().transport, "tcp", "none here either");
    assert_eq!(rig.racks.ways().cas, "home CPU");
    rig.attach();
    rig.until("tcp:1");
    assert_eq!(rig.read(5), data(BY_TCP));
    assert!(!rig.racks.can_fetch(HOME) && rig.racks.fetch(HOME, 0, 0, 8).is_err());
    assert_eq!(rig.wire.accesses.load(Ordering::SeqCst), 0);
}

#[test]
fn when_the_link_breaks_a_read_is_repeated_and_a_write_is_an_error() {
    let rig = Rig::linked();
    rig.wire.cut.store(true, Ordering::SeqCst);
    assert_eq!(rig.read(5), data(BY_TCP));
    std::thread::sleep(Duration::from_millis(150));
    rig.wire.cut.store(false, Ordering::SeqCst);
    // One access is enough to have it made again.
    assert_eq!(rig.read(5), data(BY_TCP));
    rig.until("rdma:1");
    rig.wire.cut.store(true, Ordering::SeqCst);
    let before = rig.tcp.accesses();
    assert!(matches!(rig.write(5), Err(TransportError::Broken(HOME, _))));
    assert_eq!(rig.tcp.accesses(), before, "it may have been done");
}

#[test]
fn only_short_messages_go_by_the_link() {
    let rig = Rig::linked();
    let page = PageId::FIRST;
    let at = GAddr::new(page, 0, PageSize::MIN).unwrap();
    let short = [
        PeerRequest::Acquire { holder: ME, page },
        PeerRequest::Cas { at, old: 0, new: 1 },
        PeerRequest::Revoke { home: ME, pages: vec![page] },
        PeerRequest::Release { holder: ME, key: 5, pages: vec![page] },
    ];
    for request in &short {
        assert!(rig.racks.call(HOME, Request::Peer(request.clone())).is_ok());
    }
    assert_eq!(rig.wire.messages.load(Ordering::SeqCst), short.len());
    let others = [
        PeerRequest::Release { holder: ME, key: 5, pages: Vec::new() },
        PeerRequest::Revoke { home: ME, pages: vec![page; 4096] },
        PeerRequest::Free { runs: Vec::new() },
    ];
    for request in &others {
        assert!(rig.racks.call(HOME, Request::Peer(request.clone())).is_ok());
    }
    assert_eq!(rig.wire.messages.load(Ordering::SeqCst), short.len());
    assert_eq!(rig.tcp.asked.lock().len(), 1 + others.len());
}

#[test]
fn what_was_accepted_is_closed_when_it_is_cut_or_replaced() {
    let rig = Rig::linked();
    assert!(!rig.racks.can_lend(HOME));
    assert_eq!(rig.racks.accept_link(HOME, &[]), Ok(vec![7]));
    assert!(rig.racks.can_lend(HOME));
    assert_eq!(rig.racks.accept_link(HOME, &[]), Ok(vec![7]));
    assert_eq!(rig.wire.closed.load(Ordering::SeqCst), 1, "the first");
    rig.racks.cut(HOME);
    assert_eq!(rig.wire.closed.load(Ordering::SeqCst), 2);
    assert!(!rig.racks.can_lend(HOME));
}
