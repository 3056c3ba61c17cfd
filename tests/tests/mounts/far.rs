//! Mounts on hosts that cannot map their rack's memory (`cxl=none`), beside mounts that can. The regions are not at
//! their places while such a mount is started; other suites of this file's neighbours have it among their mounts too.

use crate::{Hidden, LONG, Mounts, on_mounts, tool, until};
use e2e::binary::workspace;
use e2e::run::{command, ok};
use e2e::rustix::fs::{FlockOperation, flock};
use e2e::{Mount, Rng};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

fn contents(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..len).map(|_| rng.below(256) as u8).collect()
}

#[test]
fn what_cannot_be_mapped_is_an_error_that_says_cxl_none() {
    on_mounts(&[""], |m| {
        let region = m.cluster().region(0);
        let _hidden = Hidden::new(region);
        let dir = m.cluster_dir().join("none");
        fs::create_dir(&dir).unwrap();
        let (master, log) = (m.cluster().master().to_owned(), m.cluster_dir().join("none.log"));
        let failed = Mount::start_from(&master, &dir, "rack=0", &log).expect_err("there is no region");
        assert_eq!(failed.status.code(), Some(32), "{}", failed.message);
        assert!(failed.message.contains("cxl=none"), "{}", failed.message);
        let mount = Mount::start_from(&master, &dir, "rack=0,cxl=none", &log).expect("it needs no region");
        fs::write(dir.join("file"), b"by the daemon").unwrap();
        assert_eq!(fs::read(m.at(0, "file")).unwrap(), b"by the daemon");
        let mapped = fs::read_to_string(format!("/proc/{}/maps", mount.pid())).unwrap();
        assert!(!mapped.contains("rchfs-e2e."), "it has mapped the region after all:\n{mapped}");
        until("the daemon says that it is there", || m.cluster().counts("clients_without_cxl") == [1, 0]);
        assert!(mount.unmount().success());
        until("the daemon says that it has gone", || m.cluster().counts("clients_without_cxl") == [0, 0]);
    });
}

/// Each in turn does what the other then sees.
fn turns(m: &mut Mounts) {
    for (one, other) in [(0, 1), (1, 0)] {
        let name = format!("file{one}");
        let big = contents(one as u64, 3_000_000);
        fs::write(m.at(one, &name), &big).unwrap();
        assert!(fs::read(m.at(other, &name)).unwrap() == big, "what {one} wrote");
        fs::rename(m.at(other, &name), m.at(other, "renamed")).unwrap();
        assert!(!m.at(one, &name).exists());
        let mut file = OpenOptions::new().append(true).open(m.at(one, "renamed")).unwrap();
        file.write_all(b"appended").unwrap();
        drop(file);
        assert_eq!(fs::metadata(m.at(other, "renamed")).unwrap().len(), 3_000_008);
        let file = OpenOptions::new().read(true).write(true).open(m.at(other, "renamed")).unwrap();
        file.set_len(1_234_567).unwrap();
        file.write_all_at(b"past the end", 2_000_000).unwrap();
        file.sync_all().unwrap();
        let mut expected = big[..1_234_567].to_vec();
        expected.resize(2_000_000, 0);
        expected.extend(b"past the end");
        assert!(fs::read(m.at(one, "renamed")).unwrap() == expected, "what {other} cut and wrote");
        let mut open = File::open(m.at(one, "renamed")).unwrap();
        fs::remove_file(m.at(other, "renamed")).unwrap();
        assert!(!m.at(one, "renamed").exists());
        let mut found = Vec::new();
        open.seek(SeekFrom::Start(0)).unwrap();
        open.read_to_end(&mut found).unwrap();
        assert!(found == expected, "it is unlinked, and still open");
        let (mine, theirs) =
            (File::create(m.at(one, "lock")).unwrap(), File::open(m.at(other, "lock")).unwrap());
        flock(&mine, FlockOperation::LockExclusive).unwrap();
        assert!(flock(&theirs, FlockOperation::NonBlockingLockShared).is_err(), "it is locked");
        drop(mine);
        until("the lock is free", || flock(&theirs, FlockOperation::NonBlockingLockShared).is_ok());
    }
}

