//! Whether what was done to one key of a hash table has an order that explains all answers.
//!
//! A key that is not there looks the same each time, so who made it so cannot be told from what was seen, as
//! [`word`](super::word) does. Instead all orders are tried at once: going through beginnings and ends in the order of
//! their times, the checker keeps every *world* that is possible, which is a value of the key and which of the operations
//! under way have been done. Where an operation ends, worlds in which it cannot have been done are dropped (Lowe,
//! "Testing for linearizability", 2017). Few operations are under way at once, so there are few worlds.

use super::report::{Kind, Violation, name};
use super::{Action, Ask, Event, History, Outcome};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The value of the key, and a bit for each operation under way that has been done.
type World = (Option<u64>, u128);

/// The most operations on a key that may be under way at once, with those whose outcome was never known.
const UNDER_WAY_MAX: usize = 128;

/// Finds keys whose answers no order explains.
pub fn check(history: &History) -> Vec<Violation> {
    let mut keys: BTreeMap<u64, Vec<(&Event, &Ask)>> = BTreeMap::new();
    for event in &history.events {
        if let Action::Key { key, ask } = &event.action {
            keys.entry(*key).or_default().push((event, ask));
        }
    }
    keys.into_iter().filter_map(|(key, ops)| check_key(key, &ops).err()).collect()
}

/// What the key is after the operation, if it can be done when it is `now`; `None` if its answer says otherwise.
fn after(now: Option<u64>, event: &Event, ask: &Ask) -> Option<Option<u64>> {
    let (becomes, fits) = match (ask, &event.outcome) {
        (Ask::Get, Outcome::Found(found)) => (now, now == *found),
        (Ask::Put(value), Outcome::Told(is_new)) => (Some(*value), *is_new == now.is_none()),
        (Ask::Put(value), Outcome::Unknown(_)) => (Some(*value), true),
        (Ask::Remove, Outcome::Told(was_there)) => (None, *was_there == now.is_some()),
        (Ask::Remove, Outcome::Unknown(_)) => (None, true),
        (Ask::Swap { old, new }, Outcome::Done | Outcome::Unknown(_)) => (*new, now == *old),
        (Ask::Swap { old, .. }, Outcome::Found(found)) => (now, now == *found && found != old),
        _ => (now, false),
    };
    fits.then_some(becomes)
}

fn check_key(key: u64, ops: &[(&Event, &Ask)]) -> Result<(), Violation> {
    let seen: HashSet<u64> = ops.iter().filter_map(|(event, ask)| saw(event, ask)).collect();
    // What may not have been done, and whose value nobody saw, need not have been.
    let relevant = |(event, ask): &(&Event, &Ask)| match (&event.outcome, ask) {
        (Outcome::Unknown(_), Ask::Get) => false,
        (Outcome::Unknown(_), Ask::Put(new) | Ask::Swap { new: Some(new), .. }) => seen.contains(new),
        _ => true,
    };
    let ops: Vec<_> = ops.iter().copied().filter(relevant).collect();
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (i, (event, _)) in ops.iter().enumerate() {
        times.push((event.begin, false, i));
        if !matches!(event.outcome, Outcome::Unknown(_)) {
            times.push((event.end, true, i));
        }
    }
    // At the same time beginnings come first: then the two may have overlapped.
    times.sort_unstable();
    let mut worlds: HashSet<World> = HashSet::from([(None, 0)]);
    let mut under_way: Vec<Option<usize>> = Vec::new();
    let mut bits: HashMap<usize, usize> = HashMap::new();
    for (_, is_end, op) in times {
        if !is_end {
            let free = under_way.iter().position(Option::is_none).unwrap_or(under_way.len());
            if free == UNDER_WAY_MAX {
                let why = "too much was under way at once to be judged";
                return Err(Violation::new(Kind::Malformed, key, why, &[ops[op].0]));
            }
            if free == under_way.len() {
                under_way.push(None);
            }
            under_way[free] = Some(op);
            bits.insert(op, free);
            continue;
        }
        let Some(bit) = bits.remove(&op) else { continue };
        worlds = with(&worlds, bit, &under_way, &ops);
        if worlds.is_empty() {
            let others = under_way.iter().flatten().map(|i| ops[*i].0);
            let events: Vec<&Event> = others.chain(before(&ops, ops[op].0)).collect();
            let why = format!("no order of what was done to this key explains {}", name(ops[op].0));
            return Err(Violation::new(Kind::NoOrder, key, why, &events));
        }
        under_way[bit] = None;
        worlds = worlds.into_iter().map(|(value, done)| (value, done & !(1 << bit))).collect();
    }
    Ok(())
}

/// What an operation says that the key was.
fn saw(event: &Event, ask: &Ask) -> Option<u64> {
    match (ask, &event.outcome) {
        (_, Outcome::Found(found)) => *found,
        (Ask::Swap { old, .. }, _) => *old,
        _ => None,
    }
}

