//! What each request comes to: its arguments in, the call of [`Fs`] that it means, and what to tell the
//! kernel, with what it may cache and for how long. The one place for that, whichever way a request came:
//! through `/dev/fuse` ([`super::FuseFs`]) or a ring ([`super::uring`]), which only decode and encode.
//!
//! Errors are the numbers of errno(3).

use super::convert;
use super::kernel::Notify;
use crate::fs::errno::errno;
use crate::fs::io::WriteFlags as FsWrite;
use crate::fs::locks::{InTheWay, LockWanted};
use crate::fs::names::Making;
use crate::fs::ranges::Seek;
use crate::fs::{Fs, FsError, Origin};
use fuser::{FopenFlags, WriteFlags};
use pool::proto::meta::{
    Attr, Caller, DirEntry, FILE_SIZE_MAX, Ino, MetaError, NAME_MAX, NewNode, SetAttr, SetTime, XattrMode,
};
use pool::workers::Workers;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// How long the kernel may believe what only it can change.
const FOREVER: Duration = Duration::from_secs(1 << 31);
/// Files that are settled at once.
const SETTLED_AT_ONCE: usize = 32;
/// Entries asked of the master at a time.
const DIR_BATCH: u32 = 128;

/// The most bytes of a copy: the answer has 32 bits for their number. A multiple of every page size, so that
/// what comes after it can be cloned, too.
const COPY_MAX: u64 = (1 << 32) - (2 << 20);

/// The number of an error, or what to answer.
pub type Decided<T> = Result<T, i32>;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Id of the thread.
    pub pid: u32,
}

impl Who {
    fn caller(self) -> Caller {
        Caller { uid: self.uid, gid: self.gid }
    }

    /// Whether set-id bits go when this one changes what is in a file. The kernel says so itself of a write;
    /// elsewhere only root keeps them.
    fn kills_suid(self) -> bool {
        self.uid != 0
    }
}

/// A name to make: in which directory, with which permissions and umask.
#[derive(Clone, Copy, Debug)]
pub struct NewName<'a> {
    /// Directory.
    pub parent: Ino,
    /// Name in it.
    pub name: &'a [u8],
    /// Permission bits, and for mknod(2) the type.
    pub mode: u32,
    /// Bits that are cleared.
    pub umask: u32,
}

impl<'a> NewName<'a> {
    fn by(self, who: Who) -> Making<'a> {
        Making {
            parent: self.parent,
            name: self.name,
            caller: who.caller(),
            perm: (self.mode & 0o7777) as u16,
            umask: (self.umask & 0o777) as u16,
        }
    }
}

/// Attributes, and how long they hold.
#[derive(Clone, Debug)]
pub struct Known {
    /// Of the inode; `None`: the name does not exist, which may be remembered too.
    pub attr: Option<Attr>,
    /// How long the kernel may believe that the name stands for it, if there was a name.
    pub name_ttl: Duration,
    /// How long the kernel may believe the attributes.
    pub attr_ttl: Duration,
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// Its handle.
    pub handle: u64,
    /// How the kernel treats it.
    pub flags: FopenFlags,
}

/// An answer, or what has to happen before there is one.
#[derive(Clone, Copy, Debug)]
pub enum Answer<T> {
    /// The answer.
    Now(T),
    /// The kernel must write back what it holds of the file; then ask again with [`Pass::Second`].
    AfterWriteBack,
}

/// Whether the kernel was asked to write back before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Not yet.
    First,
    /// Yes.
    Second,
}

/// What the kernel wants of an extended attribute.
#[derive(Clone, Debug)]
pub enum Xattr {
    /// Its size.
    Size(u32),
    /// Its value.
    Value(Vec<u8>),
}

/// statfs(2), in its own terms.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The fields of `struct statfs`.
pub struct StatFs {
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub bsize: u32,
    pub namelen: u32,
}

