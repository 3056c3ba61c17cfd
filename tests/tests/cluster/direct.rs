//! Short reads of pages that stay in another rack, which clients ask of the daemon there.

use crate::on_cluster;
use e2e::cluster::{Cluster, Shape};
use pool::addr::{GAddr, PageId, RackId};
use pool::{Fill, Pool, PoolError};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two racks between which no page moves.
fn still() -> Shape {
    Shape { daemon: vec!["--swap-watermark", "1e18", "--heat-half-life", "1ms"], ..Shape::restless(2) }
}

fn connect(cluster: &Cluster, rack: u16) -> Pool {
    Pool::connect(cluster.master(), RackId(rack)).expect("the rack is there")
}

fn page_of(pool: &Pool) -> PageId {
    pool.alloc_runs(1, 0, Fill::Zeroed).expect("there is room")[0].first
}

fn word(pool: &Pool, at: GAddr) -> Result<u64, PoolError> {
    let mut bytes = [0; 8];
    pool.read(at, &mut bytes).map(|()| u64::from_ne_bytes(bytes))
}

/// Reads until that succeeds.
fn in_the_end(pool: &Pool, at: GAddr) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match word(pool, at) {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "the page cannot be read: {error}"),
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn short_reads_of_a_page_that_stays_elsewhere_do_not_go_by_way_of_the_own_daemon() {
    const READS: u64 = 1000;
    on_cluster(still(), |cluster, _| {
        let (here, there) = (connect(cluster, 0), connect(cluster, 1));
        let page = page_of(&here);
        let at = GAddr::new(page, 8, here.page_size()).expect("a page has addresses");
        for value in 1..=READS {
            here.write(at, &u64::to_ne_bytes(value)).expect("it can be written");
            assert_eq!(word(&there, at), Ok(value), "what was written last is read");
        }
        // The racks tell how they do now and then.
        let deadline = Instant::now() + PATIENCE;
        while cluster.counts("bytes_in")[0] < 8 * READS {
            assert!(Instant::now() < deadline, "rack 0 has not been read from");
            sleep(Duration::from_millis(50));
        }
        sleep(Duration::from_secs(2));
        let direct = cluster.counts("direct")[1];
        assert!(direct < READS / 10, "{direct} of {READS} reads went by way of rack 1's daemon");
        assert_eq!(cluster.counts("swaps_in"), [0, 0]);
        here.free_page(page).expect("it can be freed");
        assert!(matches!(word(&there, at), Err(PoolError::NoSuchPage(gone)) if gone == page));
    });
}

#[test]
fn reads_of_a_page_go_on_when_its_home_was_killed_and_started_anew() {
    on_cluster(still(), |cluster, _| {
        let there = connect(cluster, 1);
        let (page, at) = {
            let here = connect(cluster, 0);
            let page = page_of(&here);
            let at = GAddr::new(page, 64, here.page_size()).expect("a page has addresses");
            here.write(at, &7u64.to_ne_bytes()).expect("it can be written");
            (page, at)
        };
        assert_eq!(word(&there, at), Ok(7));
        assert_eq!(word(&there, at), Ok(7));
        // At another address from then on, with another key.
        cluster.restart_daemon(0);
        assert_eq!(in_the_end(&there, at), 7);
        let here = connect(cluster, 0);
        here.write(at, &8u64.to_ne_bytes()).expect("it can be written");
        assert_eq!(in_the_end(&there, at), 8);
        here.free_page(page).expect("it can be freed");
        let deadline = Instant::now() + PATIENCE;
        loop {
            match word(&there, at) {
                Err(PoolError::NoSuchPage(gone)) => break assert_eq!(gone, page),
                Ok(value) => panic!("a page that was freed is {value}"),
                Err(error) => {
                    assert!(Instant::now() < deadline, "it is not said that the page is gone: {error}")
                }
            }
        }
    });
}
