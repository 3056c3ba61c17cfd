//! Whether what was done to one word has an order that explains all answers.
//!
//! As every value is written once, whoever reads a value names the operation that wrote it, and no search
//! is needed. A successful compare-and-swap comes directly after everything that saw the value which it
//! replaced, so values are joined into **chains**: one that was written blindly (or was there at first), then
//! those by which compare-and-swaps replaced it, one after the other. In any order that explains the
//! answers, the operations of a chain follow one another without others between them. So there is one
//! exactly if
//!
//! - within each chain nothing ended before something began that must come earlier, and
//! - the chains can be put in an order: for no two chains A and B has something in A ended before something
//!   in B began, and something in B ended before something in A began. (With two such numbers for each
//!   chain, its first end and its last begin, a longer cycle always contains one of two chains.)
//!
//! That is the theorem of Gibbons and Korach on zones ("Testing Shared Memories", 1997), with chains for
//! single values. It takes as long as sorting does.

use super::report::{Kind, Violation, name, short};
use super::value;
use super::{Event, NEVER};
use std::collections::{HashMap, HashSet};

/// What an operation did to the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// It saw this value. Also a compare-and-swap that changed nothing.
    Read(u64),
    /// It wrote this value.
    Write(u64),
    /// It found `old` and wrote `new`.
    Cas {
        /// What it found.
        old: u64,
        /// What it wrote.
        new: u64,
    },
}

impl Did {
    fn saw(self) -> Option<u64> {
        match self {
            Self::Read(value) | Self::Cas { old: value, .. } => Some(value),
            Self::Write(_) => None,
        }
    }

    fn wrote(self) -> Option<u64> {
        match self {
            Self::Write(value) | Self::Cas { new: value, .. } => Some(value),
            Self::Read(_) => None,
        }
    }
}

/// One operation on the word.
#[derive(Clone, Copy, Debug)]
pub struct WordOp<'e> {
    /// Where it comes from.
    pub event: &'e Event,
    /// What it did, if it was done.
    pub did: Did,
    /// Whether it is not known to have been done.
    pub maybe: bool,
}

impl WordOp<'_> {
    fn begin(&self) -> u64 {
        self.event.begin
    }

    fn end(&self) -> u64 {
        if self.maybe { NEVER } else { self.event.end }
    }
}

/// Finds a violation in what was done to the word at `at`, which was 0 at first.
///
/// # Errors
/// The first one found.
pub fn check(at: u64, ops: &[WordOp<'_>]) -> Result<(), Violation> {
    let done = those_that_were_done(ops);
    let values = Values::new(at, &done)?;
    let mut chains = Vec::new();
    let mut seen = 0;
    for root in values.roots() {
        let chain = values.chain(root)?;
        seen += chain.values;
        chains.push(chain);
    }
    if seen < values.writers.len() + 1 {
        return Err(values.cycle(&chains));
    }
    in_some_order(at, &chains)
}

/// Without those that may not have been done and whose values nobody saw: that they were not done explains
/// everything just as well.
fn those_that_were_done<'o, 'e>(ops: &'o [WordOp<'e>]) -> Vec<&'o WordOp<'e>> {
    let maybe: HashMap<u64, &WordOp<'_>> =
        ops.iter().filter(|op| op.maybe).filter_map(|op| Some((op.did.wrote()?, op))).collect();
    let mut observed = HashSet::new();
    let mut unexplored: Vec<u64> = ops.iter().filter(|op| !op.maybe).filter_map(|op| op.did.saw()).collect();
    while let Some(value) = unexplored.pop() {
        if observed.insert(value)
            && let Some(before) = maybe.get(&value).and_then(|op| op.did.saw())
        {
            unexplored.push(before);
        }
    }
    let was_done = |op: &&WordOp<'_>| !op.maybe || op.did.wrote().is_some_and(|v| observed.contains(&v));
    ops.iter().filter(was_done).collect()
}

/// Who wrote, saw and replaced each value.
struct Values<'o, 'e> {
    at: u64,
    writers: HashMap<u64, &'o WordOp<'e>>,
    readers: HashMap<u64, Vec<&'o WordOp<'e>>>,
    replaced: HashMap<u64, &'o WordOp<'e>>,
}

