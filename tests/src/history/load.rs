//! Putting the recordings of all threads together.

use super::record::Record;
use super::{Action, Event, History, NEVER, Outcome};
use std::fs;
use std::path::Path;

/// The recordings in all files of `dir` whose names end in `.history`.
///
/// # Errors
/// What is wrong with which file. A file that ends in the middle of a record is right: its process was
/// killed.
pub fn load(dir: &Path) -> Result<History, String> {
    let mut history = History::default();
    let entries = fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "history") {
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        add(&mut history, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(history)
}

/// Adds one recording to `history`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn add(history: &mut History, mut bytes: &[u8]) -> Result<(), String> {
    let mut thread = None;
    let mut begun: Option<(u64, Action)> = None;
    let mut number = 0;
    while !bytes.is_empty() {
        let record = match postcard::take_from_bytes(bytes) {
            Ok((record, rest)) => {
                bytes = rest;
                record
            }
            Err(postcard::Error::DeserializeUnexpectedEnd) => break,
            Err(error) => return Err(format!("{} bytes before its end: {error}", bytes.len())),
        };
        match (record, thread) {
            (Record::Thread { writer, page_shift }, None) => {
                if !history.events.is_empty() && history.page_shift != page_shift {
                    return Err("its pages have another size than those of the others".into());
                }
                history.page_shift = page_shift;
                thread = Some(writer);
            }
            (Record::Begin { time, action }, Some(_)) if begun.is_none() => begun = Some((time, action)),
            (Record::End { begin, end, outcome }, Some(writer)) => {
                let (_, action) = begun.take().ok_or("an operation ends that did not begin")?;
                number += 1;
                history.events.push(Event { writer, number, begin, end, action, outcome });
            }
            (record, _) => return Err(format!("unexpected: {record:?}")),
        }
    }
    if let (Some((begin, action)), Some(writer)) = (begun, thread) {
        let outcome = Outcome::Unknown("it did not end".into());
        history.events.push(Event { writer, number: number + 1, begin, end: NEVER, action, outcome });
    }
    Ok(())
}
