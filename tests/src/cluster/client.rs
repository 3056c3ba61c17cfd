//! A client process that records what it does: `src/bin/history/`, whose documentation lists its arguments.

use super::server::signal;
use crate::mount::die_with_parent;
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A running client.
#[derive(Debug)]
pub struct Client {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Client {
    /// Starts it; returns when it is connected.
    pub(super) fn start(mut command: Command, what: &str, arguments: &[String]) -> Self {
        command.arg(what).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("e2e-history was built with the tests");
        let says = BufReader::new(child.stdout.take().expect("piped"));
        let mut client = Self { child, says };
        let mut line = String::new();
        client.says.read_line(&mut line).expect("it can be read");
        assert_eq!(line, "ready\n", "the client did not connect; what it said is above");
        client
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Stops it with SIGSTOP, until [`go_on`](Self::go_on).
    pub fn stop(&self) {
        signal(&self.child, Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal(&self.child, Signal::CONT);
    }

    /// Waits until its time is over; how many operations there were, and how many of them failed.
    #[track_caller]
    pub fn finish(mut self) -> (u64, u64) {
        let mut text = String::new();
        self.says.read_to_string(&mut text).expect("it can be read");
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the client failed: {status}; what it said is above");
        let numbers = text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
        match numbers[..] {
            [operations, failed] => (operations, failed),
            _ => panic!("the client said {text:?}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It must not outlive the test; it may have ended, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
