//! The checker against histories that are right, histories that are wrong in a known way, and a search
//! through all orders.

mod keys;
mod oracle;
mod sim;

use super::report::Kind;
use super::*;
use proptest::prelude::*;
use sim::{Bug, Setup};
use std::collections::HashSet;

fn kinds(history: &History) -> HashSet<Kind> {
    check(history).violations.iter().map(|violation| violation.kind).collect()
}

/// Runs the simulated pool with `bug` for a few seeds; each run must be found wrong, in one of these ways.
#[track_caller]
fn is_found(bug: Bug, allowed: &[Kind]) {
    for seed in 0..20 {
        let setup = Setup { bug, ..Setup::large(seed) };
        let found = kinds(&sim::run(&setup));
        assert!(!found.is_empty(), "{bug:?} was not found with seed {seed}");
        let other: Vec<_> = found.iter().filter(|kind| !allowed.contains(kind)).collect();
        assert!(other.is_empty(), "{bug:?} was taken for {other:?} with seed {seed}");
    }
}

const ORDER: [Kind; 4] = [Kind::Stale, Kind::Future, Kind::LostUpdate, Kind::CasCycle];

proptest! {
    #[test]
    fn what_a_correct_register_answers_is_never_a_violation(
        seed: u64, threads in 1..8u16, words in 1..4u64, unknown in 0..20u64,
    ) {
        let setup = Setup { seed, threads, words, operations: 600, unknown, bug: Bug::None };
        let verdict = check(&sim::run(&setup));
        prop_assert!(verdict.violations.is_empty(), "{verdict}");
    }

    #[test]
    fn the_verdict_is_that_of_a_search_through_all_orders(
        seed: u64, threads in 1..4u16, operations in 1..10usize, unknown in 0..6u64, bug in sim::any_bug(),
    ) {
        let setup = Setup { seed, threads, words: 1, operations, unknown, bug };
        let history = sim::run(&setup);
        let verdict = check(&history);
        prop_assert_eq!(verdict.violations.is_empty(), oracle::has_order(&history), "{}", verdict);
    }
}

#[test]
fn a_compare_and_swap_by_read_then_write_is_found() {
    is_found(Bug::SplitCas, &ORDER);
}

#[test]
fn a_compare_and_swap_that_does_not_compare_is_found() {
    is_found(Bug::BlindCas, &ORDER);
}

#[test]
fn a_stale_read_is_found() {
    is_found(Bug::StaleRead, &ORDER);
}

#[test]
fn a_write_that_is_lost_is_found() {
    is_found(Bug::LostWrite, &ORDER);
}

#[test]
fn a_value_that_comes_back_is_found() {
    is_found(Bug::Resurrect, &ORDER);
}

#[test]
fn a_failed_compare_and_swap_that_changed_the_word_is_found() {
    is_found(Bug::FailedCasWrites, &[&ORDER[..], &[Kind::NeverWritten]].concat());
}

#[test]
fn a_torn_word_is_found() {
    is_found(Bug::Torn, &[Kind::NeverWritten]);
}

#[test]
fn bytes_of_another_page_are_found() {
    is_found(Bug::OtherWord, &[Kind::OtherWord]);
}

#[test]
fn a_large_history_of_one_word_is_judged() {
    let setup = Setup { operations: 100_000, words: 1, threads: 8, unknown: 1000, ..Setup::large(1) };
    let verdict = check(&sim::run(&setup));
    verdict.expect_none();
    assert!(verdict.busiest > 90_000 && verdict.unknown > 10, "{verdict}");
}

fn event(writer: u16, begin: u64, end: u64, action: Action, outcome: Outcome) -> Event {
    Event { writer, number: 1, begin, end, action, outcome }
}

const PAGE: u64 = 7;
const AT: u64 = PAGE << 12;

fn alloc(begin: u64, end: u64) -> Event {
    event(0, begin, end, Action::Alloc { pages: 1 }, Outcome::Pages(vec![PAGE]))
}

fn free(begin: u64, end: u64, outcome: Outcome) -> Event {
    event(1, begin, end, Action::Free { page: PAGE }, outcome)
}

fn read(begin: u64, end: u64, outcome: Outcome) -> Event {
    event(2, begin, end, Action::Read { at: AT, words: 1 }, outcome)
}

fn found(events: Vec<Event>) -> Vec<Kind> {
    let history = History { page_shift: 12, events };
    check(&history).violations.iter().map(|violation| violation.kind).collect()
}

#[test]
fn a_page_is_accessed_in_its_life_only() {
    let zero = || Outcome::Values(vec![0]);
    let freed = || free(50, 60, Outcome::Done);
    assert_eq!(found(vec![alloc(10, 20), read(15, 55, zero()), freed()]), []);
    assert_eq!(found(vec![alloc(10, 20), read(58, 70, zero()), freed()]), []);
    assert_eq!(found(vec![alloc(10, 20), read(61, 70, zero()), freed()]), [Kind::AfterFree]);
    assert_eq!(found(vec![alloc(10, 20), read(5, 9, zero())]), [Kind::BeforeAlloc]);
    let unsure = free(50, 60, Outcome::Unknown("no answer".into()));
    assert_eq!(found(vec![alloc(10, 20), read(61, 70, zero()), unsure.clone()]), []);
    assert_eq!(found(vec![alloc(10, 20), read(61, 70, Outcome::Gone), unsure]), []);
}

