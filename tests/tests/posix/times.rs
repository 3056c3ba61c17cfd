//! Access, modification, change and birth times.

use e2e::rustix::fs::{
    AtFlags, CWD, Mode, OFlags, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens, open,
    statx, utimensat,
};
use e2e::rustix::io::Errno;
use e2e::user::{NOBODY, as_id};
use e2e::{Fixture, assert_errno, on_fs, on_fs_as_root};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

type Time = (i64, i64);

fn at(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec: tv_nsec as _ }
}

fn set(fs: &Fixture, name: &str, atime: Timespec, mtime: Timespec) -> e2e::rustix::io::Result<()> {
    let times = Timestamps { last_access: atime, last_modification: mtime };
    utimensat(CWD, fs.path(name), &times, AtFlags::SYMLINK_NOFOLLOW)
}

fn times(fs: &Fixture, name: &str) -> [Time; 3] {
    let meta = fs::symlink_metadata(fs.path(name)).unwrap();
    [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())]
}

fn now() -> Time {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (now.as_secs() as i64, i64::from(now.subsec_nanos()))
}

fn nap() {
    sleep(Duration::from_millis(20));
}

#[test]
fn times_are_kept_to_the_nanosecond_far_and_negative() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let far = [(0, 0), (1, 999_999_999), (-1, 1), (-86_400 * 365 * 60, 5), (1 << 33, 123_456_789)];
        for (sec, nsec) in far {
            set(fs, "a", at(sec, nsec), at(sec + 1, nsec)).unwrap();
            assert_eq!(times(fs, "a")[..2], [(sec, nsec), (sec + 1, nsec)]);
        }
    });
}

#[test]
fn set_times_survive_writeback_and_reopening() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        file.write_all_at(b"dirty", 0).unwrap();
        let old = Timestamps { last_access: at(1000, 1), last_modification: at(2000, 2) };
        futimens(&file, &old).unwrap();
        assert_eq!(times(fs, "a")[..2], [(1000, 1), (2000, 2)]);
        file.sync_all().unwrap();
        drop(file);
        assert_eq!(times(fs, "a")[..2], [(1000, 1), (2000, 2)]);
    });
}

#[test]
fn now_and_omit_do_what_they_say() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        set(fs, "a", at(1000, 1), at(2000, 2)).unwrap();
        set(fs, "a", at(0, UTIME_OMIT), at(3000, 3)).unwrap();
        assert_eq!(times(fs, "a")[..2], [(1000, 1), (3000, 3)]);
        nap();
        let before = now();
        nap();
        set(fs, "a", at(0, UTIME_NOW), at(0, UTIME_OMIT)).unwrap();
        let [atime, mtime, ctime] = times(fs, "a");
        assert!(atime > before && atime <= now() && ctime > before);
        assert_eq!(mtime, (3000, 3));
        let unchanged = times(fs, "a");
        set(fs, "a", at(0, UTIME_OMIT), at(0, UTIME_OMIT)).unwrap();
        assert_eq!(times(fs, "a"), unchanged);
        assert_errno(set(fs, "a", at(0, 1_000_000_000), at(0, 0)), Errno::INVAL);
    });
}

#[test]
fn links_and_directories_have_times_of_their_own() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        symlink("a", fs.path("l")).unwrap();
        fs.subdir("d", 0o755);
        for name in ["l", "d"] {
            set(fs, name, at(1000, 1), at(2000, 2)).unwrap();
            assert_eq!(times(fs, name)[..2], [(1000, 1), (2000, 2)], "{name}");
        }
        assert!(times(fs, "a")[1].0 > 1_000_000);
    });
}

#[test]
fn writing_and_truncating_change_mtime_and_ctime() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"text");
        let mut last = times(fs, "a");
        let mut changed = |what: &str| {
            let new = times(fs, "a");
            assert!(new[1] > last[1], "mtime after {what}");
            assert!(new[2] > last[2], "ctime after {what}");
            last = new;
            nap();
        };
        nap();
        file.write_all_at(b"x", 0).unwrap();
        changed("write");
        file.set_len(1).unwrap();
        changed("truncate");
        drop(File::create(fs.path("a")).unwrap());
        changed("O_TRUNC");
        e2e::rustix::fs::fallocate(&file, e2e::rustix::fs::FallocateFlags::empty(), 0, 5000).unwrap();
        changed("fallocate");
    });
}

