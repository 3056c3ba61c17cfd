//! All inodes, and how a change is applied to them.
//!
//! Invariants (checked in full by [`check`]): every entry names an inode; every inode with links is
//! reached from the root; `nlink` counts the names of a file, and two and the subdirectories of a
//! directory; the parent of a directory is the directory that has an entry for it; inode numbers are
//! below `next_ino`, which never decreases; [`shares`] counts the pages that are in more than one place. While a tree is
//! cloned bit by bit, nothing leads to its copy yet, and pages that are still to get into it are counted already.
//!
//! Nothing here knows of locks, stores, messages or what the time is.

mod acl;
pub(crate) mod check;
pub(crate) mod dir;
pub(crate) mod edit;
pub(crate) mod extents;
pub(crate) mod inode;
mod name;
pub(crate) mod ops;
mod shares;
mod xattr;

use crate::change::{Change, Meta};
use dir::{Dir, Entry};
use hashbrown::HashMap;
use inode::{Body, Inode};
use pool::addr::{PageRun, PageSize};
use pool::proto::meta::{Attr, Ino, MetaError};
use shares::Shares;

/// Inode numbers are reserved in the store so many at a time.
const INO_BLOCK: u64 = 1024;

/// What holds for all of a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Size of a page.
    pub page_size: PageSize,
    /// The most inodes there may be.
    pub max_inodes: u64,
}

/// The file system's inodes.
#[derive(Debug)]
pub(crate) struct Namespace {
    inodes: HashMap<Ino, Box<Inode>>,
    shares: Shares,
    limits: Limits,
    /// The next inode number to give out.
    next_ino: u64,
    /// Inode numbers below this may be given out without telling the store.
    ino_mark: u64,
    /// Inodes that there will be, of numbers that were given out already.
    expected: u64,
}

impl Namespace {
    /// Nothing, not even a root.
    pub(crate) fn empty(limits: Limits) -> Self {
        let first = Ino::ROOT.0 + 1;
        Self {
            inodes: HashMap::new(),
            shares: Shares::default(),
            limits,
            next_ino: first,
            ino_mark: first,
            expected: 0,
        }
    }

    /// What holds for all of it.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many inodes there are, with those that are [`expected`](Self::expect).
    pub(crate) fn len(&self) -> usize {
        self.inodes.len() + self.expected as usize
    }

    /// How many more there may be.
    pub(crate) fn room(&self) -> u64 {
        self.limits.max_inodes.saturating_sub(self.len() as u64)
    }

    /// The next inode number to give out.
    pub(crate) fn next_ino(&self) -> u64 {
        self.next_ino
    }

    /// What the store must be told before numbers up to `end` are given out: `None` if it need not be told.
    ///
    /// # Errors
    /// `NoSpace` if there are no such numbers.
    pub(crate) fn mark_up_to(&self, end: Option<u64>) -> Result<Option<Change>, MetaError> {
        let used = || MetaError::NoSpace("all inode numbers were used".into());
        let end = end.ok_or_else(used)?;
        if end <= self.ino_mark {
            return Ok(None);
        }
        Ok(Some(Change::InoMark(end.checked_add(INO_BLOCK).ok_or_else(used)?)))
    }

    /// Gives out `count` numbers, of which the store was told, for inodes that are expected from now on. The first of them.
    pub(crate) fn expect(&mut self, count: u64) -> u64 {
        let first = self.next_ino;
        self.next_ino = first.saturating_add(count);
        self.expected += count;
        first
    }

    /// So many inodes are not expected any more.
    pub(crate) fn expect_no_more(&mut self, count: u64) {
        self.expected = self.expected.saturating_sub(count);
    }

    /// The inode with this number.
    pub(crate) fn get(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(&ino).map(|inode| &**inode)
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode, MetaError> {
        self.get(ino).ok_or(MetaError::Stale(ino))
    }

    /// The directory with this number.
    ///
    /// # Errors
    /// `Stale`, `NotDir`
    pub(crate) fn dir(&self, ino: Ino) -> Result<&Dir, MetaError> {
        self.inode(ino)?.dir().ok_or(MetaError::NotDir)
    }

    /// All inodes, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ino, &Inode)> {
        self.inodes.iter().map(|(&ino, inode)| (ino, &**inode))
    }

    /// Attributes as stat(2) shows them.
    ///
    /// # Errors
    /// `Stale`
    pub(crate) fn attr(&self, ino: Ino) -> Result<Attr, MetaError> {
        let inode = self.inode(ino)?;
        Ok(self.attr_with(ino, inode, &inode.meta))
    }

