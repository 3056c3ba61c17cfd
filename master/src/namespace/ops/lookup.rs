//! Finding the inode of a name.

use super::Answer;
use crate::namespace::Namespace;
use crate::namespace::name::Name;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// The attributes of what `name` in `parent` names.
pub(crate) fn lookup(ns: &Namespace, parent: Ino, name: &[u8]) -> Answer {
    let dir = ns.dir(parent)?;
    let ino = match Name::parse(name)? {
        Name::Dot => parent,
        Name::DotDot => dir.parent,
        Name::Plain(name) => dir.find(name).ok_or(MetaError::NotFound)?.1,
    };
    Ok(MetaReply::Attr(ns.attr(ino)?))
}
