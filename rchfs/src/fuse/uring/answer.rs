//! Has requests of a ring [decided](super::super::decide), and writes what comes of them into the payload
//! of their entry, in the layouts of `<linux/fuse.h>`.
//!
//! Data of a read goes from the pool straight into the payload, and data of a write straight from there
//! into the pool: one copy of ours.

use super::crew;
use super::wire::{Header, LockFields, Op};
use crate::fs::locks::LockWanted;
use crate::fuse::convert;
use crate::fuse::decide::{Answer, Decided, Decider, Known, NewName, Opened, Pass, Room, StatFs, Who, Xattr};
use fuser::{INodeNo, LockOwner, WriteFlags};
use pool::proto::meta::{Attr, DirEntry, Ino, Kind};
use std::sync::mpsc::channel;

/// Answers one request. `header` was read from `bytes`; the answer goes into `payload`: its length, or the
/// number of an error. `owner`: the one user who is let in, if it is not everyone.
pub fn answer(
    decider: &Decider,
    owner: Option<u32>,
    header: &Header,
    bytes: &[u8],
    payload: &mut [u8],
) -> Decided<usize> {
    let (who, ino) = (header.who, header.ino);
    let block = decider.block_bytes();
    let given = payload.get(..header.payload).ok_or(libc::EIO)?;
    let op = Op::parse(header.opcode, bytes, given).map_err(|_| libc::EIO)?;
    if owner.is_some_and(|owner| owner != who.uid) && !op.is_for_anyone() {
        return Err(libc::EACCES);
    }
    match op {
        Op::Lookup { name } => entry(payload, block, decider.lookup(ino, name)),
        Op::GetAttr { handle } => {
            decider.before_writing(who, handle)?;
            settled(decider, who, ino)?;
            attributes(payload, block, decider.getattr(who, ino, handle))
        }
        Op::SetAttr { set, with_handle } => {
            attributes(payload, block, decider.setattr(who, ino, set, with_handle))
        }
        Op::ReadLink => bytes_of(payload, &decider.readlink(ino)?),
        Op::Symlink { name, target } => entry(payload, block, decider.symlink(who, ino, name, target)),
        Op::MkNod { name, mode, umask, rdev } => {
            let new = NewName { parent: ino, name, mode, umask };
            entry(payload, block, decider.mknod(who, new, rdev))
        }
        Op::MkDir { name, mode, umask } => {
            entry(payload, block, decider.mkdir(who, NewName { parent: ino, name, mode, umask }))
        }
        Op::Unlink { name } => nothing(decider.unlink(ino, name)),
        Op::RmDir { name } => nothing(decider.rmdir(ino, name)),
        Op::Rename { name, new_parent, new_name, flags } => {
            nothing(decider.rename((ino, name), (new_parent, new_name), flags))
        }
        Op::Link { ino: old, name } => entry(payload, block, decider.link(old, ino, name)),
        Op::Open { flags } => {
            let open = decider.open(ino, flags)?;
            settled(decider, who, ino)?;
            opened(payload, Ok(open))
        }
        Op::Read { handle, at, size, by_program } => {
            let out = payload.get_mut(..size).ok_or(libc::EIO)?;
            let read = twice(decider, ino, |pass| decider.read(handle, at, out, by_program, pass))?;
            if decider.must_settle_end(ino, by_program, read, size) {
                after(|then| decider.settle_end(ino, then))?;
            }
            Ok(read)
        }
        Op::Write { handle, at, flags, data } => {
            let flags = WriteFlags::from_bits_retain(flags);
            let written = match decider.append(handle, data, flags)? {
                None => decider.write(handle, at, data, flags)?,
                Some(there) => {
                    if there != at {
                        // The kernel takes it to be elsewhere: what it has of the pages where it is is out of date.
                        written_back(decider, ino)?;
                    }
                    data.len() as u32
                }
            };
            words(payload, &[written, 0])
        }
        Op::StatFs => statfs(payload, &decider.statfs()?),
        Op::Release { handle, unlock } => {
            unlock.map_or(Ok(()), |owner| before_unlock(decider, ino, owner))?;
            nothing(decider.release(ino, handle, unlock))
        }
        Op::FSync { handle } => nothing(decider.fsync(handle)),
        Op::SetXattr { name, value, flags } => nothing(decider.setxattr(who, ino, name, value, flags)),
        Op::GetXattr { name, size } => xattr(payload, decider.getxattr(ino, name, size)?),
        Op::ListXattr { size } => xattr(payload, decider.listxattr(who, ino, size)?),
        Op::RemoveXattr { name } => nothing(decider.removexattr(ino, name)),
        Op::Flush { handle, owner } => {
            before_unlock(decider, ino, owner)?;
            nothing(decider.flush(handle, owner))
        }
        Op::GetLk(lock) => test_lock(decider, ino, lock, payload),
        Op::SetLk { lock, wait } => nothing(set_lock(decider, ino, lock, wait)),
        Op::OpenDir => opened(payload, decider.opendir(ino)),
        Op::ReadDir { after, size, plus } => {
            let out = payload.get_mut(..size).ok_or(libc::EIO)?;
            list(decider, ino, after, plus, out)
        }
        Op::ReleaseDir => Ok(0),
        Op::FSyncDir => nothing(decider.fsyncdir()),
        Op::Access => nothing(decider.access()),
        Op::Create { name, mode, umask, flags } => {
            let new = NewName { parent: ino, name, mode, umask };
            created(payload, block, decider.create(who, new, flags)?)
        }
        Op::FAllocate { handle, at, len, mode } => nothing(decider.fallocate(who, handle, at, len, mode)),
        Op::LSeek { handle, offset, whence } => {
            let at = twice(decider, ino, |pass| decider.lseek(handle, offset, whence, pass))?;
            bytes_of(payload, &at.to_ne_bytes())
        }
        Op::CopyFileRange { from, to, len } => {
            let copied = decider.copy(who, from, to, len)?;
            words(payload, &[copied, 0])
        }
        Op::Other => Err(libc::ENOSYS),
    }
}

