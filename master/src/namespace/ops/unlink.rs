//! Removing a name of something that is not a directory.

use super::Answer;
use crate::change::Change;
use crate::namespace::edit::Edit;
use crate::namespace::name::Name;
use pool::proto::meta::{Ino, Kind, MetaError, MetaReply};

/// Removes the entry `name` of `parent`. The inode stays, if need be with no link.
pub(crate) fn unlink(e: &mut Edit, parent: Ino, name: &[u8]) -> Answer {
    let dir = e.ns().dir(parent)?;
    let name = Name::plain(name, MetaError::IsDir)?;
    let (cookie, ino) = dir.find(name).ok_or(MetaError::NotFound)?;
    if e.meta(ino)?.kind == Kind::Dir {
        return Err(MetaError::IsDir);
    }
    e.drop_name(ino)?;
    e.touch(parent)?;
    e.change(Change::DelEntry { parent, cookie });
    Ok(MetaReply::Attr(e.attr(ino)?))
}
