//! The checker of histories finds what it is there to find: daemons and clients that make a mistake on
//! purpose (`pool/src/breakage.rs`), under a load of pages that never rest, are caught, and those of the
//! normal build are not.
//!
//! A mistake shows by chance, so one that has not shown is given further chances, each longer than the last.

use e2e::cluster::{Cluster, Shape};
use e2e::history::Kind::{self, *};
use e2e::history::Verdict;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// How long each of the runs takes that a mistake is given to show.
const SECONDS: [f64; 5] = [2.0, 3.0, 4.0, 6.0, 8.0];

/// One cluster at a time: on few processors several would only wait for each other.
static TURN: Mutex<()> = Mutex::new(());

/// What the clients do.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Two clients of two threads in each of two racks, and three pages that move between them.
    Restless,
    /// Four clients of two threads in the rack of the only page.
    Crowded,
    /// Four clients of two threads on a hash table in their rack.
    Table,
}

fn run(mistake: Option<&'static str>, load: Load, seconds: f64) -> Verdict {
    let shape = Shape { mistake, edge: 2, ..Shape::restless(2) };
    let still = vec!["--swap-watermark", "1e18", "--heat-half-life", "1ms"];
    let (shape, pages, racks) = match load {
        Load::Restless => (shape, 3, [0, 0, 1, 1]),
        Load::Crowded | Load::Table => (Shape { edge: 1, daemon: still, ..shape }, 1, [0; 4]),
    };
    let cluster = Cluster::start(shape);
    let clients = match load {
        Load::Table => {
            let table = cluster.make_table(0);
            racks.map(|rack| cluster.table_client(rack, &table, 2, seconds))
        }
        _ => {
            let pages = cluster.make_pages(0, pages + 1);
            racks.map(|rack| cluster.client(rack, &pages, 2, seconds))
        }
    };
    for client in clients {
        client.finish();
    }
    let verdict = cluster.judge();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for violation in &verdict.violations {
        *kinds.entry(format!("{:?}", violation.kind)).or_default() += 1;
    }
    println!("{mistake:?}, {load:?} for {seconds} s: {kinds:?}; {verdict}");
    verdict
}

/// That mistake leads to a violation of one of these kinds.
#[track_caller]
fn is_caught(mistake: &'static str, load: Load, expected: &[Kind]) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let caught = SECONDS.iter().any(|seconds| {
        let found = run(Some(mistake), load, *seconds).violations;
        found.iter().any(|violation| expected.contains(&violation.kind))
    });
    assert!(caught, "{mistake} is not found by the checker");
}

#[test]
fn a_home_that_does_not_revoke_references_is_caught() {
    is_caught("revoke", Load::Restless, &[OtherWord, Stale]);
}

#[test]
fn a_daemon_that_does_not_wait_for_the_slots_is_caught() {
    is_caught("slots", Load::Restless, &[OtherWord, Stale]);
}

#[test]
fn a_client_that_does_not_check_what_it_has_published_is_caught() {
    is_caught("check", Load::Restless, &[OtherWord, Stale]);
}

#[test]
fn a_compare_and_swap_by_read_and_write_is_caught() {
    is_caught("cas", Load::Crowded, &[LostUpdate]);
}

#[test]
fn a_split_that_does_not_freeze_what_it_moves_is_caught() {
    is_caught("dht-freeze", Load::Table, &[NoOrder]);
}

#[test]
fn a_reader_that_uses_half_of_a_split_slot_is_caught() {
    is_caught("dht-both", Load::Table, &[NoOrder]);
}

#[test]
fn a_replaced_record_that_is_still_used_is_caught() {
    is_caught("dht-invalidate", Load::Table, &[NoOrder]);
}

#[test]
fn a_chain_that_is_read_while_it_changes_is_caught() {
    is_caught("dht-confirm", Load::Table, &[NoOrder]);
}

#[test]
fn without_a_mistake_nothing_is_found() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for programs in [None, Some("")] {
        run(programs, Load::Restless, 4.0).expect_none();
        run(programs, Load::Crowded, 2.0).expect_none();
        run(programs, Load::Table, 2.0).expect_none();
    }
}
