//! Short reads of pages of other racks, asked of the daemon that holds them by this very thread.
//!
//! By way of the own rack's daemon a read of a page of another rack wakes up to four threads, one after the other: the
//! daemon's for the rings, the other daemon's, the own daemon's for its connection, and who asked. To wake one costs more than
//! everything else that a short read does: 5 us on a busy processor, 40 us and more on an idle one. Here the reader
//! asks by a line of its own ([`Tcp`]), which costs two wake-ups at most, and none where there are processors to spare.
//!
//! The daemon of the own rack is asked first, page by page, and allows it only where nothing is lost by its not seeing
//! the accesses: where pages are never moved here however hot they are, and where there is no one-sided access, which is
//! faster still.
//!
//! # Invariants
//!
//! - Nothing but reads goes this way, so that an answer that was lost is asked for once more the other way.
//! - A request names the page and not a frame. The home looks whether it has the page, as if one of its own clients read it: no
//!   reference is needed, and nothing has to be revoked.
//! - Whatever goes wrong here ends in `None`: then the daemon of the own rack is asked, and what it answers is true.
//!
//! Locks: all are leaves; none is held while anything is waited for.

use super::Pool;
use crate::addr::{GAddr, PageId, RackId};
use crate::proto::page::{Home, PageReply, PageRequest};
use crate::proto::peer::{PeerReply, PeerRequest};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::Tcp;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The longest read, in bytes. Longer ones gain little, and several pieces at once are asked for together.
pub(super) const READ_MAX: u64 = 4 << 10;
/// How long the answer that a page's home may be asked directly is true.
const VALID: Duration = Duration::from_secs(5);
/// How long nothing is asked directly after the daemon of the own rack has refused it.
const REFUSED: Duration = Duration::from_secs(1);
/// How long a daemon that did not answer is left alone.
const ALONE: Duration = Duration::from_secs(2);
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pages whose homes are remembered.
const PAGES: usize = 1 << 18;

/// What this process knows about asking other racks' daemons.
pub(super) struct Direct {
    /// Reaches them, once it has been told where they are.
    tcp: Arc<Tcp>,
    homes: RwLock<HashMap<PageId, (Arc<Way>, Instant)>>,
    ways: Mutex<HashMap<RackId, Arc<Way>>>,
    refused: Mutex<Option<Instant>>,
}

/// A daemon of another rack.
struct Way {
    to: NodeId,
    addr: String,
    alone: Mutex<Option<Instant>>,
}

impl Direct {
    /// By `tcp`, which knows the cluster.
    pub fn new(tcp: Arc<Tcp>) -> Self {
        let (homes, ways, refused) = Default::default();
        Self { tcp, homes, ways, refused }
    }

    /// Reads `len` bytes at `at`, all in one page. `None` if that has to be done another way.
    pub fn read(&self, pool: &Pool, at: GAddr, len: u32) -> Option<Vec<u8>> {
        // In a child that was forked no lock can be relied on to be free.
        if !self.tcp.is_ours() || self.refused.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let page = at.page(pool.page_size())?;
        let known = self.homes.read().get(&page).filter(|(_, asked)| asked.elapsed() < VALID).cloned();
        let way = known.map(|(way, _)| way).or_else(|| self.find(pool, page))?;
        match way.ask(&self.tcp, PeerRequest::Read { at, len }) {
            Some(PeerReply::Data(data)) if data.len() == len as usize => Some(data),
            Some(PeerReply::NotHere) => {
                self.homes.write().remove(&page);
                None
            }
            _ => None,
        }
    }

    /// Asks the daemon of the own rack whom to ask about `page`.
    fn find(&self, pool: &Pool, page: PageId) -> Option<Arc<Way>> {
        let (rack, addr) = match pool.call(PageRequest::Home { page }) {
            Ok(PageReply::Home(Home::At { rack, addr })) => (rack, addr),
            Ok(PageReply::Home(Home::Unknown)) => return None,
            _ => {
                *self.refused.lock() = Some(Instant::now() + REFUSED);
                return None;
            }
        };
        let way = {
            let mut ways = self.ways.lock();
            match ways.get(&rack).filter(|way| way.addr == addr) {
                Some(way) => Arc::clone(way),
                None => {
                    let way = Arc::new(Way { to: NodeId::Daemon(rack), addr, alone: Mutex::default() });
                    self.tcp.set_addr(way.to, way.addr.clone());
                    ways.insert(rack, Arc::clone(&way));
                    way
                }
            }
        };
        let mut homes = self.homes.write();
        if homes.len() >= PAGES {
            homes.clear();
        }
        homes.insert(page, (Arc::clone(&way), Instant::now()));
        Some(way)
    }
}

impl Way {
    /// What the daemon answers; `None` if it does not, or refuses.
    fn ask(&self, tcp: &Tcp, request: PeerRequest) -> Option<PeerReply> {
        if self.alone.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match tcp.call_within(self.to, &Request::Peer(request), PATIENCE) {
            Ok(Reply::Peer(Ok(reply))) => Some(reply),
            Ok(_) => None,
            Err(why) => {
                log::debug!("a daemon does not answer this client: {why}");
                *self.alone.lock() = Some(Instant::now() + ALONE);
                None
            }
        }
    }
}
