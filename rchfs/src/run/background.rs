//! Going into the background: the parent returns when the child says that the mount answers.
//!
//! The fork comes before any thread. The child keeps the parent's standard error until it reports, so
//! that what it has to say is seen; then it lets go of all three streams, or `$(mount ...)` would wait
//! for ever. The report is one line through a pipe: empty for success, else the reason. No line at all
//! means that the child died.

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Which of the two processes this is.
pub enum Side {
    /// The one that was started; waits for the other.
    Parent(Child),
    /// The one that will serve.
    Child(Report),
}

/// The parent's view of the child.
pub struct Child {
    pid: Pid,
    pipe: PipeReader,
}

/// Whom to tell that the mount answers, or why not, and how to detach from the terminal then.
pub struct Report {
    pipe: Option<PipeWriter>,
    log: Option<PathBuf>,
}

/// Forks. To be called while the process has one thread and no descriptors but the standard ones.
///
/// # Errors
/// What the system says.
pub fn split(log: Option<PathBuf>) -> io::Result<Side> {
    close_inherited();
    let (reader, writer) = io::pipe()?;
    // SAFETY: the process has one thread (nothing before this starts one), so the child is an ordinary
    // process in which every lock is free.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(Child { pid: child, pipe: reader })),
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            std::env::set_current_dir("/")?;
            Ok(Side::Child(Report { pipe: Some(writer), log }))
        }
    }
}

/// Descriptors that the shell left open (a lock, a pipe) must not live as long as the mount.
fn close_inherited() {
    // SAFETY: no descriptor above 2 is owned by anything in this process yet: it has opened none. A
    // kernel without the call (before 5.9) leaves them open, which harms nobody here.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

impl Child {
    /// Waits for the report.
    ///
    /// # Errors
    /// The reason for failure, in one line.
    pub fn wait(mut self) -> Result<(), String> {
        let mut line = String::new();
        self.pipe.read_to_string(&mut line).map_err(|e| format!("the serving process: {e}"))?;
        match line.strip_suffix('\n') {
            Some("") => Ok(()),
            Some(reason) => Err(reason.to_owned()),
            None => Err(self.obituary()),
        }
    }

    fn obituary(&self) -> String {
        let how = match waitpid(self.pid, None) {
            Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            Ok(WaitStatus::Exited(_, 0)) => "was told to stop".to_owned(),
            Ok(WaitStatus::Exited(_, code)) => format!("exited with status {code}"),
            _ => "is gone".to_owned(),
        };
        format!("the process that was to serve the mount {how}")
    }
}

impl Report {
    /// For a mount in the foreground: there is nobody to tell.
    pub fn foreground(log: Option<PathBuf>) -> Self {
        Self { pipe: None, log }
    }

    /// Whether this process is in the background.
    pub fn is_background(&self) -> bool {
        self.pipe.is_some()
    }

    /// The mount answers: detach, and let the parent go.
    ///
    /// # Errors
    /// If the parent is gone, and so nobody wants the mount any more; or if the log file cannot be opened.
    pub fn ready(mut self) -> io::Result<()> {
        if let Some(log) = &self.log {
            redirect(&open_log(log)?, &[2])?;
        }
        if let Some(mut pipe) = self.pipe.take() {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            redirect(&null, if self.log.is_some() { &[0, 1] } else { &[0, 1, 2] })?;
            pipe.write_all(b"\n")?;
        }
        Ok(())
    }

    /// It failed, for this reason: to the parent, or to standard error in the foreground.
    pub fn failed(mut self, reason: &str) {
        let reason = reason.trim().replace('\n', " ");
        match self.pipe.take() {
            // If the parent is gone too, there is nobody left to tell.
            Some(mut pipe) => drop(pipe.write_all(format!("{reason}\n").as_bytes())),
            None => super::complain(&reason),
        }
    }
}

/// Opens a log file for appending.
///
/// # Errors
/// With the path in the message.
pub fn open_log(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|e| io::Error::new(e.kind(), format!("log={}: {e}", path.display())))
}

/// Puts `file` in the place of standard streams.
fn redirect(file: &File, streams: &[i32]) -> io::Result<()> {
    for stream in streams {
        // SAFETY: dup2 onto 0, 1 or 2: descriptors that the standard library never closes and refers to by
        // number only, so replacing what they stand for invalidates nothing.
        if unsafe { libc::dup2(file.as_raw_fd(), *stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
