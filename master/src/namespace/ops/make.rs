//! Making an inode with its first name: creat, mknod, mkdir, symlink.

use super::{Answer, PERM_BITS, S_ISGID};
use crate::change::{Change, Meta};
use crate::namespace::acl::Acl;
use crate::namespace::edit::Edit;
use crate::namespace::name::Name;
use crate::namespace::xattr::{ACL_ACCESS, ACL_DEFAULT};
use pool::proto::meta::{Caller, Ino, Kind, MetaError, MetaReply, NewNode, SYMLINK_MAX};

/// What to make, and where.
pub(crate) struct Make {
    /// Directory.
    pub parent: Ino,
    /// Name.
    pub name: Vec<u8>,
    /// Who makes it.
    pub caller: Caller,
    /// What.
    pub node: NewNode,
    /// Mode asked for.
    pub perm: u16,
    /// Bits of it to clear, unless a default list says.
    pub umask: u16,
}

/// Makes it.
pub(crate) fn make(e: &mut Edit, make: &Make) -> Answer {
    let dir = e.dir(make.parent)?;
    let name = Name::plain(&make.name, MetaError::Exists)?;
    if dir.find(name).is_some() {
        return Err(MetaError::Exists);
    }
    let cookie = dir.fresh_cookie();
    let (kind, rdev, target) = parts(&make.node)?;
    let default = default_acl(e, make.parent, kind);
    let (perm, access) = start_mode(make, kind, default.clone());
    let above = e.meta(make.parent)?;
    let inherits = above.perm & S_ISGID != 0;
    let now = e.now();
    let ino = e.make(Meta {
        kind,
        perm: if inherits && kind == Kind::Dir { perm | S_ISGID } else { perm },
        nlink: if kind == Kind::Dir { 2 } else { 1 },
        uid: make.caller.uid,
        gid: if inherits { above.gid } else { make.caller.gid },
        rdev,
        size: target.map_or(0, |t| t.len() as u64),
        pages: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    })?;
    if kind == Kind::Dir {
        e.add_link(make.parent)?;
    }
    e.touch(make.parent)?;
    if let Some(target) = target {
        e.change(Change::PutTarget(ino, target.into()));
    }
    put_acls(e, ino, kind, access, default);
    e.change(Change::PutEntry { parent: make.parent, cookie, ino, name: name.into() });
    Ok(MetaReply::Attr(e.attr(ino)?))
}

/// Kind, device number and target of what is to be made.
fn parts(node: &NewNode) -> Result<(Kind, u32, Option<&[u8]>), MetaError> {
    Ok(match node {
        NewNode::File => (Kind::File, 0, None),
        NewNode::Dir => (Kind::Dir, 0, None),
        NewNode::Fifo => (Kind::Fifo, 0, None),
        NewNode::Socket => (Kind::Socket, 0, None),
        NewNode::Char(rdev) => (Kind::Char, *rdev, None),
        NewNode::Block(rdev) => (Kind::Block, *rdev, None),
        NewNode::Symlink(target) if target.is_empty() || target.contains(&0) => {
            return Err(MetaError::Invalid("a target cannot be empty or have a zero byte in it".into()));
        }
        NewNode::Symlink(target) if target.len() > SYMLINK_MAX => return Err(MetaError::NameTooLong),
        NewNode::Symlink(target) => (Kind::Symlink, 0, Some(target)),
    })
}

/// The list that what is made in `parent` inherits.
fn default_acl(e: &Edit, parent: Ino, kind: Kind) -> Option<Acl> {
    if kind == Kind::Symlink {
        return None;
    }
    Acl::parse(e.ns().get(parent)?.xattr(ACL_DEFAULT)?).ok().flatten()
}

/// The mode to begin with, and the access list unless it would say no more than the mode.
fn start_mode(make: &Make, kind: Kind, default: Option<Acl>) -> (u16, Option<Acl>) {
    let asked = make.perm & PERM_BITS;
    match default {
        _ if kind == Kind::Symlink => (0o777, None),
        None => (asked & !make.umask, None),
        Some(mut acl) => {
            let perm = asked & !0o777 | acl.inherit(asked & 0o777);
            (perm, Some(acl).filter(|acl| !acl.is_minimal()))
        }
    }
}

fn put_acls(e: &mut Edit, ino: Ino, kind: Kind, access: Option<Acl>, default: Option<Acl>) {
    if let Some(acl) = access {
        e.change(Change::PutXattr(ino, ACL_ACCESS.into(), acl.to_bytes()));
    }
    if let Some(acl) = default.filter(|_| kind == Kind::Dir) {
        e.change(Change::PutXattr(ino, ACL_DEFAULT.into(), acl.to_bytes()));
    }
}
