//! Random operations, compared with a reference that is small enough to be believed.

#[path = "support/fixture.rs"]
mod fixture;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/reference.rs"]
mod reference;
#[path = "support/stores.rs"]
mod stores;

use fixture::*;
use master::Master;
use master::store::Store;
use ops::{Inos, Op};
use pool::proto::meta::*;
use proptest::prelude::*;
use reference::Model;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use stores::{FailingStore, MemStore};

/// How a run goes beyond asking and comparing.
#[derive(Clone, Default)]
struct Weather {
    /// The store refuses while this is set; every third change then fails.
    store_fails: Option<Arc<AtomicBool>>,
    /// The daemon may be told of a page more than once.
    lossy: bool,
}

struct Run<'a> {
    world: &'a World,
    open: &'a dyn Fn() -> Box<dyn Store>,
    fixture: Option<Master>,
    model: Model,
    inos: Inos,
    weather: Weather,
    steps: AtomicU32,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, open: &'a dyn Fn() -> Box<dyn Store>, weather: Weather) -> Self {
        let master = world.open_on(open()).unwrap();
        let model = Model::new(PAGE, world.clock.last());
        let inos = Inos(vec![Ino::ROOT]);
        Self { world, open, fixture: Some(master), model, inos, weather, steps: AtomicU32::new(0) }
    }

    fn master(&self) -> &Master {
        self.fixture.as_ref().unwrap()
    }

    fn go(&mut self, ops: &[Op]) {
        for op in ops {
            match ops::request(op, &self.inos, &self.model, &self.world.daemon) {
                Some(request) => self.step(request),
                None => self.restart(),
            }
        }
        self.compare();
        self.restart();
    }

    fn step(&mut self, request: MetaRequest) {
        let fails = self.steps.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        if let Some(flag) = &self.weather.store_fails {
            flag.store(fails, Ordering::Relaxed);
        }
        let before = self.cookies();
        let got = ask(self.master(), request.clone());
        let refused = matches!(&got, Err(MetaError::NoSpace(_)));
        if refused && self.weather.store_fails.is_some() {
            self.give_back(&request);
            return;
        }
        let expected = ops::expected(&mut self.model, &request, &got, self.world.clock.last());
        assert!(same(&got, &expected), "{request:?}\n got {got:?}\nwant {expected:?}");
        if let (MetaRequest::Make { .. }, Ok(MetaReply::Attr(made))) = (&request, &got) {
            self.inos.0.push(made.ino);
        }
        if got.is_err() {
            self.give_back(&request);
        }
        for (name, cookie) in self.cookies() {
            assert!(
                before.get(&name).is_none_or(|was| *was == cookie),
                "{name:?} lost its place: {request:?}"
            );
        }
    }

    /// Pages of a commit that was refused are still the mount's.
    fn give_back(&self, request: &MetaRequest) {
        self.world.daemon.take_back(&ops::brought(&self.model, request));
    }

    /// The place of every name.
    fn cookies(&self) -> BTreeMap<(Ino, Vec<u8>), u64> {
        let dirs = self.model.nodes.iter().filter(|(_, node)| node.kind == Kind::Dir);
        let entries = dirs.flat_map(|(dir, _)| entries(self.master(), *dir).into_iter().map(|e| (*dir, e)));
        entries.map(|(dir, e)| ((dir, e.name), e.cookie)).collect()
    }

    fn restart(&mut self) {
        drop(self.fixture.take());
        if let Some(flag) = &self.weather.store_fails {
            flag.store(false, Ordering::Relaxed);
        }
        self.fixture = Some(self.world.open_on((self.open)()).unwrap());
        self.model.restart();
        assert_eq!(self.master().recovery().repairs, Vec::<String>::new());
        assert_eq!(self.master().recovery().missing, []);
        self.compare();
    }

    fn compare(&self) {
        let master = self.master();
        assert_eq!(master.check(), Vec::<String>::new());
        for &ino in &self.inos.0 {
            let got = ask(master, MetaRequest::GetAttr { ino });
            assert_eq!(got, self.model.attr(ino).map(MetaReply::Attr));
            if let Some(node) = self.model.nodes.get(&ino) {
                self.compare_inode(ino, node);
            }
        }
        let stat = InodeStat { used: self.model.nodes.len() as u64, max: self.world.config.max_inodes };
        assert_eq!(ask(master, MetaRequest::StatFs), Ok(MetaReply::Stat(stat)));
        self.compare_pages();
    }

    fn compare_inode(&self, ino: Ino, node: &reference::Node) {
        let master = self.master();
        let names = node.xattrs.keys().flat_map(|name| name.iter().copied().chain([0])).collect();
        assert_eq!(ask(master, MetaRequest::ListXattr { ino }), Ok(MetaReply::Bytes(names)));
        for (name, value) in &node.xattrs {
            let got = ask(master, MetaRequest::GetXattr { ino, name: name.clone() });
            assert_eq!(got, Ok(MetaReply::Bytes(value.clone())));
        }
        match node.kind {
            Kind::Symlink => {
                let got = ask(master, MetaRequest::ReadLink { ino });
                assert_eq!(got, Ok(MetaReply::Bytes(node.target.clone())));
            }
            Kind::File => {
                let (pages, shared) = pages(master, ino);
                assert_eq!(pages, node.pages);
                let truth = self.model.shared();
                assert_eq!(shared, node.pages.values().copied().filter(|p| truth.contains(p)).collect());
            }
            Kind::Dir => {
                let named = entries(master, ino).into_iter().filter(|e| e.cookie > 2);
                let named: BTreeMap<_, _> = named.map(|e| (e.name, e.ino)).collect();
                assert_eq!(named, node.entries);
            }
            _ => {}
        }
    }

    fn compare_pages(&self) {
        let owned = self.model.nodes.values().flat_map(|node| node.pages.values().copied());
        let owned: BTreeSet<u64> = owned.collect();
        let live = self.world.daemon.live();
        if self.weather.lossy {
            assert!(live.is_superset(&owned));
        } else {
            assert_eq!(live, owned);
            assert_eq!(self.world.daemon.freed_twice(), Vec::<u64>::new());
        }
    }
}

