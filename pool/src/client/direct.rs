//! Short reads of pages of other racks, asked of the daemon that holds them by this very thread.
//!
//! By way of the own rack's daemon a read of a page of another rack wakes up to four threads, one after the other: the
//! daemon's for the rings, the other daemon's, the own daemon's for its connection, and who asked. To wake one costs more than
//! everything else that a short read does: 5 us on a busy processor, 40 us and more on an idle one. Here the reader
//! writes to a connection of its own and sleeps in the kernel until the answer is there: two wake-ups, as with any other server. (To look for the
//! answer for a while before sleeping was tried: on two busy processors the mean was no better and the 99th percentile twice as long.)
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
use crate::transport::tcp::frame::{self, HEADER, Hello, Kind, WELCOME};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
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
/// How long connecting, sending and waiting for an answer may take.
const PATIENCE: Duration = Duration::from_millis(300);
/// Pages whose homes are remembered.
const PAGES: usize = 1 << 18;

/// What this process knows about asking other racks' daemons.
pub(super) struct Direct {
    cluster: u128,
    /// A child that was forked has no part in the connections.
    process: u32,
    homes: RwLock<HashMap<PageId, (Arc<Way>, Instant)>>,
    ways: Mutex<HashMap<RackId, Arc<Way>>>,
    refused: Mutex<Option<Instant>>,
}

/// A daemon of another rack.
struct Way {
    to: NodeId,
    addr: String,
    /// Connections that no thread uses at the moment.
    idle: Mutex<Vec<Conn>>,
    alone: Mutex<Option<Instant>>,
}

struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    number: u64,
}

impl Direct {
    pub fn new(cluster: u128) -> Self {
        let (homes, ways, refused) = Default::default();
        Self { cluster, process: std::process::id(), homes, ways, refused }
    }

    /// Reads `len` bytes at `at`, all in one page. `None` if that has to be done another way.
    pub fn read(&self, pool: &Pool, at: GAddr, len: u32) -> Option<Vec<u8>> {
        if self.process != std::process::id()
            || self.refused.lock().is_some_and(|until| Instant::now() < until)
        {
            return None;
        }
        let page = at.page(pool.page_size())?;
        let known = self.homes.read().get(&page).filter(|(_, asked)| asked.elapsed() < VALID).cloned();
        let way = known.map(|(way, _)| way).or_else(|| self.find(pool, page))?;
        match way.ask(self.cluster, PeerRequest::Read { at, len }) {
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
            let way = ways.entry(rack).or_insert_with(|| Arc::new(Way::new(rack, addr.clone())));
            if way.addr != addr {
                *way = Arc::new(Way::new(rack, addr));
            }
            Arc::clone(way)
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
    fn new(rack: RackId, addr: String) -> Self {
        let (idle, alone) = Default::default();
        Self { to: NodeId::Daemon(rack), addr, idle, alone }
    }

    /// What the daemon answers; `None` if it does not, or refuses.
    fn ask(&self, cluster: u128, request: PeerRequest) -> Option<PeerReply> {
        if self.alone.lock().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let idle = self.idle.lock().pop();
        let conn = idle.map_or_else(|| Conn::open(&self.addr, self.to, cluster), Ok);
        let answered = conn.and_then(|mut conn| Ok((conn.ask(&Request::Peer(request))?, conn)));
        match answered {
            Ok((reply, conn)) => {
                self.idle.lock().push(conn);
                match reply {
                    Reply::Peer(Ok(reply)) => Some(reply),
                    _ => None,
                }
            }
            Err(why) => {
                log::debug!("{} at {} does not answer this client: {why}", self.to, self.addr);
                *self.alone.lock() = Some(Instant::now() + ALONE);
                self.idle.lock().clear();
                None
            }
        }
    }
}

impl Conn {
    fn open(addr: &str, to: NodeId, cluster: u128) -> Result<Self> {
        let addr = addr.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&Hello { from: None, to, cluster }.encode())?;
        let mut welcome = [0; WELCOME];
        stream.read_exact(&mut welcome)?;
        match frame::refused(&welcome).map_err(Error::other)? {
            None => Ok(Self { stream, buffer: vec![0; HEADER + READ_MAX as usize + 64], number: 0 }),
            Some(_) => Err(ErrorKind::ConnectionRefused.into()),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply> {
        self.number += 1;
        let frame = frame::encode(Kind::Request, self.number, request).map_err(Error::other)?;
        self.stream.write_all(&frame)?;
        let mut have = 0;
        loop {
            have += match self.stream.read(&mut self.buffer[have..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => read,
            };
            let Some(header) = frame::header(&self.buffer[..have]).map_err(Error::other)? else { continue };
            let whole = HEADER + header.len;
            if header.kind != Kind::Reply || header.id != self.number || have > whole {
                return Err(ErrorKind::InvalidData.into());
            }
            if have == whole {
                return frame::message(&self.buffer[..whole]).map_err(Error::other);
            }
            if self.buffer.len() < whole {
                self.buffer.resize(whole, 0);
            }
        }
    }
}
