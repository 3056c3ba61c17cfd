//! How a daemon reaches the others: over TCP, and one-sided where both ends can, decided for each of them.
//!
//! A link ([`fabric`](super::fabric)) is made over TCP: the daemons tell each other their queue pairs in a
//! [`Link`](PeerRequest::Link) request, so that there is one port and one address to configure, and a
//! link never outlives the key that its home answered with. While there is no link, and for what a link does not
//! carry, TCP is used; both can be in use at once, and no message depends on another that went by the other way.
//!
//! A link that broke is made again, at first at once, then with longer and longer pauses.
//!
//! Locks: a peer's state and `accepted` are leaves.

use super::fabric::{Accepted, Fabric, Link};
use super::{Access, CAS, Done, Handler, Tcp, Transport, TransportError, broken};
use crate::addr::RackId;
use crate::proto::cluster::Ways;
use crate::proto::peer::{PeerReply, PeerRequest, RemoteAt};
use crate::proto::{NodeId, Reply, Request};
use crate::workers::Workers;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// The first and the longest pause between two attempts to make a link.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The most pages in a request that goes by a link.
const PAGES: usize = 256;

/// The way to the other racks and the master.
pub struct Racks {
    me: RackId,
    tcp: Arc<dyn Transport>,
    fabric: OnceLock<Arc<dyn Fabric>>,
    handler: OnceLock<Weak<dyn Handler>>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    accepted: Mutex<HashMap<NodeId, Arc<dyn Accepted>>>,
    /// Threads that make links.
    workers: Workers,
    this: Weak<Self>,
}

/// What is known of one other daemon.
#[derive(Default)]
struct Peer {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// The link and the key that it is for.
    link: Option<(u64, Arc<dyn Link>)>,
    connecting: bool,
    /// When the next attempt may be made, and the pause after that.
    next: Option<Instant>,
    pause: Duration,
    /// Why there is no link, as last logged.
    why: String,
}

impl Racks {
    /// The daemon of rack `me`; by TCP alone until [`attach`](Self::attach).
    pub fn new(me: RackId, tcp: Arc<Tcp>) -> Arc<Self> {
        Self::over(me, tcp)
    }

