//! Access slots: who has them, who gives them back, what happens when a client does not let go.

use crate::common::{RACK, file, memory};
use pool::cxl::layout::{AT_SLOTS_USED, SLOTS};
use pool::cxl::protocol::{self, SharedWord};
use pool::cxl::region::Region;
use pool::cxl::slots::{ClientId, Slots};
use pool::{Fill, Pool, PoolError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A client that stands still in the middle of an access to the region's first `count` frames.
fn stuck(region: &Region, client: ClientId, count: u32) -> u32 {
    let slot = Slots::new(region).claim(client).unwrap();
    protocol::publish(&Slots::new(region).hazard(slot).unwrap(), protocol::range(0, count));
    slot
}

#[test]
fn a_page_that_a_client_does_not_let_go_of_stays() {
    let e = memory(8, 4096);
    let runs = e.pool.alloc_runs(4, 0, Fill::Zeroed).unwrap();
    e.pool.write(e.at(runs[0].first, 0), b"still here").unwrap();
    let region = e.daemon.region();
    let slot = stuck(&region, ClientId::this_process(), 1);
    let start = Instant::now();
    let reader = std::thread::scope(|scope| {
        let freeing = scope.spawn(|| e.pool.free_runs(&runs));
        std::thread::sleep(Duration::from_millis(300));
        // Meanwhile others allocate and free.
        let other = e.pool.alloc_page().unwrap();
        e.pool.free_page(other).unwrap();
        assert!(start.elapsed() < Duration::from_millis(900), "held up by a free that waits");
        // An access to a page that is being freed waits for how that ends.
        let mut text = [0; 10];
        let read = e.pool.read(e.at(runs[0].first, 0), &mut text).map(|()| text);
        assert_eq!(freeing.join().unwrap(), Err(PoolError::Busy(runs[0].first)));
        read
    });
    assert_eq!(reader, Ok(*b"still here"));
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(e.pool.stat().unwrap().free, 4);
    Slots::new(&region).release(slot);
    assert_eq!(e.pool.free_runs(&runs), Ok(4));
}

#[test]
fn a_dead_client_holds_nothing_up() {
    let e = memory(8, 4096);
    let runs = e.pool.alloc_runs(4, 0, Fill::Zeroed).unwrap();
    let region = e.daemon.region();
    // A process that had this process id at another time.
    let dead = ClientId::from_raw(ClientId::this_process().raw() ^ 1 << 30).unwrap();
    assert!(ClientId::this_process().is_alive() && !dead.is_alive());
    let slot = stuck(&region, dead, 4);
    let start = Instant::now();
    assert_eq!(e.pool.free_runs(&runs), Ok(4));
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(Slots::new(&region).hazard(slot).unwrap().load(Ordering::Acquire), 0);
}

#[test]
fn a_client_in_other_frames_holds_nothing_up() {
    let e = memory(8, 4096);
    let _stays = e.pool.alloc_runs(2, 0, Fill::Zeroed).unwrap();
    let goes = e.pool.alloc_runs(4, 0, Fill::Zeroed).unwrap();
    stuck(&e.daemon.region(), ClientId::this_process(), 2);
    let start = Instant::now();
    assert_eq!(e.pool.free_runs(&goes), Ok(4));
    assert!(start.elapsed() < Duration::from_millis(500));
}

#[test]
fn threads_that_end_and_pools_that_are_dropped_give_their_slots_back() {
    let e = memory(8, 4096);
    let page = e.pool.alloc_page().unwrap();
    for _ in 0..50 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| e.pool.write(e.at(page, 0), b"x").unwrap());
            }
        });
    }
    let region = e.daemon.region();
    let used = || region.word(AT_SLOTS_USED).load(Ordering::Acquire);
    assert!(used() <= 16, "{} slots for 5 threads", used());
    for _ in 0..50 {
        let pool = Pool::attach(e.daemon.region(), RACK, e.transport.clone()).unwrap();
        pool.write(e.at(page, 0), b"y").unwrap();
    }
    assert!(used() <= 16, "{} slots for 2 pools", used());
}

#[test]
fn when_all_slots_are_taken_an_access_is_an_error() {
    let e = memory(8, 4096);
    let page = e.pool.alloc_page().unwrap();
    let region = e.daemon.region();
    let slots: Vec<u32> =
        (0..SLOTS).map_while(|_| Slots::new(&region).claim(ClientId::this_process())).collect();
    assert!(slots.len() as u32 >= SLOTS - 1);
    let read = || e.pool.read(e.at(page, 0), &mut [0]);
    assert_eq!(std::thread::scope(|s| s.spawn(read).join().unwrap()), Err(PoolError::NoSlot));
    Slots::new(&region).release(slots[100]);
    assert_eq!(std::thread::scope(|s| s.spawn(read).join().unwrap()), Ok(()));
}

/// A client of another process maps the region itself; here, by a second mapping in this one.
#[test]
fn a_client_with_its_own_mapping_shares_pages_and_is_waited_for() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("region");
    let e = file(&path, 64, 4096);
    let joined = Arc::new(Region::join(&path).unwrap());
    let other = Pool::attach(joined.clone(), RACK, e.transport.clone()).unwrap();
    let runs = other.alloc_runs(3, 0, Fill::Zeroed).unwrap();
    other.write(e.at(runs[0].first, 4090), b"over the edge").unwrap();
    let mut text = [0; 13];
    e.pool.read(e.at(runs[0].first, 4090), &mut text).unwrap();
    assert_eq!(&text, b"over the edge");
    let slot = stuck(&joined, ClientId::this_process(), 3);
    assert!(matches!(e.pool.free_runs(&runs), Err(PoolError::Busy(_))));
    Slots::new(&joined).release(slot);
    assert_eq!(e.pool.free_runs(&runs), Ok(3));
    assert_eq!(other.read(e.at(runs[0].first, 0), &mut text), Err(PoolError::NoSuchPage(runs[0].first)));
}

#[test]
fn a_pool_of_another_rack_is_refused() {
    let e = memory(8, 4096);
    let rack = pool::addr::RackId(5);
    let wrong = Pool::attach(e.daemon.region(), rack, e.transport.clone()).unwrap_err();
    assert_eq!(wrong, PoolError::WrongRack { found: RACK, wanted: rack });
}
