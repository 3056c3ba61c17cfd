//! Running other programs and looking at what they say.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// A command from a program and its arguments; add what else it needs, then [`ok`] or [`fails`].
pub fn command<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A shell script, run by bash with `-euo pipefail` in `dir`.
pub fn script(dir: &Path, text: &str) -> Command {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", text]).current_dir(dir);
    command
}

/// Runs it; it must succeed. Returns what it wrote to its standard output.
#[track_caller]
pub fn ok(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs it; it must fail. Returns its exit code (`None` if by a signal) and all it said.
#[track_caller]
pub fn fails(command: &mut Command) -> (Option<i32>, String) {
    let output = output(command);
    assert!(!output.status.success(), "{command:?} succeeded\n{}", said(&output));
    (output.status.code(), said(&output))
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    match command.output() {
        Ok(output) => output,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            panic!("{program}: {error}; scripts/test.sh installs what the tests run")
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
