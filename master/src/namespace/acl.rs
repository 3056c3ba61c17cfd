//! POSIX access control lists, as the two `system.posix_acl_*` attributes carry them.
//!
//! Format (linux/posix_acl_xattr.h), little-endian: version 2 in 4 bytes, then 8 bytes an entry: tag (2),
//! permissions (2), id (4). The rules are those of acl(5): an access list and the permission bits of the
//! mode say the same, in both directions; a list that says no more than the mode is not kept.

use pool::proto::meta::MetaError;

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// A valid list: owner, named users, group, named groups, mask (always if anyone is named), others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Reads the value of an attribute. `None` if it has no entries, which means no list.
    ///
    /// # Errors
    /// `NotSupported` for another version, `Invalid` for anything that is no valid list.
    pub(crate) fn parse(value: &[u8]) -> Result<Option<Self>, MetaError> {
        let malformed = || MetaError::Invalid("the access control list is malformed".into());
        let (version, rest) = value.split_first_chunk::<HEADER>().ok_or_else(malformed)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(MetaError::NotSupported);
        }
        let (entries, []) = rest.as_chunks::<ENTRY>() else { return Err(malformed()) };
        let entries: Vec<Entry> = entries.iter().map(Entry::read).collect();
        if entries.is_empty() {
            return Ok(None);
        }
        if !valid(&entries) {
            return Err(malformed());
        }
        Ok(Some(Self { entries }))
    }

    /// The value of an attribute.
    pub(crate) fn to_bytes(&self) -> Box<[u8]> {
        let entries = self.entries.iter().flat_map(|e| e.write());
        VERSION.to_le_bytes().into_iter().chain(entries).collect()
    }

    /// Does it say no more than the permission bits of a mode can?
    pub(crate) fn is_minimal(&self) -> bool {
        self.entries.len() == 3
    }

    /// The nine permission bits that say the same as far as they can: owner, mask or group, others.
    pub(crate) fn mode(&self) -> u16 {
        let class = |tag| self.find(tag).map_or(0, |i| self.entries[i].perm);
        class(USER_OBJ) << 6 | class(self.group_class()) << 3 | class(OTHER)
    }

    /// The list after chmod(2) with these permission bits.
    pub(crate) fn chmod(&mut self, mode: u16) {
        self.set(USER_OBJ, mode >> 6 & 7);
        self.set(self.group_class(), mode >> 3 & 7);
        self.set(OTHER, mode & 7);
    }

    /// Makes a default list the access list of something new that asks for these permission bits: both
    /// lose what the other does not grant. Returns the bits that are left.
    pub(crate) fn inherit(&mut self, mode: u16) -> u16 {
        let both = self.mode() & mode;
        self.chmod(both);
        both
    }

    /// What the group bits of the mode are about.
    fn group_class(&self) -> u16 {
        if self.find(MASK).is_some() { MASK } else { GROUP_OBJ }
    }

    fn find(&self, tag: u16) -> Option<usize> {
        self.entries.iter().position(|e| e.tag == tag)
    }

    fn set(&mut self, tag: u16, perm: u16) {
        if let Some(i) = self.find(tag) {
            self.entries[i].perm = perm;
        }
    }
}

impl Entry {
    fn read(bytes: &[u8; ENTRY]) -> Self {
        let [t0, t1, p0, p1, i0, i1, i2, i3] = *bytes;
        Self {
            tag: u16::from_le_bytes([t0, t1]),
            perm: u16::from_le_bytes([p0, p1]),
            id: u32::from_le_bytes([i0, i1, i2, i3]),
        }
    }

    fn write(&self) -> [u8; ENTRY] {
        let ([t0, t1], [p0, p1]) = (self.tag.to_le_bytes(), self.perm.to_le_bytes());
        let [i0, i1, i2, i3] = self.id.to_le_bytes();
        [t0, t1, p0, p1, i0, i1, i2, i3]
    }
}

