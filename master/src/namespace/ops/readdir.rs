//! Listing a directory, a piece at a time.

use super::Answer;
use crate::namespace::Namespace;
use crate::namespace::dir::{DOT, DOT_DOT};
use pool::proto::meta::{DirEntry, Ino, MetaError, MetaReply};

/// Up to `limit` entries (at least one) after the cookie `after`. A directory that was removed has none.
pub(crate) fn readdir(ns: &Namespace, ino: Ino, after: u64, limit: u32, plus: bool) -> Answer {
    let dir = ns.dir(ino)?;
    if ns.inode(ino)?.meta.nlink == 0 {
        return Ok(MetaReply::Entries(Vec::new()));
    }
    let dots = [(DOT, ino, &b"."[..]), (DOT_DOT, dir.parent, b"..")];
    let dots = dots.into_iter().filter(|(cookie, ..)| *cookie > after);
    let named = dir.after(after).map(|(cookie, entry)| (cookie, entry.ino, &*entry.name));
    let entries = dots.chain(named).take(limit.max(1) as usize);
    let entries = entries.map(|(cookie, ino, name)| entry(ns, cookie, ino, name, plus));
    Ok(MetaReply::Entries(entries.collect::<Result<_, _>>()?))
}

fn entry(ns: &Namespace, cookie: u64, ino: Ino, name: &[u8], plus: bool) -> Result<DirEntry, MetaError> {
    let inode = ns.inode(ino)?;
    let attr = plus.then(|| inode.attr_with(ino, &inode.meta, ns.limits().page_size));
    Ok(DirEntry { cookie, ino, kind: inode.meta.kind, name: name.to_vec(), attr })
}