/// Decides about requests to one mount.
pub struct Decider {
    fs: Arc<Fs>,
    notify: Notify,
    /// Where files are settled. What is done here may wait for pages that reads keep.
    settling: Workers,
    /// Where reads wait until the end of a file is settled, so that they never wait for those.
    ends: Workers,
    /// Every open bypasses the kernel's cache, and nothing is cached.
    uncached: bool,
}

/// Attributes that are not to be believed later.
fn for_once(attr: Attr) -> Known {
    Known { attr: Some(attr), name_ttl: Duration::ZERO, attr_ttl: Duration::ZERO }
}

/// The number of an error. Those that come of damage or a lost peer are logged.
fn code(error: FsError) -> i32 {
    let code = errno(&error);
    if code == libc::EIO {
        log::error!("{error}");
    }
    code
}

impl Decider {
    /// Of requests to `fs`. `uncached`: the kernel keeps nothing.
    pub fn new(fs: Arc<Fs>, notify: Notify, uncached: bool) -> Self {
        let (settling, ends) =
            (Workers::new("settle", SETTLED_AT_ONCE), Workers::new("ends", SETTLED_AT_ONCE));
        Self { fs, notify, settling, ends, uncached }
    }

    /// Whether the kernel keeps nothing.
    pub fn is_uncached(&self) -> bool {
        self.uncached
    }

    /// Whether other mounts use the files too.
    pub fn is_shared(&self) -> bool {
        self.fs.is_shared()
    }

    /// Whether the kernel collects what is written to files that other mounts use too.
    pub fn has_writeback(&self) -> bool {
        self.fs.has_writeback()
    }

    /// Comes before GETATTR with this handle, and before that is settled.
    pub fn before_writing(&self, who: Who, handle: Option<u64>) -> Decided<()> {
        match handle.filter(|_| !self.notify.sizes.is_out(who.pid)) {
            Some(handle) => self.fs.before_writing(handle).map_err(code),
            None => Ok(()),
        }
    }

    /// Whether the kernel's idea of `ino` must be corrected before this one is answered.
    pub fn must_settle(&self, who: Who, ino: Ino) -> bool {
        self.fs.is_in_doubt(ino) && !self.notify.sizes.is_out(who.pid)
    }

    /// Corrects it, then calls `then`, on another thread.
    pub fn settle(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        let fs = self.fs.clone();
        self.settling.run(move || {
            fs.settle(ino);
            then();
        });
    }

    /// Whether the kernel must be told where the file ends before it gets the answer to a read into its cache, which found
    /// `read` of `size` bytes.
    pub fn must_settle_end(&self, ino: Ino, by_program: bool, read: usize, size: usize) -> bool {
        !by_program && read < size && self.fs.is_in_doubt(ino)
    }

    /// Tells it, then calls `then`, on another thread.
    pub fn settle_end(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        let fs = self.fs.clone();
        self.ends.run(move || {
            fs.settle_end(ino);
            then();
        });
    }

    /// The files that may have something in the kernel that was written under locks of this owner and that nobody knows of.
    pub fn stragglers(&self, ino: Ino, owner: u64) -> Vec<Ino> {
        if self.fs.may_have_locks(ino, owner) { self.fs.stragglers() } else { Vec::new() }
    }

    /// Calls `then`, which may give up locks of this owner; if the kernel may hold what was written under them without
    /// anybody knowing, it is written back first, and `then` called on another thread.
    pub fn before_unlock(&self, ino: Ino, owner: u64, then: impl FnOnce() + Send + 'static) {
        let files = self.stragglers(ino, owner);
        if files.is_empty() {
            return then();
        }
        let fs = self.fs.clone();
        self.settling.run(move || {
            fs.fetch(&files);
            then();
        });
    }

    /// Bytes in a block, as stat(2) says it.
    pub fn block_bytes(&self) -> u32 {
        self.fs.page_bytes()
    }

    /// Has the kernel write back what it holds of `ino`, then calls `then`, on another thread.
    pub fn write_back(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        self.notify.write_back(ino, then);
    }

