//! What a mount asks of the master about the namespace: inodes, names, maps, attributes.
//!
//! Every request is one operation, atomic to every observer. A request that changes something is
//! answered when the change would survive the death of the master's process (if it has a store).
//! Access permission is checked by the kernel of the mount (`default_permissions`) from the attributes
//! given out here; the rules that need the caller (ownership of new inodes, set-id clearing) are the
//! master's.

use crate::addr::PageRun;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An inode number. Never reused in the life of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(1);
}

/// The longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` less the terminating zero).
pub const SYMLINK_MAX: usize = 4095;
/// The most links an inode can have.
pub const LINK_MAX: u32 = 65_000;
/// The longest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_SIZE_MAX: usize = 65_536;
/// The longest list of names of extended attributes, in bytes (`XATTR_LIST_MAX`).
pub const XATTR_LIST_MAX: usize = 65_536;
/// The largest size of a file, in bytes.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;

/// Seconds and nanoseconds since 1970-01-01 UTC; `nsec` is below 10^9 also before 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub sec: i64,
    /// The rest, in nanoseconds.
    pub nsec: u32,
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// The attributes of an inode, as stat(2) shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Which inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// The low 12 bits of the mode: permissions, set-user-id, set-group-id, sticky.
    pub perm: u16,
    /// Links to it; 0 when it is unlinked but still referenced.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number, as in `st_rdev` (the kernel's 32-bit encoding), of a device inode.
    pub rdev: u32,
    /// Bytes. Of a symlink: length of the target. Of a directory: a number that grows with its entries.
    pub size: u64,
    /// Units of 512 bytes that its pages take; once it has no link, only those of pages that go with it and are in no
    /// other file (in the answer to a request that changes which those are: as it was before).
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of contents.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
}

/// Who asks: the effective ids of the calling process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// A run of pages in a file: page `at` of the file is `run.first`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first page of the file that it maps (byte offset divided by the page size).
    pub at: u64,
    /// The pages.
    pub run: PageRun,
}

impl Extent {
    /// One past the last page of the file that it maps.
    pub const fn end(self) -> u64 {
        self.at + self.run.count as u64
    }
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The master's present time.
    Now,
    /// This time.
    At(Time),
}

/// Which attributes to set; `None` leaves one as it is. The change time becomes the present unless set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// The low 12 bits of the mode.
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: pages wholly past it are freed. The mount zeroes what it exposes when it grows.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time (the kernel sets it when it writes back cached times).
    pub ctime: Option<Time>,
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewNode {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this target.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A unix socket.
    Socket,
    /// A character device with this number.
    Char(u32),
    /// A block device with this number.
    Block(u32),
}

/// How rename(2) treats the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// An existing target is replaced.
    Replace,
    /// An existing target is an error (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names exist and are exchanged (`RENAME_EXCHANGE`).
    Exchange,
}

/// How setxattr(2) treats an attribute of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Made or replaced.
    Any,
    /// Must not exist (`XATTR_CREATE`).
    Create,
    /// Must exist (`XATTR_REPLACE`).
    Replace,
}

