//! Clones: copies that share their pages, made by one mount of files that others use.

use crate::{Mounts, on_mounts};
use e2e::binary::rcmp;
use e2e::map::Map;
use e2e::rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use e2e::rustix::process::{Pid, Signal, kill_process};
use e2e::{Rng, pattern, tree};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Bytes in a page of the pool.
const PAGE: u64 = 16 << 10;

fn used(m: &Mounts, number: usize) -> u64 {
    let stat = e2e::rustix::fs::statvfs(m.dir(number)).expect("the mount says how full it is");
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// Racks hear of each other's room once a second, and what was unlinked comes back by way of the master.
#[track_caller]
fn uses(m: &Mounts, number: usize, most: u64) {
    let end = Instant::now() + Duration::from_secs(20);
    while used(m, number) > most {
        assert!(Instant::now() < end, "{} bytes stay in use, {most} should", used(m, number));
        sleep(Duration::from_millis(20));
    }
}

/// Bytes in use once racks have heard of each other.
fn settled(m: &Mounts, number: usize) -> u64 {
    sleep(Duration::from_millis(2500));
    used(m, number)
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).expect("it can be opened")
}

#[track_caller]
fn clone(from: &Path, to: &Path) {
    let output = Command::new(rcmp()).arg("clone").arg(from).arg(to).output().expect("rcmp runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn cp(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().expect("cp runs").success());
}

#[track_caller]
fn is(path: &Path, expected: &[u8]) {
    let found = fs::read(path).expect("it can be read");
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((found.len(), differs), (expected.len(), None), "{}", path.display());
}

/// Tells threads that it is over, when it is dropped.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn put(file: &File, model: &mut Vec<u8>, at: usize, byte: u8, len: usize) {
    file.write_all_at(&vec![byte; len], at as u64).expect("there is room");
    model.resize(model.len().max(at + len), 0);
    model[at..at + len].fill(byte);
}

#[test]
fn cp_shares_pages_until_one_side_writes_on_either_mount() {
    on_mounts(&["", ""], |m| {
        let empty = settled(m, 0);
        let mut a = pattern(1, 8 * MIB + 1000);
        fs::write(m.at(0, "a"), &a).unwrap();
        let before = settled(m, 0);
        assert!(before >= empty + a.len() as u64);
        cp(&m.at(0, "a"), &m.at(0, "b"));
        // From the other rack, too: its pages stay where they are.
        cp(&m.at(1, "a"), &m.at(1, "c"));
        let after = settled(m, 0);
        assert!(after <= before + 4 * PAGE, "{before} bytes in use, and then {after}");
        let (mut b, mut c) = (a.clone(), a.clone());
        for (n, (name, model)) in [("a", &mut a), ("b", &mut b), ("c", &mut c)].into_iter().enumerate() {
            // In the middle of a page, over a border of pages, a whole page, and over the end.
            for (step, (at, len)) in
                [(5000, 10), (3 * PAGE as usize - 7, 20), (MIB, PAGE as usize), (8 * MIB + 500, 900)]
                    .into_iter()
                    .enumerate()
            {
                let file = open(&m.at((n + step) % 2, name));
                put(&file, model, at + n * 100, b'0' + n as u8, len);
            }
        }
        for number in [0, 1] {
            is(&m.at(number, "a"), &a);
            is(&m.at(number, "b"), &b);
            is(&m.at(number, "c"), &c);
        }
        assert!(settled(m, 0) <= before + 20 * PAGE, "only what was written is copied");
        fs::remove_file(m.at(1, "a")).unwrap();
        uses(m, 0, before + 20 * PAGE);
        is(&m.at(0, "b"), &b);
        is(&m.at(1, "c"), &c);
        open(&m.at(0, "c")).set_len(PAGE + 5).unwrap();
        is(&m.at(1, "b"), &b);
        is(&m.at(1, "c"), &c[..PAGE as usize + 5]);
        fs::remove_file(m.at(0, "b")).unwrap();
        fs::remove_file(m.at(0, "c")).unwrap();
        uses(m, 1, empty);
    });
}

#[test]
fn a_clone_of_a_file_that_another_mount_writes_has_what_was_written_before_and_nothing_later() {
    on_mounts(&["", ""], |m| {
        let writer = open(&m.at(1, "source"));
        let len = 8 * PAGE as usize + 100;
        for round in 0..60_u8 {
            writer.write_all_at(&vec![round; len], 0).unwrap();
            let name = format!("clone{}", round % 3);
            let target = m.at(0, &name);
            let _ = fs::remove_file(&target);
            clone(&m.at(0, "source"), &target);
            writer.write_all_at(&vec![0xff; len], 0).unwrap();
            is(&target, &vec![round; len]);
            is(&m.at(1, &name), &vec![round; len]);
            is(&m.at(0, "source"), &vec![0xff; len]);
        }
    });
}

