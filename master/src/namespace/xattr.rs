//! Extended attributes: which names there are, and the list one inode has.

use pool::proto::meta::{Kind, MetaError, NAME_MAX};
use std::collections::BTreeMap;

/// The attribute that holds the access list.
pub(crate) const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds the list that what is made in a directory inherits.
pub(crate) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// The attribute that holds the capabilities a program gets, which a write to it takes away.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// The attributes of an inode, by name.
pub(crate) type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// What kind of attribute a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// `user.*`, only of files and directories.
    User,
    /// `trusted.*` and `security.*`: whose they are the kernel decides.
    Opaque,
    /// The access list.
    AclAccess,
    /// The default list.
    AclDefault,
}

impl Class {
    /// The class of a name.
    ///
    /// # Errors
    /// `NotSupported` for names outside the name spaces there are, `Invalid` for a bare prefix,
    /// `NameTooLong`.
    pub(crate) fn of(name: &[u8]) -> Result<Self, MetaError> {
        if name.len() > NAME_MAX {
            return Err(MetaError::NameTooLong);
        }
        if name.contains(&0) {
            return Err(MetaError::Invalid("a name cannot have a zero byte in it".into()));
        }
        match name {
            ACL_ACCESS => return Ok(Self::AclAccess),
            ACL_DEFAULT => return Ok(Self::AclDefault),
            _ => {}
        }
        let spaces = [(&b"user."[..], Self::User), (b"trusted.", Self::Opaque), (b"security.", Self::Opaque)];
        let (prefix, class) =
            spaces.into_iter().find(|(prefix, _)| name.starts_with(prefix)).ok_or(MetaError::NotSupported)?;
        if name.len() == prefix.len() {
            return Err(MetaError::Invalid("the name ends after its prefix".into()));
        }
        Ok(class)
    }

    /// May an inode of this kind have attributes of this class?
    pub(crate) fn fits(self, kind: Kind) -> bool {
        match self {
            Self::User => matches!(kind, Kind::File | Kind::Dir),
            Self::Opaque => true,
            Self::AclAccess => kind != Kind::Symlink,
            Self::AclDefault => kind == Kind::Dir,
        }
    }
}

/// Bytes that the names take when they are listed.
pub(crate) fn list_len(xattrs: Option<&Xattrs>) -> usize {
    xattrs.into_iter().flat_map(BTreeMap::keys).map(|name| name.len() + 1).sum()
}

/// The names, each ended by a zero byte.
pub(crate) fn list(xattrs: Option<&Xattrs>) -> Vec<u8> {
    let names = xattrs.into_iter().flat_map(BTreeMap::keys);
    names.flat_map(|name| name.iter().copied().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_four_spaces() {
        assert_eq!(Class::of(b"user.x"), Ok(Class::User));
        assert_eq!(Class::of(b"trusted.x"), Ok(Class::Opaque));
        assert_eq!(Class::of(CAPABILITY), Ok(Class::Opaque));
        assert_eq!(Class::of(ACL_DEFAULT), Ok(Class::AclDefault));
        for other in [&b"system.nfs4_acl"[..], b"x", b"", b"userx", b"os2.a"] {
            assert_eq!(Class::of(other), Err(MetaError::NotSupported), "{other:?}");
        }
        assert!(matches!(Class::of(b"user."), Err(MetaError::Invalid(_))));
        assert_eq!(Class::of(&[b"user.", &[b'n'; 251][..]].concat()), Err(MetaError::NameTooLong));
    }
}
