//! Giving pages to a file, and saying what was written.

use super::{Answer, clear_set_id, file_map, set_attributes};
use crate::namespace::edit::Edit;
use pool::proto::meta::{Extent, FILE_SIZE_MAX, Ino, MetaError, MetaReply, SetAttr};

/// What was written.
pub(crate) struct Commit {
    /// Inode of a regular file.
    pub ino: Ino,
    /// New pages, in order and disjoint.
    pub extents: Vec<Extent>,
    /// The size becomes at least this.
    pub size: u64,
    /// Contents changed just now.
    pub touch: bool,
    /// Clear the set-id bits.
    pub kill_suid: bool,
    /// Then set these attributes, which cannot be the size.
    pub set: Option<SetAttr>,
}

/// Records it, all or nothing. Pages that are replaced are freed; a page committed once more to the
/// place where it is already stays.
pub(crate) fn commit(e: &mut Edit, commit: &Commit) -> Answer {
    let ino = commit.ino;
    let map = file_map(e, ino)?;
    let last = e.ns().limits().page_size.pages_for(FILE_SIZE_MAX);
    if commit.size > FILE_SIZE_MAX || commit.extents.last().is_some_and(|x| x.at > last || x.end() > last) {
        return Err(MetaError::TooBig);
    }
    if !commit.extents.is_empty() {
        e.remap(ino, map.plan_put(&commit.extents)?)?;
    }
    if commit.size > e.meta(ino)?.size {
        e.meta_mut(ino)?.size = commit.size;
    }
    if commit.kill_suid {
        kill_set_id(e, ino)?;
    }
    if commit.touch {
        e.drop_capability(ino);
        e.touch(ino)?;
    }
    if let Some(set) = &commit.set {
        if set.size.is_some() {
            return Err(MetaError::Invalid("a size is not set with what was written".into()));
        }
        set_attributes(e, ino, set)?;
    }
    Ok(MetaReply::Attr(e.attr(ino)?))
}

fn kill_set_id(e: &mut Edit, ino: Ino) -> Result<(), MetaError> {
    let mut meta = e.meta(ino)?;
    let before = meta.perm;
    clear_set_id(&mut meta);
    if meta.perm != before {
        e.changed(ino)?.perm = meta.perm;
    }
    Ok(())
}
