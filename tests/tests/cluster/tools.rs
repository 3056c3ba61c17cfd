//! `rcmp` on a live cluster.

use e2e::cluster::{Cluster, Shape};
use e2e::{binary, run};
use std::process::Command;

fn rcmp(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = run::command(binary::rcmp().to_str().expect("the path is text"), arguments);
    command.args(["--master", cluster.master()]);
    command
}

#[test]
fn status_lists_every_rack() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        let text = run::ok(&mut rcmp(cluster, &["status"]));
        let racks: Vec<_> = text.lines().skip(2).map(|line| line.split_whitespace().next()).collect();
        assert_eq!(racks, [Some("0"), Some("1")], "{text}");
        assert_eq!(text.matches("alive").count(), 2, "{text}");
        let capacity = cluster.counts("capacity");
        assert!(capacity.iter().all(|bytes| (1 << 20..=32 << 20).contains(bytes)), "{capacity:?}");
    });
}

#[test]
fn a_benchmark_leaves_nothing_allocated() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        // Daemons tell the master how they do every second; the pages of the fixture have just been made.
        std::thread::sleep(std::time::Duration::from_millis(2500));
        let before: u64 = cluster.counts("pages_free").iter().sum();
        let arguments = [
            "bench",
            "--json",
            "--span",
            "4M",
            "--remote",
            "0.5",
            "--payload",
            "64,4K",
            "--threads",
            "1,2",
            "--op",
            "read,write,mixed,cas",
            "--warm-up",
            "0",
            "--seconds",
            "0.05",
            "--floor",
        ];
        let text = run::ok(&mut rcmp(cluster, &arguments));
        let report: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let results = report["results"].as_array().expect("it lists results");
        let on_pool = results.iter().filter(|result| result["on"] == "pool").count();
        // Two payloads and two numbers of threads of three kinds, and compare-and-swap of one payload.
        assert_eq!(on_pool, 14, "{text}");
        assert!(results.iter().all(|result| result["per_second"].as_f64() > Some(0.0)), "{text}");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        loop {
            let after: u64 = cluster.counts("pages_free").iter().sum();
            if after == before {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{before} pages were free, and {after} are");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    });
}

#[test]
fn a_master_that_is_not_there_is_an_error_in_one_line() {
    let program = binary::rcmp().to_str().expect("the path is text");
    // Nobody listens on the discard port of this machine.
    let (code, said) = run::fails(&mut run::command(program, ["status", "--master", "127.0.0.1:9"]));
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
}
