//! A full file system: who is told, and what comes back when files go.

use e2e::rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fsync, open};
use e2e::rustix::io::{Errno, Result, pwrite, write};
use e2e::{Fixture, assert_errno, fixture, on_fs, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits until exactly `blocks` blocks are free: releasing the last descriptor of a file is not waited
/// for by close(2) on a FUSE file system.
pub fn wait_until_free(fs: &Fixture, blocks: u64) {
    wait(|| fs.statfs().f_bfree, blocks, "free blocks");
}

/// As [`wait_until_free`], for inodes. (tmpfs gives names and inodes back late and counts otherwise.)
pub fn wait_until_inodes_free(fs: &Fixture, inodes: u64) {
    if !fixture::is_reference() {
        wait(|| fs.statfs().f_ffree, inodes, "free inodes");
    }
}

fn wait(figure: impl Fn() -> u64, expected: u64, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while figure() != expected {
        assert!(Instant::now() < deadline, "{} {what}, expected {expected}", figure());
        sleep(Duration::from_millis(5));
    }
}

/// Writes as dd does until something fails; returns the bytes accepted and the error, which must come
/// before four times the capacity is written, at a write or at last at the fsync.
fn fill(fs: &Fixture, file: &File) -> (u64, Errno) {
    let most = fs.statfs().f_blocks * fs.statfs().f_frsize * 4;
    let chunk = pattern(1, 64 << 10);
    let mut done = 0;
    while done < most {
        match write(file, &chunk) {
            Ok(count) => done += count as u64,
            Err(errno) => return (done, errno),
        }
    }
    match fsync(file) {
        Err(errno) => (done, errno),
        Ok(()) => panic!("{done} bytes were written and synced, four times what fits"),
    }
}

#[test]
fn a_buffered_writer_is_told_and_the_space_comes_back() {
    on_fs("size=16M", |fs| {
        let before = fs.statfs();
        let file = fs.file("big", b"");
        let (done, errno) = fill(fs, &file);
        assert_eq!(errno, Errno::NOSPC);
        assert!(done >= 14 << 20, "only {done} bytes of 16 MiB could be used");
        // What failed once is not reported forever: space freed is usable again.
        drop(file);
        fs::remove_file(fs.path("big")).unwrap();
        wait_until_free(fs, before.f_bfree);
        let file = fs.file("again", &pattern(2, 1 << 20));
        fsync(&file).unwrap();
        assert!(fs::read(fs.path("again")).unwrap() == pattern(2, 1 << 20));
    });
}

#[test]
fn what_was_synced_before_is_intact_when_full() {
    on_fs("size=16M", |fs| {
        let keep = fs.file("keep", &pattern(3, 3 << 20));
        fsync(&keep).unwrap();
        let (_, errno) = fill(fs, &fs.file("big", b""));
        assert_eq!(errno, Errno::NOSPC);
        assert!(fs::read(fs.path("keep")).unwrap() == pattern(3, 3 << 20));
        // Allocated data can still be overwritten, buffered and synced.
        keep.write_all_at(&pattern(4, 3 << 20), 0).unwrap();
        fsync(&keep).unwrap();
        assert!(fs::read(fs.path("keep")).unwrap() == pattern(4, 3 << 20));
        // Metadata that takes no page still works.
        fs::rename(fs.path("keep"), fs.path("kept")).unwrap();
        fs.subdir("d", 0o755);
        fs::remove_file(fs.path("big")).unwrap();
    });
}

#[test]
fn what_a_full_file_system_accepted_it_gives_back() {
    on_fs("size=16M", |fs| {
        let file = fs.file("big", b"");
        let chunk = pattern(1, 64 << 10);
        // Synced chunk by chunk, so that it is known which were kept.
        let mut kept = 0;
        let failed: Result<()> = loop {
            let step = pwrite(&file, &chunk, kept * chunk.len() as u64).and_then(|_| fsync(&file));
            match step {
                Ok(()) => kept += 1,
                Err(errno) => break Err(errno),
            }
            assert!(kept < 1024, "64 MiB fit in 16 MiB");
        };
        assert_errno(failed, Errno::NOSPC);
        let mut got = vec![0; chunk.len()];
        for i in 0..kept {
            file.read_exact_at(&mut got, i * chunk.len() as u64).unwrap();
            assert!(got == chunk, "chunk {i}");
        }
    });
}

#[test]
fn a_direct_writer_is_told_at_once() {
    on_fs("size=16M", |fs| {
        #[repr(align(4096))]
        struct Chunk([u8; 65_536]);
        let chunk = Box::new(Chunk([7; 65_536]));
        let before = fs.statfs().f_bfree;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT;
        let file = open(fs.path("big"), flags, Mode::from_raw_mode(0o600)).unwrap();
        let mut done = 0;
        let errno = loop {
            match pwrite(&file, &chunk.0, done) {
                Ok(count) => done += count as u64,
                Err(errno) => break errno,
            }
            assert!(done <= 16 << 20, "{done} bytes fit in 16 MiB");
        };
        assert_eq!(errno, Errno::NOSPC);
        assert!(done >= 14 << 20, "only {done} bytes fit");
        assert_eq!(e2e::rustix::fs::fstat(&file).unwrap().st_size as u64, done);
        drop(file);
        fs::remove_file(fs.path("big")).unwrap();
        wait_until_free(fs, before);
    });
}

#[test]
fn fallocate_beyond_the_capacity_fails_and_takes_nothing() {
    on_fs("size=16M", |fs| {
        let before = fs.statfs().f_bfree;
        let file = fs.file("a", b"");
        assert_errno(fallocate(&file, FallocateFlags::empty(), 0, 1 << 30), Errno::NOSPC);
        assert_eq!(file.metadata().unwrap().len(), 0);
        wait_until_free(fs, before);
    });
}

#[test]
fn reserved_space_can_be_written_when_everything_else_is_full() {
    on_fs("size=16M", |fs| {
        let reserved = fs.file("reserved", b"");
        fallocate(&reserved, FallocateFlags::empty(), 0, 4 << 20).unwrap();
        let (_, errno) = fill(fs, &fs.file("big", b""));
        assert_eq!(errno, Errno::NOSPC);
        reserved.write_all_at(&pattern(5, 4 << 20), 0).unwrap();
        fsync(&reserved).unwrap();
        assert!(fs::read(fs.path("reserved")).unwrap() == pattern(5, 4 << 20));
    });
}

#[test]
fn filling_and_emptying_again_and_again_leaks_nothing() {
    on_fs("size=8M", |fs| {
        let before = fs.statfs();
        for round in 0..5 {
            let dir = fs.subdir("d", 0o755);
            let mut written = 0;
            for i in 0.. {
                let size = 1000 + (i * 7919 + round * 31) % 200_000;
                let file = File::create_new(dir.join(i.to_string())).unwrap();
                if file.write_all_at(&pattern(i, size as usize), 0).and_then(|()| file.sync_all()).is_err() {
                    break;
                }
                written += size;
                assert!(written < 64 << 20, "64 MiB fit in 8 MiB");
            }
            assert!(written > 6 << 20, "round {round}: only {written} bytes fit");
            fs::remove_dir_all(&dir).unwrap();
            wait_until_free(fs, before.f_bfree);
            wait_until_inodes_free(fs, before.f_ffree);
        }
    });
}

#[test]
fn punching_and_truncating_make_room() {
    on_fs("size=16M,page_size=4K", |fs| {
        let file = fs.file("big", b"");
        // What is written back at once may go in any order: this has pages before there are none left.
        file.write_all_at(&pattern(1, 4 << 20), 0).unwrap();
        fsync(&file).unwrap();
        let (done, _) = fill(fs, &file);
        // What could not be written is given up at a sync, which says so once.
        let given_up = (0..3).any(|_| fsync(&file).is_ok());
        assert!(given_up, "an error is reported for ever");
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let full = fs.statfs();
        fallocate(&file, punch, 0, 4 << 20).unwrap();
        let room = (fs.statfs().f_bfree - full.f_bfree) * full.f_frsize;
        assert!(room >= 4 << 20, "{room} bytes after punching 4 MiB");
        fsync(fs.file("more", &pattern(6, 3 << 20))).unwrap();
        file.set_len(done / 2).unwrap();
        fsync(fs.file("most", &pattern(7, 3 << 20))).unwrap();
        assert!(fs::read(fs.path("more")).unwrap() == pattern(6, 3 << 20));
    });
}

#[test]
fn many_small_files_cost_their_pages_and_a_kilobyte_each() {
    if fixture::is_reference() {
        return fixture::skipped("the memory of tmpfs is the kernel's");
    }
    const FILES: u64 = 20_000;
    const SIZE: u64 = 1500;
    on_fs("size=128M,page_size=4K", |fs| {
        // The first files fill caches that do not grow any more afterwards.
        let warm_up = fs.subdir("warm", 0o755);
        for i in 0..1000 {
            fs::write(warm_up.join(i.to_string()), pattern(i, SIZE as usize)).unwrap();
        }
        let (before, anonymous) = (fs.statfs(), private_memory(fs));
        let dir = fs.subdir("d", 0o755);
        for i in 0..FILES {
            fs::write(dir.join(i.to_string()), pattern(i, SIZE as usize)).unwrap();
        }
        let after = fs.statfs();
        let pages = (before.f_bfree - after.f_bfree) * after.f_frsize;
        let other = private_memory(fs).saturating_sub(anonymous);
        println!("{FILES} files of {SIZE} bytes: {pages} bytes of pages, {other} of other memory");
        assert!(pages + other <= FILES * (4096 + 1024), "{} bytes a file", (pages + other) / FILES);
        assert!(pages >= FILES * SIZE);
    });
}

/// Bytes of memory that the mount's process has to itself: all but the pages of the pool, which are in a
/// shared mapping.
fn private_memory(fs: &Fixture) -> u64 {
    let pid = fs.mount().expect("rchfs").pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
