//! Takes the records of a store, and leaves out those that fit nothing.

use super::super::{Limits, Namespace};
use super::Repair;
use crate::change::Change;
use pool::proto::meta::{Extent, Ino, Kind};

/// A namespace while its records come in: inodes first, then what belongs to them, then entries.
pub(crate) struct Loader {
    ns: Namespace,
    loaded: Loaded,
}

/// What was wrong with the records.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Removals of the records that were left out.
    pub dropped: Vec<Change>,
    /// Why.
    pub said: Vec<Repair>,
}

impl Loader {
    /// Nothing loaded yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { ns: Namespace::empty(limits), loaded: Loaded::default() }
    }

    /// Takes one record.
    pub(crate) fn add(&mut self, record: Change) {
        match self.objection(&record) {
            None => self.ns.apply(record),
            Some((removal, why)) => {
                self.loaded.said.push(Repair { wrong: why, done: "that record was removed".into() });
                self.loaded.dropped.push(removal);
            }
        }
    }

    /// What was loaded, and what was not.
    pub(crate) fn finish(mut self) -> (Namespace, Loaded) {
        self.ns.start_at_mark();
        (self.ns, self.loaded)
    }

    /// Why a record fits nothing, and how it is removed from the store.
    fn objection(&self, record: &Change) -> Option<(Change, String)> {
        match record {
            Change::PutTarget(ino, _) if self.kind(*ino) != Some(Kind::Symlink) => {
                Some((Change::DelTarget(*ino), format!("a link target belonged to no link ({})", ino.0)))
            }
            Change::PutXattr(ino, name, _) if self.kind(*ino).is_none() => {
                let why = format!("an extended attribute belonged to no inode ({})", ino.0);
                Some((Change::DelXattr(*ino, name.clone()), why))
            }
            Change::PutExtent(ino, extent) => {
                let why = self.extent_objection(*ino, extent)?;
                Some((Change::DelExtent(*ino, extent.at), why))
            }
            Change::PutEntry { parent, cookie, ino, name } => {
                let why = self.entry_objection(*parent, *ino, name)?;
                Some((Change::DelEntry { parent: *parent, cookie: *cookie }, why))
            }
            _ => None,
        }
    }

    fn kind(&self, ino: Ino) -> Option<Kind> {
        self.ns.get(ino).map(|inode| inode.meta.kind)
    }

    fn extent_objection(&self, ino: Ino, extent: &Extent) -> Option<String> {
        let Some(map) = self.ns.get(ino).and_then(|inode| inode.extents()) else {
            return Some(format!("pages belonged to no file ({})", ino.0));
        };
        let overlaps = map.iter_from(extent.at).next().is_some_and(|e| e.at < extent.end());
        overlaps.then(|| format!("two runs of pages overlapped in file {}", ino.0))
    }

    fn entry_objection(&self, parent: Ino, ino: Ino, name: &[u8]) -> Option<String> {
        let shown = String::from_utf8_lossy(name);
        let Ok(dir) = self.ns.dir(parent) else {
            return Some(format!("the entry {shown:?} was in no directory ({})", parent.0));
        };
        if self.ns.get(ino).is_none() {
            return Some(format!("the entry {shown:?} of directory {} named no inode ({})", parent.0, ino.0));
        }
        if dir.find(name).is_some() {
            return Some(format!("directory {} had two entries {shown:?}", parent.0));
        }
        let second = ino == Ino::ROOT || self.ns.dir(ino).is_ok_and(|dir| dir.parent != ino);
        second.then(|| format!("directory {} had a second entry {shown:?} in {}", ino.0, parent.0))
    }
}
