//! What must be refused: each with one line that says what to do, and the cluster goes on as if it had never
//! been there.

use crate::on_cluster;
use e2e::cluster::{Cluster, Server, Shape};
use e2e::rustix::process::{Pid, Signal, kill_process};
use e2e::{Rng, binary, run};
use pool::addr::{GAddr, PageId, PageRun, PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::proto::cluster::{ClusterReply, ClusterRequest, RackStats, Ways};
use pool::proto::page::{PageKind, PageRequest};
use pool::proto::peer::PeerRequest;
use pool::proto::{NodeId, Reply, Request};
use pool::transport::tcp::frame::{self, HEADER, HELLO, Hello, WELCOME};
use pool::transport::{Tcp, TcpConfig, Transport};
use pool::{Pool, PoolError};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a connection may take to be closed: longer than the servers wait for a stranger to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client in each rack works for a second without an error, however little it gets done on a busy machine.
#[track_caller]
fn goes_on(cluster: &Cluster, pages: &str) {
    let clients = [0, 1].map(|rack| cluster.client(rack, pages, 1, 1.0));
    for client in clients {
        let (operations, failed) = client.finish();
        assert!(operations > 0 && failed == 0, "{operations} operations, {failed} failed");
    }
    cluster.judge().expect_none();
}

/// Two racks, and afterwards a client in each that works without an error.
fn unharmed(test: impl FnOnce(&mut Cluster)) {
    on_cluster(Shape::restless(2), |cluster, pages| {
        test(cluster);
        goes_on(cluster, pages);
    });
}

/// One line, with all of these words in it.
#[track_caller]
fn one_line(said: &str, words: &[&str]) {
    assert_eq!(said.lines().count(), 1, "not one line: {said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

/// Starts a server that must not come up.
#[track_caller]
fn refuses(cluster: &Cluster, program: &Path, arguments: &[&str], words: &[&str]) {
    let log = cluster.dir().join("refused.log");
    match Server::start(Command::new(program), arguments, &log) {
        Ok(server) => panic!("{arguments:?} was accepted: {}", server.said()),
        Err(refused) => {
            assert!(matches!(refused.status.code(), Some(1 | 2)), "{}: {}", refused.status, refused.message);
            one_line(&refused.message, words);
        }
    }
}

/// A daemon with these options after `--master`, which must not come up.
#[track_caller]
fn refuses_daemon(cluster: &Cluster, arguments: &[&str], words: &[&str]) {
    refuses(cluster, binary::rcmp_daemon(), &[&["--master", cluster.master()], arguments].concat(), words);
}

#[test]
fn a_client_of_a_rack_that_does_not_exist_is_told_which_there_are() {
    unharmed(|cluster| {
        let mut client = Command::new(binary::history());
        client.arg("make").arg(format!("master={}", cluster.master())).args(["rack=7", "count=1"]);
        let (code, said) = run::fails(&mut client);
        assert_eq!(code, Some(1));
        one_line(&said, &["no rack 7", "0, 1"]);
    });
}

#[test]
fn a_daemon_with_a_rack_id_in_use_is_told_by_whom_and_leaves_no_region() {
    unharmed(|cluster| {
        let other = cluster.region(9);
        let path = other.to_str().expect("the path is text");
        let arguments = ["--rack", "0", "--cxl", path, "--cxl-size", "32M"];
        refuses_daemon(cluster, &arguments, &["rack 0", cluster.daemon(0).addr(), "another rack id"]);
        assert!(!other.exists(), "it left a region that nobody serves");
        // And not on the memory of the one that runs either.
        let region = cluster.region(0);
        let path = region.to_str().expect("the path is text");
        let holder = cluster.daemon(0).pid().to_string();
        refuses_daemon(cluster, &["--rack", "0", "--cxl", path], &["in use", &holder]);
    });
}

/// Makes a region that nobody owns.
fn make_region(path: &Path, rack: u16, page_size: u64, cluster: u128) {
    let page_size = PageSize::from_bytes(page_size).expect("a power of two");
    let spec = Spec { rack: RackId(rack), page_size, size: 4 << 20, cluster: Some(cluster), channels: 4 };
    Region::open(&RegionSource::Path(path.into()), &spec).expect("a region can be made");
}

fn id_of(cluster: &Cluster) -> u128 {
    let master = pool::connect::to_master(cluster.master()).expect("there are threads");
    match master.call(NodeId::Master, Request::Cluster(ClusterRequest::Describe)) {
        Ok(Reply::Cluster(Ok(ClusterReply::Cluster(cluster)))) => cluster.id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_region_that_does_not_fit_is_refused_and_left_as_it_is() {
    unharmed(|cluster| {
        let (id, file) = (id_of(cluster), cluster.region(2));
        let path = file.to_str().expect("the path is text").to_owned();
        let refused = |more: &[&str], words: &[&str]| {
            let before = fs::read(&file).expect("it can be read");
            refuses_daemon(cluster, &[&["--rack", "2", "--cxl", &path], more].concat(), words);
            assert!(fs::read(&file).expect("it is still there") == before, "{path} was changed");
            fs::remove_file(&file).expect("it can be removed");
        };
        make_region(&file, 2, 64 << 10, id);
        refused(&[], &["64K", "4K", "another file"]);
        make_region(&file, 2, 4 << 10, id ^ 1);
        refused(&[], &[&path, "belongs to cluster", "name another"]);
        make_region(&file, 3, 4 << 10, id);
        refused(&[], &[&path, "rack 3"]);
        make_region(&file, 2, 4 << 10, id);
        refused(&["--cxl-size", "8M"], &[&path, "4194304"]);
        make_region(&file, 2, 4 << 10, id);
        flip(&file, 40);
        refused(&[], &[&path, "damaged"]);
        fs::write(&file, "something else entirely\n".repeat(1000)).expect("it can be written");
        refused(&["--cxl-size", "8M"], &[&path, "not a pool", "name another"]);
    });
}

/// Turns a bit of a file over.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("it can be read");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn options_that_are_unknown_and_sizes_that_are_impossible_are_refused() {
    unharmed(|cluster| {
        let file = cluster.region(2);
        let path = file.to_str().expect("the path is text");
        let daemon = |more: &[&str], words: &[&str]| {
            refuses_daemon(cluster, &[&["--rack", "2", "--cxl", path], more].concat(), words);
            assert!(!file.exists(), "{more:?} left a region");
        };
        daemon(&["--cxl-sise", "1G"], &["--cxl-sise", "--cxl-size"]);
        daemon(&["--cxl-size", "12Q"], &["12Q", "64K"]);
        daemon(&["--cxl-size", "-1"], &["--help"]);
        daemon(&[], &["0 bytes", "at least"]);
        daemon(&["--cxl-size", "1"], &["1 bytes", "4K"]);
        daemon(&["--cxl-size", "900T"], &["4K"]);
        daemon(&["--cxl-size", "15T"], &[path, "smaller"]);
        daemon(&["--cxl-size", "99999999P"], &["99999999P"]);
        daemon(&["--cxl-size", "32M", "--clients", "100000"], &["clients", "512"]);
        daemon(&["--cxl-size", "32M", "--swap-reserve", "32M"], &["reserve", "smaller"]);
        daemon(&["--cxl-size", "32M", "--listen", "0.0.0.0:0"], &["--listen", "address"]);
        refuses_daemon(cluster, &["--cxl", "/tmp", "--rack", "2", "--cxl-size", "8M"], &["/tmp", "devdax"]);
        refuses_daemon(cluster, &["--cxl", path, "--rack", "65536"], &["65536", "65535"]);
        refuses_daemon(cluster, &[], &["--cxl"]);
        let master = |arguments: &[&str], words: &[&str]| {
            refuses(cluster, binary::rcmp_master(), arguments, words);
        };
        master(&["--statte", "x"], &["--statte", "--state"]);
        master(&["--page-size", "3K"], &["3K", "4K"]);
        master(&["--page-size", "4M"], &["4M", "2M"]);
        master(&["--inodes", "0"], &["--inodes"]);
        master(&["--listen", cluster.master()], &["--listen", cluster.master()]);
        let state = cluster.dir().join("state");
        let state = state.to_str().expect("the path is text");
        let holder = cluster.master_server().pid().to_string();
        master(&["--listen", "127.0.0.1:0", "--state", state], &[state, &holder]);
    });
}

#[test]
fn a_state_with_another_page_size_is_refused_and_kept() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let id = id_of(cluster);
        let copy = cluster.dir().join("copy");
        let state = copy.to_str().expect("the path is text");
        let arguments = |size| ["--listen", "127.0.0.1:0", "--state", state, "--page-size", size];
        let start = |size| {
            let log = cluster.dir().join("copy.log");
            Server::start(Command::new(binary::rcmp_master()), &arguments(size), &log)
        };
        assert!(start("8K").expect("it is new").end().success());
        refuses(cluster, binary::rcmp_master(), &arguments("64K"), &["8K", "64K", "--page-size"]);
        assert!(start("8K").expect("it is as it was").end().success());
        assert_eq!(id_of(cluster), id);
        goes_on(cluster, pages);
    });
}

#[test]
fn rcmp_at_a_port_that_is_no_masters_says_what_is_there() {
    unharmed(|cluster| {
        let status = |addr: &str, words: &[&str]| {
            let (code, said) = run::fails(Command::new(binary::rcmp()).args(["status", "--master", addr]));
            assert_eq!(code, Some(1), "{said}");
            one_line(&said, words);
        };
        let daemon = cluster.daemon(1).addr().to_owned();
        status(&daemon, &[&daemon, "the daemon of rack 1, not the master"]);
        // A server of another kind, and one that says nothing.
        let other = TcpListener::bind("127.0.0.1:0").expect("there are ports");
        let addr = other.local_addr().expect("it is bound").to_string();
        status(&addr, &[&addr, "did not answer"]);
        let talker = std::thread::spawn(move || {
            // One of them may have been the silent one's, still in the queue.
            for stream in other.incoming().take(2).flatten() {
                let mut stream = stream;
                // It may have gone already.
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        status(&addr, &[&addr, "no rchfs answers there"]);
        talker.join().expect("it does not panic");
    });
}

/// A connection to one of the servers, as a stranger makes it.
struct Stranger(TcpStream);

impl Stranger {
    fn to(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time can be set");
        Self(stream)
    }

    /// One that has been accepted as a client.
    fn welcome(addr: &str, node: NodeId) -> Self {
        let mut stranger = Self::to(addr);
        stranger.say(&Hello { from: None, to: node, cluster: 0 }.encode());
        let mut welcome = [0; WELCOME];
        stranger.0.read_exact(&mut welcome).expect("it answers");
        assert_eq!(frame::refused(&welcome), Ok(None));
        stranger
    }

    fn say(&mut self, bytes: &[u8]) {
        // The other side may have closed already, which is what the tests ask for.
        let _ = self.0.write_all(bytes);
    }

    /// What it hears until it is closed, which must be soon.
    #[track_caller]
    fn until_closed(mut self) -> String {
        let mut heard = Vec::new();
        match self.0.read_to_end(&mut heard) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(e) => panic!("not closed after {PATIENCE:?}: {e}"),
        }
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// Runs `attack` on the master and on a daemon.
fn on_both(cluster: &Cluster, attack: impl Fn(&str, NodeId)) {
    attack(cluster.master(), NodeId::Master);
    attack(cluster.daemon(0).addr(), NodeId::Daemon(RackId(0)));
}

/// A frame of a request that both kinds of servers understand.
fn good_frame() -> Vec<u8> {
    let request = Request::Cluster(ClusterRequest::Describe);
    frame::encode(frame::Kind::Request, 1, &request).expect("it is short")
}

#[test]
fn strangers_who_do_not_say_hello_are_sent_away() {
    unharmed(|cluster| {
        on_both(cluster, |addr, node| {
            let mut rng = Rng::new(7);
            for len in [HELLO, 100, 4096, 1 << 20] {
                let mut stranger = Stranger::to(addr);
                stranger.say(&(0..len).map(|_| rng.next() as u8).collect::<Vec<_>>());
                stranger.until_closed();
            }
            let hello = Hello { from: None, to: node, cluster: 0 }.encode();
            let mut bad_crc = hello;
            bad_crc[HELLO - 1] ^= 1;
            let mut version = hello;
            version[8] ^= 0x40;
            let elsewhere = Hello { from: None, to: NodeId::Daemon(RackId(99)), cluster: 0 }.encode();
            let other = Hello { from: None, to: node, cluster: 1 }.encode();
            let words =
                ["a checksum is wrong", "same version", "not the daemon of rack 99", "this is cluster"];
            for (hello, word) in [bad_crc, version, elsewhere, other].iter().zip(words) {
                let mut stranger = Stranger::to(addr);
                stranger.say(hello);
                let heard = stranger.until_closed();
                assert!(heard.contains(word), "{heard}");
            }
        });
    });
}

#[test]
fn frames_that_do_not_check_out_end_their_connection() {
    unharmed(|cluster| {
        on_both(cluster, |addr, node| {
            let good = good_frame();
            let changed = |at: usize, value: u8| {
                let mut frame = good.clone();
                frame[at] ^= value;
                frame
            };
            let huge = [&u32::MAX.to_le_bytes()[..], &[0; HEADER - 4]].concat();
            let undecodable = frame::encode(frame::Kind::Request, 1, &vec![0xffu8; 40]).expect("it is short");
            let mut rng = Rng::new(8);
            let garbage: Vec<u8> = (0..100_000).map(|_| rng.next() as u8).collect();
            let kinds = [changed(4, 1), changed(8, 0x80), changed(16, 1), changed(HEADER, 1)];
            for bytes in kinds.iter().chain([&huge, &undecodable, &garbage]) {
                let mut stranger = Stranger::welcome(addr, node);
                stranger.say(bytes);
                stranger.until_closed();
            }
            // What came before is answered.
            let mut stranger = Stranger::welcome(addr, node);
            stranger.say(&[&good[..], &huge].concat());
            assert!(stranger.until_closed().len() >= HEADER, "the good request was not answered");
        });
    });
}

#[test]
fn those_who_stop_in_the_middle_hold_nobody_up() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let mut silent = Vec::new();
        let mut halves = Vec::new();
        for (addr, node) in
            [(cluster.master(), NodeId::Master), (cluster.daemon(0).addr(), NodeId::Daemon(RackId(0)))]
        {
            let hello = Hello { from: None, to: node, cluster: 0 }.encode();
            for _ in 0..100 {
                let mut stranger = Stranger::to(addr);
                stranger.say(&hello[..HELLO / 2]);
                silent.push(stranger);
            }
            let long = [&(4u32 << 20).to_le_bytes()[..], &[0; HEADER]].concat();
            for _ in 0..20 {
                let mut stranger = Stranger::welcome(addr, node);
                stranger.say(&long);
                halves.push(stranger);
            }
        }
        goes_on(cluster, pages);
        // Those who never said who they are have been sent away by now, or soon are.
        for stranger in silent {
            stranger.until_closed();
        }
        drop(halves);
        goes_on(cluster, pages);
    });
}

/// Requests in good form that ask for what cannot be.
fn impossible() -> Vec<Request> {
    let page = |id| PageId::new(id).expect("an id");
    let last = page(PageId::LIMIT - 1);
    let beyond = PageRun { first: last, count: 1000 };
    let at = GAddr::from_raw(u64::MAX, PageSize::MIN).expect("an address");
    let odd = GAddr::from_raw((1 << 12) + 4091, PageSize::MIN).expect("an address");
    let (pages, kind) = (u64::MAX, PageKind::Plain);
    let none = PageRun { first: page(1), count: 0 };
    let (rack, incarnation, stats) = (RackId(77), 1, RackStats::default());
    let mut requests = vec![
        Request::Page(PageRequest::Alloc { pages, leave: 0, kind }),
        Request::Page(PageRequest::Alloc { pages, leave: u64::MAX, kind }),
        Request::Page(PageRequest::Alloc { pages: 0, leave: u64::MAX, kind }),
        Request::Page(PageRequest::Alloc { pages: 1, leave: 0, kind: PageKind::Objects }),
        Request::Page(PageRequest::Read { at, len: u32::MAX }),
        Request::Page(PageRequest::Read { at: odd, len: 4096 }),
        Request::Page(PageRequest::Write { at, data: vec![1; 100_000] }),
        Request::Page(PageRequest::Write { at: odd, data: vec![1; 4096] }),
        Request::Page(PageRequest::Cas { at: odd, old: 0, new: 1 }),
        Request::Page(PageRequest::FreeObject { at }),
        Request::Page(PageRequest::AllocObject { size: 0 }),
        Request::Page(PageRequest::AllocObject { size: u64::MAX }),
        Request::Page(PageRequest::Where { page: last }),
        Request::Page(PageRequest::Home { page: last }),
        Request::Peer(PeerRequest::Read { at, len: 8 }),
        Request::Peer(PeerRequest::Read { at: odd, len: u32::MAX }),
        Request::Peer(PeerRequest::Acquire { holder: RackId(0), page: last }),
        Request::Peer(PeerRequest::Acquire { holder: RackId(99), page: last }),
        Request::Peer(PeerRequest::Revoke { home: RackId(99), pages: vec![last] }),
        Request::Peer(PeerRequest::Release { holder: RackId(99), key: u64::MAX, pages: vec![] }),
        Request::Peer(PeerRequest::Cas { at, old: 0, new: 1 }),
        Request::Peer(PeerRequest::Alloc { pages: 0, kind }),
        Request::Peer(PeerRequest::AllocObject { size: u64::MAX }),
        Request::Peer(PeerRequest::FreeObject { at }),
        Request::Cluster(ClusterRequest::Beat {
            rack,
            incarnation,
            stats,
            oldest_swap: u64::MAX,
            ways: Ways { transport: String::new(), cas: String::new() },
        }),
        Request::Cluster(ClusterRequest::Leave { rack, incarnation }),
        Request::Cluster(ClusterRequest::TakeBlock { rack, incarnation }),
        Request::Cluster(ClusterRequest::Locate { pages: vec![last; 3] }),
        Request::Cluster(ClusterRequest::Gone { rack, pages: vec![last] }),
        Request::Cluster(ClusterRequest::Barrier { name: String::new(), parties: 0, wait_ms: 1 }),
    ];
    for runs in [vec![beyond], vec![none], vec![none, beyond]] {
        requests.push(Request::Page(PageRequest::Free { runs: runs.clone() }));
        requests.push(Request::Peer(PeerRequest::Free { runs: runs.clone() }));
        requests.push(Request::Page(PageRequest::Sync { runs: runs.clone() }));
        requests.push(Request::Peer(PeerRequest::Sync { runs }));
    }
    requests
}

#[test]
fn requests_for_what_cannot_be_are_answered_and_do_no_harm() {
    unharmed(|cluster| {
        on_both(cluster, |addr, node| {
            for request in impossible() {
                let config = TcpConfig { me: None, cluster: 0, deadline: PATIENCE };
                let tcp = Tcp::new(config).expect("there are threads");
                tcp.set_addr(node, addr.to_owned());
                let reply = tcp.call(node, request.clone());
                assert!(reply.is_ok(), "{node}, {request:?}: {reply:?}");
            }
        });
    });
}

/// Waits until the master does not count on the daemon of rack 0 any more.
fn until_gone(cluster: &Cluster) {
    let master = pool::connect::to_master(cluster.master()).expect("there are threads");
    let deadline = Instant::now() + 2 * PATIENCE;
    loop {
        match master.call(NodeId::Master, Request::Cluster(ClusterRequest::Racks)) {
            Ok(Reply::Cluster(Ok(ClusterReply::Racks(racks)))) if !racks[0].alive => return,
            _ => assert!(Instant::now() < deadline, "the daemon of rack 0 still counts as alive"),
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_whose_region_was_made_anew_is_told_to_attach_again() {
    for end in [Signal::TERM, Signal::KILL] {
        on_cluster(Shape::restless(2), |cluster, _| {
            let connect = |cluster: &Cluster| Pool::connect(cluster.master(), RackId(0));
            let pool = connect(cluster).expect("it runs");
            pool.alloc_page().expect("there is room");
            let daemon = Pid::from_raw(cluster.daemon(0).pid() as i32).expect("a process has an id");
            kill_process(daemon, end).expect("a child can be signalled");
            until_gone(cluster);
            assert_eq!(pool.alloc_page().expect_err("nobody is there"), PoolError::DaemonDown(RackId(0)));
            fs::remove_file(cluster.region(0)).expect("it can be removed");
            cluster.restart_daemon(0);
            let error = pool.alloc_page().expect_err("its region is nobody's any more");
            assert_eq!(error, PoolError::StaleRegion(RackId(0)));
            one_line(&error.to_string(), &["rack 0", "attach again"]);
            let again = connect(cluster).expect("it runs again");
            again.free_page(again.alloc_page().expect("there is room")).expect("it is there");
            // The pages of the rack are gone with its region; with others all is well.
            let pages = cluster.make_pages(0, 9);
            goes_on(cluster, &pages);
        });
    }
}
