//! A pool in this process, for the tests.

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::Pool;
use pool::addr::{GAddr, PageId, PageSize, RackId};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use std::path::Path;
use std::sync::Arc;

pub const RACK: RackId = RackId(0);

pub struct Embedded {
    pub pool: Pool,
    pub daemon: Arc<Daemon>,
    pub transport: Arc<Local>,
    _handler: Arc<dyn Handler>,
}

pub fn config(source: RegionSource, size: u64, page_size: u64) -> DaemonConfig {
    DaemonConfig { rack: RACK, source, size, page_size: PageSize::from_bytes(page_size).unwrap() }
}

pub fn start(config: DaemonConfig) -> Embedded {
    let daemon = Arc::new(Daemon::start(config).unwrap());
    let handler: Arc<dyn Handler> = daemon.clone();
    let transport = Arc::new(Local::new());
    transport.register(NodeId::Daemon(RACK), &handler);
    let pool = Pool::attach(daemon.region(), RACK, transport.clone()).unwrap();
    Embedded { pool, daemon, transport, _handler: handler }
}

pub fn memory(pages: u64, page_size: u64) -> Embedded {
    start(config(RegionSource::Memfd, pages * page_size, page_size))
}

pub fn file(path: &Path, pages: u64, page_size: u64) -> Embedded {
    start(config(RegionSource::Path(path.to_owned()), pages * page_size, page_size))
}

impl Embedded {
    pub fn at(&self, page: PageId, offset: u64) -> GAddr {
        GAddr::new(page, 0, self.pool.page_size())
            .unwrap()
            .checked_add(offset, self.pool.page_size())
            .unwrap()
    }
}
