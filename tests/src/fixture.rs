//! A file system for one test, in a temporary directory of its own: rchfs, or the reference.

use crate::mount::{Mount, detach};
use rustix::fs::{StatVfs, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount};
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file system for one test.
#[derive(Debug)]
pub struct Fixture {
    // Before `top`, which removes the directory that it is mounted on.
    mount: Option<Mount>,
    dir: PathBuf,
    top: TempDir,
}

/// Runs `test` on a new file system with these `-o` options (`size=64M`), which others may use too.
///
/// Where the machine has no FUSE the test fails; with `RCHFS_ALLOW_NO_FUSE=1` it says that it was
/// skipped.
pub fn on_fs(options: &str, test: impl FnOnce(&Fixture)) {
    if let Some(fixture) = Fixture::new(options) {
        test(&fixture);
    }
}

/// As [`on_fs`], for a test that needs the rights of root (other users, devices, `trusted.*`); an
/// ordinary user is told that it was skipped.
pub fn on_fs_as_root(options: &str, test: impl FnOnce(&Fixture)) {
    if rustix::process::geteuid().is_root() {
        on_fs(options, test);
    } else {
        skipped("needs root");
    }
}

impl Fixture {
    fn new(options: &str) -> Option<Self> {
        let top = temp_dir();
        let dir = top.path().join("mnt");
        fs::create_dir(&dir).expect("a directory can be made");
        let mount = if is_reference() {
            mount_reference(&dir, options);
            None
        } else if has_fuse() {
            Some(mount_rchfs(&dir, options, &top))
        } else {
            return None;
        };
        Some(Self { mount, dir, top })
    }

    /// The mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A name in the top directory of the file system.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A name outside the file system, in a directory that goes with it.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// A new file with these contents, open for reading and writing.
    pub fn file(&self, name: &str, contents: &[u8]) -> File {
        let path = self.path(name);
        fs::write(&path, contents).expect("a file can be written");
        File::options().read(true).write(true).open(path).expect("it can be opened")
    }

    /// A new directory with this mode, whatever the umask.
    pub fn subdir(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a directory can be made");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("its mode can be set");
        path
    }

    /// The figures of the file system.
    pub fn statfs(&self) -> StatVfs {
        statvfs(&self.dir).expect("the file system answers")
    }

    /// The process that serves it; none for the reference.
    pub fn mount(&self) -> Option<&Mount> {
        self.mount.as_ref()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if self.mount.is_none() && !detach(&self.dir, UnmountFlags::empty()) {
            detach(&self.dir, UnmountFlags::DETACH);
        }
    }
}

/// Whether the tests run on the reference, a tmpfs, instead of rchfs.
pub fn is_reference() -> bool {
    match std::env::var("RCHFS_E2E_REFERENCE") {
        Ok(name) if name == "tmpfs" => true,
        Ok(name) => panic!("RCHFS_E2E_REFERENCE={name}: only tmpfs is known"),
        Err(_) => false,
    }
}

/// A temporary directory that other users can reach into.
pub fn temp_dir() -> TempDir {
    let dir = tempfile::Builder::new().prefix("rchfs-e2e-").tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its mode can be set");
    dir
}

/// Whether there is FUSE to test with; without it the test fails unless `RCHFS_ALLOW_NO_FUSE=1`.
pub fn has_fuse() -> bool {
    match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(error) if std::env::var_os("RCHFS_ALLOW_NO_FUSE").is_some_and(|v| v == "1") => {
            skipped(&format!("/dev/fuse: {error}"));
            false
        }
        Err(error) => {
            panic!("/dev/fuse: {error}; modprobe fuse, or set RCHFS_ALLOW_NO_FUSE=1 to skip these tests")
        }
    }
}

/// Says that the present test was skipped, and why; also in the file `RCHFS_E2E_SKIPPED`, if set.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    println!("skipped: {test}: {why}");
    if let Some(path) = std::env::var_os("RCHFS_E2E_SKIPPED") {
        use std::io::Write;
        let mut file =
            File::options().append(true).create(true).open(path).expect("the list of skipped tests");
        writeln!(file, "{test}: {why}").expect("the list of skipped tests");
    }
}

fn mount_rchfs(dir: &Path, options: &str, top: &TempDir) -> Mount {
    let root = rustix::process::geteuid().is_root();
    let options = if root { format!("{options},allow_other") } else { options.to_owned() };
    match Mount::start(dir, &options, &top.path().join("log")) {
        Ok(mount) => mount,
        Err(failed) => panic!("mount.rchfs -o {options}: {}: {}", failed.status, failed.message),
    }
}

/// Of the options only the size means anything to tmpfs.
fn mount_reference(dir: &Path, options: &str) {
    let size = options.split(',').find(|option| option.starts_with("size=")).unwrap_or("size=256M");
    let data = CString::new(format!("mode=755,{size}")).expect("no zero byte");
    mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(data.as_c_str())).expect("tmpfs can be mounted");
}
