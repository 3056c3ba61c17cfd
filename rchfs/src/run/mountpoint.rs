//! The directory to mount on: that it is there, and free.
//!
//! A mount whose process was killed leaves a directory on which every access fails with `ENOTCONN`. If
//! that mount was one of ours it is detached, and the directory is used again; any other is left alone.

use super::detach;
use super::holder;
use super::table::{self, Mount};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Dead mounts one on another that are cleared before giving up.
const MOST_DEAD: usize = 32;

/// Why a directory cannot be mounted on.
#[derive(Debug, Error)]
pub enum MountPointError {
    /// It does not exist.
    #[error("{0} does not exist; make it with: mkdir -p {0}")]
    Missing(String),
    /// It is a file or something else.
    #[error("{0} is not a directory; name an existing directory to mount on")]
    NotADirectory(String),
    /// It is mounted already, and served.
    #[error("{dir} is already mounted{}; to mount it anew: {} {dir}", pid.map(|p| format!(" (by process {p})")).unwrap_or_default(), detach::command())]
    Mounted {
        /// The directory.
        dir: String,
        /// Who serves it, if that is known.
        pid: Option<u32>,
    },
    /// A dead mount that is not ours.
    #[error("{dir} is a dead mount of type {fs_type}; clear it with: umount -l {dir}")]
    DeadOther {
        /// The directory.
        dir: String,
        /// What was mounted.
        fs_type: String,
    },
    /// A dead mount of ours that does not go away.
    #[error(
        "{dir} is left over from a mount whose process is gone, and cannot be cleared ({reason}); an administrator can, with: umount -l {dir}"
    )]
    Stuck {
        /// The directory.
        dir: String,
        /// What the system said.
        reason: String,
    },
    /// Anything else.
    #[error("{dir}: {source}")]
    Io {
        /// The directory.
        dir: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes sure that `dir` can be mounted on, and returns its absolute path without links.
///
/// # Errors
/// If it cannot.
pub fn prepare(dir: &Path) -> Result<PathBuf, MountPointError> {
    let io_error = |source| MountPointError::Io { dir: show(dir), source };
    for _ in 0..MOST_DEAD {
        let path = locate(dir)?;
        let top = table::top(&path).map_err(io_error)?;
        match (look(&path), top) {
            (Err(e), top) if is_dead(&e) => clear(&path, top)?,
            (_, Some(top)) if top.is_rchfs() => {
                return Err(MountPointError::Mounted {
                    dir: show(&path),
                    pid: holder::server_of(&top.device),
                });
            }
            (Err(e), _) => return Err(io_error(e)),
            (Ok(meta), _) if !meta.is_dir() => return Err(MountPointError::NotADirectory(show(dir))),
            (Ok(_), _) => return Ok(path),
        }
    }
    Err(MountPointError::Stuck { dir: show(dir), reason: format!("more than {MOST_DEAD} mounts there") })
}

/// Keeps others that mount on the same directory waiting while it lives.
pub struct Claim {
    _lock: Option<Flock<File>>,
}

/// Claims `dir`, as [`prepare`] returned it, for the moment of mounting.
///
/// # Errors
/// If another process was quicker.
pub fn claim(dir: &Path) -> Result<Claim, MountPointError> {
    let lock = File::open(dir).ok().map(|file| Flock::lock(file, FlockArg::LockExclusive));
    match table::top(dir) {
        Ok(Some(top)) if top.is_rchfs() => {
            Err(MountPointError::Mounted { dir: show(dir), pid: holder::server_of(&top.device) })
        }
        // Who may mount here but not read takes no lock: then two at once mount over one another.
        Ok(_) => Ok(Claim { _lock: lock.and_then(Result::ok) }),
        Err(source) => Err(MountPointError::Io { dir: show(dir), source }),
    }
}

/// The absolute path without links, even if what is there is a dead mount.
fn locate(dir: &Path) -> Result<PathBuf, MountPointError> {
    let error = |e: io::Error| match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => MountPointError::Missing(show(dir)),
        Some(Errno::ENOTDIR) => MountPointError::NotADirectory(show(dir)),
        _ => MountPointError::Io { dir: show(dir), source: e },
    };
    match fs::canonicalize(dir) {
        Err(e) if is_dead(&e) => {
            let absolute = std::path::absolute(dir).map_err(error)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(fs::canonicalize(parent).map_err(error)?.join(name)),
                _ => Err(error(e)),
            }
        }
        other => other.map_err(error),
    }
}

/// What is at `path`, after asking whoever serves it: attributes alone may come out of the kernel's cache
/// long after a server is gone.
fn look(path: &Path) -> io::Result<fs::Metadata> {
    nix::sys::statvfs::statvfs(path)?;
    fs::metadata(path)
}

fn is_dead(e: &io::Error) -> bool {
    matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::ENOTCONN | Errno::ECONNABORTED))
}

/// Detaches a dead mount, if it is ours.
fn clear(dir: &Path, top: Option<Mount>) -> Result<(), MountPointError> {
    match top {
        Some(top) if top.is_rchfs() => {
            log::info!("{}: clearing a mount whose process is gone", dir.display());
            detach::lazily(dir).map_err(|e| MountPointError::Stuck { dir: show(dir), reason: e.to_string() })
        }
        Some(top) => Err(MountPointError::DeadOther { dir: show(dir), fs_type: top.fs_type }),
        None => Err(MountPointError::Stuck { dir: show(dir), reason: "a directory above it is dead".into() }),
    }
}

fn show(dir: &Path) -> String {
    dir.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &str) -> String {
        prepare(Path::new(dir)).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_directory_says_how_to_make_it() {
        assert!(refused("/no/such/dir").contains("mkdir -p /no/such/dir"));
    }

    #[test]
    fn a_file_is_no_mount_point() {
        assert!(refused("/proc/self/status").contains("is not a directory"));
        assert!(refused("/proc/self/status/x").contains("is not a directory"));
    }

    #[test]
    fn links_and_dots_are_resolved() {
        assert_eq!(prepare(Path::new("/usr/./bin/..")).unwrap(), Path::new("/usr"));
    }
}
