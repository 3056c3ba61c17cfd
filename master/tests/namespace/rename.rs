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
