//! Two racks on devdax devices, which reach each other by RDMA.

use crate::in_vm;
use e2e::Mount;
use e2e::cluster::{Client, Cluster, Shape};
use e2e::run::{command, ok};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const SOON: Duration = Duration::from_secs(60);

/// Emulation makes everything take long: no client waits longer than ten seconds, and daemons have to be
/// quicker than that to say what was wrong.
const PATIENT: [&str; 4] = ["--deadline", "8s", "--transport", "rdma"];

/// Two racks on devices whose old pool is given up first.
pub fn racks(daemon: &[&'static str]) -> Cluster {
    let devices = vec!["/dev/dax0.0", "/dev/dax1.0"];
    for device in &devices {
        ok(command(e2e::binary::rcmp().to_str().expect("the path is text"), ["wipe", "--yes"]).arg(device));
    }
    let mut options = daemon.to_vec();
    options.extend(PATIENT);
    let cluster = Cluster::start(Shape { devices, daemon: options, ..Shape::restless(2) });
    until_linked(&cluster, "rdma:");
    cluster
}

const RESTLESS: [&str; 6] = ["--swap-watermark", "0.1", "--heat-half-life", "1s", "--swap-reserve", "2M"];
pub const QUIET: [&str; 4] = ["--swap-watermark", "off", "--swap-reserve", "1M"];

/// Waits until both racks say that they reach the other that way.
#[track_caller]
pub fn until_linked(cluster: &Cluster, way: &str) {
    let deadline = Instant::now() + SOON;
    while !cluster.texts("transport").iter().all(|text| text.starts_with(way)) {
        assert!(Instant::now() < deadline, "{:?}\n{}", cluster.texts("transport"), cluster.said());
        sleep(Duration::from_millis(200));
    }
}

/// A client of two threads in each rack.
pub fn clients(cluster: &Cluster, pages: &str, seconds: f64) -> Vec<Client> {
    (0..2).map(|rack| cluster.client(rack, pages, 2, seconds)).collect()
}

/// Lets them finish; operations and errors.
pub fn finish(clients: Vec<Client>) -> (u64, u64) {
    clients.into_iter().map(Client::finish).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[track_caller]
pub fn kept_its_promises(cluster: &Cluster) {
    let verdict = cluster.judge();
    verdict.expect_none();
    println!("{verdict}");
}

#[test]
fn pages_that_never_rest_keep_every_promise_over_rdma() {
    if !in_vm() {
        return;
    }
    let cluster = racks(&RESTLESS);
    assert_eq!(cluster.texts("cas"), ["home CPU (device: HCA)"; 2]);
    let pages = cluster.make_pages(0, 9);
    let (operations, failed) = finish(clients(&cluster, &pages, 12.0));
    println!("{operations} operations, {failed} failed, {:?} swaps", cluster.counts("swaps_in"));
    kept_its_promises(&cluster);
    assert_eq!(failed, 0, "operations failed although nothing was wrong\n{}", cluster.said());
    let moved: u64 = cluster.counts("swaps_in").iter().sum();
    assert!(moved > 20 && operations > 500, "{moved} pages moved, {operations} operations: that is no load");
    until_linked(&cluster, "rdma:");
}

#[test]
fn pages_that_stay_are_used_in_place_over_rdma() {
    if !in_vm() {
        return;
    }
    let cluster = racks(&QUIET);
    let pages = cluster.make_pages(0, 9);
    let (operations, failed) = finish(clients(&cluster, &pages, 8.0));
    println!("{operations} operations, {failed} failed, {:?} in place", cluster.counts("direct"));
    kept_its_promises(&cluster);
    assert_eq!(failed, 0, "operations failed although nothing was wrong\n{}", cluster.said());
    assert_eq!(cluster.counts("swaps_in"), [0, 0]);
    assert!(cluster.counts("direct")[1] > 100, "rack 1 has nothing but remote pages");
}

#[test]
fn a_daemon_killed_amid_one_sided_writes_breaks_no_promise() {
    if !in_vm() {
        return;
    }
    let mut cluster = racks(&QUIET);
    let pages = cluster.make_pages(0, 9);
    let working = clients(&cluster, &pages, 14.0);
    for rack in [0, 1] {
        sleep(Duration::from_secs(3));
        cluster.restart_daemon(rack);
    }
    let (operations, failed) = finish(working);
    println!("{operations} operations, {failed} failed in a time with two kills");
    until_linked(&cluster, "rdma:");
    let (operations, failed) = finish(clients(&cluster, &pages, 3.0));
    kept_its_promises(&cluster);
    assert_eq!(failed, 0, "operations failed although nothing was wrong any more\n{}", cluster.said());
    assert!(operations > 50, "{operations} operations are no load");
}

#[test]
fn a_rack_without_rdma_is_reached_by_tcp() {
    if !in_vm() {
        return;
    }
    let mut cluster = racks(&QUIET);
    let pages = cluster.make_pages(0, 9);
    cluster.replace_daemon(1, &["--swap-watermark", "off", "--transport", "tcp"]);
    let deadline = Instant::now() + SOON;
    loop {
        let ways = cluster.texts("transport");
        if ways == ["tcp:1", "tcp"] {
            break;
        }
        assert!(Instant::now() < deadline, "{ways:?}\n{}", cluster.said());
        sleep(Duration::from_millis(200));
    }
    let (_, failed) = finish(clients(&cluster, &pages, 3.0));
    kept_its_promises(&cluster);
    assert_eq!(failed, 0, "operations failed although nothing was wrong\n{}", cluster.said());
}

#[test]
fn fio_verifies_what_it_wrote_to_a_mount_of_racks_over_rdma() {
    if !in_vm() {
        return;
    }
    let cluster = racks(&RESTLESS);
    let dir = cluster.dir().join("mount");
    for rack in [0, 1] {
        fs::create_dir_all(&dir).expect("a directory can be made");
        let log = cluster.dir().join("mount.log");
        let mount = Mount::start_from(cluster.master(), &dir, &format!("rack={rack}"), &log);
        let mount = mount.unwrap_or_else(|failed| panic!("{}: {}", failed.status, failed.message));
        let mut fio = command("fio", ["--name=verify", "--rw=randwrite", "--size=3M", "--verify=crc32c"]);
        fio.args(["--verify_fatal=1", "--do_verify=1", "--bs=4k", "--ioengine=psync", "--direct=1"]);
        fio.args(["--randrepeat=0", "--output-format=terse"]).current_dir(&dir);
        ok(fio.arg(format!("--directory={}", dir.display())));
        if rack == 0 {
            assert!(mount.unmount().success());
            continue;
        }
        // What the other rack's mount wrote is there, and lies in that rack.
        let mut fio = command("fio", ["--name=verify", "--rw=randread", "--size=3M", "--bs=4k"]);
        fio.args(["--ioengine=psync", "--direct=1", "--output-format=terse"]).current_dir(&dir);
        ok(fio.arg(format!("--directory={}", dir.display())));
        assert!(mount.unmount().success());
    }
    let direct: u64 = cluster.counts("direct").iter().sum();
    assert!(direct > 100, "{direct} accesses to the other rack");
    until_linked(&cluster, "rdma:");
}
