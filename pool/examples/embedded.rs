//! A whole pool in this process, and all that a client does with one: pages, words, small objects.
//!
//! ```text
//! cargo run -p pool --example embedded
//! ```

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::addr::{GAddr, PageSize, RackId};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use pool::{Fill, Pool};
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let (rack, page_size) = (RackId(0), PageSize::MIN);
    let config = DaemonConfig { rack, source: RegionSource::Memfd, size: 16 << 20, page_size };
    let daemon = Arc::new(Daemon::start(config)?);
    let handler: Arc<dyn Handler> = daemon.clone();
    let transport = Arc::new(Local::new());
    transport.register(NodeId::Daemon(rack), &handler);
    let pool = Pool::attach(daemon.region(), rack, transport)?;
    let stat = pool.stat()?;
    println!("a pool of {} pages of {page_size}, {} free", stat.total, stat.free);

    // Ten pages are one range of addresses; an access may cross their ends.
    let runs = pool.alloc_runs(10, 0, Fill::Zeroed)?;
    let base = GAddr::new(runs[0].first, 0, page_size).ok_or("no such address")?;
    let edge = base.checked_add(page_size.bytes() - 6, page_size).ok_or("no such address")?;
    pool.write(edge, b"across two pages")?;
    let mut text = [0; 16];
    pool.read(edge, &mut text)?;
    println!("{:#x}: {}", edge.raw(), String::from_utf8_lossy(&text));

    // Four threads count in one word; none of them loses an increment.
    std::thread::scope(|scope| {
        let count = || {
            for _ in 0..1000 {
                let mut seen = 0;
                loop {
                    match pool.cas(base, seen, seen + 1) {
                        Ok(was) if was == seen => break,
                        Ok(was) => seen = was,
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    let mut word = [0; 8];
    pool.read(base, &mut word)?;
    println!("{:#x}: counted to {}", base.raw(), u64::from_le_bytes(word));
    assert_eq!(u64::from_le_bytes(word), 4000);

    println!("{} pages freed", pool.free_runs(&runs)?);
    assert!(pool.read(base, &mut word).is_err(), "what is freed is an error, never another's bytes");
    Ok(())
}
