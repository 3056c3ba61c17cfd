//! A process that owns a region is killed at random moments, again and again. Every page it was told
//! that it has is there afterwards, whole; every page whose freeing was answered is gone.

use crate::common::{Embedded, file};
use crate::reopen::reconcile;
use daemon::Opened;
use pool::addr::{PageId, PageRun};
use pool::{Fill, PoolError};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PAGES: u64 = 600;
const ROUNDS: u64 = 12;
const VICTIM: &str = "RCHFS_TEST_VICTIM";

/// What the log says about a page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It was given out and written.
    Held,
    /// It was asked to be freed; whether it was is not known.
    Doubtful,
    /// It was freed.
    Freed,
}

fn image(page: PageId) -> Vec<u8> {
    (0..512).flat_map(|i| (page.raw() << 16 | i).to_le_bytes()).collect()
}

fn note(log: &File, what: char, run: PageRun) {
    // One system call a line: a line is there whole or not at all, also when the process is killed.
    let line = format!("{what} {} {}\n", run.first.raw(), run.count);
    (&*log).write_all(line.as_bytes()).unwrap();
}

/// Not a test of its own: what the killed process does.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let dir = Path::new(&dir);
    let e = file(&dir.join("region"), PAGES, 4096);
    let log = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=2u64 {
            let (e, log) = (&e, &log);
            scope.spawn(move || churn(e, log, seed * 977 + std::process::id() as u64));
        }
    });
}

fn churn(e: &Embedded, log: &File, mut random: u64) {
    let mut held: Vec<PageRun> = Vec::new();
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pages = 1 + (random >> 33) % 20;
        if (random >> 60) < 9
            && let Ok(runs) = e.pool.alloc_runs(pages, 50, Fill::Uninit)
        {
            for run in runs {
                run.iter().for_each(|page| e.pool.write(e.at(page, 0), &image(page)).unwrap());
                note(log, 'A', run);
                held.push(run);
            }
        } else if !held.is_empty() {
            let run = held.swap_remove((random >> 20) as usize % held.len());
            note(log, 'F', run);
            assert_eq!(e.pool.free_runs(&[run]), Ok(run.count as u64));
            note(log, 'D', run);
        }
    }
}

fn read_log(path: &Path) -> HashMap<u64, Fate> {
    let mut fates = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let mut words = line.split(' ');
        let fate = match words.next() {
            Some("A") => Fate::Held,
            Some("F") => Fate::Doubtful,
            _ => Fate::Freed,
        };
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        fates.extend((numbers[0]..numbers[0] + numbers[1]).map(|id| (id, fate)));
    }
    fates
}

/// Checks every page in the log; returns those that must not be lost.
fn check(e: &Embedded, fates: &HashMap<u64, Fate>) -> Vec<PageRun> {
    let mut held = Vec::new();
    for (&id, &fate) in fates {
        let page = PageId::new(id).unwrap();
        let mut bytes = Vec::new();
        match e.pool.read_into(e.at(page, 0), 4096, &mut bytes) {
            Ok(()) => {
                assert!(fate != Fate::Freed, "{page} was freed and is there");
                assert!(bytes == image(page), "{page} ({fate:?}) is damaged");
            }
            Err(PoolError::NoSuchPage(_)) => assert!(fate != Fate::Held, "{page} is lost"),
            Err(other) => panic!("{other}"),
        }
        if fate == Fate::Held {
            held.push(PageRun { first: page, count: 1 });
        }
    }
    held
}

fn kill_and_check(dir: &Path) {
    let (mut unclean, mut highest) = (0, 0);
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::victim", "--nocapture"])
            .env(VICTIM, dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = dir.join("log");
        let start = Instant::now();
        while !log.exists() && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(10 + (round * 37) % 130));
        assert!(child.try_wait().unwrap().is_none(), "the process ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();

        let e = file(&dir.join("region"), PAGES, 4096);
        let fates = read_log(&log);
        if let Opened::Reopened { clean, bad, .. } = e.daemon.opened() {
            assert_eq!(*bad, []);
            unclean += u64::from(!clean);
        }
        assert!(fates.keys().all(|id| *id > highest), "an id was given out twice");
        highest = fates.keys().copied().max().unwrap_or(highest);
        let held = check(&e, &fates);
        assert_eq!(reconcile(&e, &held).missing, []);
        assert_eq!(e.pool.stat().unwrap().free, PAGES - held.len() as u64);
        check(&e, &fates);
        assert_eq!(e.pool.free_runs(&held).unwrap(), held.len() as u64);
        assert_eq!(e.pool.stat().unwrap().free, PAGES);
        std::fs::remove_file(&log).unwrap();
    }
    assert_eq!(unclean, ROUNDS, "the process was killed at work each time");
}

#[test]
fn killing_the_owner_of_a_region_in_memory_loses_nothing() {
    kill_and_check(tempfile::tempdir_in("/dev/shm").unwrap().path());
}

#[test]
fn killing_the_owner_of_a_region_on_a_disk_loses_nothing() {
    kill_and_check(tempfile::tempdir().unwrap().path());
}

#[test]
fn another_process_that_owns_the_region_is_named() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::victim", "--nocapture"])
        .env(VICTIM, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !dir.path().join("log").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let source = daemon::RegionSource::Path(dir.path().join("region"));
    let refused = daemon::Daemon::start(crate::common::config(source, PAGES * 4096, 4096)).map(|_| ());
    child.kill().unwrap();
    child.wait().unwrap();
    let reason = refused.unwrap_err().to_string();
    assert!(reason.contains(&format!("in use by process {} (suite", child.id())), "{reason}");
}