    /// How long the kernel may believe attributes: for ever what only it can change, and what other mounts change too
    /// as long as this one holds it under a lease. When that is revoked the kernel is told.
    fn attr_ttl(&self, attr: &Attr) -> Duration {
        match self.uncached {
            true => Duration::ZERO,
            false if self.fs.is_shared() => self.fs.attr_holds(attr),
            false => FOREVER,
        }
    }

    /// Likewise, what a name stands for.
    fn name_ttl(&self, parent: Ino, name: &[u8], is: Option<Ino>) -> Duration {
        match self.uncached {
            true => Duration::ZERO,
            // A kernel that cannot be told is to ask each time.
            false if self.fs.is_shared() && !self.notify.can_revoke_names() => Duration::ZERO,
            false if self.fs.is_shared() => self.fs.name_holds(parent, name, is),
            false => FOREVER,
        }
    }

    fn attributes(&self, result: Result<Attr, FsError>) -> Decided<Known> {
        let attr = result.map_err(code)?;
        Ok(Known { attr: Some(attr), name_ttl: Duration::ZERO, attr_ttl: self.attr_ttl(&attr) })
    }

    /// Of what has been counted as looked up before: so a revocation from here on knows that the kernel may have it.
    fn named(&self, parent: Ino, name: &[u8], attr: Attr) -> Known {
        let name_ttl = self.name_ttl(parent, name, Some(attr.ino));
        Known { attr: Some(attr), name_ttl, attr_ttl: self.attr_ttl(&attr) }
    }

    /// LOOKUP
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Decided<Known> {
        match self.fs.lookup(parent, name) {
            Err(FsError::Meta(MetaError::NotFound)) => {
                let name_ttl = self.name_ttl(parent, name, None);
                if name_ttl.is_zero() {
                    return Err(libc::ENOENT);
                }
                Ok(Known { attr: None, name_ttl, attr_ttl: Duration::ZERO })
            }
            result => Ok(self.named(parent, name, result.map_err(code)?)),
        }
    }

