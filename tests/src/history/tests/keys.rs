//! The checker of keys against a search through all orders, on short histories of a simulated table.

use crate::Rng;
use crate::history::{Action, Ask, Event, History, NEVER, Outcome, check};
use proptest::prelude::*;
use std::collections::HashSet;

/// What a key is.
type Value = Option<u64>;

/// Operations on one key that overlap at random, each done at some time between its beginning and its end, or, one in
/// `unknown` of them (0 for none), at any time from its beginning on or never, without an answer.
/// `lies`: so many answers are replaced by others.
fn simulate(seed: u64, operations: u64, unknown: u64, lies: u64) -> History {
    let mut rng = Rng::new(seed);
    let mut plan = Vec::new();
    for number in 0..operations {
        let begin = rng.below(40.max(operations * 4)) + 1;
        let lost = unknown > 0 && rng.one_in(unknown);
        let end = if lost { NEVER } else { begin + 1 + rng.below(12) };
        let done =
            if lost { begin + rng.below(60.max(operations * 4)) } else { begin + rng.below(end - begin) };
        plan.push((done, begin, end, number));
    }
    plan.sort_unstable();
    let mut now: Value = None;
    let mut events = Vec::new();
    for (_, begin, end, number) in plan {
        let value = number + 100;
        // What it was, or a value that may never have been there.
        let guess = |rng: &mut Rng, now| if rng.one_in(3) { Some(100 + rng.below(operations)) } else { now };
        let ask = match rng.below(4) {
            0 => Ask::Get,
            1 => Ask::Put(value),
            2 => Ask::Remove,
            _ => Ask::Swap { old: guess(&mut rng, now), new: if rng.one_in(3) { None } else { Some(value) } },
        };
        let never = end == NEVER && rng.one_in(3);
        let (outcome, becomes) = answer(&ask, now);
        now = if never { now } else { becomes };
        let outcome = if end == NEVER { Outcome::Unknown("killed".into()) } else { outcome };
        events.push(Event {
            writer: 1,
            number: number as u32,
            begin,
            end,
            action: Action::Key { key: 7, ask },
            outcome,
        });
    }
    for _ in 0..lies {
        let liar = rng.below(operations) as usize;
        let Event { action: Action::Key { ask, .. }, outcome, .. } = &mut events[liar] else { continue };
        if !matches!(outcome, Outcome::Unknown(_)) {
            let was = if rng.one_in(2) { None } else { Some(100 + rng.below(operations)) };
            *outcome = answer(ask, was).0;
        }
    }
    History { page_shift: 12, events }
}

/// What is answered if the key is `now`, and what it is afterwards.
fn answer(ask: &Ask, now: Value) -> (Outcome, Value) {
    match *ask {
        Ask::Get => (Outcome::Found(now), now),
        Ask::Put(value) => (Outcome::Told(now.is_none()), Some(value)),
        Ask::Remove => (Outcome::Told(now.is_some()), None),
        Ask::Swap { old, new } if old == now => (Outcome::Done, new),
        Ask::Swap { .. } => (Outcome::Found(now), now),
    }
}

/// Whether some order of the operations explains all answers.
fn has_order(events: &[Event], done: u64, now: Value, tried: &mut HashSet<(u64, Value)>) -> bool {
    if !tried.insert((done, now)) {
        return false;
    }
    let is_lost = |event: &Event| matches!(event.outcome, Outcome::Unknown(_));
    let rest = || events.iter().enumerate().filter(|(i, _)| done >> i & 1 == 0);
    if rest().all(|(_, event)| is_lost(event)) {
        return true;
    }
    let first_end = rest().map(|(_, event)| event.end).min().unwrap_or(NEVER);
    rest().filter(|(_, event)| event.begin <= first_end).any(|(i, event)| {
        let Action::Key { ask, .. } = &event.action else { return false };
        let (outcome, becomes) = answer(ask, now);
        (is_lost(event) || outcome == event.outcome) && has_order(events, done | 1 << i, becomes, tried)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_verdict_on_a_key_is_that_of_a_search_through_all_orders(
        seed: u64, operations in 1..12u64, unknown in 0..4u64, lies in 0..3u64,
    ) {
        let history = simulate(seed, operations, unknown, lies);
        let verdict = check(&history);
        let right = has_order(&history.events, 0, None, &mut HashSet::new());
        prop_assert!(lies > 0 || right, "what was simulated has an order");
        prop_assert_eq!(verdict.violations.is_empty(), right, "{}", verdict);
    }

    #[test]
    fn what_a_correct_table_answers_is_never_a_violation(
        seed: u64, unknown in prop_oneof![Just(0), 5..30u64],
    ) {
        let verdict = check(&simulate(seed, 50, unknown, 0));
        prop_assert!(verdict.violations.is_empty(), "{verdict}");
    }
}
