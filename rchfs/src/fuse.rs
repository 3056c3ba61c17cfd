//! FUSE: decodes a request, calls [`Fs`], encodes the reply. Nothing here has a meaning of its own but
//! what to let the kernel cache, and for how long.
//!
//! One mount owns the pool, so names, attributes and data may stay in the kernel as long as it likes:
//! whatever changes them passes through it. Buffered writes collect in its cache (writeback); O_DIRECT
//! goes past it, writes to one file side by side.

mod by_handle;
mod convert;
mod kernel;
mod session;
mod tune;

pub use session::{MountConfig, Mounted, serve};

use crate::fs::errno::errno;
use crate::fs::io::WriteFlags as FsWrite;
use crate::fs::names::Making;
use crate::fs::ranges::Seek;
use crate::fs::{Fs, FsError, Origin};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use kernel::Notify;
use pool::proto::meta::{
    Attr, FILE_SIZE_MAX, Ino, MetaError, NAME_MAX, NewNode, SetAttr, SetTime, XattrMode,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long the kernel may believe what only it can change.
const FOREVER: Duration = Duration::from_secs(1 << 31);
/// Entries asked of the master at a time.
const DIR_BATCH: u32 = 128;
/// Inode numbers are never reused, so there is only one generation.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// The data of a read on its way from the pool to the kernel.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system as fuser sees it.
struct FuseFs {
    fs: Arc<Fs>,
    notify: Notify,
    /// Every open bypasses the kernel's cache, and nothing is cached.
    uncached: bool,
}

fn code(error: &FsError) -> Errno {
    let code = errno(error);
    if code == libc::EIO {
        log::error!("{error}");
    }
    Errno::from_i32(code)
}

/// Replies with an error and returns, or goes on with the value.
macro_rules! ok_or_reply {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(e) => return $reply.error(code(&e)),
        }
    };
}

impl FuseFs {
    fn ttl(&self) -> Duration {
        // What other mounts change too is looked up in what this one knows.
        if self.uncached || self.fs.is_shared() { Duration::ZERO } else { FOREVER }
    }

    fn attr(&self, attr: &Attr) -> fuser::FileAttr {
        convert::attr(attr, self.fs.page_bytes())
    }

    fn entry(&self, reply: ReplyEntry, result: Result<Attr, FsError>) {
        match result {
            Ok(attr) => reply.entry(&self.ttl(), &self.attr(&attr), GENERATION),
            Err(e) => reply.error(code(&e)),
        }
    }

    fn empty(reply: ReplyEmpty, result: Result<(), FsError>) {
        match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(code(&e)),
        }
    }

    fn open_flags(&self, flags: OpenFlags) -> FopenFlags {
        // Where the end of a shared file is, the kernel does not know for sure.
        let appends = self.fs.is_shared() && flags.0 & libc::O_APPEND != 0;
        if self.uncached || appends || flags.0 & libc::O_DIRECT != 0 {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        } else {
            FopenFlags::FOPEN_KEEP_CACHE
        }
    }

    fn seek(fs: &Fs, fh: u64, offset: u64, what: Seek, reply: ReplyLseek) {
        match fs.seek(fh, offset, what) {
            Ok(at) => reply.offset(at as i64),
            Err(e) => reply.error(code(&e)),
        }
    }
}

fn xattr_reply(reply: ReplyXattr, size: u32, result: Result<Vec<u8>, FsError>) {
    match result {
        Ok(v) if size == 0 => reply.size(v.len() as u32),
        Ok(v) if v.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(v) => reply.data(&v),
        Err(e) => reply.error(code(&e)),
    }
}

/// Whether set-id bits go when the caller changes what is in a file. The kernel says so itself of a write;
/// elsewhere only root keeps them.
fn kills_suid(req: &Request) -> bool {
    req.uid() != 0
}

fn making<'a>(req: &Request, parent: INodeNo, name: &'a OsStr, mode: u32, umask: u32) -> Making<'a> {
    Making {
        parent: Ino(parent.0),
        name: name.as_bytes(),
        caller: convert::caller(req),
        perm: (mode & 0o7777) as u16,
        umask: (umask & 0o777) as u16,
    }
}

