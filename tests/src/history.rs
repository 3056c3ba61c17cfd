//! Recordings of what real clients did to the pool, and whether they keep the promises of `pool`.
//!
//! Each thread of a workload has a [`Recorder`], which writes to a file of its own what the thread is about
//! to do and what came of it, with times of the one clock that all processes of a machine share. [`load`]
//! puts the files of all threads and processes together; [`check`] finds what no correct pool could have
//! answered:
//!
//! 1. Every aligned word of 8 bytes is linearizable under read, write and compare-and-swap ([`word`]). An
//!    operation on several words is one operation on each of them, with the same times.
//! 2. A page that was freed is not accessed, nor is one that was not yet allocated; a page that lives is
//!    not missing; no page is given out twice ([`pages`]).
//! 3. What is read was written to this word: a [`value`] carries the word that it is for, and was written
//!    once, so the bytes of another page are recognized even if that page's writer was not recorded.
//!
//! 4. Each key of a hash table is linearizable as well ([`keys`]).
//!
//! **Unknown outcomes.** An operation that failed, or whose process was killed before it could say what
//! came of it, may have been done, may not have been, and may yet be done at any later time. If what it
//! wrote is seen it was done.
//!
//! All words are zero at first. Nothing here knows the pool: addresses and pages are numbers.

pub mod check;
pub mod keys;
pub mod load;
pub mod pages;
pub mod record;
pub mod report;
#[cfg(test)]
mod tests;
pub mod value;
pub mod word;

pub use check::{Verdict, check};
pub use load::load;
pub use record::Recorder;
pub use report::{Kind, Violation};

use serde::{Deserialize, Serialize};

/// The end of what has not ended.
pub const NEVER: u64 = u64::MAX;

/// Nanoseconds of `CLOCK_MONOTONIC`: the same in all processes of a machine.
pub fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// What a client asks of the pool. Addresses are in bytes and multiples of 8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Read so many words from an address on.
    Read {
        /// The first word.
        at: u64,
        /// How many.
        words: u32,
    },
    /// Write words from an address on.
    Write {
        /// The first word.
        at: u64,
        /// What.
        values: Vec<u64>,
    },
    /// Compare and swap a word.
    Cas {
        /// The word.
        at: u64,
        /// What it must be.
        old: u64,
        /// What it becomes.
        new: u64,
    },
    /// Allocate pages of zeroes.
    Alloc {
        /// How many.
        pages: u64,
    },
    /// Free a page.
    Free {
        /// Its number.
        page: u64,
    },
    /// Something with a key of a hash table.
    Key {
        /// Its number.
        key: u64,
        /// What.
        ask: Ask,
    },
}

/// What a client asks of a hash table about a key. Values stand for byte strings, and each is put in once;
/// `None` is a key that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Its value: [`Outcome::Found`].
    Get,
    /// Insert or replace it; whether it was not there is [`Outcome::Told`].
    Put(u64),
    /// Take it away; whether it was there is [`Outcome::Told`].
    Remove,
    /// Replace `old` by `new`: [`Outcome::Done`], or what it was instead is [`Outcome::Found`].
    Swap {
        /// What it must be.
        old: Option<u64>,
        /// What it becomes.
        new: Option<u64>,
    },
}

/// What came of an [`Action`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done: of a write or of freeing.
    Done,
    /// The words that were read.
    Values(Vec<u64>),
    /// What the word was; it has been changed if that is what it had to be.
    Was(u64),
    /// The numbers of the pages that were allocated.
    Pages(Vec<u64>),
    /// The value of a key.
    Found(Option<u64>),
    /// An answer to a yes-or-no question.
    Told(bool),
    /// Refused: there is no such page.
    Gone,
    /// Any other error, or no answer.
    Unknown(String),
}

/// An operation, from before it began until after it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The thread; unique among all threads of all processes.
    pub writer: u16,
    /// Counts the operations of the thread.
    pub number: u32,
    /// When it had not begun yet.
    pub begin: u64,
    /// When it had been answered; [`NEVER`] if it was not.
    pub end: u64,
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

/// What all recorded threads did, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Binary logarithm of the size of a page.
    pub page_shift: u32,
    /// The operations.
    pub events: Vec<Event>,
}
