//! `rcmp clone`: a copy of a file or a tree on a mounted rchfs that shares its data until one side writes.
//!
//! Everything is asked of the mount by system calls: a file by copy_file_range(2), a directory by the extended attribute
//! that the mount understands as a command (`rchfs/SEMANTICS.md`).

use super::ToolError;
use clap::Args;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::fs::{self, File, FileTimes, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The attribute whose setting clones a directory.
const CLONE: &str = "user.rchfs.clone";
/// The type of our mounts in /proc/self/mountinfo.
const TYPE: &str = "fuse.rchfs";

#[derive(Debug, Args)]
pub(super) struct CloneArgs {
    /// A regular file or a directory on a mounted rchfs.
    source: PathBuf,
    /// What it becomes: a name on the same mount that does not exist.
    target: PathBuf,
}

pub(super) fn run(arguments: &CloneArgs) -> Result<(), ToolError> {
    let CloneArgs { source, target } = arguments;
    let about = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| ToolError::Io(path, error)
    };
    let meta = fs::symlink_metadata(source).map_err(about(source))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let there = fs::metadata(parent).map_err(about(parent))?;
    if meta.dev() != there.dev() || !is_rchfs(meta.dev()).map_err(about(source))? {
        return Err(ToolError::Usage(format!(
            "{} and {} must be on the same mounted rchfs; use cp -a",
            source.display(),
            target.display()
        )));
    }
    match meta.file_type() {
        kind if kind.is_file() => clone_file(source, target, &meta),
        kind if kind.is_dir() => clone_dir(source, target, &meta),
        _ => Err(ToolError::Usage(format!(
            "{} is neither a regular file nor a directory; use cp -a",
            source.display()
        ))),
    }
}

/// Whether the device number is that of an rchfs mount.
fn is_rchfs(device: u64) -> io::Result<bool> {
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| {
        let (before, after) = line.split_once(" - ").unwrap_or((line, ""));
        before.split(' ').nth(2) == Some(&wanted) && after.split(' ').next() == Some(TYPE)
    }))
}

fn clone_file(source: &Path, target: &Path, meta: &Metadata) -> Result<(), ToolError> {
    let failed = |path: &Path, error: io::Error| ToolError::Io(path.display().to_string(), error);
    let from = File::open(source).map_err(|e| failed(source, e))?;
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
    let to = to.map_err(|e| failed(target, e))?;
    let filled = fill(&from, &to, meta);
    if filled.is_err() {
        // A part of a copy is worth nothing; that it cannot be removed changes nothing about that.
        let _ = fs::remove_file(target);
    }
    filled.map_err(|e| failed(target, e))
}

fn fill(from: &File, to: &File, meta: &Metadata) -> io::Result<()> {
    while rustix::fs::copy_file_range(from, None, to, None, usize::MAX >> 1)? > 0 {}
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(to, Some(meta.uid()), Some(meta.gid()))?;
    }
    to.set_permissions(fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    to.set_times(FileTimes::new().set_accessed(meta.accessed()?).set_modified(meta.modified()?))
}

fn clone_dir(source: &Path, target: &Path, meta: &Metadata) -> Result<(), ToolError> {
    let failed = |path: &Path, error: io::Error| ToolError::Io(path.display().to_string(), error);
    let from = File::open(source).map_err(|e| failed(source, e))?;
    // What programs have written may still be in the kernel's cache only.
    rustix::fs::syncfs(&from).map_err(|e| failed(source, e.into()))?;
    fs::create_dir(target).map_err(|e| failed(target, e))?;
    let number = meta.ino().to_string();
    rustix::fs::setxattr(target, CLONE, number.as_bytes(), XattrFlags::empty()).map_err(|errno| {
        // It is empty, and was made just now.
        let _ = fs::remove_dir(target);
        match errno {
            Errno::PERM => ToolError::Usage(format!(
                "only root, and who owns {} and all that is in it, may clone it",
                source.display()
            )),
            Errno::INVAL => ToolError::Usage(format!("{} cannot be cloned into itself", source.display())),
            errno => failed(target, errno.into()),
        }
    })
}
