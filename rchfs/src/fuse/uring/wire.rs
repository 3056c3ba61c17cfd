//! What the kernel writes into a ring entry, and where: the layouts of `<linux/fuse.h>`, protocol 7.42.
//!
//! An entry has two buffers. The *header* holds, at fixed places, the header of the request (later of the
//! answer), the fixed part of the operation's arguments, and the size of the rest. The *payload* holds the
//! rest: names, each ended by a zero byte, or data; later what is answered. Everything is in the byte order
//! of the machine. Nothing is read beyond the end of what there is, whatever the numbers say.

use crate::fuse::decide::Who;
use pool::proto::meta::{Ino, SetAttr, SetTime, Time};

/// Bytes of the header: `struct fuse_uring_req_header`.
pub const HEADER_BYTES: usize = ENTRY_AT + 32;
/// Where the fixed part of the arguments is in the header, and how long at most.
const OP_AT: usize = 128;
const OP_BYTES: usize = 128;
/// Where `struct fuse_uring_ent_in_out` is in the header.
const ENTRY_AT: usize = OP_AT + OP_BYTES;
/// In that: by which number to commit, and bytes of payload.
const COMMIT_ID_AT: usize = ENTRY_AT + 8;
const PAYLOAD_SIZE_AT: usize = ENTRY_AT + 16;
/// Bytes of `struct fuse_out_header`.
const OUT_BYTES: u32 = 16;

/// Not what a kernel would write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_ne_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_ne_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_ne_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_ne_bytes(self.array()?))
    }

    /// A name, without the zero byte that ends it.
    fn name(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.0.iter().position(|&b| b == 0).ok_or(Malformed)?;
        let name = self.take(len)?;
        self.take(1)?;
        Ok(name)
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// `FUSE_*`, the number of the operation.
    pub opcode: u32,
    /// The number of the request.
    pub unique: u64,
    /// The inode it is about.
    pub ino: Ino,
    /// Who asks.
    pub who: Who,
    /// By which number the answer is committed.
    pub commit_id: u64,
    /// Bytes of payload.
    pub payload: usize,
}

impl Header {
    /// Reads it out of the header of an entry.
    ///
    /// # Errors
    /// If the header is too short.
    pub fn parse(header: &[u8]) -> Result<Self, Malformed> {
        let mut f = Fields(header);
        f.u32()?;
        let (opcode, unique, ino) = (f.u32()?, f.u64()?, Ino(f.u64()?));
        let who = Who { uid: f.u32()?, gid: f.u32()?, pid: f.u32()? };
        let commit_id = Fields(header.get(COMMIT_ID_AT..).ok_or(Malformed)?).u64()?;
        let payload = Fields(header.get(PAYLOAD_SIZE_AT..).ok_or(Malformed)?).u32()? as usize;
        Ok(Self { opcode, unique, ino, who, commit_id, payload })
    }
}

impl Header {
    /// The regular file that it is about; `None` if it may be about something else.
    pub fn file(&self) -> Option<Ino> {
        // OPEN READ WRITE RELEASE FSYNC FALLOCATE LSEEK COPY_FILE_RANGE
        matches!(self.opcode, 14 | 15 | 16 | 18 | 20 | 43 | 46 | 47).then_some(self.ino)
    }
}

/// Writes the header of an answer, with `payload` bytes of payload: `struct fuse_out_header`, in which
/// `error` is 0 or the number of an error.
///
/// # Errors
/// If the header is too short.
pub fn write_answer(header: &mut [u8], unique: u64, error: i32, payload: u32) -> Result<(), Malformed> {
    let mut put = |at: usize, bytes: &[u8]| {
        header.get_mut(at..at + bytes.len()).ok_or(Malformed).map(|to| to.copy_from_slice(bytes))
    };
    put(0, &(OUT_BYTES + payload).to_ne_bytes())?;
    put(4, &(-error).to_ne_bytes())?;
    put(8, &unique.to_ne_bytes())?;
    put(PAYLOAD_SIZE_AT, &payload.to_ne_bytes())
}

/// Data for `IORING_OP_URING_CMD`: `struct fuse_uring_cmd_req`.
pub fn command(queue: u16, commit_id: u64) -> [u8; 80] {
    let mut data = [0; 80];
    data[8..16].copy_from_slice(&commit_id.to_ne_bytes());
    data[16..18].copy_from_slice(&queue.to_ne_bytes());
    data
}

