use super::*;
use proptest::prelude::*;

const FILE: Ino = Ino(7);
const ALL: RangeInclusive<u64> = 0..=u64::MAX;

fn owner(n: u64) -> Owner {
    Owner { session: n % 2, id: n }
}

fn posix(n: u64, mode: Mode, range: RangeInclusive<u64>) -> Request {
    Request { ino: FILE, family: Family::Posix, owner: owner(n), mode, range, pid: n as u32 }
}

fn flock(n: u64, mode: Mode) -> Request {
    Request { family: Family::Flock, ..posix(n, mode, ALL) }
}

fn unlock(table: &mut LockTable, n: u64, range: RangeInclusive<u64>) {
    table.unlock(FILE, Family::Posix, owner(n), &range);
}

#[test]
fn readers_share_and_a_writer_does_not() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Read, 0..=9)), Answer::Granted);
    assert_eq!(table.set(&posix(2, Mode::Read, 5..=15)), Answer::Granted);
    let conflict = Conflict { owner: owner(1), mode: Mode::Read, range: 0..=9, pid: 1 };
    assert_eq!(table.set(&posix(2, Mode::Write, 8..=8)), Answer::Conflict(conflict));
    assert_eq!(table.set(&posix(2, Mode::Write, 10..=10)), Answer::Granted);
    assert_eq!(table.test(&posix(1, Mode::Read, 10..=10)).map(|c| c.pid), Some(2));
}

#[test]
fn the_end_of_the_file_is_a_byte_like_others() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, ALL)), Answer::Granted);
    unlock(&mut table, 1, 0..=u64::MAX - 1);
    let rest = vec![(u64::MAX..=u64::MAX, Mode::Write)];
    assert_eq!(table.held_of(FILE, Family::Posix, owner(1)), rest);
    assert!(matches!(table.set(&posix(2, Mode::Read, 3..=u64::MAX)), Answer::Conflict(_)));
    assert_eq!(table.set(&posix(2, Mode::Read, 0..=u64::MAX - 1)), Answer::Granted);
}

#[test]
fn the_two_families_do_not_see_each_other() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, ALL)), Answer::Granted);
    assert_eq!(table.set(&flock(2, Mode::Write)), Answer::Granted);
}

#[test]
fn who_waits_is_served_in_order() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, 0..=9)), Answer::Granted);
    assert_eq!(table.wait(20, posix(2, Mode::Write, 0..=4)), Answer::Waiting);
    assert_eq!(table.wait(30, posix(3, Mode::Write, 0..=9)), Answer::Waiting);
    assert_eq!(table.wait(40, posix(4, Mode::Read, 5..=9)), Answer::Waiting);
    assert!(table.granted().is_empty());
    unlock(&mut table, 1, ALL);
    assert_eq!(table.granted(), [20, 40]);
    unlock(&mut table, 2, ALL);
    assert!(table.granted().is_empty());
    unlock(&mut table, 4, ALL);
    assert_eq!(table.granted(), [30]);
}

#[test]
fn a_writer_that_becomes_a_reader_lets_readers_in() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, 0..=9)), Answer::Granted);
    assert_eq!(table.wait(20, posix(2, Mode::Read, 0..=9)), Answer::Waiting);
    assert_eq!(table.set(&posix(1, Mode::Read, 0..=9)), Answer::Granted);
    assert_eq!(table.granted(), [20]);
}

#[test]
fn flock_gives_its_lock_up_to_change_it() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&flock(1, Mode::Read)), Answer::Granted);
    assert_eq!(table.set(&flock(2, Mode::Read)), Answer::Granted);
    assert_eq!(table.wait(30, flock(3, Mode::Write)), Answer::Waiting);
    assert!(matches!(table.set(&flock(1, Mode::Write)), Answer::Conflict(_)));
    assert!(table.held_of(FILE, Family::Flock, owner(1)).is_empty());
    table.release_owner(FILE, Family::Flock, owner(2));
    assert_eq!(table.granted(), [30]);
}