#[test]
fn a_clone_of_a_file_that_another_mount_has_mapped_does_not_change_with_it() {
    on_mounts(&["", ""], |m| {
        fs::write(m.at(1, "source"), vec![1; 4 * PAGE as usize]).unwrap();
        let file = open(&m.at(1, "source"));
        let mut map = Map::new(&file, 0, 4 * PAGE as usize, true).unwrap();
        map.write(100, &[2; 5000]);
        clone(&m.at(0, "source"), &m.at(0, "clone"));
        let mut expected = vec![1; 4 * PAGE as usize];
        expected[100..5100].fill(2);
        is(&m.at(0, "clone"), &expected);
        map.write(3 * PAGE as usize, &[3; 100]);
        map.sync().unwrap();
        is(&m.at(0, "clone"), &expected);
        is(&m.at(1, "clone"), &expected);
        assert_eq!(fs::read(m.at(0, "source")).unwrap()[3 * PAGE as usize], 3);
    });
}

#[test]
fn a_tree_is_cloned_with_what_other_mounts_hold_open() {
    on_mounts(&["", "", ""], |m| {
        fs::create_dir_all(m.at(0, "tree/sub")).unwrap();
        for number in 0..300 {
            fs::write(m.at(number % 2, &format!("tree/sub/{number}")), pattern(number as u64, 20_000))
                .unwrap();
        }
        fs::hard_link(m.at(1, "tree/sub/7"), m.at(1, "tree/seven")).unwrap();
        let (mine, theirs) = (open(&m.at(0, "tree/mine")), open(&m.at(1, "tree/sub/theirs")));
        mine.write_all_at(&[1; 50_000], 0).unwrap();
        theirs.write_all_at(&[2; 50_000], 0).unwrap();
        let _ = fs::metadata(m.at(1, "clone"));
        clone(&m.at(0, "tree"), &m.at(0, "clone"));
        mine.write_all_at(&[3; 50_000], 0).unwrap();
        theirs.write_all_at(&[4; 50_000], 0).unwrap();
        for number in [1, 0, 2] {
            is(&m.at(number, "clone/mine"), &[1; 50_000]);
            is(&m.at(number, "clone/sub/theirs"), &[2; 50_000]);
            is(&m.at(number, "tree/mine"), &[3; 50_000]);
            is(&m.at(number, "tree/sub/theirs"), &[4; 50_000]);
            is(&m.at(number, "clone/seven"), &pattern(7, 20_000));
        }
        mine.write_all_at(&[1; 50_000], 0).unwrap();
        theirs.write_all_at(&[2; 50_000], 0).unwrap();
        drop((mine, theirs));
        let of = |number: usize, name: &str| tree::read(&m.at(number, name));
        assert_eq!(tree::first_difference(&of(1, "clone"), &of(1, "tree")), None);
        assert_eq!(tree::first_difference(&of(2, "clone"), &of(0, "tree")), None);
        // Each is changed by the mount that did not make it.
        fs::write(m.at(1, "clone/sub/8"), b"changed").unwrap();
        open(&m.at(1, "clone/sub/9")).write_all_at(b"x", 9000).unwrap();
        fs::remove_file(m.at(2, "tree/sub/10")).unwrap();
        is(&m.at(0, "tree/sub/8"), &pattern(8, 20_000));
        is(&m.at(0, "tree/sub/9"), &pattern(9, 20_000));
        is(&m.at(0, "clone/sub/10"), &pattern(10, 20_000));
    });
}

#[test]
fn clones_under_writers_on_all_mounts_are_of_one_moment_and_stay_as_they_are() {
    on_mounts(&["", "", "cache=none"], |m| {
        // Whole pages of the kernel, so that each write is one request, but not whole ones of the pool.
        const SLOT: usize = 3 * PAGE as usize + 4096;
        const SLOTS: usize = 6;
        let all = |file: &File| {
            let mut bytes = vec![0; SLOT * SLOTS];
            file.read_exact_at(&mut bytes, 0).expect("it is as long as it was");
            bytes
        };
        fs::write(m.at(0, "source"), vec![0; SLOT * SLOTS]).unwrap();
        let over = AtomicBool::new(false);
        scope(|scope| {
            for number in 0..3 {
                let over = &over;
                let m = &*m;
                scope.spawn(move || {
                    let file = open(&m.at(number, "source"));
                    let mut round = 0_u8;
                    while !over.load(Ordering::Acquire) {
                        round = round.wrapping_add(1);
                        for slot in [number, number + 3] {
                            file.write_all_at(&[round; SLOT], (slot * SLOT) as u64).expect("there is room");
                        }
                    }
                });
            }
            // Also when a check fails.
            let _over = Over(&over);
            let mut kept = Vec::new();
            for round in 0..40 {
                let (by, name) = (round % 2, format!("clone{round}"));
                let (source, target) = (File::open(m.at(by, "source")).unwrap(), open(&m.at(by, &name)));
                let n = copy_file_range(&source, None, &target, None, 64 * MIB).unwrap();
                assert_eq!(n, SLOT * SLOTS, "one call shares it all");
                let found = all(&File::open(m.at(1 - by, &name)).unwrap());
                for (slot, bytes) in found.chunks(SLOT).enumerate() {
                    let other = bytes.iter().position(|b| *b != bytes[0]);
                    let last = bytes[SLOT - 1];
                    assert_eq!(
                        other, None,
                        "slot {slot} of {name} begins with {} and ends with {last}",
                        bytes[0]
                    );
                }
                // A writer writes the first of its slots first.
                for number in 0..3 {
                    let (first, second) = (found[number * SLOT], found[(number + 3) * SLOT]);
                    assert!(first == second || first == second.wrapping_add(1), "{first} and {second}");
                }
                kept.push((name, found));
            }
            over.store(true, Ordering::Release);
            for (name, found) in &kept {
                assert!(all(&File::open(m.at(0, name)).unwrap()) == *found, "{name} has changed");
            }
        });
    });
}

