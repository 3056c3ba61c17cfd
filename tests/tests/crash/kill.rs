//! kill -9 under load, again and again on one pool.

use crate::expect::look;
use crate::writer::Writer;
use crate::{Pool, df, du};
use e2e::mount::{detach, die_with_parent, is_mounted, with_test_options};
use e2e::rustix::mount::UnmountFlags;
use e2e::{Rng, binary, pattern};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

const OPTIONS: &str = "size=64M,page_size=4K";
const WRITERS: u64 = 3;

fn rounds() -> u64 {
    std::env::var("RCHFS_CRASH_ROUNDS").map_or(50, |n| n.parse().expect("a number"))
}

#[test]
fn what_was_promised_survives_kill_9_under_load() {
    let Some(pool) = Pool::new(OPTIONS) else { return };
    let seed = Rng::seed_from_env("RCHFS_CRASH_SEED");
    let mut rng = Rng::new(seed);
    let mut mount = pool.mount();
    let free = df(&pool.dir());
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|i| {
            let dir = pool.dir().join(format!("w{i}"));
            fs::create_dir(&dir).expect("a directory can be made");
            Writer::new(&dir, seed ^ i)
        })
        .collect();
    for round in 0..rounds() {
        let patience = Duration::from_millis(30 + rng.below(350));
        thread::scope(|scope| {
            let working: Vec<_> =
                writers.iter_mut().map(|w| scope.spawn(move || w.work_until_it_fails())).collect();
            sleep(patience);
            mount.kill();
            for writer in working {
                let error = writer.join().expect("the writer ends");
                // Where the mount is gone already, the names are too.
                let dead = [
                    libc::ENOENT,
                    libc::ENOTCONN,
                    libc::ECONNABORTED,
                    libc::ECANCELED,
                    libc::EIO,
                    libc::EINTR,
                ];
                assert!(error.raw_os_error().is_some_and(|e| dead.contains(&e)), "round {round}: {error}");
            }
        });
        mount = pool.mount();
        for (i, writer) in writers.iter_mut().enumerate() {
            let found = look(writer.dir());
            if let Err(reason) = writer.expect.check(&found) {
                panic!("round {round}, {patience:?}, writer {i}, {} done: {reason}", writer.done);
            }
            // From here on what was found is what there is.
            (writer.expect.before, writer.expect.after, writer.expect.data) = (found, None, None);
        }
        assert_eq!(df(&pool.dir()), du(&pool.dir()), "round {round}: pages in use that no file has");
    }
    let done: u64 = writers.iter().map(|w| w.done).sum();
    println!("{} kills, {done} operations promised", rounds());
    assert!(done > rounds() * 20, "only {done} operations: the load is no load");
    for writer in &writers {
        fs::remove_dir_all(writer.dir()).expect("everything can be removed");
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while df(&pool.dir()) != free && std::time::Instant::now() < deadline {
        sleep(Duration::from_millis(10));
    }
    assert_eq!(df(&pool.dir()), free, "an empty file system uses as much as a new one");
    assert!(mount.unmount().success());
}

#[test]
fn a_crash_during_recovery_is_recovered_from() {
    let Some(pool) = Pool::new(OPTIONS) else { return };
    let mount = pool.mount();
    for i in 0..500u64 {
        fs::write(pool.dir().join(format!("f{i}")), pattern(i, 5000)).expect("it fits");
    }
    mount.kill();
    let mut rng = Rng::new(Rng::seed_from_env("RCHFS_CRASH_SEED"));
    for _ in 0..15 {
        let mut command = Command::new(binary::mount_rchfs());
        command.arg(pool.dir()).args(["-o", &with_test_options(&pool.all_options(OPTIONS)), "--foreground"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        die_with_parent(&mut command);
        let mut child = command.spawn().expect("mount.rchfs starts");
        sleep(Duration::from_micros(rng.below(40_000)));
        child.kill().expect("a child can be killed");
        child.wait().expect("a child can be waited for");
        while is_mounted(&pool.dir()) {
            detach(&pool.dir(), UnmountFlags::DETACH);
        }
    }
    let mount = pool.mount();
    for i in 0..500u64 {
        assert!(fs::read(pool.dir().join(format!("f{i}"))).expect("it is there") == pattern(i, 5000), "f{i}");
    }
    assert_eq!(df(&pool.dir()), du(&pool.dir()));
    assert!(mount.unmount().success());
}

#[test]
fn a_file_being_copied_when_the_mount_dies_is_a_beginning_or_zeros_never_garbage() {
    let Some(pool) = Pool::new("size=256M") else { return };
    let data = pattern(1, 64 << 20);
    fs::write(pool.path("source"), &data).expect("it fits");
    // Old pages full of other data, free again: what a torn file must not show.
    let mut mount = pool.mount();
    fs::write(pool.dir().join("old"), pattern(2, 128 << 20)).expect("it fits");
    fs::remove_file(pool.dir().join("old")).expect("it is there");
    for patience in [20, 60, 100] {
        let mut cp = Command::new("cp");
        cp.arg(pool.path("source")).arg(pool.dir().join("copy")).stderr(Stdio::null());
        let mut cp = cp.spawn().expect("cp runs");
        sleep(Duration::from_millis(patience));
        mount.kill();
        cp.wait().expect("cp ends");
        mount = pool.mount();
        let found = fs::read(pool.dir().join("copy")).unwrap_or_default();
        assert!(found.len() <= data.len());
        for (page, (got, source)) in found.chunks(4096).zip(data.chunks(4096)).enumerate() {
            let fine = got.iter().zip(source).all(|(a, b)| a == b || *a == 0);
            assert!(fine, "after {patience} ms page {page} holds neither the data nor zeros");
        }
    }
    assert!(mount.unmount().success());
}
