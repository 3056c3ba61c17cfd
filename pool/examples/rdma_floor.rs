//! What a one-sided access of 64 bytes takes by a link, and by the TCP transport, from the caller's thread: for
//! `scripts/vm/run.sh numbers`, beside perftest. Prints medians in microseconds:
//!
//! | line | what |
//! | --- | --- |
//! | `read`, `write` | from the call until it has ended: the bytes are here, or acknowledged by the other side |
//! | `write-seen` | half of the time of two writes back and forth, each seen by polling memory: what `ib_write_lat` tells |
//! | `tcp-read`, `tcp-write` | `read` and `write` by the TCP transport, whose other end does the copy |
//!
//!     rdma_floor [ITERATIONS]

use pool::addr::{PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::proto::peer::{PeerReply, PeerRequest, RemoteAt};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::fabric::{Accepted, Fabric, Landed, Link};
use pool::transport::rdma::{Rdma, RdmaConfig, RdmaDevice};
use pool::transport::{Handler, Tcp, TcpConfig, Transport};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

const BYTES: usize = 64;
const HOME: NodeId = NodeId::Daemon(RackId(1));
const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon's part in accesses by TCP: it copies.
struct Copies(Arc<Region>);

impl Handler for Copies {
    fn handle(&self, request: Request) -> Reply {
        let mut data = vec![0; BYTES];
        match request {
            Request::Peer(PeerRequest::ReadAt { at, .. }) => {
                self.0.read(at.offset, &mut data);
                Reply::Peer(Ok(PeerReply::Data(data)))
            }
            Request::Peer(PeerRequest::WriteAt { at, data }) => {
                self.0.write(at.offset, &data);
                Reply::Peer(Ok(PeerReply::Done))
            }
            _ => Reply::Unsupported,
        }
    }
}

/// The home's end of a link, which must be kept, and the holder's.
type LinkEnds = (Arc<dyn Accepted>, Arc<dyn Link>);

/// A rack's memory and device.
struct End {
    region: Arc<Region>,
    fabric: Arc<Rdma>,
    handler: Arc<dyn Handler>,
}

impl End {
    fn new(rack: u16) -> Result<Self, String> {
        let config =
            RdmaConfig { device: None, near: None, deadline: DEADLINE, spin: Duration::from_millis(50) };
        let spec =
            Spec { rack: RackId(rack), page_size: PageSize::MIN, size: 8 << 20, cluster: None, channels: 0 };
        let (region, _) = Region::open(&RegionSource::Memfd, &spec).map_err(|e| e.to_string())?;
        let region = Arc::new(region);
        let fabric = RdmaDevice::open(config)?.register(region.clone())?;
        let handler = Arc::new(Copies(region.clone()));
        Ok(Self { region, fabric, handler })
    }

    fn link(&self, to: &Self) -> Result<LinkEnds, String> {
        let (begun, offer) = self.fabric.begin()?;
        let (accepted, answer) = to.fabric.accept(&offer, Arc::downgrade(&to.handler))?;
        Ok((accepted, begun.finish(HOME, &answer)?))
    }
}

fn main() -> Result<(), String> {
    let iterations = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse()).map_err(|e| format!("{e}"))?;
    let (home, holder) = (End::new(1)?, End::new(0)?);
    let (_accepted, link) = holder.link(&home)?;
    let at = home.region.geometry().frames_at;
    let ended = Ended::default();
    show("read", iterations, || read(&*link, at, &ended))?;
    show("write", iterations, || write(&*link, at, 7, &ended))?;
    let (_accepted_back, back) = home.link(&holder)?;
    ping_pong(iterations, (&*link, &holder.region), (&*back, &home.region), at + 4096)?;
    let (_there, tcp) = by_tcp(&home)?;
    let at = RemoteAt { offset: at, key: 1, holder: RackId(0) };
    show("tcp-read", iterations, || {
        wait(|done| tcp.start_read(HOME, at, BYTES as u32, Box::new(move |r| done(r.is_ok()))))
    })?;
    show("tcp-write", iterations, || {
        wait(|done| tcp.start_write(HOME, at, vec![7; BYTES], Box::new(move |r| done(r.is_ok()))))
    })
}

