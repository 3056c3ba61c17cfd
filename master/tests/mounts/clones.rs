//! Clones of trees while others go on. What is waited for here is waited for without end; the runner ends a test that does.

use crate::fixture::*;
use crate::stores::MemStore;
use crate::{Gate, Mount, died, master};
use pool::proto::meta::*;
use pool::proto::mount::*;
use std::sync::Arc;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread::{scope, spawn};

/// Files in each of the two directories of a tree.
const FILES: usize = 700;
/// Inodes that a clone of it needs beside the directory that is there.
const COPIES: u64 = 2 + 2 * FILES as u64 + 1;
const MANY: u64 = 1 << 40;

/// A tree: directories `a`, by one mount, and `b`, by the other, with files that they may write, one of which has pages
/// and two names, and a symlink. And an empty directory.
fn tree(world: &World, a: &Mount, b: &Mount) -> (Ino, Ino) {
    let top = a.dir(Ino::ROOT, "tree");
    for (mount, name) in [(a, "a"), (b, "b")] {
        let dir = mount.dir(top, name);
        let first = mount.file(dir, "0");
        let extents = vec![Extent { at: 1, run: world.daemon.alloc(3) }];
        let commit =
            MetaRequest::Commit { ino: first, extents, size: 9, touch: true, kill_suid: false, set: None };
        mount.attr_of(commit).unwrap();
        for file in 1..FILES {
            mount.file(dir, &file.to_string());
        }
    }
    let linked = a.attr_of(MetaRequest::Lookup { parent: top, name: b"a".into() }).unwrap().ino;
    let linked = a.attr_of(MetaRequest::Lookup { parent: linked, name: b"0".into() }).unwrap().ino;
    a.attr_of(MetaRequest::Link { ino: linked, parent: top, name: b"again".into() }).unwrap();
    b.make(top, "link", NewNode::Symlink(b"a/0".into())).unwrap();
    (top, a.dir(Ino::ROOT, "clone"))
}

fn child(mount: &Mount, parent: Ino, name: &str) -> Attr {
    mount.attr_of(MetaRequest::Lookup { parent, name: name.into() }).unwrap()
}

/// The clone has all that the tree has.
fn is_whole(mount: &Mount, (from, to): (Ino, Ino)) {
    assert_eq!(mount.names(to, false), ["a", "b", "again", "link"]);
    for name in ["a", "b"] {
        let (source, copy) = (child(mount, from, name), child(mount, to, name));
        assert_ne!(source.ino, copy.ino);
        assert_eq!(mount.names(copy.ino, false).len(), FILES);
        assert_eq!(child(mount, copy.ino, "0").blocks, child(mount, source.ino, "0").blocks);
        assert_eq!(child(mount, copy.ino, ".."), child(mount, to, "."));
    }
    let again = child(mount, to, "again");
    assert_eq!((again.ino, again.nlink), (child(mount, child(mount, to, "a").ino, "0").ino, 2));
    let target = MetaRequest::ReadLink { ino: child(mount, to, "link").ino };
    assert_eq!(mount.ask(target).unwrap().result, Ok(MetaReply::Bytes(b"a/0".into())));
}

#[test]
fn while_a_tree_is_cloned_others_are_served_and_nobody_sees_a_part_of_it() {
    let (world, store) = (World::new(), Gate::new());
    let master = master(store.clone(), MANY);
    let (a, b) = (Mount::new(&master), Mount::new(&master));
    let (from, to) = tree(&world, &a, &b);
    let unrelated = a.file(Ino::ROOT, "unrelated");
    let late = child(&b, from, "b").ino;
    let used = b.used();
    store.shut();
    scope(|scope| {
        let clone = scope.spawn(|| a.clone_tree(from, to));
        store.wait();
        // With the clone in the middle of it.
        assert_eq!(child(&b, Ino::ROOT, "unrelated").ino, unrelated);
        b.unlink(Ino::ROOT, "unrelated");
        let other = b.dir(Ino::ROOT, "other");
        b.file(other, "made");
        for plus in [false, true] {
            assert_eq!(b.names(to, plus), Vec::<String>::new());
            assert_eq!(b.names(from, plus).len(), 4);
        }
        let (sender, made) = channel();
        let b = &b;
        let maker = scope.spawn(move || {
            let made = b.make(late, "late", NewNode::File);
            sender.send(()).unwrap();
            made
        });
        b.file(other, "made afterwards");
        assert_eq!(made.try_recv(), Err(TryRecvError::Empty), "the tree stands still");
        store.open();
        let cloned = clone.join().unwrap().unwrap();
        assert_eq!(cloned.ino, to);
        maker.join().unwrap().unwrap();
    });
    is_whole(&b, (from, to));
    assert_eq!(b.names(late, false).len(), FILES + 1);
    // The unrelated file went; what was made is the directory with two files, and the late one.
    assert_eq!(b.used(), used + COPIES - 1 + 4);
    assert_eq!(master.check(), Vec::<String>::new());
    drop(a);
    let revoked = b.close();
    let writing = revoked.iter().filter(|revoke| revoke.what == Revoked::Writing);
    assert_eq!(writing.count(), FILES, "what it could write it cannot any more");
}

