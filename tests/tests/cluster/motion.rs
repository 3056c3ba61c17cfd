//! No fault at all, but pages that never rest.

use crate::{clients, finish, goes_on_and_kept_its_promises, on_cluster};
use e2e::cluster::Shape;

#[test]
fn pages_that_never_rest_keep_every_promise() {
    on_cluster(Shape::restless(2), |cluster, pages| {
        let failed = finish(clients(cluster, 2, pages));
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
        let moved: u64 = cluster.counts("swaps_in").iter().sum();
        assert!(moved > 100, "only {moved} pages moved: they did rest");
    });
}

#[test]
fn pages_that_never_rest_between_three_racks_keep_every_promise() {
    on_cluster(Shape::restless(3), |cluster, pages| {
        let failed = finish(clients(cluster, 3, pages));
        goes_on_and_kept_its_promises(cluster, 3, pages);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
    });
}

#[test]
fn pages_that_stay_are_used_in_place_by_both_racks() {
    let daemon = vec!["--swap-watermark", "1e18", "--heat-half-life", "1ms"];
    let shape = Shape { daemon, ..Shape::restless(2) };
    on_cluster(shape, |cluster, pages| {
        let failed = finish(clients(cluster, 2, pages));
        goes_on_and_kept_its_promises(cluster, 2, pages);
        assert_eq!(failed, 0, "operations failed although nothing was wrong");
        assert_eq!(cluster.counts("swaps_in"), [0, 0]);
        assert!(cluster.counts("direct")[1] > 100, "rack 1 has nothing but remote pages");
    });
}
