//! The target of a symbolic link.

use super::Answer;
use crate::namespace::Namespace;
use crate::namespace::inode::Body;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// The target of `ino`.
pub(crate) fn readlink(ns: &Namespace, ino: Ino) -> Answer {
    match &ns.inode(ino)?.body {
        Body::Symlink(target) => Ok(MetaReply::Bytes(target.to_vec())),
        Body::Plain | Body::File(_) | Body::Dir(_) => Err(MetaError::Invalid("not a symbolic link".into())),
    }
}
