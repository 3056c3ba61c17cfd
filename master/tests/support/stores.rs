//! Stores for tests: one in memory that outlives its master, and one that fails when told to.

#![allow(dead_code)]

use master::change::{Change, ClusterChange};
use master::store::{Store, StoreError};
use parking_lot::Mutex;
use pool::addr::{PageId, RackId};
use pool::proto::meta::Ino;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a change is about, in the order of loading.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Mark,
    Inode(Ino),
    Target(Ino),
    Xattr(Ino, Box<[u8]>),
    Extent(Ino, u64),
    Entry(Ino, u64),
    Cluster,
    Rack(RackId),
    Block(u64),
    Moved(PageId),
    Mount(u64),
}

fn key(change: &Change) -> (Key, bool) {
    match change {
        Change::InoMark(_) => (Key::Mark, true),
        Change::PutInode(ino, _) => (Key::Inode(*ino), true),
        Change::DelInode(ino) => (Key::Inode(*ino), false),
        Change::PutTarget(ino, _) => (Key::Target(*ino), true),
        Change::DelTarget(ino) => (Key::Target(*ino), false),
        Change::PutXattr(ino, name, _) => (Key::Xattr(*ino, name.clone()), true),
        Change::DelXattr(ino, name) => (Key::Xattr(*ino, name.clone()), false),
        Change::PutExtent(ino, e) => (Key::Extent(*ino, e.at), true),
        Change::DelExtent(ino, at) => (Key::Extent(*ino, *at), false),
        Change::PutEntry { parent, cookie, .. } => (Key::Entry(*parent, *cookie), true),
        Change::DelEntry { parent, cookie } => (Key::Entry(*parent, *cookie), false),
        Change::Cluster(change) => match change {
            ClusterChange::PutCluster(_) => (Key::Cluster, true),
            ClusterChange::PutRack(join) => (Key::Rack(join.rack), true),
            ClusterChange::DelRack(rack) => (Key::Rack(*rack), false),
            ClusterChange::PutBlock(number, _) => (Key::Block(*number), true),
            ClusterChange::PutMoved(page, _) => (Key::Moved(*page), true),
            ClusterChange::DelMoved(page) => (Key::Moved(*page), false),
            ClusterChange::PutMount(session, ..) => (Key::Mount(*session), true),
            ClusterChange::DelMount(session) => (Key::Mount(*session), false),
        },
    }
}

/// Keeps records in memory; clones share them.
#[derive(Clone, Default)]
pub struct MemStore(Arc<Mutex<BTreeMap<Key, Change>>>);

impl MemStore {
    /// Puts a record in, or takes one out, behind the master's back.
    pub fn meddle(&self, change: &Change) {
        self.commit(std::slice::from_ref(change)).unwrap();
    }

    /// All records.
    pub fn records(&self) -> Vec<Change> {
        self.0.lock().values().cloned().collect()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Store for MemStore {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut records = self.0.lock();
        for change in changes {
            match key(change) {
                (key, true) => records.insert(key, change.clone()),
                (key, false) => records.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        self.0.lock().values().cloned().for_each(visit);
        Ok(())
    }

    fn begin(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Refuses commits while told to.
#[derive(Clone)]
pub struct FailingStore<S> {
    pub inner: S,
    pub fail: Arc<AtomicBool>,
}

impl<S: Store> Store for FailingStore<S> {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fail.load(Ordering::Relaxed) {
            return Err(StoreError::NoSpace { place: "test".into() });
        }
        self.inner.commit(changes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn load(&self, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        self.inner.load(visit)
    }

    fn begin(&self) -> Result<(), StoreError> {
        self.inner.begin()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}