/// A request to the master about the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaRequest {
    /// The inode with this name. `.` and `..` are understood. Answered by [`MetaReply::Attr`].
    Lookup {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
    /// Attributes. Answered by [`MetaReply::Attr`].
    GetAttr {
        /// Inode.
        ino: Ino,
    },
    /// Sets attributes. Answered by [`MetaReply::Attr`].
    SetAttr {
        /// Inode.
        ino: Ino,
        /// Who asks.
        caller: Caller,
        /// What to set.
        set: SetAttr,
    },
    /// Makes an inode and its first name. Answered by [`MetaReply::Attr`].
    Make {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
        /// Owner of the new inode (the group may come from a set-group-id directory).
        caller: Caller,
        /// What to make.
        node: NewNode,
        /// The low 12 bits of the mode, before `umask`.
        perm: u16,
        /// Bits to clear, unless the directory has a default ACL.
        umask: u16,
    },
    /// Adds a name to an inode. Answered by [`MetaReply::Attr`].
    Link {
        /// Inode.
        ino: Ino,
        /// Directory of the new name.
        parent: Ino,
        /// New name.
        name: Vec<u8>,
    },
    /// Removes a name of something that is not a directory. Answered by [`MetaReply::Attr`] of the
    /// inode afterwards; at `nlink` 0 it lives on until [`MetaRequest::Forget`].
    Unlink {
        /// Directory.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
    /// Removes an empty directory. Answered as [`MetaRequest::Unlink`].
    Rmdir {
        /// Directory that holds it.
        parent: Ino,
        /// Name.
        name: Vec<u8>,
    },
    /// Renames. Answered by [`MetaReply::Renamed`].
    Rename {
        /// Old directory.
        parent: Ino,
        /// Old name.
        name: Vec<u8>,
        /// New directory.
        new_parent: Ino,
        /// New name.
        new_name: Vec<u8>,
        /// What to do about a target.
        mode: RenameMode,
    },
    /// The target of a symbolic link. Answered by [`MetaReply::Bytes`].
    ReadLink {
        /// Inode.
        ino: Ino,
    },
    /// Entries of a directory, `.` and `..` first, in an order in which entries that stay keep their
    /// place. Answered by [`MetaReply::Entries`].
    ReadDir {
        /// Directory.
        ino: Ino,
        /// The cookie of the last entry seen; 0 at the start.
        after: u64,
        /// The most entries to return.
        limit: u32,
        /// Return attributes too.
        plus: bool,
    },
    /// Attributes and map of a file, from page `from` on: extents in order, at most `limit` of them.
    /// Answered by [`MetaReply::Map`].
    Map {
        /// Inode of a regular file.
        ino: Ino,
        /// First page of the file of interest.
        from: u64,
        /// The most extents to return.
        limit: u32,
    },
    /// Hands pages to a file and says what was written. All or nothing. Pages of the file that already
    /// map elsewhere are replaced, and the old ones freed. Answered by [`MetaReply::Attr`].
    Commit {
        /// Inode of a regular file.
        ino: Ino,
        /// New pages, in order and disjoint.
        extents: Vec<Extent>,
        /// The size becomes at least this.
        size: u64,
        /// Set modification and change time to the present.
        touch: bool,
        /// Clear set-user-id, and set-group-id where group execution is allowed.
        kill_suid: bool,
        /// After all that, set these attributes. Not the size.
        set: Option<SetAttr>,
    },
    /// Frees the pages `from..to` of a file, which become a hole. Answered by [`MetaReply::Attr`].
    Punch {
        /// Inode of a regular file.
        ino: Ino,
        /// First page of the file.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// Makes pages of a file pages of another too (or of the same, elsewhere), in the place of what is there, with its
    /// holes. Whoever writes to a page that is in several places puts a copy in its place first. Contents and times
    /// of the target change. Answered by [`MetaReply::Attr`] of the target.
    Clone {
        /// Inode of a regular file, and its first page.
        from: (Ino, u64),
        /// Inode of a regular file, and the page of it that the first becomes.
        to: (Ino, u64),
        /// How many pages, holes included.
        pages: u64,
        /// The size of the target becomes at least this.
        size: u64,
        /// The sizes in bytes that source and target must have; if one of them has another, the answer is
        /// [`MetaError::Busy`], and nothing is done.
        expect: Option<(u64, u64)>,
    },
    /// Fills an empty directory with a copy of another and of all that is in it: names, attributes, extended attributes, hard
    /// links among them, and contents, by [`Clone`](Self::Clone). All at one moment. Only root, and who owns all of it, may.
    /// Answered by [`MetaReply::Attr`] of the target.
    CloneTree {
        /// Inode of a directory.
        from: Ino,
        /// Inode of an empty directory that is not in `from`.
        to: Ino,
        /// Who asks.
        caller: Caller,
    },
    /// Value of an extended attribute. Answered by [`MetaReply::Bytes`].
    GetXattr {
        /// Inode.
        ino: Ino,
        /// Name, with its prefix (`user.` and so on).
        name: Vec<u8>,
    },
    /// Sets an extended attribute. Answered by [`MetaReply::Attr`].
    SetXattr {
        /// Inode.
        ino: Ino,
        /// Who asks.
        caller: Caller,
        /// Name, with its prefix.
        name: Vec<u8>,
        /// Value.
        value: Vec<u8>,
        /// About an existing one.
        mode: XattrMode,
    },
    /// Names of the extended attributes, each ended by a zero byte. Answered by [`MetaReply::Bytes`].
    ListXattr {
        /// Inode.
        ino: Ino,
    },
    /// Removes an extended attribute. Answered by [`MetaReply::Attr`].
    RemoveXattr {
        /// Inode.
        ino: Ino,
        /// Name, with its prefix.
        name: Vec<u8>,
    },
    /// Counts of inodes. Answered by [`MetaReply::Stat`].
    StatFs,
    /// These inodes were read: those that have not changed since get a new access time, the others keep their own. Answered by
    /// [`MetaReply::Done`].
    Accessed {
        /// Each with the access time, and the time of its last change as far as known.
        times: Vec<(Ino, Time, Time)>,
    },
    /// The mount no longer refers to these inodes: those with no link left are freed. Answered by
    /// [`MetaReply::Done`].
    Forget {
        /// Inodes.
        inos: Vec<Ino>,
    },
    /// Everything answered before survives loss of power once this is answered, by [`MetaReply::Done`].
    Sync,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its place in the directory, to go on after it; never 0.
    pub cookie: u64,
    /// Inode.
    pub ino: Ino,
    /// What it is.
    pub kind: Kind,
    /// Name.
    pub name: Vec<u8>,
    /// Attributes, if asked for.
    pub attr: Option<Attr>,
}

/// Counts of inodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeStat {
    /// Inodes there are.
    pub used: u64,
    /// Inodes there can be.
    pub max: u64,
}

/// An answer of the master about the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaReply {
    /// Attributes of the inode the request was about, after it.
    Attr(Attr),
    /// Entries; empty at the end.
    Entries(Vec<DirEntry>),
    /// Attributes and extents of a file.
    Map {
        /// Attributes.
        attr: Attr,
        /// Extents in order.
        extents: Vec<Extent>,
        /// Those of their pages that are in other places too: see [`MetaRequest::Clone`].
        shared: Vec<PageRun>,
        /// Where to go on, if there is more.
        next: Option<u64>,
    },
    /// A rename is done.
    Renamed {
        /// The inode that was replaced, after it lost that name.
        replaced: Option<Attr>,
    },
    /// A link's target, an attribute's value or a list of names.
    Bytes(Vec<u8>),
    /// Counts.
    Stat(InodeStat),
    /// Done.
    Done,
}

