//! Looking up, listing, unlinking, removing.

use crate::fixture::*;
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;

#[test]
fn dot_and_dot_dot_are_found() {
    let f = Fixture::new();
    let a = f.dir(R, "a");
    let b = f.dir(a, "b");
    assert_eq!(f.lookup(b, ".").unwrap().ino, b);
    assert_eq!(f.lookup(b, "..").unwrap().ino, a);
    assert_eq!(f.lookup(R, "..").unwrap().ino, R);
    assert_eq!(f.lookup(f.file(R, "f"), "."), Err(MetaError::NotDir));
    assert_eq!(f.lookup(R, "none"), Err(MetaError::NotFound));
    assert!(matches!(f.lookup(R, ""), Err(MetaError::Invalid(_))));
    assert!(matches!(f.lookup(R, "a/b"), Err(MetaError::Invalid(_))));
    assert_eq!(f.lookup(R, &"n".repeat(256)), Err(MetaError::NameTooLong));
}

#[test]
fn a_listing_begins_with_dot_and_dot_dot_and_can_say_attributes() {
    let f = Fixture::new();
    let a = f.dir(R, "a");
    let b = f.file(a, "b");
    let list = MetaRequest::ReadDir { ino: a, after: 0, limit: 10, plus: true };
    let Ok(MetaReply::Entries(all)) = f.ask(list) else { panic!("no entries") };
    let brief: Vec<_> = all.iter().map(|e| (e.cookie, e.ino, e.kind, &e.name[..])).collect();
    assert_eq!(brief[..2], [(1, a, Kind::Dir, &b"."[..]), (2, R, Kind::Dir, b"..")]);
    assert_eq!((brief[2].1, brief[2].2, brief[2].3), (b, Kind::File, &b"b"[..]));
    assert!(all.iter().all(|e| e.attr == Some(f.attr(e.ino))));
    assert_eq!(
        f.ask(MetaRequest::ReadDir { ino: b, after: 0, limit: 1, plus: false }),
        Err(MetaError::NotDir)
    );
}

#[test]
fn a_listing_in_pieces_misses_nothing_that_stays() {
    let f = Fixture::new();
    for i in 0..100 {
        f.file(R, &format!("n{i}"));
    }
    let (mut after, mut seen) = (0, Vec::new());
    for round in 0.. {
        let piece = f.entries(R, after, 7);
        let Some(last) = piece.last() else { break };
        after = last.cookie;
        seen.extend(piece.into_iter().map(|e| String::from_utf8(e.name).unwrap()));
        // Before and after the place where the listing is.
        let _ = f.unlink(R, &format!("n{}", round * 5));
        let _ = f.unlink(R, &format!("n{}", 99 - round * 5));
        if round < 3 {
            f.file(R, &format!("new{round}"));
        }
    }
    let stays = f.names(R);
    assert!(stays.iter().all(|name| seen.contains(name)));
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), seen.len(), "nothing is listed twice");
}

#[test]
fn renaming_everything_that_is_listed_ends() {
    let f = Fixture::new();
    for i in 0..20 {
        f.file(R, &format!("n{i}"));
    }
    let (mut after, mut renamed) = (2, 0);
    while let Some(entry) = f.entries(R, after, 1).pop() {
        let name = String::from_utf8(entry.name).unwrap();
        f.rename((R, &name), (R, &format!("{name}.bak")), RenameMode::Replace).unwrap();
        (after, renamed) = (entry.cookie, renamed + 1);
        assert!(renamed <= 20);
    }
    assert_eq!(renamed, 20);
}

#[test]
fn a_name_that_is_replaced_keeps_its_place() {
    let f = Fixture::new();
    let [_, b, _] = ["a", "b", "c"].map(|name| f.file(R, name));
    let place = |name: &str| f.entries(R, 2, 9).iter().find(|e| e.name == name.as_bytes()).map(|e| e.cookie);
    let was = place("a");
    f.rename((R, "b"), (R, "a"), RenameMode::Replace).unwrap();
    assert_eq!((place("a"), f.lookup(R, "a").unwrap().ino), (was, b));
    assert_eq!(f.names(R), ["a", "c"]);
}

#[test]
fn directories_are_removed_and_files_unlinked_and_not_the_other_way() {
    let f = Fixture::new();
    let d = f.dir(R, "d");
    f.file(d, "x");
    assert_eq!(f.unlink(R, "d"), Err(MetaError::IsDir));
    assert_eq!(f.rmdir(d, "x"), Err(MetaError::NotDir));
    assert_eq!(f.rmdir(R, "d"), Err(MetaError::NotEmpty));
    assert!(matches!(f.rmdir(d, "."), Err(MetaError::Invalid(_))));
    assert_eq!(f.rmdir(d, ".."), Err(MetaError::NotEmpty));
    assert_eq!(f.unlink(d, "."), Err(MetaError::IsDir));
    assert_eq!(f.unlink(R, "none"), Err(MetaError::NotFound));
    f.unlink(d, "x").unwrap();
    let gone = f.rmdir(R, "d").unwrap();
    assert_eq!((gone.nlink, gone.ctime), (0, f.now()));
    let root = f.attr(R);
    assert_eq!((root.nlink, root.mtime, root.ctime), (2, f.now(), f.now()));
    f.check();
    f.forget(d);
    assert_eq!(f.ask(MetaRequest::GetAttr { ino: d }), Err(MetaError::Stale(d)));
}

#[test]
fn forgetting_what_has_links_or_does_not_exist_does_nothing() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    f.write(a, 0, 2);
    assert_eq!(f.ask(MetaRequest::Forget { inos: vec![a, Ino(77), R, a] }), Ok(MetaReply::Done));
    assert_eq!((f.lookup(R, "a").unwrap().ino, f.world.daemon.live().len()), (a, 2));
}
