//! Who may open a store, and what opening finds.

use crate::*;
use master::change::Change;
use master::{MasterConfig, MasterError};
use rustix::fs::{FlockOperation, flock};

fn config(world: &World, dir: &Path) -> MasterConfig {
    MasterConfig { store: Some(dir.into()), ..world.config.clone() }
}

#[test]
fn the_second_master_is_told_who_has_the_store() {
    let (world, home) = (World::new(), scratch());
    let first = Master::open(config(&world, home.path()), world.transport.clone()).unwrap();
    let second = Master::open(config(&world, home.path()), world.transport.clone());
    let why = second.err().unwrap().to_string();
    assert!(why.contains(&std::process::id().to_string()), "{why}");
    drop(first);
    Master::open(config(&world, home.path()), world.transport.clone()).unwrap();
}

#[test]
fn another_pool_or_page_size_is_refused_with_what_to_do() {
    let (world, home) = (World::new(), scratch());
    drop(Master::open(config(&world, home.path()), world.transport.clone()).unwrap());
    let refuse = |config: MasterConfig| match Master::open(config, world.transport.clone()).err().unwrap() {
        MasterError::Store(StoreError::Mismatch(why)) => why,
        other => panic!("{other}"),
    };
    let why = refuse(MasterConfig { pool_id: 8, ..config(&world, home.path()) });
    assert!(why.contains("cxl="), "{why}");
    let page_size = PageSize::from_bytes(65536).unwrap();
    let why = refuse(MasterConfig { page_size, ..config(&world, home.path()) });
    assert!(why.contains("page_size=4096"), "{why}");
    Master::open(config(&world, home.path()), world.transport.clone()).unwrap();
}

#[test]
fn pages_nobody_has_return_to_the_pool_and_missing_ones_are_named() {
    let (world, home) = (World::new(), scratch());
    let master = open(&world, home.path(), EAGER);
    for i in 0..3 {
        step(&world, &master, i);
    }
    let Ok(MetaReply::Map { extents, .. }) =
        ask(&master, MetaRequest::Map { ino: Ino(3), from: 0, limit: 9 })
    else {
        panic!("no map")
    };
    master.shutdown().unwrap();
    drop(master);
    let leaked = world.daemon.alloc(6);
    world.daemon.lose(extents[0].run.get(3).unwrap());
    let master = open(&world, home.path(), EAGER);
    let found = master.recovery();
    assert_eq!((found.leaked, found.orphans, found.inodes), (6, 0, 3));
    assert!(!world.daemon.live().contains(&leaked.first.raw()));
    let [missing] = &found.missing[..] else { panic!("{found:?}") };
    assert_eq!((missing.path.as_str(), missing.extent.at, missing.extent.run.count), ("/file", 3, 1));
    let after = ask(&master, MetaRequest::Map { ino: Ino(3), from: 0, limit: 9 });
    assert!(matches!(after, Ok(MetaReply::Map { extents: e, .. }) if e == extents), "missing pages stay");
}

#[test]
fn files_that_were_open_and_unlinked_are_gone_with_their_pages() {
    let (world, home) = (World::new(), scratch());
    let master = open(&world, home.path(), EAGER);
    for i in 0..4 {
        step(&world, &master, i);
    }
    ask(&master, MetaRequest::Unlink { parent: Ino::ROOT, name: b"file".into() }).unwrap();
    assert_eq!(world.daemon.live().len(), 5);
    drop(master);
    let master = open(&world, home.path(), EAGER);
    assert_eq!((master.recovery().orphans, master.recovery().inodes), (1, 2));
    assert!(world.daemon.live().is_empty());
    drop(master);
    assert_eq!(open(&world, home.path(), EAGER).recovery().orphans, 0);
}

