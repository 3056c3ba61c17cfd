//! Giving an inode another name.

use super::Answer;
use crate::change::Change;
use crate::namespace::edit::Edit;
use crate::namespace::name::Name;
use pool::proto::meta::{Ino, Kind, MetaError, MetaReply};

/// Adds the entry `name` in `parent` for `ino`.
pub(crate) fn link(e: &mut Edit, ino: Ino, parent: Ino, name: &[u8]) -> Answer {
    let dir = e.dir(parent)?;
    let name = Name::plain(name, MetaError::Exists)?;
    if dir.find(name).is_some() {
        return Err(MetaError::Exists);
    }
    let meta = e.meta(ino)?;
    if meta.kind == Kind::Dir {
        return Err(MetaError::NotPermitted);
    }
    if meta.nlink == 0 {
        return Err(MetaError::NotFound);
    }
    e.add_link(ino)?;
    e.changed(ino)?;
    e.touch(parent)?;
    e.change(Change::PutEntry { parent, cookie: dir.fresh_cookie(), ino, name: name.into() });
    Ok(MetaReply::Attr(e.attr(ino)?))
}
