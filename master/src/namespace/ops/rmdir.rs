//! Removing an empty directory.

use super::Answer;
use crate::change::Change;
use crate::namespace::edit::Edit;
use crate::namespace::name::Name;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// Removes the directory `name` of `parent`. Its inode stays, with no link.
pub(crate) fn rmdir(e: &mut Edit, parent: Ino, name: &[u8]) -> Answer {
    let dir = e.ns().dir(parent)?;
    let name = match Name::parse(name)? {
        Name::Plain(name) => name,
        Name::Dot => return Err(MetaError::Invalid("`.` cannot be removed".into())),
        Name::DotDot => return Err(MetaError::NotEmpty),
    };
    let (cookie, ino) = dir.find(name).ok_or(MetaError::NotFound)?;
    if !e.ns().dir(ino)?.is_empty() {
        return Err(MetaError::NotEmpty);
    }
    e.drop_name(ino)?;
    let above = e.touch(parent)?;
    above.nlink = above.nlink.saturating_sub(1);
    e.change(Change::DelEntry { parent, cookie });
    Ok(MetaReply::Attr(e.attr(ino)?))
}
