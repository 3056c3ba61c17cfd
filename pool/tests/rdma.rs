//! Links by real verbs, between two regions of this process. Needs a device: `scripts/vm/run.sh suite` runs it
//! in a virtual machine that has one; elsewhere it says that it was skipped.
#![cfg(feature = "rdma")]

use parking_lot::Mutex;
use pool::addr::{GAddr, PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Handler;
use pool::transport::fabric::{Accepted, Fabric, Link};
use pool::transport::rdma::{Rdma, RdmaConfig, RdmaDevice};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

const HOME: NodeId = NodeId::Daemon(RackId(1));
const LONG: Duration = Duration::from_secs(60);

/// The device, or a line that there is none.
fn device() -> Option<RdmaDevice> {
    let config = RdmaConfig { device: None, near: None, deadline: LONG, spin: Duration::from_micros(200) };
    match RdmaDevice::open(config) {
        Ok(device) => Some(device),
        Err(why) => {
            assert!(std::env::var_os("RCHFS_VM").is_none(), "there must be a device here: {why}");
            let line = format!("pool::rdma: no device: {why}\n");
            eprint!("skipped: {line}");
            if let Some(path) = std::env::var_os("RCHFS_E2E_SKIPPED") {
                use std::io::Write;
                let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
                file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the file can be written");
            }
            None
        }
    }
}

fn region(source: RegionSource, rack: u16) -> Arc<Region> {
    let size =
        if matches!(&source, RegionSource::Path(path) if path.starts_with("/dev/dax")) { 0 } else { 8 << 20 };
    let spec = Spec { rack: RackId(rack), page_size: PageSize::MIN, size, cluster: None, channels: 0 };
    Arc::new(Region::open(&source, &spec).unwrap().0)
}

/// Serves compare-and-swap by counting.
#[derive(Default)]
struct Echo(AtomicU64);

impl Handler for Echo {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Peer(PeerRequest::Cas { old, .. }) => {
                self.0.fetch_add(1, Ordering::Relaxed);
                Reply::Peer(Ok(PeerReply::Was(old)))
            }
            _ => Reply::Unsupported,
        }
    }
}

struct Pair {
    home: Arc<Region>,
    holder: Arc<Region>,
    accepted: Arc<dyn Accepted>,
    link: Arc<dyn Link>,
    home_fabric: Arc<Rdma>,
    holder_fabric: Arc<Rdma>,
    handler: Arc<dyn Handler>,
}

impl Pair {
    fn new(source: RegionSource) -> Option<Self> {
        let (home, holder) = (region(source, 1), region(RegionSource::Memfd, 0));
        let home_fabric = device()?.register(home.clone()).unwrap();
        let holder_fabric = device()?.register(holder.clone()).unwrap();
        let handler: Arc<dyn Handler> = Arc::new(Echo::default());
        let (accepted, link) = connect(&holder_fabric, &home_fabric, Arc::downgrade(&handler));
        Some(Self { home, holder, accepted, link, home_fabric, holder_fabric, handler })
    }

    /// Where the frames begin.
    fn first(&self) -> u64 {
        self.home.geometry().frames_at
    }

    fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, String> {
        let (sender, receiver) = channel();
        let done = Box::new(move |result| sender.send(result).unwrap());
        assert!(self.link.read(offset, len, done).is_ok(), "the link is up");
        receiver.recv_timeout(LONG).expect("an access ends")
    }

    fn begin_write(&self, offset: u64, data: Vec<u8>) -> Option<Receiver<Result<(), String>>> {
        let (sender, receiver) = channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.link.write(offset, data, done).is_ok().then_some(receiver)
    }

    fn write(&self, offset: u64, data: Vec<u8>) -> Result<(), String> {
        self.begin_write(offset, data).expect("the link is up").recv_timeout(LONG).expect("an access ends")
    }
}

fn connect(
    from: &Arc<Rdma>,
    to: &Arc<Rdma>,
    handler: Weak<dyn Handler>,
) -> (Arc<dyn Accepted>, Arc<dyn Link>) {
    let (begun, offer) = from.begin().unwrap();
    let (accepted, answer) = to.accept(&offer, handler).unwrap();
    (accepted, begun.finish(HOME, &answer).unwrap())
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256 + seed) as u8 | 1).collect()
}