    /// FORGET
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.fs.forget(ino, lookups);
    }

    /// GETATTR
    pub fn getattr(&self, who: Who, ino: Ino, handle: Option<u64>) -> Decided<Known> {
        if let Some(attr) = self.notify.sizes.of(who.pid, ino) {
            return Ok(for_once(attr));
        }
        let mut known = self.attributes(self.fs.getattr(ino, handle))?;
        known.attr.iter().for_each(|attr| self.notify.sizes.note(attr));
        if self.fs.is_volatile(ino) {
            known.attr_ttl = Duration::ZERO;
        }
        Ok(known)
    }

    /// SETATTR
    pub fn setattr(&self, who: Who, ino: Ino, set: SetAttr, with_handle: bool) -> Decided<Known> {
        if self.fs.has_writeback() {
            return self.setattr_kept(who, ino, set, with_handle).map(for_once);
        }
        self.attributes(match set.mtime {
            Some(SetTime::At(time)) if self.notify.is_correction(who.pid) => {
                self.fs.mtime_corrected(ino, time)
            }
            _ => self.fs.setattr(ino, who.caller(), set),
        })
    }

    /// As [`setattr`](Self::setattr), where the kernel keeps lengths and times itself. The answer is not to be believed later: it may
    /// overtake a revocation.
    fn setattr_kept(&self, who: Who, ino: Ino, set: SetAttr, with_handle: bool) -> Decided<Attr> {
        if let Some(done) = self.notify.sizes.taken_over(who.pid, ino, set.size.is_some()) {
            return done;
        }
        if let SetAttr { perm: None, uid: None, gid: None, size: None, atime: None, mtime, ctime } = set
            && let (Some(SetTime::At(mtime)), Some(ctime)) = (mtime, ctime)
            && let Some(kept) = self.fs.set_kept_times(ino, mtime, ctime, with_handle).map_err(code)?
        {
            return Ok(kept);
        }
        self.fs.setattr(ino, who.caller(), set).map_err(code)
    }

    /// READLINK
    pub fn readlink(&self, ino: Ino) -> Decided<Vec<u8>> {
        self.fs.readlink(ino).map_err(code)
    }

    /// MKNOD
    pub fn mknod(&self, who: Who, new: NewName<'_>, rdev: u32) -> Decided<Known> {
        self.make(who, new, convert::new_node(new.mode, rdev).ok_or(libc::EINVAL)?)
    }

    /// MKDIR
    pub fn mkdir(&self, who: Who, new: NewName<'_>) -> Decided<Known> {
        self.make(who, new, NewNode::Dir)
    }

    fn make(&self, who: Who, new: NewName<'_>, node: NewNode) -> Decided<Known> {
        let attr = self.fs.make(new.by(who), node).map_err(code)?;
        Ok(self.named(new.parent, new.name, attr))
    }

    /// SYMLINK
    pub fn symlink(&self, who: Who, parent: Ino, name: &[u8], target: &[u8]) -> Decided<Known> {
        let new = NewName { parent, name, mode: 0o777, umask: 0 };
        self.make(who, new, NewNode::Symlink(target.to_vec()))
    }

    /// LINK
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Decided<Known> {
        let attr = self.fs.link(ino, parent, name).map_err(code)?;
        let mut known = self.named(parent, name, attr);
        if self.fs.has_writeback() {
            // The kernel takes it over whatever it was told since it asked.
            known.attr_ttl = Duration::ZERO;
        }
        Ok(known)
    }

    /// UNLINK
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Decided<()> {
        self.fs.unlink(parent, name).map_err(code)
    }

    /// RMDIR
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Decided<()> {
        self.fs.rmdir(parent, name).map_err(code)
    }

    /// RENAME and RENAME2, with the flags of renameat2(2).
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), flags: u32) -> Decided<()> {
        let mode = convert::rename_mode(flags).ok_or(libc::EINVAL)?;
        self.fs.rename(from, to, mode).map_err(code)
    }

    /// OPEN, with the flags of open(2).
    pub fn open(&self, ino: Ino, flags: i32) -> Decided<Opened> {
        let access = convert::access(flags, self.uncached);
        let handle = self.fs.open(ino, access).map_err(code)?;
        self.fs.settle_doubt(ino);
        Ok(Opened { handle, flags: self.open_flags(flags) })
    }

    /// CREATE, likewise.
    pub fn create(&self, who: Who, new: NewName<'_>, flags: i32) -> Decided<(Known, Opened)> {
        let access = convert::access(flags, self.uncached);
        let (attr, handle) = self.fs.create(new.by(who), access).map_err(|error| match code(error) {
            // Another mount was quicker. The kernel then looks the name up anew, and opens what it finds.
            libc::EEXIST if flags & libc::O_EXCL == 0 => libc::ESTALE,
            code => code,
        })?;
        let mut known = self.named(new.parent, new.name, attr);
        if self.fs.is_shared() {
            // It is open with this answer. If another mount changed it before the kernel has the answer, nobody could
            // tell the kernel, and no OPEN would come to make up for that.
            known.attr_ttl = Duration::ZERO;
        }
        Ok((known, Opened { handle, flags: self.open_flags(flags) }))
    }

    fn open_flags(&self, flags: i32) -> FopenFlags {
        // Where the end of a shared file is, the kernel does not know for sure.
        let appends = self.fs.is_shared() && flags & libc::O_APPEND != 0;
        if self.uncached || appends || flags & libc::O_DIRECT != 0 {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        }
    }

    /// READ into `out`: how many bytes. The kernel names an owner when a program reads past the cache
    /// (`by_program`), and none when it fills the cache itself (also of a file opened with O_DIRECT that is
    /// mapped). Then it holds pages that a write-back would wait for.
    pub fn read(
        &self,
        handle: u64,
        at: u64,
        out: &mut [u8],
        by_program: bool,
        pass: Pass,
    ) -> Decided<Answer<usize>> {
        let read = self.fs.read(handle, at, out).map_err(code)?;
        let all = read == out.len() || !by_program || pass == Pass::Second || !self.fs.may_go_on(handle);
        Ok(if all { Answer::Now(read) } else { Answer::AfterWriteBack })
    }

    /// WRITE of all of `data`: how many bytes.
    pub fn write(&self, handle: u64, at: u64, data: &[u8], flags: WriteFlags) -> Decided<u32> {
        let cached = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let how = FsWrite {
            origin: if cached { Origin::Cache } else { Origin::Program },
            kill_suid: flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        self.fs.write(handle, at, data, how).map_err(code)?;
        Ok(data.len() as u32)
    }

    /// WRITE to the end of a file, wherever that is, if the handle is to append to a file that other mounts use too:
    /// where the data is then.
    pub fn append(&self, handle: u64, data: &[u8], flags: WriteFlags) -> Decided<Option<u64>> {
        let cached = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let how = FsWrite {
            origin: if cached { Origin::Cache } else { Origin::Program },
            kill_suid: flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        self.fs.append(handle, data, how).map_err(code)
    }

    /// FLUSH, by this owner of locks. Nothing is left to do when a file is closed that only this mount uses, so the
    /// kernel need not ask again.
    pub fn flush(&self, handle: u64, owner: u64) -> Decided<()> {
        if self.fs.is_shared() { self.fs.closing(handle, owner).map_err(code) } else { Err(libc::ENOSYS) }
    }

    /// RELEASE, with the owner of the lock of flock(2) that goes with it, if there may be one.
    pub fn release(&self, ino: Ino, handle: u64, owner: Option<u64>) -> Decided<()> {
        let unlocked = owner.map_or(Ok(()), |owner| self.fs.closed_by(ino, owner));
        unlocked.and(self.fs.release(handle)).map_err(code)
    }

    /// GETLK: what is in the way.
    pub fn test_lock(&self, wanted: &LockWanted) -> Decided<Option<InTheWay>> {
        self.fs.test_lock(wanted).map_err(code)
    }

    /// SETLK, and with `wait` SETLKW, which may take for ever.
    pub fn lock(&self, wanted: &LockWanted, wait: bool) -> Decided<()> {
        self.fs.lock(wanted, wait).map_err(code)
    }

    /// SETLK that gives up.
    pub fn unlock(&self, ino: Ino, owner: u64, range: RangeInclusive<u64>) -> Decided<()> {
        self.fs.unlock(ino, owner, range).map_err(code)
    }

    /// The mount is over: whoever waits for a lock gives up, soon.
    pub fn end(&self) {
        self.fs.end_waits();
    }

    /// FSYNC
    pub fn fsync(&self, handle: u64) -> Decided<()> {
        if !self.fs.is_durable() {
            // The kernel has written back its cache; memory that ends with the process has no more to give.
            return Err(libc::ENOSYS);
        }
        self.fs.fsync(handle).map_err(code)
    }

    /// FSYNCDIR
    pub fn fsyncdir(&self) -> Decided<()> {
        if !self.fs.is_durable() {
            return Err(libc::ENOSYS);
        }
        self.fs.fsync_names().map_err(code)
    }

    /// OPENDIR. Directories need no handle; without one the kernel caches their entries by itself.
    pub fn opendir(&self, ino: Ino) -> Decided<Opened> {
        if self.uncached || self.fs.is_shared() {
            self.fs.settle_doubt(ino);
            Ok(Opened { handle: 0, flags: FopenFlags::empty() })
        } else {
            Err(libc::ENOSYS)
        }
    }

    /// READDIR, and with `plus` READDIRPLUS: calls `add` for each entry after `after` until it says that
    /// there is no room. With `plus` every entry has attributes.
    pub fn readdir(
        &self,
        ino: Ino,
        after: u64,
        plus: bool,
        mut add: impl FnMut(&DirEntry, &Known) -> Room,
    ) -> Decided<()> {
        let mut after = after;
        loop {
            let entries = self.fs.readdir(ino, after, DIR_BATCH, plus).map_err(code)?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.cookie;
            for e in entries.iter().filter(|e| !plus || e.attr.is_some()) {
                // The kernel counts every entry but these two as a lookup.
                let attr = e.attr.filter(|_| plus && e.name != b"." && e.name != b"..");
                let known = match attr {
                    Some(attr) => {
                        self.fs.looked_up(e.ino);
                        self.named(ino, &e.name, attr)
                    }
                    None => Known { attr: e.attr, name_ttl: Duration::ZERO, attr_ttl: Duration::ZERO },
                };
                if add(e, &known) == Room::Full {
                    if attr.is_some() {
                        self.fs.forget(e.ino, 1);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// STATFS
    pub fn statfs(&self) -> Decided<StatFs> {
        let s = self.fs.space().map_err(code)?;
        Ok(StatFs {
            blocks: s.total,
            bfree: s.free,
            bavail: s.available,
            files: s.inodes.max,
            ffree: s.inodes.max.saturating_sub(s.inodes.used),
            bsize: s.page,
            namelen: NAME_MAX as u32,
        })
    }

    /// SETXATTR, with the flags of setxattr(2).
    pub fn setxattr(&self, who: Who, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Decided<()> {
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(libc::EINVAL),
        };
        self.fs.setxattr(ino, who.caller(), name, value, mode).map_err(code)
    }

    /// GETXATTR, of which the caller takes `size` bytes.
    pub fn getxattr(&self, ino: Ino, name: &[u8], size: u32) -> Decided<Xattr> {
        xattr(self.fs.getxattr(ino, name), size)
    }

    /// LISTXATTR, likewise.
    pub fn listxattr(&self, who: Who, ino: Ino, size: u32) -> Decided<Xattr> {
        xattr(self.fs.listxattr(ino, who.caller()), size)
    }

    /// REMOVEXATTR
    pub fn removexattr(&self, ino: Ino, name: &[u8]) -> Decided<()> {
        self.fs.removexattr(ino, name).map_err(code)
    }

    /// ACCESS: the kernel checks permissions itself (`default_permissions`).
    pub fn access(&self) -> Decided<()> {
        Err(libc::ENOSYS)
    }

    /// FALLOCATE, with the mode of fallocate(2).
    pub fn fallocate(&self, who: Who, handle: u64, at: u64, len: u64, mode: i32) -> Decided<()> {
        let what = convert::falloc(mode).ok_or(libc::EOPNOTSUPP)?;
        self.fs.fallocate(handle, at, len, what, who.kills_suid()).map_err(code)
    }

    /// LSEEK for data or a hole, with the arguments of lseek(2).
    pub fn lseek(&self, handle: u64, offset: i64, whence: i32, pass: Pass) -> Decided<Answer<u64>> {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(libc::EINVAL),
        };
        let offset = u64::try_from(offset).map_err(|_| libc::ENXIO)?;
        // Data that is only in the kernel's cache would look like a hole.
        if pass == Pass::First && self.fs.may_be_dirty(handle) {
            return Ok(Answer::AfterWriteBack);
        }
        self.fs.seek(handle, offset, what).map(Answer::Now).map_err(code)
    }

    /// COPY_FILE_RANGE between places, each a handle and an offset: how many bytes.
    pub fn copy(&self, who: Who, from: (u64, u64), to: (u64, u64), len: u64) -> Decided<u32> {
        if from.1.max(to.1).checked_add(len).is_none_or(|end| end > FILE_SIZE_MAX) {
            return Err(code(FsError::TooBig));
        }
        let copied = self.fs.copy(from, to, len.min(COPY_MAX), who.kills_suid()).map_err(code)?;
        u32::try_from(copied).map_err(|_| libc::EIO)
    }
}

/// Whether there is room for one more entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// This one was added.
    Added,
    /// This one was not.
    Full,
}

fn xattr(result: Result<Vec<u8>, FsError>, size: u32) -> Decided<Xattr> {
    match result.map_err(code)? {
        v if size == 0 => Ok(Xattr::Size(v.len() as u32)),
        v if v.len() > size as usize => Err(libc::ERANGE),
        v => Ok(Xattr::Value(v)),
    }
}
