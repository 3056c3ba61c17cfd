//! Judging a whole history: the words it is about, one by one, and the pages.

use super::report::{Kind, Violation};
use super::word::{Did, WordOp};
use super::{Action, Event, History, Outcome, keys, pages, word};
use std::collections::HashMap;
use std::fmt;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How many words were accessed.
    pub words: usize,
    /// How many operations there were.
    pub operations: usize,
    /// Of those, how many have an unknown outcome.
    pub unknown: usize,
    /// Operations on the word that had most of them.
    pub busiest: usize,
    /// What no correct pool could have answered; at most one for each word, and those of the pages.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Panics with what was found unless that is nothing.
    #[track_caller]
    pub fn expect_none(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

/// Finds what no correct pool could have answered.
pub fn check(history: &History) -> Verdict {
    let mut violations = pages::check(history);
    violations.extend(keys::check(history));
    let mut words: HashMap<u64, Vec<WordOp<'_>>> = HashMap::new();
    for event in &history.events {
        if let Err(why) = split(event, &mut words) {
            violations.push(Violation::new(Kind::Malformed, 0, why, &[event]));
        }
    }
    let mut sorted: Vec<_> = words.iter().collect();
    sorted.sort_by_key(|(at, _)| **at);
    violations.extend(sorted.into_iter().filter_map(|(at, ops)| word::check(*at, ops).err()));
    let is_unknown = |event: &&Event| matches!(event.outcome, Outcome::Unknown(_));
    Verdict {
        words: words.len(),
        operations: history.events.len(),
        unknown: history.events.iter().filter(is_unknown).count(),
        busiest: words.values().map(Vec::len).max().unwrap_or(0),
        violations,
    }
}

/// What the event did to each of its words.
fn split<'e>(event: &'e Event, words: &mut HashMap<u64, Vec<WordOp<'e>>>) -> Result<(), &'static str> {
    let failed = matches!(event.outcome, Outcome::Unknown(_) | Outcome::Gone);
    let mut add = |at: u64, did: Did, maybe: bool| {
        words.entry(at).or_default().push(WordOp { event, did, maybe });
    };
    let each = |at: u64| (at..).step_by(8);
    match (&event.action, &event.outcome) {
        (Action::Read { .. }, _) if failed => {}
        (Action::Read { at, words }, Outcome::Values(values)) if values.len() == *words as usize => {
            each(*at).zip(values).for_each(|(at, value)| add(at, Did::Read(*value), false));
        }
        (Action::Write { at, values }, outcome) if failed || *outcome == Outcome::Done => {
            each(*at).zip(values).for_each(|(at, value)| add(at, Did::Write(*value), failed));
        }
        (Action::Cas { at, old, new }, Outcome::Was(was)) if was == old => {
            add(*at, Did::Cas { old: *old, new: *new }, false);
        }
        (Action::Cas { at, .. }, Outcome::Was(was)) => add(*at, Did::Read(*was), false),
        (Action::Cas { at, old, new }, _) if failed => add(*at, Did::Cas { old: *old, new: *new }, true),
        (Action::Alloc { pages }, Outcome::Pages(got)) if got.len() as u64 == *pages => {}
        (Action::Alloc { .. } | Action::Free { .. }, _) if failed => {}
        (Action::Free { .. }, Outcome::Done) => {}
        // Whether these fit is judged with the key.
        (Action::Key { .. }, _) => {}
        _ => return Err("the answer does not fit what was asked"),
    }
    Ok(())
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, operations, unknown, busiest, violations } = self;
        write!(f, "{operations} operations ({unknown} with unknown outcome) on {words} words")?;
        writeln!(f, ", up to {busiest} on one: {} violations", violations.len())?;
        violations.iter().take(8).try_for_each(|violation| write!(f, "\n{violation}"))
    }
}