impl Filesystem for FuseFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK;
        if self.fs.is_shared() {
            // With FUSE_WRITEBACK_CACHE the kernel would go by its own idea of a file's size.
            wanted |=
                InitFlags::FUSE_CACHE_SYMLINKS | InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
        } else {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS
                | InitFlags::FUSE_READDIRPLUS_AUTO
                | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
            if !self.uncached {
                wanted |= InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_CACHE_SYMLINKS;
            }
        }
        // An older kernel goes without some.
        let missing = config.add_capabilities(wanted & config.capabilities()).err();
        log::debug!("kernel capabilities not to be had: {:?}, {missing:?}", wanted & !config.capabilities());
        session::negotiate(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.fs.lookup(Ino(parent.0), name.as_bytes()) {
            Err(FsError::Meta(MetaError::NotFound)) if self.ttl() != Duration::ZERO => {
                reply.entry(&FOREVER, &convert::negative(), GENERATION)
            }
            result => self.entry(reply, result),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = Ino(ino.0);
        let attr = ok_or_reply!(reply, self.fs.getattr(ino, fh.map(|f| f.0)));
        let ttl = if self.fs.is_volatile(ino) { Duration::ZERO } else { self.ttl() };
        reply.attr(&ttl, &self.attr(&attr));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = SetAttr {
            perm: mode.map(|m| (m & 0o7777) as u16),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            ctime: ctime.map(convert::time),
        };
        let result = match set.mtime {
            Some(SetTime::At(time)) if self.notify.is_correction(req) => {
                self.fs.mtime_corrected(Ino(ino.0), time)
            }
            _ => self.fs.setattr(Ino(ino.0), convert::caller(req), set),
        };
        let attr = ok_or_reply!(reply, result);
        reply.attr(&self.ttl(), &self.attr(&attr));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = ok_or_reply!(reply, self.fs.readlink(Ino(ino.0)));
        reply.data(&target);
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(node) = convert::new_node(mode, rdev) else { return reply.error(Errno::EINVAL) };
        self.entry(reply, self.fs.make(making(req, parent, name, mode, umask), node));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.entry(reply, self.fs.make(making(req, parent, name, mode, umask), NewNode::Dir));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let node = NewNode::Symlink(target.as_os_str().as_bytes().to_vec());
        self.entry(reply, self.fs.make(making(req, parent, name, 0o777, 0), node));
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.fs.link(Ino(ino.0), Ino(parent.0), name.as_bytes()));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(reply, self.fs.unlink(Ino(parent.0), name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(reply, self.fs.rmdir(Ino(parent.0), name.as_bytes()));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::rename_mode(flags) else { return reply.error(Errno::EINVAL) };
        let from = (Ino(parent.0), name.as_bytes());
        Self::empty(reply, self.fs.rename(from, (Ino(new_parent.0), new_name.as_bytes()), mode));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let access = convert::access(flags, self.uncached);
        let truncate = flags.0 & libc::O_TRUNC != 0 && access.write;
        let fh = ok_or_reply!(reply, self.fs.open(Ino(ino.0), convert::caller(req), access, truncate));
        reply.opened(FileHandle(fh), self.open_flags(flags));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OpenFlags(flags);
        let access = convert::access(flags, self.uncached);
        let (attr, fh) = ok_or_reply!(reply, self.fs.create(making(req, parent, name, mode, umask), access));
        reply.created(&self.ttl(), &self.attr(&attr), GENERATION, FileHandle(fh), self.open_flags(flags));
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size as usize;
        // The kernel names an owner when a program reads past the cache, and none when it fills the cache
        // itself (also of a file opened with O_DIRECT that is mapped). Then it holds pages that a
        // write-back would wait for.
        let by_program = lock_owner.is_some();
        BUFFER.with_borrow_mut(|buffer| {
            ok_or_reply!(reply, self.fs.read(fh.0, offset, size, buffer));
            if buffer.len() == size || !by_program || !self.fs.may_go_on(fh.0) {
                return reply.data(buffer);
            }
            let fs = self.fs.clone();
            self.notify.write_back(Ino(ino.0), move || {
                let mut buffer = Vec::new();
                ok_or_reply!(reply, fs.read(fh.0, offset, size, &mut buffer));
                reply.data(&buffer);
            });
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let how = FsWrite {
            origin: if cached { Origin::Cache } else { Origin::Program },
            kill_suid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
        };
        match ok_or_reply!(reply, self.fs.append(fh.0, data, how)) {
            None => ok_or_reply!(reply, self.fs.write(fh.0, offset, data, how)),
            Some(at) if at == offset => {}
            Some(_) => {
                // The kernel takes it to be elsewhere: what it has of the pages where it is is out of date.
                let len = data.len() as u32;
                return self.notify.write_back(Ino(ino.0), move || reply.written(len));
            }
        }
        reply.written(data.len() as u32);
    }

    /// Nothing is left to do when a file is closed, so the kernel need not ask again; but that locks are given up if
    /// other mounts see them.
    fn flush(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        if !self.fs.is_shared() {
            return reply.error(Errno::ENOSYS);
        }
        Self::empty(reply, self.fs.closing(fh.0, owner.0));
    }

    /// Nothing that ioctl(2) asks for is known.
    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let unlocked = lock_owner.map_or(Ok(()), |owner| self.fs.closed_by(Ino(ino.0), owner.0));
        Self::empty(reply, unlocked.and(self.fs.release(fh.0)));
    }

    fn getlk(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let wanted = convert::lock(ino, owner, (start, end), kind, pid);
        match ok_or_reply!(reply, self.fs.test_lock(&wanted)) {
            Some(found) => {
                let kind = if found.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
                reply.locked(*found.range.start(), *found.range.end(), kind, found.pid);
            }
            None => reply.locked(start, end, libc::F_UNLCK, 0),
        }
    }

    fn setlk(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        if kind == libc::F_UNLCK {
            return Self::empty(reply, self.fs.unlock(Ino(ino.0), owner.0, start..=end));
        }
        let wanted = convert::lock(ino, owner, (start, end), kind, pid);
        if !sleep {
            return Self::empty(reply, self.fs.lock(&wanted, false));
        }
        // It may take for ever, so it must not keep a thread that answers requests.
        let fs = self.fs.clone();
        let wait = move || Self::empty(reply, fs.lock(&wanted, true));
        if let Err(why) = std::thread::Builder::new().name("lock".into()).spawn(wait) {
            log::error!("cannot start a thread to wait for a lock: {why}");
        }
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if !self.fs.is_durable() {
            // The kernel has written back its cache; memory that ends with the process has no more to give.
            return reply.error(Errno::ENOSYS);
        }
        Self::empty(reply, self.fs.fsync(fh.0));
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        if !self.fs.is_durable() {
            return reply.error(Errno::ENOSYS);
        }
        Self::empty(reply, self.fs.fsync_names());
    }

    /// Directories need no handle; without one the kernel caches their entries by itself.
    fn opendir(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if self.uncached || self.fs.is_shared() {
            reply.opened(FileHandle(0), FopenFlags::empty())
        } else {
            reply.error(Errno::ENOSYS)
        }
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut after = offset;
        loop {
            let entries = ok_or_reply!(reply, self.fs.readdir(Ino(ino.0), after, DIR_BATCH, false));
            let Some(last) = entries.last() else { return reply.ok() };
            after = last.cookie;
            for e in &entries {
                let name = OsStr::from_bytes(&e.name);
                if reply.add(INodeNo(e.ino.0), e.cookie, convert::file_type(e.kind), name) {
                    return reply.ok();
                }
            }
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut after = offset;
        loop {
            let entries = ok_or_reply!(reply, self.fs.readdir(Ino(ino.0), after, DIR_BATCH, true));
            let Some(last) = entries.last() else { return reply.ok() };
            after = last.cookie;
            for e in &entries {
                let Some(attr) = &e.attr else { continue };
                let (name, attr) = (OsStr::from_bytes(&e.name), self.attr(attr));
                if reply.add(INodeNo(e.ino.0), e.cookie, name, &self.ttl(), &attr, GENERATION) {
                    return reply.ok();
                }
                // The kernel counts every entry but these two as a lookup.
                if e.name != b"." && e.name != b".." {
                    self.fs.looked_up(e.ino);
                }
            }
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = ok_or_reply!(reply, self.fs.space());
        let free_inodes = s.inodes.max.saturating_sub(s.inodes.used);
        reply.statfs(
            s.total,
            s.free,
            s.available,
            s.inodes.max,
            free_inodes,
            s.page,
            NAME_MAX as u32,
            s.page,
        );
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            0 => XattrMode::Any,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let caller = convert::caller(req);
        Self::empty(reply, self.fs.setxattr(Ino(ino.0), caller, name.as_bytes(), value, mode));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr_reply(reply, size, self.fs.getxattr(Ino(ino.0), name.as_bytes()));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr_reply(reply, size, self.fs.listxattr(Ino(ino.0), convert::caller(req)));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        Self::empty(reply, self.fs.removexattr(Ino(ino.0), name.as_bytes()));
    }

    /// The kernel checks permissions itself (`default_permissions`).
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(what) = convert::falloc(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        Self::empty(reply, self.fs.fallocate(fh.0, offset, length, what, kills_suid(req)));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = match whence {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if !self.fs.may_be_dirty(fh.0) {
            return Self::seek(&self.fs, fh.0, offset, what, reply);
        }
        // Data that is only in the kernel's cache would look like a hole.
        let fs = self.fs.clone();
        self.notify.write_back(Ino(ino.0), move || Self::seek(&fs, fh.0, offset, what, reply));
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let end = offset_in.max(offset_out).checked_add(len).filter(|&e| e <= FILE_SIZE_MAX);
        let result = match end {
            Some(_) => self.fs.copy((fh_in.0, offset_in), (fh_out.0, offset_out), len, kills_suid(req)),
            None => Err(FsError::TooBig),
        };
        let copied = ok_or_reply!(reply, result);
        reply.written(copied as u32);
    }
}
