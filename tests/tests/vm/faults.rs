//! What happens to the device: its network goes down, it is removed and comes back, it is idle, or the library that
//! it takes is missing.

use crate::in_vm;
use crate::racks::{QUIET, SOON, clients, finish, kept_its_promises, racks, until_linked};
use e2e::cluster::{Cluster, Server};
use e2e::run::{command, ok};
use std::fs;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Has `disturb` happen while clients in both racks work; they go on by TCP until `mend`, then by RDMA again. No
/// daemon ends, no promise is broken, and afterwards nothing fails any more.
#[track_caller]
fn survived(disturb: &[&str], mend: &[&str]) {
    let run = |words: &[&str]| ok(&mut command("timeout", [&["30"], words].concat()));
    let cluster = racks(&QUIET);
    let pages = cluster.make_pages(0, 9);
    let working = clients(&cluster, &pages, 14.0);
    sleep(Duration::from_secs(3));
    let begun = Instant::now();
    run(disturb);
    println!("{disturb:?} took {:.1} s", begun.elapsed().as_secs_f64());
    until_linked(&cluster, "tcp:");
    let by_tcp = begun.elapsed();
    sleep(Duration::from_secs(3));
    run(mend);
    let mended = Instant::now();
    until_linked(&cluster, "rdma:");
    println!(
        "by TCP after {:.1} s, by RDMA {:.1} s after it was back",
        by_tcp.as_secs_f64(),
        mended.elapsed().as_secs_f64()
    );
    let (operations, failed) = finish(working);
    println!("{operations} operations, {failed} failed in a time with a fault");
    assert!(operations > 100 && failed < operations / 10, "{failed} of {operations} operations failed");
    let (operations, failed) = finish(clients(&cluster, &pages, 3.0));
    kept_its_promises(&cluster);
    assert_eq!(failed, 0, "operations failed although nothing was wrong any more\n{}", cluster.said());
    assert!(operations > 50, "{operations} operations are no load");
    until_linked(&cluster, "rdma:");
    for rack in 0..2 {
        assert!(is_alive(cluster.daemon(rack)), "a daemon has ended\n{}", cluster.said());
    }
}

fn is_alive(server: &Server) -> bool {
    fs::exists(format!("/proc/{}", server.pid())).expect("/proc can be read")
}

#[test]
fn a_network_that_goes_down_amid_accesses_is_survived() {
    if !in_vm() {
        return;
    }
    survived(&["ip", "link", "set", "eth0", "down"], &["ip", "link", "set", "eth0", "up"]);
}

#[test]
fn a_device_that_is_removed_amid_accesses_is_let_go_of_and_used_again() {
    if !in_vm() {
        return;
    }
    // Its driver waits until nobody has it open.
    survived(
        &["rdma", "link", "del", "rxe0"],
        &["rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "eth0"],
    );
}

/// Processor time that a process has used, in seconds.
fn used(server: &Server) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: Vec<f64> = fields.split(' ').skip(11).take(2).map(|n| n.parse().expect("ticks")).collect();
    // The kernel tells it in hundredths.
    ticks.iter().sum::<f64>() / 100.0
}

#[test]
fn daemons_that_have_nothing_to_do_sleep() {
    if !in_vm() {
        return;
    }
    let cluster = racks(&QUIET);
    let pages = cluster.make_pages(0, 9);
    let (_, failed) = finish(clients(&cluster, &pages, 2.0));
    assert_eq!(failed, 0);
    until_linked(&cluster, "rdma:");
    sleep(Duration::from_secs(2));
    let all = || (0..2).map(|rack| used(cluster.daemon(rack))).sum::<f64>() / 2.0;
    let (before, begun) = (all(), Instant::now());
    sleep(Duration::from_secs(6));
    let share = (all() - before) / begun.elapsed().as_secs_f64();
    println!("an idle daemon used {:.1}% of a processor, emulated", share * 100.0);
    // Emulation makes of a thousandth some hundredths; a thread that polls would use all of one.
    assert!(share < 0.1, "{share}");
}

/// A daemon in a world where the library cannot be loaded.
fn without_library(arguments: &str) -> Command {
    let library = "$(ldconfig -p | awk '$1 == \"libibverbs.so.1\" { print $NF; exit }')";
    let daemon = e2e::binary::rcmp_daemon();
    let script =
        format!("mount --bind /dev/null \"$(readlink -f {library})\" && exec {daemon:?} {arguments}");
    command("unshare", ["-m", "sh", "-c", &script])
}

#[test]
fn without_the_library_a_daemon_says_so_in_one_line_and_goes_on_by_tcp() {
    if !in_vm() {
        return;
    }
    let cluster: Cluster = racks(&QUIET);
    let path = cluster.dir().join("without");
    let file = "/dev/shm/rchfs-e2e-without";
    let usual =
        format!("--master {} --listen 127.0.0.1:0 --rack 7 --cxl {file} --cxl-size 16M", cluster.master());
    let refused = without_library(&format!("{usual} --transport rdma")).output().expect("it was built");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    for word in ["the RDMA library is missing", "install libibverbs1", "--transport auto or tcp"] {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    let server = Server::start(without_library(&usual), &[], &path).expect("it starts without");
    let deadline = Instant::now() + SOON;
    loop {
        let ways = cluster.texts("transport");
        // The others have RDMA, which it has not.
        if ways == ["rdma:1 tcp:7", "rdma:0 tcp:7", "tcp"] {
            break;
        }
        assert!(Instant::now() < deadline, "{ways:?}\n{}", cluster.said());
        sleep(Duration::from_millis(200));
    }
    let rdma = "home CPU (device: HCA)";
    assert_eq!(cluster.texts("cas"), [rdma, rdma, "home CPU"]);
    let about: Vec<String> =
        server.said().lines().filter(|line| line.contains("RDMA")).map(String::from).collect();
    assert!(about.len() == 1 && about[0].contains("other racks are reached by TCP"), "{about:?}");
    drop(server);
    let _ = fs::remove_file(file);
}