/// In the order of the tags; one of each that is not named; a mask if anyone is named; no other bits.
fn valid(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|e| e.tag == tag).count();
    let named = count(USER) + count(GROUP);
    let known = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER];
    entries.iter().all(|e| known.contains(&e.tag) && e.perm <= 7)
        && entries.is_sorted_by_key(|e| e.tag)
        && [USER_OBJ, GROUP_OBJ, OTHER].iter().all(|&tag| count(tag) == 1)
        && (count(MASK) == 1 || count(MASK) == 0 && named == 0)
        && entries.iter().all(|e| !matches!(e.tag, USER | GROUP) || e.id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let list = entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id });
        Acl { entries: list.collect() }.to_bytes().into()
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&bytes(entries)).unwrap().unwrap()
    }

    const NAMED: [(u16, u16, u32); 5] =
        [(USER_OBJ, 7, !0), (USER, 6, 1000), (GROUP_OBJ, 5, !0), (MASK, 7, !0), (OTHER, 4, !0)];

    #[test]
    fn the_format_is_the_kernels() {
        let value = [2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 1, 0];
        let value = [&value[..], &[255; 4]].concat();
        let list = Acl::parse(&value).unwrap().unwrap();
        assert_eq!((list.mode(), list.is_minimal()), (0o751, true));
        assert_eq!(&*list.to_bytes(), &value[..]);
    }

    #[test]
    fn malformed_lists_are_refused() {
        let good = bytes(&NAMED);
        assert!(Acl::parse(&good).is_ok());
        for len in (0..good.len()).filter(|len| *len != 4) {
            assert!(matches!(Acl::parse(&good[..len]), Err(MetaError::Invalid(_))), "{len}");
        }
        let without = |i: usize| [&NAMED[..i], &NAMED[i + 1..]].concat();
        for i in [0, 2, 3, 4] {
            assert!(Acl::parse(&bytes(&without(i))).is_err(), "without {i}");
        }
        for (i, entry) in [(1, (USER, 8, 1000)), (1, (USER, 6, !0)), (1, (0x40, 6, 1)), (0, (OTHER, 7, !0))] {
            let mut list = NAMED;
            list[i] = entry;
            assert!(Acl::parse(&bytes(&list)).is_err(), "{entry:?}");
        }
        let mut swapped = NAMED;
        swapped.swap(0, 1);
        assert!(Acl::parse(&bytes(&swapped)).is_err());
        let twice = [&NAMED[..1], &NAMED[..]].concat();
        assert!(Acl::parse(&bytes(&twice)).is_err());
        assert_eq!(Acl::parse(&[3, 0, 0, 0]), Err(MetaError::NotSupported));
        assert_eq!(Acl::parse(&[2, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn chmod_changes_the_mask_and_not_the_group_of_an_extended_list() {
        let mut list = acl(&NAMED);
        assert_eq!(list.mode(), 0o774);
        list.chmod(0o640);
        let expected =
            [(USER_OBJ, 6, !0), (USER, 6, 1000), (GROUP_OBJ, 5, !0), (MASK, 4, !0), (OTHER, 0, !0)];
        assert_eq!(list, acl(&expected));
        let mut minimal = acl(&[(USER_OBJ, 7, !0), (GROUP_OBJ, 7, !0), (OTHER, 7, !0)]);
        minimal.chmod(0o640);
        assert_eq!((minimal.mode(), minimal.is_minimal()), (0o640, true));
    }

    #[test]
    fn what_is_inherited_is_what_both_grant() {
        let mut list = acl(&NAMED);
        assert_eq!(list.inherit(0o666), 0o664);
        let expected =
            [(USER_OBJ, 6, !0), (USER, 6, 1000), (GROUP_OBJ, 5, !0), (MASK, 6, !0), (OTHER, 4, !0)];
        assert_eq!(list, acl(&expected));
    }
}
