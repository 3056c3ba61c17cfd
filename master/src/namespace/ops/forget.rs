//! Letting go of inodes: those without a link are gone then, with their pages.

use super::Answer;
use crate::namespace::edit::Edit;
use pool::proto::meta::{Ino, MetaReply};

/// Removes those of `inos` that have no link; others, and those that do not exist, are left alone.
pub(crate) fn forget(e: &mut Edit, mut inos: Vec<Ino>) -> Answer {
    inos.sort_unstable();
    inos.dedup();
    for ino in inos {
        if let Some(inode) = e.ns().get(ino).filter(|inode| inode.meta.nlink == 0) {
            e.remove(ino, inode);
        }
    }
    Ok(MetaReply::Done)
}
