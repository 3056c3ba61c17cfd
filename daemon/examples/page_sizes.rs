//! Prints what a page size costs: for each from 4K to 2M the speed of small and large accesses, of
//! allocation, and the bytes of descriptors and index a page.
//!
//! ```text
//! cargo run --release -p daemon --example page_sizes [BYTES OF THE POOL] [PATH OF A REGION]
//! ```

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::addr::{GAddr, PageRun, PageSize, RackId};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use pool::{Fill, Pool};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const RACK: RackId = RackId(0);
const LARGE: usize = 1 << 20;
const SMALL: usize = 4096;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let bytes = args.next().map_or(Ok(1 << 30), |size| size.parse())?;
    let source = args.next().map_or(RegionSource::Memfd, |path| RegionSource::Path(path.into()));
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "page",
        "64B read",
        "4K read",
        "4K write",
        "1M read",
        "1M write",
        "alloc 1M",
        "free 1M",
        "alloc+free",
        "metadata"
    );
    println!(
        "{:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "", "ns", "ns", "ns", "GB/s", "GB/s", "ns", "ns", "1 page ns", "B/page"
    );
    for shift in PageSize::MIN.shift()..=PageSize::MAX.shift() {
        let page_size = PageSize::from_shift(shift).ok_or("page size")?;
        measure(bytes, page_size, source.clone())?;
        if let RegionSource::Path(path) = &source {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn measure(bytes: u64, page_size: PageSize, source: RegionSource) -> Result<(), Box<dyn Error>> {
    let daemon = Arc::new(Daemon::start(DaemonConfig { rack: RACK, source, size: bytes, page_size })?);
    let handler: Arc<dyn Handler> = daemon.clone();
    let transport = Arc::new(Local::new());
    transport.register(NodeId::Daemon(RACK), &handler);
    let pool = Pool::attach(daemon.region(), RACK, transport)?;
    let files = files(&pool, bytes)?;

    let mut small = vec![1; SMALL];
    let mut large = Vec::with_capacity(LARGE);
    let read64 = per_call(1_000_000, |r| pool.read(place(&pool, &files, r, 64), &mut small[..64]))?;
    let read4k = per_call(300_000, |r| pool.read(place(&pool, &files, r, SMALL as u64), &mut small))?;
    let write4k = per_call(300_000, |r| pool.write(place(&pool, &files, r, SMALL as u64), &small))?;
    let read1m = per_call(2_000, |r| {
        large.clear();
        pool.read_into(place(&pool, &files, r, LARGE as u64), LARGE, &mut large)
    })?;
    let write1m = per_call(2_000, |r| pool.write(place(&pool, &files, r, LARGE as u64), &large))?;
    pool.free_runs(&files)?;

    let pages = page_size.pages_for(LARGE as u64);
    let rounds = (pool.stat()?.free / 2 / pages).clamp(1, 200) as u32;
    // Once before, for the first touch of descriptors and index is the system's work.
    alloc_and_free(&pool, pages, rounds)?;
    let (alloc, free) = alloc_and_free(&pool, pages, rounds)?;
    let single = per_call(200_000, |_| {
        let runs = pool.alloc_runs(1, 0, Fill::Uninit)?;
        pool.free_runs(&runs).map(|_| ())
    })?;
    let metadata = daemon.region().geometry().metadata_per_frame();
    println!(
        "{page_size:>5} {read64:>9.0} {read4k:>9.0} {write4k:>9.0} {:>9.2} {:>9.2} {alloc:>9.0} {free:>9.0} {single:>9.0} {metadata:>9}",
        LARGE as f64 / read1m,
        LARGE as f64 / write1m
    );
    Ok(())
}

/// Three quarters of the pool in runs of 2 MiB, written once.
fn files(pool: &Pool, bytes: u64) -> Result<Vec<PageRun>, Box<dyn Error>> {
    let size = pool.page_size();
    let image = vec![7; 2 * LARGE];
    let mut files = Vec::new();
    for _ in 0..bytes / 4 * 3 / image.len() as u64 {
        let runs = pool.alloc_runs(size.pages_for(image.len() as u64), 0, Fill::Uninit)?;
        pool.write(GAddr::new(runs[0].first, 0, size).ok_or("address")?, &image)?;
        files.extend(runs);
    }
    Ok(files)
}

/// A random multiple of `len` in a random run.
fn place(pool: &Pool, files: &[PageRun], random: u64, len: u64) -> GAddr {
    let size = pool.page_size();
    let file = files[(random >> 32) as usize % files.len()];
    let offset = (random & 0xFFFF_FFFF) % (2 * LARGE as u64 / len) * len;
    let base = GAddr::new(file.first, 0, size).and_then(|base| base.checked_add(offset, size));
    base.expect("runs lie in the address space")
}

/// Mean nanoseconds of a call, which is given a random number each time.
fn per_call<E: Error + 'static>(calls: u32, mut call: impl FnMut(u64) -> Result<(), E>) -> Result<f64, E> {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let start = Instant::now();
    for _ in 0..calls {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        call(random)?;
    }
    Ok(start.elapsed().as_nanos() as f64 / calls as f64)
}

/// Mean nanoseconds to allocate and to free runs of `pages` pages.
fn alloc_and_free(pool: &Pool, pages: u64, rounds: u32) -> Result<(f64, f64), pool::PoolError> {
    let start = Instant::now();
    let held: Result<Vec<_>, _> = (0..rounds).map(|_| pool.alloc_runs(pages, 0, Fill::Uninit)).collect();
    let (held, alloc) = (held?, start.elapsed());
    let start = Instant::now();
    for runs in &held {
        pool.free_runs(runs)?;
    }
    Ok((alloc.as_nanos() as f64 / rounds as f64, start.elapsed().as_nanos() as f64 / rounds as f64))
}
