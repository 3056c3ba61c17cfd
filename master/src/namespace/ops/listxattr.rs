//! The names of an inode's extended attributes.

use super::Answer;
use crate::namespace::{Namespace, xattr};
use pool::proto::meta::{Ino, MetaReply};

/// The names, each ended by a zero byte.
pub(crate) fn listxattr(ns: &Namespace, ino: Ino) -> Answer {
    Ok(MetaReply::Bytes(xattr::list(ns.inode(ino)?.xattrs.as_deref())))
}
