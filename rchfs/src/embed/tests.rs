//! Pools that open, close and open again, without a mount.

use super::*;
use crate::cli::settings::RootSettings;
use pool::proto::meta::{Attr, MetaReply};

fn settings(backing: Backing) -> PoolSettings {
    let root = RootSettings { uid: 7, gid: 8, mode: Some(0o1777) };
    PoolSettings { backing, size: Some(4 << 20), default_size: 8 << 20, page_size: None, inodes: None, root }
}

fn root_of(pool: &Embedded) -> Attr {
    let request = Request::Meta(MetaRequest::GetAttr { ino: Ino::ROOT });
    match pool.transport.call(NodeId::Master, request).unwrap() {
        Reply::Meta(Ok(MetaReply::Attr(attr))) => attr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_pool_has_the_root_that_was_asked_for() {
    let pool = Embedded::start(&settings(Backing::Volatile)).unwrap();
    let root = root_of(&pool);
    assert_eq!((root.uid, root.gid, root.perm), (7, 8, 0o1777));
    assert_eq!(pool.data_bytes(), 4 << 20);
    assert!(pool.notices().is_empty());
    assert!(pool.to_string().contains("4M in memfd, pages of 4K"), "{pool}");
    pool.shutdown();
    pool.shutdown();
}

#[test]
fn the_reserve_is_a_part_of_small_pools_and_bounded_for_large_ones() {
    let pool = Embedded::start(&settings(Backing::Volatile)).unwrap();
    assert_eq!(pool.reserve(), 256 << 10);
    let large = PoolSettings { size: Some(8 << 30), ..settings(Backing::Volatile) };
    assert_eq!(Embedded::start(&large).unwrap().reserve(), 64 << 20);
}

#[test]
fn a_holder_that_is_no_process_is_not_waited_for() {
    assert!(!is_leaving("another process"));
    assert!(!is_leaving("process 4294967295 (gone)"));
    assert!(is_leaving(&format!("process {} (this test)", std::process::id())));
}
