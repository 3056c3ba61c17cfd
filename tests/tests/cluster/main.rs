//! A whole cluster of processes: the promises of `pool` while pages move and processes die.

mod direct;
mod edges;
mod example;
mod far;
mod faults;
mod many;
mod motion;
mod mounted;
mod refused;
mod tools;

use e2e::cluster::{Client, Cluster};
use std::sync::Mutex;

/// Pages that all clients of a test share, besides the board.
const SHARED: u32 = 8;

/// One cluster at a time: on few processors several would only wait for each other.
static TURN: Mutex<()> = Mutex::new(());

/// How long the clients of a test work; `RCHFS_CLUSTER_SECONDS` for longer.
pub fn seconds() -> f64 {
    std::env::var("RCHFS_CLUSTER_SECONDS").map_or(4.0, |text| text.parse().expect("a number"))
}

/// Runs `test` on a cluster with shared pages.
pub fn on_cluster(shape: e2e::cluster::Shape, test: impl FnOnce(&mut Cluster, &str)) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut cluster = Cluster::start(shape);
    let pages = cluster.make_pages(0, SHARED + 1);
    test(&mut cluster, &pages);
}

/// Two clients of two threads in each rack.
pub fn clients(cluster: &Cluster, racks: u16, pages: &str) -> Vec<Client> {
    (0..racks).flat_map(|rack| [rack, rack]).map(|rack| cluster.client(rack, pages, 2, seconds())).collect()
}

/// Lets the clients finish; each must have got something done.
#[track_caller]
pub fn finish(clients: Vec<Client>) -> u64 {
    let mut failed = 0;
    for client in clients {
        let (operations, errors) = client.finish();
        assert!(operations > errors + 100, "{operations} operations, {errors} failed: that is no load");
        failed += errors;
    }
    failed
}

/// After whatever has happened the cluster goes on: in each rack a client works for a second, without a
/// single error. Then all that was ever recorded must keep the promises.
#[track_caller]
pub fn goes_on_and_kept_its_promises(cluster: &Cluster, racks: u16, pages: &str) {
    let clients: Vec<_> = (0..racks).map(|rack| cluster.client(rack, pages, 1, 1.0)).collect();
    let failed = finish(clients);
    let verdict = cluster.judge();
    verdict.expect_none();
    assert_eq!(failed, 0, "operations failed although nothing was wrong any more");
    println!("{verdict}");
}