/// The worlds in which the operation with this bit has been done, as have any of the others before it.
fn with(
    worlds: &HashSet<World>,
    bit: usize,
    under_way: &[Option<usize>],
    ops: &[(&Event, &Ask)],
) -> HashSet<World> {
    let (mut reached, mut left): (HashSet<World>, Vec<World>) =
        (worlds.clone(), worlds.iter().copied().collect());
    let mut done = HashSet::new();
    while let Some(world @ (value, mask)) = left.pop() {
        if mask >> bit & 1 == 1 {
            done.insert(world);
            continue;
        }
        for (other, op) in under_way.iter().enumerate() {
            let Some(op) = op.filter(|_| mask >> other & 1 == 0) else { continue };
            let Some(becomes) = after(value, ops[op].0, ops[op].1) else { continue };
            let next = (becomes, mask | 1 << other);
            if reached.insert(next) {
                left.push(next);
            }
        }
    }
    done
}

/// The last few operations that ended before that one did.
fn before<'e>(ops: &[(&'e Event, &Ask)], event: &Event) -> impl Iterator<Item = &'e Event> {
    let mut earlier: Vec<&Event> =
        ops.iter().map(|(event, _)| *event).filter(|e| e.end <= event.end).collect();
    earlier.sort_by_key(|event| std::cmp::Reverse(event.end));
    earlier.into_iter().take(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(begin: u64, end: u64, ask: Ask, outcome: Outcome) -> Event {
        Event { writer: 1, number: begin as u32, begin, end, action: Action::Key { key: 7, ask }, outcome }
    }

    fn is_fine(events: Vec<Event>) -> bool {
        check(&History { page_shift: 12, events }).is_empty()
    }

    fn get(begin: u64, end: u64, found: Option<u64>) -> Event {
        event(begin, end, Ask::Get, Outcome::Found(found))
    }

    fn put(begin: u64, end: u64, value: u64, is_new: bool) -> Event {
        event(begin, end, Ask::Put(value), Outcome::Told(is_new))
    }

    #[test]
    fn what_has_an_order_is_fine() {
        assert!(is_fine(vec![put(1, 2, 5, true), get(3, 4, Some(5))]));
        // Overlapping: either may have been first.
        assert!(is_fine(vec![put(1, 9, 5, true), get(2, 3, None), get(4, 5, Some(5))]));
        let remove = |begin, end, told| event(begin, end, Ask::Remove, Outcome::Told(told));
        assert!(is_fine(vec![put(1, 2, 5, true), remove(3, 4, true), remove(5, 6, false), get(7, 8, None)]));
        let swap = |old, new, outcome| event(10, 11, Ask::Swap { old, new }, outcome);
        assert!(is_fine(vec![put(1, 2, 5, true), swap(Some(5), None, Outcome::Done), get(12, 13, None)]));
        assert!(is_fine(vec![put(1, 2, 5, true), swap(Some(4), None, Outcome::Found(Some(5)))]));
    }

    #[test]
    fn what_has_none_is_found() {
        assert!(!is_fine(vec![put(1, 2, 5, true), get(3, 4, None)]), "a lost insertion");
        assert!(!is_fine(vec![get(3, 4, Some(5))]), "never written");
        assert!(!is_fine(vec![put(1, 2, 5, true), put(3, 4, 6, true)]), "there twice");
        let both = [get(5, 6, Some(6)), get(7, 8, Some(5))];
        assert!(!is_fine([&[put(1, 9, 5, true), put(1, 4, 6, true)][..], &both].concat()), "back again");
        let swap =
            |begin, new| event(begin, begin + 9, Ask::Swap { old: Some(5), new: Some(new) }, Outcome::Done);
        assert!(!is_fine(vec![put(1, 2, 5, true), swap(3, 6), swap(4, 7)]), "a lost update");
        let remove = |begin| event(begin, begin + 9, Ask::Remove, Outcome::Told(true));
        assert!(!is_fine(vec![put(1, 2, 5, true), remove(3), remove(4)]), "removed twice");
    }

    #[test]
    fn what_was_not_answered_may_be_done_at_any_time_or_never() {
        let lost = |ask| event(1, super::super::NEVER, ask, Outcome::Unknown("killed".into()));
        assert!(is_fine(vec![lost(Ask::Put(5)), get(3, 4, None), get(8, 9, Some(5))]));
        assert!(is_fine(vec![lost(Ask::Put(5)), get(3, 4, None), get(8, 9, None)]));
        assert!(!is_fine(vec![lost(Ask::Put(5)), get(3, 4, Some(5)), get(8, 9, None)]));
        assert!(is_fine(vec![lost(Ask::Remove), put(3, 4, 5, true), get(8, 9, None)]));
    }
}
