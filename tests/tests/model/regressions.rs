//! Short sequences that were found to differ once, or are likely to.

use crate::assert_same;
use crate::op::{Name, Op};

fn open(slot: usize, name: Name) -> Op {
    Op::Open { slot, name, create: true, truncate: false, exclusive: false, append: false }
}

#[test]
fn growing_after_a_cut_exposes_zeros() {
    assert_same(vec![
        open(0, "a"),
        Op::Write { slot: 0, at: 0, len: 10_000, seed: 1 },
        Op::Truncate { slot: 0, size: 5000 },
        Op::Write { slot: 0, at: 9000, len: 10, seed: 2 },
        Op::Read { slot: 0, at: 0, len: 20_000 },
    ]);
}

#[test]
fn a_punched_tail_stays_zero_after_growth() {
    assert_same(vec![
        open(0, "a"),
        Op::Allocate { slot: 0, at: 0, len: 100_000, keep: true },
        Op::Write { slot: 0, at: 100, len: 3000, seed: 1 },
        Op::Punch { slot: 0, at: 2000, len: 50_000 },
        Op::Truncate { slot: 0, size: 60_000 },
        Op::Read { slot: 0, at: 0, len: 70_000 },
    ]);
}

#[test]
fn a_file_renamed_over_stays_open() {
    assert_same(vec![
        open(0, "a"),
        Op::Write { slot: 0, at: 0, len: 5000, seed: 1 },
        open(1, "b"),
        Op::Write { slot: 1, at: 0, len: 300, seed: 2 },
        Op::Rename { from: "a", to: "b", flags: 0 },
        Op::Write { slot: 1, at: 4000, len: 5000, seed: 3 },
        Op::Copy { from: 1, to: 0, read: 100, write: 70_000, len: 8000 },
        Op::Read { slot: 0, at: 0, len: 100_000 },
    ]);
}

#[test]
fn a_mapping_stores_between_buffered_writes() {
    assert_same(vec![
        open(0, "a"),
        Op::Truncate { slot: 0, size: 50_000 },
        Op::Map { slot: 0, at: 4000, len: 10_000, seed: 1 },
        Op::Write { slot: 0, at: 9000, len: 4096, seed: 2 },
        Op::Map { slot: 0, at: 12_000, len: 100, seed: 3 },
        Op::Sync { slot: 0 },
        Op::Read { slot: 0, at: 0, len: 50_000 },
    ]);
}
