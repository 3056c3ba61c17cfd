//! Which pages of the pool a file has.

use super::{Answer, not_a_file};
use crate::namespace::Namespace;
use pool::proto::meta::{Extent, Ino, MetaReply};

/// Attributes and up to `limit` runs (at least one) that map page `from` or a later one.
pub(crate) fn map(ns: &Namespace, ino: Ino, from: u64, limit: u32) -> Answer {
    let inode = ns.inode(ino)?;
    let map = inode.extents().ok_or_else(|| not_a_file(inode.meta.kind))?;
    let mut rest = map.iter_from(from);
    let extents: Vec<Extent> = rest.by_ref().take(limit.max(1) as usize).collect();
    let next = rest.next().map(|e| e.at);
    let shared = extents.iter().flat_map(|e| ns.shared_among(e.run)).collect();
    Ok(MetaReply::Map { attr: ns.attr(ino)?, extents, shared, next })
}
