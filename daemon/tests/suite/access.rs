//! Allocating, reading, writing and freeing, as a client sees it.

use crate::common::memory;
use pool::addr::{GAddr, PageId, PageRun};
use pool::{Fill, PoolError};

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 255 + seed * 7) as u8).collect()
}

#[test]
fn what_is_written_is_read_across_pages_at_any_offset_and_length() {
    for page_size in [4096, 65536, 2 << 20] {
        let e = memory(64, page_size);
        let run = e.pool.alloc_runs(16, 0, Fill::Zeroed).unwrap()[0];
        for (offset, len) in [
            (0, 1),
            (1, 8),
            (4095, 2),
            (7, 4096),
            (page_size - 3, 7),
            (5, 3 * page_size + 11),
            (0, 16 * page_size),
        ] {
            let data = pattern(len as usize, offset as usize);
            e.pool.write(e.at(run.first, offset), &data).unwrap();
            let mut back = vec![0; len as usize];
            e.pool.read(e.at(run.first, offset), &mut back).unwrap();
            assert!(back == data, "{page_size} {offset} {len}");
            let mut appended = vec![1, 2, 3];
            e.pool.read_into(e.at(run.first, offset), len as usize, &mut appended).unwrap();
            assert!(appended[3..] == data[..] && appended[..3] == [1, 2, 3]);
        }
    }
}

#[test]
fn an_allocation_is_one_run_even_where_the_frames_are_scattered() {
    let e = memory(64, 4096);
    let run = e.pool.alloc_runs(64, 0, Fill::Uninit).unwrap()[0];
    let every_other: Vec<PageRun> = run.iter().step_by(2).map(|first| PageRun { first, count: 1 }).collect();
    assert_eq!(e.pool.free_runs(&every_other).unwrap(), 32);
    let scattered = e.pool.alloc_runs(32, 0, Fill::Zeroed).unwrap();
    assert_eq!(scattered.len(), 1);
    let data = pattern(32 * 4096, 3);
    e.pool.write(e.at(scattered[0].first, 0), &data).unwrap();
    let mut back = vec![0; data.len()];
    e.pool.read(e.at(scattered[0].first, 0), &mut back).unwrap();
    assert!(back == data);
}

#[test]
fn a_freed_page_is_an_error_and_its_frame_is_given_out_zeroed() {
    let e = memory(4, 4096);
    let page = e.pool.alloc_page().unwrap();
    e.pool.write(e.at(page, 0), &[7; 4096]).unwrap();
    e.pool.free_page(page).unwrap();
    let mut byte = [0];
    assert_eq!(e.pool.read(e.at(page, 0), &mut byte), Err(PoolError::NoSuchPage(page)));
    assert_eq!(e.pool.write(e.at(page, 9), &byte), Err(PoolError::NoSuchPage(page)));
    assert_eq!(e.pool.free_page(page), Err(PoolError::NoSuchPage(page)));
    let next = e.pool.alloc_page().unwrap();
    assert_ne!(next, page);
    let mut all = vec![1; 4096];
    e.pool.read(e.at(next, 0), &mut all).unwrap();
    assert!(all.iter().all(|b| *b == 0));
}

#[test]
fn an_access_that_reaches_into_a_page_that_is_not_there_is_an_error() {
    let e = memory(8, 4096);
    let run = e.pool.alloc_runs(3, 0, Fill::Zeroed).unwrap()[0];
    let middle = run.get(1).unwrap();
    e.pool.free_page(middle).unwrap();
    let mut all = vec![0; 3 * 4096];
    assert_eq!(e.pool.read(e.at(run.first, 0), &mut all), Err(PoolError::NoSuchPage(middle)));
    let mut appended = vec![9];
    assert!(e.pool.read_into(e.at(run.first, 0), 3 * 4096, &mut appended).is_err());
    assert_eq!(appended, [9]);
}

