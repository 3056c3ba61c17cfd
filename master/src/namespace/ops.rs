//! The operations, one a file: those that read take the namespace, those that change it an [`Edit`]. Cloning a tree, which
//! takes longer than the others, is a [`TreeCopy`].
//!
//! An operation that fails may leave its edit half planned; the edit is then thrown away.

mod clone;
mod clone_tree;
mod commit;
mod forget;
mod getattr;
mod getxattr;
mod link;
mod listxattr;
mod lookup;
mod make;
mod map;
mod punch;
mod readdir;
mod readlink;
mod removexattr;
mod rename;
mod rmdir;
mod setattr;
mod setxattr;
mod statfs;
mod unlink;

pub(crate) use clone::clone;
pub(crate) use clone_tree::{Made, TreeCopy, may_copy};
pub(crate) use commit::{Commit, commit};
pub(crate) use forget::forget;
pub(crate) use getattr::getattr;
pub(crate) use getxattr::getxattr;
pub(crate) use link::link;
pub(crate) use listxattr::listxattr;
pub(crate) use lookup::lookup;
pub(crate) use make::{Make, make};
pub(crate) use map::map;
pub(crate) use punch::punch;
pub(crate) use readdir::readdir;
pub(crate) use readlink::readlink;
pub(crate) use removexattr::removexattr;
pub(crate) use rename::{Rename, rename};
pub(crate) use rmdir::rmdir;
pub(crate) use setattr::setattr;
pub(crate) use setxattr::{SetXattr, setxattr};
pub(crate) use statfs::statfs;
pub(crate) use unlink::unlink;

use super::edit::Edit;
use super::extents::Extents;
use crate::change::Meta;
use pool::proto::meta::{Ino, Kind, MetaError, MetaReply};

/// Set-user-id.
const S_ISUID: u16 = 0o4000;
/// Set-group-id.
const S_ISGID: u16 = 0o2000;
/// The group may execute.
const S_IXGRP: u16 = 0o0010;
/// All bits of a mode that an inode keeps.
const PERM_BITS: u16 = 0o7777;

type Answer = Result<MetaReply, MetaError>;

/// Clears the bits that would let a changed file run as someone else. Set-group-id without group
/// execution is no such bit.
fn clear_set_id(meta: &mut Meta) {
    meta.perm &= !S_ISUID;
    if meta.perm & S_IXGRP != 0 {
        meta.perm &= !S_ISGID;
    }
}

/// The map of a regular file, for an operation on contents.
fn file_map<'n>(e: &Edit<'n>, ino: Ino) -> Result<&'n Extents, MetaError> {
    let inode = e.ns().inode(ino)?;
    inode.extents().ok_or_else(|| not_a_file(inode.meta.kind))
}

/// Why an operation on contents is refused.
fn not_a_file(kind: Kind) -> MetaError {
    match kind {
        Kind::Dir => MetaError::IsDir,
        _ => MetaError::Invalid("not a regular file".into()),
    }
}