/// A message to `/dev/fuse` that makes the kernel send a request at once, on the queue of the processor that
/// it is written on: `FUSE_NOTIFY_RETRIEVE` of no bytes of `file`, a regular file that it knows, which is
/// answered by a `FUSE_NOTIFY_REPLY`. `number` tells it from other nudges.
pub fn nudge(number: u64, file: Ino) -> [u8; 48] {
    const RETRIEVE: i32 = 5;
    /// Numbers of the kernel's own requests are even too, and far below.
    const FIRST: u64 = 1 << 62;
    let mut message = [0; 48];
    message[..4].copy_from_slice(&48u32.to_ne_bytes());
    message[4..8].copy_from_slice(&RETRIEVE.to_ne_bytes());
    message[16..24].copy_from_slice(&(FIRST + 2 * (number % (FIRST / 2))).to_ne_bytes());
    message[24..32].copy_from_slice(&file.0.to_ne_bytes());
    message
}

/// A message to `/dev/fuse` after which the kernel asks for each name before it believes it again:
/// `FUSE_NOTIFY_INC_EPOCH`, which takes no lock (Linux 6.16).
pub fn next_epoch() -> [u8; 16] {
    let mut message = [0; 16];
    message[..4].copy_from_slice(&16u32.to_ne_bytes());
    message[4..8].copy_from_slice(&8i32.to_ne_bytes());
    message
}

/// A message to `/dev/fuse` after which the kernel asks for the attributes of `ino` again, and from `offset` on, if that
/// is not negative, for its data: `FUSE_NOTIFY_INVAL_INODE`. `ENOENT` if it does not know the inode.
pub fn invalidate(ino: Ino, offset: i64) -> [u8; 40] {
    let mut message = [0; 40];
    message[..4].copy_from_slice(&40u32.to_ne_bytes());
    message[4..8].copy_from_slice(&2i32.to_ne_bytes());
    message[16..24].copy_from_slice(&ino.0.to_ne_bytes());
    message[24..32].copy_from_slice(&offset.to_ne_bytes());
    message
}

/// An operation and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the request of this name, its fields those of its arguments.
pub enum Op<'a> {
    Lookup {
        name: &'a [u8],
    },
    GetAttr {
        handle: Option<u64>,
    },
    SetAttr {
        set: SetAttr,
        with_handle: bool,
    },
    ReadLink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MkNod {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    },
    MkDir {
        name: &'a [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'a [u8],
    },
    RmDir {
        name: &'a [u8],
    },
    Rename {
        name: &'a [u8],
        new_parent: Ino,
        new_name: &'a [u8],
        flags: u32,
    },
    Link {
        ino: Ino,
        name: &'a [u8],
    },
    Open {
        flags: i32,
    },
    Read {
        handle: u64,
        at: u64,
        size: usize,
        by_program: bool,
    },
    Write {
        handle: u64,
        at: u64,
        flags: u32,
        data: &'a [u8],
    },
    StatFs,
    /// With the owner of a lock of flock(2) that goes, if there may be one.
    Release {
        handle: u64,
        unlock: Option<u64>,
    },
    FSync {
        handle: u64,
    },
    SetXattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: i32,
    },
    GetXattr {
        name: &'a [u8],
        size: u32,
    },
    ListXattr {
        size: u32,
    },
    RemoveXattr {
        name: &'a [u8],
    },
    Flush {
        handle: u64,
        owner: u64,
    },
    GetLk(LockFields),
    SetLk {
        lock: LockFields,
        wait: bool,
    },
    OpenDir,
    ReadDir {
        after: u64,
        size: usize,
        plus: bool,
    },
    ReleaseDir,
    FSyncDir,
    Access,
    Create {
        name: &'a [u8],
        mode: u32,
        umask: u32,
        flags: i32,
    },
    FAllocate {
        handle: u64,
        at: u64,
        len: u64,
        mode: i32,
    },
    LSeek {
        handle: u64,
        offset: i64,
        whence: i32,
    },
    CopyFileRange {
        from: (u64, u64),
        to: (u64, u64),
        len: u64,
    },
    /// One that is not supported here, nor through `/dev/fuse`.
    Other,
}