/// What is written by the link is what the processor reads, and the other way round, whatever the ends are.
fn every_length_and_alignment(source: RegionSource) {
    let Some(pair) = Pair::new(source) else { return };
    for (n, len) in
        [1, 2, 7, 8, 9, 16, 63, 64, 65, 128, 129, 1000, 4096, 5000, 16 << 10].into_iter().enumerate()
    {
        for shift in [0, 1, 4, 7] {
            let (at, data) = (pair.first() + 32 * 1024 + shift, pattern(len, n + shift as usize));
            pair.home.zero(at - 8, len as u64 + 16);
            pair.write(at, data.clone()).unwrap();
            let mut seen = vec![0; len + 2];
            pair.home.read(at - 1, &mut seen);
            assert_eq!(seen[1..=len], data, "{len} bytes, {shift}");
            assert_eq!((seen[0], seen[len + 1]), (0, 0), "{len} bytes, {shift}: around them");
            assert_eq!(pair.read(at, len as u32).unwrap(), data, "{len} bytes, {shift}");
        }
    }
}

#[test]
fn a_memfd_is_read_and_written() {
    every_length_and_alignment(RegionSource::Memfd);
}

#[test]
fn a_file_in_memory_is_read_and_written() {
    let path = PathBuf::from(format!("/dev/shm/rchfs-rdma-test.{}", std::process::id()));
    every_length_and_alignment(RegionSource::Path(path.clone()));
    let _ = std::fs::remove_file(path);
}

#[test]
fn a_devdax_device_is_read_and_written() {
    let path = PathBuf::from("/dev/dax0.0");
    if path.exists() {
        every_length_and_alignment(RegionSource::Path(path));
    } else {
        assert!(std::env::var_os("RCHFS_VM").is_none(), "there must be a devdax device here");
        eprintln!("skipped: no /dev/dax0.0");
    }
}

#[test]
fn pages_are_fetched_from_region_to_region() {
    let Some(pair) = Pair::new(RegionSource::Memfd) else { return };
    let data = pattern(2 << 20, 3);
    pair.home.write(pair.first() + 4096, &data);
    let into = pair.holder.geometry().frames_at + 8192;
    pair.link.fetch(pair.first() + 4096, into, data.len() as u64).unwrap();
    let mut seen = vec![0; data.len()];
    pair.holder.read(into, &mut seen);
    assert!(seen == data);
    let end = pair.first() + pair.home.geometry().data_bytes();
    assert!(pair.link.fetch(end - 4096, into, 8192).is_err(), "beyond the end");
    assert!(pair.link.is_up(), "what cannot be is not tried");
}

#[test]
fn nothing_but_frames_can_be_accessed() {
    let Some(pair) = Pair::new(RegionSource::Memfd) else { return };
    let end = pair.first() + pair.home.geometry().data_bytes();
    for offset in [0, pair.first() - 8, end - 4, end, u64::MAX - 4] {
        assert!(pair.begin_write(offset, vec![1; 8]).is_none(), "{offset}");
        assert!(pair.link.read(offset, 8, Box::new(|_| panic!("it was given back"))).is_err(), "{offset}");
    }
}

#[test]
fn more_accesses_than_there_are_buffers_wait_and_all_are_done() {
    let Some(pair) = Pair::new(RegionSource::Memfd) else { return };
    let word = |n: u64| pair.first() + n * 8;
    let all: Vec<_> =
        (0..600).map(|n| pair.begin_write(word(n), (n + 1).to_ne_bytes().to_vec()).unwrap()).collect();
    all.into_iter().for_each(|one| one.recv_timeout(LONG).expect("an access ends").unwrap());
    for n in 0..600 {
        assert_eq!(pair.home.word(word(n)).cas(0, 0), n + 1);
    }
}

#[test]
fn threads_share_a_link() {
    let Some(pair) = Pair::new(RegionSource::Memfd) else { return };
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let pair = &pair;
            scope.spawn(move || {
                for n in 0..100u64 {
                    let at = pair.first() + (thread * 4096) + (n % 32) * 8;
                    let value = (thread << 32 | n).to_ne_bytes().to_vec();
                    pair.write(at, value.clone()).unwrap();
                    assert_eq!(pair.read(at, 8).unwrap(), value);
                }
            });
        }
    });
}

