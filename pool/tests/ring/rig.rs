//! A region in a file of its own, a daemon's poller that serves it in a thread, and clients that map the
//! file a second time, as another process would.

use pool::addr::{GAddr, PageSize, RackId};
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::cxl::ring::{Call, Server};
use pool::proto::page::{PageReply, PageRequest, PageStat};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{RingTransport, Transport, TransportError};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub const RACK: RackId = RackId(3);
pub const NODE: NodeId = NodeId::Daemon(RACK);
/// Longer than any test may take.
pub const LONG: Duration = Duration::from_secs(300);

/// A region's file; removed at the end.
pub struct Home {
    pub path: PathBuf,
}

impl Home {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rchfs-ring-test-{}-{number}", std::process::id());
        Self { path: PathBuf::from("/dev/shm").join(name) }
    }

    pub fn spec(channels: u32) -> Spec {
        Spec { rack: RACK, page_size: PageSize::MIN, size: 4 << 20, cluster: None, channels }
    }

    pub fn open(&self, channels: u32) -> Arc<Region> {
        let source = RegionSource::Path(self.path.clone());
        Arc::new(Region::open(&source, &Self::spec(channels)).unwrap().0)
    }

    pub fn client(&self, deadline: Duration) -> RingTransport {
        RingTransport::new(Arc::new(Region::join(&self.path).unwrap()), RACK, deadline).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A server whose poller runs in a thread.
pub struct Running {
    pub server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    pub fn new(region: Arc<Region>, serve: impl FnMut(Call) + Send + 'static) -> Self {
        let server = Arc::new(Server::new(region).unwrap());
        let thread = std::thread::spawn({
            let server = Arc::clone(&server);
            move || server.run(serve)
        });
        Self { server, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// A request whose answer follows from it: `len` bytes that depend on `seed`.
pub fn ask(seed: u64, len: u32) -> Request {
    let at = GAddr::from_raw(1 << 40 | seed << 3, PageSize::MIN).unwrap();
    Request::Page(PageRequest::Read { at, len })
}

/// What `ask` is answered with.
pub fn answer(request: &Request) -> Reply {
    let Request::Page(PageRequest::Read { at, len }) = request else {
        return Reply::Page(Ok(PageReply::Stat(PageStat { total: 7, free: 5 })));
    };
    let seed = at.raw() as u8 ^ (at.raw() >> 8) as u8;
    let data = (0..*len).map(|i| seed.wrapping_add(i as u8)).collect();
    Reply::Page(Ok(PageReply::Data(data)))
}

/// Answers at once.
pub fn at_once(call: Call) {
    let reply = answer(&call.request);
    call.reply.answer(&reply);
}

pub fn stat(client: &RingTransport) -> Result<Reply, TransportError> {
    client.call(NODE, Request::Page(PageRequest::Stat))
}
