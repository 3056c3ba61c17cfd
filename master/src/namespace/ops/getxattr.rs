//! The value of an extended attribute.

use super::Answer;
use crate::namespace::Namespace;
use crate::namespace::xattr::Class;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// The value of `name`.
pub(crate) fn getxattr(ns: &Namespace, ino: Ino, name: &[u8]) -> Answer {
    let inode = ns.inode(ino)?;
    Class::of(name)?;
    let value = inode.xattr(name).ok_or(MetaError::NoAttribute)?;
    Ok(MetaReply::Bytes(value.to_vec()))
}
