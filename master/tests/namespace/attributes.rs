//! chmod, chown, utimensat.

use crate::fixture::*;
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;
const NONE: SetAttr =
    SetAttr { perm: None, uid: None, gid: None, size: None, atime: None, mtime: None, ctime: None };

#[test]
fn a_change_of_owner_clears_the_set_id_bits_of_what_is_no_directory() {
    let f = Fixture::new();
    let make = |name: &str, node, perm| f.make_as(USER, R, name, node, perm, 0).unwrap().ino;
    let (run, lock, dir) = (
        make("run", NewNode::File, 0o6755),
        make("lock", NewNode::File, 0o6745),
        make("dir", NewNode::Dir, 0o6755),
    );
    for caller in [ROOT, USER] {
        for ino in [run, lock, dir] {
            f.setattr_as(caller, ino, SetAttr { gid: Some(5), ..NONE }).unwrap();
        }
        assert_eq!([run, lock, dir].map(|ino| f.attr(ino).perm), [0o755, 0o2745, 0o6755]);
        f.setattr(run, SetAttr { perm: Some(0o6755), ..NONE }).unwrap();
    }
    assert_eq!((f.attr(run).uid, f.attr(run).gid, f.attr(run).ctime), (1000, 5, f.now()));
}

#[test]
fn a_mode_given_with_an_owner_is_the_mode() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    let after = f.setattr(a, SetAttr { uid: Some(9), perm: Some(0o4711), ..NONE }).unwrap();
    assert_eq!((after.uid, after.perm), (9, 0o4711));
}

#[test]
fn truncation_clears_the_set_id_bits_unless_root_asks() {
    let f = Fixture::new();
    let a = f.make_as(USER, R, "a", NewNode::File, 0o6755, 0).unwrap().ino;
    let shrink = SetAttr { size: Some(0), ..NONE };
    assert_eq!(f.setattr_as(ROOT, a, shrink).unwrap().perm, 0o6755);
    assert_eq!(f.setattr_as(USER, a, shrink).unwrap().perm, 0o755);
}

#[test]
fn sizes_are_of_files_and_up_to_the_most() {
    let f = Fixture::new();
    let (a, d, p) = (f.file(R, "a"), f.dir(R, "d"), f.make(R, "p", NewNode::Fifo).unwrap().ino);
    let size = |ino, size| f.setattr(ino, SetAttr { size: Some(size), ..NONE });
    assert_eq!(size(a, FILE_SIZE_MAX + 1), Err(MetaError::TooBig));
    assert_eq!(size(d, 0), Err(MetaError::IsDir));
    assert!(matches!(size(p, 0), Err(MetaError::Invalid(_))));
    let after = size(a, FILE_SIZE_MAX).unwrap();
    assert_eq!((after.size, after.blocks, after.mtime, after.ctime), (FILE_SIZE_MAX, 0, f.now(), f.now()));
}

#[test]
fn times_are_set_to_now_or_a_time_and_the_change_time_follows() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    let before = f.attr(a);
    let old = Time { sec: -11_644_473_600, nsec: 999_999_999 };
    let after = f.setattr(a, SetAttr { atime: Some(SetTime::At(old)), ..NONE }).unwrap();
    assert_eq!(after, Attr { atime: old, ctime: f.now(), ..before });
    let after = f.setattr(a, SetAttr { mtime: Some(SetTime::Now), ..NONE }).unwrap();
    assert_eq!(after, Attr { atime: old, mtime: f.now(), ctime: f.now(), ..before });
    let after = f.setattr(a, SetAttr { ctime: Some(old), ..NONE }).unwrap();
    assert_eq!(after.ctime, old);
    let bad = SetTime::At(Time { sec: 0, nsec: 1_000_000_000 });
    assert!(matches!(f.setattr(a, SetAttr { mtime: Some(bad), ..NONE }), Err(MetaError::Invalid(_))));
}

#[test]
fn links_have_no_mode_to_set_and_ids_of_all_ones_are_no_ids() {
    let f = Fixture::new();
    let l = f.make(R, "l", NewNode::Symlink(b"x".into())).unwrap().ino;
    assert_eq!(f.setattr(l, SetAttr { perm: Some(0o600), ..NONE }), Err(MetaError::NotSupported));
    assert_eq!(f.setattr(l, SetAttr { uid: Some(3), ..NONE }).unwrap().uid, 3);
    assert!(matches!(f.setattr(l, SetAttr { gid: Some(u32::MAX), ..NONE }), Err(MetaError::Invalid(_))));
    assert_eq!(f.setattr(Ino(55), NONE), Err(MetaError::Stale(Ino(55))));
}
