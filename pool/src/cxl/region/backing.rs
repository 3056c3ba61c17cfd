//! What a region is made of, as the operating system sees it: kinds of files, locks, space. Knows no
//! layout.

use super::dax::Dax;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anonymous memory of this process; gone with it.
    Memfd,
    /// A file on tmpfs, such as in `/dev/shm`; gone when the system goes down.
    MemoryFile,
    /// A file on a disk file system.
    DiskFile,
    /// A devdax device, such as `/dev/dax0.0`.
    Devdax(Dax),
}

impl Kind {
    /// Whether memory that holds nothing can be given back to the system. A file on a disk keeps its
    /// blocks: without them a later store would be a SIGBUS when the disk is full. A device has nowhere
    /// to give its memory to.
    pub fn returns_memory(self) -> bool {
        matches!(self, Self::Memfd | Self::MemoryFile)
    }

    /// Whether what was never stored to is known to be zero.
    pub fn starts_zero(self) -> bool {
        !matches!(self, Self::Devdax(_))
    }

    /// Whether the contents can outlive the process.
    pub fn persistent(self) -> bool {
        self != Self::Memfd
    }
}

const TMPFS_MAGIC: libc::__fsword_t = 0x0102_1994;
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// The kind of an open file; `None` if no region can be in a file of its type.
pub fn kind_of(file: &File) -> io::Result<Option<Kind>> {
    let meta = file.metadata()?;
    if meta.file_type().is_char_device() {
        return Ok(Dax::of(meta.rdev()).map(Kind::Devdax));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    // SAFETY: statfs is plain data for which zero is a value; the call writes at most one.
    let (rc, fs) = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &mut fs), fs)
    };
    check(rc)?;
    let in_memory = matches!(fs.f_type, TMPFS_MAGIC | RAMFS_MAGIC);
    Ok(Some(if in_memory { Kind::MemoryFile } else { Kind::DiskFile }))
}

/// Bytes that the file system of `file` has room for.
pub fn available(file: &File) -> io::Result<u64> {
    // SAFETY: statvfs is plain data for which zero is a value; the call writes at most one.
    let (rc, fs) = unsafe {
        let mut fs: libc::statvfs = std::mem::zeroed();
        (libc::fstatvfs(file.as_raw_fd(), &mut fs), fs)
    };
    check(rc)?;
    // A tmpfs without a limit says that it has no blocks at all.
    Ok(if fs.f_blocks == 0 { u64::MAX } else { fs.f_bavail.saturating_mul(fs.f_frsize) })
}

/// A new memfd of `len` bytes.
pub fn memfd(len: u64) -> io::Result<File> {
    // SAFETY: the name is a string that ends in zero; the call has no other operands in memory.
    let fd = unsafe { libc::memfd_create(c"rchfs-pool".as_ptr(), libc::MFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: a new descriptor that nobody else owns.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    Ok(file)
}

/// Takes the lock by which a region has one owner. False if another open file has it.
pub fn lock(file: &File) -> io::Result<bool> {
    // SAFETY: no operands in memory.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives `file` blocks for its first `len` bytes, where the file system can do that at once.
pub fn reserve(file: &File, len: u64) -> io::Result<()> {
    loop {
        // Not posix_fallocate: where the file system cannot, that writes every block.
        // SAFETY: no operands in memory.
        match check(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) }) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                log::warn!(
                    "the file system cannot reserve blocks: if it fills up, the pool will die of SIGBUS"
                );
                return Ok(());
            }
            other => return other,
        }
    }
}

/// Gives the memory under a range of a file back.
pub fn punch(file: &File, range: Range<u64>) -> bool {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (at, len) = (range.start as libc::off_t, range.end.saturating_sub(range.start) as libc::off_t);
    // SAFETY: no operands in memory. What is mapped there reads as zero afterwards, which the callers
    // of `Region::punch_hole` ask for.
    unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) == 0 }
}

/// 16 bytes that nobody can guess.
pub fn random_id() -> io::Result<u128> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is valid for its length; up to 256 bytes come whole.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { Ok(u128::from_le_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}

fn check(rc: i32) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
