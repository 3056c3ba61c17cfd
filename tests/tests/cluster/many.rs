//! As many clients in a rack as it was made for, and one more.

use crate::on_cluster;
use e2e::cluster::{Cluster, Shape};
use e2e::{binary, run};
use pool::addr::RackId;
use pool::transport::RingError;
use pool::{Pool, PoolError};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The most clients of a rack, unless the daemon is told otherwise.
const CLIENTS: usize = 128;
/// Of those, so many are processes of their own.
const PROCESSES: usize = 12;

/// Daemons look for clients that died every second.
const PATIENCE: Duration = Duration::from_secs(20);

fn join(cluster: &Cluster) -> Result<Pool, PoolError> {
    Pool::connect(cluster.master(), RackId(0))
}

/// Joins until there is no room any more; how the next was refused.
fn fill(cluster: &Cluster, pools: &mut Vec<Pool>) -> PoolError {
    loop {
        match join(cluster) {
            Ok(pool) => pools.push(pool),
            Err(error) => return error,
        }
        assert!(pools.len() <= CLIENTS, "more than {CLIENTS} clients");
    }
}

#[test]
fn as_many_clients_as_fit_join_and_leave_and_one_more_is_told_what_to_do() {
    on_cluster(Shape::restless(1), |cluster, pages| {
        let processes: Vec<_> = (0..PROCESSES).map(|_| cluster.client(0, pages, 1, 120.0)).collect();
        let mut pools = Vec::new();
        // The client that made the pages may still be leaving.
        let deadline = Instant::now() + PATIENCE;
        let refused = loop {
            let refused = fill(cluster, &mut pools);
            if pools.len() == CLIENTS - PROCESSES {
                break refused;
            }
            assert!(Instant::now() < deadline, "only {} clients fit: {refused}", pools.len() + PROCESSES);
            sleep(Duration::from_millis(50));
        };
        let full = matches!(&refused, PoolError::Ring(RingError::AllTaken { channels, .. })
            if *channels as usize == CLIENTS);
        assert!(full, "{refused}");

        let mut one_more = Command::new(binary::history());
        one_more.arg("make").arg(format!("master={}", cluster.master())).args(["rack=0", "count=1"]);
        let (code, said) = run::fails(&mut one_more);
        assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains("all 128 channels") && said.contains("stop a client"), "{said}");

        // All that are in do what clients do.
        for pool in &pools {
            let page = pool.alloc_page().expect("there is room");
            pool.free_page(page).expect("it is there");
        }
        // Half leave in order, the processes are killed: there is room for as many.
        pools.truncate(pools.len() / 2);
        let left = pools.len();
        processes.into_iter().for_each(|process| process.kill());
        let deadline = Instant::now() + PATIENCE;
        while pools.len() < CLIENTS {
            let refused = fill(cluster, &mut pools);
            assert!(Instant::now() < deadline, "only {} of {CLIENTS}, from {left}: {refused}", pools.len());
            sleep(Duration::from_millis(50));
        }
        drop(pools);
        join(cluster).expect("all have left");
    });
}
