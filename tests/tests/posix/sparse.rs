//! Holes: what they read as, what they cost, how they are made and found.

use e2e::rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use e2e::rustix::io::{Errno, Result};
use e2e::{assert_errno, fixture, on_fs, pattern};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);

/// The kernel learns what delayed writes took when a descriptor is closed, not before: files that are
/// written are opened anew before this is asked.
fn blocks(file: &File) -> u64 {
    file.metadata().unwrap().blocks()
}

fn data(file: &File, from: u64) -> Result<u64> {
    seek(file, SeekFrom::Data(from))
}

fn hole(file: &File, from: u64) -> Result<u64> {
    seek(file, SeekFrom::Hole(from))
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_hole_reads_as_zeros_and_costs_nothing() {
    on_fs("size=16M,page_size=4K", |fs| {
        let free = fs.statfs().f_bfree;
        let file = fs.file("a", b"");
        file.set_len(1 << 40).unwrap();
        assert_eq!(blocks(&file), 0);
        assert_eq!(fs.statfs().f_bfree, free);
        file.write_all_at(b"x", 1 << 39).unwrap();
        drop(file);
        let file = File::open(fs.path("a")).unwrap();
        assert_eq!(blocks(&file), 8);
        let mut around = [1; 9000];
        file.read_exact_at(&mut around, (1 << 39) - 4500).unwrap();
        assert!(around.iter().enumerate().all(|(i, byte)| *byte == if i == 4500 { b'x' } else { 0 }));
    });
}

#[test]
fn seek_finds_data_and_holes() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"");
        file.write_all_at(&[1; 4096], 8192).unwrap();
        file.write_all_at(&[1; 100], 40_960).unwrap();
        file.set_len(100_000).unwrap();
        file.sync_all().unwrap();
        assert_eq!(data(&file, 0).unwrap(), 8192);
        assert_eq!(data(&file, 9000).unwrap(), 9000);
        assert_eq!(hole(&file, 0).unwrap(), 0);
        assert_eq!(hole(&file, 8192).unwrap(), 12_288);
        assert_eq!(data(&file, 12_288).unwrap(), 40_960);
        assert_eq!(hole(&file, 40_960).unwrap(), 45_056);
        assert_errno(data(&file, 50_000), Errno::NXIO);
        assert_eq!(hole(&file, 99_999).unwrap(), 99_999);
        assert_errno(hole(&file, 100_000), Errno::NXIO);
        assert_errno(data(&file, 100_000), Errno::NXIO);
    });
}

#[test]
fn seek_sees_what_was_written_and_not_yet_synced() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"");
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&pattern(1, 10_000), 500_000).unwrap();
        let start = data(&file, 0).unwrap();
        assert!((495_616..=500_000).contains(&start), "data at {start}");
        let end = hole(&file, 500_000).unwrap();
        assert!((510_000..=512_000).contains(&end), "hole at {end}");
        // The same through another descriptor, while the first one is still open.
        let other = File::open(fs.path("a")).unwrap();
        assert_eq!(data(&other, 0).unwrap(), start);
    });
}

#[test]
fn a_file_without_holes_ends_in_one() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &pattern(1, 5000));
        file.sync_all().unwrap();
        assert_eq!(data(&file, 4999).unwrap(), 4999);
        assert_eq!(hole(&file, 0).unwrap(), 5000);
        let empty = fs.file("b", b"");
        assert_errno(data(&empty, 0), Errno::NXIO);
        assert_errno(hole(&empty, 0), Errno::NXIO);
    });
}

