//! Stores that hold what no master wrote: that they are refused, what is mended, and that it is said.

use crate::fixture::*;
use crate::stores::MemStore;
use master::Master;
use master::change::{Change, Meta};
use pool::proto::meta::*;

/// A file with two names and pages, a directory with a subdirectory, and the store that has them.
struct Damaged {
    world: World,
    store: MemStore,
    file: Ino,
    dir: Ino,
    sub: Ino,
}

fn sample() -> Damaged {
    let world = World::new();
    let store = MemStore::default();
    let f = Fixture { master: world.open_on(Box::new(store.clone())).unwrap(), world };
    let (dir, file) = (f.dir(Ino::ROOT, "dir"), f.file(Ino::ROOT, "file"));
    let sub = f.dir(dir, "sub");
    f.link(file, sub, "again").unwrap();
    f.write(file, 0, 3);
    let Fixture { world, master } = f;
    drop(master);
    Damaged { world, store, file, dir, sub }
}

impl Damaged {
    /// Opens it without leave to repair: refused as often as one tries, and left as it is.
    fn is_refused(&self) {
        let before = (self.store.records(), self.world.daemon.live());
        let first = damage(self.world.open_on(Box::new(self.store.clone())));
        assert!(first.0 > 0 && first.1.contains("the first: ") && first.1.contains("-o repair"), "{first:?}");
        assert_eq!(damage(self.world.open_on(Box::new(self.store.clone()))), first);
        assert_eq!((self.store.records(), self.world.daemon.live()), before);
    }

    /// Is refused; then, with leave to repair, says this, and is a sound tree that needs no more repairs.
    fn mends(&self, said: &[&str]) -> Master {
        self.is_refused();
        let master = self.world.repair_on(Box::new(self.store.clone())).unwrap();
        let repairs = master.recovery().repairs.clone();
        for words in said {
            assert!(repairs.iter().any(|line| line.contains(words)), "{words:?} is not in {repairs:#?}");
        }
        assert_eq!(master.check(), Vec::<String>::new());
        let after = dump(&master);
        drop(master);
        let again = self.world.open_on(Box::new(self.store.clone())).unwrap();
        assert_eq!(again.recovery().repairs, Vec::<String>::new());
        assert_eq!(dump(&again), after);
        again
    }

    fn cookie(&self, parent: Ino, name: &str) -> u64 {
        let master = self.world.open_on(Box::new(self.store.clone())).unwrap();
        let list = MetaRequest::ReadDir { ino: parent, after: 0, limit: 99, plus: false };
        let Ok(MetaReply::Entries(all)) = ask(&master, list) else { panic!("no entries") };
        all.iter().find(|e| e.name == name.as_bytes()).unwrap().cookie
    }

    fn meta(&self, ino: Ino) -> Meta {
        let master = self.world.open_on(Box::new(self.store.clone())).unwrap();
        let Ok(MetaReply::Attr(a)) = ask(&master, MetaRequest::GetAttr { ino }) else {
            panic!("no attributes")
        };
        let Attr { kind, perm, nlink, uid, gid, rdev, size, atime, mtime, ctime, btime, .. } = a;
        let pages = a.blocks / (PAGE / 512);
        Meta { kind, perm, nlink, uid, gid, rdev, size, pages, atime, mtime, ctime, btime }
    }
}

fn found(master: &Master, path: &[&str]) -> Option<Attr> {
    let mut attr = None;
    let mut parent = Ino::ROOT;
    for name in path {
        match ask(master, MetaRequest::Lookup { parent, name: name.as_bytes().into() }) {
            Ok(MetaReply::Attr(a)) => (attr, parent) = (Some(a), a.ino),
            _ => return None,
        }
    }
    attr
}

#[test]
fn a_sound_store_is_not_changed_by_leave_to_repair() {
    let d = sample();
    let before = d.store.records();
    let master = d.world.repair_on(Box::new(d.store.clone())).unwrap();
    assert_eq!(master.recovery().repairs, Vec::<String>::new());
    assert_eq!(d.store.records(), before);
}

#[test]
fn what_a_crash_leaves_is_no_damage() {
    let d = sample();
    let meta = Meta { nlink: 0, ..d.meta(d.file) };
    let leaked = d.world.daemon.alloc(3);
    d.store.meddle(&Change::PutInode(Ino(3000), Meta { pages: 3, ..meta }));
    d.store.meddle(&Change::PutExtent(Ino(3000), Extent { at: 0, run: leaked }));
    d.world.daemon.lose(run(1, 1).first);
    d.world.daemon.alloc(2);
    let master = d.world.open_on(Box::new(d.store.clone())).unwrap();
    let found = master.recovery();
    assert_eq!((found.orphans, found.missing.len(), found.repairs.len()), (1, 1, 0));
    assert_eq!(found.leaked, 5);
}