#[test]
fn a_full_pool_says_so_and_gives_nothing() {
    let e = memory(10, 4096);
    assert_eq!(e.pool.alloc_runs(11, 0, Fill::Uninit), Err(PoolError::OutOfMemory { wanted: 11, free: 10 }));
    assert_eq!(e.pool.alloc_runs(8, 3, Fill::Uninit), Err(PoolError::OutOfMemory { wanted: 11, free: 10 }));
    let runs = e.pool.alloc_runs(8, 2, Fill::Uninit).unwrap();
    assert_eq!((e.pool.stat().unwrap().free, e.pool.stat().unwrap().total), (2, 10));
    assert_eq!(e.pool.free_runs(&runs).unwrap(), 8);
    assert_eq!(e.pool.stat().unwrap().free, 10);
    assert_eq!(
        e.pool.alloc_runs(u64::MAX, u64::MAX, Fill::Uninit).unwrap_err(),
        PoolError::OutOfMemory { wanted: u64::MAX, free: 10 }
    );
    assert_eq!(e.pool.alloc_runs(0, 0, Fill::Zeroed).unwrap(), []);
}

#[test]
fn freeing_many_runs_frees_each_of_them_once() {
    let e = memory(100, 4096);
    let runs: Vec<PageRun> = (0..20).flat_map(|_| e.pool.alloc_runs(5, 0, Fill::Uninit).unwrap()).collect();
    let twice: Vec<PageRun> = runs.iter().chain(&runs).copied().collect();
    assert_eq!(e.pool.free_runs(&twice).unwrap(), 100);
    assert_eq!(e.pool.free_runs(&twice).unwrap(), 0);
    assert_eq!(e.pool.stat().unwrap().free, 100);
}

#[test]
fn compare_and_swap_returns_what_was_there_and_needs_an_aligned_word() {
    let e = memory(2, 4096);
    let page = e.pool.alloc_page().unwrap();
    assert_eq!(e.pool.cas(e.at(page, 4088), 0, 5), Ok(0));
    assert_eq!(e.pool.cas(e.at(page, 4088), 0, 6), Ok(5));
    assert_eq!(e.pool.cas(e.at(page, 4088), 5, 6), Ok(5));
    let mut word = [0; 8];
    e.pool.read(e.at(page, 4088), &mut word).unwrap();
    assert_eq!(u64::from_ne_bytes(word), 6);
    for offset in 1..8 {
        assert!(matches!(e.pool.cas(e.at(page, offset), 0, 1), Err(PoolError::Unaligned(_))));
    }
}

#[test]
fn copies_may_overlap_in_either_direction() {
    let e = memory(128, 4096);
    let run = e.pool.alloc_runs(128, 0, Fill::Zeroed).unwrap()[0];
    for (from, to) in [(100, 5_000), (5_000, 100), (0, 300_000), (70_001, 3)] {
        let mut model = pattern(128 * 4096, from);
        e.pool.write(e.at(run.first, 0), &model).unwrap();
        e.pool.copy(e.at(run.first, from as u64), e.at(run.first, to as u64), 200_000).unwrap();
        model.copy_within(from..from + 200_000, to);
        let mut all = Vec::new();
        e.pool.read_into(e.at(run.first, 0), model.len(), &mut all).unwrap();
        assert!(all == model, "{from} to {to}");
    }
}

#[test]
fn zeroing_clears_exactly_the_range() {
    let e = memory(8, 4096);
    let run = e.pool.alloc_runs(8, 0, Fill::Zeroed).unwrap()[0];
    let mut model = vec![0xAA; 8 * 4096];
    e.pool.write(e.at(run.first, 0), &model).unwrap();
    e.pool.zero(e.at(run.first, 4001), 9000).unwrap();
    model[4001..13001].fill(0);
    let mut all = vec![0; model.len()];
    e.pool.read(e.at(run.first, 0), &mut all).unwrap();
    assert!(all == model);
}

#[test]
fn addresses_outside_the_address_space_are_refused() {
    let e = memory(2, 4096);
    let size = e.pool.page_size();
    let last = GAddr::new(PageId::new(PageId::LIMIT - 1).unwrap(), 4095, size).unwrap();
    let mut two = [0; 2];
    assert!(matches!(e.pool.read(last, &mut two), Err(PoolError::BadAddress { len: 2, .. })));
    assert!(matches!(e.pool.read(last, &mut two[..1]), Err(PoolError::NoSuchPage(_))));
}