#[test]
fn a_master_that_dies_in_the_middle_has_nothing_or_all_of_a_clone_and_counts_its_pages() {
    let (world, store) = (World::new(), Gate::new());
    let alive = master(store.clone(), MANY);
    let (a, b) = (Mount::new(&alive), Mount::new(&alive));
    let (from, to) = tree(&world, &a, &b);
    store.shut();
    let before = scope(|scope| {
        let clone = scope.spawn(|| a.clone_tree(from, to));
        store.wait();
        // As it would be loaded if the master died before the batch was whole.
        let before = MemStore::default();
        store.inner.records().iter().for_each(|change| before.meddle(change));
        store.open();
        clone.join().unwrap().unwrap();
        before
    });
    for (records, whole) in [(before, false), (store.inner.clone(), true)] {
        let master = master(records, MANY);
        assert_eq!(master.check(), Vec::<String>::new());
        died(&master);
        let c = Mount::new(&master);
        if whole {
            is_whole(&c, (from, to));
        } else {
            assert_eq!(c.names(to, false), Vec::<String>::new());
            // Numbers that were to be given out are given out to nobody else.
            c.clone_tree(from, to).unwrap();
            is_whole(&c, (from, to));
        }
        let shared = |ino| match c.ask(MetaRequest::Map { ino, from: 0, limit: 9 }).unwrap().result {
            Ok(MetaReply::Map { shared, .. }) => shared.iter().map(|run| run.count).sum::<u32>(),
            other => panic!("{other:?}"),
        };
        let (again, copy) = (child(&c, from, "again").ino, child(&c, to, "again").ino);
        assert_eq!((shared(again), shared(copy)), (3, 3));
        assert_eq!(master.check(), Vec::<String>::new());
    }
}

#[test]
fn a_clone_that_cannot_be_written_down_or_does_not_fit_leaves_nothing() {
    let (world, store) = (World::new(), Gate::new());
    // The root, the two directories at the top, and the tree; and the clone but for one.
    let master = master(store.clone(), 3 + 2 * COPIES - 1);
    let (a, b) = (Mount::new(&master), Mount::new(&master));
    let (from, to) = tree(&world, &a, &b);
    let used = b.used();
    assert_eq!(used, 3 + COPIES);
    assert!(matches!(a.clone_tree(from, to), Err(MetaError::NoSpace(_))));
    b.unlink(from, "link");
    store.shut();
    scope(|scope| {
        let clone = scope.spawn(|| a.clone_tree(from, to));
        store.wait();
        let b = &b;
        let maker = scope.spawn(move || b.attr_of(MetaRequest::GetAttr { ino: to }));
        // There is room for one more, and no more than that while the clone is not over.
        b.file(Ino::ROOT, "1");
        assert!(matches!(b.make(Ino::ROOT, "2", NewNode::File), Err(MetaError::NoSpace(_))));
        store.refuse();
        assert!(matches!(clone.join().unwrap(), Err(MetaError::NoSpace(_))));
        maker.join().unwrap().unwrap();
    });
    assert_eq!((b.names(to, false), b.used()), (vec![], used));
    assert_eq!(master.check(), Vec::<String>::new());
    a.clone_tree(from, to).unwrap();
    assert_eq!(b.names(to, false).len(), 3);
    assert_eq!((b.used(), master.check()), (used + COPIES - 1, vec![]));
}

#[test]
fn a_clone_whose_mount_is_gone_comes_to_its_end_and_is_in_nobodys_way() {
    let (world, store) = (World::new(), Gate::new());
    let master = master(store.clone(), MANY);
    let (a, b) = (Arc::new(Mount::new(&master)), Mount::new(&master));
    let (from, to) = tree(&world, &a, &b);
    store.shut();
    let clone = spawn({
        let a = Arc::clone(&a);
        move || a.ask(MetaRequest::CloneTree { from, to, caller: ROOT })
    });
    store.wait();
    a.leave();
    scope(|scope| {
        let late = scope.spawn(|| b.make(from, "late", NewNode::File));
        b.file(Ino::ROOT, "unrelated");
        store.open();
        late.join().unwrap().unwrap();
    });
    assert!(clone.join().unwrap().is_ok());
    is_whole(&b, (from, to));
    assert_eq!(master.check(), Vec::<String>::new());
    // Nobody holds what was granted to who is gone.
    b.unlink(to, "link");
    assert_eq!(master.check(), Vec::<String>::new());
}

#[test]
fn who_may_not_clone_a_tree_does_not_make_it_stand_still() {
    let (world, store) = (World::new(), Gate::new());
    let master = master(store, MANY);
    let (a, b) = (Mount::new(&master), Mount::new(&master));
    let (from, _) = tree(&world, &a, &b);
    let make = MetaRequest::Make {
        parent: Ino::ROOT,
        name: b"own".into(),
        caller: USER,
        node: NewNode::Dir,
        perm: 0o755,
        umask: 0,
    };
    let own = a.attr_of(make).unwrap().ino;
    let clone = |from| a.attr_of(MetaRequest::CloneTree { from, to: own, caller: USER });
    assert_eq!(clone(from), Err(MetaError::NotPermitted));
    assert_eq!(clone(Ino::ROOT), Err(MetaError::NotPermitted));
    assert_eq!(clone(Ino(1 << 30)), Err(MetaError::Stale(Ino(1 << 30))));
    assert!(matches!(clone(own), Err(MetaError::Invalid(_))));
    let revoked = b.close();
    assert!(revoked.iter().all(|revoke| revoke.what != Revoked::Writing), "{revoked:?}");
}
