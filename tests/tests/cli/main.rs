//! The command line of `mount.rchfs` as users, mount(8) and init systems use it.

mod background;
mod helper;
mod life;
mod options;
mod rings;
mod user;

use e2e::mount::{detach, is_mounted, with_test_options};
use e2e::rustix::mount::UnmountFlags;
use e2e::{binary, fixture};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A directory to mount on, unmounted when the test ends in whatever way.
pub struct Place {
    top: TempDir,
    dir: PathBuf,
}

impl Place {
    /// A new one; `None` where these tests cannot run.
    pub fn new() -> Option<Self> {
        if fixture::is_reference() {
            fixture::skipped("a tmpfs has another command line");
            return None;
        }
        if !fixture::has_fuse() {
            return None;
        }
        let top = fixture::temp_dir();
        let dir = top.path().join("mnt");
        fs::create_dir(&dir).expect("a directory can be made");
        Some(Self { top, dir })
    }

    /// The directory to mount on.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A name beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    /// `mount.rchfs DIR -o OPTIONS`.
    pub fn command(&self, options: &str) -> Command {
        let mut command = Command::new(binary::mount_rchfs());
        command.arg(&self.dir).args(["-o", &with_test_options(options)]);
        command
    }

    /// Unmounts and waits until the process that served it, if any, is gone.
    pub fn unmount(&self) {
        let pid = self.server();
        assert!(detach(&self.dir, UnmountFlags::empty()), "{} cannot be unmounted", self.dir.display());
        if let Some(pid) = pid {
            wait_for(|| !alive(pid), "the process ends after the unmount");
        }
    }

    /// The process that serves the mount: the one with `/dev/fuse` open and the directory as an argument.
    pub fn server(&self) -> Option<u32> {
        let processes = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let program = cmdline.split(|byte| *byte == 0).next().unwrap_or_default();
            let dir = self.dir.as_os_str().as_encoded_bytes();
            program.ends_with(b"mount.rchfs") && cmdline.split(|byte| *byte == 0).any(|word| word == dir)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while is_mounted(&self.dir) && detach(&self.dir, UnmountFlags::DETACH) {}
    }
}

/// Whether there is such a process, and it is no zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits up to ten seconds.
#[track_caller]
pub fn wait_for(condition: impl Fn() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Runs a command that must be refused with this exit code and one line; returns the line.
#[track_caller]
pub fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().expect("mount.rchfs runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}
