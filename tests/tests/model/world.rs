//! One of the two file systems: carries out operations and tells their results as text.

use crate::op::{Op, SLOTS};
use e2e::map::Map;
use e2e::pattern;
use e2e::rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags,
    chmodat, chownat, copy_file_range, fallocate, fstat, fsync, ftruncate, linkat, lremovexattr, lsetxattr,
    mkdirat, mknodat, open, renameat_with, rmdir, symlinkat, unlink, utimensat,
};
use e2e::rustix::io::{Errno, Result, pread, pwrite};
use e2e::rustix::process::{Gid, Uid};
use e2e::tree::{self, Tree};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A directory tree and the files open in it.
pub struct World {
    top: PathBuf,
    slots: [Option<OwnedFd>; SLOTS],
}

impl World {
    /// An empty directory `top`, which is made.
    pub fn new(top: PathBuf) -> Self {
        fs::create_dir(&top).expect("a directory can be made");
        Self { top, slots: Default::default() }
    }

    /// Carries out one operation. The same text for the same result, whatever the file system.
    pub fn apply(&mut self, op: &Op) -> String {
        match self.try_apply(op) {
            Ok(result) => result,
            Err(errno) => format!("{errno:?}"),
        }
    }

    /// All that can be seen: names, attributes, contents; and the open files.
    pub fn snapshot(&self) -> Tree {
        let mut tree = tree::read(&self.top);
        for (i, fd) in self.slots.iter().enumerate() {
            if let Some(fd) = fd {
                tree.insert(format!("open file {i}"), tree::describe_open(fd));
            }
        }
        tree
    }

