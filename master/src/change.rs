//! A change of the namespace, or of what is known of the cluster, as plain data.
//!
//! The same type says what an operation changes, what a store must remember, and what it remembered.
//! Each change replaces or removes one record, so that a later change of the same record makes an
//! earlier one void, and applying a list twice in order is the same as once.

use pool::addr::{PageId, RackId};
use pool::proto::cluster::{ClientName, Cluster, RackJoin};
use pool::proto::meta::{Attr, Extent, Ino, Kind, Time};
use serde::{Deserialize, Serialize};

/// The attributes that every inode has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// What it is; never changes.
    pub kind: Kind,
    /// The low 12 bits of the mode.
    pub perm: u16,
    /// Names that refer to it, and for a directory its own `.` and the `..` of its children.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device.
    pub rdev: u32,
    /// Bytes of a file or of a symlink's target; 0 for everything else.
    pub size: u64,
    /// Pages a file has.
    pub pages: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
}

impl Meta {
    /// As stat(2) shows it, given the numbers that are not kept here.
    pub(crate) fn attr(&self, ino: Ino, size: u64, blocks: u64) -> Attr {
        Attr {
            ino,
            kind: self.kind,
            perm: self.perm,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size,
            blocks,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
        }
    }
}

/// One record made, replaced or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Every inode number given out is below this.
    InoMark(u64),
    /// Attributes of an inode, which is made if there is none.
    PutInode(Ino, Meta),
    /// The inode is gone. Its extents and extended attributes are removed by changes of their own.
    DelInode(Ino),
    /// The target of a symlink, which never changes.
    PutTarget(Ino, Box<[u8]>),
    /// The target of a symlink that is gone.
    DelTarget(Ino),
    /// An extended attribute.
    PutXattr(Ino, Box<[u8]>, Box<[u8]>),
    /// The extended attribute of that name is gone.
    DelXattr(Ino, Box<[u8]>),
    /// A run of pages of a file, in the place of one that begins at the same page of the file.
    PutExtent(Ino, Extent),
    /// The run that begins at this page of the file is gone.
    DelExtent(Ino, u64),
    /// An entry of a directory, in the place of one with the same cookie.
    PutEntry {
        /// The directory.
        parent: Ino,
        /// Place in it.
        cookie: u64,
        /// Inode.
        ino: Ino,
        /// Name.
        name: Box<[u8]>,
    },
    /// The entry of that cookie is gone.
    DelEntry {
        /// The directory.
        parent: Ino,
        /// Place in it.
        cookie: u64,
    },
    /// Something about the cluster; nothing to the namespace.
    Cluster(ClusterChange),
}

/// One record about the cluster made, replaced or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// Which cluster it is, and in which term.
    PutCluster(Cluster),
    /// A rack that there is, as its daemon joined.
    PutRack(RackJoin),
    /// The daemon of the rack has left in order.
    DelRack(RackId),
    /// The block of page ids with this number is given to the rack. Blocks are given in order.
    PutBlock(u64, RackId),
    /// The page is in this rack, and not in that of its block.
    PutMoved(PageId, RackId),
    /// The page is in the rack of its block, or nowhere.
    DelMoved(PageId),
    /// A mount has a session of this number, and is this client of that rack.
    PutMount(u64, RackId, ClientName),
    /// The session of that number is over.
    DelMount(u64),
}
