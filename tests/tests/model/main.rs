//! Random sequences of operations on rchfs and, at the same time, on a tmpfs directory: every result,
//! every error and the whole tree afterwards must be the same.
//!
//! `RCHFS_MODEL_SEED` runs one sequence again, `RCHFS_MODEL_ROUNDS` sets how many there are. A sequence
//! that fails is cut down to a short one before it is shown; such sequences are kept in
//! [`regressions`](mod@regressions).

mod op;
mod regressions;
mod world;

use e2e::{Rng, tree};
use op::Op;
use world::World;

const OPS_PER_ROUND: usize = 400;

/// A directory on tmpfs, where there is one; any Linux file system will do.
fn reference_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// Runs `ops` on new file systems; the first difference, if any.
fn difference(ops: &[Op]) -> Option<String> {
    let mut found = None;
    e2e::on_fs("size=64M", |fs| {
        let reference = reference_dir();
        let mut worlds = [World::new(fs.path("w")), World::new(reference.path().join("w"))];
        found =
            ops.iter().enumerate().find_map(|(i, op)| step(&mut worlds, i, op)).or_else(|| compare(&worlds));
    });
    found
}

fn step(worlds: &mut [World; 2], i: usize, op: &Op) -> Option<String> {
    let [got, expected] = worlds.each_mut().map(|world| world.apply(op));
    (got != expected).then(|| format!("operation {i}, {op:?}: {got}, expected {expected}"))
}

fn compare(worlds: &[World; 2]) -> Option<String> {
    let [got, expected] = worlds.each_ref().map(World::snapshot);
    tree::first_difference(&got, &expected)
}

/// Leaves out as many operations as it can while a difference remains.
fn shrink(mut ops: Vec<Op>) -> Vec<Op> {
    let mut chunk = ops.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            if difference(&fewer).is_some() { ops = fewer } else { at += chunk }
        }
        chunk /= 2;
    }
    ops
}

/// Asserts that `ops` do the same on both, or shows the shortest sequence found that does not.
fn assert_same(ops: Vec<Op>) {
    if let Some(first) = difference(&ops) {
        let short = shrink(ops);
        let still = difference(&short).unwrap_or_else(|| format!("not seen again; at first: {first}"));
        panic!("{still}\nafter {} operations:\n{short:#?}", short.len());
    }
}

#[test]
fn random_operations_do_what_tmpfs_does() {
    let seed = Rng::seed_from_env("RCHFS_MODEL_SEED");
    let rounds = std::env::var("RCHFS_MODEL_ROUNDS").map_or(6, |n| n.parse().expect("a number"));
    let one = std::env::var_os("RCHFS_MODEL_SEED").is_some();
    for round in 0..if one { 1 } else { rounds } {
        let seed = if one { seed } else { seed.wrapping_add(round) };
        println!("RCHFS_MODEL_SEED={seed} runs this round again");
        let mut rng = Rng::new(seed);
        assert_same((0..OPS_PER_ROUND).map(|_| Op::random(&mut rng)).collect());
    }
}
