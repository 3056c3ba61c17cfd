//! Giving a file pages of another, without copying them.

use super::{Answer, file_map};
use crate::namespace::edit::Edit;
use pool::proto::meta::{FILE_SIZE_MAX, Ino, MetaError, MetaReply};

/// Maps `pages` pages at a place of the file `to` as they are mapped at a place of the file `from`, if the files have the
/// sizes that are `expect`ed.
pub(crate) fn clone(
    e: &mut Edit,
    from: (Ino, u64),
    to: (Ino, u64),
    pages: u64,
    size: u64,
    expect: Option<(u64, u64)>,
) -> Answer {
    let ((from, first), (to, at)) = (from, to);
    let last = e.ns().limits().page_size.pages_for(FILE_SIZE_MAX);
    let ends = |page: u64| page.checked_add(pages).filter(|&end| end <= last).ok_or(MetaError::TooBig);
    let (from_end, to_end) = (ends(first)?, ends(at)?);
    if size > FILE_SIZE_MAX {
        return Err(MetaError::TooBig);
    }
    if from == to && first < to_end && at < from_end {
        return Err(MetaError::Invalid("a part of a file cannot be cloned onto itself".into()));
    }
    if expect.is_some() && expect != Some((e.meta(from)?.size, e.meta(to)?.size)) {
        return Err(MetaError::Busy);
    }
    let shared = file_map(e, from)?.moved(first, from_end, at);
    e.remap(to, file_map(e, to)?.plan_share(at, to_end, &shared))?;
    e.drop_capability(to);
    let meta = e.touch(to)?;
    meta.size = meta.size.max(size);
    Ok(MetaReply::Attr(e.attr(to)?))
}