#[test]
fn inode_numbers_are_not_given_out_again_after_a_restart() {
    let (world, home) = (World::new(), scratch());
    let mut highest = 0;
    for i in 0..4 {
        let master = open(&world, home.path(), LAZY);
        let made = ask(&master, request(&world, 100 + i));
        let Ok(MetaReply::Attr(made)) = made else { panic!("{made:?}") };
        assert!(made.ino.0 > highest, "{} after {highest}", made.ino.0);
        highest = made.ino.0;
        let parent = Ino::ROOT;
        ask(&master, MetaRequest::Unlink { parent, name: format!("more{}", 100 + i).into() }).unwrap();
        ask(&master, MetaRequest::Forget { inos: vec![made.ino] }).unwrap();
    }
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_and_no_panic() {
    let (world, home) = (World::new(), scratch());
    let master = open(&world, home.path(), EAGER);
    step(&world, &master, 0);
    master.shutdown().unwrap();
    drop(master);
    let db = database(&home.path().join("db"));
    let key = [&[2u8][..], &2u64.to_be_bytes()].concat();
    assert!(db.insert(key, b"nonsense").unwrap().is_some());
    db.flush().unwrap();
    drop(db);
    let why = try_open(&world, home.path(), EAGER).err().unwrap().to_string();
    assert!(why.contains("0200000000000000") && why.contains("restore"), "{why}");
}

/// The database of a store that has ended. Threads of sled's own hold its lock for a moment longer.
fn database(dir: &Path) -> sled::Db {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        match sled::open(dir) {
            Ok(db) => return db,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Our files in a state directory with what is in them, and sled's data file.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = journals(dir).into_iter().chain([dir.join("db/db")]);
    files.map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// A store, at rest, with an entry that names nothing, and an end of its journal that was never finished.
fn damaged(world: &World, dir: &Path, tuning: Tuning) {
    let master = open(world, dir, tuning);
    (0..4).for_each(|i| step(world, &master, i));
    master.shutdown().unwrap();
    drop(master);
    let store = SledStore::open(dir, ID, tuning).unwrap();
    store.begin().unwrap();
    let name = b"ghost".as_slice().into();
    store.commit(&[Change::PutEntry { parent: Ino::ROOT, cookie: 900, ino: Ino(5000), name }]).unwrap();
    store.close().unwrap();
    drop(store);
    let last = journals(dir).pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes.extend([9, 0, 0]);
    std::fs::write(&last, bytes).unwrap();
}

#[test]
fn a_damaged_store_is_refused_untouched_until_it_may_be_repaired() {
    for tuning in [LAZY, EAGER] {
        let (world, home) = (World::new(), scratch());
        damaged(&world, home.path(), tuning);
        let leaked = world.daemon.alloc(6);
        let before = contents(home.path());
        let first = damage(try_open(&world, home.path(), tuning));
        assert!(first.0 == 1 && first.1.contains("\"ghost\""), "{first:?}");
        // Time enough for a thread that brought the journal in, if there were one.
        std::thread::sleep(Duration::from_millis(20));
        assert!(contents(home.path()) == before, "the refusal changed something");
        assert_eq!(damage(try_open(&world, home.path(), tuning)), first);
        assert!(contents(home.path()) == before, "the second refusal changed something");
        assert!(world.daemon.live().contains(&leaked.first.raw()), "pages were freed");
        assert_eq!(repair(&world, home.path(), tuning).recovery().repairs.len(), 1);
        let master = open(&world, home.path(), tuning);
        assert_eq!(master.recovery().inodes, 3);
        assert_eq!(master.check(), Vec::<String>::new());
    }
}

#[test]
fn the_refusal_names_the_directory_and_the_way_out() {
    let (world, home) = (World::new(), scratch());
    damaged(&world, home.path(), EAGER);
    let refused = Master::open(config(&world, home.path()), world.transport.clone());
    let (_, why) = damage(refused);
    let dir = home.path().display().to_string();
    for part in [
        &format!("the names in {dir} are damaged"),
        "(1 problem, the first",
        &format!("copy {dir} and"),
        "-o repair",
    ] {
        assert!(why.contains(part), "{part:?} is not in {why}");
    }
    let config = MasterConfig { repair: true, ..config(&world, home.path()) };
    let master = Master::open(config, world.transport.clone()).unwrap();
    assert_eq!(master.recovery().repairs.len(), 1);
}

#[test]
fn the_database_may_be_let_go_of_a_little_later() {
    let (world, home) = (World::new(), scratch());
    let master = open(&world, home.path(), LAZY);
    step(&world, &master, 0);
    drop(master);
    let held = std::fs::File::open(home.path().join("db/db")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    open(&world, home.path(), LAZY);
    holder.join().unwrap();
}

#[test]
fn syncing_and_closing_an_idle_store_works() {
    let home = scratch();
    let store = SledStore::open(home.path(), ID, LAZY).unwrap();
    assert!(matches!(store.sync(), Err(StoreError::Stopped(_))), "it has not begun");
    store.begin().unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    assert!(matches!(store.commit(&[]), Err(StoreError::Stopped(_))));
}
