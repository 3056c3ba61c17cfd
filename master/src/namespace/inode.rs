//! One inode: its attributes and what only its kind has. Rare parts are boxed, so that a million empty
//! files fit where they should.

use super::dir::Dir;
use super::extents::Extents;
use super::xattr::Xattrs;
use crate::change::Meta;
use pool::addr::PageSize;
use pool::proto::meta::{Attr, Ino, Kind};

/// What an entry adds to the size of its directory, as stat(2) shows it.
const ENTRY_SIZE: u64 = 32;
/// The unit of `st_blocks`, as a binary logarithm.
const BLOCK_SHIFT: u32 = 9;

/// An inode.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Attributes.
    pub meta: Meta,
    /// What only its kind has.
    pub body: Body,
    /// Extended attributes; never an empty list.
    pub xattrs: Option<Box<Xattrs>>,
}

/// What only some kinds of inode have; it always fits the kind.
#[derive(Debug)]
pub(crate) enum Body {
    /// Nothing: a pipe, a socket, a device.
    Plain,
    /// The map of a file.
    File(Extents),
    /// The entries of a directory.
    Dir(Box<Dir>),
    /// The target of a symlink.
    Symlink(Box<[u8]>),
}

impl Inode {
    /// An inode with nothing in it yet. A directory is its own parent until it gets an entry.
    pub(crate) fn new(ino: Ino, meta: Meta) -> Self {
        let body = match meta.kind {
            Kind::File => Body::File(Extents::new()),
            Kind::Dir => Body::Dir(Box::new(Dir::new(ino))),
            Kind::Symlink => Body::Symlink(Box::default()),
            Kind::Fifo | Kind::Socket | Kind::Char | Kind::Block => Body::Plain,
        };
        Self { meta, body, xattrs: None }
    }

    /// As stat(2) shows it, with these attributes in the place of its own.
    pub(crate) fn attr_with(&self, ino: Ino, meta: &Meta, page_size: PageSize) -> Attr {
        let size = match &self.body {
            Body::Dir(dir) => (dir.len() as u64 + 2) * ENTRY_SIZE,
            Body::Plain | Body::File(_) | Body::Symlink(_) => meta.size,
        };
        meta.attr(ino, size, blocks(meta.pages, page_size))
    }

    /// The entries, if it is a directory.
    pub(crate) fn dir(&self) -> Option<&Dir> {
        match &self.body {
            Body::Dir(dir) => Some(dir),
            Body::Plain | Body::File(_) | Body::Symlink(_) => None,
        }
    }

    /// The map, if it is a file.
    pub(crate) fn extents(&self) -> Option<&Extents> {
        match &self.body {
            Body::File(extents) => Some(extents),
            Body::Plain | Body::Dir(_) | Body::Symlink(_) => None,
        }
    }

    /// The value of an extended attribute.
    pub(crate) fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        self.xattrs.as_ref()?.get(name).map(|value| &**value)
    }
}

/// Units of 512 bytes that pages take.
pub(crate) fn blocks(pages: u64, page_size: PageSize) -> u64 {
    pages.saturating_mul(page_size.bytes() >> BLOCK_SHIFT)
}

/// The size of a directory of no entries.
pub(crate) const EMPTY_DIR_SIZE: u64 = 2 * ENTRY_SIZE;

/// A million empty files must not take much; see `examples/measure.rs` for what they take in all.
const _: () = assert!(size_of::<Inode>() <= 152);