#[test]
fn an_entry_that_names_nothing_is_removed() {
    let d = sample();
    let name = b"ghost".as_slice().into();
    d.store.meddle(&Change::PutEntry { parent: d.dir, cookie: 99, ino: Ino(5000), name });
    let master = d.mends(&["\"ghost\""]);
    assert_eq!(found(&master, &["dir", "ghost"]), None);
}

#[test]
fn a_tree_that_nothing_leads_to_is_put_into_lost_found() {
    let d = sample();
    d.store.meddle(&Change::DelEntry { parent: Ino::ROOT, cookie: d.cookie(Ino::ROOT, "dir") });
    let master = d.mends(&["nothing led to inode"]);
    let again = found(&master, &["lost+found", &format!("#{}", d.dir.0), "sub", "again"]).unwrap();
    assert_eq!((again.ino, again.nlink, again.blocks), (d.file, 2, 24));
}

#[test]
fn directories_that_hold_each_other_are_put_into_lost_found() {
    let d = sample();
    d.store.meddle(&Change::DelEntry { parent: Ino::ROOT, cookie: d.cookie(Ino::ROOT, "dir") });
    let name = b"ring".as_slice().into();
    d.store.meddle(&Change::PutEntry { parent: d.sub, cookie: 77, ino: d.dir, name });
    let master = d.mends(&["nothing led to inode"]);
    let below = found(&master, &["lost+found", &format!("#{}", d.dir.0), "sub", "again"]);
    assert_eq!(below.map(|a| a.ino), Some(d.file));
}

#[test]
fn numbers_that_can_be_counted_are_counted() {
    let d = sample();
    let meta = d.meta(d.file);
    d.store.meddle(&Change::PutInode(d.file, Meta { nlink: 9, pages: 1, ..meta }));
    let master = d.mends(&["9 links and 1 pages"]);
    let attr = found(&master, &["file"]).unwrap();
    assert_eq!((attr.nlink, attr.blocks), (2, 24));
}

#[test]
fn a_file_with_names_is_no_orphan_whatever_its_count_says() {
    let d = sample();
    let meta = d.meta(d.file);
    d.store.meddle(&Change::PutInode(d.file, Meta { nlink: 0, ..meta }));
    let master = d.mends(&["0 links"]);
    assert_eq!(found(&master, &["file"]).unwrap().nlink, 2);
}

#[test]
fn records_of_inodes_that_are_gone_are_removed_and_their_pages_return() {
    let d = sample();
    let orphan = Extent { at: 0, run: d.world.daemon.alloc(4) };
    d.store.meddle(&Change::PutExtent(Ino(4000), orphan));
    d.store.meddle(&Change::PutXattr(Ino(4000), b"user.x".as_slice().into(), Box::default()));
    d.store.meddle(&Change::PutTarget(d.file, b"x".as_slice().into()));
    let before = d.store.len();
    d.mends(&[
        "pages belonged to no file (4000)",
        "attribute belonged to no inode",
        "target belonged to no link",
    ]);
    assert_eq!(d.store.len(), before - 3);
    assert_eq!(d.world.daemon.live().len(), 3);
}

#[test]
fn a_missing_root_is_made_again_and_keeps_what_it_held() {
    let d = sample();
    d.store.meddle(&Change::DelInode(Ino::ROOT));
    let master = d.mends(&["root directory was missing"]);
    assert_eq!(found(&master, &["lost+found", &format!("#{}", d.dir.0), "sub"]).unwrap().ino, d.sub);
}

#[test]
fn pages_that_two_files_have_are_shared() {
    let d = sample();
    let run = run(1, 2);
    let other = d.meta(d.file);
    d.store.meddle(&Change::PutInode(Ino(3000), Meta { nlink: 1, pages: 2, ..other }));
    let name = b"twin".as_slice().into();
    d.store.meddle(&Change::PutEntry { parent: Ino::ROOT, cookie: 1000, ino: Ino(3000), name });
    d.store.meddle(&Change::PutExtent(Ino(3000), Extent { at: 0, run }));
    let master = d.world.open_on(Box::new(d.store.clone())).unwrap();
    assert_eq!(master.check(), Vec::<String>::new());
    ask(&master, MetaRequest::Punch { ino: Ino(3000), from: 0, to: 1 }).unwrap();
    assert_eq!(d.world.daemon.live().len(), 3, "the other file has the page");
    ask(&master, MetaRequest::Punch { ino: d.file, from: 0, to: 1 }).unwrap();
    assert_eq!(d.world.daemon.live().len(), 2);
}