#[test]
fn a_write_to_a_shared_page_of_a_full_pool_is_refused_and_changes_nothing() {
    on_mounts(&["", ""], |m| {
        let data = pattern(5, 4 * MIB);
        fs::write(m.at(0, "source"), &data).unwrap();
        cp(&m.at(0, "source"), &m.at(0, "clone"));
        let filler = open(&m.at(1, "filler"));
        let (mut at, mut step) = (0, 16 * MIB as u64);
        while step >= PAGE {
            match fallocate(&filler, FallocateFlags::empty(), at, step) {
                Ok(()) => at += step,
                Err(_) => step /= 2,
            }
        }
        let clone = open(&m.at(0, "clone"));
        let mut expected = data.clone();
        let mut refused = 0;
        for page in 0..data.len() as u64 / PAGE {
            let at = page * PAGE + 10;
            match clone.write_at(&[0xaa; 100], at) {
                Ok(100) => expected[at as usize..][..100].fill(0xaa),
                Ok(n) => panic!("{n} bytes of 100 were written"),
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::ENOSPC), "{e}");
                    refused += 1;
                    if refused == 4 {
                        break;
                    }
                }
            }
        }
        assert!(refused > 0, "there was room");
        for number in [0, 1] {
            is(&m.at(number, "source"), &data);
            is(&m.at(number, "clone"), &expected);
        }
        drop(filler);
        fs::remove_file(m.at(1, "filler")).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while clone.write_all_at(&[0xbb; 100], 0).is_err() {
            assert!(Instant::now() < end, "there is room again");
        }
        expected[..100].fill(0xbb);
        is(&m.at(1, "clone"), &expected);
        is(&m.at(1, "source"), &data);
    });
}

#[test]
fn clones_survive_the_master() {
    on_mounts(&["", ""], |m| {
        let empty = settled(m, 0);
        let data = pattern(9, 2 * MIB);
        fs::write(m.at(0, "source"), &data).unwrap();
        clone(&m.at(1, "source"), &m.at(1, "clone"));
        let (source, clone) = (open(&m.at(0, "source")), open(&m.at(1, "clone")));
        m.cluster().restart_master();
        let end = Instant::now() + Duration::from_secs(30);
        while let Err(error) =
            source.write_all_at(&[1; 30_000], 5).and_then(|()| clone.write_all_at(&[2; 30_000], 5))
        {
            assert!(Instant::now() < end, "still: {error}");
            sleep(Duration::from_millis(100));
        }
        let (mut one, mut two) = (data.clone(), data);
        one[5..30_005].fill(1);
        two[5..30_005].fill(2);
        for number in [1, 0] {
            is(&m.at(number, "source"), &one);
            is(&m.at(number, "clone"), &two);
        }
        drop((source, clone));
        fs::remove_file(m.at(1, "source")).unwrap();
        is(&m.at(0, "clone"), &two);
        fs::remove_file(m.at(0, "clone")).unwrap();
        uses(m, 0, empty);
    });
}

