//! Telling the kernel a modification time.
//!
//! With writeback caching the kernel keeps the modification times of regular files itself and believes
//! no reply about them. But direct writes do not change the time that it keeps. The one way to correct it is
//! to set the time from its own side: with utimensat(2) on the inode, which is found by file handle
//! (open_by_handle_at(2); `fs/fuse/inode.c` of the kernel encodes one as type 0x81: number, generation)
//! since its name is not known here. That needs `CAP_DAC_READ_SEARCH`.

use pool::proto::meta::{Ino, Time};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

/// Sets the modification time that the kernel keeps of `ino`, in the file system mounted on `dir`. Must
/// not be called by a thread that answers requests: it makes one.
///
/// # Errors
/// `EPERM` without the capability; `ESTALE` if the kernel does not have the inode in memory, and then
/// there is nothing to correct.
pub fn set_mtime(dir: &Path, ino: Ino, time: Time) -> io::Result<()> {
    let mount = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
    let inode = open(&mount, ino)?;
    let times = [
        libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        libc::timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
    ];
    // SAFETY: the descriptor is open, the path is a C string, and `times` is an array of two.
    let done =
        unsafe { libc::utimensat(inode.as_raw_fd(), c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
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
