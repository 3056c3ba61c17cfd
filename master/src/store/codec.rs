//! Changes as keys and values.
//!
//! A key is one byte for the kind of record and big-endian numbers, so that the order of keys is the
//! order in which a namespace can be loaded:
//!
//! | record | key | value |
//! | --- | --- | --- |
//! | mark of inode numbers | 1, 1 | number, 8 bytes |
//! | attributes | 2, inode | `Meta` in postcard |
//! | symlink target | 3, inode | target |
//! | extended attribute | 4, inode, name | value |
//! | run of pages | 5, inode, page of the file | first page 8 bytes, count 4 bytes |
//! | entry | 6, directory, cookie | inode 8 bytes, name |
//! | cluster | 7 | `Cluster` in postcard |
//! | rack | 8, rack in 2 bytes | `RackJoin` in postcard |
//! | block of page ids | 9, block | rack, 2 bytes |
//! | page that has moved | 10, page | rack, 2 bytes |
//! | session of a mount | 11, session | rack and client in postcard |
//!
//! Numbers in values are big-endian too. Keys that begin with 1 and another byte than 1 are the store's.

use crate::change::{Change, ClusterChange};
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::cluster::RackJoin;
use pool::proto::meta::{Extent, Ino};
use serde::de::DeserializeOwned;

/// Records about the whole, and those of the store itself.
pub(super) const WHOLE: u8 = 1;
const MARK: u8 = 1;
const INODE: u8 = 2;
const TARGET: u8 = 3;
const XATTR: u8 = 4;
const EXTENT: u8 = 5;
const ENTRY: u8 = 6;
const CLUSTER: u8 = 7;
const RACK: u8 = 8;
const BLOCK: u8 = 9;
const MOVED: u8 = 10;
const MOUNT: u8 = 11;

/// A key and its new value; `None` removes it.
pub(super) type Record = (Vec<u8>, Option<Vec<u8>>);

/// A change as a record. `None` if it cannot be written down, which happens to no change there is.
pub(super) fn encode(change: &Change) -> Option<Record> {
    Some(match change {
        Change::InoMark(mark) => (vec![WHOLE, MARK], Some(mark.to_be_bytes().into())),
        Change::PutInode(ino, meta) => (key(INODE, *ino, &[]), Some(postcard::to_allocvec(meta).ok()?)),
        Change::DelInode(ino) => (key(INODE, *ino, &[]), None),
        Change::PutTarget(ino, target) => (key(TARGET, *ino, &[]), Some(target.to_vec())),
        Change::DelTarget(ino) => (key(TARGET, *ino, &[]), None),
        Change::PutXattr(ino, name, value) => (key(XATTR, *ino, name), Some(value.to_vec())),
        Change::DelXattr(ino, name) => (key(XATTR, *ino, name), None),
        Change::PutExtent(ino, e) => (key(EXTENT, *ino, &e.at.to_be_bytes()), Some(run(e.run))),
        Change::DelExtent(ino, at) => (key(EXTENT, *ino, &at.to_be_bytes()), None),
        Change::PutEntry { parent, cookie, ino, name } => {
            let value = [&ino.0.to_be_bytes()[..], name].concat();
            (key(ENTRY, *parent, &cookie.to_be_bytes()), Some(value))
        }
        Change::DelEntry { parent, cookie } => (key(ENTRY, *parent, &cookie.to_be_bytes()), None),
        Change::Cluster(change) => return encode_cluster(change),
    })
}

fn encode_cluster(change: &ClusterChange) -> Option<Record> {
    let key = |kind: u8, number: &[u8]| [&[kind][..], number].concat();
    Some(match change {
        ClusterChange::PutCluster(cluster) => (vec![CLUSTER], Some(postcard::to_allocvec(cluster).ok()?)),
        ClusterChange::PutRack(join) => {
            (key(RACK, &join.rack.0.to_be_bytes()), Some(postcard::to_allocvec(join).ok()?))
        }
        ClusterChange::DelRack(rack) => (key(RACK, &rack.0.to_be_bytes()), None),
        ClusterChange::PutBlock(number, rack) => {
            (key(BLOCK, &number.to_be_bytes()), Some(rack.0.to_be_bytes().into()))
        }
        ClusterChange::PutMoved(page, rack) => {
            (key(MOVED, &page.raw().to_be_bytes()), Some(rack.0.to_be_bytes().into()))
        }
        ClusterChange::DelMoved(page) => (key(MOVED, &page.raw().to_be_bytes()), None),
        ClusterChange::PutMount(session, rack, client) => {
            (key(MOUNT, &session.to_be_bytes()), Some(postcard::to_allocvec(&(rack, client)).ok()?))
        }
        ClusterChange::DelMount(session) => (key(MOUNT, &session.to_be_bytes()), None),
    })
}

/// The change that made a record; `None` if no change makes such a record.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Change> {
    let (&kind, rest) = key.split_first()?;
    if kind == WHOLE {
        return if rest == [MARK] { Some(Change::InoMark(number(value)?)) } else { None };
    }
    if kind >= CLUSTER {
        return decode_cluster(kind, rest, value).map(Change::Cluster);
    }
    let (ino, rest) = rest.split_first_chunk()?;
    let ino = Ino(u64::from_be_bytes(*ino));
    match kind {
        INODE if rest.is_empty() => Some(Change::PutInode(ino, whole(value)?)),
        TARGET if rest.is_empty() => Some(Change::PutTarget(ino, value.into())),
        XATTR => Some(Change::PutXattr(ino, rest.into(), value.into())),
        EXTENT => {
            let (first, count) = value.split_first_chunk()?;
            let first = PageId::new(u64::from_be_bytes(*first))?;
            let run = PageRun::new(first, u32::from_be_bytes(count.try_into().ok()?))?;
            let at = number(rest)?;
            at.checked_add(u64::from(run.count))?;
            Some(Change::PutExtent(ino, Extent { at, run }))
        }
        ENTRY => {
            let (child, name) = value.split_first_chunk()?;
            let (cookie, child) = (number(rest)?, Ino(u64::from_be_bytes(*child)));
            Some(Change::PutEntry { parent: ino, cookie, ino: child, name: name.into() })
        }
        _ => None,
    }
}

