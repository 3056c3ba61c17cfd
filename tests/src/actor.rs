//! A second process that does what it is told, one line a command: what one process must see of
//! another cannot be tested within one.
//!
//! The program is `src/bin/actor.rs`, whose documentation lists the commands.

use crate::binary;
use crate::mount::die_with_parent;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

/// A process that obeys.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts one.
    pub fn start() -> Self {
        let mut command = Command::new(binary::actor());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("the actor was built with the tests");
        let commands = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, commands, replies }
    }

    /// Starts one that has `path` open for reading and writing.
    pub fn with_file(path: &Path) -> Self {
        let mut actor = Self::start();
        actor.ok(&format!("open {}", path.display()));
        actor
    }

    /// Gives it a command without waiting for the reply.
    pub fn begin(&mut self, command: &str) {
        let commands = self.commands.as_mut().expect("running");
        writeln!(commands, "{command}").and_then(|()| commands.flush()).expect("the actor listens");
    }

    /// Waits for the reply to a command: what was asked for, or the number of the error.
    ///
    /// # Errors
    /// The `errno` of the system call.
    pub fn end(&mut self) -> Result<String, i32> {
        let mut line = String::new();
        self.replies.read_line(&mut line).expect("the actor answers");
        match line.trim_end_matches('\n').split_once(' ') {
            Some(("err", number)) => Err(number.parse().expect("a number")),
            Some(("ok", rest)) => Ok(rest.to_owned()),
            _ => panic!("the actor said {line:?}"),
        }
    }

    /// Gives it a command and waits for the reply.
    ///
    /// # Errors
    /// The `errno` of the system call.
    pub fn tell(&mut self, command: &str) -> Result<String, i32> {
        self.begin(command);
        self.end()
    }

    /// Gives it a command that must succeed.
    #[track_caller]
    pub fn ok(&mut self, command: &str) -> String {
        match self.tell(command) {
            Ok(reply) => reply,
            Err(number) => panic!("{command}: {}", std::io::Error::from_raw_os_error(number)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.commands = None;
        // It ends when its input does, unless it is stuck; either way it must not outlive the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
