//! Making and linking.

use crate::fixture::*;
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;

#[test]
fn a_new_inode_has_the_callers_ids_and_the_mode_less_the_umask() {
    let f = Fixture::new();
    let made = f.make_as(USER, R, "a", NewNode::File, 0o6777, 0o022).unwrap();
    let now = f.now();
    let expected = Attr {
        ino: made.ino,
        kind: Kind::File,
        perm: 0o6755,
        nlink: 1,
        uid: 1000,
        gid: 100,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    };
    assert_eq!((made, f.attr(made.ino)), (expected, expected));
    let root = f.attr(R);
    assert_eq!((root.mtime, root.ctime, root.nlink), (now, now, 2));
}

#[test]
fn in_a_set_group_id_directory_the_group_is_inherited() {
    let f = Fixture::new();
    let d = f.make_as(Caller { uid: 0, gid: 50 }, R, "d", NewNode::Dir, 0o2775, 0).unwrap().ino;
    let file = f.make_as(USER, d, "f", NewNode::File, 0o644, 0).unwrap();
    let dir = f.make_as(USER, d, "s", NewNode::Dir, 0o755, 0).unwrap();
    assert_eq!((file.gid, file.perm, dir.gid, dir.perm), (50, 0o644, 50, 0o2755));
}

#[test]
fn every_kind_can_be_made() {
    let f = Fixture::new();
    let kinds = [
        (NewNode::Fifo, Kind::Fifo, 0),
        (NewNode::Socket, Kind::Socket, 0),
        (NewNode::Char(259), Kind::Char, 259),
        (NewNode::Block(7), Kind::Block, 7),
        (NewNode::Dir, Kind::Dir, 0),
    ];
    for (i, (node, kind, rdev)) in kinds.into_iter().enumerate() {
        let made = f.make(R, &i.to_string(), node).unwrap();
        assert_eq!((made.kind, made.rdev), (kind, rdev));
    }
    let link = f.make(R, "l", NewNode::Symlink(b"/x/y".into())).unwrap();
    assert_eq!((link.perm, link.size), (0o777, 4));
    assert_eq!(f.ask(MetaRequest::ReadLink { ino: link.ino }), Ok(MetaReply::Bytes(b"/x/y".into())));
    assert!(matches!(f.ask(MetaRequest::ReadLink { ino: R }), Err(MetaError::Invalid(_))));
    f.check();
}

#[test]
fn a_target_may_have_4095_bytes() {
    let f = Fixture::new();
    assert!(f.make(R, "a", NewNode::Symlink(vec![b'x'; 4095])).is_ok());
    assert_eq!(f.make(R, "b", NewNode::Symlink(vec![b'x'; 4096])), Err(MetaError::NameTooLong));
    assert!(matches!(f.make(R, "c", NewNode::Symlink(Vec::new())), Err(MetaError::Invalid(_))));
}

#[test]
fn a_name_that_exists_is_not_made_again() {
    let f = Fixture::new();
    let file = f.file(R, "a");
    for name in ["a", ".", ".."] {
        assert_eq!(f.make(R, name, NewNode::Dir), Err(MetaError::Exists));
        assert_eq!(f.link(file, R, name), Err(MetaError::Exists));
    }
    assert_eq!(f.make(file, "x", NewNode::File), Err(MetaError::NotDir));
    assert_eq!(f.make(R, &"n".repeat(256), NewNode::File), Err(MetaError::NameTooLong));
    assert_eq!(f.make(Ino(99), "x", NewNode::File), Err(MetaError::Stale(Ino(99))));
}

#[test]
fn nothing_is_made_in_a_removed_directory() {
    let f = Fixture::new();
    let (d, file) = (f.dir(R, "d"), f.file(R, "f"));
    f.rmdir(R, "d").unwrap();
    assert_eq!(f.make(d, "x", NewNode::File), Err(MetaError::NotFound));
    assert_eq!(f.link(file, d, "x"), Err(MetaError::NotFound));
    assert_eq!(f.rename((R, "f"), (d, "x"), RenameMode::Replace), Err(MetaError::NotFound));
    assert_eq!(f.lookup(d, "x"), Err(MetaError::NotFound));
    assert!(f.entries(d, 0, 10).is_empty());
}