fn same(a: &Result<MetaReply>, b: &Result<MetaReply>) -> bool {
    match (a, b) {
        (Err(MetaError::Invalid(_)), Err(MetaError::Invalid(_))) => true,
        // How many pages of an unlinked file are shared is counted before the request changes that; it is compared by
        // GetAttr in the end.
        (Ok(MetaReply::Attr(a)), Ok(MetaReply::Attr(b))) if a.nlink == 0 => {
            a == &Attr { blocks: a.blocks, ..*b }
        }
        _ => a == b,
    }
}

/// The file's pages, asked for in pieces, and which of them are shared.
fn pages(master: &Master, ino: Ino) -> (reference::Pages, BTreeSet<u64>) {
    let mut all = reference::Pages::new();
    let mut all_shared = BTreeSet::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let Ok(MetaReply::Map { extents, shared, next, .. }) =
            ask(master, MetaRequest::Map { ino, from: at, limit: 3 })
        else {
            panic!("no map of {ino:?}")
        };
        for e in &extents {
            assert!(all.last_key_value().is_none_or(|(last, _)| *last < e.at));
            all.extend((e.at..).zip(e.run.iter().map(|p| p.raw())));
        }
        all_shared.extend(shared.iter().flat_map(|run| run.iter()).map(|p| p.raw()));
        from = next;
    }
    (all, all_shared)
}

/// A directory's entries, asked for in pieces.
fn entries(master: &Master, ino: Ino) -> Vec<DirEntry> {
    let mut all: Vec<DirEntry> = Vec::new();
    loop {
        let after = all.last().map_or(0, |e| e.cookie);
        match ask(master, MetaRequest::ReadDir { ino, after, limit: 2, plus: false }) {
            Ok(MetaReply::Entries(more)) if more.is_empty() => return all,
            Ok(MetaReply::Entries(more)) => all.extend(more),
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_master_does_what_the_reference_does(ops in ops::ops(120)) {
        let world = World::new();
        let store = MemStore::default();
        Run::new(&world, &|| Box::new(store.clone()), Weather::default()).go(&ops);
    }

    #[test]
    fn what_the_store_refuses_has_not_happened(ops in ops::ops(80)) {
        let world = World::new();
        let store = FailingStore { inner: MemStore::default(), fail: Arc::default() };
        let weather = Weather { store_fails: Some(store.fail.clone()), ..Weather::default() };
        Run::new(&world, &|| Box::new(store.clone()), weather).go(&ops);
    }

    #[test]
    fn lost_messages_to_the_daemon_lose_no_page_of_a_file(ops in ops::ops(80), seed in any::<u64>()) {
        let world = World::with_lossy_frees(seed);
        let store = MemStore::default();
        let weather = Weather { lossy: true, ..Weather::default() };
        Run::new(&world, &|| Box::new(store.clone()), weather).go(&ops);
    }
}
