//! Attributes of an inode.

use super::Answer;
use crate::namespace::Namespace;
use pool::proto::meta::{Ino, MetaReply};

/// The attributes of `ino`.
pub(crate) fn getattr(ns: &Namespace, ino: Ino) -> Answer {
    Ok(MetaReply::Attr(ns.attr(ino)?))
}
