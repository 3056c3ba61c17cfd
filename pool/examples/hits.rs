//! What an access to a page of this rack costs: nanoseconds of 64-byte reads and writes, the least of
//! several rounds, beside the same on bare memory. `cargo run --release --example hits [THREADS]`.

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::addr::{GAddr, PageSize, RackId};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use pool::{Fill, Pool};
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ACCESSES: u64 = 2_000_000;
const ROUNDS: usize = 9;
const LEN: usize = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let threads: usize = std::env::args().nth(1).map_or(Ok(1), |n| n.parse())?;
    let rack = RackId(0);
    let (source, size, page_size) = (RegionSource::Memfd, 256 << 20, PageSize::MIN);
    let daemon = Arc::new(Daemon::start(DaemonConfig { rack, source, size, page_size })?);
    let handler: Arc<dyn Handler> = daemon.clone();
    let transport = Arc::new(Local::new());
    transport.register(NodeId::Daemon(rack), &handler);
    let pool = Pool::attach(daemon.region(), rack, transport)?;
    for (name, bytes) in [("16 KiB", 16 << 10), ("128 MiB", 128u64 << 20)] {
        let runs = pool.alloc_runs(page_size.pages_for(bytes), 0, Fill::Zeroed)?;
        let base = GAddr::new(runs[0].first, 0, page_size).ok_or("no such address")?;
        pool.write(base, &vec![1; bytes as usize])?;
        let bare = vec![1u8; bytes as usize];
        let at = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20 & (bytes / LEN as u64 - 1);
        let read = best(threads, |i| {
            let mut to = [0; LEN];
            let place = base.checked_add(at(i) * LEN as u64, page_size).unwrap_or(base);
            pool.read(place, &mut to).is_ok() && black_box(to)[0] == 1
        });
        let write = best(threads, |i| {
            let place = base.checked_add(at(i) * LEN as u64, page_size).unwrap_or(base);
            pool.write(place, black_box(&[1; LEN])).is_ok()
        });
        let floor = best(threads, |i| {
            let from = (at(i) as usize) * LEN;
            black_box::<[u8; LEN]>(bare[from..from + LEN].try_into().unwrap_or([0; LEN]))[0] == 1
        });
        println!("{name}: read {read:.2} ns, write {write:.2} ns; bare read {floor:.2} ns");
        pool.free_runs(&runs)?;
    }
    Ok(())
}

/// Nanoseconds of an access in the best round, of the slowest thread.
fn best(threads: usize, access: impl Fn(u64) -> bool + Sync) -> f64 {
    let round = |seed: u64| {
        let start = Instant::now();
        let good = (0..ACCESSES).filter(|i| access(i + seed)).count() as u64;
        assert_eq!(good, ACCESSES, "an access failed");
        start.elapsed().as_secs_f64() * 1e9 / ACCESSES as f64
    };
    let all = |n: usize| {
        std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..threads).map(|t| scope.spawn(move || round((n * threads + t) as u64 * 77_777))).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).fold(0.0, f64::max)
        })
    };
    (0..ROUNDS).map(all).fold(f64::INFINITY, f64::min)
}