#[test]
fn a_page_that_lives_is_found() {
    let freed = || free(50, 60, Outcome::Done);
    assert_eq!(found(vec![alloc(10, 20), read(30, 49, Outcome::Gone), freed()]), [Kind::LostPage]);
    assert_eq!(found(vec![read(30, 49, Outcome::Gone)]), [Kind::LostPage]);
    assert_eq!(found(vec![alloc(10, 20), read(15, 30, Outcome::Gone), freed()]), []);
    assert_eq!(found(vec![alloc(10, 20), read(30, 51, Outcome::Gone), freed()]), []);
}

#[test]
fn a_page_is_given_out_and_freed_once() {
    assert_eq!(found(vec![alloc(10, 20), alloc(70, 80)]), [Kind::AllocatedTwice]);
    let freed = || free(50, 60, Outcome::Done);
    assert_eq!(found(vec![alloc(10, 20), freed(), freed()]), [Kind::FreedTwice]);
    assert_eq!(found(vec![alloc(10, 20), freed(), free(61, 62, Outcome::Gone)]), []);
    assert_eq!(found(vec![alloc(10, 20), free(61, 62, Outcome::Gone)]), [Kind::LostPage]);
}

#[test]
fn a_lost_update_names_the_operations() {
    let cas = |writer, number, old, new| {
        let begin = 10 * u64::from(writer);
        let action = Action::Cas { at: AT, old, new: value::make(AT, writer, new) };
        Event { writer, number, begin, end: begin + 100, action, outcome: Outcome::Was(old) }
    };
    let verdict = check(&History { page_shift: 12, events: vec![cas(1, 4, 0, 1), cas(2, 9, 0, 1)] });
    let text = verdict.to_string();
    for part in ["LostUpdate", "t1#4", "t2#9", "cas 0 -> 2.1: was 0"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// A compare-and-swap that found `old` and replaced it, both numbers of values of the word at `AT`.
fn swapped(writer: u16, begin: u64, end: u64, old: u32, new: u32) -> Event {
    let value = |number| if number == 0 { 0 } else { value::make(AT, 0, number) };
    let action = Action::Cas { at: AT, old: value(old), new: value(new) };
    event(writer, begin, end, action, Outcome::Was(value(old)))
}

#[test]
fn swaps_that_each_need_another_one_first_are_found() {
    assert_eq!(found(vec![swapped(1, 10, 90, 1, 2), swapped(2, 20, 80, 2, 1)]), [Kind::CasCycle]);
    assert_eq!(found(vec![swapped(1, 10, 90, 0, 1), swapped(2, 20, 80, 1, 2)]), []);
}

#[test]
fn a_value_is_not_seen_before_it_is_there_nor_after_it_was_replaced() {
    let saw = |begin, end, number| read(begin, end, Outcome::Values(vec![value::make(AT, 0, number)]));
    let swaps = || vec![swapped(0, 20, 30, 0, 1), swapped(1, 50, 60, 1, 2)];
    let with = |event: Event| found(swaps().into_iter().chain([event]).collect());
    assert_eq!(with(saw(25, 55, 1)), []);
    assert_eq!(with(saw(10, 19, 1)), [Kind::Future]);
    assert_eq!(with(saw(61, 70, 1)), [Kind::Stale]);
    assert_eq!(with(saw(31, 49, 2)), [Kind::Future]);
}

#[test]
fn a_recording_survives_its_process_at_any_moment() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("1.history");
    let mut recorder = Recorder::create(&path, 3, 12).expect("a file can be made");
    for _ in 0..3 {
        let value = recorder.value(AT);
        let action = Action::Write { at: AT, values: vec![value] };
        recorder.run(action, || (Outcome::Done, ()));
    }
    let read = Action::Read { at: AT, words: 1 };
    let seen = recorder.run(read, || (Outcome::Values(vec![value::make(AT, 3, 3)]), 5));
    assert_eq!(seen, 5);
    drop(recorder);
    let history = load(dir.path()).expect("it can be read");
    assert_eq!((history.events.len(), history.page_shift), (4, 12));
    check(&history).expect_none();

    let bytes = std::fs::read(&path).expect("it is there");
    for len in 0..bytes.len() {
        let mut part = History::default();
        load::add(&mut part, &bytes[..len]).expect("a beginning of a recording is a recording");
        let (last, known) = match part.events.split_last() {
            Some((last, known)) => (Some(last), known),
            None => (None, &[][..]),
        };
        assert_eq!(known, &history.events[..known.len()], "{len} bytes");
        if let Some(Event { outcome: Outcome::Unknown(_), action, end, .. }) = last {
            assert_eq!((action, *end), (&history.events[known.len()].action, NEVER));
        }
    }
}
