//! FUSE: decodes a request, has it [decided](decide), encodes the reply. Nothing here has a meaning of its own.
//!
//! One mount owns the pool, so names, attributes and data may stay in the kernel as long as it likes:
//! whatever changes them passes through it. Buffered writes collect in its cache (writeback); O_DIRECT
//! goes past it, writes to one file side by side.

mod by_handle;
mod convert;
mod decide;
mod kernel;
mod session;
mod sizes;
mod tune;
mod uring;

pub use session::{MountConfig, Mounted, ServeError, serve};
pub use uring::UringError;

use decide::{Answer, Decided, Decider, Known, NewName, Pass, Room, Who, Xattr};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use pool::proto::meta::{Attr, Ino, SetAttr};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Inode numbers are never reused, so there is only one generation.
const GENERATION: Generation = Generation(0);

thread_local! {
    /// The data of a read on its way from the pool to the kernel. Grows to the largest read, so that it is
    /// filled with zeros only once.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The file system as fuser sees it: requests that come through `/dev/fuse`.
struct FuseFs {
    decider: Arc<Decider>,
    /// Where to note that the kernel agrees to rings, if there are any.
    rings: Option<Arc<AtomicBool>>,
}

/// Replies with an error and returns, or goes on with the value.
macro_rules! ok_or_reply {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(e) => return $reply.error(Errno::from_i32(e)),
        }
    };
}

