//! Pages of files: commit, punch, truncate, forget.

use crate::fixture::*;
use pool::proto::meta::*;

#[test]
fn consecutive_pages_become_one_extent() {
    let f = Fixture::new();
    let ino = f.file(Ino::ROOT, "a");
    let first = f.write(ino, 0, 3);
    f.write(ino, 3, 2);
    assert_eq!(f.map(ino), [Extent { at: 0, run: run(first.run.first.raw(), 5) }]);
    let attr = f.attr(ino);
    assert_eq!((attr.size, attr.blocks), (5 * PAGE, 5 * 8));
    f.check();
}

#[test]
fn replaced_pages_are_freed_before_the_reply() {
    let f = Fixture::new();
    let ino = f.file(Ino::ROOT, "a");
    f.write(ino, 0, 10);
    f.write(ino, 4, 2);
    assert_eq!(f.world.daemon.live().len(), 10);
    assert_eq!(f.map(ino).len(), 3);
    assert_eq!(f.attr(ino).blocks, 80);
    f.check();
}

#[test]
fn committing_the_same_pages_again_changes_nothing() {
    let f = Fixture::new();
    let ino = f.file(Ino::ROOT, "a");
    let extent = f.write(ino, 2, 4);
    f.commit(ino, &[extent], 0).unwrap();
    assert_eq!((f.map(ino), f.world.daemon.live().len()), (vec![extent], 4));
    assert_eq!(f.attr(ino).blocks, 32);
    f.check();
}

#[test]
fn unlinked_file_keeps_its_pages_until_it_is_forgotten() {
    let f = Fixture::new();
    let ino = f.file(Ino::ROOT, "a");
    let extent = f.write(ino, 0, 4);
    assert_eq!(f.unlink(Ino::ROOT, "a").unwrap().nlink, 0);
    assert_eq!(f.map(ino), [extent]);
    f.forget(ino);
    assert!(f.world.daemon.live().is_empty());
    assert_eq!(f.ask(MetaRequest::GetAttr { ino }), Err(MetaError::Stale(ino)));
    f.check();
}

#[test]
fn shrinking_frees_the_pages_wholly_past_the_end() {
    let f = Fixture::new();
    let ino = f.file(Ino::ROOT, "a");
    f.write(ino, 0, 4);
    f.setattr(ino, SetAttr { size: Some(PAGE + 1), ..SetAttr::default() }).unwrap();
    assert_eq!((f.world.daemon.live().len(), f.attr(ino).blocks, f.attr(ino).size), (2, 16, PAGE + 1));
    f.setattr(ino, SetAttr { size: Some(FILE_SIZE_MAX), ..SetAttr::default() }).unwrap();
    assert_eq!((f.attr(ino).blocks, f.attr(ino).size), (16, FILE_SIZE_MAX));
    f.check();
}