/// The median of so many.
fn show(name: &str, iterations: usize, mut go: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    for _ in 0..iterations / 10 {
        go()?;
    }
    let mut times = Times::new(iterations);
    for _ in 0..iterations.max(1) {
        go()?;
        times.mark();
    }
    times.show(name, 1.0);
    Ok(())
}

/// The times between marks, one an access as perftest does.
struct Times(Vec<f64>, Instant);

impl Times {
    fn new(count: usize) -> Self {
        Self(Vec::with_capacity(count + 1), Instant::now())
    }

    fn mark(&mut self) {
        let now = Instant::now();
        self.0.push((now - self.1).as_secs_f64() * 1e6);
        self.1 = now;
    }

    fn show(&mut self, name: &str, of: f64) {
        self.0.sort_by(f64::total_cmp);
        println!("{name} {:.2}", self.0[self.0.len() / 2] / of);
    }
}

/// Says that an access has ended; mostly before the call that began it returns.
#[derive(Clone, Default)]
struct Ended(Arc<AtomicU8>);

impl Ended {
    fn tell<T>(&self) -> Landed<T> {
        let this = self.clone();
        Box::new(move |result| this.0.store(if result.is_ok() { 1 } else { 2 }, Ordering::Release))
    }

    fn wait(&self) -> Result<(), String> {
        loop {
            match self.0.swap(0, Ordering::Acquire) {
                0 => std::thread::yield_now(),
                1 => return Ok(()),
                _ => return Err("an access has failed".into()),
            }
        }
    }
}

fn read(link: &dyn Link, at: u64, ended: &Ended) -> Result<(), String> {
    link.read(at, BYTES as u32, ended.tell()).map_err(|_| "the link is down")?;
    ended.wait()
}

fn write(link: &dyn Link, at: u64, byte: u8, ended: &Ended) -> Result<(), String> {
    link.write(at, vec![byte; BYTES], ended.tell()).map_err(|_| "the link is down")?;
    ended.wait()
}

/// Waits for an access by TCP.
fn wait(start: impl FnOnce(Box<dyn FnOnce(bool) + Send>)) -> Result<(), String> {
    let (sender, receiver) = sync_channel(1);
    start(Box::new(move |good| {
        let _ = sender.send(good);
    }));
    receiver.recv().map_err(|e| e.to_string())?.then_some(()).ok_or_else(|| "by TCP: it failed".into())
}

/// Writes back and forth: each side writes once it has seen the other's.
fn ping_pong(
    iterations: usize,
    (there, here): (&dyn Link, &Region),
    (back, far): (&dyn Link, &Region),
    at: u64,
) -> Result<(), String> {
    // The last byte, as perftest does.
    let see = |region: &Region, byte: u8| {
        let (mut last, begun) = ([0], Instant::now());
        for look in 1u64.. {
            region.read(at + BYTES as u64 - 1, &mut last);
            if last[0] == byte {
                break;
            }
            if look % 4096 == 0 && begun.elapsed() > DEADLINE {
                return Err("the other side's write does not come");
            }
            std::hint::spin_loop();
        }
        Ok(())
    };
    let number = |n: usize| (n % 250 + 1) as u8;
    let all = iterations;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let ended = Ended::default();
            for n in 0..all {
                see(far, number(n))?;
                write(back, at, number(n), &ended)?;
            }
            Ok::<_, String>(())
        });
        let (ended, mut times) = (Ended::default(), Times::new(all));
        for n in 0..all {
            write(there, at, number(n), &ended)?;
            see(here, number(n))?;
            times.mark();
        }
        times.show("write-seen", 2.0);
        other.join().map_err(|_| "the other side has panicked")?
    })
}

/// The TCP transport, and what serves at the other end.
fn by_tcp(home: &End) -> Result<(impl Sized, Arc<Tcp>), String> {
    let config = |me| TcpConfig { me, cluster: 0, deadline: DEADLINE };
    let tcp = |me| Tcp::new(config(me)).map_err(|e| e.to_string());
    let (there, here) = (tcp(Some(HOME))?, tcp(None)?);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let server = there.serve(listener, HOME, home.handler.clone()).map_err(|e| e.to_string())?;
    here.set_addr(HOME, server.local_addr().to_string());
    Ok(((there, server), here))
}