    /// Attributes of an inode, with these in the place of its own.
    pub(crate) fn attr_with(&self, ino: Ino, inode: &Inode, meta: &Meta) -> Attr {
        let attr = inode.attr_with(ino, meta, self.limits.page_size);
        match inode.extents() {
            Some(map) if meta.nlink == 0 => {
                let shared = map.iter().flat_map(|e| self.shares.among(e.run));
                let shared: u64 = shared.map(|run| u64::from(run.count)).sum();
                let own = meta.pages.saturating_sub(shared);
                Attr { blocks: inode::blocks(own, self.limits.page_size), ..attr }
            }
            _ => attr,
        }
    }

    /// Applies a change. What a change refers to must be there, as it is if the change was planned on
    /// this namespace; a change of something that is not there does nothing.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::InoMark(mark) => self.ino_mark = self.ino_mark.max(mark),
            Change::PutInode(ino, meta) => self.put_inode(ino, meta),
            Change::DelInode(ino) => {
                self.inodes.remove(&ino);
            }
            Change::PutTarget(ino, target) => self.with(ino, |inode| inode.body = Body::Symlink(target)),
            Change::DelTarget(_) => {}
            Change::PutXattr(ino, name, value) => self.with(ino, |inode| {
                inode.xattrs.get_or_insert_default().insert(name, value);
            }),
            Change::DelXattr(ino, name) => self.with(ino, |inode| {
                if let Some(list) = &mut inode.xattrs {
                    list.remove(&name);
                }
                inode.xattrs.take_if(|list| list.is_empty());
            }),
            Change::PutExtent(ino, extent) => self.with_map(ino, |map| map.put(extent)),
            Change::DelExtent(ino, at) => self.with_map(ino, |map| map.remove(at)),
            Change::PutEntry { parent, cookie, ino, name } => {
                self.with_dir(parent, |dir| dir.put(cookie, Entry { ino, name }));
                self.with_dir(ino, |dir| dir.parent = parent);
            }
            Change::DelEntry { parent, cookie } => self.with_dir(parent, |dir| {
                dir.remove(cookie);
            }),
            Change::Cluster(_) => {}
        }
    }

    /// Counts what a plan shares and frees, once its changes are applied. Returns the pages that are in no place any more.
    pub(crate) fn count_places(&mut self, shared: Vec<PageRun>, freed: Vec<PageRun>) -> Vec<PageRun> {
        shared.into_iter().for_each(|run| self.shares.add(run));
        freed.into_iter().flat_map(|run| self.shares.remove(run)).collect()
    }

    /// These pages are in one place more.
    pub(crate) fn share(&mut self, run: PageRun) {
        self.shares.add(run);
    }

    /// Puts in an inode that was made elsewhere, with all that belongs to it, and that was expected.
    pub(crate) fn put_made(&mut self, ino: Ino, inode: Box<Inode>) {
        self.inodes.insert(ino, inode);
        self.expect_no_more(1);
    }

    /// Puts a directory in the place of one that is there.
    pub(crate) fn replace_dir(&mut self, ino: Ino, mut new: Box<Inode>) {
        if let (Body::Dir(new), Some(old)) = (&mut new.body, self.get(ino).and_then(|old| old.dir())) {
            new.go_on_after(old);
        }
        self.inodes.insert(ino, new);
    }

    /// Those of these pages that are in more than one place.
    pub(crate) fn shared_among(&self, run: PageRun) -> impl Iterator<Item = PageRun> {
        self.shares.among(run)
    }

    /// The runs of all files, in no order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = PageRun> {
        self.iter().filter_map(|(_, inode)| inode.extents()).flat_map(|map| map.iter()).map(|e| e.run)
    }

    /// After loading: which pages are in more than one place.
    fn recount(&mut self) {
        self.shares = Shares::of(self.runs());
    }

    /// After loading: no number that the marks allow was given out since.
    pub(crate) fn start_at_mark(&mut self) {
        self.next_ino = self.next_ino.max(self.ino_mark);
    }

    fn put_inode(&mut self, ino: Ino, meta: Meta) {
        self.next_ino = self.next_ino.max(ino.0.saturating_add(1));
        self.inodes
            .entry(ino)
            .and_modify(|inode| inode.meta = meta)
            .or_insert_with(|| Box::new(Inode::new(ino, meta)));
    }

    fn with(&mut self, ino: Ino, change: impl FnOnce(&mut Inode)) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            change(inode);
        }
    }

    fn with_map(&mut self, ino: Ino, change: impl FnOnce(&mut extents::Extents)) {
        self.with(ino, |inode| {
            if let Body::File(map) = &mut inode.body {
                change(map);
            }
        });
    }

    fn with_dir(&mut self, ino: Ino, change: impl FnOnce(&mut Dir)) {
        self.with(ino, |inode| {
            if let Body::Dir(dir) = &mut inode.body {
                change(dir);
            }
        });
    }
}
