//! Serving: which part of the daemon answers a request, and on which thread.
//!
//! Requests come from clients by the rings and from other daemons, tools and the master by the transport;
//! what they ask is answered alike. Those of clients that cannot map this rack's memory are [`far`](crate::far)'s. [`Node::serve`] never waits. What can be done at once is done on the
//! calling thread; reading and writing pages of other racks goes on without a thread; the rest is for
//! [`Workers`]: one pool for requests that may wait for other daemons, another for those from other
//! daemons. The second kind waits for the clients of this rack, for the master and for acknowledgements
//! of revocations, all of which are answered without a thread of these pools, so two racks whose threads
//! all wait for each other do not come about.
//!
//! Every request is answered exactly once, also if the daemon ends first.

use crate::context::Context;
use crate::far::Far;
use crate::ids::Ids;
use crate::member::Member;
use crate::objects::Objects;
use crate::racks::Racks;
use crate::remote::Remote;
use crate::rings::Rings;
use crate::takers::Takers;
use parking_lot::Mutex;
use pool::addr::PageId;
use pool::proto::cluster::ClientName;
use pool::proto::page::{Home, PageError, PageKind, PageReply, PageRequest, PageStat};
use pool::proto::peer::{PeerReply, PeerRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Answer;
use pool::workers::Workers;
use std::sync::{Arc, OnceLock};

/// The daemon of a rack in a cluster, as far as requests are concerned.
pub(crate) struct Node {
    pub ctx: Arc<Context>,
    pub remote: Arc<Remote>,
    pub objects: Arc<Objects>,
    pub racks: Racks,
    pub member: Arc<Member>,
    pub ids: Arc<Ids>,
    /// Threads for requests of other daemons.
    pub peers: Workers,
    /// Clients that have not mapped this rack's memory.
    pub far: Arc<Far>,
    /// Who has taken which pages of files.
    pub takers: Arc<Takers>,
    /// The rings of this rack, once they are served.
    pub rings: OnceLock<Arc<Rings>>,
    /// Pages freed here that may have been made elsewhere, for the master to hear.
    pub gone: Mutex<Vec<PageId>>,
    /// Accesses in place that clients had made before the start.
    pub hits_before: u64,
}

/// What an answer is given to.
type Taker<T> = Box<dyn FnOnce(Result<T, PageError>) + Send>;

/// Takes the answer to a request; answers itself if it is dropped.
pub(crate) struct Once<T>(Option<Taker<T>>);

impl<T> Once<T> {
    pub fn new(answer: impl FnOnce(Result<T, PageError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub fn answer(mut self, result: Result<T, PageError>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(PageError::Unreachable("the daemon is shutting down".into())));
        }
    }
}

impl Node {
    /// Answers `request`, now or later.
    pub fn serve(self: &Arc<Self>, request: Request, answer: Answer) {
        match request {
            Request::Page(request) => {
                self.serve_page(request, Once::new(move |result| answer(Reply::Page(result))));
            }
            Request::Peer(request) => {
                self.serve_peer(request, Once::new(move |result| answer(Reply::Peer(result))));
            }
            Request::Cluster(_) | Request::Meta(_) | Request::Mount(_) | Request::Far(_) => {
                answer(Reply::Unsupported);
            }
        }
    }

    /// As [`serve`](Self::serve), for a client of this rack: it is remembered which pages for files it has taken.
    pub fn serve_client(self: &Arc<Self>, client: ClientName, request: Request, answer: Answer) {
        let Request::Page(PageRequest::Alloc { kind: PageKind::File, .. }) = &request else {
            return self.serve(request, answer);
        };
        let takers = Arc::clone(&self.takers);
        let noted = move |reply: Reply| {
            if let Reply::Page(Ok(PageReply::Runs { runs, .. })) = &reply {
                takers.note(client, runs);
            }
            answer(reply);
        };
        self.serve(request, Box::new(noted));
    }

    fn serve_page(self: &Arc<Self>, request: PageRequest, answer: Once<PageReply>) {
        match request {
            PageRequest::Alloc { pages, leave, kind } => match self.alloc_here(pages, leave, kind) {
                Some(result) => answer.answer(result),
                None => self.later(answer, move |node| node.alloc_anywhere(pages, leave, kind)),
            },
            PageRequest::Free { runs } => {
                self.later(answer, move |node| node.free(&runs).map(PageReply::Freed));
            }
            PageRequest::AllocObject { size } => match self.object_here(size) {
                Some(result) => answer.answer(result.map(PageReply::Object)),
                None => self.later(answer, move |node| node.object_anywhere(size).map(PageReply::Object)),
            },
            PageRequest::FreeObject { at } => match self.free_object_at_once(at) {
                Some(result) => answer.answer(result.map(|()| PageReply::Done)),
                None => self.later(answer, move |node| node.free_object(at).map(|()| PageReply::Done)),
            },
            PageRequest::Home { page } => answer.answer(Ok(PageReply::Home(self.home(page)))),
            PageRequest::Stat => answer.answer(Ok(PageReply::Stat(self.stat()))),
            PageRequest::Reconcile { held, ids, free } => {
                self.later(answer, move |node| node.reconcile(&held, ids, free).map(PageReply::Reconciled));
            }
            PageRequest::Sync { runs } => {
                self.later(answer, move |node| node.sync(&runs).map(|()| PageReply::Done));
            }
            access @ (PageRequest::Read { .. }
            | PageRequest::Write { .. }
            | PageRequest::Cas { .. }
            | PageRequest::Where { .. }) => {
                Remote::serve_page(&self.remote, access, Box::new(move |result| answer.answer(result)));
            }
        }
    }

    fn serve_peer(self: &Arc<Self>, request: PeerRequest, answer: Once<PeerReply>) {
        match request {
            PeerRequest::Alloc { pages, kind } => {
                self.for_peer(answer, move |node| node.alloc_for_peer(pages, kind).map(PeerReply::Runs));
            }
            PeerRequest::Free { runs } => {
                self.for_peer(answer, move |node| Ok(PeerReply::Freed(node.free_here(&runs)?.freed)));
            }
            PeerRequest::AllocObject { size } => {
                self.for_peer(answer, move |node| node.object_for_peer(size).map(PeerReply::Object));
            }
            PeerRequest::FreeObject { at } => {
                self.for_peer(answer, move |node| node.free_object_here(at));
            }
            PeerRequest::Sync { runs } => {
                self.for_peer(answer, move |node| node.ctx.frames.sync(&runs).map(|()| PeerReply::Done));
            }
            PeerRequest::Link { holder, offer } => {
                self.for_peer(answer, move |node| node.remote.serve_link(holder, &offer));
            }
            of_pages => {
                Remote::serve_peer(&self.remote, of_pages, Box::new(move |result| answer.answer(result)));
            }
        }
    }

    /// Runs `job` on a thread that may wait for other daemons.
    fn later<T: 'static>(
        self: &Arc<Self>,
        answer: Once<T>,
        job: impl FnOnce(&Arc<Self>) -> Result<T, PageError> + Send + 'static,
    ) {
        let node = Arc::clone(self);
        self.ctx.workers.run(move || answer.answer(job(&node)));
    }

    /// Runs `job` on a thread for requests of other daemons.
    fn for_peer(
        self: &Arc<Self>,
        answer: Once<PeerReply>,
        job: impl FnOnce(&Arc<Self>) -> Result<PeerReply, PageError> + Send + 'static,
    ) {
        let node = Arc::clone(self);
        self.peers.run(move || answer.answer(job(&node)));
    }

    /// Whom clients may ask for short reads of `page`: its home, if no swap and no link for one-sided access depends on
    /// their being made here.
    fn home(&self, page: PageId) -> Home {
        if !self.ctx.policy.never_asks() {
            return Home::AskMe;
        }
        let Some(rack) = self.remote.known_home(page).filter(|rack| *rack != self.ctx.rack) else {
            return Home::Unknown;
        };
        if self.ctx.transport.can_fetch(NodeId::Daemon(rack)) {
            return Home::AskMe;
        }
        self.racks.addr(rack).map_or(Home::Unknown, |addr| Home::At { rack, addr })
    }

    /// How much there is: here exactly, elsewhere as last heard.
    pub fn stat(&self) -> PageStat {
        let (here, others) = (self.ctx.frames.stat(), self.racks.stat());
        PageStat { total: here.total + others.total, free: here.free + others.free }
    }
}
