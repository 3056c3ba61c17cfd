//! What one operation plans, on a namespace that it does not touch.
//!
//! Attributes that the plan changes are kept beside the namespace, so that an operation sees its own
//! changes (a rename within one directory changes that directory once). At the end they become changes.

use super::extents::MapPlan;
use super::inode::{EMPTY_DIR_SIZE, Inode, blocks};
use super::xattr;
use super::{INO_BLOCK, Namespace};
use crate::change::{Change, Meta};
use pool::addr::PageRun;
use pool::proto::meta::{Attr, Ino, Kind, LINK_MAX, MetaError, Time};

/// What an operation wants to happen.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Changes, to be committed together and applied in order.
    pub changes: Vec<Change>,
    /// Pages that are in one place less after it.
    pub freed: Vec<PageRun>,
    /// Pages that are in one place more after it, counted before those of `freed`.
    pub shared: Vec<PageRun>,
}

/// An operation being planned.
pub(crate) struct Edit<'n> {
    ns: &'n Namespace,
    now: Time,
    metas: Vec<(Ino, Meta)>,
    /// Of the inodes that are made, whose numbers follow each other.
    made: Vec<Meta>,
    plan: Plan,
    /// Numbers below it may be given out without telling the store.
    mark: u64,
}

impl<'n> Edit<'n> {
    /// Begins a plan, at this time.
    pub(crate) fn new(ns: &'n Namespace, now: Time) -> Self {
        Self { ns, now, metas: Vec::new(), made: Vec::new(), plan: Plan::default(), mark: ns.ino_mark }
    }