/// Why the master refused. The variants are those of the man pages of the system calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum MetaError {
    /// `ENOENT`
    #[error("no such file or directory")]
    NotFound,
    /// `ESTALE`: an inode number that does not exist (any more).
    #[error("no inode {0:?}")]
    Stale(Ino),
    /// `EEXIST`
    #[error("the name exists")]
    Exists,
    /// `ENOTDIR`
    #[error("not a directory")]
    NotDir,
    /// `EISDIR`
    #[error("is a directory")]
    IsDir,
    /// `ENOTEMPTY`
    #[error("the directory is not empty")]
    NotEmpty,
    /// `ENAMETOOLONG`
    #[error("the name is too long")]
    NameTooLong,
    /// `EINVAL`
    #[error("{0}")]
    Invalid(String),
    /// `EMLINK`
    #[error("too many links")]
    TooManyLinks,
    /// `EFBIG`
    #[error("the file would be too large")]
    TooBig,
    /// `ENOSPC`
    #[error("no space: {0}")]
    NoSpace(String),
    /// `EPERM`
    #[error("not permitted")]
    NotPermitted,
    /// `ENODATA`
    #[error("no such attribute")]
    NoAttribute,
    /// `E2BIG`
    #[error("the value is too large")]
    ValueTooBig,
    /// `EOPNOTSUPP`
    #[error("not supported")]
    NotSupported,
    /// `EBUSY`
    #[error("busy")]
    Busy,
    /// `EROFS`
    #[error("read-only")]
    ReadOnly,
    /// `EIO`: the store or the pool failed; what was answered before stands.
    #[error("{0}")]
    Io(String),
}
