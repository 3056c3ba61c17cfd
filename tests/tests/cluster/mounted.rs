//! `mount.rchfs HOST:PORT`: the file system of a cluster, from each of its racks.

use crate::on_cluster;
use e2e::cluster::{Cluster, Shape};
use e2e::fixture::has_fuse;
use e2e::run::{command, ok, script};
use e2e::rustix::fs::statvfs;
use e2e::rustix::io::Errno;
use e2e::rustix::process::{Pid, Signal, kill_process};
use e2e::{Mount, MountFailed, assert_os_error, pattern, tree};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// More than a rack of 32 MiB holds.
const LARGE: usize = 44 << 20;

/// What an access may take that needs a daemon which is gone: the daemon's deadline (`--deadline`, 5 s) for
/// each of the kernel's two attempts to read, and some for a busy machine.
const SOON: Duration = Duration::from_secs(40);

/// Two racks between which pages move, unless the machine has no FUSE.
fn on_two_racks(test: impl FnOnce(&mut Cluster)) {
    if has_fuse() {
        on_cluster(Shape::restless(2), |cluster, _| test(cluster));
    }
}

/// The same with pages that stay where they were made.
fn on_two_quiet_racks(test: impl FnOnce(&mut Cluster)) {
    let daemon = vec!["--swap-watermark", "off", "--swap-reserve", "1M"];
    if has_fuse() {
        on_cluster(Shape { daemon, ..Shape::restless(2) }, |cluster, _| test(cluster));
    }
}

fn try_mount(cluster: &Cluster, source: &str, options: &str, name: &str) -> Result<Mount, MountFailed> {
    let dir = cluster.dir().join(name);
    fs::create_dir_all(&dir).expect("a directory can be made");
    Mount::start_from(source, &dir, options, &cluster.dir().join(format!("{name}.log")))
}

#[track_caller]
fn mount(cluster: &Cluster, options: &str, name: &str) -> Mount {
    match try_mount(cluster, cluster.master(), options, name) {
        Ok(mount) => mount,
        Err(failed) => panic!("mount.rchfs -o {options}: {}: {}", failed.status, failed.message),
    }
}

#[track_caller]
fn unmount(mount: Mount) {
    let status = mount.unmount();
    assert!(status.success(), "{status}");
}

/// Nothing is mounted, and one line says why.
#[track_caller]
fn refused(result: Result<Mount, MountFailed>, words: &[&str]) {
    let failed = result.expect_err("it was mounted");
    assert_eq!(failed.status.code(), Some(32), "{}", failed.message);
    assert_eq!(failed.message.lines().count(), 1, "not one line: {}", failed.message);
    for word in words {
        assert!(failed.message.contains(word), "no {word:?} in: {}", failed.message);
    }
}

/// Waits until so many bytes can be written: racks hear of each other's room every second.
#[track_caller]
fn until_room(mount: &Mount, bytes: usize) {
    let deadline = Instant::now() + SOON;
    loop {
        let stat = statvfs(mount.dir()).expect("the file system answers");
        if stat.f_bavail * stat.f_frsize > bytes as u64 + (4 << 20) {
            return;
        }
        assert!(Instant::now() < deadline, "only {} blocks of {} are free", stat.f_bavail, stat.f_frsize);
        sleep(Duration::from_millis(20));
    }
}

/// Compares without printing megabytes.
#[track_caller]
fn holds(path: &Path, bytes: &[u8]) {
    let found = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(found == bytes, "{} is not what was written", path.display());
}

#[test]
fn a_file_larger_than_a_rack_spills_and_is_the_same_from_the_other() {
    on_two_racks(|cluster| {
        let bytes = pattern(1, LARGE);
        let first = mount(cluster, "rack=0", "a");
        until_room(&first, LARGE);
        fs::write(first.dir().join("large"), &bytes).expect("the two racks have room");
        holds(&first.dir().join("large"), &bytes);
        unmount(first);
        let second = mount(cluster, "rack=1", "b");
        holds(&second.dir().join("large"), &bytes);
        fs::remove_file(second.dir().join("large")).expect("it can be removed");
        until_room(&second, LARGE);
        fs::write(second.dir().join("again"), &bytes).expect("the room is free again");
        unmount(second);
        let third = mount(cluster, "rack=0,cache=none", "a");
        assert!(!third.dir().join("large").exists());
        holds(&third.dir().join("again"), &bytes);
        unmount(third);
    });
}

#[test]
fn fio_verifies_what_it_wrote() {
    on_two_racks(|cluster| {
        for rack in [0, 1] {
            let mount = mount(cluster, &format!("rack={rack}"), "a");
            let mut fio =
                command("fio", ["--name=verify", "--rw=randwrite", "--size=12M", "--verify=crc32c"]);
            fio.args(["--verify_fatal=1", "--do_verify=1", "--bs=4k", "--ioengine=psync", "--numjobs=2"]);
            fio.args(["--randrepeat=0", "--output-format=terse"]).current_dir(mount.dir());
            ok(fio.arg(format!("--directory={}", mount.dir().display())));
            for name in ["verify.0.0", "verify.1.0"] {
                fs::remove_file(mount.dir().join(name)).expect("fio made it");
            }
            unmount(mount);
        }
    });
}

