//! The authority over frames by itself: ids, the reserve, pages on their way, comparing with the files.

use super::FrameTable;
use crate::recover::{self, Origin};
use pool::addr::{FrameNo, GAddr, PageId, PageRun, PageSize, RackId};
use pool::cxl::frames::State;
use pool::cxl::region::{Region, RegionSource, Spec};
use pool::in_place::InPlace;
use pool::proto::cluster::BLOCK;
use pool::proto::page::{PageError, PageKind};
use pool::proto::peer::{Image, Refusal};
use std::ops::Range;
use std::sync::Arc;

const SIZE: PageSize = PageSize::MIN;

/// A rack of a cluster with so many frames and ids.
fn table(frames: u64, ids: Range<u64>) -> FrameTable {
    let table = bare(&RegionSource::Memfd, frames);
    table.add_id_range(ids);
    table
}

fn bare(source: &RegionSource, frames: u64) -> FrameTable {
    let size = frames * SIZE.bytes();
    let spec = Spec { rack: RackId(0), page_size: SIZE, size, cluster: Some(7), channels: 0 };
    let (region, found) = Region::open(source, &spec).unwrap();
    let (state, _) = recover::recover(&region, found, Origin::Cluster);
    FrameTable::new(Arc::new(region), state)
}

fn page(raw: u64) -> PageId {
    PageId::new(raw).unwrap()
}

fn run(first: u64, count: u32) -> PageRun {
    PageRun { first: page(first), count }
}

fn image(raw: u64) -> Image {
    Image::new(page(raw), PageKind::File, vec![raw as u8; SIZE.bytes() as usize])
}

fn fill(table: &FrameTable) -> u64 {
    let runs = table.alloc_up_to(u64::MAX, PageKind::File).unwrap();
    runs.iter().map(|run| run.count as u64).sum()
}

#[test]
fn ids_are_used_up_in_the_order_in_which_they_came() {
    let table = table(16, 10..13);
    table.add_id_range(100..110);
    assert_eq!(table.ids_left(), 13);
    assert_eq!(table.alloc(2, 0, PageKind::Plain), Ok(vec![run(10, 2)]));
    assert_eq!(table.alloc(3, 0, PageKind::Plain), Ok(vec![run(12, 1), run(100, 2)]));
    assert_eq!(table.ids_left(), 8);
}

#[test]
fn without_ids_no_page_is_made_and_none_is_lost() {
    let table = table(16, 10..13);
    assert!(matches!(table.alloc(4, 0, PageKind::Plain), Err(PageError::Unreachable(_))));
    assert_eq!((table.stat().free, table.ids_left()), (16, 3));
    assert_eq!(table.alloc_up_to(9, PageKind::Plain), Ok(vec![run(10, 3)]));
    assert_eq!(table.alloc_up_to(9, PageKind::Plain), Ok(vec![]));
}

#[test]
fn a_block_is_all_the_ids_that_the_master_means() {
    let table = table(16, 0..0);
    table.add_ids(0);
    assert_eq!(table.ids_left(), BLOCK - 1);
    table.add_ids(3);
    assert_eq!(table.ids_left(), 2 * BLOCK - 1);
}

#[test]
fn the_reserve_is_for_pages_that_come() {
    let table = table(8, 1..100);
    table.set_reserve(2);
    assert_eq!(table.stat().free, 6);
    assert_eq!(table.alloc(7, 0, PageKind::Plain), Err(PageError::OutOfMemory { wanted: 7, free: 6 }));
    assert_eq!(table.alloc(6, 1, PageKind::Plain), Err(PageError::OutOfMemory { wanted: 7, free: 6 }));
    assert!(table.has_room());
    assert_eq!(fill(&table), 6);
    assert!(!table.has_room());
    let coming = [500, 501].map(|id| table.receive(&image(id)).unwrap());
    assert_eq!(table.receive(&image(502)), Err(Refusal::Full));
    coming.into_iter().for_each(|arriving| table.arrive(arriving));
    assert_eq!(table.stat().free, 0);
}

#[test]
fn a_page_that_arrives_holds_what_it_held() {
    let table = table(4, 1..100);
    let arriving = table.receive(&image(500)).unwrap();
    assert_eq!((arriving.page(), arriving.kind()), (page(500), PageKind::File));
    assert_eq!(table.frame_of(page(500)), None);
    table.arrive(arriving);
    assert_eq!(table.frame_of(page(500)), Some((FrameNo(0), State::Stable)));
    let in_place = InPlace::new(Arc::clone(table.region()));
    let mut bytes = [0; 16];
    in_place.read(GAddr::new(page(500), 4000, SIZE).unwrap(), &mut bytes).unwrap();
    assert_eq!(bytes, [500u64 as u8; 16]);
    let departing = table.freeze(page(500)).unwrap();
    assert_eq!(table.image(&departing), image(500));
}

