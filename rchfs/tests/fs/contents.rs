//! What a file holds after any sequence of operations on ranges is what an array of bytes would hold.

use super::rig::{PROGRAM, ROOT, Rig, rig};
use pool::proto::meta::SetAttr;
use proptest::prelude::*;
use rchfs::fs::ranges::{Falloc, Seek};

/// The largest file of a random run, in bytes: a few pages.
const MAX: u64 = 40_000;

#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, u8),
    Truncate(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Allocate(u64, u64, bool),
    Copy(u64, u64, u64),
    Read(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..MAX;
    let len = || 1..12_000u64;
    prop_oneof![
        (at(), len(), 1..=255u8).prop_map(|(a, l, b)| Op::Write(a, l, b)),
        at().prop_map(Op::Truncate),
        (at(), len()).prop_map(|(a, l)| Op::Punch(a, l)),
        (at(), len(), any::<bool>()).prop_map(|(a, l, k)| Op::Zero(a, l, k)),
        (at(), len(), any::<bool>()).prop_map(|(a, l, k)| Op::Allocate(a, l, k)),
        (at(), at(), len()).prop_map(|(a, b, l)| Op::Copy(a, b, l)),
        (at(), len()).prop_map(|(a, l)| Op::Read(a, l)),
    ]
}

fn grow(model: &mut Vec<u8>, to: u64) {
    if model.len() < to as usize {
        model.resize(to as usize, 0);
    }
}

fn fill(model: &mut [u8], at: u64, len: u64, byte: u8) {
    let end = ((at + len) as usize).min(model.len());
    if (at as usize) < end {
        model[at as usize..end].fill(byte);
    }
}

fn apply(rig: &Rig, ino: pool::proto::meta::Ino, handle: u64, model: &mut Vec<u8>, op: &Op) {
    let fs = &rig.fs;
    match *op {
        Op::Write(at, len, byte) => {
            fs.write(handle, at, &vec![byte; len as usize], PROGRAM).unwrap();
            grow(model, at + len);
            fill(model, at, len, byte);
        }
        Op::Truncate(size) => {
            let set = SetAttr { size: Some(size), ..SetAttr::default() };
            fs.setattr(ino, ROOT, set).unwrap();
            model.resize(size as usize, 0);
        }
        Op::Punch(at, len) => {
            fs.fallocate(handle, at, len, Falloc::PunchHole, false).unwrap();
            fill(model, at, len, 0);
        }
        Op::Zero(at, len, keep_size) => {
            fs.fallocate(handle, at, len, Falloc::ZeroRange { keep_size }, false).unwrap();
            if !keep_size {
                grow(model, at + len);
            }
            fill(model, at, len, 0);
        }
        Op::Allocate(at, len, keep_size) => {
            fs.fallocate(handle, at, len, Falloc::Allocate { keep_size }, false).unwrap();
            if !keep_size {
                grow(model, at + len);
            }
        }
        Op::Copy(from, to, len) => {
            if from.abs_diff(to) < len {
                return; // The kernel refuses overlapping ranges.
            }
            let copied = fs.copy((handle, from), (handle, to), len, false).unwrap();
            let end = ((from + len) as usize).min(model.len());
            let bytes = model.get(from as usize..end).unwrap_or_default().to_vec();
            assert_eq!(copied, bytes.len() as u64);
            if !bytes.is_empty() {
                grow(model, to + copied);
                model[to as usize..to as usize + bytes.len()].copy_from_slice(&bytes);
            }
        }
        Op::Read(at, len) => {
            let out = rig.read(handle, at, len as usize);
            let end = ((at + len) as usize).min(model.len());
            assert_eq!(out, model.get(at as usize..end).unwrap_or_default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_an_array_of_bytes(page in prop::sample::select(vec![4096u64, 16384]),
                                   ops in prop::collection::vec(op(), 1..40)) {
        let rig = rig(256, page);
        let (ino, handle) = rig.create("f");
        let mut model = Vec::new();
        for op in &ops {
            apply(&rig, ino, handle, &mut model, op);
            prop_assert_eq!(rig.fs.getattr(ino, None).unwrap().size, model.len() as u64);
        }
        prop_assert_eq!(rig.read_all(handle), model);
        let blocks = rig.fs.getattr(ino, None).unwrap().blocks;
        prop_assert_eq!(blocks * 512, rig.used() * page);
        rig.fs.unlink(pool::proto::meta::Ino::ROOT, b"f").unwrap();
        rig.fs.release(handle).unwrap();
        rig.fs.forget(ino, 1);
        prop_assert_eq!(rig.used(), 0);
    }
}

#[test]
fn what_growing_exposes_reads_as_zeros() {
    let rig = rig(64, 4096);
    let (ino, handle) = rig.create("f");
    rig.fs.write(handle, 0, &[7; 9000], PROGRAM).unwrap();
    for size in [5000, 9000] {
        rig.fs.setattr(ino, ROOT, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
    }
    let all = rig.read_all(handle);
    assert!(all[..5000].iter().all(|&b| b == 7) && all[5000..].iter().all(|&b| b == 0));
}

#[test]
fn pages_of_a_removed_file_never_show_in_a_new_one() {
    let rig = rig(RESERVED_AND_EIGHT, 4096);
    for byte in 1..20 {
        let (ino, handle) = rig.create("f");
        rig.fs.write(handle, 10_000, &[byte; 100], PROGRAM).unwrap();
        let all = rig.read_all(handle);
        assert!(all[..10_000].iter().all(|&b| b == 0), "round {byte}");
        rig.fs.write(handle, 0, &[byte; 20_000], PROGRAM).unwrap();
        rig.fs.unlink(pool::proto::meta::Ino::ROOT, b"f").unwrap();
        assert_eq!(rig.read_all(handle), [byte; 20_000]);
        rig.fs.release(handle).unwrap();
        rig.fs.forget(ino, 1);
    }
    assert_eq!(rig.used(), 0);
}

const RESERVED_AND_EIGHT: u64 = super::rig::RESERVE + 8;

#[test]
fn data_and_holes_are_found() {
    let rig = rig(64, 4096);
    let (_, handle) = rig.create("f");
    rig.fs.write(handle, 8192, &[1; 10], PROGRAM).unwrap();
    rig.fs.write(handle, 40_959, &[1; 1], PROGRAM).unwrap();
    let seek = |at, what| rig.fs.seek(handle, at, what).ok();
    assert_eq!(seek(0, Seek::Data), Some(8192));
    assert_eq!(seek(0, Seek::Hole), Some(0));
    assert_eq!(seek(8192, Seek::Hole), Some(12_288));
    assert_eq!(seek(12_288, Seek::Data), Some(36_864));
    assert_eq!(seek(40_000, Seek::Hole), Some(40_960));
    assert_eq!(seek(40_960, Seek::Data), None);
    assert_eq!(seek(40_960, Seek::Hole), None);
}

#[test]
fn a_file_can_be_as_large_as_a_file_can_be() {
    let rig = rig(64, 4096);
    let (ino, handle) = rig.create("f");
    let last = i64::MAX as u64 - 1;
    rig.fs.write(handle, last, &[9], PROGRAM).unwrap();
    assert_eq!(rig.fs.getattr(ino, None).unwrap().size, i64::MAX as u64);
    assert_eq!(rig.used(), 1);
    assert!(rig.fs.write(handle, last, &[9, 9], PROGRAM).is_err());
    assert_eq!(rig.read(handle, last - 1, 10), [0, 9]);
}
