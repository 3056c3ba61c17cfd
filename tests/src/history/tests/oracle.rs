//! A search through all orders of the operations on one word, for short histories.

use crate::history::{Action, History, NEVER, Outcome};
use std::collections::HashSet;

struct Op {
    begin: u64,
    end: u64,
    action: Action,
    was: Option<u64>,
    maybe: bool,
}

/// Whether some order of the operations explains all answers.
pub fn has_order(history: &History) -> bool {
    let ops: Vec<Op> = history
        .events
        .iter()
        .map(|event| {
            let maybe = matches!(event.outcome, Outcome::Unknown(_));
            let was = match &event.outcome {
                Outcome::Values(values) => values.first().copied(),
                Outcome::Was(was) => Some(*was),
                _ => None,
            };
            let end = if maybe { NEVER } else { event.end };
            Op { begin: event.begin, end, action: event.action.clone(), was, maybe }
        })
        .collect();
    search(&ops, 0, 0, &mut HashSet::new())
}

/// `done` are the operations that have been put in order, after which the word is `word`.
fn search(ops: &[Op], done: u64, word: u64, tried: &mut HashSet<(u64, u64)>) -> bool {
    if !tried.insert((done, word)) {
        return false;
    }
    let rest = || ops.iter().enumerate().filter(|(i, _)| done & 1 << i == 0);
    if rest().all(|(_, op)| op.maybe) {
        return true;
    }
    let first_end = rest().map(|(_, op)| op.end).min().unwrap_or(NEVER);
    rest()
        .filter(|(_, op)| op.begin <= first_end)
        .any(|(i, op)| step(op, word).is_some_and(|after| search(ops, done | 1 << i, after, tried)))
}

/// What the word is after `op`, if its answer fits.
fn step(op: &Op, word: u64) -> Option<u64> {
    match op.action {
        Action::Read { .. } if op.maybe || op.was == Some(word) => Some(word),
        Action::Write { ref values, .. } => values.first().copied(),
        Action::Cas { old, new, .. } if op.maybe || op.was == Some(word) => {
            Some(if word == old { new } else { word })
        }
        _ => None,
    }
}
