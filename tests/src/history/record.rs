//! Writing down what a thread does, so that it survives the thread.
//!
//! What an operation is going to do is in the file, that is with the kernel, before it begins: if the
//! process is killed, whatever it may have done to the pool is known. How it ended is written together
//! with the beginning of the next one, which makes one system call an operation. The times are taken
//! right around the operation itself, not around the writing.

use super::{Action, Outcome, now, value};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What is in the file, one after the other, in postcard's encoding.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// The first.
    Thread { writer: u16, page_shift: u32 },
    /// An operation is about to begin, not before this time.
    Begin { time: u64, action: Action },
    /// The last one to begin has ended.
    End { begin: u64, end: u64, outcome: Outcome },
}

/// Writes down what one thread does. What cannot be written panics: a history with holes is worthless.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    writer: u16,
    values: u32,
    pending: Vec<u8>,
}

impl Recorder {
    /// Records the thread `writer`, which no other thread of the history is, to a new file. Pages have
    /// `1 << page_shift` bytes.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path, writer: u16, page_shift: u32) -> io::Result<Self> {
        assert!(writer < value::WRITERS, "thread {writer} is one too many for a history");
        let file = File::create_new(path)?;
        let mut recorder = Self { file, writer, values: 0, pending: Vec::new() };
        recorder.put(&Record::Thread { writer, page_shift });
        recorder.flush();
        Ok(recorder)
    }

    /// A value that nobody has written yet, for the word at `at`.
    pub fn value(&mut self, at: u64) -> u64 {
        self.values += 1;
        value::make(at, self.writer, self.values)
    }

    /// Does `operation`, which is what `action` says, and records when and what came of it.
    pub fn run<T>(&mut self, action: Action, operation: impl FnOnce() -> (Outcome, T)) -> T {
        self.put(&Record::Begin { time: now(), action });
        self.flush();
        let begin = now();
        let (outcome, result) = operation();
        let end = now();
        self.put(&Record::End { begin, end, outcome });
        result
    }

    fn put(&mut self, record: &Record) {
        let pending = std::mem::take(&mut self.pending);
        self.pending = postcard::to_extend(record, pending).expect("a record can be encoded");
    }

    fn flush(&mut self) {
        self.file.write_all(&self.pending).expect("the recording can be written");
        self.pending.clear();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.flush();
        }
    }
}