/// Asks, and if the kernel has to write back first, waits for that and asks again.
fn twice<T>(decider: &Decider, ino: Ino, mut ask: impl FnMut(Pass) -> Decided<Answer<T>>) -> Decided<T> {
    if let Answer::Now(value) = ask(Pass::First)? {
        return Ok(value);
    }
    written_back(decider, ino)?;
    match ask(Pass::Second)? {
        Answer::Now(value) => Ok(value),
        Answer::AfterWriteBack => Err(libc::EIO),
    }
}

/// Waits until the kernel has written back, and dropped, what it holds of `ino`.
fn written_back(decider: &Decider, ino: Ino) -> Decided<()> {
    after(|then| decider.write_back(ino, then))
}

/// Waits until what this begins has happened.
fn after(begin: impl FnOnce(Box<dyn FnOnce() + Send>)) -> Decided<()> {
    // What it takes comes through the rings, too.
    crew::about_to_wait().map_err(|_| libc::ENOMEM)?;
    let (done, end) = channel();
    begin(Box::new(move || {
        // Who asked is waiting for it, below.
        let _ = done.send(());
    }));
    // No answer: the mount is on its way down.
    end.recv().map_err(|_| libc::EIO)
}

/// Waits until the kernel has the right idea of the file.
fn settled(decider: &Decider, who: Who, ino: Ino) -> Decided<()> {
    if !decider.must_settle(who, ino) {
        return Ok(());
    }
    after(|then| decider.settle(ino, then))
}

/// Waits until what this owner may have written under locks has been fetched.
fn before_unlock(decider: &Decider, ino: Ino, owner: u64) -> Decided<()> {
    let nothing = decider.stragglers(ino, owner).is_empty();
    if nothing { Ok(()) } else { after(|then| decider.before_unlock(ino, owner, then)) }
}

fn wanted(ino: Ino, lock: LockFields) -> LockWanted {
    convert::lock(INodeNo(ino.0), LockOwner(lock.owner), lock.range, lock.kind, lock.pid)
}

/// Answers with `struct fuse_lk_out`.
fn test_lock(decider: &Decider, ino: Ino, lock: LockFields, payload: &mut [u8]) -> Decided<usize> {
    let (range, kind, pid) = match decider.test_lock(&wanted(ino, lock))? {
        Some(found) => {
            let kind = if found.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
            ((*found.range.start(), *found.range.end()), kind, found.pid)
        }
        None => (lock.range, libc::F_UNLCK, 0),
    };
    let mut out = Out::new(payload);
    out.u64s(&[range.0, range.1])?;
    out.u32s(&[kind as u32, pid])?;
    Ok(out.len)
}

fn set_lock(decider: &Decider, ino: Ino, lock: LockFields, wait: bool) -> Decided<()> {
    if lock.kind == libc::F_UNLCK {
        before_unlock(decider, ino, lock.owner)?;
        return decider.unlock(ino, lock.owner, lock.range.0..=lock.range.1);
    }
    if wait {
        // It may take for ever, and what is waited for may come through the same queue.
        crew::about_to_wait().map_err(|_| libc::ENOLCK)?;
    }
    decider.lock(&wanted(ino, lock), wait)
}

