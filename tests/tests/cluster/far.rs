//! Clients that have not mapped their rack's memory keep the same promises, beside clients that have.

use crate::{clients, finish, goes_on_and_kept_its_promises, on_cluster, seconds};
use e2e::cluster::{Client, Cluster, Shape};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One of two threads in each of two racks.
fn far_clients(cluster: &Cluster, pages: &str, seconds: f64) -> Vec<Client> {
    [0, 1].map(|rack| cluster.far_client(rack, pages, 2, seconds)).into()
}

fn part(of: f64) -> Duration {
    Duration::from_secs_f64(seconds() / of)
}

/// How many such clients each rack says there are, once it says so.
#[track_caller]
fn until_there_are(cluster: &Cluster, expected: [u64; 2]) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while cluster.counts("clients_without_cxl") != expected {
        assert!(Instant::now() < deadline, "{:?}", cluster.counts("clients_without_cxl"));
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn pages_that_never_rest_keep_every_promise_to_clients_without_cxl_too() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let mut all = far_clients(cluster, pages, seconds());
        all.extend(clients(cluster, 2, pages));
        let failed = finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
        let moved: u64 = cluster.counts("swaps_in").iter().sum();
        assert!(moved > 100, "only {moved} pages moved: they did rest");
    });
}

#[test]
fn a_client_without_cxl_that_is_killed_is_noticed_and_harms_nobody() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let rest = clients(cluster, 2, pages);
        let victims = far_clients(cluster, pages, 60.0);
        sleep(part(4.0));
        until_there_are(cluster, [1, 1]);
        victims.into_iter().for_each(Client::kill);
        let failed = finish(rest);
        until_there_are(cluster, [0, 0]);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations of other clients failed");
    });
}

#[test]
fn a_client_without_cxl_that_was_stopped_for_longer_than_its_lease_goes_on() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let rest = clients(cluster, 2, pages);
        let sleeper = cluster.far_client(0, pages, 2, seconds() + 6.0);
        sleep(part(4.0));
        sleeper.stop();
        until_there_are(cluster, [0, 0]);
        sleeper.go_on();
        let mut all = rest;
        all.push(sleeper);
        finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

#[test]
fn clients_without_cxl_find_their_daemon_again_after_it_was_killed() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        // A daemon that comes back waits for the master to notice that the one before it is gone.
        let mut all = far_clients(cluster, pages, seconds() + 16.0);
        all.extend(clients(cluster, 2, pages));
        for rack in [1, 0] {
            sleep(part(4.0));
            cluster.restart_daemon(rack);
        }
        until_there_are(cluster, [1, 1]);
        // Such a client makes reads again by itself.
        finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        let far = far_clients(cluster, pages, 1.0);
        assert_eq!(finish(far), 0, "operations failed although nothing was wrong any more");
        cluster.judge().expect_none();
    });
}

#[test]
fn a_daemon_that_is_stopped_holds_a_client_without_cxl_up_no_longer_than_a_deadline() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let far = cluster.far_client(0, pages, 2, seconds() + 4.0);
        let rest = clients(cluster, 2, pages);
        sleep(part(4.0));
        cluster.daemon(0).stop();
        // What was on its way when the lease lapsed is refused, not done late: the history shows it.
        sleep(Duration::from_secs(4));
        cluster.daemon(0).go_on();
        let begun = Instant::now();
        let mut all = rest;
        all.push(far);
        finish(all);
        assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}