#[test]
fn there_are_no_more_inodes_than_there_may_be() {
    let f = Fixture::with_max_inodes(3);
    let a = f.file(R, "a");
    f.file(R, "b");
    assert!(matches!(f.make(R, "c", NewNode::File), Err(MetaError::NoSpace(_))));
    assert!(f.link(a, R, "c").is_ok(), "a link takes no inode");
    f.unlink(R, "b").unwrap();
    assert!(matches!(f.make(R, "d", NewNode::File), Err(MetaError::NoSpace(_))), "it may still be open");
    f.forget(Ino(3));
    assert!(f.make(R, "d", NewNode::File).is_ok());
    assert_eq!(f.ask(MetaRequest::StatFs), Ok(MetaReply::Stat(InodeStat { used: 3, max: 3 })));
}

#[test]
fn links_are_counted_up_to_the_most() {
    let f = Fixture::new();
    let (d, a) = (f.dir(R, "d"), f.file(R, "a"));
    for i in 1..LINK_MAX {
        f.link(a, d, &i.to_string()).unwrap();
    }
    let before = (f.attr(a), f.attr(d));
    assert_eq!(before.0.nlink, LINK_MAX);
    assert_eq!(f.link(a, d, "more"), Err(MetaError::TooManyLinks));
    assert_eq!((f.attr(a), f.attr(d)), before, "a refused change leaves no trace");
}

#[test]
fn subdirectories_are_counted_up_to_the_most() {
    let f = Fixture::new();
    let (full, other) = (f.dir(R, "full"), f.dir(R, "other"));
    for i in 2..LINK_MAX {
        f.dir(full, &i.to_string());
    }
    assert_eq!(f.attr(full).nlink, LINK_MAX);
    assert_eq!(f.make(full, "more", NewNode::Dir), Err(MetaError::TooManyLinks));
    f.dir(other, "x");
    let into = |mode| f.rename((other, "x"), (full, "y"), mode);
    assert_eq!(into(RenameMode::Replace), Err(MetaError::TooManyLinks));
    f.file(full, "y");
    assert_eq!(into(RenameMode::Exchange), Err(MetaError::TooManyLinks));
    assert!(f.rename((other, "x"), (full, "2"), RenameMode::Replace).is_ok(), "one comes, one goes");
    assert!(f.rename((full, "3"), (full, "4x"), RenameMode::Replace).is_ok());
    f.check();
}

#[test]
fn what_cannot_be_linked() {
    let f = Fixture::new();
    let (d, a) = (f.dir(R, "d"), f.file(R, "a"));
    assert_eq!(f.link(d, R, "x"), Err(MetaError::NotPermitted));
    f.unlink(R, "a").unwrap();
    assert_eq!(f.link(a, R, "x"), Err(MetaError::NotFound));
    f.forget(a);
    assert_eq!(f.link(a, R, "x"), Err(MetaError::Stale(a)));
}

#[test]
fn a_link_changes_the_change_time_of_the_inode_and_the_times_of_the_directory() {
    let f = Fixture::new();
    let (d, a) = (f.dir(R, "d"), f.file(R, "a"));
    let before = f.attr(a);
    let after = f.link(a, d, "b").unwrap();
    assert_eq!(after, Attr { nlink: 2, ctime: f.now(), ..before });
    assert_eq!((f.attr(d).mtime, f.attr(d).ctime), (f.now(), f.now()));
    let left = f.unlink(R, "a").unwrap();
    assert_eq!(left, Attr { nlink: 1, ctime: f.now(), ..before });
    assert_eq!((f.attr(R).mtime, f.attr(R).ctime), (f.now(), f.now()));
}
