//! Processes that die or stop while pages move. Operations under way may fail, and then may or may not have
//! been done; everything else must be as if nothing had happened.

use crate::{clients, finish, goes_on_and_kept_its_promises, on_cluster, seconds};
use e2e::cluster::Shape;
use std::thread::sleep;
use std::time::Duration;

/// Until the middle of the run.
fn some_time() {
    sleep(Duration::from_secs_f64(seconds() / 4.0));
}

#[test]
fn a_client_that_is_killed_harms_nobody() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let rest = clients(cluster, 2, pages);
        for rack in [0, 1] {
            let victim = cluster.client(rack, pages, 2, 60.0);
            sleep(Duration::from_secs_f64(seconds() / 8.0));
            victim.kill();
        }
        let failed = finish(rest);
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations of other clients failed");
    });
}

#[test]
fn a_client_that_is_stopped_keeps_pages_where_they_are_and_nothing_else() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let sleeper = cluster.client(0, pages, 2, seconds());
        let rest = clients(cluster, 2, pages);
        some_time();
        sleeper.stop();
        some_time();
        sleeper.go_on();
        let mut all = rest;
        all.push(sleeper);
        finish(all);
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

#[test]
fn a_daemon_that_is_killed_comes_back_with_its_pages() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        for rack in [1, 0] {
            let working = clients(cluster, 2, pages);
            some_time();
            cluster.restart_daemon(rack);
            finish(working);
        }
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

#[test]
fn a_master_that_is_killed_comes_back_knowing_where_pages_are() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let working = clients(cluster, 2, pages);
        some_time();
        cluster.restart_master();
        finish(working);
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}

#[test]
fn a_daemon_that_is_stopped_for_a_while_is_waited_for_or_refused() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let working = clients(cluster, 2, pages);
        some_time();
        cluster.daemon(1).stop();
        some_time();
        cluster.daemon(1).go_on();
        finish(working);
        goes_on_and_kept_its_promises(cluster, 2, pages);
    });
}
