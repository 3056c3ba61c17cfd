//! What becomes of sessions of mounts, and of what they had, when they die and when the master does.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "support/stores.rs"]
mod stores;

use fixture::{PAGE, ROOT, World};
use master::clock::Clock;
use master::{Master, Pages};
use parking_lot::Mutex;
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::cluster::{ClientName, ClusterReply, ClusterRequest};
use pool::proto::meta::*;
use pool::proto::mount::*;
use pool::proto::{Reply, Request};
use pool::transport::Handler;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use stores::MemStore;

const ONE: (RackId, ClientName) = (RackId(0), ClientName::Mapped(1));
const OTHER: (RackId, ClientName) = (RackId(1), ClientName::Mapped(1));
/// Longer than anything takes that is not waited for.
const LONG: Duration = Duration::from_secs(20);

/// A clock that stands still until it is told.
#[derive(Default)]
struct Still(Mutex<Duration>);

impl Clock for Still {
    fn now(&self) -> Time {
        Time { sec: 1, nsec: 0 }
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock()
    }
}

/// A master of a cluster without daemons.
struct Cluster {
    world: World,
    store: MemStore,
    clock: Arc<Still>,
    master: Arc<Master>,
}

impl Cluster {
    fn new() -> Self {
        let mut world = World::new();
        world.config.pages = Pages::Cluster;
        let (store, clock) = (MemStore::default(), Arc::new(Still::default()));
        let master = Self::open(&world, &store, &clock);
        Self { world, store, clock, master }
    }

    fn open(world: &World, store: &MemStore, clock: &Arc<Still>) -> Arc<Master> {
        let store = Box::new(store.clone());
        let master = Master::open_with(&world.config, world.transport.clone(), store, clock.clone());
        Arc::new(master.unwrap())
    }

    /// The master is killed and started again.
    fn restart(&mut self) {
        self.master = Self::open(&self.world, &self.store, &self.clock);
    }

    /// As [`restart`](Self::restart), and the leases from before have run out.
    fn restart_and_wait(&mut self) {
        self.restart();
        self.pass(LEASE);
    }

    fn pass(&self, time: Duration) {
        *self.clock.0.lock() += time;
    }

    fn start(&self, request: MountRequest) -> Receiver<Result<MountReply, MountError>> {
        let (sender, receiver) = channel();
        let answer = move |reply| match reply {
            Reply::Mount(reply) => drop(sender.send(reply)),
            other => panic!("{other:?}"),
        };
        Arc::clone(&self.master).serve(Request::Mount(request), Box::new(answer));
        receiver
    }

    fn ask(&self, request: MountRequest) -> Result<MountReply, MountError> {
        self.start(request).recv_timeout(LONG).expect("it is answered")
    }

    fn mount(&self, client: (RackId, ClientName)) -> u64 {
        match self.ask(MountRequest::Open { by: "a test".into(), client }) {
            Ok(MountReply::Opened { session }) => session,
            other => panic!("{other:?}"),
        }
    }

