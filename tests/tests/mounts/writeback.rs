//! Mounts whose kernel collects what is written (`cache=writeback`): that it does, and what must hold although it goes by
//! its own idea of how long a file is and when it was written. The rest of this suite is run with that option too
//! (scripts/test.sh).

use crate::{Mounts, on_mounts};
use e2e::run::{command, ok};
use e2e::rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
use e2e::rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::mpsc::channel;
use std::thread::scope;
use std::time::{Duration, Instant};

const BOTH: [&str; 2] = ["cache=writeback", "cache=writeback"];

fn open(m: &Mounts, number: usize, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(m.at(number, name)).unwrap()
}

fn signal(m: &Mounts, number: usize, signal: Signal) {
    let pid = Pid::from_raw(m.mount(number).pid() as i32).expect("a process has an id");
    kill_process(pid, signal).expect("a child can be signalled");
}

#[test]
fn a_write_to_a_file_that_no_other_mount_uses_asks_the_mount_nothing() {
    on_mounts(&BOTH, |m| {
        let file = open(m, 0, "file");
        file.write_all_at(&[1; 4096], 0).unwrap();
        let (done, written) = channel();
        signal(m, 0, Signal::STOP);
        let in_time = scope(|scope| {
            scope.spawn(|| {
                (1..200).for_each(|i| file.write_all_at(&[1; 4096], i * 4096).unwrap());
                done.send(()).unwrap();
            });
            let in_time = written.recv_timeout(Duration::from_secs(2)).is_ok();
            signal(m, 0, Signal::CONT);
            in_time
        });
        assert!(in_time, "it waited for the mount, which was stopped");
        drop(file);
        assert_eq!(fs::read(m.at(1, "file")).unwrap(), vec![1; 200 * 4096]);
    });
}

#[test]
fn every_completed_write_is_read_by_the_other_also_at_the_end_of_the_file() {
    on_mounts(&BOTH, |m| {
        let files = [open(m, 0, "file"), open(m, 1, "file")];
        for i in 0..150_u64 {
            let (writer, reader) = (&files[(i % 2) as usize], &files[(1 - i % 2) as usize]);
            writer.write_all_at(&i.to_le_bytes(), i * 8).unwrap();
            let mut found = [0; 8];
            reader.read_exact_at(&mut found, i * 8).unwrap();
            assert_eq!(u64::from_le_bytes(found), i);
            assert_eq!(reader.metadata().unwrap().len(), (i + 1) * 8);
        }
    });
}

#[test]
fn what_another_mount_cut_off_stays_cut_off_and_what_is_written_beyond_it_goes_where_it_should() {
    on_mounts(&BOTH, |m| {
        let mut here = open(m, 0, "file");
        here.write_all_at(&[b'x'; 100_000], 0).unwrap();
        let there = open(m, 1, "file");
        there.set_len(10).unwrap();
        // The rest of the page, and what the kernel here still took for a part of the file, must not come back.
        here.write_all_at(b"y", 5).unwrap();
        assert_eq!(here.metadata().unwrap().len(), 10);
        assert_eq!(fs::read(m.at(1, "file")).unwrap(), b"xxxxxyxxxx");
        there.set_len(5).unwrap();
        here.write_all_at(b"z", 50_000).unwrap();
        let expected = [&b"xxxxx"[..], &[0; 49_995], b"z"].concat();
        assert_eq!(fs::read(m.at(1, "file")).unwrap(), expected);
        let mut all = Vec::new();
        here.seek(SeekFrom::Start(0)).unwrap();
        here.read_to_end(&mut all).unwrap();
        assert!(all == expected, "{} bytes", all.len());
        there.set_len(3).unwrap();
        assert_eq!(here.metadata().unwrap().len(), 3);
        assert_eq!(here.seek(SeekFrom::End(0)).unwrap(), 3);
        there.write_all_at(b"longer", 3).unwrap();
        // While it looks for the end it cannot be told (rchfs/SEMANTICS.md), but in between.
        let ends: Vec<u64> = (0..5).map(|_| here.seek(SeekFrom::End(0)).unwrap()).collect();
        assert!(ends.iter().all(|end| [3, 9].contains(end)) && ends[4] == 9, "{ends:?}");
        there.write_all_at(b"longest", 3).unwrap();
        assert_eq!(here.metadata().unwrap().len(), 10);
        assert_eq!(here.seek(SeekFrom::End(0)).unwrap(), 10);
    });
}