#[test]
fn there_is_never_a_second_copy_of_a_page() {
    let table = table(4, 1..100);
    let arriving = table.receive(&image(500)).unwrap();
    assert_eq!(table.receive(&image(500)), Err(Refusal::Busy));
    table.arrive(arriving);
    assert_eq!(table.receive(&image(500)), Err(Refusal::Busy));
    let departing = table.freeze(page(500)).unwrap();
    assert_eq!(table.receive(&image(500)), Err(Refusal::Busy));
    table.depart(departing);
    table.abandon(table.receive(&image(500)).unwrap());
    assert_eq!(table.stat().free, 4);
}

#[test]
fn a_page_on_its_way_is_neither_moved_nor_freed() {
    let table = table(4, 1..100);
    table.alloc(1, 0, PageKind::Plain).unwrap();
    let departing = table.freeze(page(1)).unwrap();
    assert_eq!(table.freeze(page(1)), Err(Refusal::Busy));
    assert_eq!(table.free(&[run(1, 1)], &|_| {}), Ok(0));
    table.thaw(departing);
    assert_eq!(table.free(&[run(1, 1)], &|_| {}), Ok(1));
    assert_eq!(table.freeze(page(1)), Err(Refusal::NotHere));
}

#[test]
fn a_client_in_the_page_keeps_it_here() {
    let table = table(4, 1..100);
    table.alloc(1, 0, PageKind::Plain).unwrap();
    let in_place = InPlace::new(Arc::clone(table.region()));
    let at = GAddr::new(page(1), 0, SIZE).unwrap();
    in_place.stretches(at, 0..8, &mut |_| assert_eq!(table.freeze(page(1)), Err(Refusal::Busy))).unwrap();
    assert_eq!(table.frame_of(page(1)), Some((FrameNo(0), State::Stable)));
    assert!(table.freeze(page(1)).is_ok());
}

#[test]
fn pages_on_their_way_are_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let source = RegionSource::Path(dir.path().join("region"));
    let table = bare(&source, 8);
    table.add_id_range(1..100);
    table.alloc(2, 0, PageKind::Objects).unwrap();
    let _ = table.freeze(page(2)).unwrap();
    let _ = table.receive(&image(500)).unwrap();
    drop(table);
    let table = bare(&source, 8);
    let (mut departing, mut arriving) = table.limbo();
    let (departing, arriving) = (departing.pop().unwrap(), arriving.pop().unwrap());
    assert_eq!((departing.page(), departing.kind()), (page(2), PageKind::Objects));
    assert_eq!((arriving.page(), arriving.kind()), (page(500), PageKind::File));
    assert_eq!(table.receive(&image(500)), Err(Refusal::Busy));
    table.depart(departing);
    table.arrive(arriving);
    assert_eq!(table.stat().free, 6);
    assert_eq!(table.frame_of(page(500)).map(|found| found.1), Some(State::Stable));
}

#[test]
fn the_victim_is_a_page_that_was_not_touched() {
    let table = table(4, 1..100);
    table.alloc(4, 0, PageKind::Plain).unwrap();
    let in_place = InPlace::new(Arc::clone(table.region()));
    for id in [1, 2, 4] {
        in_place.write(GAddr::new(page(id), 0, SIZE).unwrap(), &[1; 8]).unwrap();
    }
    assert_eq!(table.victim(&|_| false), Some(page(3)));
    assert_eq!(table.victim(&|_| true), None);
    // By now the hand has cleared all bits.
    assert!(table.victim(&|found| found == page(3)).is_some_and(|found| found != page(3)));
}

#[test]
fn what_came_since_the_last_comparison_is_not_taken_for_a_leak() {
    let table = table(16, 1..100);
    table.alloc(4, 0, PageKind::File).unwrap();
    table.alloc(1, 0, PageKind::Plain).unwrap();
    let compare = |held: &[PageRun], free| {
        let (leaked, found) = table.compare(held, &(0..PageId::LIMIT), free).unwrap();
        (leaked, found.missing)
    };
    assert_eq!(compare(&[run(1, 1)], true), (vec![], vec![]));
    // They have been here since; a page of a program is nobody's business.
    assert_eq!(compare(&[run(1, 1)], false), (vec![], vec![]));
    assert_eq!(compare(&[run(1, 1)], true), (vec![run(2, 3)], vec![]));
    table.arrive(table.receive(&image(50)).unwrap());
    assert_eq!(compare(&[run(1, 4), run(60, 2)], true), (vec![], vec![run(60, 2)]));
    assert_eq!(compare(&[run(1, 4)], true), (vec![run(50, 1)], vec![]));
    // Only these ids, and nothing that is on its way.
    assert_eq!(table.compare(&[], &(1..3), true).unwrap().0, [run(1, 2)]);
    let departing = table.freeze(page(50)).unwrap();
    assert_eq!(compare(&[run(1, 4)], true), (vec![], vec![]));
    table.thaw(departing);
}
