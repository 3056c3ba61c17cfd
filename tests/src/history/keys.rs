//! Whether what was done to one key of a hash table has an order that explains all answers.
//!
//! A key that is not there looks the same each time, so who made it so cannot be told from what was seen, as
//! [`word`](super::word) does. Instead all orders are tried at once: going through beginnings and ends in the order of
//! their times, the checker keeps every *world* that is possible, which is a value of the key and which of the operations
//! under way have been done. Where an operation ends, worlds in which it cannot have been done are dropped (Lowe,
//! "Testing for linearizability", 2017). Few operations are under way at once, so there are few worlds.
//!
//! Operations whose outcome was never known stay under way for ever. None of them may be left out because nobody read
//! what it put in: that a key is there is seen by a removal, or by another value put in its place, as well as by a
//! get. To keep worlds few:
//!
//! - all values that nobody read are taken for the same one, and of operations with unknown outcomes that would
//!   do the same the first one is done first;
//! - a world is dropped if another differs from it in nothing but that fewer operations of unknown outcome have been
//!   done: they may still be done, and need not be.

use super::report::{Kind, Violation, name};
use super::{Action, Ask, Event, History, Outcome};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a key is: not there, there with a value that nobody read, or with this one.
type Value = Option<Option<u64>>;

/// The value of the key, and a bit for each operation under way that has been done.
type World = (Value, u128);

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

/// An operation on a key.
#[derive(Clone, Copy)]
struct Op<'e> {
    event: &'e Event,
    does: Does,
    /// Whether its outcome is not known.
    maybe: bool,
}

/// What an operation does to a key, with the answer that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Finds that it is this, and leaves it so.
    Find(Value),
    /// Gives it this value, after finding whether it was there, if that was told.
    Put { value: Value, was_there: Option<bool> },
    /// Replaces the first by the second, if it is the first.
    Swap(Value, Value),
    /// Finds that it is the second, which is not the first, and leaves it so.
    Refuse(Value, Value),
    /// Nothing that it could have done explains its answer.
    Nonsense,
}

impl Does {
    /// What the event did; `None` if that does not matter. `name` gives values their names.
    fn of(event: &Event, ask: &Ask, name: impl Fn(Option<u64>) -> Value) -> Option<Self> {
        Some(match (ask, &event.outcome) {
            (Ask::Get, Outcome::Unknown(_)) => return None,
            (Ask::Get, Outcome::Found(found)) => Self::Find(name(*found)),
            (Ask::Put(value), Outcome::Told(is_new)) => {
                Self::Put { value: name(Some(*value)), was_there: Some(!is_new) }
            }
            (Ask::Put(value), Outcome::Unknown(_)) => {
                Self::Put { value: name(Some(*value)), was_there: None }
            }
            (Ask::Remove, Outcome::Told(was_there)) => Self::Put { value: None, was_there: Some(*was_there) },
            (Ask::Remove, Outcome::Unknown(_)) => Self::Put { value: None, was_there: None },
            (Ask::Swap { old, new }, Outcome::Done | Outcome::Unknown(_)) => {
                Self::Swap(name(*old), name(*new))
            }
            (Ask::Swap { old, .. }, Outcome::Found(found)) => Self::Refuse(name(*old), name(*found)),
            _ => Self::Nonsense,
        })
    }

    /// What the key is afterwards, if this can be done when it is `now`.
    fn after(self, now: Value) -> Option<Value> {
        let (fits, becomes) = match self {
            Self::Find(found) => (now == found, now),
            Self::Put { value, was_there } => (was_there.is_none_or(|was| was == now.is_some()), value),
            Self::Swap(old, new) => (now == old, new),
            Self::Refuse(old, found) => (now == found && found != old, now),
            Self::Nonsense => (false, now),
        };
        fits.then_some(becomes)
    }
}

fn check_key(key: u64, ops: &[(&Event, &Ask)]) -> Result<(), Violation> {
    let seen: HashSet<u64> = ops.iter().filter_map(|(event, ask)| saw(event, ask)).collect();
    let name_of = |value: Option<u64>| value.map(|value| seen.contains(&value).then_some(value));
    let op = |event, ask| Some(Op { event, does: Does::of(event, ask, name_of)?, maybe: is_unknown(event) });
    let ops: Vec<Op<'_>> = ops.iter().filter_map(|(event, ask)| op(*event, ask)).collect();
    let mut times: Vec<(u64, bool, usize)> = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        times.push((op.event.begin, false, i));
        if !op.maybe {
            times.push((op.event.end, true, i));
        }
    }
    // At the same time beginnings come first: then the two may have overlapped.
    times.sort_unstable();
    let mut worlds: HashSet<World> = HashSet::from([(None, 0)]);
    let mut under_way: Vec<Option<Op<'_>>> = Vec::new();
    let mut bits: HashMap<usize, usize> = HashMap::new();
    for (_, is_end, i) in times {
        let op = ops[i];
        if !is_end {
            let free = under_way.iter().position(Option::is_none).unwrap_or(under_way.len());
            if free == UNDER_WAY_MAX {
                let why = "too much was under way at once to be judged";
                return Err(Violation::new(Kind::Malformed, key, why, &[op.event]));
            }
            if free == under_way.len() {
                under_way.push(None);
            }
            under_way[free] = Some(op);
            bits.insert(i, free);
            continue;
        }
        let Some(bit) = bits.remove(&i) else { continue };
        worlds = with(&worlds, bit, &under_way);
        if worlds.is_empty() {
            let others = under_way.iter().flatten().map(|op| op.event);
            let events: Vec<&Event> = others.chain(before(&ops, op.event)).collect();
            let why = format!("no order of what was done to this key explains {}", name(op.event));
            return Err(Violation::new(Kind::NoOrder, key, why, &events));
        }
        under_way[bit] = None;
        worlds = worlds.into_iter().map(|(value, done)| (value, done & !(1 << bit))).collect();
    }
    Ok(())
}

