//! Between the kernel's way of saying things (fuser's types) and ours.

use crate::fs::Access;
use crate::fs::ranges::Falloc;
use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use pool::proto::meta::{Attr, Kind, NewNode, RenameMode, SetTime, Time};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
    }
}

pub fn attr(a: &Attr, blksize: u32) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.ino.0),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: system_time(a.btime),
        kind: file_type(a.kind),
        perm: a.perm,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize,
        flags: 0,
    }
}

/// The attributes of no inode: tells the kernel to remember that a name does not exist.
pub fn negative() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn system_time(t: Time) -> SystemTime {
    let whole = if t.sec >= 0 {
        UNIX_EPOCH.checked_add(Duration::from_secs(t.sec as u64))
    } else {
        UNIX_EPOCH.checked_sub(Duration::from_secs(t.sec.unsigned_abs()))
    };
    whole.and_then(|w| w.checked_add(Duration::from_nanos(u64::from(t.nsec)))).unwrap_or(UNIX_EPOCH)
}

pub fn time(t: SystemTime) -> Time {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() },
        // fuser takes the nanoseconds, which the kernel counts upwards from the second, off the second.
        Err(e) => Time { sec: -(e.duration().as_secs() as i64), nsec: e.duration().subsec_nanos() },
    }
}

pub fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::At(time(t)),
    }
}

/// What mknod(2) asks for; `None` for a type that it cannot make.
pub fn new_node(mode: u32, rdev: u32) -> Option<NewNode> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(NewNode::File),
        libc::S_IFIFO => Some(NewNode::Fifo),
        libc::S_IFSOCK => Some(NewNode::Socket),
        libc::S_IFCHR => Some(NewNode::Char(rdev)),
        libc::S_IFBLK => Some(NewNode::Block(rdev)),
        _ => None,
    }
}

/// What open(2) flags ask for. `uncached`: every open bypasses the kernel's cache.
pub fn access(flags: i32, uncached: bool) -> Access {
    let mode = flags & libc::O_ACCMODE;
    Access {
        read: mode != libc::O_WRONLY,
        write: mode != libc::O_RDONLY,
        direct: uncached || flags & libc::O_DIRECT != 0,
    }
}

/// What renameat2(2) flags ask for; `None` for those that are not supported (`RENAME_WHITEOUT`).
pub fn rename_mode(flags: u32) -> Option<RenameMode> {
    match flags {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// What fallocate(2) flags ask for; `None` for those that are not supported.
pub fn falloc(mode: i32) -> Option<Falloc> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | KEEP;
    match mode {
        0 => Some(Falloc::Allocate { keep_size: false }),
        KEEP => Some(Falloc::Allocate { keep_size: true }),
        PUNCH => Some(Falloc::PunchHole),
        ZERO => Some(Falloc::ZeroRange { keep_size: false }),
        ZERO_KEEP => Some(Falloc::ZeroRange { keep_size: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_fuser_gives_them() {
        for (sec, nsec) in [(0, 0), (1, 999_999_999), (1 << 40, 5)] {
            assert_eq!(time(system_time(Time { sec, nsec })), Time { sec, nsec });
        }
        for (sec, nsec) in [(-1, 0), (-1, 1), (-2, 999_999_999)] {
            let given = UNIX_EPOCH - Duration::new(-sec as u64, nsec);
            assert_eq!(time(given), Time { sec, nsec });
        }
    }

    #[test]
    fn every_supported_mode_of_fallocate_is_understood_and_no_other() {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        assert_eq!(falloc(0), Some(Falloc::Allocate { keep_size: false }));
        assert_eq!(falloc(libc::FALLOC_FL_PUNCH_HOLE | keep), Some(Falloc::PunchHole));
        assert_eq!(falloc(libc::FALLOC_FL_PUNCH_HOLE), None);
        assert_eq!(falloc(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(falloc(libc::FALLOC_FL_INSERT_RANGE | keep), None);
    }
}
