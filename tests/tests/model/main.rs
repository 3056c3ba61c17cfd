//! Random sequences of operations on rchfs and, at the same time, on a tmpfs directory: every result,
//! every error and the whole tree afterwards must be the same.
//!
//! `RCHFS_MODEL_SEED` runs one sequence again, `RCHFS_MODEL_ROUNDS` sets how many there are. A sequence
//! that fails is cut down to a short one before it is shown; such sequences are kept in
//! [`regressions`](mod@regressions).

mod op;
mod regressions;
mod world;

use e2e::{Mount, Rng, fixture, tree};
use op::Op;
use world::World;

const OPS_PER_ROUND: usize = 400;

/// A directory on tmpfs.
fn reference_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs")
}

/// Runs `ops` on new file systems; the first difference, if any.
fn difference(ops: &[Op]) -> Option<String> {
    let mut found = None;
    e2e::on_fs("size=64M", |fs| {
        let reference = reference_dir();
        let mut worlds = [World::new(fs.path("w")), World::new(reference.path().join("w"))];
        found = ops
            .iter()
            .enumerate()
            .find_map(|(i, op)| step(&mut worlds, ops, i, op))
            .or_else(|| compare(&worlds, ops));
    });
    found
}

fn step(worlds: &mut [World; 2], ops: &[Op], i: usize, op: &Op) -> Option<String> {
    let results = worlds.each_mut().map(|world| world.apply(op));
    let [got, expected] = if pass_the_cache(ops) { results.map(without_time) } else { results };
    (got != expected).then(|| format!("operation {i}, {op:?}: {got}, expected {expected}"))
}

/// The first difference between the two trees.
fn compare(worlds: &[World; 2], ops: &[Op]) -> Option<String> {
    let trees = worlds.each_ref().map(World::snapshot);
    let untimed =
        |tree: tree::Tree| tree.into_iter().map(|(name, text)| (name, without_time(text))).collect();
    let [got, expected] = if pass_the_cache(ops) { trees.map(untimed) } else { trees };
    tree::first_difference(&got, &expected)
}

/// Whether something is opened past the kernel's cache. Then modification times do not count: they are the
/// kernel's own, and it learns of direct writes late or, where it writes back times of its own at that
/// moment, not at all (SEMANTICS.md).
fn pass_the_cache(ops: &[Op]) -> bool {
    ops.iter().any(|op| matches!(op, Op::Open { direct: true, .. }))
}

fn without_time(text: String) -> String {
    match text.split_once(" mtime ") {
        Some((before, after)) => before.to_owned() + after.trim_start_matches(|c: char| c != ',' && c != ' '),
        None => text,
    }
}

/// Leaves out as many operations as it can while what is left still `fails`.
fn shrink<T: Clone>(mut ops: Vec<T>, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut chunk = ops.len() / 2;
    while chunk > 0 {
        let mut at = 0;
        while at < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(at..(at + chunk).min(fewer.len()));
            if fails(&fewer) { ops = fewer } else { at += chunk }
        }
        chunk /= 2;
    }
    ops
}

/// Asserts that `ops` do the same on both, or shows the shortest sequence found that does not.
fn assert_same(ops: Vec<Op>) {
    if let Some(first) = difference(&ops) {
        let short = shrink(ops, |ops| difference(ops).is_some());
        let still = difference(&short).unwrap_or_else(|| format!("not seen again; at first: {first}"));
        panic!("{still}\nafter {} operations:\n{short:#?}", short.len());
    }
}

/// Runs `test` on as many random sequences as were asked for.
fn for_random_sequences(rounds: u64, test: impl Fn(Vec<Op>)) {
    let seed = Rng::seed_from_env("RCHFS_MODEL_SEED");
    let rounds = match std::env::var("RCHFS_MODEL_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("a number"),
        Err(_) => rounds,
    };
    let one = std::env::var_os("RCHFS_MODEL_SEED").is_some();
    for round in 0..if one { 1 } else { rounds } {
        let seed = seed.wrapping_add(round);
        println!("RCHFS_MODEL_SEED={seed} runs this round again");
        let mut rng = Rng::new(seed);
        let mut ops: Vec<Op> = (0..OPS_PER_ROUND).map(|_| Op::random(&mut rng)).collect();
        if seed % 2 == 0 {
            ops.iter_mut().for_each(Op::through_the_cache);
        }
        test(ops);
    }
}

#[test]
fn random_operations_do_what_tmpfs_does() {
    for_random_sequences(40, assert_same);
}

#[test]
fn what_random_operations_made_and_closed_survives_unmount_and_kill_9() {
    if fixture::is_reference() || !fixture::has_fuse() {
        return;
    }
    let end_by_kill = std::cell::Cell::new(false);
    for_random_sequences(20, |ops| {
        end_by_kill.set(!end_by_kill.get());
        let top = fixture::temp_dir();
        let dir = top.path().join("mnt");
        std::fs::create_dir(&dir).expect("a directory can be made");
        let [cxl, state, log] = ["pool", "state", "log"].map(|name| top.path().join(name));
        let options = format!("size=64M,cxl={},state={}", cxl.display(), state.display());
        let mount =
            || Mount::start(&dir, &options, &log).unwrap_or_else(|failed| panic!("{}", failed.message));

        let mounted = mount();
        let reference = reference_dir();
        let mut worlds = [World::new(dir.join("w")), World::new(reference.path().join("w"))];
        for (i, op) in ops.iter().enumerate() {
            assert_eq!(step(&mut worlds, &ops, i, op), None);
        }
        worlds.iter_mut().for_each(World::close_all);
        if end_by_kill.get() {
            mounted.kill()
        } else {
            assert!(mounted.unmount().success())
        }
        let mounted = mount();
        assert_eq!(
            compare(&worlds, &ops),
            None,
            "after {}",
            if end_by_kill.get() { "kill -9" } else { "unmount" }
        );
        assert!(mounted.unmount().success());
    });
}

#[test]
fn shrinking_keeps_what_is_needed_and_nothing_else() {
    let fails = |ops: &[u32]| [17, 90, 95].iter().all(|n| ops.contains(n));
    assert_eq!(shrink((0..200).collect(), fails), [17, 90, 95]);
}

#[test]
fn a_difference_between_the_two_is_seen() {
    let tree = |text: &str| tree::Tree::from([("a".to_owned(), text.to_owned())]);
    assert_eq!(tree::first_difference(&tree("x"), &tree("x")), None);
    assert!(tree::first_difference(&tree("x"), &tree("y")).is_some());
    assert!(tree::first_difference(&tree("x"), &tree::Tree::new()).is_some());
}