    fn at(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    fn slot(&self, slot: usize) -> Result<&OwnedFd> {
        self.slots[slot].as_ref().ok_or(Errno::BADF)
    }

    fn try_apply(&mut self, op: &Op) -> Result<String> {
        match op {
            Op::Open { slot, name, .. } => {
                // Before the open, since the last close of an unlinked file is what frees it.
                self.slots[*slot] = None;
                let flags = open_flags(op) | OFlags::NONBLOCK;
                self.slots[*slot] = Some(open(self.at(name), flags, Mode::from_raw_mode(0o640))?);
                done()
            }
            Op::Close { slot } => {
                self.slots[*slot] = None;
                done()
            }
            Op::Write { .. } | Op::Read { .. } | Op::Truncate { .. } | Op::Sync { .. } | Op::Map { .. } => {
                self.on_data(op)
            }
            Op::Allocate { .. } | Op::Punch { .. } | Op::Zero { .. } | Op::Copy { .. } => self.on_pages(op),
            Op::Stat { name } => Ok(tree::describe(&self.at(name))?),
            Op::List { name } => tree::list(&self.at(name)),
            _ => self.on_names(op).and_then(|()| done()),
        }
    }

    fn on_data(&self, op: &Op) -> Result<String> {
        match *op {
            Op::Write { slot, at, len, seed } => {
                Ok(pwrite(self.slot(slot)?, &pattern(seed, len), at)?.to_string())
            }
            Op::Read { slot, at, len } => {
                let mut bytes = vec![0; len];
                let count = pread(self.slot(slot)?, &mut bytes, at)?;
                Ok(format!("{count} bytes, {:x}", tree::digest(&bytes[..count])))
            }
            Op::Truncate { slot, size } => ftruncate(self.slot(slot)?, size).and_then(|()| done()),
            Op::Map { slot, at, len, seed } => self.store_through_a_mapping(slot, at, len, seed),
            Op::Sync { slot } => sync(self.slot(slot)?),
            _ => unreachable!("{op:?}"),
        }
    }

    fn on_pages(&self, op: &Op) -> Result<String> {
        match *op {
            Op::Allocate { slot, at, len, keep } => {
                let flags = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
                fallocate(self.slot(slot)?, flags, at, len).and_then(|()| done())
            }
            Op::Punch { slot, at, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(self.slot(slot)?, flags, at, len).and_then(|()| done())
            }
            Op::Zero { slot, at, len, keep } => zero(self.slot(slot)?, at, len, keep),
            Op::Copy { from, to, read, write, len } => self.copy(from, to, read, write, len),
            _ => unreachable!("{op:?}"),
        }
    }

    /// Until all is copied: how much one call copies is the file system's choice.
    fn copy(&self, from: usize, to: usize, mut read: u64, mut write: u64, len: usize) -> Result<String> {
        let (from, to) = (self.slot(from)?, self.slot(to)?);
        let mut copied = 0;
        while copied < len {
            match copy_file_range(from, Some(&mut read), to, Some(&mut write), len - copied)? {
                0 => break,
                count => copied += count,
            }
        }
        Ok(format!("{copied} copied"))
    }

    /// Only within the file, since beyond its end is a signal.
    fn store_through_a_mapping(&self, slot: usize, at: u64, len: usize, seed: u64) -> Result<String> {
        let fd = self.slot(slot)?;
        let size = fstat(fd)?.st_size as u64;
        if at >= size {
            return Ok("nothing to map".into());
        }
        let len = len.min((size - at) as usize);
        let start = at & !4095;
        let mut map = Map::new(fd, start, (at - start) as usize + len, true)?;
        let before = tree::digest(&map.read((at - start) as usize, len));
        map.write((at - start) as usize, &pattern(seed, len));
        Ok(format!("{len} stored over {before:x}"))
    }

    fn on_names(&self, op: &Op) -> Result<()> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        match *op {
            Op::Mkdir { name, mode } => {
                mkdirat(CWD, self.at(name), Mode::from_raw_mode(0o755))?;
                chmodat(CWD, self.at(name), Mode::from_raw_mode(mode), AtFlags::empty())
            }
            Op::Mkfifo { name } => mknodat(CWD, self.at(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0),
            Op::Symlink { target, name } => symlinkat(target, CWD, self.at(name)),
            Op::Link { from, to } => linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty()),
            Op::Rename { from, to, flags } => {
                renameat_with(CWD, self.at(from), CWD, self.at(to), RenameFlags::from_bits_retain(flags))
            }
            Op::Unlink { name } => unlink(self.at(name)),
            Op::Rmdir { name } => rmdir(self.at(name)),
            Op::Chmod { name, mode } => {
                chmodat(CWD, self.at(name), Mode::from_raw_mode(mode), AtFlags::empty())
            }
            Op::Chown { name, uid, gid } => {
                chownat(CWD, self.at(name), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
            }
            Op::SetTimes { name, seconds } => {
                let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
                let times = Timestamps { last_access: time, last_modification: time };
                utimensat(CWD, self.at(name), &times, nofollow)
            }
            Op::SetXattr { name, attribute, len, flags } => {
                let flags = XattrFlags::from_bits_retain(flags);
                lsetxattr(self.at(name), format!("user.{attribute}"), &pattern(len as u64, len), flags)
            }
            Op::RemoveXattr { name, attribute } => lremovexattr(self.at(name), format!("user.{attribute}")),
            Op::PathTruncate { name, size } => {
                // By a descriptor, as there is no truncate(2) in rustix; a pipe must not be waited for.
                let fd = open(self.at(name), OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty())?;
                ftruncate(fd, size)
            }
            _ => unreachable!("{op:?}"),
        }
    }
}

fn done() -> Result<String> {
    Ok("done".into())
}

/// A pipe cannot be synced; everything else can.
fn sync(fd: &OwnedFd) -> Result<String> {
    fsync(fd).and_then(|()| done())
}

/// tmpfs cannot zero a range in one call; punching and allocating again is the same.
fn zero(fd: &OwnedFd, at: u64, len: u64, keep: bool) -> Result<String> {
    let keep = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
    match fallocate(fd, FallocateFlags::ZERO_RANGE | keep, at, len) {
        Err(Errno::OPNOTSUPP) => {
            fallocate(fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len)?;
            fallocate(fd, keep, at, len)?;
        }
        result => result?,
    }
    done()
}

fn open_flags(op: &Op) -> OFlags {
    let &Op::Open { create, truncate, exclusive, append, .. } = op else { unreachable!("{op:?}") };
    let mut flags = OFlags::RDWR;
    flags.set(OFlags::CREATE, create);
    flags.set(OFlags::TRUNC, truncate);
    flags.set(OFlags::EXCL, exclusive && create);
    flags.set(OFlags::APPEND, append);
    flags
}
