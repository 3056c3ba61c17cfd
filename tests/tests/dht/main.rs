//! The hash table on a cluster: each key is linearizable while pages move, segments are split, and processes are killed
//! or stopped.

use e2e::cluster::{Client, Cluster, Shape};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

/// One cluster at a time: on few processors several would only wait for each other.
static TURN: Mutex<()> = Mutex::new(());

fn on_table(shape: Shape, test: impl FnOnce(&mut Cluster, &str)) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut cluster = Cluster::start(shape);
    let table = cluster.make_table(0);
    test(&mut cluster, &table);
}

fn seconds() -> f64 {
    std::env::var("RCHFS_CLUSTER_SECONDS").map_or(4.0, |text| text.parse().expect("a number"))
}

fn clients(cluster: &Cluster, racks: u16, table: &str) -> Vec<Client> {
    let each = (0..racks).flat_map(|rack| [rack, rack]);
    each.map(|rack| cluster.table_client(rack, table, 2, seconds())).collect()
}

/// How many operations failed.
fn finish(clients: Vec<Client>) -> u64 {
    let each = clients.into_iter().map(|client| {
        let (operations, failed) = client.finish();
        assert!(operations > failed, "{operations} operations, {failed} failed: that is no load");
        failed
    });
    each.sum()
}

/// After whatever has happened clients in each rack work without an error, and all that was recorded has an order.
fn goes_on(cluster: &Cluster, racks: u16, table: &str) {
    let failed = finish((0..racks).map(|rack| cluster.table_client(rack, table, 1, 1.0)).collect());
    let verdict = cluster.judge();
    verdict.expect_none();
    assert!(verdict.operations > 300, "that is no load: {verdict}");
    assert_eq!(failed, 0, "operations failed although nothing was wrong any more");
    println!("{verdict}");
}

fn some_time() {
    sleep(Duration::from_secs_f64(seconds() / 4.0));
}

#[test]
fn keys_are_linearizable_while_pages_never_rest() {
    on_table(Shape::restless(2), |cluster, table| {
        let failed = finish(clients(cluster, 2, table));
        goes_on(cluster, 2, table);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
        assert!(cluster.counts("swaps_in").iter().sum::<u64>() > 20, "pages did rest");
    });
}

#[test]
fn keys_are_linearizable_from_both_racks_while_pages_stay() {
    let daemon = vec!["--swap-watermark", "1e18", "--heat-half-life", "1ms"];
    on_table(Shape { daemon, ..Shape::restless(2) }, |cluster, table| {
        assert_eq!(finish(clients(cluster, 2, table)), 0, "operations failed although nothing was wrong");
        goes_on(cluster, 2, table);
    });
}

#[test]
fn clients_that_are_killed_leave_a_table_that_others_go_on_with() {
    on_table(Shape::restless(2), |cluster, table| {
        let mut victims = clients(cluster, 2, table);
        for _ in 0..4 {
            some_time();
            victims.remove(0).kill();
            victims.push(cluster.table_client(1, table, 2, 60.0));
        }
        victims.into_iter().for_each(Client::kill);
        goes_on(cluster, 2, table);
    });
}

#[test]
fn a_client_that_is_stopped_holds_nobody_up_and_changes_nothing_later() {
    on_table(Shape::restless(2), |cluster, table| {
        let sleepers: Vec<_> = [0, 1].map(|rack| cluster.table_client(rack, table, 2, seconds())).into();
        let others: Vec<_> = [0, 1].map(|rack| cluster.table_client(rack, table, 1, seconds())).into();
        for _ in 0..8 {
            sleepers.iter().for_each(Client::stop);
            sleep(Duration::from_secs_f64(seconds() / 20.0));
            sleepers.iter().for_each(Client::go_on);
            sleep(Duration::from_secs_f64(seconds() / 20.0));
        }
        finish(others);
        finish(sleepers);
        goes_on(cluster, 2, table);
    });
}

#[test]
fn a_daemon_that_is_killed_and_comes_back_has_the_table() {
    on_table(Shape::restless(2), |cluster, table| {
        let working = clients(cluster, 2, table);
        some_time();
        cluster.restart_daemon(1);
        finish(working);
        goes_on(cluster, 2, table);
    });
}