/// Operations that follow one another without others between them.
#[derive(Clone, Copy, Debug, Default)]
struct Chain<'o, 'e> {
    root: u64,
    values: usize,
    /// Of all its operations, the one that ended first; none if that is the initial value's writing.
    first_end: Option<&'o WordOp<'e>>,
    /// The one that began last.
    last_begin: Option<&'o WordOp<'e>>,
}

impl Chain<'_, '_> {
    fn first_end(&self) -> u64 {
        self.first_end.map_or(0, WordOp::end)
    }

    fn last_begin(&self) -> u64 {
        self.last_begin.map_or(0, WordOp::begin)
    }

    /// Whether something in it ended before something in `other` began.
    fn precedes(&self, other: &Self) -> bool {
        self.first_end() < other.last_begin()
    }
}

impl<'o, 'e> Values<'o, 'e> {
    fn new(at: u64, ops: &[&'o WordOp<'e>]) -> Result<Self, Violation> {
        let (writers, readers, replaced) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut values = Self { at, writers, readers, replaced };
        for op in ops {
            if let Some(value) = op.did.wrote() {
                values.add_writer(value, op)?;
            }
            match op.did {
                Did::Cas { old, .. } => values.add_replacement(old, op)?,
                Did::Read(value) => values.readers.entry(value).or_default().push(op),
                Did::Write(_) => {}
            }
        }
        ops.iter().try_for_each(|op| values.was_written(op))?;
        Ok(values)
    }

    fn add_writer(&mut self, value: u64, op: &'o WordOp<'e>) -> Result<(), Violation> {
        let why = format!("the value {} was written twice: nothing can be said", short(value));
        match self.writers.insert(value, op) {
            Some(other) => Err(self.violation(Kind::WrittenTwice, why, &[op, other])),
            None if value == 0 => Err(self.violation(Kind::WrittenTwice, why, &[op])),
            None => Ok(()),
        }
    }

    fn add_replacement(&mut self, old: u64, op: &'o WordOp<'e>) -> Result<(), Violation> {
        let Some(other) = self.replaced.insert(old, op) else { return Ok(()) };
        let why = format!(
            "{} and {} both found {}, which was written once, and replaced it",
            name(op.event),
            name(other.event),
            short(old)
        );
        let mut ops = vec![op, other];
        ops.extend(self.writers.get(&old));
        Err(self.violation(Kind::LostUpdate, why, &ops))
    }

    fn was_written(&self, op: &WordOp<'_>) -> Result<(), Violation> {
        let Some(value) = op.did.saw() else { return Ok(()) };
        if value == 0 || self.writers.contains_key(&value) {
            return Ok(());
        }
        let (who, what) = (name(op.event), format!("{value:#018x}"));
        if value::is_for(value, self.at) {
            let why = format!("{who} found {what}, which nobody wrote there, or only by a cas that failed");
            Err(self.violation(Kind::NeverWritten, why, &[op]))
        } else {
            let why = format!("{who} found {what}, which belongs to another word");
            Err(self.violation(Kind::OtherWord, why, &[op]))
        }
    }

    /// The values that were not written by a compare-and-swap, with that which was there at first.
    fn roots(&self) -> impl Iterator<Item = u64> {
        let blind = |(value, op): (&u64, &&WordOp<'_>)| match op.did {
            Did::Write(_) => Some(*value),
            _ => None,
        };
        self.writers.iter().filter_map(blind).chain([0])
    }

    /// Follows the chain from `root` on, and checks the order within it.
    fn chain(&self, root: u64) -> Result<Chain<'o, 'e>, Violation> {
        let first = self.writers.get(&root).copied();
        let mut chain = Chain { root, values: 0, first_end: first, last_begin: first };
        // Of the stages before the present one.
        let mut latest = first;
        let mut next = Some(root);
        while let Some(value) = next {
            chain.values += 1;
            let readers = self.readers.get(&value).map_or(&[][..], Vec::as_slice);
            for reader in readers {
                self.in_order(latest, reader)?;
                chain.add(reader, root);
            }
            latest = readers.iter().copied().chain(latest).max_by_key(|op| op.begin());
            let replacement = self.replaced.get(&value).copied();
            if let Some(op) = replacement {
                self.in_order(latest, op)?;
                chain.add(op, root);
                latest = latest.into_iter().chain([op]).max_by_key(|op| op.begin());
            }
            next = replacement.and_then(|op| op.did.wrote());
        }
        Ok(chain)
    }

