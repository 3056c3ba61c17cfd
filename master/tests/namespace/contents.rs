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

#[test]
fn a_commit_that_makes_no_sense_is_refused_and_changes_nothing() {
    let f = Fixture::new();
    let a = f.file(Ino::ROOT, "a");
    let kept = f.write(a, 10, 2);
    let before = f.attr(a);
    let at = |at, first, count| Extent { at, run: run(first, count) };
    let last = FILE_SIZE_MAX.div_ceil(PAGE);
    let cases: [(&[Extent], u64); 6] = [
        (&[at(5, 100, 2), at(6, 200, 1)], 0),
        (&[at(6, 100, 1), at(5, 200, 1)], 0),
        (&[at(5, 100, 2), at(9, 101, 1)], 0),
        (&[at(10, kept.run.first.raw() + 1, 1)], 0),
        (&[at(last, 100, 1)], 0),
        (&[], FILE_SIZE_MAX + 1),
    ];
    for (extents, size) in cases {
        let refused = f.commit(a, extents, size);
        assert!(matches!(refused, Err(MetaError::Invalid(_) | MetaError::TooBig)), "{extents:?} {refused:?}");
    }
    assert_eq!((f.attr(a), f.map(a)), (before, vec![kept]));
    assert!(f.commit(a, &[at(last - 1, 100, 1)], FILE_SIZE_MAX).is_ok());
    assert_eq!(f.commit(Ino::ROOT, &[], 0), Err(MetaError::IsDir));
}

#[test]
fn set_id_bits_go_when_the_mount_says_so() {
    let f = Fixture::new();
    let a = f.make_as(USER, Ino::ROOT, "a", NewNode::File, 0o6755, 0).unwrap();
    let kill = MetaRequest::Commit {
        ino: a.ino,
        extents: vec![],
        size: 0,
        touch: false,
        kill_suid: true,
        set: None,
    };
    let after = f.attr_of(kill.clone()).unwrap();
    assert_eq!(after, Attr { perm: 0o755, ctime: f.now(), ..a });
    assert_eq!(f.attr_of(kill).unwrap(), after, "nothing is left to clear");
}

#[test]
fn attributes_that_come_with_what_was_written_are_set_after_it() {
    let f = Fixture::new();
    let a = f.make_as(USER, Ino::ROOT, "a", NewNode::File, 0o6755, 0).unwrap();
    let time = Time { sec: 7, nsec: 8 };
    let set = SetAttr { mtime: Some(SetTime::At(time)), uid: Some(5), ..SetAttr::default() };
    let commit = |set: SetAttr| MetaRequest::Commit {
        ino: a.ino,
        extents: vec![],
        size: 9,
        touch: true,
        kill_suid: false,
        set: Some(set),
    };
    let after = f.attr_of(commit(set)).unwrap();
    assert_eq!(after, Attr { perm: 0o755, uid: 5, size: 9, mtime: time, ctime: f.now(), ..a });
    let later = f.attr_of(commit(SetAttr { perm: Some(0o4711), ..SetAttr::default() })).unwrap();
    assert_eq!(later, Attr { perm: 0o4711, mtime: f.now(), ctime: f.now(), ..after });
    for bad in [
        SetAttr { size: Some(0), ..SetAttr::default() },
        SetAttr { uid: Some(u32::MAX), ..SetAttr::default() },
        SetAttr { atime: Some(SetTime::At(Time { sec: 0, nsec: 1_000_000_000 })), ..SetAttr::default() },
    ] {
        assert!(matches!(f.attr_of(commit(bad)), Err(MetaError::Invalid(_))), "{bad:?}");
    }
    assert_eq!(f.attr(a.ino), later);
    f.check();
}

#[test]
fn a_hole_frees_what_it_covers_and_splits_what_it_cuts() {
    let f = Fixture::new();
    let a = f.file(Ino::ROOT, "a");
    let first = f.write(a, 0, 10).run.first.raw();
    let punch = |from, to| f.attr_of(MetaRequest::Punch { ino: a, from, to });
    let after = punch(3, 7).unwrap();
    assert_eq!((after.size, after.blocks, after.mtime), (10 * PAGE, 48, f.now()));
    assert_eq!(f.map(a), [Extent { at: 0, run: run(first, 3) }, Extent { at: 7, run: run(first + 7, 3) }]);
    assert_eq!(f.world.daemon.live().len(), 6);
    assert!(matches!(punch(5, 4), Err(MetaError::Invalid(_))));
    punch(0, u64::MAX).unwrap();
    assert_eq!((f.map(a), f.attr(a).blocks, f.attr(a).size), (vec![], 0, 10 * PAGE));
    f.check();
}

#[test]
fn a_map_can_be_read_in_pieces() {
    let f = Fixture::new();
    let a = f.file(Ino::ROOT, "a");
    for i in 0..40 {
        f.write(a, i * 3, 2);
    }
    let piece = |from| match f.ask(MetaRequest::Map { ino: a, from, limit: 2 }) {
        Ok(MetaReply::Map { extents, next, .. }) => (extents.iter().map(|e| e.at).collect::<Vec<_>>(), next),
        other => panic!("{other:?}"),
    };
    assert_eq!(piece(0), (vec![0, 3], Some(6)));
    assert_eq!(piece(7), (vec![6, 9], Some(12)), "the run that maps the page comes whole");
    assert_eq!(piece(8), (vec![9, 12], Some(15)), "a hole is no run");
    assert_eq!(piece(117), (vec![117], None));
    assert_eq!(piece(119), (vec![], None));
    f.check();
}

#[test]
fn pages_that_could_not_be_freed_are_freed_later() {
    let world = World::with_lossy_frees(1);
    let master = world.open_on(Box::new(master::store::Volatile)).unwrap();
    let f = Fixture { world, master };
    for i in 0..50 {
        let name = i.to_string();
        let ino = f.file(Ino::ROOT, &name);
        f.write(ino, 0, 2);
        f.unlink(Ino::ROOT, &name).unwrap();
        f.forget(ino);
    }
    (0..20).for_each(|_| assert_eq!(f.ask(MetaRequest::Sync), Ok(MetaReply::Done)));
    assert!(f.world.daemon.live().is_empty());
}
