//! The TCP transport between real sockets: what comes through, what fails and how, what strangers cannot do.

#[path = "tcp/lines.rs"]
mod lines;

use parking_lot::Mutex;
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::page::{PageError, PageKind, PageReply, PageRequest};
use pool::proto::peer::{Image, PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::tcp::Server;
use pool::transport::tcp::frame::{self, HEADER, Hello, Kind, WELCOME};
use pool::transport::{Answer, Handler, Tcp, TcpConfig, Transport, TransportError};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const ME: NodeId = NodeId::Daemon(RackId(3));
const CLUSTER: u128 = 77;
/// Long enough for a loaded machine; nothing waits for it unless a test is about to fail.
const LONG: Duration = Duration::from_secs(60);

/// Answers with what it was sent, or keeps the answers of `Stat`.
#[derive(Default)]
struct Echo {
    kept: Mutex<Vec<Answer>>,
    /// Connections there have been.
    connections: AtomicUsize,
}

impl Handler for Echo {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Page(PageRequest::Write { data, .. }) => Reply::Page(Ok(PageReply::Data(data))),
            Request::Page(PageRequest::Free { runs }) => {
                Reply::Page(Ok(PageReply::Freed(runs.iter().map(|run| u64::from(run.count)).sum())))
            }
            Request::Peer(PeerRequest::Prepare { victim: Some(image), .. }) => {
                Reply::Peer(Ok(PeerReply::Ready { image, incarnation: 1 }))
            }
            Request::Page(_) => Reply::Page(Err(PageError::Invalid("no".into()))),
            _ => Reply::Unsupported,
        }
    }

    fn serve(self: Arc<Self>, request: Request, answer: Answer) {
        match request {
            Request::Page(PageRequest::Stat) => self.kept.lock().push(answer),
            other => answer(self.handle(other)),
        }
    }

    fn for_connection(self: Arc<Self>) -> Option<Arc<dyn Handler>> {
        self.connections.fetch_add(1, Ordering::SeqCst);
        None
    }
}

fn transport(me: Option<NodeId>, deadline: Duration) -> Arc<Tcp> {
    Tcp::new(TcpConfig { me, cluster: CLUSTER, deadline }).unwrap()
}

/// A node that serves, and where.
struct Node {
    echo: Arc<Echo>,
    server: Option<Server>,
    addr: SocketAddr,
    tcp: Arc<Tcp>,
}

impl Node {
    fn new() -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn at(listener: TcpListener) -> Self {
        let (echo, tcp) = (Arc::new(Echo::default()), transport(Some(ME), LONG));
        let server = tcp.serve(listener, ME, echo.clone()).unwrap();
        Self { addr: server.local_addr(), echo, server: Some(server), tcp }
    }

    fn client(&self, deadline: Duration) -> Arc<Tcp> {
        let client = transport(None, deadline);
        client.set_addr(ME, self.addr.to_string());
        client
    }

