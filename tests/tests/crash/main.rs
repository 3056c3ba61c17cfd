//! What survives: kill -9 of the mount at any moment, a clean unmount, and what must not be mounted.
//!
//! The promise (`rchfs/SEMANTICS.md`): with `cxl=FILE,state=DIR` any metadata operation that returned,
//! and data for which close or fsync returned, survives kill -9 of the mount.

mod expect;
mod kill;
mod persist;
mod refuse;
mod writer;

use e2e::{Mount, MountFailed, fixture};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A pool on files, and where it is mounted when it is.
pub struct Pool {
    top: TempDir,
    options: String,
}

impl Pool {
    /// A new pool with these further options; `None` where FUSE cannot be had and that is allowed.
    pub fn new(options: &str) -> Option<Self> {
        if fixture::is_reference() {
            fixture::skipped("a tmpfs does not survive anything");
            return None;
        }
        if !fixture::has_fuse() {
            return None;
        }
        let top = fixture::temp_dir();
        fs::create_dir(top.path().join("mnt")).expect("a directory can be made");
        Some(Self { top, options: options.into() })
    }

    /// Mounts it; it must work.
    pub fn mount(&self) -> Mount {
        match self.try_mount(&self.options) {
            Ok(mount) => mount,
            Err(failed) => panic!("not mounted: {}: {}", failed.status, failed.message),
        }
    }

    /// Mounts it with other options than before.
    ///
    /// # Errors
    /// As [`Mount::start`].
    pub fn try_mount(&self, options: &str) -> Result<Mount, MountFailed> {
        Mount::start(&self.dir(), &self.all_options(options), &self.path("log"))
    }

    /// The whole of `-o` with these options.
    pub fn all_options(&self, options: &str) -> String {
        format!("{options},cxl={},state={}", self.path("pool").display(), self.path("state").display())
    }

    /// The mount point.
    pub fn dir(&self) -> PathBuf {
        self.path("mnt")
    }

    /// A file or directory beside the mount point: `pool`, `state`, `log` or another.
    pub fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }
}

/// Asserts that a mount was refused as mount(8) wants it: exit code 32, and one line that says why, with
/// each of these words in it.
#[track_caller]
pub fn assert_refused(result: Result<Mount, MountFailed>, words: &[&str]) {
    let Err(failed) = result else { panic!("it was mounted") };
    assert_eq!(failed.status.code(), Some(32), "{}", failed.message);
    let lines: Vec<_> = failed.message.lines().filter(|line| !line.trim().is_empty()).collect();
    let reason = lines.last().expect("a reason");
    for word in words {
        assert!(reason.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not in: {reason}");
    }
}

/// Bytes that the files below `dir` take, each inode once.
pub fn du(dir: &Path) -> u64 {
    let text = e2e::run::ok(e2e::run::command("du", ["-s", "-B1"]).arg(dir));
    text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("du says a number")
}

/// Bytes that df shows as used.
pub fn df(dir: &Path) -> u64 {
    let stat = e2e::rustix::fs::statvfs(dir).expect("the file system answers");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}
