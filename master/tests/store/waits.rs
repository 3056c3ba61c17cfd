//! A disk that has to be waited for: not by the thread that takes requests from the network.

use crate::*;
use master::change::Change;
use master::clock::SystemClock;
use master::store::Volatile;
use master::{MasterConfig, Pages};
use parking_lot::Mutex;
use pool::addr::RackId;
use pool::proto::cluster::ClientName;
use pool::proto::mount::{LockHow, Locked, MountReply, MountRequest};
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Nothing takes so long unless a test is about to fail.
const LONG: Duration = Duration::from_secs(60);

/// Where it is said that a commit has come, and where from that it may go on.
type Gate = (Sender<()>, Receiver<()>);

/// Has every commit pass the gate, if it has been given one.
#[derive(Clone, Default)]
struct SlowStore(Arc<Mutex<Option<Gate>>>);

impl Store for SlowStore {
    fn commit(&self, _: &[Change]) -> Result<(), StoreError> {
        if let Some((came, go_on)) = &*self.0.lock() {
            came.send(()).unwrap();
            go_on.recv_timeout(LONG).expect("the test goes on");
        }
        Ok(())
    }

    fn is_behind(&self) -> bool {
        self.0.try_lock().is_none_or(|gate| gate.is_some())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        Volatile.load(visit)
    }

    fn begin(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Has `request` served, as a transport does; where the answer comes.
fn serve(master: &Arc<Master>, request: MountRequest) -> Receiver<Reply> {
    let (sender, receiver) = channel();
    Arc::clone(master).serve(Request::Mount(request), Box::new(move |reply| sender.send(reply).unwrap()));
    receiver
}

#[test]
fn requests_of_mounts_are_taken_without_waiting_for_the_disk_or_for_each_other() {
    let (world, store) = (World::new(), SlowStore::default());
    let config = MasterConfig { pages: Pages::Cluster, ..world.config.clone() };
    let clock = Arc::new(SystemClock);
    let master = Master::open_with(&config, world.transport.clone(), Box::new(store.clone()), clock);
    let master = Arc::new(master.unwrap());
    let client = (RackId(0), ClientName::Mapped(1));
    let Ok(Reply::Mount(Ok(MountReply::Opened { session }))) =
        serve(&master, MountRequest::Open { by: "a test".into(), client }).recv_timeout(LONG)
    else {
        panic!("no session");
    };
    let (came, commit) = channel();
    let (go_on, told) = channel();
    *store.0.lock() = Some((came, told));
    let make = MetaRequest::Make {
        parent: Ino::ROOT,
        name: b"f".to_vec(),
        caller: ROOT,
        node: NewNode::File,
        perm: 0o644,
        umask: 0,
    };
    let made = serve(&master, MountRequest::Do { session, request: make });
    commit.recv_timeout(LONG).expect("it is carried out");
    // While that waits for the disk.
    let lock = pool::proto::mount::Lock {
        ino: Ino::ROOT,
        family: pool::proto::mount::LockFamily::Flock,
        owner: 1,
        exclusive: true,
        range: 0..=u64::MAX,
        pid: 1,
    };
    let locked = serve(&master, MountRequest::Lock { session, lock, how: LockHow::Try });
    assert!(made.try_recv().is_err() && locked.try_recv().is_err(), "nobody could have answered");
    go_on.send(()).unwrap();
    let granted = Reply::Mount(Ok(MountReply::Locked(Locked::Granted)));
    assert_eq!(locked.recv_timeout(LONG), Ok(granted));
    let Ok(Reply::Mount(Ok(MountReply::Answer(answer)))) = made.recv_timeout(LONG) else { panic!("no file") };
    assert!(matches!(answer.result, Ok(MetaReply::Attr(attr)) if attr.kind == Kind::File));
}