    fn kept(&self, count: usize) -> Vec<Answer> {
        let until = Instant::now() + LONG;
        while self.echo.kept.lock().len() < count {
            assert!(Instant::now() < until, "the requests do not arrive");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::mem::take(&mut *self.echo.kept.lock())
    }
}

fn free(count: u32) -> Request {
    let run = PageRun::new(PageId::FIRST, count).unwrap();
    Request::Page(PageRequest::Free { runs: vec![run] })
}

fn freed(count: u32) -> Result<Reply, TransportError> {
    Ok(Reply::Page(Ok(PageReply::Freed(count.into()))))
}

fn write(len: usize, fill: u8) -> Request {
    let at = pool::addr::GAddr::from_raw(4096, pool::addr::PageSize::MIN).unwrap();
    Request::Page(PageRequest::Write { at, data: vec![fill; len] })
}

fn prepare(image: Image) -> Request {
    let token = pool::proto::cluster::SwapToken { rack: RackId(0), incarnation: 1, term: 1, number: 1 };
    Request::Peer(PeerRequest::Prepare {
        token,
        page: image.page,
        heat: 1.5,
        victim: Some(image),
        lend: false,
    })
}

#[test]
fn short_and_long_messages_of_many_threads_find_their_callers() {
    let node = Node::new();
    let client = node.client(LONG);
    std::thread::scope(|scope| {
        for thread in 0..8u8 {
            let client = &client;
            scope.spawn(move || {
                for i in 0..300u32 {
                    assert_eq!(client.call(ME, free(i + 1)), freed(i + 1));
                    let data = vec![thread; 1 + i as usize * 50];
                    let reply = client.call(ME, write(data.len(), thread));
                    assert_eq!(reply, Ok(Reply::Page(Ok(PageReply::Data(data)))));
                    if i % 60 == 0 {
                        let image = Image::new(PageId::FIRST, PageKind::File, vec![thread; 2 << 20]);
                        let reply = client.call(ME, prepare(image.clone()));
                        assert_eq!(reply, Ok(Reply::Peer(Ok(PeerReply::Ready { image, incarnation: 1 }))));
                    }
                }
            });
        }
    });
}

#[test]
fn many_requests_are_under_way_at_once_and_answered_in_any_order() {
    let node = Node::new();
    let client = node.client(LONG);
    let (sender, receiver) = channel();
    for i in 0..100 {
        let sender = sender.clone();
        let done = Box::new(move |reply| sender.send((i, reply)).unwrap());
        client.start(ME, Request::Page(PageRequest::Stat), done);
    }
    // A request behind them is not held up.
    assert_eq!(client.call(ME, free(5)), freed(5));
    for answer in node.kept(100).into_iter().rev() {
        answer(Reply::Unsupported);
    }
    let mut seen: Vec<_> = receiver.iter().take(100).map(|(i, reply)| (i, reply.unwrap())).collect();
    seen.sort_by_key(|(i, _)| *i);
    assert!(seen.iter().enumerate().all(|(at, (i, reply))| at == *i && *reply == Reply::Unsupported));
    let replies = client.call_all(ME, (1..50).map(free).collect());
    assert_eq!(replies, (1..50).map(freed).collect::<Vec<_>>());
}

#[test]
fn a_request_that_is_not_answered_is_an_error_at_its_deadline() {
    let node = Node::new();
    let client = node.client(Duration::from_millis(50));
    let late = client.call(ME, Request::Page(PageRequest::Stat));
    assert_eq!(late, Err(TransportError::TimedOut(ME)));
    node.kept(1).into_iter().for_each(|answer| answer(Reply::Unsupported));
    assert_eq!(client.call(ME, free(2)), freed(2), "the late answer is nobody's");
}

#[test]
fn a_peer_that_accepts_and_says_nothing_is_an_error_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = transport(None, Duration::from_millis(50));
    client.set_addr(ME, listener.local_addr().unwrap().to_string());
    assert_eq!(client.call(ME, free(1)), Err(TransportError::TimedOut(ME)));
}

#[test]
fn what_cannot_be_connected_to_is_an_error_that_says_why() {
    let node = Node::new();
    let client = transport(None, LONG);
    assert_eq!(client.call(NodeId::Master, free(1)), Err(TransportError::NoSuchNode(NodeId::Master)));
    let refused = |client: &Tcp, to: NodeId, why: &str| match client.call(to, free(1)) {
        Err(TransportError::Broken(node, text)) => assert!(node == to && text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    };
    client.set_addr(NodeId::Master, node.addr.to_string());
    refused(&client, NodeId::Master, "this is the daemon of rack 3, not the master");
    let other = Tcp::new(TcpConfig { me: None, cluster: 78, deadline: LONG }).unwrap();
    other.set_addr(ME, node.addr.to_string());
    refused(&other, ME, "this is cluster");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    client.set_addr(ME, nobody.to_string());
    refused(&client, ME, &nobody.to_string());
    client.set_addr(ME, node.addr.to_string());
    assert_eq!(client.call(ME, free(3)), freed(3), "another address is tried at once");
}

#[test]
fn a_server_that_ends_fails_what_it_has_not_answered_and_one_in_its_place_is_found() {
    let mut node = Node::new();
    let client = node.client(LONG);
    let lost = Arc::new(Mutex::new(Vec::new()));
    let noted = lost.clone();
    client.set_watch(Box::new(move |node| noted.lock().push(node)));
    let (sender, receiver) = channel();
    let done = Box::new(move |reply| sender.send(reply).unwrap());
    client.start(ME, Request::Page(PageRequest::Stat), done);
    let answers = node.kept(1);
    node.server.take();
    assert!(matches!(receiver.recv_timeout(LONG).unwrap(), Err(TransportError::Broken(ME, _))));
    answers.into_iter().for_each(|answer| answer(Reply::Unsupported));
    let until = Instant::now() + LONG;
    let next = loop {
        // The old connections may keep the port for a moment.
        match TcpListener::bind(node.addr) {
            Ok(listener) => break Node::at(listener),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => panic!("{e}"),
        }
    };
    while client.call(ME, free(9)) != freed(9) {
        assert!(Instant::now() < until, "it is not found again");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(lost.lock().first(), Some(&ME));
    drop(next);
    drop(node.tcp);
}

fn introduce(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(&Hello { from: None, to: ME, cluster: CLUSTER }.encode()).unwrap();
    let mut welcome = [0; WELCOME];
    stream.read_exact(&mut welcome).unwrap();
    assert_eq!(frame::refused(&welcome), Ok(None));
    stream
}

/// The other side closes; what it says before is returned.
fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(e) => panic!("it is not closed: {e}"),
    }
}