#[test]
fn fallocate_reserves_pages_and_extends_with_zeros() {
    on_fs("size=16M,page_size=4K", |fs| {
        let free = fs.statfs().f_bfree;
        let file = fs.file("a", b"abc");
        fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        assert_eq!(blocks(&file), 2048);
        assert!(free - fs.statfs().f_bfree >= 256);
        let bytes = contents(&file);
        assert_eq!(&bytes[..3], b"abc");
        assert!(bytes[3..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn fallocate_keep_size_reserves_past_the_end() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"abc");
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 3);
        assert_eq!(blocks(&file), 2048);
        file.set_len(500_000).unwrap();
        assert!(contents(&file)[3..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn punching_frees_whole_pages_and_zeroes_the_rest() {
    on_fs("size=16M,page_size=4K", |fs| {
        let mut model = pattern(2, 40_960);
        let file = fs.file("a", &model);
        assert_eq!(blocks(&file), 80);
        fallocate(&file, PUNCH, 5000, 20_000).unwrap();
        model[5000..25_000].fill(0);
        assert!(contents(&file) == model);
        assert_eq!(blocks(&file), 80 - 4 * 8);
        assert_eq!(hole(&file, 0).unwrap(), 8192);
        assert_eq!(data(&file, 8192).unwrap(), 24_576);
        // Past the end nothing happens.
        fallocate(&file, PUNCH, 1 << 30, 4096).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 40_960);
        fallocate(&file, PUNCH, 0, 1 << 30).unwrap();
        assert_eq!((blocks(&file), file.metadata().unwrap().len()), (0, 40_960));
    });
}

#[test]
fn punching_wins_over_what_is_still_in_the_cache() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"");
        file.write_all_at(&pattern(3, 100_000), 0).unwrap();
        fallocate(&file, PUNCH, 4096, 90_000).unwrap();
        let mut model = pattern(3, 100_000);
        model[4096..94_096].fill(0);
        assert!(contents(&file) == model);
        file.sync_all().unwrap();
        drop(file);
        assert!(fs::read(fs.path("a")).unwrap() == model);
    });
}

#[test]
fn zero_range_zeroes_and_extends() {
    on_fs("size=16M,page_size=4K", |fs| {
        let mut model = pattern(4, 20_000);
        let file = fs.file("a", &model);
        let zeroed = fallocate(&file, FallocateFlags::ZERO_RANGE, 3000, 10_000);
        if fixture::is_reference() {
            return assert_errno(zeroed, Errno::OPNOTSUPP);
        }
        zeroed.unwrap();
        model[3000..13_000].fill(0);
        assert!(contents(&file) == model);
        fallocate(&file, FallocateFlags::ZERO_RANGE, 15_000, 10_000).unwrap();
        model[15_000..].fill(0);
        model.resize(25_000, 0);
        assert!(contents(&file) == model);
        let keep = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, keep, 20_000, 100_000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 25_000);
    });
}

#[test]
fn fallocate_refuses_what_it_must() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &[7; 10_000]);
        assert_errno(fallocate(&file, FallocateFlags::PUNCH_HOLE, 0, 4096), Errno::OPNOTSUPP);
        assert_errno(fallocate(&file, FallocateFlags::empty(), 0, 0), Errno::INVAL);
        assert_errno(fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 4096), Errno::OPNOTSUPP);
        assert_errno(fallocate(&file, FallocateFlags::INSERT_RANGE, 0, 4096), Errno::OPNOTSUPP);
        let reader = File::open(fs.path("a")).unwrap();
        assert_errno(fallocate(&reader, FallocateFlags::empty(), 0, 4096), Errno::BADF);
        assert_eq!(contents(&file), [7; 10_000]);
    });
}

#[test]
fn truncation_frees_pages_and_growth_exposes_zeros_only() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", &pattern(5, 100_000));
        for size in [70_001, 4097, 4096, 4095, 1] {
            file.set_len(size).unwrap();
            assert_eq!(blocks(&file), size.div_ceil(4096) * 8, "at {size}");
            file.set_len(100_000).unwrap();
            let mut model = pattern(5, size as usize);
            model.resize(100_000, 0);
            assert!(contents(&file) == model, "at {size}");
        }
        file.set_len(0).unwrap();
        assert_eq!(blocks(&file), 0);
    });
}

#[test]
fn holes_survive_a_sparse_copy() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("a", b"");
        for i in 0..10u64 {
            file.write_all_at(&pattern(i, 5000), i << 30).unwrap();
        }
        drop(file);
        e2e::run::ok(&mut e2e::run::script(
            fs.dir(),
            "cp --sparse=always a b; cmp <(tail -c 5000 a) <(tail -c 5000 b)",
        ));
        let (a, b) = (fs::metadata(fs.path("a")).unwrap(), fs::metadata(fs.path("b")).unwrap());
        assert_eq!((a.len(), a.blocks()), (b.len(), b.blocks()));
    });
}