    fn act(&self, session: u64, request: MetaRequest) -> Result<MetaReply, MountError> {
        match self.ask(MountRequest::Do { session, request })? {
            MountReply::Answer(answer) => Ok(answer.result.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn file(&self, session: u64, name: &str) -> Ino {
        let (name, node) = (name.into(), NewNode::File);
        let make = MetaRequest::Make { parent: Ino::ROOT, name, caller: ROOT, node, perm: 0o644, umask: 0 };
        match self.act(session, make) {
            Ok(MetaReply::Attr(attr)) => attr.ino,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&self, session: u64, ino: Ino, at: u64, run: PageRun) -> Result<MetaReply, MountError> {
        let (extents, size) = (vec![Extent { at, run }], (at + u64::from(run.count)) * PAGE);
        self.act(
            session,
            MetaRequest::Commit { ino, extents, size, touch: true, kill_suid: false, set: None },
        )
    }

    fn unlink(&self, session: u64, name: &str) {
        let unlink = MetaRequest::Unlink { parent: Ino::ROOT, name: name.into() };
        self.act(session, unlink).unwrap();
    }

    fn is_there(&self, ino: Ino) -> bool {
        let session = self.mount((RackId(9), ClientName::Mapped(9)));
        let request = MetaRequest::GetAttr { ino };
        match self.ask(MountRequest::Do { session, request }).unwrap() {
            MountReply::Answer(answer) => answer.result.is_ok(),
            other => panic!("{other:?}"),
        }
    }

    fn cluster(&self, request: ClusterRequest) -> ClusterReply {
        match self.master.handle(Request::Cluster(request)) {
            Reply::Cluster(Ok(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn died(&self, (rack, client): (RackId, ClientName)) {
        assert_eq!(self.cluster(ClusterRequest::Died { rack, client }), ClusterReply::Done);
    }

    fn unowned(&self, pages: &[PageRun]) -> Vec<PageRun> {
        match self.cluster(ClusterRequest::Unowned { pages: pages.to_vec() }) {
            ClusterReply::Runs(runs) => runs,
            other => panic!("{other:?}"),
        }
    }

    fn lock(&self, session: u64, ino: Ino, how: LockHow) -> Receiver<Result<MountReply, MountError>> {
        self.start(MountRequest::Lock { session, lock: lock(ino), how })
    }

    fn reclaim(&self, session: u64, was: u64, open: &[Ino], locks: &[Lock]) -> (Vec<Lock>, Vec<Ino>) {
        let (open, locks) = (open.to_vec(), locks.to_vec());
        match self.ask(MountRequest::Reclaim { session, was, open, locks, more: false }) {
            Ok(MountReply::Reclaimed { lost, gone }) => (lost, gone),
            other => panic!("{other:?}"),
        }
    }
}

fn run(first: u64, count: u32) -> PageRun {
    PageRun::new(PageId::new(first).unwrap(), count).unwrap()
}

fn lock(ino: Ino) -> Lock {
    Lock { ino, family: LockFamily::Posix, owner: 5, exclusive: true, range: 0..=9, pid: 1 }
}

fn granted() -> Result<MountReply, MountError> {
    Ok(MountReply::Locked(Locked::Granted))
}

#[test]
fn what_a_dead_client_tells_late_is_refused_and_the_others_go_on() {
    let c = Cluster::new();
    let (dead, living) = (c.mount(ONE), c.mount(OTHER));
    let a = c.file(dead, "a");
    c.commit(dead, a, 0, run(10, 4)).unwrap();
    c.died(ONE);
    // Nobody has to give anything up any more.
    let b = c.file(living, "b");
    assert_eq!(c.commit(dead, a, 4, run(14, 4)), Err(MountError::Expired));
    c.commit(living, b, 0, run(30, 4)).unwrap();
    assert_eq!(
        c.unowned(&[run(5, 20), run(30, 6), run(50, 1)]),
        [run(5, 5), run(14, 11), run(34, 2), run(50, 1)]
    );
}

#[test]
fn a_page_that_several_files_have_is_owned() {
    let c = Cluster::new();
    let session = c.mount(ONE);
    let (a, b) = (c.file(session, "a"), c.file(session, "b"));
    c.commit(session, a, 0, run(10, 8)).unwrap();
    let clone = MetaRequest::Clone { from: (a, 2), to: (b, 0), pages: 2, size: 2 * PAGE, expect: None };
    // What is cloned is revoked first, also of the mount that asks.
    let done = c.start(MountRequest::Do { session, request: clone });
    while done.try_recv().is_err() {
        let Ok(MountReply::Revoked(list)) = c.ask(MountRequest::Poll { session }) else { panic!() };
        let done = list.iter().map(|r| Acknowledged { seq: r.seq, used: false, shared: false }).collect();
        c.ask(MountRequest::Acknowledge { session, done }).unwrap();
    }
    assert_eq!(c.unowned(&[run(9, 2), run(12, 1), run(17, 2)]), [run(9, 1), run(18, 1)]);
    c.unlink(session, "a");
    assert!(c.unowned(&[run(12, 2)]).is_empty());
}

#[test]
fn locks_are_reclaimed_after_a_restart_and_nobody_gets_them_before() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let ino = c.file(one, "a");
    assert_eq!(c.lock(one, ino, LockHow::Try).recv_timeout(LONG).unwrap(), granted());
    c.restart_and_wait();
    let (again, eager) = (c.mount(ONE), c.mount(OTHER));
    let asked = c.lock(eager, ino, LockHow::Try);
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    assert!(asked.try_recv().is_err(), "it is not known yet whether it is free");
    assert_eq!(c.reclaim(again, one, &[], &[lock(ino)]), (vec![], vec![]));
    let told = asked.recv_timeout(LONG).expect("all are back");
    assert!(matches!(told, Ok(MountReply::Locked(Locked::Conflict { .. }))), "{told:?}");
}

#[test]
fn who_does_not_come_back_in_time_has_lost_its_locks() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let ino = c.file(one, "a");
    assert_eq!(c.lock(one, ino, LockHow::Try).recv_timeout(LONG).unwrap(), granted());
    c.restart_and_wait();
    let (late, eager) = (c.mount(ONE), c.mount(OTHER));
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    let asked = c.lock(eager, ino, LockHow::Wait);
    for _ in 0..2 {
        c.pass(GRACE / 2);
        [late, eager].into_iter().for_each(|session| drop(c.start(MountRequest::Poll { session })));
    }
    assert_eq!(asked.recv_timeout(LONG).expect("the time is over"), granted());
    assert_eq!(c.reclaim(late, one, &[], &[lock(ino)]), (vec![lock(ino)], vec![]));
}

#[test]
fn whose_session_had_ended_before_the_restart_reclaims_no_locks() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let ino = c.file(one, "a");
    assert_eq!(c.lock(one, ino, LockHow::Try).recv_timeout(LONG).unwrap(), granted());
    // Another has the lock in between, and is through with it.
    c.died(ONE);
    c.restart_and_wait();
    let (again, eager) = (c.mount(ONE), c.mount(OTHER));
    assert_eq!(c.reclaim(again, one, &[], &[lock(ino)]), (vec![lock(ino)], vec![]));
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    assert_eq!(c.lock(eager, ino, LockHow::Try).recv_timeout(LONG).unwrap(), granted());
}

#[test]
fn a_mount_that_is_known_to_have_died_is_not_waited_for() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let ino = c.file(one, "a");
    assert_eq!(c.lock(one, ino, LockHow::Try).recv_timeout(LONG).unwrap(), granted());
    c.restart_and_wait();
    let eager = c.mount(OTHER);
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    let asked = c.lock(eager, ino, LockHow::Try);
    assert!(asked.try_recv().is_err());
    c.died(ONE);
    assert_eq!(asked.recv_timeout(LONG).expect("the clock stands still"), granted());
}

#[test]
fn an_unlinked_file_that_is_open_outlives_the_master_until_its_last_user_is_gone() {
    let mut c = Cluster::new();
    let one = c.mount(ONE);
    let (kept, left) = (c.file(one, "kept"), c.file(one, "left"));
    c.unlink(one, "kept");
    c.unlink(one, "left");
    c.restart_and_wait();
    let again = c.mount(ONE);
    assert!(c.is_there(kept) && c.is_there(left), "it is not known yet who has them open");
    assert_eq!(c.reclaim(again, one, &[kept, Ino(1 << 40)], &[]), (vec![], vec![Ino(1 << 40)]));
    assert!(c.is_there(kept) && !c.is_there(left));
    c.ask(MountRequest::Release { session: again, inos: vec![(kept, 0)] }).unwrap();
    assert!(!c.is_there(kept));
    assert_eq!(c.master.check(), Vec::<String>::new());
}

#[test]
fn what_is_unlinked_before_all_mounts_are_back_stays_for_those_that_have_it_open() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let (open, closed) = (c.file(one, "open"), c.file(one, "closed"));
    c.restart_and_wait();
    let eager = c.mount(OTHER);
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    c.unlink(eager, "open");
    c.unlink(eager, "closed");
    assert!(c.is_there(open) && c.is_there(closed));
    let again = c.mount(ONE);
    assert_eq!(c.reclaim(again, one, &[open], &[]), (vec![], vec![]));
    assert!(
        c.is_there(open) && c.is_there(closed),
        "who unlinked them has not said that it does not use them"
    );
    c.ask(MountRequest::Release { session: eager, inos: vec![(open, Seq::MAX), (closed, Seq::MAX)] })
        .unwrap();
    assert!(c.is_there(open) && !c.is_there(closed));
}

#[test]
fn without_mounts_that_may_come_back_unlinked_files_go_at_the_start() {
    let mut c = Cluster::new();
    let one = c.mount(ONE);
    let ino = c.file(one, "a");
    c.unlink(one, "a");
    c.restart_and_wait();
    assert!(c.is_there(ino));
    c.died(ONE);
    assert!(!c.is_there(ino), "nobody is waited for");
}

#[test]
fn new_access_times_wait_for_nobody_and_change_nothing_that_has_changed() {
    let c = Cluster::new();
    let (reader, writer) = (c.mount(ONE), c.mount(OTHER));
    let (same, changed) = (c.file(writer, "same"), c.file(writer, "changed"));
    let (old, new) = (Time { sec: 1, nsec: 0 }, Time { sec: 9, nsec: 9 });
    let before = Time { sec: 0, nsec: 5 };
    // The writer holds both exclusively and gives up nothing.
    let times = vec![(same, new, old), (changed, new, before), (Ino(1 << 40), new, old)];
    assert_eq!(c.act(reader, MetaRequest::Accessed { times }), Ok(MetaReply::Done));
    let atime = |ino| match c.act(writer, MetaRequest::GetAttr { ino }) {
        Ok(MetaReply::Attr(attr)) => attr.atime,
        other => panic!("{other:?}"),
    };
    assert_eq!((atime(same), atime(changed)), (new, old));
    let wrong = vec![(same, Time { sec: 1, nsec: 1_000_000_000 }, old)];
    let request = MetaRequest::Accessed { times: wrong };
    let Ok(MountReply::Answer(answer)) = c.ask(MountRequest::Do { session: reader, request }) else {
        panic!()
    };
    assert!(matches!(answer.result, Err(MetaError::Invalid(_))));
}

#[test]
fn leases_from_before_a_restart_hold_until_all_are_back_or_they_have_run_out() {
    let mut c = Cluster::new();
    let (one, other) = (c.mount(ONE), c.mount(OTHER));
    let ino = c.file(one, "a");
    let look = |session| MountRequest::Do { session, request: MetaRequest::GetAttr { ino } };
    let answered = |asked: Receiver<Result<MountReply, MountError>>| match asked.recv_timeout(LONG) {
        Ok(Ok(MountReply::Answer(answer))) => answer.result.is_ok(),
        other => panic!("{other:?}"),
    };
    c.restart();
    let eager = c.mount(OTHER);
    assert_eq!(c.reclaim(eager, other, &[], &[]), (vec![], vec![]));
    let asked = c.start(look(eager));
    c.pass(LEASE / 2);
    assert!(asked.try_recv().is_err(), "another mount may rely on what it knew");
    let again = c.mount(ONE);
    assert!(asked.try_recv().is_err(), "it has not said what it has");
    assert_eq!(c.reclaim(again, one, &[], &[]), (vec![], vec![]));
    assert!(answered(asked), "all are back");

    c.restart();
    let eager = c.mount(OTHER);
    let asked = c.start(look(eager));
    assert!(asked.try_recv().is_err());
    c.pass(LEASE / 2);
    drop(c.start(MountRequest::Poll { session: eager }));
    c.pass(LEASE / 2);
    assert!(answered(asked), "they have run out");
}

#[test]
fn a_master_that_ends_while_leases_from_before_hold_refuses_what_waits_and_what_comes() {
    let mut c = Cluster::new();
    let one = c.mount(ONE);
    let ino = c.file(one, "a");
    c.restart();
    let session = c.mount(OTHER);
    let look = || c.start(MountRequest::Do { session, request: MetaRequest::GetAttr { ino } });
    let waits = look();
    assert!(waits.try_recv().is_err());
    c.master.shutdown().unwrap();
    assert_eq!(waits.recv_timeout(LONG).expect("it is answered"), Err(MountError::Ending));
    assert_eq!(look().recv_timeout(LONG).expect("it is answered"), Err(MountError::Ending));
}
