//! Making a hole in a file.

use super::{Answer, file_map};
use crate::namespace::edit::Edit;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// Frees the pages `from..to` of the file.
pub(crate) fn punch(e: &mut Edit, ino: Ino, from: u64, to: u64) -> Answer {
    let map = file_map(e, ino)?;
    if from > to {
        return Err(MetaError::Invalid("the hole ends before it begins".into()));
    }
    e.remap(ino, map.plan_cut(from, to))?;
    e.touch(ino)?;
    Ok(MetaReply::Attr(e.attr(ino)?))
}