#[test]
fn direct_writes_change_mtime_and_ctime() {
    on_fs("size=16M", |fs| {
        #[repr(align(4096))]
        struct Page([u8; 4096]);
        fs.file("a", b"text");
        let flags = OFlags::WRONLY | OFlags::DIRECT;
        let file: File = open(fs.path("a"), flags, Mode::empty()).unwrap().into();
        for at in [0, 4096, 0] {
            let last = times(fs, "a");
            nap();
            file.write_all_at(&Page([1; 4096]).0, at).unwrap();
            // The kernel learns of it a moment after somebody looked.
            let moved = || times(fs, "a")[1] > last[1];
            (0..1000).take_while(|_| !moved()).for_each(|_| nap());
            let new = times(fs, "a");
            assert!(new[1] > last[1] && new[2] > last[2], "a write at {at}: {last:?}, then {new:?}");
        }
    });
}

#[test]
fn a_time_once_seen_does_not_change_when_the_data_reaches_the_pool() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        file.write_all_at(b"dirty", 0).unwrap();
        let seen = times(fs, "a");
        nap();
        file.sync_all().unwrap();
        assert_eq!(times(fs, "a")[1], seen[1]);
        drop(file);
        assert_eq!(times(fs, "a")[1], seen[1]);
    });
}

/// Reads past the kernel's cache: a read that the cache answers is not seen by the file system.
fn read_uncached(fs: &Fixture, name: &str) {
    #[repr(align(4096))]
    struct Page([u8; 4096]);
    let file: File = open(fs.path(name), OFlags::RDONLY | OFlags::DIRECT, Mode::empty()).unwrap().into();
    file.read_at(&mut Page([0; 4096]).0, 0).unwrap();
}

#[test]
fn relatime_moves_an_access_time_that_is_not_after_the_modification() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"text");
        // Older than the modification: moved by a read.
        let recent = now().0 - 1000;
        set(fs, "a", at(recent, 0), at(recent + 10, 0)).unwrap();
        read_uncached(fs, "a");
        let moved = times(fs, "a")[0];
        assert!(moved.0 > recent + 10, "{moved:?}");
        // Newer than both: stays. (chmod moves the change time, so it is set by setting the times.)
        nap();
        read_uncached(fs, "a");
        assert_eq!(times(fs, "a")[0], moved);
    });
}

#[test]
fn the_birth_time_is_the_creation_and_stays() {
    on_fs("size=16M", |fs| {
        let before = now();
        nap();
        fs.file("a", b"");
        nap();
        fs.file("a", b"changed");
        set(fs, "a", at(5, 5), at(5, 5)).unwrap();
        let stat = statx(CWD, fs.path("a"), AtFlags::empty(), StatxFlags::BTIME).unwrap();
        if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
            // FUSE tells it only to a file system that implements statx.
            return e2e::fixture::skipped("the file system does not report birth times");
        }
        let birth = (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec));
        assert!(birth > before && birth < times(fs, "a")[2]);
    });
}

#[test]
fn strangers_set_times_only_to_now_and_only_with_write_permission() {
    on_fs_as_root("size=16M", |fs| {
        let file = fs.file("a", b"");
        let mode = |bits| file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
        let present = at(0, UTIME_NOW);
        mode(0o644);
        as_id(NOBODY, || {
            assert_errno(set(fs, "a", at(1, 1), at(1, 1)), Errno::PERM);
            assert_errno(set(fs, "a", present, present), Errno::ACCESS);
        });
        mode(0o666);
        as_id(NOBODY, || {
            assert_errno(set(fs, "a", at(1, 1), at(1, 1)), Errno::PERM);
            set(fs, "a", present, present).unwrap();
        });
    });
}