    /// `later` comes after everything in earlier stages, of which `latest` began last.
    fn in_order(&self, latest: Option<&WordOp<'_>>, later: &WordOp<'_>) -> Result<(), Violation> {
        let Some(latest) = latest.filter(|latest| later.end() < latest.begin()) else { return Ok(()) };
        let (early, late) = (name(later.event), name(latest.event));
        let mut ops = vec![latest, later];
        ops.extend(later.did.saw().and_then(|value| self.writers.get(&value)).copied());
        ops.extend(latest.did.saw().and_then(|value| self.writers.get(&value)).copied());
        let seen = later.did.saw().map_or_else(String::new, short);
        if latest.did.wrote().is_some() {
            let why = format!(
                "{early} found {seen} and ended before {late} began, without which {seen} was not there"
            );
            return Err(self.violation(Kind::Future, why, &ops));
        }
        let stale = latest.did.saw().map_or_else(String::new, short);
        let why = format!(
            "{late} found {stale} but began after {early} had ended, by which {stale} had been replaced"
        );
        Err(self.violation(Kind::Stale, why, &ops))
    }

    /// Values that no chain leads to.
    fn cycle(&self, chains: &[Chain<'_, '_>]) -> Violation {
        let mut reached = HashSet::new();
        for chain in chains {
            let mut next = Some(chain.root);
            while let Some(value) = next {
                reached.insert(value);
                next = self.replaced.get(&value).and_then(|op| op.did.wrote());
            }
        }
        let cycle: Vec<_> =
            self.writers.iter().filter(|(v, _)| !reached.contains(*v)).map(|(_, op)| *op).take(8).collect();
        let why = "each of these replaced a value that another one of them wrote";
        self.violation(Kind::CasCycle, why.into(), &cycle)
    }

    fn violation(&self, kind: Kind, why: String, ops: &[&WordOp<'_>]) -> Violation {
        let events: Vec<_> = ops.iter().map(|op| op.event).collect();
        Violation::new(kind, self.at, why, &events)
    }
}

impl<'o, 'e> Chain<'o, 'e> {
    fn add(&mut self, op: &'o WordOp<'e>, root: u64) {
        // The initial value was written before everything, so that is the first end of its chain.
        if root != 0 {
            self.first_end = self.first_end.into_iter().chain([op]).min_by_key(|op| op.end());
        }
        self.last_begin = self.last_begin.into_iter().chain([op]).max_by_key(|op| op.begin());
    }
}

/// Whether the chains can be put in an order: no two of them precede each other.
fn in_some_order(at: u64, chains: &[Chain<'_, '_>]) -> Result<(), Violation> {
    // Of a chain that precedes itself something lies on either side of any time from its first end to its
    // last begin, so no two of these may overlap, and none of the others may lie within one.
    let (mut wide, narrow): (Vec<&Chain<'_, '_>>, Vec<&Chain<'_, '_>>) =
        chains.iter().partition(|chain| chain.precedes(chain));
    wide.sort_by_key(|chain| chain.first_end());
    for pair in wide.windows(2) {
        if pair[0].precedes(pair[1]) && pair[1].precedes(pair[0]) {
            return Err(conflict(at, pair[0], pair[1]));
        }
    }
    for chain in narrow {
        let after = wide.partition_point(|wide| wide.precedes(chain));
        if let Some(around) = after.checked_sub(1).map(|last| wide[last])
            && chain.precedes(around)
        {
            return Err(conflict(at, around, chain));
        }
    }
    Ok(())
}

fn conflict(at: u64, a: &Chain<'_, '_>, b: &Chain<'_, '_>) -> Violation {
    let sides = [a.first_end, a.last_begin, b.first_end, b.last_begin];
    let events: Vec<_> = sides.into_iter().flatten().map(|op| op.event).collect();
    let name = |op: Option<&WordOp<'_>>| op.map_or("the beginning".into(), |op| name(op.event));
    let (one, other) = (short(a.root), short(b.root));
    let why = format!(
        "the value {one} (and what was swapped for it) was there before {other}, as {} ended before {} began, \
         and after it, as {} ended before {} began",
        name(a.first_end),
        name(b.last_begin),
        name(b.first_end),
        name(a.last_begin)
    );
    Violation::new(Kind::Stale, at, why, &events)
}
