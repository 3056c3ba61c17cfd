//! Telling the kernel the modification time of a file, or its length.
//!
//! With writeback caching the kernel keeps the modification times of regular files itself and believes
//! no reply about them. But direct writes do not change the time that it keeps. The one way to correct it is
//! to set the time from its own side: with utimensat(2) on the inode, which is found by file handle
//! (open_by_handle_at(2); `fs/fuse/inode.c` of the kernel encodes one as type 0x81: number, generation)
//! since its name is not known here. That needs `CAP_DAC_READ_SEARCH`.
//!
//! Likewise its length, which it takes over from the answer to a request to change it.

use pool::proto::meta::{Ino, Time};
use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// `FILEID_INO64_GEN`: 64 bits of number, 32 bits of generation.
const HANDLE_TYPE: i32 = 0x81;
const HANDLE_LEN: usize = 12;

/// `struct file_handle` of open_by_handle_at(2), with a FUSE handle in it.
#[repr(C)]
struct FuseHandle {
    bytes: u32,
    kind: i32,
    words: [u32; HANDLE_LEN / 4],
}

/// Where a mount is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// Its device number, as `major:minor`.
    pub device: String,
}

/// An inode of our own mount, as a descriptor that takes no request to open or close. To be used by no thread that answers
/// requests: it makes some.
pub struct Inode(File);

impl Inode {
    /// The inode of this number.
    ///
    /// # Errors
    /// `EPERM` without the capability; `ESTALE` if the kernel does not have the inode in memory, and then
    /// there is nothing to correct; `ENXIO` if something else is mounted there.
    pub fn open(place: &Place, ino: Ino) -> io::Result<Self> {
        let mount = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&place.dir)?;
        let found = stat(mount.as_raw_fd(), c"", libc::AT_STATX_DONT_SYNC)?;
        if format!("{}:{}", found.stx_dev_major, found.stx_dev_minor) != place.device {
            // Another mount would take a correction for what a program wants.
            return Err(io::Error::from_raw_os_error(libc::ENXIO));
        }
        open(&mount, ino).map(Self)
    }

    /// Length and modification time, as the kernel believes them to be. Makes no request.
    ///
    /// # Errors
    /// What the system says.
    pub fn believed(&self) -> io::Result<(u64, Time)> {
        let found = stat(self.0.as_raw_fd(), c"", libc::AT_STATX_DONT_SYNC)?;
        Ok((found.stx_size, Time { sec: found.stx_mtime.tv_sec, nsec: found.stx_mtime.tv_nsec }))
    }

    /// Has the kernel ask for the attributes, whatever it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn ask(&self) -> io::Result<()> {
        stat(self.0.as_raw_fd(), c"", libc::AT_STATX_FORCE_SYNC).map(drop)
    }

    /// Sets the modification time that the kernel keeps.
    ///
    /// # Errors
    /// What the answer to the request is.
    pub fn set_mtime(&self, time: Time) -> io::Result<()> {
        let times = [
            libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            libc::timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
        ];
        let fd = self.0.as_raw_fd();
        // SAFETY: the descriptor is open, the path is a C string, and `times` is an array of two.
        let done = unsafe { libc::utimensat(fd, c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sets the length that the kernel keeps to that in the answer to the request; `size` says which is expected.
    ///
    /// # Errors
    /// What the answer to the request is; `ETXTBSY` while a program runs from the file.
    pub fn set_size(&self, size: u64) -> io::Result<()> {
        let path = self.path();
        let size = i64::try_from(size).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: a C string, and a number.
        let done = unsafe { libc::truncate(path.as_ptr(), size) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A path by which any thread of this process finds the inode, as long as it is open here.
    pub fn path(&self) -> CString {
        let path = format!("/proc/self/task/{}/fd/{}", thread_id(), self.0.as_raw_fd());
        CString::new(path).unwrap_or_default()
    }
}

/// How long the kernel believes that inode to be to which such a path leads. Makes no request.
///
/// # Errors
/// What the system says.
pub fn believed_size(path: &CStr) -> io::Result<u64> {
    Ok(stat(libc::AT_FDCWD, path, libc::AT_STATX_DONT_SYNC)?.stx_size)
}

fn stat(dir: RawFd, path: &CStr, sync: i32) -> io::Result<libc::statx> {
    let flags = sync | if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    let mask = libc::STATX_BASIC_STATS;
    let mut found = MaybeUninit::zeroed();
    // SAFETY: the path is a C string, and `found` has room for the answer.
    let done = unsafe { libc::statx(dir, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled it in, and all zeros are valid, too.
    Ok(unsafe { found.assume_init() })
}

/// Has [`Inode::set_size`] fail beyond `ulimit -f`, instead of ending the process.
pub fn survive_size_limit() {
    // SAFETY: no handler is installed, so nothing of this process is run by it.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether this process may open inodes so: it has `CAP_DAC_READ_SEARCH`.
///
/// # Errors
/// If the system does not say.
pub fn is_allowed() -> io::Result<bool> {
    const DAC_READ_SEARCH: u32 = 2;
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let bits = bits.ok_or_else(|| io::Error::other("no CapEff in /proc/thread-self/status"))?;
    Ok(bits >> DAC_READ_SEARCH & 1 == 1)
}

/// Gives this thread a table of descriptors of its own, with nothing in it: the standard streams are
/// `/dev/null`. A request to our own mount that it waits for when the process is killed is ended by the kernel
/// once nobody has `/dev/fuse` open any more; with that open here, it would wait for itself.
///
/// # Errors
/// What the system says.
pub fn own_descriptors() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
    // Closed with all the others, below.
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?.into_raw_fd();
    let checked = |result: i64| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    for stream in 0..3 {
        // SAFETY: the table is this thread's alone, and nothing in this thread owns these descriptors.
        checked(i64::from(unsafe { libc::dup2(null, stream) }))?;
    }
    // SAFETY: likewise; those of the process stay open in the table that the other threads share.
    checked(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) })
}

/// The id of this thread, which the kernel gives as the process of the requests that it makes.
pub fn thread_id() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// The inode as a descriptor that takes no request to open or close.
fn open(mount: &File, ino: Ino) -> io::Result<File> {
    let words = [(ino.0 >> 32) as u32, ino.0 as u32, 0];
    let mut handle = FuseHandle { bytes: HANDLE_LEN as u32, kind: HANDLE_TYPE, words };
    // SAFETY: `handle` has the layout of `struct file_handle` with `bytes` bytes after its header.
    let fd = unsafe {
        libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), libc::O_PATH | libc::O_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