#[test]
fn a_file_under_two_names_that_nobody_has_open_is_seen_as_long_as_it_is() {
    on_mounts(&BOTH, |m| {
        fs::write(m.at(0, "a"), b"first").unwrap();
        fs::hard_link(m.at(0, "a"), m.at(0, "b")).unwrap();
        for (i, len) in [70_000, 3, 0, 9000].into_iter().enumerate() {
            let (writer, reader) = (i % 2, 1 - i % 2);
            fs::write(m.at(writer, "a"), vec![b'0' + i as u8; len]).unwrap();
            for name in ["b", "a"] {
                assert_eq!(fs::metadata(m.at(reader, name)).unwrap().len(), len as u64);
                assert_eq!(fs::read(m.at(reader, name)).unwrap(), vec![b'0' + i as u8; len]);
            }
        }
    });
}

#[test]
fn what_was_only_listed_before_is_seen_as_long_as_it_is() {
    on_mounts(&BOTH, |m| {
        let here = open(m, 0, "file");
        for round in 1..5 {
            here.write_all_at(&[7; 1000], (round - 1) * 1000).unwrap();
            // The other has it for writing all the time, so this one has no lease on what it is told.
            assert_eq!(fs::read_dir(m.dir(1)).unwrap().count(), 1);
            here.write_all_at(&[7; 1000], round * 1000).unwrap();
            here.sync_all().unwrap();
            assert_eq!(fs::metadata(m.at(1, "file")).unwrap().len(), (round + 1) * 1000);
        }
    });
}

#[test]
fn a_time_that_the_kernel_has_kept_is_not_set_over_a_newer_one() {
    on_mounts(&BOTH, |m| {
        let here = open(m, 0, "file");
        here.write_all_at(b"written here", 0).unwrap();
        let there = open(m, 1, "file");
        there.write_all_at(b"W", 0).unwrap();
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let later = Timespec { tv_sec: 4_000_000_000, tv_nsec: 5 };
        futimens(&there, &Timestamps { last_access: omit, last_modification: later }).unwrap();
        // Now it tells the time of its own write.
        here.sync_all().unwrap();
        drop(here);
        for number in [1, 0, 1] {
            let found = fs::metadata(m.at(number, "file")).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (4_000_000_000, 5), "on mount {number}");
        }
        assert_eq!(fs::read(m.at(0, "file")).unwrap(), b"Written here");
    });
}

#[test]
fn both_show_the_time_of_the_last_write_once_it_is_closed() {
    on_mounts(&BOTH, |m| {
        let here = open(m, 0, "file");
        here.write_all_at(b"1", 0).unwrap();
        here.sync_all().unwrap();
        let time = here.metadata().unwrap();
        drop(here);
        let time = (time.mtime(), time.mtime_nsec());
        for number in [1, 0] {
            let found = fs::metadata(m.at(number, "file")).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), time, "on mount {number}");
        }
    });
}

#[test]
fn a_counter_under_a_lock_loses_no_count() {
    const EACH: u64 = 150;
    on_mounts(&BOTH, |m| {
        let m = &*m;
        scope(|scope| {
            for number in 0..2 {
                scope.spawn(move || {
                    let (lock, counter) = (open(m, number, "lock"), open(m, number, "counter"));
                    for _ in 0..EACH {
                        let with = |how| {
                            // SAFETY: takes a descriptor that is open, and no memory.
                            assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), how) }, 0);
                        };
                        with(libc::LOCK_EX);
                        let mut count = [0; 8];
                        let found = counter.read_at(&mut count, 0).unwrap();
                        assert!(found == 0 || found == 8, "{found} bytes");
                        let next = u64::from_le_bytes(count) + 1;
                        counter.write_all_at(&next.to_le_bytes(), 0).unwrap();
                        with(libc::LOCK_UN);
                    }
                });
            }
        });
        for number in 0..2 {
            assert_eq!(fs::read(m.at(number, "counter")).unwrap(), (2 * EACH).to_le_bytes());
        }
    });
}

#[test]
fn blocks_that_two_mounts_write_at_random_are_all_there() {
    const BLOCKS: u64 = 64;
    const BLOCK: usize = 1000;
    on_mounts(&BOTH, |m| {
        let m = &*m;
        // Each has every other block, so that they meet on every page.
        scope(|scope| {
            for number in 0..2_u64 {
                scope.spawn(move || {
                    let file = open(m, number as usize, "file");
                    for round in 1..6_u8 {
                        for block in (0..BLOCKS).filter(|block| block % 2 == number) {
                            file.write_all_at(&[round * 2 + number as u8; BLOCK], block * BLOCK as u64)
                                .unwrap();
                        }
                    }
                });
            }
        });
        for number in 0..2 {
            let found = fs::read(m.at(number, "file")).unwrap();
            assert_eq!(found.len(), BLOCKS as usize * BLOCK);
            for (block, bytes) in found.chunks(BLOCK).enumerate() {
                let expected = 10 + (block % 2) as u8;
                assert!(bytes.iter().all(|&byte| byte == expected), "block {block} of mount {number}");
            }
        }
    });
}