/// Writes fields one after the other.
struct Out<'a> {
    to: &'a mut [u8],
    len: usize,
}

impl<'a> Out<'a> {
    fn new(to: &'a mut [u8]) -> Self {
        Self { to, len: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) -> Decided<()> {
        let end = self.len + bytes.len();
        self.to.get_mut(self.len..end).ok_or(libc::EIO)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    fn u64s(&mut self, words: &[u64]) -> Decided<()> {
        words.iter().try_for_each(|w| self.bytes(&w.to_ne_bytes()))
    }

    fn u32s(&mut self, words: &[u32]) -> Decided<()> {
        words.iter().try_for_each(|w| self.bytes(&w.to_ne_bytes()))
    }

    fn room(&self) -> usize {
        self.to.len() - self.len
    }

    /// `struct fuse_attr`
    fn attr(&mut self, a: &Attr, block: u32) -> Decided<()> {
        let secs = [a.atime.sec as u64, a.mtime.sec as u64, a.ctime.sec as u64];
        self.u64s(&[a.ino.0, a.size, a.blocks])?;
        self.u64s(&secs)?;
        let mode = kind_bits(a.kind) | u32::from(a.perm);
        self.u32s(&[a.atime.nsec, a.mtime.nsec, a.ctime.nsec, mode])?;
        self.u32s(&[a.nlink, a.uid, a.gid, a.rdev, block, 0])
    }

    /// `struct fuse_entry_out`
    fn entry(&mut self, known: &Known, block: u32) -> Decided<()> {
        let (name, attr) = (known.name_ttl, known.attr_ttl);
        let ino = known.attr.as_ref().map_or(0, |a| a.ino.0);
        self.u64s(&[ino, 0, name.as_secs(), attr.as_secs()])?;
        self.u32s(&[name.subsec_nanos(), attr.subsec_nanos()])?;
        match &known.attr {
            Some(attr) => self.attr(attr, block),
            None => self.bytes(&[0; ATTR_BYTES]),
        }
    }

    /// `struct fuse_open_out`
    fn open(&mut self, opened: &Opened) -> Decided<()> {
        self.u64s(&[opened.handle])?;
        self.u32s(&[opened.flags.bits(), 0])
    }

    /// `struct fuse_dirent`, with what pads it.
    fn dirent(&mut self, e: &DirEntry) -> Decided<()> {
        self.u64s(&[e.ino.0, e.cookie])?;
        self.u32s(&[e.name.len() as u32, kind_bits(e.kind) >> 12])?;
        self.bytes(&e.name)?;
        self.bytes(&[0; 8][..e.name.len().next_multiple_of(8) - e.name.len()])
    }
}

/// Bytes of `struct fuse_attr`, `fuse_entry_out` and `fuse_dirent` without its name.
const ATTR_BYTES: usize = 88;
const ENTRY_BYTES: usize = 40 + ATTR_BYTES;
const DIRENT_BYTES: usize = 24;

fn kind_bits(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Dir => libc::S_IFDIR,
        Kind::Symlink => libc::S_IFLNK,
        Kind::Fifo => libc::S_IFIFO,
        Kind::Socket => libc::S_IFSOCK,
        Kind::Char => libc::S_IFCHR,
        Kind::Block => libc::S_IFBLK,
    }
}

fn nothing(result: Decided<()>) -> Decided<usize> {
    result.map(|()| 0)
}

fn bytes_of(payload: &mut [u8], bytes: &[u8]) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.bytes(bytes)?;
    Ok(out.len)
}

fn words(payload: &mut [u8], words: &[u32]) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.u32s(words)?;
    Ok(out.len)
}

fn entry(payload: &mut [u8], block: u32, result: Decided<Known>) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.entry(&result?, block)?;
    Ok(out.len)
}

fn attributes(payload: &mut [u8], block: u32, result: Decided<Known>) -> Decided<usize> {
    let known = result?;
    let mut out = Out::new(payload);
    out.u64s(&[known.attr_ttl.as_secs()])?;
    out.u32s(&[known.attr_ttl.subsec_nanos(), 0])?;
    out.attr(known.attr.as_ref().ok_or(libc::EIO)?, block)?;
    Ok(out.len)
}

fn opened(payload: &mut [u8], result: Decided<Opened>) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.open(&result?)?;
    Ok(out.len)
}

fn created(payload: &mut [u8], block: u32, (known, opened): (Known, Opened)) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.entry(&known, block)?;
    out.open(&opened)?;
    Ok(out.len)
}