const GETATTR_FH: u32 = 1;
const READ_LOCKOWNER: u32 = 1 << 1;
const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;

/// A lock, as the kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockFields {
    /// Whose.
    pub owner: u64,
    /// First byte and last.
    pub range: (u64, u64),
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i32,
    /// The process.
    pub pid: u32,
}

impl LockFields {
    /// `struct fuse_lk_in`
    fn parse(mut f: Fields<'_>) -> Result<Self, Malformed> {
        let (_, owner, range) = (f.u64()?, f.u64()?, (f.u64()?, f.u64()?));
        Ok(Self { owner, range, kind: f.i32()?, pid: f.u32()? })
    }
}

impl<'a> Op<'a> {
    /// Reads it out of the header and the payload of an entry.
    ///
    /// # Errors
    /// If something is missing.
    pub fn parse(opcode: u32, header: &[u8], payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut f = Fields(header.get(OP_AT..ENTRY_AT).ok_or(Malformed)?);
        let mut rest = Fields(payload);
        Ok(match opcode {
            1 => Self::Lookup { name: rest.name()? },
            3 => {
                let (flags, _, handle) = (f.u32()?, f.u32()?, f.u64()?);
                Self::GetAttr { handle: (flags & GETATTR_FH != 0).then_some(handle) }
            }
            4 => set_attr(f)?,
            5 => Self::ReadLink,
            6 => Self::Symlink { name: rest.name()?, target: rest.name()? },
            8 => {
                let (mode, rdev, umask) = (f.u32()?, f.u32()?, f.u32()?);
                Self::MkNod { name: rest.name()?, mode, umask, rdev }
            }
            9 => Self::MkDir { mode: f.u32()?, umask: f.u32()?, name: rest.name()? },
            10 => Self::Unlink { name: rest.name()? },
            11 => Self::RmDir { name: rest.name()? },
            12 | 45 => {
                let new_parent = Ino(f.u64()?);
                let flags = if opcode == 45 { f.u32()? } else { 0 };
                Self::Rename { new_parent, flags, name: rest.name()?, new_name: rest.name()? }
            }
            13 => Self::Link { ino: Ino(f.u64()?), name: rest.name()? },
            14 => Self::Open { flags: f.i32()? },
            15 => {
                let (handle, at, size) = (f.u64()?, f.u64()?, f.u32()? as usize);
                Self::Read { handle, at, size, by_program: f.u32()? & READ_LOCKOWNER != 0 }
            }
            16 => {
                let (handle, at, size, flags) = (f.u64()?, f.u64()?, f.u32()? as usize, f.u32()?);
                Self::Write { handle, at, flags, data: rest.take(size)? }
            }
            17 => Self::StatFs,
            18 => {
                let (handle, _, flags, owner) = (f.u64()?, f.u32()?, f.u32()?, f.u64()?);
                Self::Release { handle, unlock: (flags & RELEASE_FLOCK_UNLOCK != 0).then_some(owner) }
            }
            20 => Self::FSync { handle: f.u64()? },
            21 => {
                let (size, flags) = (f.u32()? as usize, f.i32()?);
                Self::SetXattr { flags, name: rest.name()?, value: rest.take(size)? }
            }
            22 => Self::GetXattr { size: f.u32()?, name: rest.name()? },
            23 => Self::ListXattr { size: f.u32()? },
            24 => Self::RemoveXattr { name: rest.name()? },
            25 => {
                let (handle, _, owner) = (f.u64()?, f.u64()?, f.u64()?);
                Self::Flush { handle, owner }
            }
            27 => Self::OpenDir,
            28 | 44 => {
                let (_, after, size) = (f.u64()?, f.u64()?, f.u32()? as usize);
                Self::ReadDir { after, size, plus: opcode == 44 }
            }
            29 => Self::ReleaseDir,
            30 => Self::FSyncDir,
            31 => Self::GetLk(LockFields::parse(f)?),
            32 | 33 => Self::SetLk { lock: LockFields::parse(f)?, wait: opcode == 33 },
            34 => Self::Access,
            35 => {
                let (flags, mode, umask) = (f.i32()?, f.u32()?, f.u32()?);
                Self::Create { name: rest.name()?, mode, umask, flags }
            }
            43 => Self::FAllocate { handle: f.u64()?, at: f.u64()?, len: f.u64()?, mode: f.i32()? },
            46 => Self::LSeek { handle: f.u64()?, offset: f.i64()?, whence: f.i32()? },
            47 => {
                let from = (f.u64()?, f.u64()?);
                f.u64()?;
                Self::CopyFileRange { from, to: (f.u64()?, f.u64()?), len: f.u64()? }
            }
            _ => Self::Other,
        })
    }

