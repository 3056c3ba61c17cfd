//! The shell in a terminal: editing, history, completion.

use super::commands::{COMMANDS, Next, Session};
use crate::tool::ToolError;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use std::path::PathBuf;

/// Lines that are kept from one session to the next.
const HISTORY: &str = ".rcmp_history";

/// Completes the first word to a command, and the others to names of the session.
struct Words {
    names: Vec<String>,
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let before = line.get(..at).unwrap_or(line);
        let begin = before.rfind([' ', '=']).map_or(0, |space| space + 1);
        let word = &before[begin..];
        let is_first = before[..begin].trim_end().is_empty() || before[..begin].trim_end().ends_with('=');
        let commands = COMMANDS.iter().filter(|_| is_first).map(|command| command.name.to_owned());
        let names = self.names.iter().filter(|_| !is_first).cloned();
        let fitting = commands.chain(names).filter(|candidate| candidate.starts_with(word));
        let pair = |text: String| Pair { display: text.clone(), replacement: text + " " };
        Ok((begin, fitting.map(pair).collect()))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

pub fn run(mut session: Session) -> Result<(), ToolError> {
    let failed = |error: ReadlineError| ToolError::No(format!("the terminal: {error}"));
    let mut editor: Editor<Words, DefaultHistory> = Editor::new().map_err(failed)?;
    editor.set_helper(Some(Words { names: Vec::new() }));
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(HISTORY));
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    println!("{}; `help` lists the commands, ctrl-D ends", session.greeting());
    loop {
        let line = match editor.readline("rcmp> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        if !line.trim().is_empty() {
            editor.add_history_entry(&line).map_err(failed)?;
        }
        match session.run(&line) {
            Ok(Next::Say(text)) => println!("{text}"),
            Ok(Next::Silence) => {}
            Ok(Next::End) => break,
            Err(why) => eprintln!("{why}"),
        }
        if let Some(words) = editor.helper_mut() {
            words.names = session.names();
        }
    }
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        eprintln!("rcmp: {}: the history is not kept: {error}", path.display());
    }
    Ok(())
}
