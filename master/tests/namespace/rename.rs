//! rename(2) and renameat2(2).

use crate::fixture::*;
use RenameMode::{Exchange, NoReplace, Replace};
use pool::proto::meta::*;

const R: Ino = Ino::ROOT;

#[test]
fn a_directory_that_moves_takes_its_link_along() {
    let f = Fixture::new();
    let (a, b) = (f.dir(R, "a"), f.dir(R, "b"));
    let d = f.dir(a, "d");
    f.rename((a, "d"), (b, "d"), Replace).unwrap();
    assert_eq!((f.attr(a).nlink, f.attr(b).nlink, f.lookup(d, "..").unwrap().ino), (2, 3, b));
    f.check();
}

#[test]
fn a_directory_cannot_move_into_itself() {
    let f = Fixture::new();
    let a = f.dir(R, "a");
    let b = f.dir(a, "b");
    assert!(matches!(f.rename((R, "a"), (b, "x"), Replace), Err(MetaError::Invalid(_))));
    assert!(matches!(f.rename((R, "a"), (a, "x"), NoReplace), Err(MetaError::Invalid(_))));
    assert!(matches!(f.rename((a, "b"), (R, "a"), Exchange), Err(MetaError::Invalid(_))));
    assert!(matches!(f.rename((R, "a"), (a, "b"), Exchange), Err(MetaError::Invalid(_))));
    assert_eq!(f.rename((a, "b"), (R, "a"), Replace), Err(MetaError::NotEmpty));
    f.check();
}

#[test]
fn what_is_replaced_loses_a_link_and_is_answered() {
    let f = Fixture::new();
    let (a, b) = (f.file(R, "a"), f.file(R, "b"));
    f.link(b, R, "c").unwrap();
    let replaced = f.rename((R, "a"), (R, "b"), Replace).unwrap().unwrap();
    assert_eq!((replaced.ino, replaced.nlink, replaced.ctime), (b, 1, f.now()));
    assert_eq!((f.lookup(R, "b").unwrap().ino, f.lookup(R, "a")), (a, Err(MetaError::NotFound)));
    assert_eq!(f.attr(a).ctime, f.now(), "a renamed inode has changed");
    f.check();
}

#[test]
fn directories_replace_empty_directories_and_files_files() {
    let f = Fixture::new();
    let (a, b) = (f.dir(R, "a"), f.dir(R, "b"));
    f.file(R, "f");
    f.file(b, "x");
    assert_eq!(f.rename((R, "a"), (R, "b"), Replace), Err(MetaError::NotEmpty));
    assert_eq!(f.rename((R, "a"), (R, "f"), Replace), Err(MetaError::NotDir));
    assert_eq!(f.rename((R, "f"), (R, "a"), Replace), Err(MetaError::IsDir));
    let gone = f.rename((R, "b"), (R, "a"), Replace).unwrap().unwrap();
    assert_eq!((gone.ino, gone.nlink, f.attr(R).nlink, f.names(b)), (a, 0, 3, vec!["x".to_string()]));
    f.check();
}

#[test]
fn two_names_of_one_inode_stay_as_they_are() {
    let f = Fixture::new();
    let a = f.file(R, "a");
    f.link(a, R, "b").unwrap();
    let before = (f.attr(a), f.attr(R));
    for mode in [Replace, Exchange] {
        assert_eq!(f.rename((R, "a"), (R, "b"), mode), Ok(None));
        assert_eq!(f.rename((R, "a"), (R, "a"), mode), Ok(None));
    }
    assert_eq!(((f.attr(a), f.attr(R)), f.names(R).len()), (before, 2));
}

#[test]
fn noreplace_and_exchange_say_what_must_be_there() {
    let f = Fixture::new();
    f.file(R, "a");
    f.file(R, "b");
    assert_eq!(f.rename((R, "a"), (R, "b"), NoReplace), Err(MetaError::Exists));
    assert_eq!(f.rename((R, "a"), (R, "a"), NoReplace), Err(MetaError::Exists));
    assert_eq!(f.rename((R, "a"), (R, "c"), Exchange), Err(MetaError::NotFound));
    assert_eq!(f.rename((R, "x"), (R, "c"), Replace), Err(MetaError::NotFound));
    for name in [".", ".."] {
        assert_eq!(f.rename((R, "a"), (R, name), Replace), Err(MetaError::Busy));
        assert_eq!(f.rename((R, name), (R, "c"), Replace), Err(MetaError::Busy));
    }
    assert_eq!(f.rename((R, "a"), (R, "c"), NoReplace), Ok(None));
}

#[test]
fn a_file_and_a_directory_can_be_exchanged() {
    let f = Fixture::new();
    let (d, e) = (f.dir(R, "d"), f.dir(R, "e"));
    let (file, sub) = (f.file(d, "x"), f.dir(e, "y"));
    f.file(sub, "inside");
    f.rename((d, "x"), (e, "y"), Exchange).unwrap();
    assert_eq!((f.lookup(d, "x").unwrap().ino, f.lookup(e, "y").unwrap().ino), (sub, file));
    assert_eq!((f.attr(d).nlink, f.attr(e).nlink, f.lookup(sub, "..").unwrap().ino), (3, 2, d));
    let now = f.now();
    assert!([file, sub, d, e].iter().all(|ino| f.attr(*ino).ctime == now));
    f.check();
}

#[test]
fn a_file_cannot_replace_the_directory_it_is_in() {
    let f = Fixture::new();
    let d = f.dir(R, "d");
    f.file(d, "x");
    assert_eq!(f.rename((d, "x"), (R, "d"), Replace), Err(MetaError::NotEmpty));
    assert!(matches!(f.rename((d, "x"), (R, "d"), Exchange), Err(MetaError::Invalid(_))));
    assert_eq!(f.names(d), ["x"]);
}
