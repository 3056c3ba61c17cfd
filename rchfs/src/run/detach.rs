//! Taking a mount away again: directly where the process may, else through fusermount3.

use super::attach::FUSERMOUNT;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// What this user types to unmount.
pub fn command() -> &'static str {
    if nix::unistd::geteuid().is_root() { "umount" } else { "fusermount3 -u" }
}

/// Unmounts `dir`.
///
/// # Errors
/// `EBUSY` if the mount is in use; anything else the system says.
pub fn now(dir: &Path) -> io::Result<()> {
    unmount(dir, MntFlags::UMOUNT_NOFOLLOW, &[])
}

/// Unmounts `dir` for all who come after; who uses the mount now goes on using it.
///
/// # Errors
/// What the system says.
pub fn lazily(dir: &Path) -> io::Result<()> {
    unmount(dir, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH, &["-z"])
}

fn unmount(dir: &Path, flags: MntFlags, words: &[&str]) -> io::Result<()> {
    match umount2(dir, flags) {
        Err(Errno::EPERM) => through_helper(dir, words),
        other => Ok(other?),
    }
}

fn through_helper(dir: &Path, words: &[&str]) -> io::Result<()> {
    let mut helper = Command::new(FUSERMOUNT);
    helper.arg("-u").args(words).arg("--").arg(dir).stdin(Stdio::null());
    let output = helper.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if text.contains("busy") { io::ErrorKind::ResourceBusy } else { io::ErrorKind::Other };
    Err(io::Error::new(kind, text))
}
