//! New access times, of many inodes at once.

use super::Answer;
use crate::namespace::edit::Edit;
use pool::proto::meta::{Ino, MetaError, MetaReply, Time};

/// Sets the access time of those whose last change was at the time that goes with it; others, and those that do not
/// exist, are left alone.
pub(crate) fn accessed(e: &mut Edit, times: Vec<(Ino, Time, Time)>) -> Answer {
    if times.iter().any(|(_, atime, _)| atime.nsec >= 1_000_000_000) {
        return Err(MetaError::Invalid("a time has a second or more of nanoseconds".into()));
    }
    for (ino, atime, ctime) in times {
        if e.ns().get(ino).is_some_and(|inode| inode.meta.ctime == ctime) {
            e.meta_mut(ino)?.atime = atime;
        }
    }
    Ok(MetaReply::Done)
}