fn is_unknown(event: &Event) -> bool {
    matches!(event.outcome, Outcome::Unknown(_))
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
fn with(worlds: &HashSet<World>, bit: usize, under_way: &[Option<Op<'_>>]) -> HashSet<World> {
    let maybes = maybes(under_way);
    // Those in which fewer operations of unknown outcome have been done come first, as they make others superfluous.
    let mut left: BTreeMap<u32, Vec<World>> = BTreeMap::new();
    for world in worlds {
        left.entry((world.1 & maybes).count_ones()).or_default().push(*world);
    }
    let mut reached = Best { maybes, ..Best::default() };
    let mut done = HashSet::new();
    while let Some(mut entry) = left.first_entry() {
        let Some(world @ (value, mask)) = entry.get_mut().pop() else {
            entry.remove();
            continue;
        };
        if !reached.add(world) {
            continue;
        }
        if mask >> bit & 1 == 1 {
            done.insert(world);
            continue;
        }
        let mut tried: Vec<Does> = Vec::new();
        for (other, op) in under_way.iter().enumerate() {
            let Some(op) = op.filter(|_| mask >> other & 1 == 0) else { continue };
            if op.maybe {
                if tried.contains(&op.does) {
                    continue;
                }
                tried.push(op.does);
            }
            let Some(becomes) = op.does.after(value) else { continue };
            let mask = mask | 1 << other;
            left.entry((mask & maybes).count_ones()).or_default().push((becomes, mask));
        }
    }
    done
}

/// The bits of operations with unknown outcomes.
fn maybes(under_way: &[Option<Op<'_>>]) -> u128 {
    let maybe = |op: &Option<Op<'_>>| op.is_some_and(|op| op.maybe);
    under_way.iter().enumerate().filter(|(_, op)| maybe(op)).fold(0, |all, (i, _)| all | 1 << i)
}

/// Worlds without those in which more operations of unknown outcome have been done than in another one that is otherwise
/// the same.
#[derive(Default)]
struct Best {
    maybes: u128,
    alike: HashMap<World, Vec<u128>>,
}

impl Best {
    /// Whether this world says anything that those added before do not; they may not have more such operations.
    fn add(&mut self, (value, mask): World) -> bool {
        let done = mask & self.maybes;
        let alike = self.alike.entry((value, mask & !self.maybes)).or_default();
        let is_new = !alike.iter().any(|fewer| fewer & done == *fewer);
        if is_new {
            alike.push(done);
        }
        is_new
    }
}

/// The last few operations that ended before that one did.
fn before<'e>(ops: &[Op<'e>], event: &Event) -> impl Iterator<Item = &'e Event> {
    let mut earlier: Vec<&Event> = ops.iter().map(|op| op.event).filter(|e| e.end <= event.end).collect();
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

    #[test]
    fn a_value_that_nobody_read_is_known_by_what_found_the_key_there() {
        let lost = |ask| event(1, super::super::NEVER, ask, Outcome::Unknown("killed".into()));
        let remove = |begin, told| event(begin, begin + 1, Ask::Remove, Outcome::Told(told));
        // As it was found in a table whose clients are killed: they put in what only a removal found.
        assert!(is_fine(vec![lost(Ask::Put(5)), get(3, 4, None), remove(6, true), get(8, 9, None)]));
        assert!(is_fine(vec![lost(Ask::Put(5)), get(3, 4, None), put(6, 7, 8, false), get(8, 9, Some(8))]));
        let swap = Ask::Swap { old: None, new: Some(5) };
        assert!(is_fine(vec![lost(swap.clone()), get(3, 4, None), remove(6, true), get(8, 9, None)]));
        assert!(!is_fine(vec![get(3, 4, None), remove(6, true)]), "nobody put anything in");
        assert!(!is_fine(vec![lost(Ask::Put(5)), remove(6, true), remove(8, true)]), "once is not twice");
        assert!(is_fine(vec![lost(Ask::Put(5)), lost(swap), remove(6, true), remove(8, true)]));
    }
}
