//! A clone and its source are independent, whatever is done to either.

use super::rig::{PROGRAM, ROOT, RW, Rig, rig};
use pool::proto::meta::{Ino, NewNode, SetAttr, XattrMode};
use proptest::prelude::*;
use rchfs::fs::FsError;
use rchfs::fs::names::Making;
use rchfs::fs::ranges::Falloc;

const PAGE: u64 = 4096;
const FILES: usize = 3;
/// The largest file of a random run, in pages.
const PAGES: u64 = 10;

#[derive(Clone, Debug)]
enum Op {
    Write(usize, u64, u64, u8),
    Truncate(usize, u64),
    Punch(usize, u64, u64),
    Zero(usize, u64, u64),
    Copy {
        from: (usize, u64),
        to: (usize, u64),
        len: u64,
    },
    /// A clone of the directory that has all the files.
    Snapshot,
}

fn op() -> impl Strategy<Value = Op> {
    let file = || 0..FILES;
    let at = || prop_oneof![0..PAGES * PAGE, (0..PAGES).prop_map(|page| page * PAGE)];
    let len = || prop_oneof![1..4 * PAGE, (1..6u64).prop_map(|pages| pages * PAGE)];
    prop_oneof![
        4 => (file(), at(), len(), 1..=255u8).prop_map(|(f, a, l, b)| Op::Write(f, a, l, b)),
        1 => (file(), at()).prop_map(|(f, size)| Op::Truncate(f, size)),
        1 => (file(), at(), len()).prop_map(|(f, a, l)| Op::Punch(f, a, l)),
        1 => (file(), at(), len()).prop_map(|(f, a, l)| Op::Zero(f, a, l)),
        4 => ((file(), at()), (file(), at()), len()).prop_map(|(from, to, len)| Op::Copy { from, to, len }),
        1 => Just(Op::Snapshot),
    ]
}

fn make(rig: &Rig, parent: Ino, name: &str) -> Ino {
    let what = Making { parent, name: name.as_bytes(), caller: ROOT, perm: 0o755, umask: 0 };
    rig.fs.make(what, NewNode::Dir).unwrap().ino
}

fn snapshot(rig: &Rig, from: Ino, to: Ino) -> Result<(), FsError> {
    let value = from.0.to_string();
    rig.fs.setxattr(to, ROOT, b"user.rchfs.clone", value.as_bytes(), XattrMode::Any)
}

fn grow(model: &mut Vec<u8>, to: u64) {
    model.resize(model.len().max(to as usize), 0);
}

/// Bytes `at..at + len` as far as there are any.
fn span(model: &[u8], at: u64, len: u64) -> std::ops::Range<usize> {
    let end = ((at + len) as usize).min(model.len());
    (at as usize).min(end)..end
}