fn who(req: &Request) -> Who {
    Who { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn new_name(parent: INodeNo, name: &OsStr, mode: u32, umask: u32) -> NewName<'_> {
    NewName { parent: Ino(parent.0), name: name.as_bytes(), mode, umask }
}

impl FuseFs {
    fn attr(&self, attr: Option<&Attr>) -> fuser::FileAttr {
        attr.map_or_else(convert::negative, |attr| convert::attr(attr, self.decider.block_bytes()))
    }

    fn entry(&self, reply: ReplyEntry, result: Decided<Known>) {
        let known = ok_or_reply!(reply, result);
        reply.entry(&one_ttl(&known), &self.attr(known.attr.as_ref()), GENERATION);
    }

    /// Answers, once the kernel has the right idea of the file.
    fn settled(&self, who: Who, ino: Ino, answer: impl FnOnce(&Self) + Send + 'static) {
        if !self.decider.must_settle(who, ino) {
            return answer(self);
        }
        let fs = Self { decider: self.decider.clone(), rings: None };
        self.decider.settle(ino, move || answer(&fs));
    }

    fn attributes(&self, reply: ReplyAttr, result: Decided<Known>) {
        let known = ok_or_reply!(reply, result);
        reply.attr(&known.attr_ttl, &self.attr(known.attr.as_ref()));
    }
}

/// fuser has one for the name and the attributes.
fn one_ttl(known: &Known) -> Duration {
    if known.attr.is_some() { known.name_ttl.min(known.attr_ttl) } else { known.name_ttl }
}

fn empty(reply: ReplyEmpty, result: Decided<()>) {
    ok_or_reply!(reply, result);
    reply.ok();
}

fn written(reply: ReplyWrite, result: Decided<u32>) {
    let count = ok_or_reply!(reply, result);
    reply.written(count);
}

fn xattr(reply: ReplyXattr, result: Decided<Xattr>) {
    match ok_or_reply!(reply, result) {
        Xattr::Size(size) => reply.size(size),
        Xattr::Value(value) => reply.data(&value),
    }
}

impl Filesystem for FuseFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Without FUSE_ATOMIC_O_TRUNC: with it the kernel takes a file for empty before it finds that a program
        // runs from it, which that program does not survive.
        let mut wanted = InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_DONT_MASK;
        if self.decider.is_shared() {
            // With FUSE_WRITEBACK_CACHE the kernel goes by its own idea of a file's size, of which it has to be told in a
            // roundabout way (`sizes`): only if that is asked for.
            if self.decider.has_writeback() {
                wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
            }
            // Attributes of names that nobody looks at would be leases for nothing.
            wanted |= InitFlags::FUSE_READDIRPLUS_AUTO
                | InitFlags::FUSE_CACHE_SYMLINKS
                | InitFlags::FUSE_POSIX_LOCKS
                | InitFlags::FUSE_FLOCK_LOCKS;
        } else {
            // Without FUSE_READDIRPLUS_AUTO: with it a program that reads a directory to its end and then looks at what is in
            // there, as ls(1) does, asks for each file. Here attributes cost next to nothing.
            wanted |= InitFlags::FUSE_NO_OPENDIR_SUPPORT;
            if !self.decider.is_uncached() {
                wanted |= InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_CACHE_SYMLINKS;
            }
        }
        if let Some(agreed) = &self.rings {
            wanted |= InitFlags::FUSE_OVER_IO_URING;
            let offered = config.capabilities().contains(InitFlags::FUSE_OVER_IO_URING);
            agreed.store(offered, Ordering::Relaxed);
        }
        // An older kernel goes without some.
        let missing = config.add_capabilities(wanted & config.capabilities()).err();
        log::debug!("kernel capabilities not to be had: {:?}, {missing:?}", wanted & !config.capabilities());
        session::negotiate(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.decider.lookup(Ino(parent.0), name.as_bytes()));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.decider.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let (who, ino, handle) = (who(req), Ino(ino.0), fh.map(|f| f.0));
        ok_or_reply!(reply, self.decider.before_writing(who, handle));
        self.settled(who, ino, move |fs| fs.attributes(reply, fs.decider.getattr(who, ino, handle)));
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
        fh: Option<FileHandle>,
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
        self.attributes(reply, self.decider.setattr(who(req), Ino(ino.0), set, fh.is_some()));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = ok_or_reply!(reply, self.decider.readlink(Ino(ino.0)));
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
        self.entry(reply, self.decider.mknod(who(req), new_name(parent, name, mode, umask), rdev));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.entry(reply, self.decider.mkdir(who(req), new_name(parent, name, mode, umask)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        self.entry(reply, self.decider.symlink(who(req), Ino(parent.0), name.as_bytes(), target));
    }

    fn link(&self, _req: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, self.decider.link(Ino(ino.0), Ino(parent.0), name.as_bytes()));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.decider.unlink(Ino(parent.0), name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.decider.rmdir(Ino(parent.0), name.as_bytes()));
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
        let from = (Ino(parent.0), name.as_bytes());
        let to = (Ino(new_parent.0), new_name.as_bytes());
        empty(reply, self.decider.rename(from, to, flags.bits()));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = ok_or_reply!(reply, self.decider.open(Ino(ino.0), flags.0));
        self.settled(who(req), Ino(ino.0), move |_| reply.opened(FileHandle(opened.handle), opened.flags));
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
        let created = self.decider.create(who(req), new_name(parent, name, mode, umask), flags);
        let (known, opened) = ok_or_reply!(reply, created);
        let attr = self.attr(known.attr.as_ref());
        reply.created(&one_ttl(&known), &attr, GENERATION, FileHandle(opened.handle), opened.flags);
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
        let by_program = lock_owner.is_some();
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let read = self.decider.read(fh.0, offset, &mut buffer[..size], by_program, Pass::First);
            match ok_or_reply!(reply, read) {
                Answer::Now(len) if self.decider.must_settle_end(Ino(ino.0), by_program, len, size) => {
                    let found = buffer[..len].to_vec();
                    self.decider.settle_end(Ino(ino.0), move || reply.data(&found));
                }
                Answer::Now(len) => reply.data(&buffer[..len]),
                Answer::AfterWriteBack => {
                    let decider = self.decider.clone();
                    self.decider.write_back(Ino(ino.0), move || {
                        let mut buffer = vec![0; size];
                        let read = decider.read(fh.0, offset, &mut buffer, by_program, Pass::Second);
                        match ok_or_reply!(reply, read) {
                            Answer::Now(len) => reply.data(&buffer[..len]),
                            Answer::AfterWriteBack => reply.error(Errno::EIO),
                        }
                    });
                }
            }
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
        match ok_or_reply!(reply, self.decider.append(fh.0, data, write_flags)) {
            None => written(reply, self.decider.write(fh.0, offset, data, write_flags)),
            Some(at) if at == offset => reply.written(data.len() as u32),
            Some(_) => {
                // The kernel takes it to be elsewhere: what it has of the pages where it is is out of date.
                let len = data.len() as u32;
                self.decider.write_back(Ino(ino.0), move || reply.written(len));
            }
        }
    }

    fn flush(&self, _req: &Request, ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let decider = self.decider.clone();
        let flush = move || empty(reply, decider.flush(fh.0, owner.0));
        self.decider.before_unlock(Ino(ino.0), owner.0, flush);
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
        let (decider, ino, owner) = (self.decider.clone(), Ino(ino.0), lock_owner.map(|owner| owner.0));
        let release = move || empty(reply, decider.release(ino, fh.0, owner));
        match owner {
            Some(owner) => self.decider.before_unlock(ino, owner, release),
            None => release(),
        }
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
        match ok_or_reply!(reply, self.decider.test_lock(&wanted)) {
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
            let (decider, ino) = (self.decider.clone(), Ino(ino.0));
            let unlock = move || empty(reply, decider.unlock(ino, owner.0, start..=end));
            return self.decider.before_unlock(ino, owner.0, unlock);
        }
        let wanted = convert::lock(ino, owner, (start, end), kind, pid);
        if !sleep {
            return empty(reply, self.decider.lock(&wanted, false));
        }
        // It may take for ever, so it must not keep a thread that answers requests.
        let decider = self.decider.clone();
        let wait = move || empty(reply, decider.lock(&wanted, true));
        if let Err(why) = std::thread::Builder::new().name("lock".into()).spawn(wait) {
            log::error!("cannot start a thread to wait for a lock: {why}");
        }
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(reply, self.decider.fsync(fh.0));
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(reply, self.decider.fsyncdir());
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let opened = ok_or_reply!(reply, self.decider.opendir(Ino(ino.0)));
        reply.opened(FileHandle(opened.handle), opened.flags);
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.decider.readdir(Ino(ino.0), offset, false, |e, _| {
            let name = OsStr::from_bytes(&e.name);
            room(reply.add(INodeNo(e.ino.0), e.cookie, convert::file_type(e.kind), name))
        });
        ok_or_reply!(reply, listed);
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.decider.readdir(Ino(ino.0), offset, true, |e, known| {
            let (name, attr) = (OsStr::from_bytes(&e.name), self.attr(known.attr.as_ref()));
            room(reply.add(INodeNo(e.ino.0), e.cookie, name, &one_ttl(known), &attr, GENERATION))
        });
        ok_or_reply!(reply, listed);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let s = ok_or_reply!(reply, self.decider.statfs());
        reply.statfs(s.blocks, s.bfree, s.bavail, s.files, s.ffree, s.bsize, s.namelen, s.bsize);
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
        empty(reply, self.decider.setxattr(who(req), Ino(ino.0), name.as_bytes(), value, flags));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattr(reply, self.decider.getxattr(Ino(ino.0), name.as_bytes(), size));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        xattr(reply, self.decider.listxattr(who(req), Ino(ino.0), size));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.decider.removexattr(Ino(ino.0), name.as_bytes()));
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        empty(reply, self.decider.access());
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
        empty(reply, self.decider.fallocate(who(req), fh.0, offset, length, mode));
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
        match ok_or_reply!(reply, self.decider.lseek(fh.0, offset, whence, Pass::First)) {
            Answer::Now(at) => reply.offset(at as i64),
            Answer::AfterWriteBack => {
                let decider = self.decider.clone();
                self.decider.write_back(Ino(ino.0), move || {
                    match ok_or_reply!(reply, decider.lseek(fh.0, offset, whence, Pass::Second)) {
                        Answer::Now(at) => reply.offset(at as i64),
                        Answer::AfterWriteBack => reply.error(Errno::EIO),
                    }
                });
            }
        }
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
        written(reply, self.decider.copy(who(req), (fh_in.0, offset_in), (fh_out.0, offset_out), len));
    }
}

/// fuser says whether the entry did not fit.
fn room(full: bool) -> Room {
    if full { Room::Full } else { Room::Added }
}
