//! `rcmp` on a live cluster.

use e2e::cluster::{Cluster, Shape};
use e2e::{binary, run};
use std::io::Write;
use std::process::{Command, Stdio};

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
        assert_eq!(cluster.texts("transport"), ["tcp", "tcp"]);
        // Said with the first sign of life.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while cluster.texts("cas") != ["home CPU", "home CPU"] {
            assert!(std::time::Instant::now() < deadline, "{:?}", cluster.texts("cas"));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let text = run::ok(&mut rcmp(cluster, &["status"]));
        assert_eq!(text.matches("  home CPU  ").count(), 2, "{text}");
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

/// Runs `rcmp shell` with that on its standard input: whether it succeeded, and what it said.
fn shell(cluster: &Cluster, rack: &str, script: &str) -> (bool, String, String) {
    let mut command = rcmp(cluster, &["shell", "--rack", rack]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it was built");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_script_for_the_shell_does_what_its_lines_say() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        let script = "# an object\na = alloc 64\nwrite a hello pool\nread a 10\ncas a+16 0 7\ncas a+16 0 8\n\
                      word a+16\nwhere a\nheat a\nwrite a 0x00ff\nread a 2\nfree a\n\np = page\nfree p\nhelp\nquit\nnonsense\n";
        let (ok, said, errors) = shell(cluster, "0", script);
        assert!(ok && errors.is_empty(), "{said}{errors}");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("a = 0x") && lines[1].ends_with("hello pool"), "{said}");
        assert_eq!(lines[2..5], ["0x0 (0)", "0x7 (7)", "0x7 (7)"], "{said}");
        assert!(lines[5].ends_with("in rack 0") && lines[7].contains("00 ff"), "{said}");
        assert!(said.contains("cas ADDRESS OLD NEW"), "{said}");
    });
}

#[test]
fn a_script_for_the_shell_ends_at_its_first_error() {
    crate::on_cluster(Shape::restless(1), |cluster, _| {
        for (line, why) in [
            ("nonsense", "there is no command"),
            ("cas 1", "usage: cas ADDRESS OLD NEW"),
            ("read b 4", "nothing is called"),
            ("alloc 1G", "at most"),
            ("cas a+1 0 0", "not a multiple of 8"),
            ("free 0xffffffff0000", "no object"),
        ] {
            let (ok, said, errors) = shell(cluster, "0", &format!("a = alloc 8\n{line}\nalloc 8\n"));
            assert!(!ok && said.lines().count() == 1, "{line}: {said}{errors}");
            assert!(errors.starts_with("rcmp: line 2: ") && errors.lines().count() == 1, "{line}: {errors}");
            assert!(why == "at most" || errors.contains(why), "{line}: {errors}");
        }
    });
}

#[test]
fn the_shell_has_a_page_move_to_its_rack() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        let (ok, said, errors) = shell(cluster, "0", "p = page\nwrite p here\n");
        assert!(ok, "{errors}");
        let at = said.trim().trim_start_matches("p = ");
        let (ok, said, errors) = shell(cluster, "1", &format!("swap {at}\nwhere {at}\nread {at} 4\n"));
        assert!(
            ok && said.contains("moved from rack 0 to rack 1") && said.contains("here"),
            "{said}{errors}"
        );
        let (ok, said, errors) = shell(cluster, "1", &format!("swap {at}\n"));
        assert!(ok && said.contains("already"), "{said}{errors}");
    });
}

#[test]
fn a_hash_table_is_used_from_the_command_line_of_both_racks() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        let table = run::ok(&mut rcmp(cluster, &["dht", "create"]));
        let on = |rack: &str, words: &[&str]| {
            let mut all = vec!["dht", words[0], "--rack", rack, table.trim()];
            all.extend(&words[1..]);
            rcmp(cluster, &all)
        };
        run::ok(&mut on("0", &["put", "colour", "green"]));
        assert_eq!(run::ok(&mut on("1", &["get", "colour"])), "green\n");
        run::ok(&mut on("1", &["cas", "colour", "--old", "green", "--new", "blue"]));
        let (code, said) = run::fails(&mut on("0", &["cas", "colour", "--old", "green"]));
        assert!(code == Some(1) && said.contains("is \"blue\""), "{said}");
        run::ok(&mut on("0", &["cas", "shape", "--new", "round"]));
        let mut lines: Vec<String> = run::ok(&mut on("1", &["scan"])).lines().map(String::from).collect();
        lines.sort();
        assert_eq!(lines, ["colour\tblue", "shape\tround"]);
        assert_eq!(run::ok(&mut on("1", &["scan", "--limit", "1"])).lines().count(), 1);
        let stats: serde_json::Value =
            serde_json::from_str(&run::ok(&mut on("0", &["stats", "--json"]))).expect("it is JSON");
        assert_eq!((stats["records"].as_u64(), stats["segments"].as_u64()), (Some(2), Some(1)));
        assert!(run::ok(&mut on("0", &["stats"])).contains("load factor 0.00"));
        run::ok(&mut on("0", &["remove", "shape"]));
        let (code, said) = run::fails(&mut on("0", &["remove", "shape"]));
        assert!(code == Some(1) && said.contains("no key"), "{said}");
        run::ok(&mut on("1", &["destroy"]));
        let (code, said) = run::fails(&mut on("0", &["get", "colour"]));
        assert!(code == Some(1) && said.contains("no hash table"), "{said}");
    });
}

#[test]
fn every_workload_of_ycsb_runs_on_a_table_here_and_there() {
    crate::on_cluster(Shape::restless(2), |cluster, _| {
        for table_rack in ["0", "1"] {
            let arguments = [
                "bench",
                "ycsb",
                "--json",
                "--records",
                "300",
                "--value",
                "64,1K",
                "--threads",
                "1,2",
                "--seconds",
                "0.05",
                "--warm-up",
                "0",
                "--table-rack",
                table_rack,
            ];
            let text = run::ok(&mut rcmp(cluster, &arguments));
            let lines = text.lines().map(|line| serde_json::from_str(line).expect("it is JSON"));
            let rates: Vec<Option<f64>> =
                lines.map(|line: serde_json::Value| line["per_second"].as_f64()).collect();
            assert_eq!(rates.len(), 24, "{text}");
            assert!(rates.iter().all(|rate| *rate > Some(0.0)), "{text}");
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
