//! Getting a FUSE connection mounted on a directory: mount(2) for root, fusermount3 for others.
//!
//! The library fuser could do this too, but at the end of a session it unmounts whatever is then on the
//! directory, which after a plain umount is someone else's mount; and it cannot set the type
//! `fuse.rchfs` as root. So the mount is made here, and unmounted in [`detach`](super::detach) only
//! after a look at whose it is.

use crate::cli::settings::MountFlags;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use thiserror::Error;

/// The set-user-id helper of ordinary users.
pub const FUSERMOUNT: &str = "fusermount3";
const DEVICE: &str = "/dev/fuse";

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel has no FUSE, or the container hides it.
    #[error(
        "there is no /dev/fuse; load it with: modprobe fuse (in a container: --device /dev/fuse --cap-add SYS_ADMIN)"
    )]
    NoDevice,
    /// `/dev/fuse` is not for this user.
    #[error("/dev/fuse cannot be opened: {0}; an administrator can allow it with: chmod 666 /dev/fuse")]
    Device(io::Error),
    /// No helper.
    #[error("fusermount3 is not installed, and only root can mount without it; install the package fuse3")]
    NoHelper,
    /// The helper could not be started or talked to.
    #[error("fusermount3: {0}")]
    HelperIo(io::Error),
    /// The helper says no.
    #[error("{0}")]
    Helper(String),
    /// mount(2) says no.
    #[error("mount on {dir} failed: {errno}")]
    Mount {
        /// The directory.
        dir: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// Not even the helper would help.
    #[error(
        "no permission to mount here; this needs CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN --device /dev/fuse)"
    )]
    NotPermitted,
}

/// Mounts a new FUSE connection on `dir` (an absolute path without links) and returns it. The kernel's
/// first request, INIT, is waiting in it.
///
/// # Errors
/// If that is not possible, with nothing mounted.
pub fn attach(source: &str, dir: &Path, flags: &MountFlags) -> Result<OwnedFd, AttachError> {
    if nix::unistd::geteuid().is_root() {
        return by_kernel(source, dir, flags);
    }
    by_helper(source, dir, flags)
}

/// Whether [`attach`] has what it needs, as far as that can be told without mounting.
///
/// # Errors
/// What is missing.
pub fn check() -> Result<(), AttachError> {
    open_device().map(drop)
}

/// Opens `/dev/fuse`. A user must be able to, too: fusermount3 opens it with the user's rights.
fn open_device() -> Result<File, AttachError> {
    OpenOptions::new().read(true).write(true).open(DEVICE).map_err(|e| match e.raw_os_error() {
        // ENODEV and ENXIO: there is a node, and no driver behind it.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => AttachError::NoDevice,
        _ => AttachError::Device(e),
    })
}

fn by_kernel(source: &str, dir: &Path, flags: &MountFlags) -> Result<OwnedFd, AttachError> {
    let device = open_device()?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        nix::unistd::geteuid(),
        nix::unistd::getegid()
    );
    if flags.allow_other {
        data.push_str(",allow_other");
    }
    let fs_type = super::table::FS_TYPE;
    match nix::mount::mount(Some(source), dir, Some(fs_type), kernel_flags(flags), Some(data.as_str())) {
        Ok(()) => Ok(device.into()),
        Err(Errno::EPERM) => Err(AttachError::NotPermitted),
        Err(errno) => Err(AttachError::Mount { dir: dir.display().to_string(), errno }),
    }
}

fn kernel_flags(flags: &MountFlags) -> MsFlags {
    let mut ms = if flags.noatime { MsFlags::MS_NOATIME } else { MsFlags::MS_RELATIME };
    ms.set(MsFlags::MS_RDONLY, flags.read_only);
    ms.set(MsFlags::MS_NODEV, !flags.dev);
    ms.set(MsFlags::MS_NOSUID, !flags.suid);
    ms.set(MsFlags::MS_NOEXEC, !flags.exec);
    ms.set(MsFlags::MS_SYNCHRONOUS, flags.sync);
    ms.set(MsFlags::MS_DIRSYNC, flags.dirsync);
    ms
}

/// The same as options for the helper, which sets `nodev` and `nosuid` by itself.
fn helper_options(source: &str, flags: &MountFlags) -> String {
    let mut options = format!("fsname={source},subtype=rchfs,default_permissions");
    for (set, text) in [
        (flags.noatime, ",noatime"),
        (flags.allow_other, ",allow_other"),
        (flags.read_only, ",ro"),
        (!flags.exec, ",noexec"),
        (flags.sync, ",sync"),
        (flags.dirsync, ",dirsync"),
    ] {
        if set {
            options.push_str(text);
        }
    }
    options
}

/// The helper mounts, and sends the open device through a socket.
fn by_helper(source: &str, dir: &Path, flags: &MountFlags) -> Result<OwnedFd, AttachError> {
    let os = |e: Errno| AttachError::HelperIo(e.into());
    // No close-on-exec: the helper inherits its end. Ours closes with this function.
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty()).map_err(os)?;
    let helper = Command::new(FUSERMOUNT)
        .arg("-o")
        .arg(helper_options(source, flags))
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => AttachError::NoHelper,
            _ => AttachError::HelperIo(e),
        })?;
    drop(theirs);
    let device = receive(&ours).map_err(AttachError::HelperIo)?;
    let output = helper.wait_with_output().map_err(AttachError::HelperIo)?;
    match device {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(AttachError::Helper(complaint(&output.stderr))),
    }
}

/// The helper's last line is why it failed; those before are warnings.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().rfind(|l| !l.trim().is_empty());
    line.map_or_else(|| "fusermount3 failed and does not say why".to_owned(), |l| l.trim().to_owned())
}

/// The descriptor that comes through `socket`; `None` if it closes without one.
fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = part
            && let Some(fd) = fds.first()
        {
            // SAFETY: the kernel has just made this descriptor for us out of the message; nothing else in
            // the process knows its number, so nothing else owns or closes it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(*fd) }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: MountFlags = MountFlags {
        read_only: false,
        allow_other: false,
        dev: true,
        suid: true,
        exec: true,
        noatime: false,
        sync: false,
        dirsync: false,
    };

    #[test]
    fn flags_reach_the_kernel_and_the_helper_alike() {
        assert_eq!(kernel_flags(&PLAIN), MsFlags::MS_RELATIME);
        assert_eq!(helper_options("none", &PLAIN), "fsname=none,subtype=rchfs,default_permissions");
        let strict =
            MountFlags { read_only: true, exec: false, dev: false, suid: false, noatime: true, ..PLAIN };
        assert_eq!(
            kernel_flags(&strict),
            MsFlags::MS_RDONLY
                | MsFlags::MS_NOEXEC
                | MsFlags::MS_NODEV
                | MsFlags::MS_NOSUID
                | MsFlags::MS_NOATIME
        );
        assert!(helper_options("none", &strict).ends_with(",noatime,ro,noexec"));
    }

    #[test]
    fn the_last_line_of_the_helper_is_its_reason() {
        assert_eq!(
            complaint(b"fusermount3: warning\nfusermount3: no write access\n\n"),
            "fusermount3: no write access"
        );
        assert!(complaint(b"").contains("does not say"));
    }
}