/// A tree with something of everything, on a tmpfs.
fn make_tree() -> TempDir {
    let top = TempDir::with_prefix_in("rchfs-e2e-tree.", "/dev/shm").expect("/dev/shm can be written");
    let text = "mkdir -p a/b/c empty many
        for i in $(seq 300); do echo \"file $i\" > many/$i; done
        head -c 3000000 /dev/urandom > a/b/large; head -c 5000 /dev/urandom > a/b/c/small
        truncate -s 2M a/sparse; printf x | dd of=a/sparse bs=1 seek=1500000 conv=notrunc status=none
        ln a/b/c/small a/linked; ln -s b/c/small a/link; ln -s nowhere broken; mkfifo a/pipe
        chmod 640 many/7; chmod 2751 empty; touch -d '2020-01-02 03:04:05.000000005' many/8";
    ok(&mut script(top.path(), text));
    top
}

#[test]
fn a_tree_copied_to_one_rack_is_the_same_from_the_other() {
    on_two_racks(|cluster| {
        let original = make_tree();
        let expected = tree::read(original.path());
        let first = mount(cluster, "rack=0", "a");
        let copy = |mount: &Mount| mount.dir().join("copy");
        ok(command("cp", ["-a"]).arg(original.path()).arg(copy(&first)));
        assert_eq!(tree::first_difference(&tree::read(&copy(&first)), &expected), None);
        unmount(first);
        let second = mount(cluster, "rack=1", "b");
        assert_eq!(tree::first_difference(&tree::read(&copy(&second)), &expected), None);
        unmount(second);
    });
}

#[test]
fn a_mount_that_cannot_be_is_refused_in_one_line() {
    on_two_racks(|cluster| {
        let master = cluster.master();
        refused(try_mount(cluster, master, "rack=9", "a"), &[master, "no rack 9", "0, 1"]);
        refused(try_mount(cluster, master, "rack=65536", "a"), &["65536", "65535"]);
        refused(try_mount(cluster, master, "rack=0,size=1G", "a"), &["size=", "leave it out"]);
        let daemon = cluster.daemon(1).addr();
        refused(try_mount(cluster, daemon, "rack=0", "a"), &["daemon of rack 1, not the master"]);
        // Nobody listens on the discard port of this machine.
        refused(try_mount(cluster, "127.0.0.1:9", "rack=0", "a"), &["127.0.0.1:9", "master"]);
        unmount(mount(cluster, "rack=0", "a"));
    });
}

#[test]
fn what_was_promised_is_there_after_kill_9_of_the_mount() {
    on_two_racks(|cluster| {
        let bytes = pattern(2, 6 << 20);
        for (round, rack) in [0, 1, 0].into_iter().enumerate() {
            let options = format!("rack={rack}");
            let doomed = mount(cluster, &options, "a");
            let dir = doomed.dir().to_path_buf();
            let synced = format!("synced{round}");
            let mut file = File::create(dir.join(&synced)).expect("it can be made");
            file.write_all(&bytes).expect("there is room");
            file.sync_all().expect("it can be synced");
            fs::create_dir(dir.join(format!("made{round}"))).expect("it can be made");
            fs::rename(dir.join(&synced), dir.join(format!("made{round}/moved"))).expect("it can be moved");
            // Not promised: neither closed nor synced.
            let mut open = File::create(dir.join("open")).expect("it can be made");
            open.write_all(&bytes).expect("there is room");
            doomed.kill();
            drop((file, open));
            let again = mount(cluster, &format!("rack={}", 1 - rack), "b");
            for earlier in 0..=round {
                holds(&again.dir().join(format!("made{earlier}/moved")), &bytes);
                assert!(!again.dir().join(format!("synced{earlier}")).exists(), "it was moved");
            }
            fs::remove_file(again.dir().join("open")).expect("its name was made");
            unmount(again);
        }
    });
}

/// Reads the file on a thread of its own, so that a hang is seen as one.
fn read_soon(path: PathBuf) -> std::io::Result<Vec<u8>> {
    let (sender, receiver) = channel();
    spawn(move || {
        let mut bytes = Vec::new();
        let result = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        // Nobody listens if it took too long.
        drop(sender.send(result.map(|_| bytes)));
    });
    receiver.recv_timeout(SOON).unwrap_or_else(|_| panic!("no answer after {SOON:?}"))
}

#[test]
fn without_the_other_racks_daemon_its_pages_are_errors_and_then_there_again() {
    on_two_quiet_racks(|cluster| {
        let bytes = pattern(3, LARGE);
        let mount = mount(cluster, "rack=0,cache=none", "a");
        let path = mount.dir().join("large");
        // What is written first fits in this rack.
        fs::write(mount.dir().join("near"), b"here").expect("there is room");
        until_room(&mount, LARGE);
        fs::write(&path, &bytes).expect("the two racks have room");
        let far = Pid::from_raw(cluster.daemon(1).pid() as i32).expect("a process has an id");
        kill_process(far, Signal::KILL).expect("a child can be signalled");
        assert_os_error(read_soon(path.clone()).map(|bytes| bytes.len()), Errno::IO);
        holds(&mount.dir().join("near"), b"here");
        cluster.restart_daemon(1);
        let deadline = Instant::now() + SOON;
        loop {
            match read_soon(path.clone()) {
                Ok(found) => break assert!(found == bytes, "it is not what was written"),
                Err(error) => assert!(Instant::now() < deadline, "still an error: {error}"),
            }
            sleep(Duration::from_millis(200));
        }
        unmount(mount);
    });
}