#[test]
fn what_was_collected_when_the_lease_was_lost_is_an_error_and_is_not_written_later() {
    on_mounts(&BOTH, |m| {
        let here = open(m, 0, "file");
        here.write_all_at(&[1; 100_000], 0).unwrap();
        here.sync_all().unwrap();
        here.write_all_at(&[2; 100_000], 0).unwrap();
        signal(m, 0, Signal::STOP);
        fs::write(m.at(1, "file"), vec![3; 50_000]).unwrap();
        signal(m, 0, Signal::CONT);
        let error = here.sync_all().expect_err("what it wrote is lost");
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::metadata(m.at(0, "file")).unwrap().len() != 50_000 {
            assert!(Instant::now() < deadline, "it stays as long as it was");
        }
        for number in [1, 0] {
            assert!(fs::read(m.at(number, "file")).unwrap() == vec![3; 50_000], "on mount {number}");
        }
    });
}

#[test]
fn a_mount_that_is_killed_takes_with_it_only_what_was_not_closed() {
    on_mounts(&BOTH, |m| {
        fs::write(m.at(0, "closed"), vec![7; 300_000]).unwrap();
        let mut synced = File::create(m.at(0, "synced")).unwrap();
        synced.write_all(&[8; 300_000]).unwrap();
        synced.sync_all().unwrap();
        let mut open = File::create(m.at(0, "open")).unwrap();
        open.write_all(&[9; 300_000]).unwrap();
        m.kill(0);
        drop((synced, open));
        assert_eq!(fs::read(m.at(1, "closed")).unwrap(), vec![7; 300_000]);
        assert_eq!(fs::read(m.at(1, "synced")).unwrap(), vec![8; 300_000]);
        let left = fs::read(m.at(1, "open")).unwrap();
        assert!(left.iter().all(|&byte| byte == 9 || byte == 0) && left.len() <= 300_000);
        fs::write(m.at(1, "open"), b"mine now").unwrap();
        assert_eq!(fs::read(m.at(1, "open")).unwrap(), b"mine now");
    });
}

#[test]
fn a_full_pool_is_said_and_what_was_synced_before_stays() {
    const PIECE: usize = 4 << 20;
    on_mounts(&BOTH, |m| {
        let mut file = File::create(m.at(0, "file")).unwrap();
        let mut pieces = 0_usize;
        let error = loop {
            match file.write_all(&vec![pieces as u8; PIECE]).and_then(|()| file.sync_all()) {
                Ok(()) => pieces += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
        drop(file);
        let found = fs::read(m.at(1, "file")).unwrap();
        assert!(pieces > 0 && found.len() >= pieces * PIECE, "{} bytes of {pieces} pieces", found.len());
        for (i, piece) in found.chunks(PIECE).take(pieces).enumerate() {
            assert!(piece.iter().all(|&byte| byte == i as u8), "piece {i}");
        }
    });
}

#[test]
fn what_fio_writes_verifies_on_the_mount_and_on_the_other() {
    on_mounts(&BOTH, |m| {
        let fio = |number: usize, more: &[&str]| {
            let mut fio =
                command("fio", ["--name=verify", "--rw=randwrite", "--size=24M", "--verify=crc32c"]);
            fio.args(["--verify_fatal=1", "--randseed=7", "--output-format=terse", "--ioengine=psync"]);
            fio.args(["--bs=4k", "--direct=0"]).args(more);
            ok(fio.arg(format!("--directory={}", m.dir(number).display())).current_dir(m.cluster_dir()));
        };
        fio(0, &["--do_verify=1"]);
        fio(1, &["--verify_only"]);
    });
}

#[test]
fn a_mount_that_writes_nothing_is_as_without_it() {
    on_mounts(&["", "ro,cache=writeback"], |m| {
        fs::write(m.at(0, "file"), b"one").unwrap();
        let file = File::open(m.at(1, "file")).unwrap();
        fs::write(m.at(0, "file"), b"three").unwrap();
        let mut found = [0; 5];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(&found, b"three");
    });
}
