//! The lives of pages: accessed only between their allocation and their end, and given out once.
//!
//! A page whose allocation was not recorded has been there from the beginning.

use super::report::{Kind, Violation, name};
use super::{Action, Event, History, Outcome};
use std::collections::HashMap;

#[derive(Default)]
struct Life<'e> {
    alloc: Option<&'e Event>,
    /// The one that succeeded.
    freed: Option<&'e Event>,
    /// When somebody first tried to.
    doomed: Option<u64>,
    /// Those who were told that there is no such page.
    refused: Vec<&'e Event>,
}

/// Finds accesses to pages that did not live then, and pages that lived and were not found.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = Vec::new();
    let lives = lives(history, &mut violations);
    for (page, life) in &lives {
        violations.extend(life.refused.iter().filter_map(|event| not_freed(history, event, *page, life)));
    }
    for event in &history.events {
        let Some(pages) = accessed(history, event) else { continue };
        let pages = pages.filter_map(|page| Some((page, lives.get(&page)?)));
        match event.outcome {
            Outcome::Gone => violations.extend(not_found(history, event, &lives)),
            Outcome::Unknown(_) => {}
            _ => violations.extend(pages.filter_map(|(page, life)| out_of_life(history, event, page, life))),
        }
    }
    violations
}

fn lives<'e>(history: &'e History, violations: &mut Vec<Violation>) -> HashMap<u64, Life<'e>> {
    let mut lives: HashMap<u64, Life<'_>> = HashMap::new();
    for event in &history.events {
        match (&event.action, &event.outcome) {
            (Action::Alloc { .. }, Outcome::Pages(pages)) => {
                for page in pages {
                    if let Some(other) = lives.entry(*page).or_default().alloc.replace(event) {
                        let why = format!("page p{page:x} was given out twice; ids are never used again");
                        let at = page << history.page_shift;
                        violations.push(Violation::new(Kind::AllocatedTwice, at, why, &[event, other]));
                    }
                }
            }
            (Action::Free { page }, outcome) => {
                let life = lives.entry(*page).or_default();
                if *outcome == Outcome::Gone {
                    life.refused.push(event);
                    continue;
                }
                life.doomed = Some(life.doomed.map_or(event.begin, |before| before.min(event.begin)));
                if *outcome == Outcome::Done
                    && let Some(other) = life.freed.replace(event)
                {
                    let why = format!("page p{page:x} was freed twice, and both times it was there");
                    let at = page << history.page_shift;
                    violations.push(Violation::new(Kind::FreedTwice, at, why, &[event, other]));
                }
            }
            _ => {}
        }
    }
    lives
}

/// The pages that the event reads or writes; `None` if that is not what it does.
fn accessed(history: &History, event: &Event) -> Option<impl Iterator<Item = u64> + use<>> {
    let (at, words) = match &event.action {
        Action::Read { at, words } => (*at, u64::from(*words)),
        Action::Write { at, values } => (*at, values.len() as u64),
        Action::Cas { at, .. } => (*at, 1),
        Action::Alloc { .. } | Action::Free { .. } | Action::Key { .. } => return None,
    };
    let last = at + words.max(1) * 8 - 1;
    Some(at >> history.page_shift..=last >> history.page_shift)
}

/// The access succeeded.
fn out_of_life(history: &History, event: &Event, page: u64, life: &Life<'_>) -> Option<Violation> {
    let at = page << history.page_shift;
    if let Some(freed) = life.freed.filter(|freed| freed.end < event.begin) {
        let why = format!("{} accessed page p{page:x} after it had been freed", name(event));
        return Some(Violation::new(Kind::AfterFree, at, why, &[freed, event]));
    }
    let alloc = life.alloc.filter(|alloc| event.end < alloc.begin)?;
    let why = format!("{} accessed page p{page:x} before it was allocated", name(event));
    Some(Violation::new(Kind::BeforeAlloc, at, why, &[alloc, event]))
}

/// Freeing failed because there was no such page: then another one had begun to free it before.
fn not_freed(history: &History, event: &Event, page: u64, life: &Life<'_>) -> Option<Violation> {
    let lived = life.alloc.is_some_and(|alloc| alloc.end < event.begin);
    if !lived || life.doomed.is_some_and(|doomed| doomed <= event.end) {
        return None;
    }
    let why = format!("{} could not free page p{page:x}, which nobody else had freed", name(event));
    let events: Vec<_> = life.alloc.into_iter().chain([event]).collect();
    Some(Violation::new(Kind::LostPage, page << history.page_shift, why, &events))
}

/// The access failed because there was no such page: then at least one of its pages was not there at some
/// time of it.
fn not_found(history: &History, event: &Event, lives: &HashMap<u64, Life<'_>>) -> Option<Violation> {
    let lived = |page: u64| match lives.get(&page) {
        None => true,
        Some(life) => {
            life.alloc.is_none_or(|alloc| alloc.end < event.begin)
                && life.doomed.is_none_or(|doomed| event.end < doomed)
        }
    };
    let mut pages = accessed(history, event)?;
    let first = pages.next()?;
    if !lived(first) || !pages.all(lived) {
        return None;
    }
    let why =
        format!("{} did not find page p{first:x} (or one after it), which nobody had freed", name(event));
    let alloc = lives.get(&first).and_then(|life| life.alloc);
    let events: Vec<_> = alloc.into_iter().chain([event]).collect();
    Some(Violation::new(Kind::LostPage, first << history.page_shift, why, &events))
}