#[test]
fn a_circle_of_three_is_found_and_leaves_nothing() {
    let mut table = LockTable::default();
    for n in 1..=3 {
        assert_eq!(table.set(&posix(n, Mode::Write, n..=n)), Answer::Granted);
    }
    assert_eq!(table.wait(10, posix(1, Mode::Write, 2..=2)), Answer::Waiting);
    assert_eq!(table.wait(20, posix(2, Mode::Read, 3..=3)), Answer::Waiting);
    assert_eq!(table.wait(30, posix(3, Mode::Write, 1..=1)), Answer::Deadlock);
    assert!(!table.cancel(30), "it does not wait");
    unlock(&mut table, 3, ALL);
    assert_eq!(table.granted(), [20]);
}

#[test]
fn a_long_wait_is_no_circle() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, 1..=1)), Answer::Granted);
    assert_eq!(table.set(&posix(2, Mode::Write, 2..=2)), Answer::Granted);
    assert_eq!(table.wait(20, posix(2, Mode::Write, 1..=1)), Answer::Waiting);
    assert_eq!(table.wait(30, posix(3, Mode::Write, 1..=2)), Answer::Waiting);
    // Once its circle would have closed, but that wait was given up.
    assert!(table.cancel(20));
    assert_eq!(table.wait(10, posix(1, Mode::Write, 2..=2)), Answer::Waiting);
}

#[test]
fn a_mount_that_is_gone_leaves_nothing_behind() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, 0..=9)), Answer::Granted);
    assert_eq!(table.set(&flock(1, Mode::Write)), Answer::Granted);
    assert_eq!(table.wait(20, posix(2, Mode::Write, 0..=0)), Answer::Waiting);
    assert_eq!(table.wait(30, posix(3, Mode::Write, 0..=9)), Answer::Waiting);
    assert_eq!(table.wait(40, flock(4, Mode::Read)), Answer::Waiting);
    table.release_session(1);
    let mut granted = table.granted();
    granted.sort_unstable();
    assert_eq!(granted, [20, 40], "the ticket of the mount that is gone is not served");
    table.release_session(0);
    assert!(table.files.is_empty() && table.waits.is_empty() && table.waiting_of.is_empty());
    assert!(table.count.is_empty());
}

#[test]
fn a_close_ends_a_wait_too() {
    let mut table = LockTable::default();
    assert_eq!(table.set(&posix(1, Mode::Write, 0..=9)), Answer::Granted);
    assert_eq!(table.wait(20, posix(2, Mode::Write, 0..=0)), Answer::Waiting);
    table.release_owner(FILE, Family::Posix, owner(2));
    unlock(&mut table, 1, ALL);
    assert!(table.granted().is_empty());
    assert!(table.files.is_empty());
}

#[test]
fn a_mount_may_have_only_so_many() {
    let mut table = LockTable::default();
    table.count.insert(1, MOST_OF_A_SESSION);
    assert_eq!(table.set(&posix(1, Mode::Read, 0..=0)), Answer::TooMany);
    assert_eq!(table.wait(10, posix(1, Mode::Read, 0..=0)), Answer::TooMany);
    assert_eq!(table.set(&posix(2, Mode::Read, 0..=0)), Answer::Granted);
}

const BYTES: u64 = 12;