#[test]
fn a_mount_without_cxl_and_one_with_it_see_what_the_other_does() {
    on_mounts(&["", "cxl=none"], turns);
}

#[test]
fn two_mounts_without_cxl_in_two_racks_see_what_the_other_does() {
    on_mounts(&["cxl=none", "cxl=none,cache=none"], turns);
}

#[test]
fn records_appended_with_and_without_cxl_are_neither_lost_nor_mixed() {
    on_mounts(&["", "cxl=none", "cxl=none"], |m| {
        const RECORDS: usize = 150;
        File::create(m.at(0, "log")).unwrap();
        let m = &*m;
        scope(|scope| {
            for mount in 0..3 {
                scope.spawn(move || {
                    let mut log = OpenOptions::new().append(true).open(m.at(mount, "log")).unwrap();
                    for i in 0..RECORDS {
                        log.write_all(format!("{mount} {i:05} {}\n", "x".repeat(100)).as_bytes()).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(m.at(1, "log")).unwrap();
        for mount in 0..3 {
            let of: Vec<_> = text.lines().filter(|line| line.starts_with(&format!("{mount} "))).collect();
            assert_eq!(of.len(), RECORDS, "of mount {mount}");
            assert!(
                of.iter().enumerate().all(|(i, line)| line.len() == 108 && line[2..7] == format!("{i:05}"))
            );
        }
    });
}

#[test]
fn one_file_is_used_by_fsx_from_a_mount_with_and_one_without_cxl_under_a_lock() {
    on_mounts(&["", "cxl=none"], |m| {
        let (m, conf) = (&*m, workspace().join("tests/conformance/fsx-plain.toml"));
        let conf = &conf;
        scope(|scope| {
            for mount in 0..2_usize {
                scope.spawn(move || {
                    for turn in 0..4_u32 {
                        let seed = (turn * 2 + mount as u32).to_string();
                        let mut locked = command("flock", [m.at(mount, "lock")]);
                        locked.arg(tool("fsx").get_program()).args(["-q", "-f"]).arg(conf);
                        locked.arg("-P").arg(m.cluster_dir()).args(["-S", &seed, "-N", "400"]);
                        ok(locked.arg(m.at(mount, "file")));
                    }
                });
            }
        });
        assert_eq!(fs::read(m.at(0, "file")).unwrap(), fs::read(m.at(1, "file")).unwrap());
    });
}

#[test]
fn what_fio_writes_without_cxl_verifies() {
    on_mounts(&["", "cxl=none"], |m| {
        for options in
            [["--bs=4k", "--direct=0"], ["--bsrange=512-1m", "--direct=0"], ["--bs=64k", "--direct=1"]]
        {
            let mut fio =
                command("fio", ["--name=verify", "--rw=randwrite", "--size=24M", "--verify=crc32c"]);
            fio.args(["--verify_fatal=1", "--do_verify=1", "--randrepeat=0", "--output-format=terse"]);
            fio.args(["--bs_unaligned=0", "--ioengine=psync"]).args(options);
            ok(fio.arg(format!("--directory={}", m.dir(1).display())).current_dir(m.cluster_dir()));
        }
    });
}

#[test]
fn pjdfstest_passes_without_cxl() {
    on_mounts(&["cxl=none"], |m| {
        let mut pjdfstest = tool("pjdfstest");
        pjdfstest.arg("-c").arg(workspace().join("tests/conformance/pjdfstest.toml"));
        let said = ok(pjdfstest.arg("-p").arg(m.dir(0)).arg("-s").arg("/dev/shm"));
        println!("{}", said.lines().find(|line| line.starts_with("Summary:")).unwrap_or_default());
    });
}

#[test]
fn what_a_mount_without_cxl_held_when_it_was_killed_returns() {
    on_mounts(&["", "cxl=none"], |m| {
        let free = |m: &mut Mounts| m.cluster().counts("pages_free").iter().sum::<u64>();
        until("racks are heard of", || free(m) > 0);
        let before = free(m);
        fs::write(m.at(1, "kept"), vec![1; 100_000]).unwrap();
        fs::write(m.at(0, "of the other"), vec![1; 100_000]).unwrap();
        // Taken and told to nobody, or just about to be.
        let mut open = File::create(m.at(1, "open")).unwrap();
        open.write_all(&contents(1, 5_000_000)).unwrap();
        m.kill(1);
        drop(open);
        assert_eq!(fs::read(m.at(0, "kept")).unwrap(), vec![1; 100_000]);
        for name in ["kept", "open", "of the other"] {
            fs::remove_file(m.at(0, name)).unwrap();
        }
        until("the daemon says that it has gone", || m.cluster().counts("clients_without_cxl") == [0, 0]);
        m.end(0);
        until("all pages are free again", || free(m) == before);
    });
}

/// For how long a mount tries again; less, since a daemon is not ready at once when the master knows it.
const PATIENCE: Duration = Duration::from_secs(12);

/// Its daemon is killed and started again while the mount writes, reads and makes files: nothing fails, all is kept.
#[test]
fn a_mount_without_cxl_goes_on_when_its_daemon_is_killed_and_started_again_under_load() {
    on_mounts(&["", "cxl=none,cache=none"], |m| {
        let over = AtomicBool::new(false);
        let (dir, over) = (m.dir(1).to_path_buf(), &over);
        let (made, slowest) = scope(|scope| {
            let load = scope.spawn(move || {
                let mut how = OpenOptions::new();
                how.read(true).write(true).create(true).truncate(false);
                let big = how.open(dir.join("big")).unwrap();
                let (mut made, mut failed) = (Vec::new(), Vec::new());
                for number in 0.. {
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                    let (data, at) = (contents(number, 70_000), number % 40 * 70_000);
                    let mut found = vec![0; 70_000];
                    let done = fs::write(dir.join(format!("f{number}")), &data)
                        .and_then(|()| big.write_all_at(&data, at))
                        .and_then(|()| big.read_exact_at(&mut found, at));
                    match done {
                        Ok(()) => {
                            assert!(found == data, "after {number}");
                            made.push(number);
                        }
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (made, failed)
            });
            let mut slowest = Duration::ZERO;
            for _ in 0..2 {
                sleep(Duration::from_secs(1));
                let begun = Instant::now();
                m.cluster().restart_daemon(1);
                slowest = slowest.max(begun.elapsed());
            }
            sleep(Duration::from_secs(1));
            over.store(true, Ordering::Release);
            let (made, failed) = load.join().expect("what is read is right");
            assert!(failed.is_empty() || slowest > PATIENCE, "{failed:?}, of {}", made.len());
            (made, slowest)
        });
        println!("{} files; the daemon was away for up to {slowest:?}", made.len());
        assert!(made.len() > 20, "only {} files were made", made.len());
        for number in made {
            let found = fs::read(m.at(0, &format!("f{number}"))).unwrap();
            assert!(found == contents(number, 70_000), "file {number}");
        }
    });
}

#[test]
fn a_daemon_that_is_gone_is_an_error_and_no_hang() {
    on_mounts(&["", "cxl=none"], |m| {
        fs::write(m.at(1, "file"), vec![5; 200_000]).unwrap();
        let file = File::open(m.at(1, "file")).unwrap();
        file.sync_all().unwrap();
        e2e::rustix::fs::fadvise(&file, 0, None, e2e::rustix::fs::Advice::DontNeed).unwrap();
        m.cluster().kill_daemon(1);
        let begun = Instant::now();
        let mut found = vec![0; 200_000];
        let failed = file.read_exact_at(&mut found, 0).expect_err("nobody has the data");
        assert_eq!(failed.raw_os_error(), Some(libc::EIO));
        assert!(begun.elapsed() < LONG + LONG, "it took {:?}", begun.elapsed());
        m.cluster().restart_daemon(1);
        until("it is read again", || file.read_exact_at(&mut found, 0).is_ok());
        assert_eq!(found, vec![5; 200_000]);
    });
}
