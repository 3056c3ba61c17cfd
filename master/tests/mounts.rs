//! Several mounts of a cluster's master, in one process.

#[path = "mounts/clones.rs"]
mod clones;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/stores.rs"]
mod stores;

use fixture::*;
use master::Master;
use master::change::Change;
use master::clock::Clock;
use master::store::{Store, StoreError};
use parking_lot::{Condvar, Mutex};
use pool::addr::RackId;
use pool::proto::cluster::{ClientName, ClusterReply, ClusterRequest};
use pool::proto::meta::*;
use pool::proto::mount::*;
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use stores::MemStore;

/// A clock by which no lease lapses.
struct Still;

impl Clock for Still {
    fn now(&self) -> Time {
        Time { sec: 1, nsec: 0 }
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// How a [`Gate`] stands.
#[derive(Clone, Copy, PartialEq)]
enum Stand {
    Open,
    /// The next big batch waits before it.
    Shut,
    /// One does.
    Waiting,
    /// The batch that waits is refused.
    Refuses,
}

/// A store before which big batches can be made to wait.
#[derive(Clone)]
struct Gate {
    inner: MemStore,
    stand: Arc<(Mutex<Stand>, Condvar)>,
}

/// Changes of a big batch.
const BIG: usize = 200;

impl Gate {
    fn new() -> Self {
        Self { inner: MemStore::default(), stand: Arc::new((Mutex::new(Stand::Open), Condvar::new())) }
    }

    fn set(&self, stand: Stand) {
        *self.stand.0.lock() = stand;
        self.stand.1.notify_all();
    }

    fn shut(&self) {
        self.set(Stand::Shut);
    }

    fn open(&self) {
        self.set(Stand::Open);
    }

    fn refuse(&self) {
        self.set(Stand::Refuses);
    }

    /// Waits until a batch waits.
    fn wait(&self) {
        self.stand.1.wait_while(&mut self.stand.0.lock(), |stand| *stand != Stand::Waiting);
    }
}

impl Store for Gate {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.len() >= BIG {
            let mut stand = self.stand.0.lock();
            if *stand == Stand::Shut {
                *stand = Stand::Waiting;
                self.stand.1.notify_all();
                self.stand.1.wait_while(&mut stand, |stand| *stand == Stand::Waiting);
            }
            if *stand == Stand::Refuses {
                *stand = Stand::Open;
                return Err(StoreError::NoSpace { place: "test".into() });
            }
        }
        self.inner.commit(changes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        self.inner.load(visit)
    }

    fn begin(&self) -> Result<(), StoreError> {
        self.inner.begin()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

/// A master of a cluster without daemons, on this store.
fn master(store: impl Store + 'static, max_inodes: u64) -> Arc<Master> {
    let mut world = World::new();
    world.config.pages = master::Pages::Cluster;
    world.config.max_inodes = max_inodes;
    let master = Master::open_with(&world.config, world.transport.clone(), Box::new(store), Arc::new(Still));
    Arc::new(master.unwrap())
}

fn call(master: &Master, request: MountRequest) -> Result<MountReply, MountError> {
    match master.handle(Request::Mount(request)) {
        Reply::Mount(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// The client whose mounts there are.
const CLIENT: (RackId, ClientName) = (RackId(0), ClientName::Mapped(1));

/// Its mounts of before the start are not waited for.
fn died(master: &Master) {
    let (rack, client) = CLIENT;
    let reply = master.handle(Request::Cluster(ClusterRequest::Died { rack, client }));
    assert_eq!(reply, Reply::Cluster(Ok(ClusterReply::Done)));
}

/// A mount that gives up at once whatever it is asked to, and keeps the files that it may only read.
struct Mount {
    master: Arc<Master>,
    session: u64,
    polls: Option<JoinHandle<Vec<Revoke>>>,
}

impl Mount {
    fn new(master: &Arc<Master>) -> Self {
        let Ok(MountReply::Opened { session }) =
            call(master, MountRequest::Open { by: "test".into(), client: CLIENT })
        else {
            panic!("no session");
        };
        let poll = {
            let master = Arc::clone(master);
            move || {
                let mut all = Vec::new();
                while let Ok(MountReply::Revoked(list)) = call(&master, MountRequest::Poll { session }) {
                    let shared = |revoke: &Revoke| revoke.what == Revoked::Writing;
                    let given_up = |revoke: &Revoke| Acknowledged {
                        seq: revoke.seq,
                        used: false,
                        shared: shared(revoke),
                    };
                    let done = list.iter().map(given_up).collect();
                    call(&master, MountRequest::Acknowledge { session, done }).unwrap();
                    all.extend(list);
                }
                all
            }
        };
        Self { master: Arc::clone(master), session, polls: Some(std::thread::spawn(poll)) }
    }

    fn ask(&self, request: MetaRequest) -> Result<Answer, MountError> {
        match call(&self.master, MountRequest::Do { session: self.session, request })? {
            MountReply::Answer(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    /// Asks something that is answered by attributes.
    fn attr_of(&self, request: MetaRequest) -> fixture::Result<Attr> {
        match self.ask(request).unwrap().result? {
            MetaReply::Attr(attr) => Ok(attr),
            other => panic!("{other:?}"),
        }
    }

    fn make(&self, parent: Ino, name: &str, node: NewNode) -> fixture::Result<Attr> {
        self.attr_of(MetaRequest::Make {
            parent,
            name: name.into(),
            caller: ROOT,
            node,
            perm: 0o755,
            umask: 0,
        })
    }

    fn dir(&self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, NewNode::Dir).unwrap().ino
    }

    fn file(&self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, NewNode::File).unwrap().ino
    }

    /// Removes a name, and uses what it was of no longer.
    fn unlink(&self, parent: Ino, name: &str) {
        let answer = self.ask(MetaRequest::Unlink { parent, name: name.into() }).unwrap();
        let Ok(MetaReply::Attr(attr)) = answer.result else { panic!("{answer:?}") };
        let inos = vec![(attr.ino, answer.seq)];
        call(&self.master, MountRequest::Release { session: self.session, inos }).unwrap();
    }

    fn clone_tree(&self, from: Ino, to: Ino) -> fixture::Result<Attr> {
        self.attr_of(MetaRequest::CloneTree { from, to, caller: ROOT })
    }

    /// Names in a directory, in order, without `.` and `..`.
    fn names(&self, ino: Ino, plus: bool) -> Vec<String> {
        let request = MetaRequest::ReadDir { ino, after: 2, limit: u32::MAX, plus };
        match self.ask(request).unwrap().result.unwrap() {
            MetaReply::Entries(entries) => {
                entries.into_iter().map(|e| String::from_utf8(e.name).unwrap()).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Inodes in use.
    fn used(&self) -> u64 {
        match self.ask(MetaRequest::StatFs).unwrap().result.unwrap() {
            MetaReply::Stat(stat) => stat.used,
            other => panic!("{other:?}"),
        }
    }

    /// Says goodbye. What it was asked to give up until then.
    fn close(mut self) -> Vec<Revoke> {
        self.end()
    }

    /// The session is over, whatever it still waits for.
    fn leave(&self) {
        call(&self.master, MountRequest::Close { session: self.session }).unwrap();
    }

    fn end(&mut self) -> Vec<Revoke> {
        let Some(polls) = self.polls.take() else { return Vec::new() };
        self.leave();
        polls.join().unwrap()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.end();
    }
}
