//! Setting attributes: chmod, chown, truncate, utimensat.

use super::{Answer, PERM_BITS, clear_set_id, file_map};
use crate::change::Change;
use crate::namespace::acl::Acl;
use crate::namespace::edit::Edit;
use crate::namespace::xattr::ACL_ACCESS;
use pool::proto::meta::{Caller, FILE_SIZE_MAX, Ino, Kind, MetaError, MetaReply, SetAttr, SetTime, Time};

/// Sets what `set` names, all or nothing.
pub(crate) fn setattr(e: &mut Edit, ino: Ino, caller: Caller, set: &SetAttr) -> Answer {
    check(set)?;
    if let Some(size) = set.size {
        resize(e, ino, size, caller)?;
    }
    set_attributes(e, ino, set)?;
    Ok(MetaReply::Attr(e.attr(ino)?))
}

/// Sets all that `set` names but the size.
pub(crate) fn set_attributes(e: &mut Edit, ino: Ino, set: &SetAttr) -> Result<(), MetaError> {
    check(set)?;
    if set.uid.is_some() || set.gid.is_some() {
        chown(e, ino, set)?;
    }
    if let Some(perm) = set.perm {
        chmod(e, ino, perm)?;
    }
    let now = e.now();
    let meta = e.changed(ino)?;
    let time = |asked: SetTime| match asked {
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    meta.atime = set.atime.map_or(meta.atime, time);
    meta.mtime = set.mtime.map_or(meta.mtime, time);
    meta.ctime = set.ctime.unwrap_or(now);
    Ok(())
}

fn check(set: &SetAttr) -> Result<(), MetaError> {
    let asked = |t: Option<SetTime>| match t {
        Some(SetTime::At(time)) => Some(time),
        Some(SetTime::Now) | None => None,
    };
    let times: [Option<Time>; 3] = [asked(set.atime), asked(set.mtime), set.ctime];
    if times.into_iter().flatten().any(|t| t.nsec >= 1_000_000_000) {
        return Err(MetaError::Invalid("a time has a second or more of nanoseconds".into()));
    }
    if [set.uid, set.gid].contains(&Some(u32::MAX)) {
        return Err(MetaError::Invalid("there is no user or group 4294967295".into()));
    }
    Ok(())
}

/// Pages wholly past the end are freed; growing adds a hole.
fn resize(e: &mut Edit, ino: Ino, size: u64, caller: Caller) -> Result<(), MetaError> {
    let map = file_map(e, ino)?;
    if size > FILE_SIZE_MAX {
        return Err(MetaError::TooBig);
    }
    let first_past = e.ns().limits().page_size.pages_for(size);
    e.remap(ino, map.plan_cut(first_past, u64::MAX))?;
    e.drop_capability(ino);
    let meta = e.touch(ino)?;
    meta.size = size;
    if caller.uid != 0 {
        clear_set_id(meta);
    }
    Ok(())
}

/// Set-id bits go even if root asks, as in Linux. A directory keeps them.
fn chown(e: &mut Edit, ino: Ino, set: &SetAttr) -> Result<(), MetaError> {
    e.drop_capability(ino);
    let meta = e.meta_mut(ino)?;
    meta.uid = set.uid.unwrap_or(meta.uid);
    meta.gid = set.gid.unwrap_or(meta.gid);
    if meta.kind != Kind::Dir {
        clear_set_id(meta);
    }
    Ok(())
}

fn chmod(e: &mut Edit, ino: Ino, perm: u16) -> Result<(), MetaError> {
    let meta = e.meta_mut(ino)?;
    if meta.kind == Kind::Symlink {
        return Err(MetaError::NotSupported);
    }
    meta.perm = perm & PERM_BITS;
    let stored = e.ns().inode(ino)?.xattr(ACL_ACCESS);
    if let Some(mut acl) = stored.and_then(|value| Acl::parse(value).ok().flatten()) {
        acl.chmod(perm & 0o777);
        e.change(Change::PutXattr(ino, ACL_ACCESS.into(), acl.to_bytes()));
    }
    Ok(())
}
