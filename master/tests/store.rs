//! The store on a disk: what survives what.

#[path = "store/crash.rs"]
mod crash;
#[path = "support/fixture.rs"]
mod fixture;
#[path = "store/full.rs"]
mod full;
#[path = "store/opening.rs"]
mod opening;
#[path = "store/threads.rs"]
mod threads;
#[path = "store/waits.rs"]
mod waits;

use fixture::*;
use master::Master;
use master::store::sled::{Identity, SledStore, Tuning};
use master::store::{Store, StoreError};
use pool::addr::PageSize;
use pool::proto::meta::*;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const ID: Identity = Identity { pool: 7, page_size: PageSize::MIN };

/// Nothing goes to the database before it must.
const LAZY: Tuning =
    Tuning { segment: 1 << 30, delay: Duration::from_secs(3600), backlog: 1 << 31, patience: Duration::ZERO };
/// Everything goes there at once, in segments of a few batches.
const EAGER: Tuning =
    Tuning { segment: 500, delay: Duration::from_millis(1), backlog: 4000, patience: Duration::from_secs(9) };

/// A directory in memory, where syncing is quick.
fn scratch() -> TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { TempDir::new_in(shm).unwrap() } else { TempDir::new().unwrap() }
}

fn try_open(world: &World, dir: &Path, tuning: Tuning) -> Result<Master, master::MasterError> {
    world.open_on(Box::new(SledStore::open(dir, ID, tuning)?))
}

fn repair(world: &World, dir: &Path, tuning: Tuning) -> Master {
    world.repair_on(Box::new(SledStore::open(dir, ID, tuning).unwrap())).unwrap()
}

fn open(world: &World, dir: &Path, tuning: Tuning) -> Master {
    try_open(world, dir, tuning).unwrap()
}

fn journals(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut found: Vec<_> =
        files.filter(|p| p.file_name().unwrap().to_str().unwrap().contains("journal")).collect();
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A request of each kind that changes something, the `i`th of a history. Inode 2 is a directory and 3 a
/// file, once made.
fn request(world: &World, i: u64) -> MetaRequest {
    let make = |name: &str, node| MetaRequest::Make {
        parent: Ino::ROOT,
        name: name.into(),
        caller: USER,
        node,
        perm: 0o2755,
        umask: 0,
    };
    let commit = |at, count| {
        let extents = vec![Extent { at, run: world.daemon.alloc(count) }];
        MetaRequest::Commit { ino: Ino(3), extents, size: 9 * PAGE, touch: true, kill_suid: true, set: None }
    };
    let name = b"user.a".to_vec();
    match i {
        0 => make("dir", NewNode::Dir),
        1 => make("file", NewNode::File),
        2 => commit(0, 5),
        3 => {
            MetaRequest::SetXattr { ino: Ino(3), caller: ROOT, name, value: vec![1; 9], mode: XattrMode::Any }
        }
        4 => make("link", NewNode::Symlink(b"dir/target".into())),
        5 => MetaRequest::Link { ino: Ino(3), parent: Ino(2), name: b"second".into() },
        6 => commit(2, 1),
        7 => MetaRequest::Rename {
            parent: Ino::ROOT,
            name: b"file".into(),
            new_parent: Ino(2),
            new_name: b"moved".into(),
            mode: RenameMode::Replace,
        },
        8 => MetaRequest::RemoveXattr { ino: Ino(3), name },
        9 => MetaRequest::Punch { ino: Ino(3), from: 1, to: 4 },
        10 => MetaRequest::Unlink { parent: Ino::ROOT, name: b"link".into() },
        11 => make("fifo", NewNode::Fifo),
        12 => {
            let set = SetAttr { size: Some(PAGE), ..SetAttr::default() };
            MetaRequest::SetAttr { ino: Ino(3), caller: USER, set }
        }
        n => make(&format!("more{n}"), NewNode::File),
    }
}

fn step(world: &World, master: &Master, i: u64) {
    let request = request(world, i);
    let reply = ask(master, request.clone());
    assert!(reply.is_ok(), "{request:?} {reply:?}");
}