fn xattr(payload: &mut [u8], xattr: Xattr) -> Decided<usize> {
    match xattr {
        Xattr::Size(size) => words(payload, &[size, 0]),
        Xattr::Value(value) => bytes_of(payload, &value),
    }
}

fn statfs(payload: &mut [u8], s: &StatFs) -> Decided<usize> {
    let mut out = Out::new(payload);
    out.u64s(&[s.blocks, s.bfree, s.bavail, s.files, s.ffree])?;
    out.u32s(&[s.bsize, s.namelen, s.bsize, 0])?;
    out.bytes(&[0; 24])?;
    Ok(out.len)
}

fn list(decider: &Decider, ino: Ino, after: u64, plus: bool, to: &mut [u8]) -> Decided<usize> {
    let block = decider.block_bytes();
    let mut out = Out::new(to);
    let mut failed = Ok(());
    decider.readdir(ino, after, plus, |e, known| {
        let dirent = DIRENT_BYTES + e.name.len().next_multiple_of(8);
        if out.room() < dirent + if plus { ENTRY_BYTES } else { 0 } {
            return Room::Full;
        }
        failed = if plus { out.entry(known, block) } else { Ok(()) }.and_then(|()| out.dirent(e));
        if failed.is_ok() { Room::Added } else { Room::Full }
    })?;
    failed.map(|()| out.len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fuser::FopenFlags;
    use pool::proto::meta::Time;
    use std::time::Duration;

    fn attr() -> Attr {
        let time = |sec| Time { sec, nsec: 5 };
        Attr {
            ino: Ino(7),
            kind: Kind::File,
            perm: 0o644,
            nlink: 2,
            uid: 3,
            gid: 4,
            rdev: 0,
            size: 1000,
            blocks: 8,
            atime: time(-1),
            mtime: time(2),
            ctime: time(3),
            btime: time(4),
        }
    }

    #[test]
    fn answers_have_the_sizes_of_the_kernels_structures() {
        let ttl = Duration::new(9, 1);
        let known = || Known { attr: Some(attr()), name_ttl: ttl, attr_ttl: ttl };
        let open = || Opened { handle: 6, flags: FopenFlags::FOPEN_KEEP_CACHE };
        let mut to = vec![0xFF; 4096];
        assert_eq!(entry(&mut to, 4096, Ok(known())), Ok(128));
        assert_eq!(to[..8], 7u64.to_ne_bytes());
        assert_eq!(to[40..48], 7u64.to_ne_bytes());
        assert_eq!(to[40 + 60..40 + 64], (libc::S_IFREG | 0o644).to_ne_bytes());
        assert_eq!(attributes(&mut to, 4096, Ok(known())), Ok(104));
        assert_eq!(to[16 + 24..16 + 32], (-1i64).to_ne_bytes());
        assert_eq!(opened(&mut to, Ok(open())), Ok(16));
        assert_eq!(created(&mut to, 4096, (known(), open())), Ok(144));
        let s = StatFs { blocks: 1, bfree: 2, bavail: 3, files: 4, ffree: 5, bsize: 4096, namelen: 255 };
        assert_eq!(statfs(&mut to, &s), Ok(80));
        assert_eq!(entry(&mut to, 4096, Err(libc::ENOENT)), Err(libc::ENOENT));
        assert_eq!(entry(&mut to[..100], 4096, Ok(known())), Err(libc::EIO));
    }

    #[test]
    fn a_name_that_does_not_exist_has_inode_zero() {
        let mut to = vec![0xFF; 200];
        let ttl = Duration::from_secs(3);
        let none = Known { attr: None, name_ttl: ttl, attr_ttl: ttl };
        assert_eq!(entry(&mut to, 4096, Ok(none)), Ok(128));
        assert!(to[..16].iter().all(|&b| b == 0));
        assert_eq!(to[16..24], 3u64.to_ne_bytes());
    }

    #[test]
    fn entries_of_a_directory_are_padded_to_eight_bytes() {
        let mut to = vec![0xFF; 200];
        let mut out = Out::new(&mut to);
        let e = DirEntry { name: b"four5".to_vec(), ino: Ino(9), kind: Kind::Dir, cookie: 33, attr: None };
        out.dirent(&e).unwrap();
        assert_eq!(out.len, 32);
        assert_eq!(to[16..24], [5u32.to_ne_bytes(), 4u32.to_ne_bytes()].concat());
        assert_eq!(&to[24..32], b"four5\0\0\0");
    }
}
