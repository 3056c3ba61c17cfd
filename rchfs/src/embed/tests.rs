//! Pools that open, close and open again, without a mount.

use super::*;
use crate::cli::settings::RootSettings;
use crate::fs::io::WriteFlags;
use crate::fs::names::Making;
use crate::fs::{Access, Origin};
use pool::proto::meta::{Attr, MetaReply};

fn settings(backing: Backing) -> PoolSettings {
    let root = RootSettings { uid: 7, gid: 8, mode: Some(0o1777) };
    let (size, default_size) = (Some(4 << 20), 8 << 20);
    PoolSettings { backing, size, default_size, page_size: None, inodes: None, repair: false, root }
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
    assert_eq!(reserve_pages(pool.data_bytes(), PageSize::MIN) * 4096, 256 << 10);
    let large = PoolSettings { size: Some(8 << 30), ..settings(Backing::Volatile) };
    assert_eq!(reserve_pages(Embedded::start(&large).unwrap().data_bytes(), PageSize::MIN) * 4096, 64 << 20);
}

/// A file and a directory for a pool, gone with the value.
struct Places(std::path::PathBuf);

impl Places {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("rchfs-embed-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn settings(&self, state: &str) -> PoolSettings {
        settings(Backing::Persistent { cxl: self.0.join("cxl"), state: self.0.join(state) })
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn make_file_with_page(pool: &Embedded) {
    let fs = pool.file_system(Cache::Auto, false).unwrap();
    let caller = Caller { uid: 0, gid: 0 };
    let what = Making { parent: Ino::ROOT, name: b"f", caller, perm: 0o644, umask: 0 };
    let (_, handle) =
        fs.create(what, Access { read: true, write: true, direct: false, append: false }).unwrap();
    fs.write(handle, 0, b"hello", WriteFlags { origin: Origin::Program, kill_suid: false }).unwrap();
    fs.release(handle).unwrap();
}

#[test]
fn a_mistyped_state_directory_is_refused_and_costs_nothing() {
    let places = Places::new("mistyped");
    let pool = Embedded::start(&places.settings("state")).unwrap();
    make_file_with_page(&pool);
    pool.shutdown();
    drop(pool);
    let error = Embedded::start(&places.settings("sttae")).err().unwrap().to_string();
    assert!(error.contains("1 pages") && error.contains("holds no names"), "{error}");
    let again = PoolSettings { size: None, ..places.settings("state") };
    let pool = Embedded::start(&again).unwrap();
    assert!(pool.notices().is_empty(), "{:?}", pool.notices());
    assert_eq!(pool.master.recovery().leaked, 0);
    assert_eq!(pool.data_bytes(), 4 << 20);
}

#[test]
fn names_of_another_pool_are_refused() {
    let places = Places::new("other");
    drop(Embedded::start(&places.settings("state")).unwrap());
    std::fs::remove_file(places.0.join("cxl")).unwrap();
    let error = Embedded::start(&places.settings("state")).err().unwrap().to_string();
    assert!(error.contains("state"), "{error}");
}

#[test]
fn a_pool_that_exists_brings_its_own_page_size() {
    let places = Places::new("page");
    let large = PoolSettings { page_size: PageSize::from_bytes(65536), ..places.settings("state") };
    drop(Embedded::start(&large).unwrap());
    let pool = Embedded::start(&places.settings("state")).unwrap();
    assert_eq!(pool.page_size().bytes(), 65536);
    drop(pool);
    let other = PoolSettings { page_size: PageSize::from_bytes(8192), ..places.settings("state") };
    let error = Embedded::start(&other).err().unwrap().to_string();
    assert!(error.contains("page_size=64K"), "{error}");
}

#[test]
fn a_holder_that_is_no_process_is_not_waited_for() {
    assert!(!is_leaving("another process"));
    assert!(!is_leaving("process 4294967295 (gone)"));
    let this = format!("process {} (this test)", std::process::id());
    assert!(is_leaving(&this), "this process serves no mount");
}

#[test]
fn a_refused_start_leaves_no_new_region() {
    let places = Places::new("refused");
    let first = Embedded::start(&places.settings("state")).unwrap();
    let other = PoolSettings {
        backing: Backing::Persistent { cxl: places.0.join("other"), state: places.0.join("state") },
        ..settings(Backing::Volatile)
    };
    assert!(matches!(Embedded::start(&other), Err(EmbedError::Master(_))));
    assert!(!places.0.join("other").exists());
    assert!(matches!(Embedded::start(&places.settings("other")), Err(EmbedError::Daemon(_))));
    assert!(places.0.join("cxl").exists(), "what is in use stays");
    first.shutdown();
}
