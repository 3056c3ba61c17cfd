//! Setting an extended attribute, an access control list among them.

use super::{Answer, S_ISGID};
use crate::change::Change;
use crate::namespace::acl::Acl;
use crate::namespace::edit::Edit;
use crate::namespace::xattr::{self, ACL_ACCESS, ACL_DEFAULT, Class};
use pool::proto::meta::{Caller, Ino, Kind, MetaError, MetaReply, XATTR_LIST_MAX, XATTR_SIZE_MAX, XattrMode};

/// What to set.
pub(crate) struct SetXattr {
    /// Inode.
    pub ino: Ino,
    /// Who asks.
    pub caller: Caller,
    /// Name.
    pub name: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
    /// About an existing one.
    pub mode: XattrMode,
}

/// Sets it.
pub(crate) fn setxattr(e: &mut Edit, set: &SetXattr) -> Answer {
    let inode = e.ns().inode(set.ino)?;
    let class = Class::of(&set.name)?;
    if set.value.len() > XATTR_SIZE_MAX {
        return Err(MetaError::ValueTooBig);
    }
    match class {
        Class::AclAccess | Class::AclDefault if inode.meta.kind == Kind::Symlink => {
            return Err(MetaError::NotSupported);
        }
        _ if !class.fits(inode.meta.kind) => return Err(MetaError::NotPermitted),
        Class::User | Class::Opaque => {
            let exists = inode.xattr(&set.name).is_some();
            match set.mode {
                XattrMode::Create if exists => return Err(MetaError::Exists),
                XattrMode::Replace if !exists => return Err(MetaError::NoAttribute),
                XattrMode::Any | XattrMode::Create | XattrMode::Replace => {}
            }
            put(e, set.ino, &set.name, set.value.clone().into())?;
        }
        Class::AclAccess => set_access(e, set)?,
        Class::AclDefault => {
            owner_only(e, set)?;
            match Acl::parse(&set.value)? {
                Some(acl) => put(e, set.ino, ACL_DEFAULT, acl.to_bytes())?,
                None => drop_stored(e, set.ino, ACL_DEFAULT)?,
            }
        }
    }
    e.changed(set.ino)?;
    Ok(MetaReply::Attr(e.attr(set.ino)?))
}

/// An access list sets the mode too, and is kept only if it says more than the mode. As with chmod(2),
/// who is not of the file's group cannot leave set-group-id on it.
fn set_access(e: &mut Edit, set: &SetXattr) -> Result<(), MetaError> {
    owner_only(e, set)?;
    let Some(acl) = Acl::parse(&set.value)? else { return drop_stored(e, set.ino, ACL_ACCESS) };
    let meta = e.meta_mut(set.ino)?;
    meta.perm = meta.perm & !0o777 | acl.mode();
    if set.caller.uid != 0 && set.caller.gid != meta.gid {
        meta.perm &= !S_ISGID;
    }
    if acl.is_minimal() {
        drop_stored(e, set.ino, ACL_ACCESS)
    } else {
        put(e, set.ino, ACL_ACCESS, acl.to_bytes())
    }
}

fn owner_only(e: &Edit, set: &SetXattr) -> Result<(), MetaError> {
    let owner = e.meta(set.ino)?.uid;
    if set.caller.uid == 0 || set.caller.uid == owner { Ok(()) } else { Err(MetaError::NotPermitted) }
}

fn put(e: &mut Edit, ino: Ino, name: &[u8], value: Box<[u8]>) -> Result<(), MetaError> {
    let inode = e.ns().inode(ino)?;
    let listed = xattr::list_len(inode.xattrs.as_deref());
    if inode.xattr(name).is_none() && listed + name.len() + 1 > XATTR_LIST_MAX {
        return Err(MetaError::NoSpace("the names of the attributes would not fit a list".into()));
    }
    e.change(Change::PutXattr(ino, name.into(), value));
    Ok(())
}

fn drop_stored(e: &mut Edit, ino: Ino, name: &[u8]) -> Result<(), MetaError> {
    if e.ns().inode(ino)?.xattr(name).is_some() {
        e.change(Change::DelXattr(ino, name.into()));
    }
    Ok(())
}
