//! What a one-sided access of 64 bytes takes by a link, from the caller's thread: for `scripts/vm/run.sh numbers`,
//! beside perftest. Prints medians in microseconds.
//!
//!     rdma_floor [ITERATIONS]

use pool::addr::{PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Handler;
use pool::transport::fabric::{Fabric, Link};
use pool::transport::rdma::{RdmaConfig, RdmaDevice};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

struct Nobody;

impl Handler for Nobody {
    fn handle(&self, _: Request) -> Reply {
        Reply::Unsupported
    }
}

fn main() -> Result<(), String> {
    let iterations = std::env::args().nth(1).map_or(Ok(1000), |n| n.parse()).map_err(|e| format!("{e}"))?;
    let config = RdmaConfig {
        device: None,
        near: None,
        deadline: Duration::from_secs(60),
        spin: Duration::from_millis(50),
    };
    let end = |rack| {
        let spec =
            Spec { rack: RackId(rack), page_size: PageSize::MIN, size: 8 << 20, cluster: None, channels: 0 };
        let (region, _) = Region::open(&RegionSource::Memfd, &spec).map_err(|e| e.to_string())?;
        let region = Arc::new(region);
        Ok::<_, String>((RdmaDevice::open(config.clone())?.register(region.clone())?, region))
    };
    let ((home, region), (holder, _)) = (end(1)?, end(0)?);
    let handler: Arc<dyn Handler> = Arc::new(Nobody);
    let (begun, offer) = holder.begin()?;
    let (_accepted, answer) = home.accept(&offer, Arc::downgrade(&handler))?;
    let link = begun.finish(NodeId::Daemon(RackId(1)), &answer)?;
    let at = region.geometry().frames_at;
    for (name, access) in [("read", read as fn(&dyn Link, u64) -> Result<(), String>), ("write", write)] {
        for _ in 0..iterations / 10 {
            access(&*link, at)?;
        }
        // The clock of a virtual machine takes long to read: ten accesses between two looks at it.
        let mut times = Vec::new();
        for _ in 0..(iterations / 10).max(1) {
            let begun = Instant::now();
            for _ in 0..10 {
                access(&*link, at)?;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e5);
        }
        times.sort_by(f64::total_cmp);
        println!("{name} {:.2}", times[times.len() / 2]);
    }
    Ok(())
}

fn read(link: &dyn Link, at: u64) -> Result<(), String> {
    let (sender, receiver) = sync_channel(1);
    let begun = link.read(at, 64, Box::new(move |result| drop(sender.send(result.map(drop)))));
    begun.map_err(|_| "the link is down")?;
    receiver.recv().map_err(|e| e.to_string())?
}

fn write(link: &dyn Link, at: u64) -> Result<(), String> {
    let (sender, receiver) = sync_channel(1);
    let begun = link.write(at, vec![7; 64], Box::new(move |result| drop(sender.send(result))));
    begun.map_err(|_| "the link is down")?;
    receiver.recv().map_err(|e| e.to_string())?
}
