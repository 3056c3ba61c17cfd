//! Removing an extended attribute.

use super::Answer;
use crate::change::Change;
use crate::namespace::edit::Edit;
use crate::namespace::xattr::Class;
use pool::proto::meta::{Ino, MetaError, MetaReply};

/// Removes `name`. An access control list may be removed where there is none; the mode stays.
pub(crate) fn removexattr(e: &mut Edit, ino: Ino, name: &[u8]) -> Answer {
    let inode = e.ns().inode(ino)?;
    let class = Class::of(name)?;
    if inode.xattr(name).is_some() {
        e.change(Change::DelXattr(ino, name.into()));
        e.changed(ino)?;
    } else if !matches!(class, Class::AclAccess | Class::AclDefault) {
        return Err(if class.fits(inode.meta.kind) {
            MetaError::NoAttribute
        } else {
            MetaError::NotPermitted
        });
    }
    Ok(MetaReply::Attr(e.attr(ino)?))
}