    /// The namespace as it is before the plan.
    pub(crate) fn ns(&self) -> &'n Namespace {
        self.ns
    }

    /// The time at which all this happens.
    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// The plan. Attributes are its first changes, so that what follows finds its inodes.
    pub(crate) fn finish(self) -> Plan {
        let made = (self.ns.next_ino..).map(Ino).zip(self.made);
        let metas = self.metas.into_iter().chain(made).map(|(ino, meta)| Change::PutInode(ino, meta));
        Plan { changes: metas.chain(self.plan.changes).collect(), ..self.plan }
    }

    /// Attributes as planned.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn meta(&self, ino: Ino) -> Result<Meta, MetaError> {
        if let Some(meta) = self.made_at(ino).and_then(|at| self.made.get(at)) {
            return Ok(*meta);
        }
        match self.metas.iter().find(|(i, _)| *i == ino) {
            Some((_, meta)) => Ok(*meta),
            None => Ok(self.ns.inode(ino)?.meta),
        }
    }

    /// Attributes, to change them.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn meta_mut(&mut self, ino: Ino) -> Result<&mut Meta, MetaError> {
        if let Some(at) = self.made_at(ino)
            && at < self.made.len()
        {
            return Ok(&mut self.made[at]);
        }
        let at = match self.metas.iter().position(|(i, _)| *i == ino) {
            Some(at) => at,
            None => {
                self.metas.push((ino, self.ns.inode(ino)?.meta));
                self.metas.len() - 1
            }
        };
        Ok(&mut self.metas[at].1)
    }

    /// Where in `made` an inode with this number would be.
    fn made_at(&self, ino: Ino) -> Option<usize> {
        ino.0.checked_sub(self.ns.next_ino)?.try_into().ok()
    }

    /// Attributes as stat(2) shows them after the plan. The size of a directory is that before it.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr, MetaError> {
        let meta = self.meta(ino)?;
        let page_size = self.ns.limits().page_size;
        Ok(match self.ns.get(ino) {
            Some(inode) => self.ns.attr_with(ino, inode, &meta),
            None if meta.kind == Kind::Dir => meta.attr(ino, EMPTY_DIR_SIZE, 0),
            None => meta.attr(ino, meta.size, blocks(meta.pages, page_size)),
        })
    }

    /// Adds a change that is not one of attributes.
    pub(crate) fn change(&mut self, change: Change) {
        self.plan.changes.push(change);
    }

    /// Makes an inode.
    ///
    /// # Errors
    /// `NoSpace` if there are as many as there may be.
    pub(crate) fn make(&mut self, meta: Meta) -> Result<Ino, MetaError> {
        let made = self.made.len() as u64;
        if self.ns.len() as u64 + made >= self.ns.limits().max_inodes {
            return Err(MetaError::NoSpace("there are as many inodes as there may be".into()));
        }
        let number = self.ns.next_ino + made;
        if number >= self.mark {
            let mark = number.checked_add(INO_BLOCK);
            self.mark = mark.ok_or_else(|| MetaError::NoSpace("all inode numbers were used".into()))?;
            self.change(Change::InoMark(self.mark));
        }
        self.made.push(meta);
        Ok(Ino(number))
    }

    /// The entries of `dir` are about to change: it must be there, and be linked somewhere.
    ///
    /// # Errors
    /// `Stale`, `NotDir`, and `NotFound` if it was removed.
    pub(crate) fn dir(&self, dir: Ino) -> Result<&'n super::dir::Dir, MetaError> {
        let entries = self.ns.dir(dir)?;
        if self.meta(dir)?.nlink == 0 { Err(MetaError::NotFound) } else { Ok(entries) }
    }

    /// The contents of an inode change.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn touch(&mut self, ino: Ino) -> Result<&mut Meta, MetaError> {
        let now = self.now;
        let meta = self.meta_mut(ino)?;
        (meta.mtime, meta.ctime) = (now, now);
        Ok(meta)
    }

    /// Something about an inode changes, but not its contents.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn changed(&mut self, ino: Ino) -> Result<&mut Meta, MetaError> {
        let now = self.now;
        let meta = self.meta_mut(ino)?;
        meta.ctime = now;
        Ok(meta)
    }

    /// One link more.
    ///
    /// # Errors
    /// `Stale`, `TooManyLinks`
    pub(crate) fn add_link(&mut self, ino: Ino) -> Result<(), MetaError> {
        let meta = self.meta_mut(ino)?;
        if meta.nlink >= LINK_MAX {
            return Err(MetaError::TooManyLinks);
        }
        meta.nlink += 1;
        Ok(())
    }

    /// One link less; none at all if it is a directory, which has only one name.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn drop_name(&mut self, ino: Ino) -> Result<(), MetaError> {
        let meta = self.changed(ino)?;
        meta.nlink = if meta.kind == Kind::Dir { 0 } else { meta.nlink.saturating_sub(1) };
        Ok(())
    }

    /// Changes the map of a file, and how many pages it has.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn remap(&mut self, ino: Ino, map: MapPlan) -> Result<(), MetaError> {
        let meta = self.meta(ino)?;
        let pages = (meta.pages + map.gained).saturating_sub(map.lost());
        if pages != meta.pages {
            self.meta_mut(ino)?.pages = pages;
        }
        self.plan.changes.extend(map.remove.into_iter().map(|at| Change::DelExtent(ino, at)));
        self.plan.changes.extend(map.add.into_iter().map(|e| Change::PutExtent(ino, e)));
        self.plan.freed.extend(map.freed);
        self.plan.shared.extend(map.shared);
        Ok(())
    }

    /// The capabilities of a program go when it is changed.
    pub(crate) fn drop_capability(&mut self, ino: Ino) {
        if self.ns.get(ino).is_some_and(|inode| inode.xattr(xattr::CAPABILITY).is_some()) {
            self.change(Change::DelXattr(ino, xattr::CAPABILITY.into()));
        }
    }

    /// Removes an inode with all that belongs to it.
    pub(crate) fn remove(&mut self, ino: Ino, inode: &Inode) {
        let extents = inode.extents().into_iter().flat_map(|map| map.iter());
        for extent in extents {
            self.plan.freed.push(extent.run);
            self.plan.changes.push(Change::DelExtent(ino, extent.at));
        }
        for name in inode.xattrs.iter().flat_map(|list| list.keys()) {
            self.plan.changes.push(Change::DelXattr(ino, name.clone()));
        }
        if inode.meta.kind == Kind::Symlink {
            self.plan.changes.push(Change::DelTarget(ino));
        }
        self.plan.changes.push(Change::DelInode(ino));
    }
}
