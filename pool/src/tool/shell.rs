//! `rcmp shell`: the operations of the pool, typed by hand or read from a script.
//!
//! In a terminal it edits lines, completes commands and names, and keeps a history. From a file or a pipe it reads
//! a command a line, shows no prompt, and ends at the first error with the number of the line.

mod commands;
mod terminal;

use super::{MasterArg, ToolError};
use crate::addr::RackId;
use clap::Args;
use commands::{Next, Session};
use std::io::{BufRead, IsTerminal, stdin, stdout};

#[derive(Debug, Args)]
pub(super) struct ShellArgs {
    #[command(flatten)]
    master: MasterArg,
    /// The rack whose client this is.
    #[arg(long, default_value_t = 0)]
    rack: u16,
}

pub(super) fn run(arguments: &ShellArgs) -> Result<(), ToolError> {
    let pool = arguments.master.pool(RackId(arguments.rack))?;
    let session = Session::new(pool);
    if stdin().is_terminal() && stdout().is_terminal() { terminal::run(session) } else { script(session) }
}

fn script(mut session: Session) -> Result<(), ToolError> {
    for (number, line) in (1..).zip(stdin().lock().lines()) {
        let line = line.map_err(|error| ToolError::Io("standard input".into(), error))?;
        match session.run(&line) {
            Ok(Next::Say(text)) => println!("{text}"),
            Ok(Next::Silence) => {}
            Ok(Next::End) => break,
            Err(why) => return Err(ToolError::No(format!("line {number}: {why}"))),
        }
    }
    Ok(())
}
