//! What an operation needs of the leases of others, and which leases its answer grants. Pure, but for looking
//! names up.

use super::leases::{Mode, Need};
use crate::namespace::Namespace;
use pool::proto::meta::{Ino, MetaError, MetaReply, MetaRequest, NewNode, SetAttr};

/// What an operation needs.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Inodes that it looks at or changes. None of them may be about to be revoked of the mount that asks.
    pub inodes: Vec<(Ino, Need)>,
    /// A file that the mount must hold exclusively; then nothing stands in the way of the operation, also if that is
    /// being revoked: the mount says what it has kept back.
    pub held: Option<Ino>,
}

/// Of `request`, by a mount that holds exclusively what `holds` says.
pub(crate) fn of(ns: &Namespace, request: &MetaRequest, holds: impl Fn(Ino) -> bool) -> Needs {
    let child = |parent: Ino, name: &[u8]| Some(ns.get(parent)?.dir()?.find(name)?.1);
    let mut needs = Needs::default();
    let mut add = |ino, need| needs.inodes.push((ino, need));
    match request {
        MetaRequest::Lookup { parent, name } => {
            add(*parent, Need::Nothing);
            let found = match &name[..] {
                b"." => Some(*parent),
                b".." => ns.get(*parent).and_then(|inode| inode.dir()).map(|dir| dir.parent),
                name => child(*parent, name),
            };
            found.into_iter().for_each(|ino| add(ino, Need::Read));
        }
        MetaRequest::GetAttr { ino }
        | MetaRequest::GetXattr { ino, .. }
        | MetaRequest::ListXattr { ino }
        | MetaRequest::Map { ino, .. } => add(*ino, Need::Read),
        MetaRequest::SetAttr { ino, set, .. } if set.size.is_some() && holds(*ino) => needs.held = Some(*ino),
        MetaRequest::SetAttr { ino, set, .. } if only_atime(set) => add(*ino, Need::Read),
        MetaRequest::SetAttr { ino, .. }
        | MetaRequest::SetXattr { ino, .. }
        | MetaRequest::RemoveXattr { ino, .. } => add(*ino, Need::Change),
        MetaRequest::Make { parent, name, .. } => add(*parent, Need::Entry(name.clone())),
        MetaRequest::Link { ino, parent, name } => {
            add(*parent, Need::Entry(name.clone()));
            add(*ino, Need::Change);
        }
        MetaRequest::Unlink { parent, name } | MetaRequest::Rmdir { parent, name } => {
            add(*parent, Need::Entry(name.clone()));
            child(*parent, name).into_iter().for_each(|ino| add(ino, Need::Change));
        }
        MetaRequest::Rename { parent, name, new_parent, new_name, .. } => {
            for (parent, name) in [(parent, name), (new_parent, new_name)] {
                add(*parent, Need::Entry(name.clone()));
                child(*parent, name).into_iter().for_each(|ino| add(ino, Need::Change));
            }
        }
        MetaRequest::Commit { ino, .. } | MetaRequest::Punch { ino, .. } => needs.held = Some(*ino),
        MetaRequest::Clone { from, to, .. } => {
            add(from.0, Need::Share);
            add(to.0, Need::Replace);
        }
        // What a tree needs is found bit by bit: see `tree`.
        MetaRequest::CloneTree { .. }
        | MetaRequest::ReadLink { .. }
        | MetaRequest::ReadDir { .. }
        | MetaRequest::StatFs
        | MetaRequest::Forget { .. }
        | MetaRequest::Sync => {}
    }
    needs
}

/// A new access time need not be known to others at once.
fn only_atime(set: &SetAttr) -> bool {
    let SetAttr { perm, uid, gid, size, atime: _, mtime, ctime: _ } = set;
    perm.is_none()
        && uid.is_none()
        && gid.is_none()
        && size.is_none()
        && mtime.is_none()
        && set.ctime.is_some()
}

/// The leases that the answer grants. `needed` is what [`of`] found.
pub(crate) fn grants(
    request: &MetaRequest,
    needed: &Needs,
    result: &Result<MetaReply, MetaError>,
) -> Vec<(Ino, Mode)> {
    let mut granted: Vec<(Ino, Mode)> = match result {
        Ok(_) => needed
            .inodes
            .iter()
            .filter(|(_, need)| *need != Need::Share)
            .map(|(ino, _)| (*ino, Mode::Shared))
            .chain(needed.held.map(|i| (i, Mode::Shared)))
            .collect(),
        // That there is no such name may be kept as well.
        Err(MetaError::NotFound) => {
            needed.inodes.iter().take(1).map(|(ino, _)| (*ino, Mode::Shared)).collect()
        }
        Err(_) => Vec::new(),
    };
    if let (MetaRequest::Make { node, .. }, Ok(MetaReply::Attr(attr))) = (request, result) {
        let mode = if *node == NewNode::File { Mode::Exclusive } else { Mode::Shared };
        granted.push((attr.ino, mode));
    }
    granted
}