#[derive(Clone, Debug)]
enum Step {
    Set(u64, Mode, u64, u64),
    Wait(u64, Mode, u64, u64),
    Unlock(u64, u64, u64),
    Cancel(prop::sample::Index),
    Close(u64),
    Gone(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![Just(Mode::Read), Just(Mode::Write)];
    let lock = (0..5u64, mode, 0..BYTES, 0..BYTES);
    let step = prop_oneof![
        4 => lock.clone().prop_map(|(n, m, a, b)| Step::Set(n, m, a.min(b), a.max(b))),
        4 => lock.clone().prop_map(|(n, m, a, b)| Step::Wait(n, m, a.min(b), a.max(b))),
        4 => lock.prop_map(|(n, _, a, b)| Step::Unlock(n, a.min(b), a.max(b))),
        1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => (0..5u64).prop_map(Step::Close),
        1 => (0..2u64).prop_map(Step::Gone),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What each owner has of each byte: the truth, by the simplest means.
#[derive(Default)]
struct Model {
    bytes: BTreeMap<(u64, u64), Mode>,
    waiting: Vec<(Ticket, u64, Mode, u64, u64)>,
}

impl Model {
    fn free(&self, n: u64, mode: Mode, first: u64, last: u64) -> bool {
        !self.bytes.iter().any(|(&(m, byte), &held)| {
            m != n && (first..=last).contains(&byte) && (mode == Mode::Write || held == Mode::Write)
        })
    }

    fn hold(&mut self, n: u64, mode: Mode, first: u64, last: u64) {
        self.bytes.extend((first..=last).map(|byte| ((n, byte), mode)));
    }

    fn drop_bytes(&mut self, n: u64, first: u64, last: u64) {
        self.bytes.retain(|&(m, byte), _| m != n || !(first..=last).contains(&byte));
    }

    fn settle(&mut self) -> Vec<Ticket> {
        let mut granted = Vec::new();
        while let Some(i) = self.waiting.iter().position(|&(_, n, m, a, b)| self.free(n, m, a, b)) {
            let (ticket, n, m, a, b) = self.waiting.remove(i);
            self.hold(n, m, a, b);
            granted.push(ticket);
        }
        granted
    }
}

proptest! {
    #[test]
    fn the_table_is_what_each_owner_has_of_each_byte(steps in steps()) {
        let (mut table, mut model) = (LockTable::default(), Model::default());
        for (ticket, step) in steps.into_iter().enumerate() {
            let ticket = ticket as Ticket;
            match step {
                Step::Set(n, mode, first, last) => {
                    let granted = table.set(&posix(n, mode, first..=last)) == Answer::Granted;
                    prop_assert_eq!(granted, model.free(n, mode, first, last));
                    if granted {
                        model.hold(n, mode, first, last);
                    }
                }
                Step::Wait(n, mode, first, last) => match table.wait(ticket, posix(n, mode, first..=last)) {
                    Answer::Granted => {
                        prop_assert!(model.free(n, mode, first, last));
                        model.hold(n, mode, first, last);
                    }
                    Answer::Waiting => {
                        prop_assert!(!model.free(n, mode, first, last));
                        model.waiting.push((ticket, n, mode, first, last));
                    }
                    Answer::Deadlock => prop_assert!(!model.free(n, mode, first, last)),
                    other => prop_assert!(false, "{:?}", other),
                },
                Step::Unlock(n, first, last) => {
                    unlock(&mut table, n, first..=last);
                    model.drop_bytes(n, first, last);
                }
                Step::Cancel(which) => {
                    if !model.waiting.is_empty() {
                        let i = which.index(model.waiting.len());
                        prop_assert!(table.cancel(model.waiting.remove(i).0));
                    }
                }
                Step::Close(n) => {
                    table.release_owner(FILE, Family::Posix, owner(n));
                    model.waiting.retain(|w| w.1 != n);
                    model.drop_bytes(n, 0, BYTES);
                }
                Step::Gone(session) => {
                    table.release_session(session);
                    model.waiting.retain(|w| w.1 % 2 != session);
                    (0..5).filter(|n| n % 2 == session).for_each(|n| model.drop_bytes(n, 0, BYTES));
                }
            }
            prop_assert_eq!(table.granted(), model.settle());
            for n in 0..5 {
                let held = table.held_of(FILE, Family::Posix, owner(n));
                let bytes: Vec<_> = held.iter().flat_map(|(r, m)| r.clone().map(move |b| (b, *m))).collect();
                let truth: Vec<_> = model.bytes.range((n, 0)..(n + 1, 0)).map(|(&(_, b), &m)| (b, m)).collect();
                prop_assert_eq!(bytes, truth);
                let apart = |w: &[(RangeInclusive<u64>, Mode)]| w[0].1 != w[1].1 || *w[0].0.end() + 1 < *w[1].0.start();
                prop_assert!(held.windows(2).all(apart), "neighbours that are alike are joined");
            }
        }
        (0..2).for_each(|session| table.release_session(session));
        prop_assert!(table.files.is_empty() && table.waits.is_empty() && table.count.is_empty());
    }
}
