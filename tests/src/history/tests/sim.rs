//! Words that are read, written and swapped by simulated threads whose operations overlap at random, with
//! or without a bug.

use crate::Rng;
use crate::history::{Action, Event, History, NEVER, Outcome, value};
use proptest::prelude::*;

/// What is wrong with the simulated words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    None,
    /// Compare-and-swap reads, and writes later.
    SplitCas,
    /// Compare-and-swap writes whatever was there, and says that it was what it had to be.
    BlindCas,
    /// A compare-and-swap writes although it says that something else was there.
    FailedCasWrites,
    /// Some reads see what was there before.
    StaleRead,
    /// Some writes do nothing.
    LostWrite,
    /// Now and then a word becomes what it was before.
    Resurrect,
    /// Some reads see the halves of two values.
    Torn,
    /// Some reads see another word.
    OtherWord,
}

pub fn any_bug() -> impl Strategy<Value = Bug> {
    use Bug::*;
    prop_oneof![
        Just(None),
        Just(SplitCas),
        Just(BlindCas),
        Just(FailedCasWrites),
        Just(StaleRead),
        Just(LostWrite),
        Just(Resurrect)
    ]
}

#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub seed: u64,
    pub threads: u16,
    pub words: u64,
    /// Of all threads together.
    pub operations: usize,
    /// One in so many operations fails without anybody knowing whether it was done; 0 for none.
    pub unknown: u64,
    pub bug: Bug,
}

impl Setup {
    pub fn large(seed: u64) -> Self {
        Self { seed, threads: 4, words: 2, operations: 2000, unknown: 50, bug: Bug::None }
    }
}

/// A step of an operation: what it does to one word, at one moment.
#[derive(Clone, Copy)]
enum Step {
    Read(usize),
    Write(usize, u64),
    Cas(usize, u64, u64),
    /// The second half of a split compare-and-swap.
    Store(usize, u64),
}

struct Running {
    begin: u64,
    action: Action,
    steps: Vec<Step>,
    /// What it read or found, by word.
    saw: Vec<u64>,
}

struct Sim {
    setup: Setup,
    rng: Rng,
    /// All values of each word so far.
    words: Vec<Vec<u64>>,
    late: Vec<Step>,
    values: u32,
    events: Vec<Event>,
}

/// What the threads record.
pub fn run(setup: &Setup) -> History {
    let words = vec![vec![0]; setup.words as usize];
    let rng = Rng::new(setup.seed);
    let (late, events) = (Vec::new(), Vec::new());
    let mut sim = Sim { setup: *setup, rng, words, late, values: 0, events };
    let mut threads: Vec<Option<Running>> = (0..setup.threads).map(|_| None).collect();
    let mut begun = 0;
    let mut time = 1;
    while begun < setup.operations || threads.iter().any(Option::is_some) {
        time += sim.rng.below(3);
        let thread = sim.rng.below(u64::from(setup.threads)) as usize;
        if sim.rng.one_in(8) && !sim.late.is_empty() {
            let step = sim.late.swap_remove(0);
            sim.apply(step);
        }
        threads[thread] = match threads[thread].take() {
            None if begun < setup.operations => {
                begun += 1;
                Some(sim.begin(thread as u16, time))
            }
            None => None,
            Some(running) => sim.go_on(running, thread as u16, time),
        };
    }
    History { page_shift: 12, events: sim.events }
}

impl Sim {
    fn begin(&mut self, writer: u16, time: u64) -> Running {
        let word = self.rng.below(self.setup.words) as usize;
        let at = word as u64 * 8 + 4096;
        self.values += 1;
        let new = value::make(at, writer, self.values);
        let (action, steps) = match self.rng.below(3) {
            // All words from this one on.
            0 => {
                let steps: Vec<_> = (word..self.words.len()).map(Step::Read).collect();
                (Action::Read { at, words: steps.len() as u32 }, steps)
            }
            1 => (Action::Write { at, values: vec![new] }, vec![Step::Write(word, new)]),
            _ => {
                let history = &self.words[word];
                let back = self.rng.below(2).min(history.len() as u64 - 1) as usize;
                let old = history[history.len() - 1 - back];
                (Action::Cas { at, old, new }, vec![Step::Cas(word, old, new)])
            }
        };
        let saw = vec![0; self.words.len()];
        Running { begin: time, action, steps, saw }
    }