fn decode_cluster(kind: u8, key: &[u8], value: &[u8]) -> Option<ClusterChange> {
    let rack = |bytes: &[u8]| Some(RackId(u16::from_be_bytes(bytes.try_into().ok()?)));
    match kind {
        CLUSTER if key.is_empty() => Some(ClusterChange::PutCluster(whole(value)?)),
        RACK => {
            let join: RackJoin = whole(value)?;
            (rack(key)? == join.rack).then_some(ClusterChange::PutRack(join))
        }
        BLOCK => Some(ClusterChange::PutBlock(number(key)?, rack(value)?)),
        MOVED => Some(ClusterChange::PutMoved(PageId::new(number(key)?)?, rack(value)?)),
        MOUNT => {
            let (rack, client) = whole(value)?;
            Some(ClusterChange::PutMount(number(key)?, rack, client))
        }
        _ => None,
    }
}

/// What all of these bytes are, in postcard.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes).ok()? {
        (value, []) => Some(value),
        _ => None,
    }
}

fn key(kind: u8, ino: Ino, rest: &[u8]) -> Vec<u8> {
    [&[kind][..], &ino.0.to_be_bytes(), rest].concat()
}

fn run(run: PageRun) -> Vec<u8> {
    [&run.first.raw().to_be_bytes()[..], &run.count.to_be_bytes()].concat()
}

/// A number of exactly 8 bytes.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Meta;
    use pool::addr::PageSize;
    use pool::proto::cluster::{ClientName, Cluster};
    use pool::proto::meta::{Kind, Time};

    fn meta() -> Meta {
        Meta {
            kind: Kind::File,
            perm: 0o6755,
            nlink: 3,
            uid: u32::MAX - 1,
            gid: 7,
            rdev: 0,
            size: u64::MAX >> 1,
            pages: 9,
            atime: Time { sec: i64::MIN, nsec: 999_999_999 },
            mtime: Time { sec: -1, nsec: 1 },
            ctime: Time { sec: i64::MAX, nsec: 0 },
            btime: Time::default(),
        }
    }

    fn puts() -> Vec<Change> {
        let (ino, parent) = (Ino(0x0102_0304_0506_0708), Ino(1));
        let run = PageRun::new(PageId::new(77).unwrap(), 5).unwrap();
        vec![
            Change::InoMark(1025),
            Change::PutInode(ino, meta()),
            Change::PutTarget(ino, b"a/b".as_slice().into()),
            Change::PutXattr(ino, b"user.x".as_slice().into(), Box::default()),
            Change::PutExtent(ino, Extent { at: 1 << 40, run }),
            Change::PutEntry { parent, cookie: 3, ino, name: b"\xff\n".as_slice().into() },
            Change::Cluster(ClusterChange::PutCluster(Cluster {
                id: u128::MAX - 5,
                page_size: PageSize::MAX,
                term: 300,
            })),
            Change::Cluster(ClusterChange::PutRack(join())),
            Change::Cluster(ClusterChange::PutBlock(1 << 31, RackId(u16::MAX))),
            Change::Cluster(ClusterChange::PutMoved(PageId::new(PageId::LIMIT - 1).unwrap(), RackId(2))),
            Change::Cluster(ClusterChange::PutMount(1 << 41, RackId(3), ClientName::Far(u64::MAX))),
        ]
    }

    fn join() -> RackJoin {
        RackJoin {
            rack: RackId(513),
            cluster: 7,
            page_size: PageSize::MIN,
            incarnation: u64::MAX,
            addr: "[::1]:7".into(),
            region: "/dev/shm/a b".into(),
            region_id: 3,
            transport: "tcp".into(),
        }
    }

    /// Whether the value has one form only: nothing shorter or longer would do.
    fn is_exact(change: &Change) -> bool {
        matches!(
            change,
            Change::InoMark(_) | Change::PutInode(..) | Change::PutExtent(..) | Change::Cluster(_)
        )
    }

    #[test]
    fn a_record_says_what_the_change_said() {
        for change in puts() {
            let (key, value) = encode(&change).unwrap();
            assert_eq!(decode(&key, &value.unwrap()), Some(change));
        }
    }

    #[test]
    fn keys_are_in_the_order_of_loading() {
        let keys: Vec<_> = puts().iter().map(|change| encode(change).unwrap().0).collect();
        assert!(keys.is_sorted());
    }

    #[test]
    fn damaged_records_are_no_changes() {
        for change in puts() {
            let (key, value) = encode(&change).unwrap();
            let value = value.unwrap();
            // Of a key that ends in a name a shorter one is a key too.
            let fixed = if matches!(change, Change::PutXattr(..)) { 9 } else { key.len() };
            for len in 0..fixed {
                assert_eq!(decode(&key[..len], &value), None, "{change:?} key of {len}");
            }
            if is_exact(&change) {
                assert_eq!(decode(&key, &value[..value.len() - 1]), None, "{change:?}");
                assert_eq!(decode(&key, &[&value[..], &[0]].concat()), None, "{change:?}");
            }
        }
        let zero = Change::PutExtent(Ino(2), Extent { at: 0, run: PageRun::new(PageId::FIRST, 1).unwrap() });
        let (key, _) = encode(&zero).unwrap();
        assert_eq!(decode(&key, &[0; 12]), None);
    }
}