fn apply(rig: &Rig, files: &[(Ino, u64)], models: &mut [Vec<u8>], op: &Op) {
    let fs = &rig.fs;
    match *op {
        Op::Write(f, at, len, byte) => {
            fs.write(files[f].1, at, &vec![byte; len as usize], PROGRAM).unwrap();
            grow(&mut models[f], at + len);
            models[f][at as usize..(at + len) as usize].fill(byte);
        }
        Op::Truncate(f, size) => {
            fs.setattr(files[f].0, ROOT, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
            models[f].resize(size as usize, 0);
        }
        Op::Punch(f, at, len) => {
            fs.fallocate(files[f].1, at, len, Falloc::PunchHole, false).unwrap();
            let span = span(&models[f], at, len);
            models[f][span].fill(0);
        }
        Op::Zero(f, at, len) => {
            fs.fallocate(files[f].1, at, len, Falloc::ZeroRange { keep_size: false }, false).unwrap();
            grow(&mut models[f], at + len);
            models[f][at as usize..(at + len) as usize].fill(0);
        }
        Op::Copy { from: (a, from), to: (b, to), len } => {
            if a == b && from.abs_diff(to) < len {
                return; // The kernel refuses overlapping ranges.
            }
            let copied = fs.copy((files[a].1, from), (files[b].1, to), len, false).unwrap();
            let bytes = models[a][span(&models[a], from, len)].to_vec();
            assert!(copied <= bytes.len() as u64 && (copied == 0) == bytes.is_empty(), "{copied}");
            if copied > 0 {
                grow(&mut models[b], to + copied);
                models[b][to as usize..(to + copied) as usize].copy_from_slice(&bytes[..copied as usize]);
            }
        }
        Op::Snapshot => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn clones_are_independent(ops in prop::collection::vec(op(), 1..40)) {
        let rig = rig(2048, PAGE);
        let dir = make(&rig, Ino::ROOT, "dir");
        let name = |f: usize| format!("f{f}");
        let files: Vec<_> = (0..FILES).map(|f| {
            let name = name(f);
            let what = Making { parent: dir, name: name.as_bytes(), caller: ROOT, perm: 0o644, umask: 0 };
            let (attr, handle) = rig.fs.create(what, RW).unwrap();
            (attr.ino, handle)
        }).collect();
        let mut models = vec![Vec::new(); FILES];
        let mut snapshots = Vec::new();
        for op in &ops {
            if matches!(op, Op::Snapshot) {
                let to = make(&rig, Ino::ROOT, &format!("s{}", snapshots.len()));
                snapshot(&rig, dir, to).unwrap();
                snapshots.push((to, models.clone()));
            } else {
                apply(&rig, &files, &mut models, op);
            }
        }
        for ((_, handle), model) in files.iter().zip(&models) {
            prop_assert_eq!(&rig.read_all(*handle), model);
        }
        for (to, models) in &snapshots {
            for (f, model) in models.iter().enumerate() {
                let attr = rig.fs.lookup(*to, name(f).as_bytes()).unwrap();
                let handle = rig.fs.open(attr.ino, RW).unwrap();
                prop_assert_eq!(&rig.read_all(handle), model);
                rig.fs.release(handle).unwrap();
                rig.fs.unlink(*to, name(f).as_bytes()).unwrap();
                rig.fs.forget(attr.ino, 1);
            }
        }
        for (f, (ino, handle)) in files.iter().enumerate() {
            rig.fs.unlink(dir, name(f).as_bytes()).unwrap();
            rig.fs.release(*handle).unwrap();
            rig.fs.forget(*ino, 1);
        }
        prop_assert_eq!(rig.used(), 0);
    }
}

#[test]
fn a_clone_takes_no_pages_and_a_write_takes_what_it_touches() {
    let rig = rig(64, PAGE);
    let (_, a) = rig.create("a");
    let (_, b) = rig.create("b");
    rig.fs.write(a, 0, &[7; 10 * PAGE as usize + 5], PROGRAM).unwrap();
    assert_eq!(rig.fs.copy((a, 0), (b, 0), 1 << 40, false).unwrap(), 10 * PAGE + 5);
    assert_eq!(rig.used(), 11);
    rig.fs.write(b, 2 * PAGE - 1, &[8; 2], PROGRAM).unwrap();
    assert_eq!(rig.used(), 13);
    rig.fs.write(b, 4 * PAGE, &[8; PAGE as usize], PROGRAM).unwrap();
    assert_eq!(rig.used(), 14);
    assert_eq!(rig.read_all(a), vec![7; 10 * PAGE as usize + 5]);
}

#[test]
fn a_full_pool_refuses_to_unshare_and_loses_nothing() {
    let rig = rig(super::rig::RESERVE + 8, PAGE);
    let (_, a) = rig.create("a");
    let (_, b) = rig.create("b");
    let data = vec![7; 8 * PAGE as usize];
    rig.fs.write(a, 0, &data, PROGRAM).unwrap();
    assert_eq!(rig.fs.copy((a, 0), (b, 0), 8 * PAGE, false).unwrap(), 8 * PAGE);
    for (at, len) in [(10, 10), (0, 2 * PAGE)] {
        let refused = rig.fs.write(b, at, &vec![1; len as usize], PROGRAM);
        assert!(matches!(refused, Err(FsError::Full)), "{refused:?}");
    }
    assert_eq!((rig.read_all(a), rig.read_all(b)), (data.clone(), data));
}
