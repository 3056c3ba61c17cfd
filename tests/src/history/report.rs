//! What a violation looks like to whoever has to find its cause.

use super::{Action, Ask, Event, NEVER, Outcome, value};
use std::fmt;

/// Which promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A value was read that nobody wrote to this word, but that is for it.
    NeverWritten,
    /// A value was read that is for another word: other bytes than this page's, or this word's.
    OtherWord,
    /// A value was seen before anybody began to write it.
    Future,
    /// Two compare-and-swaps replaced the same value: one of the two updates was lost.
    LostUpdate,
    /// Compare-and-swaps each of which needs another one of them to come first.
    CasCycle,
    /// A value was seen after another one had replaced it.
    Stale,
    /// The same value was written twice: the recording cannot be judged.
    WrittenTwice,
    /// A page was accessed after it had been freed.
    AfterFree,
    /// A page was accessed before it was allocated.
    BeforeAlloc,
    /// A page that lives was said not to exist.
    LostPage,
    /// The same page was given out twice.
    AllocatedTwice,
    /// The same page was freed twice, successfully.
    FreedTwice,
    /// There is no order of what was done to a key of a hash table that explains all answers.
    NoOrder,
    /// The answer does not fit what was asked.
    Malformed,
}

/// What no correct pool could have answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise was broken.
    pub kind: Kind,
    /// The word, or the first byte of the page.
    pub at: u64,
    /// Why it is one, in a sentence.
    pub why: String,
    /// The operations that show it, in the order in which they began.
    pub events: Vec<Event>,
}

impl Violation {
    pub(super) fn new(kind: Kind, at: u64, why: impl Into<String>, events: &[&Event]) -> Self {
        let mut events: Vec<Event> = events.iter().map(|event| (*event).clone()).collect();
        events.sort_by_key(|event| (event.begin, event.writer, event.number));
        events.dedup();
        Self { kind, at, why: why.into(), events }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?} at {:#x}: {}", self.kind, self.at, self.why)?;
        let first = self.events.first().map_or(0, |event| event.begin);
        for event in &self.events {
            let end = match event.end {
                NEVER => "      never".into(),
                end => format!("{:8.3} us", end.saturating_sub(first) as f64 / 1000.0),
            };
            let begin = event.begin.saturating_sub(first) as f64 / 1000.0;
            let name = name(event);
            writeln!(f, "  {begin:8.3} to {end}  {name:>12}  {}", describe(event, self.at))?;
        }
        Ok(())
    }
}

/// What the operation is called in sentences: its thread, and its number there.
pub(super) fn name(event: &Event) -> String {
    format!("t{}#{}", event.writer, event.number)
}

/// A value in short: who wrote it.
pub(super) fn short(value: u64) -> String {
    let (writer, number) = value::origin(value);
    if value == 0 { "0".into() } else { format!("{writer}.{number}") }
}

/// The part of the operation that concerns the word at `word`.
fn describe(event: &Event, word: u64) -> String {
    let nth = |at: u64, values: &[u64]| {
        let value = word.checked_sub(at).and_then(|offset| values.get(offset as usize / 8));
        value.map_or("-".into(), |value| short(*value))
    };
    let asked = match &event.action {
        Action::Read { words, .. } => format!("read ({words} words)"),
        Action::Write { at, values } => format!("write {} ({} words)", nth(*at, values), values.len()),
        Action::Cas { old, new, .. } => format!("cas {} -> {}", short(*old), short(*new)),
        Action::Alloc { pages } => format!("alloc {pages}"),
        Action::Free { page } => format!("free p{page:x}"),
        Action::Key { key, ask } => format!("key {key}: {}", asked_of_key(ask)),
    };
    let got = match (&event.outcome, &event.action) {
        (Outcome::Values(values), Action::Read { at, .. }) => nth(*at, values),
        (Outcome::Was(was), _) => format!("was {}", short(*was)),
        (Outcome::Pages(pages), _) => format!("{pages:x?}"),
        (Outcome::Done | Outcome::Values(_), _) => "done".into(),
        (Outcome::Found(found), _) => found.map_or("absent".into(), short),
        (Outcome::Told(told), _) => if *told { "yes" } else { "no" }.into(),
        (Outcome::Gone, _) => "no such page".into(),
        (Outcome::Unknown(reason), _) => format!("unknown: {reason}"),
    };
    format!("{asked}: {got}")
}

fn asked_of_key(ask: &Ask) -> String {
    let name = |value: &Option<u64>| value.map_or("absent".into(), short);
    match ask {
        Ask::Get => "get".into(),
        Ask::Put(value) => format!("put {}", short(*value)),
        Ask::Remove => "remove".into(),
        Ask::Swap { old, new } => format!("swap {} -> {}", name(old), name(new)),
    }
}