    fn go_on(&mut self, mut running: Running, writer: u16, time: u64) -> Option<Running> {
        if self.setup.unknown > 0 && self.rng.one_in(2 * self.setup.unknown) {
            if self.rng.one_in(2) {
                self.late.append(&mut running.steps);
            }
            let end = if self.rng.one_in(2) { time } else { NEVER };
            self.end(running, writer, end, Some(Outcome::Unknown("simulated".into())));
            return None;
        }
        if running.steps.is_empty() {
            self.end(running, writer, time, None);
            return None;
        }
        let chosen = self.rng.below(running.steps.len() as u64) as usize;
        let step = running.steps.swap_remove(chosen);
        let (saw, then) = self.apply(step);
        if let Step::Read(word) | Step::Cas(word, ..) = step {
            running.saw[word] = saw;
        }
        running.steps.extend(then);
        Some(running)
    }

    /// What the step saw, and what is still to be done.
    fn apply(&mut self, step: Step) -> (u64, Option<Step>) {
        let bug = self.setup.bug;
        let now = |words: &[Vec<u64>], word: usize| words[word].last().copied().unwrap_or(0);
        match step {
            Step::Read(word) => (self.read(word), None),
            Step::Write(_, value) if bug == Bug::LostWrite && self.rng.one_in(3) => (value, None),
            Step::Write(word, value) => {
                if bug == Bug::Resurrect && self.rng.one_in(3) {
                    let before = now(&self.words, word);
                    self.words[word].extend([value, before]);
                }
                self.words[word].push(value);
                if bug == Bug::Resurrect && self.rng.one_in(3) && self.words[word].len() > 2 {
                    let old = self.words[word][self.words[word].len() - 2];
                    self.words[word].push(old);
                }
                (value, None)
            }
            Step::Store(word, value) => {
                self.words[word].push(value);
                (value, None)
            }
            Step::Cas(word, old, new) => {
                let was = now(&self.words, word);
                match bug {
                    Bug::SplitCas if was == old => return (was, Some(Step::Store(word, new))),
                    Bug::BlindCas => {
                        self.words[word].push(new);
                        return (old, None);
                    }
                    Bug::FailedCasWrites => self.words[word].push(new),
                    _ if was == old => self.words[word].push(new),
                    _ => {}
                }
                (was, None)
            }
        }
    }

    fn read(&mut self, word: usize) -> u64 {
        let values = &self.words[word];
        let last = values.len() - 1;
        match self.setup.bug {
            Bug::StaleRead if last > 2 && self.rng.one_in(4) => values[last - 2],
            Bug::Torn if last > 2 && self.rng.one_in(9) => {
                let (high, low) = (u64::MAX << 32, u64::from(u32::MAX));
                // Numbers are unique, so no thread but one has written this one.
                if values[last] >> 32 == values[last - 1] >> 32 {
                    return values[last];
                }
                values[last] & high | values[last - 1] & low
            }
            Bug::OtherWord if self.rng.one_in(9) => {
                let other = &self.words[(word + 1) % self.words.len()];
                other.last().copied().unwrap_or(0)
            }
            _ => values[last],
        }
    }

    fn end(&mut self, running: Running, writer: u16, end: u64, failed: Option<Outcome>) {
        let Running { begin, action, saw, .. } = running;
        let outcome = failed.unwrap_or_else(|| match &action {
            Action::Read { at, words } => {
                let first = (*at - 4096) as usize / 8;
                Outcome::Values(saw[first..first + *words as usize].to_vec())
            }
            Action::Cas { at, .. } => Outcome::Was(saw[(*at - 4096) as usize / 8]),
            _ => Outcome::Done,
        });
        let number = self.events.len() as u32;
        self.events.push(Event { writer, number, begin, end, action, outcome });
    }
}