#[test]
fn a_mount_that_was_stopped_does_not_write_into_clones_that_were_made_meanwhile() {
    on_mounts(&["", ""], |m| {
        let source = open(&m.at(0, "source"));
        source.write_all_at(&[1; 100_000], 0).unwrap();
        source.sync_all().unwrap();
        let pid = Pid::from_raw(m.mount(0).pid() as i32).expect("a process has an id");
        kill_process(pid, Signal::STOP).unwrap();
        // Not by a program: it would wait for the stopped mount when it closes the file that it inherits.
        let (from, to) = (File::open(m.at(1, "source")).unwrap(), open(&m.at(1, "clone")));
        let cloned = copy_file_range(&from, None, &to, None, MIB);
        kill_process(pid, Signal::CONT).unwrap();
        assert_eq!(cloned, Ok(100_000));
        let end = Instant::now() + Duration::from_secs(20);
        while let Err(error) = source.write_all_at(&[2; 100_000], 0) {
            assert!(Instant::now() < end, "still: {error}");
            sleep(Duration::from_millis(20));
        }
        is(&m.at(1, "clone"), &[1; 100_000]);
        is(&m.at(1, "source"), &[2; 100_000]);
        is(&m.at(0, "clone"), &[1; 100_000]);
    });
}

#[test]
fn a_tree_that_others_change_meanwhile_is_cloned_as_it_was_at_one_moment() {
    on_mounts(&["", "", ""], |m| {
        for dir in ["first", "ballast", "second"] {
            fs::create_dir_all(m.at(1, "tree").join(dir)).unwrap();
        }
        for number in 0..1500 {
            File::create(m.at(number % 3, &format!("tree/ballast/{number}"))).unwrap();
        }
        let over = AtomicBool::new(false);
        scope(|scope| {
            for number in [1, 2] {
                let (m, over) = (&*m, &over);
                scope.spawn(move || {
                    let mut round = 0;
                    while !over.load(Ordering::Acquire) {
                        // One after the other, in a directory each.
                        for dir in ["first", "second"] {
                            File::create(m.at(number, &format!("tree/{dir}/{number}.{round}"))).unwrap();
                        }
                        round += 1;
                    }
                });
            }
            let _over = Over(&over);
            let made = |number: usize, path: &str| {
                let mark = format!("{number}.");
                let names = fs::read_dir(m.at(2, path)).unwrap().map(|entry| entry.unwrap().file_name());
                names.filter(|name| name.to_str().unwrap().starts_with(&mark)).count()
            };
            for round in 0..8 {
                let name = format!("clone{round}");
                clone(&m.at(round % 2, "tree"), &m.at(round % 2, &name));
                assert_eq!(fs::read_dir(m.at(2, &format!("{name}/ballast"))).unwrap().count(), 1500);
                for number in [1, 2] {
                    let (first, second) =
                        (made(number, &format!("{name}/first")), made(number, &format!("{name}/second")));
                    assert!(
                        first == second || first == second + 1,
                        "{name} has {first} of one and {second} of the other"
                    );
                }
            }
        });
    });
}

#[test]
fn a_master_that_is_killed_while_it_clones_a_tree_leaves_all_of_the_clone_or_nothing() {
    on_mounts(&["", ""], |m| {
        let empty = settled(m, 0);
        for number in 0..1200 {
            let dir = m.at(number % 2, &format!("tree/{}", number % 7));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(number.to_string()), number.to_string()).unwrap();
        }
        let tree = tree::read(&m.at(0, "tree"));
        let mut rng = Rng::new(Rng::seed_from_env("RCHFS_CRASH_SEED"));
        // While the master is away and comes back, what is asked may fail.
        let answered = |what: &mut dyn FnMut() -> std::io::Result<()>| {
            let end = Instant::now() + Duration::from_secs(30);
            while let Err(error) = what() {
                assert!(Instant::now() < end, "still: {error}");
                sleep(Duration::from_millis(50));
            }
        };
        let (mut whole, mut none) = (0, 0);
        for _ in 0..6 {
            let (from, to) = (m.at(0, "tree"), m.at(0, "clone"));
            let mut rcmp = Command::new(rcmp()).arg("clone").arg(from).arg(&to).spawn().expect("rcmp runs");
            sleep(Duration::from_millis(rng.below(120)));
            m.cluster().restart_master();
            rcmp.wait().expect("rcmp ends");
            let mut there = false;
            let seen = m.at(1, "clone");
            answered(&mut || {
                fs::metadata(m.at(1, "tree"))?;
                there = match fs::read_dir(&seen) {
                    Ok(mut entries) => entries.next().transpose()?.is_some(),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
                    Err(error) => return Err(error),
                };
                Ok(())
            });
            if there {
                assert_eq!(tree::first_difference(&tree::read(&seen), &tree), None);
                // Its pages are still the tree's.
                let changed = open(&seen.join("3/10"));
                answered(&mut || changed.write_all_at(b"changed", 0));
                whole += 1;
            } else {
                none += 1;
            }
            answered(&mut || match fs::remove_dir_all(&seen) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
            assert_eq!(tree::first_difference(&tree::read(&m.at(0, "tree")), &tree), None);
        }
        println!("{whole} clones were there, {none} were not");
        answered(&mut || fs::remove_dir_all(m.at(1, "tree")));
        uses(m, 0, empty);
    });
}