    /// Whether the kernel may ask this on behalf of somebody other than who mounted, though only that user
    /// is let in: what it does on its own account.
    pub fn is_for_anyone(&self) -> bool {
        matches!(
            self,
            Self::Read { .. }
                | Self::ReadDir { .. }
                | Self::Write { .. }
                | Self::FSync { .. }
                | Self::FSyncDir
                | Self::Release { .. }
                | Self::Flush { .. }
                | Self::ReleaseDir
        )
    }
}

/// `struct fuse_setattr_in`
fn set_attr<'a>(mut f: Fields<'_>) -> Result<Op<'a>, Malformed> {
    let (valid, _) = (f.u32()?, f.u32()?);
    f.u64()?;
    let size = f.u64()?;
    f.u64()?;
    let secs = [f.i64()?, f.i64()?, f.i64()?];
    let nsecs = [f.u32()?, f.u32()?, f.u32()?];
    let (mode, _, uid, gid) = (f.u32()?, f.u32()?, f.u32()?, f.u32()?);
    let has = |bit: u32| valid & (1 << bit) != 0;
    let time = |which: usize| Time { sec: secs[which], nsec: nsecs[which] };
    let set_time = |which: usize, bit: u32, now: u32| {
        has(bit).then(|| if has(now) { SetTime::Now } else { SetTime::At(time(which)) })
    };
    let set = SetAttr {
        perm: has(0).then_some((mode & 0o7777) as u16),
        uid: has(1).then_some(uid),
        gid: has(2).then_some(gid),
        size: has(3).then_some(size),
        atime: set_time(0, 4, 7),
        mtime: set_time(1, 5, 8),
        ctime: has(10).then(|| time(2)),
    };
    Ok(Op::SetAttr { set, with_handle: has(6) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of an entry with these arguments.
    fn header(op: &[u8]) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[OP_AT..OP_AT + op.len()].copy_from_slice(op);
        header
    }

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn the_header_of_a_request_is_read_from_its_places() {
        let mut bytes = vec![0; HEADER_BYTES];
        for (at, value) in [(4, 3u32), (24, 1000), (28, 100), (32, 4242), (PAYLOAD_SIZE_AT, 77)] {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(8, 90u64), (16, 12), (COMMIT_ID_AT, 91)] {
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        let h = Header::parse(&bytes).unwrap();
        assert_eq!((h.opcode, h.unique, h.ino, h.commit_id, h.payload), (3, 90, Ino(12), 91, 77));
        assert_eq!((h.who.uid, h.who.gid, h.who.pid), (1000, 100, 4242));
        assert_eq!(Header::parse(&bytes[..PAYLOAD_SIZE_AT]).unwrap_err(), Malformed);
    }

    #[test]
    fn an_answer_has_its_length_and_its_error_negated() {
        let mut bytes = vec![0; HEADER_BYTES];
        write_answer(&mut bytes, 7, libc::ENOENT, 0).unwrap();
        assert_eq!(bytes[..8], [16u32.to_ne_bytes(), (-libc::ENOENT).to_ne_bytes()].concat());
        write_answer(&mut bytes, 7, 0, 88).unwrap();
        assert_eq!(bytes[..4], 104u32.to_ne_bytes());
        assert_eq!(bytes[PAYLOAD_SIZE_AT..PAYLOAD_SIZE_AT + 4], 88u32.to_ne_bytes());
        assert_eq!(write_answer(&mut bytes[..20], 7, 0, 88), Err(Malformed));
    }

    #[test]
    fn names_end_at_their_zero_byte() {
        let none = header(&[]);
        assert_eq!(Op::parse(1, &none, b"abc\0"), Ok(Op::Lookup { name: b"abc" }));
        assert_eq!(Op::parse(6, &none, b"a\0b/c\0"), Ok(Op::Symlink { name: b"a", target: b"b/c" }));
        let to = header(&words(&[9, 1]));
        let moved = Op::Rename { name: b"a", new_parent: Ino(9), new_name: b"b", flags: 1 };
        assert_eq!(Op::parse(45, &to, b"a\0b\0"), Ok(moved));
        for (opcode, short) in [(1, &b"abc"[..]), (1, b""), (6, b"a\0b"), (45, b"a\0"), (24, b"user.x")] {
            assert_eq!(Op::parse(opcode, &none, short), Err(Malformed), "{opcode} {short:?}");
        }
    }

    #[test]
    fn data_must_be_there_in_full() {
        let mut op = words(&[5, 4096]);
        op.extend(4u32.to_ne_bytes());
        op.extend(1u32.to_ne_bytes());
        let op = header(&op);
        let written = Op::Write { handle: 5, at: 4096, flags: 1, data: b"data" };
        assert_eq!(Op::parse(16, &op, b"data and more"), Ok(written));
        assert_eq!(Op::parse(16, &op, b"dat"), Err(Malformed));
        let mut op = 3u32.to_ne_bytes().to_vec();
        op.extend(1u32.to_ne_bytes());
        let set = Op::SetXattr { name: b"user.a", value: b"abc", flags: 1 };
        assert_eq!(Op::parse(21, &header(&op), b"user.a\0abc"), Ok(set));
        assert_eq!(Op::parse(21, &header(&op), b"user.a\0ab"), Err(Malformed));
    }

    #[test]
    fn only_attributes_that_are_marked_are_set() {
        let mut op = Vec::new();
        op.extend(((1u32 << 3) | (1 << 4) | (1 << 5) | (1 << 8)).to_ne_bytes());
        op.extend(0u32.to_ne_bytes());
        op.extend(words(&[0, 12345, 0, -2i64 as u64, 7, 8]));
        for nsec in [11u32, 12, 13, 0o100644, 0, 1, 2, 0] {
            op.extend(nsec.to_ne_bytes());
        }
        let set = SetAttr {
            size: Some(12345),
            atime: Some(SetTime::At(Time { sec: -2, nsec: 11 })),
            mtime: Some(SetTime::Now),
            ..SetAttr::default()
        };
        assert_eq!(Op::parse(4, &header(&op), b""), Ok(Op::SetAttr { set, with_handle: false }));
        op[0] |= 1 << 6;
        assert_eq!(Op::parse(4, &header(&op), b""), Ok(Op::SetAttr { set, with_handle: true }));
    }

    #[test]
    fn locks_and_who_closes_are_read_as_the_kernel_writes_them() {
        let mut op = words(&[5, 77, 10, 20]);
        for word in [libc::F_WRLCK as u32, 4242, 0, 0] {
            op.extend(word.to_ne_bytes());
        }
        let lock = LockFields { owner: 77, range: (10, 20), kind: libc::F_WRLCK, pid: 4242 };
        assert_eq!(Op::parse(31, &header(&op), b""), Ok(Op::GetLk(lock)));
        assert_eq!(Op::parse(33, &header(&op), b""), Ok(Op::SetLk { lock, wait: true }));
        assert_eq!(Op::parse(25, &header(&words(&[5, 0, 9])), b""), Ok(Op::Flush { handle: 5, owner: 9 }));
        for (flags, unlock) in [(0u64, None), (2, Some(9))] {
            let op = header(&words(&[5, flags << 32, 9]));
            assert_eq!(Op::parse(18, &op, b""), Ok(Op::Release { handle: 5, unlock }));
        }
    }

    #[test]
    fn no_operation_reads_beyond_what_is_there() {
        for opcode in 0..60 {
            for len in 0..ENTRY_AT {
                // Whatever comes of it, it comes.
                let _ = Op::parse(opcode, &header(&[])[..len], b"");
            }
            let _ = Op::parse(opcode, &header(&[0xFF; OP_BYTES]), &[0xFF; 64]);
        }
        assert_eq!(Op::parse(99, &header(&[]), b""), Ok(Op::Other));
    }
}