#[test]
fn hostile_bytes_end_their_own_connection_and_nothing_else() {
    let node = Node::new();
    let client = node.client(LONG);
    assert_eq!(client.call(ME, free(1)), freed(1));
    let good = frame::encode(Kind::Request, 1, &free(1)).unwrap();
    let mut hostile: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut bad_sum = good.clone();
    bad_sum[4] ^= 1;
    hostile.push(("a wrong checksum", bad_sum));
    let mut long = good.clone();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    hostile.push(("a huge length", long));
    let mut kind = good.clone();
    kind[8] = 9;
    hostile.push(("an unknown kind", kind));
    hostile
        .push(("nonsense with a right checksum", frame::encode(Kind::Request, 1, &vec![255u8; 40]).unwrap()));
    hostile.push(("noise", (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()));
    for (what, bytes) in hostile {
        let mut stream = introduce(node.addr);
        stream.write_all(&bytes).unwrap();
        assert_eq!(closed(stream), b"", "{what}");
        assert_eq!(client.call(ME, free(4)), freed(4), "{what}");
    }
    // A reply to nothing is nobody's; what follows it is served.
    let mut stream = introduce(node.addr);
    stream.write_all(&frame::encode(Kind::Reply, 5, &Reply::Unsupported).unwrap()).unwrap();
    stream.write_all(&good).unwrap();
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(frame::header(&head).unwrap().map(|h| (h.kind, h.id)), Some((Kind::Reply, 1)));
}

#[test]
fn strangers_are_told_and_shown_out() {
    let node = Node::new();
    let mut stream = TcpStream::connect(node.addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n").unwrap();
    let said = String::from_utf8_lossy(&closed(stream)).into_owned();
    assert!(said.contains("not rchfs's protocol"), "{said}");
    // One that says nothing, and one that stops in the middle of a frame, hold nobody up.
    let silent = TcpStream::connect(node.addr).unwrap();
    let mut halfway = introduce(node.addr);
    halfway.write_all(&[1; 10]).unwrap();
    assert_eq!(node.client(LONG).call(ME, free(4)), freed(4));
    drop((silent, halfway));
}

#[test]
fn transports_leave_no_threads_and_no_descriptors_behind() {
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let round = || {
        let node = Node::new();
        assert_eq!(node.client(LONG).call(ME, free(4)), freed(4));
    };
    round();
    let before = (count("fd"), count("task"));
    for _ in 0..40 {
        round();
    }
    let until = Instant::now() + LONG;
    // Other tests of this process come and go: it is enough that the number does not grow with the rounds.
    while count("fd") > before.0 + 30 || count("task") > before.1 + 30 {
        assert!(Instant::now() < until, "{before:?} became {:?}", (count("fd"), count("task")));
        std::thread::sleep(Duration::from_millis(10));
    }
}