    /// As [`new`](Self::new), over any transport.
    pub fn over(me: RackId, tcp: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            me,
            tcp,
            fabric: OnceLock::new(),
            handler: OnceLock::new(),
            peers: RwLock::default(),
            accepted: Mutex::default(),
            workers: Workers::new("pool-links", 4),
            this: this.clone(),
        })
    }

    /// From now on other racks are reached by `fabric` too, and reach this one by it; what they ask is for
    /// `handler`. To be called once.
    pub fn attach(&self, fabric: Arc<dyn Fabric>, handler: &Arc<dyn Handler>) {
        let _ = self.handler.set(Arc::downgrade(handler));
        let _ = self.fabric.set(fabric);
        let peers: Vec<NodeId> = self.peers.read().keys().copied().collect();
        peers.into_iter().for_each(|node| self.want_link(node));
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(&node) {
            return Arc::clone(peer);
        }
        Arc::clone(self.peers.write().entry(node).or_default())
    }

    /// The link to `node`, if there is one and it is for `key`, if that is given.
    fn link(&self, node: NodeId, key: Option<u64>) -> Option<Arc<dyn Link>> {
        self.fabric.get()?;
        let peer = self.peer(node);
        let found = {
            let state = peer.state.read();
            state.link.as_ref().filter(|(_, link)| link.is_up()).cloned()
        };
        match found {
            Some((its, link)) if key.is_none_or(|key| key == its) => return Some(link),
            // For another key: which of them is the newer one will turn out.
            Some(_) => {}
            None => self.want_link(node),
        }
        None
    }

    /// Has a link to `node` made, unless that is being done or was tried a moment ago.
    fn want_link(&self, node: NodeId) {
        if !matches!(node, NodeId::Daemon(rack) if rack != self.me) {
            return;
        }
        let Some(fabric) = self.fabric.get().cloned() else { return };
        let peer = self.peer(node);
        let dead;
        {
            let mut state = peer.state.write();
            let up = state.link.as_ref().is_some_and(|(_, link)| link.is_up());
            if up || state.connecting || state.next.is_some_and(|next| Instant::now() < next) {
                return;
            }
            state.connecting = true;
            // It keeps its device open, which cannot be removed meanwhile.
            dead = state.link.take();
        }
        let Some(this) = self.this.upgrade() else { return };
        self.workers.run(move || {
            if let Some((_, dead)) = dead {
                dead.close("it is of no use any more");
            }
            let made = this.make_link(node, &*fabric);
            this.link_made(node, &peer, made);
        });
    }

    /// Makes a link. Waits for the other daemon.
    fn make_link(&self, node: NodeId, fabric: &dyn Fabric) -> Result<(u64, Arc<dyn Link>), String> {
        let (begun, offer) = fabric.begin()?;
        let request = Request::Peer(PeerRequest::Link { holder: self.me, offer });
        match self.tcp.call(node, request) {
            Ok(Reply::Peer(Ok(PeerReply::Linked { key, answer }))) => Ok((key, begun.finish(node, &answer)?)),
            Ok(Reply::Peer(Err(error))) => Err(error.to_string()),
            Ok(_) => Err(TransportError::Mismatch(node).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn link_made(&self, node: NodeId, peer: &Peer, made: Result<(u64, Arc<dyn Link>), String>) {
        let mut state = peer.state.write();
        state.connecting = false;
        let old = match made {
            Ok(link) => {
                log::info!("{node}: by RDMA from now on");
                state.why.clear();
                (state.next, state.pause) = (Some(Instant::now() + PAUSE.0), PAUSE.0);
                state.link.replace(link)
            }
            Err(why) => {
                if state.why != why {
                    log::info!("{node}: by TCP, since RDMA is not possible: {why}");
                    state.why = why;
                }
                state.pause = (2 * state.pause).clamp(PAUSE.0, PAUSE.1);
                state.next = Some(Instant::now() + state.pause);
                state.link.take()
            }
        };
        drop(state);
        if let Some((_, old)) = old {
            old.close("there is a new one");
        }
    }

    /// Ends the link to `node` if its key is one of these.
    fn drop_link(&self, node: NodeId, which: impl Fn(u64) -> bool, why: &str) {
        let peer = self.peers.read().get(&node).cloned();
        let old = peer.and_then(|peer| {
            let mut state = peer.state.write();
            let stale = state.link.as_ref().is_some_and(|(its, _)| which(*its));
            if stale { state.link.take() } else { None }
        });
        if let Some((_, old)) = old {
            old.close(why);
        }
    }

    /// Closes what was accepted and is of no use any more, so that the device it keeps open can be removed.
    fn drop_accepted(&self) {
        let accepted = self.accepted.lock().clone();
        for (node, dead) in accepted.into_iter().filter(|(_, accepted)| !accepted.is_up()) {
            // Before it is forgotten: `cut` must not return while it lives.
            dead.close();
            let mut accepted = self.accepted.lock();
            if accepted.get(&node).is_some_and(|now| Arc::ptr_eq(now, &dead)) {
                accepted.remove(&node);
            }
        }
    }

    /// An access by `key` over TCP went well, so that key is valid: a link for another one is not.
    fn is_valid(&self, node: NodeId, key: u64) {
        self.drop_link(node, |its| its != key, "its key has been withdrawn");
        self.want_link(node);
    }

    /// What to do when an access over TCP is done.
    fn after_tcp<T: 'static>(&self, to: NodeId, key: u64, done: Done<Access<T>>) -> Done<Access<T>> {
        if self.fabric.get().is_none() {
            return done;
        }
        let this = self.this.clone();
        Box::new(move |result| {
            if let (Ok(Access::Done(_)), Some(this)) = (&result, this.upgrade()) {
                this.is_valid(to, key);
            }
            done(result);
        })
    }
}

/// Whether a link carries it: the request is short, and so is any reply.
fn is_short(request: &Request) -> bool {
    let Request::Peer(request) = request else { return false };
    match request {
        PeerRequest::Acquire { .. } | PeerRequest::Cas { .. } | PeerRequest::Finish { .. } => true,
        // A holder that gives its key up makes the home close the link: it would not hear the answer.
        PeerRequest::Release { pages, .. } => !pages.is_empty() && pages.len() <= PAGES,
        PeerRequest::Revoke { pages, .. } => pages.len() <= PAGES,
        PeerRequest::Prepare { victim, lend, .. } => {
            *lend && victim.as_ref().is_none_or(|v| v.lent.is_some())
        }
        _ => false,
    }
}

impl Transport for Racks {
    fn call(&self, to: NodeId, request: Request) -> Result<Reply, TransportError> {
        if !is_short(&request) || self.link(to, None).is_none() {
            return self.tcp.call(to, request);
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        // The other end is there until the reply has come.
        self.start(to, request, Box::new(move |reply| drop(sender.send(reply))));
        receiver.recv().unwrap_or_else(|_| Err(broken(to, "it was closed")))
    }

    fn call_all(&self, to: NodeId, requests: Vec<Request>) -> Vec<Result<Reply, TransportError>> {
        self.tcp.call_all(to, requests)
    }

    fn start(&self, to: NodeId, request: Request, done: Done<Reply>) {
        let link = if is_short(&request) { self.link(to, None) } else { None };
        let Some(link) = link else { return self.tcp.start(to, request, done) };
        if let Err(unsent) = link.request(request, done) {
            let (request, done) = *unsent;
            self.tcp.start(to, request, done);
        }
    }

    fn set_addr(&self, node: NodeId, addr: String) {
        self.drop_link(node, |_| true, "the daemon is elsewhere");
        self.tcp.set_addr(node, addr);
        if matches!(node, NodeId::Daemon(rack) if rack != self.me) {
            self.peer(node);
            self.want_link(node);
        }
    }

    fn start_read(&self, to: NodeId, at: RemoteAt, len: u32, done: Done<Access<Vec<u8>>>) {
        let Some(link) = self.link(to, Some(at.key)) else {
            return self.tcp.start_read(to, at, len, self.after_tcp(to, at.key, done));
        };
        let tcp = Arc::clone(&self.tcp);
        let landed = Box::new(move |result: Result<Vec<u8>, String>| match result {
            Ok(data) => done(Ok(Access::Done(data))),
            // A read may be done twice.
            Err(_) => tcp.start_read(to, at, len, done),
        });
        if let Err(landed) = link.read(at.offset, len, landed) {
            landed(Err("the link is down".into()));
        }
    }

    fn start_write(&self, to: NodeId, at: RemoteAt, data: Vec<u8>, done: Done<Access<()>>) {
        let Some(link) = self.link(to, Some(at.key)) else {
            return self.tcp.start_write(to, at, data, self.after_tcp(to, at.key, done));
        };
        // Which of the two ways it went is known when it is handed back.
        let taken = Arc::new(Mutex::new(Some(done)));
        let given = Arc::clone(&taken);
        let landed = Box::new(move |result: Result<(), String>| {
            let done = given.lock().take();
            if let Some(done) = done {
                done(result.map(Access::Done).map_err(|why| broken(to, &why)));
            }
        });
        if let Err((data, _)) = link.write(at.offset, data, landed) {
            let done = taken.lock().take();
            if let Some(done) = done {
                self.tcp.start_write(to, at, data, done);
            }
        }
    }

    fn accept_link(&self, from: NodeId, offer: &[u8]) -> Result<Vec<u8>, String> {
        let (Some(fabric), Some(handler)) = (self.fabric.get(), self.handler.get()) else {
            return Err("the other daemon has no RDMA".into());
        };
        let (accepted, answer) = fabric.accept(offer, handler.clone())?;
        let old = self.accepted.lock().insert(from, accepted);
        if let Some(old) = old {
            old.close();
        }
        Ok(answer)
    }

    fn cut(&self, from: NodeId) {
        let old = self.accepted.lock().remove(&from);
        if let Some(old) = old {
            old.close();
        }
    }

    fn unlink(&self, to: NodeId, key: Option<u64>) {
        self.drop_link(to, |its| key.is_none_or(|key| key == its), "its key is worthless");
    }

    fn can_fetch(&self, from: NodeId) -> bool {
        self.link(from, None).is_some()
    }

    fn can_lend(&self, to: NodeId) -> bool {
        self.accepted.lock().get(&to).is_some_and(|accepted| accepted.is_up())
    }

    fn fetch(&self, from: NodeId, at: u64, into: u64, len: u64) -> Result<(), TransportError> {
        let link = self.link(from, None).ok_or_else(|| broken(from, "there is no link"))?;
        link.fetch(at, into, len).map_err(|why| broken(from, &why))
    }

    /// Asked for at each sign of life to the master; so it is also when links are tried again that nobody needs now.
    fn ways(&self) -> Ways {
        let Some(fabric) = self.fabric.get() else {
            return Ways { transport: "tcp".into(), cas: CAS.into() };
        };
        self.drop_accepted();
        let peers = self.peers.read().clone();
        peers.keys().for_each(|node| self.want_link(*node));
        let (mut rdma, mut tcp) = (Vec::new(), Vec::new());
        for (node, peer) in peers.iter() {
            let NodeId::Daemon(rack) = node else { continue };
            let up = peer.state.read().link.as_ref().is_some_and(|(_, link)| link.is_up());
            if up { &mut rdma } else { &mut tcp }.push(rack.to_string());
        }
        let list = |way: &str, racks: &[String]| match racks {
            [] => None,
            racks => Some(format!("{way}:{}", racks.join(","))),
        };
        let ways: Vec<String> = [list("rdma", &rdma), list("tcp", &tcp)].into_iter().flatten().collect();
        let none = || format!("rdma ({})", fabric.describe());
        let transport = if ways.is_empty() { none() } else { ways.join(" ") };
        Ways { transport, cas: format!("{CAS} (device: {})", fabric.atomics()) }
    }
}

impl Drop for Racks {
    fn drop(&mut self) {
        let accepted = std::mem::take(&mut *self.accepted.lock());
        accepted.into_values().for_each(|accepted| accepted.close());
        let peers = std::mem::take(&mut *self.peers.write());
        for peer in peers.into_values() {
            let link = peer.state.write().link.take();
            if let Some((_, link)) = link {
                link.close("it was closed");
            }
        }
    }
}
