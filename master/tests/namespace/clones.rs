//! Clones: pages that several files have, and whole directories.

use crate::fixture::*;
use pool::addr::PageRun;
use pool::proto::meta::*;

fn clone(f: &Fixture, from: (Ino, u64), to: (Ino, u64), pages: u64) -> Result<Attr> {
    f.attr_of(MetaRequest::Clone { from, to, pages, size: (to.1 + pages) * PAGE, expect: None })
}

fn clone_tree(f: &Fixture, caller: Caller, from: Ino, to: Ino) -> Result<Attr> {
    f.attr_of(MetaRequest::CloneTree { from, to, caller })
}

fn shared(f: &Fixture, ino: Ino) -> Vec<PageRun> {
    match f.ask(MetaRequest::Map { ino, from: 0, limit: u32::MAX }) {
        Ok(MetaReply::Map { shared, .. }) => shared,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_goes_with_the_last_file_that_has_it() {
    let f = Fixture::new();
    let (a, b) = (f.file(Ino::ROOT, "a"), f.file(Ino::ROOT, "b"));
    let written = f.write(a, 0, 4);
    let first = written.run.first.raw();
    assert_eq!(clone(&f, (a, 1), (b, 0), 3).unwrap().blocks, 24);
    assert_eq!(f.map(b), [Extent { at: 0, run: run(first + 1, 3) }]);
    assert_eq!((shared(&f, a), shared(&f, b)), (vec![run(first + 1, 3)], vec![run(first + 1, 3)]));
    // The writer puts a page of its own in the place of a shared one.
    f.write(a, 2, 1);
    assert_eq!(shared(&f, a), [run(first + 1, 1), run(first + 3, 1)]);
    assert_eq!(f.world.daemon.live().len(), 5);
    f.unlink(Ino::ROOT, "a").unwrap();
    f.forget(a);
    assert_eq!((shared(&f, b), f.world.daemon.live().len()), (vec![], 3));
    f.check();
    f.unlink(Ino::ROOT, "b").unwrap();
    f.forget(b);
    assert!(f.world.daemon.live().is_empty());
    f.check();
}

#[test]
fn a_clone_replaces_what_was_there_also_by_holes() {
    let f = Fixture::new();
    let (a, b) = (f.file(Ino::ROOT, "a"), f.file(Ino::ROOT, "b"));
    let first = f.write(a, 1, 1).run.first.raw();
    let old = f.write(b, 0, 5).run.first.raw();
    clone(&f, (a, 0), (b, 1), 3).unwrap();
    let at = |at, first, count| Extent { at, run: run(first, count) };
    assert_eq!(f.map(b), [at(0, old, 1), at(2, first, 1), at(4, old + 4, 1)]);
    assert_eq!((f.attr(b).blocks, f.world.daemon.live().len()), (24, 3));
    f.check();
}

#[test]
fn a_file_can_have_a_page_twice_and_be_written_around_it() {
    let f = Fixture::new();
    let (a, b) = (f.file(Ino::ROOT, "a"), f.file(Ino::ROOT, "b"));
    f.write(a, 0, 1);
    clone(&f, (a, 0), (b, 0), 1).unwrap();
    clone(&f, (b, 0), (a, 2), 1).unwrap();
    f.write(a, 1, 1);
    f.write(a, 0, 1);
    assert_eq!((f.attr(a).blocks, f.world.daemon.live().len()), (24, 3));
    assert!(matches!(clone(&f, (a, 0), (a, 1), 2), Err(MetaError::Invalid(_))));
    clone(&f, (a, 0), (a, 3), 3).unwrap();
    assert_eq!(f.world.daemon.live().len(), 3);
    f.check();
}

#[test]
fn a_clone_that_makes_no_sense_is_refused() {
    let f = Fixture::new();
    let a = f.file(Ino::ROOT, "a");
    f.write(a, 0, 1);
    let last = FILE_SIZE_MAX.div_ceil(PAGE);
    assert_eq!(clone(&f, (Ino::ROOT, 0), (a, 0), 1), Err(MetaError::IsDir));
    assert_eq!(clone(&f, (a, 0), (Ino::ROOT, 0), 1), Err(MetaError::IsDir));
    let far = MetaRequest::Clone { from: (a, 0), to: (a, last), pages: 1, size: 0, expect: None };
    assert_eq!(f.attr_of(far), Err(MetaError::TooBig));
    let long = MetaRequest::Clone { from: (a, u64::MAX), to: (a, 0), pages: 2, size: 0, expect: None };
    assert_eq!(f.attr_of(long), Err(MetaError::TooBig));
    assert_eq!(clone(&f, (a, 0), (Ino(99), 0), 1), Err(MetaError::Stale(Ino(99))));
    f.check();
}

#[test]
fn a_tree_is_cloned_with_everything_in_it() {
    let f = Fixture::new();
    let src = f.dir(Ino::ROOT, "src");
    let sub = f.dir(src, "sub");
    let a = f.file(sub, "a");
    f.write(a, 3, 2);
    f.link(a, src, "again").unwrap();
    f.link(a, Ino::ROOT, "outside").unwrap();
    f.make(src, "link", NewNode::Symlink(b"sub/a".to_vec())).unwrap();
    f.make(src, "pipe", NewNode::Fifo).unwrap();
    let (name, value) = (b"user.u".to_vec(), b"v".to_vec());
    for ino in [src, a] {
        let (name, value, mode) = (name.clone(), value.clone(), XattrMode::Any);
        f.attr_of(MetaRequest::SetXattr { ino, caller: ROOT, name, value, mode }).unwrap();
    }
    f.setattr(src, SetAttr { perm: Some(0o750), uid: Some(7), ..SetAttr::default() }).unwrap();
    let dst = f.dir(Ino::ROOT, "dst");
    let cloned = clone_tree(&f, ROOT, src, dst).unwrap();
    let was = f.attr(src);
    assert_eq!((cloned.perm, cloned.uid, cloned.nlink, cloned.mtime), (0o750, 7, was.nlink, was.mtime));
    assert_eq!(f.names(dst), f.names(src));
    let copied = f.lookup(dst, "again").unwrap();
    assert_ne!(copied.ino, a);
    assert_eq!((copied.nlink, copied.blocks, copied.size), (2, 16, 5 * PAGE));
    assert_eq!(f.lookup(f.lookup(dst, "sub").unwrap().ino, "a").unwrap(), copied);
    assert_eq!((f.map(copied.ino), f.world.daemon.live().len()), (f.map(a), 2));
    let target = f.ask(MetaRequest::ReadLink { ino: f.lookup(dst, "link").unwrap().ino });
    assert_eq!(target, Ok(MetaReply::Bytes(b"sub/a".to_vec())));
    for ino in [dst, copied.ino] {
        assert_eq!(
            f.ask(MetaRequest::GetXattr { ino, name: name.clone() }),
            Ok(MetaReply::Bytes(value.clone()))
        );
    }
    assert_eq!(f.attr(a).nlink, 3);
    f.check();
}

#[test]
fn who_may_clone_a_tree_and_where_to() {
    let f = Fixture::new();
    let own = |name| f.make_as(USER, Ino::ROOT, name, NewNode::Dir, 0o755, 0).unwrap().ino;
    let (src, dst) = (own("src"), own("dst"));
    let inside = f.make_as(USER, src, "inside", NewNode::Dir, 0o755, 0).unwrap().ino;
    assert!(matches!(clone_tree(&f, USER, src, inside), Err(MetaError::Invalid(_))));
    assert!(matches!(clone_tree(&f, USER, src, src), Err(MetaError::NotEmpty)));
    let foreign = f.file(src, "of root");
    assert_eq!(clone_tree(&f, USER, src, dst), Err(MetaError::NotPermitted));
    assert_eq!(f.names(dst), Vec::<String>::new());
    f.setattr(foreign, SetAttr { uid: Some(USER.uid), ..SetAttr::default() }).unwrap();
    clone_tree(&f, USER, src, dst).unwrap();
    assert_eq!(clone_tree(&f, USER, src, dst), Err(MetaError::NotEmpty));
    let foreign = f.dir(Ino::ROOT, "foreign");
    assert_eq!(clone_tree(&f, USER, src, foreign), Err(MetaError::NotPermitted));
    assert_eq!(clone_tree(&f, USER, f.file(Ino::ROOT, "file"), foreign), Err(MetaError::NotDir));
    f.check();
}

#[test]
fn a_tree_that_does_not_fit_is_not_cloned_at_all() {
    let f = Fixture::with_max_inodes(6);
    let src = f.dir(Ino::ROOT, "src");
    f.file(src, "a");
    f.file(src, "b");
    let dst = f.dir(Ino::ROOT, "dst");
    assert!(matches!(clone_tree(&f, ROOT, src, dst), Err(MetaError::NoSpace(_))));
    assert_eq!(f.names(dst), Vec::<String>::new());
    f.check();
}