#[test]
fn requests_are_answered_also_many_at_once() {
    let Some(pair) = Pair::new(RegionSource::Memfd) else { return };
    let at = GAddr::new(pool::addr::PageId::FIRST, 0, PageSize::MIN).unwrap();
    let (sender, receiver) = channel();
    let mut sent = 0;
    for old in 0..200u64 {
        let request = Request::Peer(PeerRequest::Cas { at, old, new: 0 });
        let sender = sender.clone();
        let done = Box::new(move |reply| sender.send((old, reply)).unwrap());
        // Beyond its credits a link takes none.
        sent += usize::from(pair.link.request(request, done).is_ok());
    }
    assert!(sent >= 32, "{sent}");
    for _ in 0..sent {
        let (old, reply) = receiver.recv_timeout(LONG).expect("a reply comes");
        assert_eq!(reply, Ok(Reply::Peer(Ok(PeerReply::Was(old)))));
    }
    let long =
        Request::Peer(PeerRequest::Revoke { home: RackId(1), pages: vec![pool::addr::PageId::FIRST; 8000] });
    assert!(pair.link.request(long, Box::new(|_| panic!("it was given back"))).is_err());
    drop(pair.handler);
}

#[test]
fn when_an_accepted_link_is_closed_nothing_lands_any_more() {
    let Some(mut pair) = Pair::new(RegionSource::Memfd) else { return };
    for round in 0..5 {
        let stop = AtomicBool::new(false);
        let failed = Mutex::new(None);
        let after = std::thread::scope(|scope| {
            for thread in 0..2u64 {
                let (pair, stop, failed) = (&pair, &stop, &failed);
                scope.spawn(move || {
                    for n in 1.. {
                        let data: Vec<u8> =
                            [n + round * 1_000_000u64; 256].iter().flat_map(|n| n.to_ne_bytes()).collect();
                        let result = pair.begin_write(pair.first() + thread * 4096, data);
                        let result = result.map(|end| end.recv_timeout(LONG).expect("an access ends"));
                        if let Some(Err(why)) = &result {
                            *failed.lock() = Some(why.clone());
                        }
                        if !matches!(result, Some(Ok(()))) || stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(100));
            pair.accepted.close();
            let look = || {
                let mut seen = vec![0; 8192];
                pair.home.read(pair.first(), &mut seen);
                seen
            };
            let at_once = look();
            // The holder does not know: it goes on until its device gives up.
            std::thread::sleep(Duration::from_millis(300));
            let after = at_once == look();
            stop.store(true, Ordering::Relaxed);
            pair.link.close("the test has seen enough");
            after
        });
        assert!(after, "something landed after the link was closed");
        assert!(!pair.link.is_up() && !pair.accepted.is_up());
        // And a new one works.
        (pair.accepted, pair.link) =
            connect(&pair.holder_fabric, &pair.home_fabric, Arc::downgrade(&pair.handler));
        pair.write(pair.first(), vec![9; 64]).unwrap();
    }
}

#[test]
fn an_access_whose_home_is_gone_ends_with_an_error() {
    let config = RdmaConfig {
        device: None,
        near: None,
        deadline: Duration::from_secs(2),
        spin: Duration::from_micros(200),
    };
    if device().is_none() {
        return;
    }
    let home = RdmaDevice::open(config.clone()).unwrap().register(region(RegionSource::Memfd, 1)).unwrap();
    let holder = RdmaDevice::open(config).unwrap().register(region(RegionSource::Memfd, 0)).unwrap();
    let handler: Arc<dyn Handler> = Arc::new(Echo::default());
    let (accepted, link) = connect(&holder, &home, Arc::downgrade(&handler));
    accepted.close();
    let (sender, receiver) = channel();
    let frames = Region::geometry(&region(RegionSource::Memfd, 1)).frames_at;
    assert!(link.write(frames, vec![1; 64], Box::new(move |result| sender.send(result).unwrap())).is_ok());
    receiver.recv_timeout(LONG).expect("an access ends").expect_err("there is nobody");
    assert!(!link.is_up());
    assert!(link.write(frames, vec![1; 64], Box::new(|_| panic!("it was given back"))).is_err());
}
