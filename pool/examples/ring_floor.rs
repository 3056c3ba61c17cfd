//! What a message to the daemon costs, beside the least that two cores can do: a round trip of one cache
//! line each way in bare shared memory, and of `PageRequest::Stat` through a channel to a daemon, with
//! both sides awake all the time. The two take turns, in rounds short enough that some of them have both
//! cores to themselves on a machine that does other things too; the best tenth of the rounds counts.
//!
//! ```text
//! cargo run --release -p pool --example ring_floor
//! ```

use daemon::{Daemon, DaemonConfig, RegionSource as DaemonRegion};
use pool::addr::{PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::cxl::ring::Server;
use pool::proto::page::{ACCESS_MAX, PageReply, PageRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, RingTransport, Transport};
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 300;
/// Not counted, at the beginning of a round.
const WARM_UP: u64 = 50;
const TRIPS: u64 = 500;
const RACK: RackId = RackId(0);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

#[repr(align(128))]
#[derive(Default)]
struct Line([AtomicU64; 8]);

/// Mean nanoseconds of a bare round trip.
fn bare() -> f64 {
    // The daemon's poller sleeps by then.
    std::thread::sleep(Duration::from_millis(1));
    let (there, back) = (Line::default(), Line::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for trip in 1..=WARM_UP + TRIPS {
                while there.0[0].load(Acquire) != trip {
                    spin_loop();
                }
                for at in 1..8 {
                    back.0[at].store(there.0[at].load(Relaxed), Relaxed);
                }
                back.0[0].store(trip, Release);
            }
        });
        let mut began = Instant::now();
        for trip in 1..=WARM_UP + TRIPS {
            if trip == WARM_UP {
                began = Instant::now();
            }
            for at in 1..8 {
                there.0[at].store(trip, Relaxed);
            }
            there.0[0].store(trip, Release);
            while back.0[0].load(Acquire) != trip {
                spin_loop();
            }
        }
        began.elapsed().as_nanos() as f64 / TRIPS as f64
    })
}

/// Mean nanoseconds of a call.
fn ours(transport: &RingTransport, request: &Request, trips: u64) -> Outcome<f64> {
    let mut began = Instant::now();
    for trip in 0..WARM_UP + trips {
        if trip == WARM_UP {
            began = Instant::now();
        }
        match transport.call(NodeId::Daemon(RACK), request.clone())? {
            Reply::Page(Ok(_)) => {}
            other => return Err(format!("unexpected {other:?}").into()),
        }
    }
    Ok(began.elapsed().as_nanos() as f64 / trips as f64)
}

/// Mean nanoseconds of one of many calls under way at once.
fn pipelined(transport: &RingTransport) -> Outcome<f64> {
    let began = Instant::now();
    let requests = vec![Request::Page(PageRequest::Stat); TRIPS as usize];
    let count = requests.len();
    for reply in transport.call_all(NodeId::Daemon(RACK), requests) {
        reply?;
    }
    Ok(began.elapsed().as_nanos() as f64 / count as f64)
}

/// The worst of the best tenth.
fn typical(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 10]
}

fn main() -> Outcome<()> {
    let path = std::path::PathBuf::from(format!("/dev/shm/rchfs-ring-floor-{}", std::process::id()));
    let source = RegionSource::Path(path.clone());
    let spec = Spec { rack: RACK, page_size: PageSize::MIN, size: 16 << 20, cluster: None, channels: 4 };
    let region = Arc::new(Region::open(&source, &spec)?.0);
    let client = Arc::new(Region::join(&path)?);
    std::fs::remove_file(&path)?;

    let config =
        DaemonConfig { rack: RACK, source: DaemonRegion::Memfd, size: 16 << 20, page_size: PageSize::MIN };
    let daemon: Arc<dyn Handler> = Arc::new(Daemon::start(config)?);
    let server = Server::new(region)?;
    let transport = RingTransport::new(client, RACK, Duration::from_secs(5))?;

    let handled = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            server.run(|call| match call.request {
                Request::Page(PageRequest::Write { .. }) => {
                    call.reply.answer(&Reply::Page(Ok(PageReply::Done)));
                }
                request if handled.load(Relaxed) => {
                    let reply = call.reply;
                    Arc::clone(&daemon).serve(request, Box::new(move |answer| reply.answer(&answer)));
                }
                _ => call.reply.answer(&Reply::Page(Ok(PageReply::Was(1)))),
            });
        });
        let result = measure(&transport, &handled);
        server.stop();
        result
    })
}

fn measure(transport: &RingTransport, handled: &AtomicBool) -> Outcome<()> {
    let stat = Request::Page(PageRequest::Stat);
    let at = pool::addr::GAddr::from_raw(1 << 12, PageSize::MIN).ok_or("no such address")?;
    let write = Request::Page(PageRequest::Write { at, data: vec![7; ACCESS_MAX] });
    let mut figures: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        figures[0].push(bare());
        handled.store(true, Relaxed);
        figures[1].push(ours(transport, &stat, TRIPS)?);
        handled.store(false, Relaxed);
        figures[2].push(ours(transport, &stat, TRIPS)?);
        figures[3].push(pipelined(transport)?);
        figures[4].push(ours(transport, &write, TRIPS)?);
    }
    let [bare, ours, empty, pipelined, write] = figures.map(typical);
    println!("bare shared-memory round trip             {bare:8.0} ns");
    println!("PageRequest::Stat by a daemon             {ours:8.0} ns");
    println!("the same answered by a constant           {empty:8.0} ns");
    println!("one of many of those under way at once    {pipelined:8.0} ns");
    println!("16 KiB of data, answered by a constant    {write:8.0} ns");
    let ratio = ours / bare;
    println!("ratio ring_round_trip {ratio:.2} goal <= 2 {}", if ratio <= 2.0 { "ok" } else { "missed" });
    Ok(())
}
