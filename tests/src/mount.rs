//! A `mount.rchfs --foreground` process and its mount point: started, waited for, unmounted, killed.
//!
//! Whatever happens to the test, the mount point is unmounted and the process gone when the value is
//! dropped; if the test's thread is killed, the kernel kills the process with it.

use crate::binary;
use rustix::fs::statvfs;
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(5);

/// A running mount.
#[derive(Debug)]
pub struct Mount {
    dir: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// Why there is no mount: what the process said before it ended.
#[derive(Debug)]
pub struct MountFailed {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard error.
    pub message: String,
}

impl Mount {
    /// Mounts on `dir` with these `-o` options; returns when the file system answers. What the process
    /// says goes to the file `log`.
    ///
    /// # Errors
    /// [`MountFailed`] if the process ends before it answers.
    pub fn start(dir: &Path, options: &str, log: &Path) -> Result<Self, MountFailed> {
        Self::start_from("embedded", dir, options, log)
    }

    /// As [`start`](Self::start), from this source: the `HOST:PORT` of a master.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_from(source: &str, dir: &Path, options: &str, log: &Path) -> Result<Self, MountFailed> {
        let said = File::create(log).expect("the log can be made");
        let mut command = Command::new(binary::mount_rchfs());
        command.arg(source).arg(dir).args(["-o", &with_test_options(options), "--foreground"]);
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("a descriptor is free")).stderr(said);
        die_with_parent(&mut command);
        let child = command.spawn().expect("mount.rchfs starts");
        let mut mount = Self { dir: dir.into(), log: log.into(), child: Some(child) };
        mount.wait_until_it_answers()?;
        Ok(mount)
    }

    fn wait_until_it_answers(&mut self) -> Result<(), MountFailed> {
        let deadline = Instant::now() + PATIENCE;
        while !(is_mounted(&self.dir) && statvfs(&self.dir).is_ok()) {
            let child = self.child.as_mut().expect("just started");
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                return Err(MountFailed { status, message: self.said() });
            }
            assert!(Instant::now() < deadline, "no answer after {PATIENCE:?}; it said: {}", self.said());
            sleep(STEP);
        }
        Ok(())
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The id of the process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// What the process said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Unmounts as umount(8) does and waits for the process to end, which it must by itself.
    pub fn unmount(mut self) -> ExitStatus {
        self.detach(UnmountFlags::empty());
        let status = self.wait();
        if !status.success() {
            eprintln!("--- mount.rchfs ended with {status}; it said:\n{}---", self.said());
        }
        status
    }

    /// Waits for the process, which something else has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("running");
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "still running {PATIENCE:?} after the unmount");
            sleep(STEP);
        }
    }

    /// Kills the process with SIGKILL, waits until it is gone, and clears the mount point.
    pub fn kill(mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("a child can be killed");
        let status = child.wait().expect("a child can be waited for");
        assert_eq!(status.signal(), Some(9), "it had ended before: {status}; it said: {}", self.said());
        detach(&self.dir, UnmountFlags::DETACH);
    }

    /// Leaves the dead mount point behind, as a crash does: it answers `ENOTCONN`.
    pub fn kill_and_leave_the_mount_point(mut self) -> PathBuf {
        let mut child = self.child.take().expect("running");
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        self.dir.clone()
    }

    /// A file that was just closed may still be in the kernel's hands for a moment, hence the retries.
    fn detach(&self, flags: UnmountFlags) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while is_mounted(&self.dir) && !detach(&self.dir, flags) && Instant::now() < deadline {
            sleep(STEP);
        }
        assert!(!is_mounted(&self.dir), "{} stays mounted", self.dir.display());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if std::thread::panicking() {
            eprintln!("--- mount.rchfs said:\n{}---", self.said());
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while is_mounted(&self.dir) && !detach(&self.dir, UnmountFlags::empty()) {
            if Instant::now() > deadline {
                detach(&self.dir, UnmountFlags::DETACH);
                break;
            }
            sleep(STEP);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Ok(None) = child.try_wait() {
            if Instant::now() > deadline {
                eprintln!("mount.rchfs (pid {}) does not end after the unmount: killed", child.id());
                // Nothing can be done about a failure here, and `wait` below tells the rest.
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            sleep(STEP);
        }
    }
}

/// These `-o` options, after those in `RCHFS_TEST_OPTIONS`: a whole suite can be run with `io_uring=on` or
/// `cache=none`. What a test asks for itself comes last, and counts.
pub fn with_test_options(options: &str) -> String {
    match std::env::var("RCHFS_TEST_OPTIONS") {
        Ok(all) if !all.is_empty() => [&all, options].join(","),
        _ => options.to_owned(),
    }
}

/// Whether something is mounted on exactly `dir`. Never asks the file system itself, which may hang.
pub fn is_mounted(dir: &Path) -> bool {
    mount_type(dir).is_some()
}

/// The type of the file system mounted on exactly `dir`, as in `/proc/thread-self/mountinfo`.
pub fn mount_type(dir: &Path) -> Option<String> {
    mount_field(dir, 0)
}

/// The source of the file system mounted on exactly `dir`.
pub fn mount_source(dir: &Path) -> Option<String> {
    mount_field(dir, 1)
}

/// The super-block options of the file system mounted on exactly `dir`.
pub fn mount_options(dir: &Path) -> Option<String> {
    mount_field(dir, 2)
}

fn mount_field(dir: &Path, after_dash: usize) -> Option<String> {
    // Of the thread, which may have a mount namespace of its own.
    let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("/proc is mounted");
    // The last one is on top.
    let line = table.lines().rev().find(|line| line.split(' ').nth(4).map(Path::new) == Some(dir))?;
    let (_, rest) = line.split_once(" - ")?;
    rest.split(' ').nth(after_dash).map(String::from)
}

/// Unmounts `dir`, as root directly, otherwise with fusermount3; says whether it worked.
pub fn detach(dir: &Path, flags: UnmountFlags) -> bool {
    if rustix::process::geteuid().is_root() {
        return unmount(dir, flags).is_ok();
    }
    let mut fusermount = Command::new("fusermount3");
    fusermount.arg(if flags.contains(UnmountFlags::DETACH) { "-uz" } else { "-u" }).arg(dir);
    fusermount.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Has the kernel kill the command when the thread that starts it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only one async-signal-safe system call is made, and nothing allocated.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}
