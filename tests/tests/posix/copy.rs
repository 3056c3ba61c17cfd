//! copy_file_range, sendfile, splice: copies that the kernel makes or asks for.

use e2e::rustix::fs::{copy_file_range, sendfile};
use e2e::rustix::io::Errno;
use e2e::{assert_errno, on_fs, pattern};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

#[test]
fn copy_file_range_copies_between_files() {
    on_fs("size=64M", |fs| {
        let data = pattern(1, 3_000_000);
        let from = fs.file("a", &data);
        let to = fs.file("b", b"");
        let (mut read, mut written) = (1000, 50);
        while read < 2_900_000 {
            let want = 2_900_000 - read as usize;
            assert_ne!(copy_file_range(&from, Some(&mut read), &to, Some(&mut written), want).unwrap(), 0);
        }
        let got = fs::read(fs.path("b")).unwrap();
        assert!(got[..50] == [0; 50] && got[50..] == data[1000..2_900_000]);
    });
}

#[test]
fn copy_file_range_copies_within_a_file_but_not_onto_itself() {
    on_fs("size=16M", |fs| {
        let data = pattern(2, 100_000);
        let file = fs.file("a", &data);
        assert_eq!(copy_file_range(&file, Some(&mut 0), &file, Some(&mut 60_000), 30_000).unwrap(), 30_000);
        let mut got = vec![0; 30_000];
        file.read_exact_at(&mut got, 60_000).unwrap();
        assert!(got == data[..30_000]);
        let overlapping = copy_file_range(&file, Some(&mut 0), &file, Some(&mut 100), 1000);
        assert_errno(overlapping, Errno::INVAL);
    });
}

#[test]
fn copy_file_range_sees_what_is_still_in_the_cache_and_replaces_it() {
    on_fs("size=16M", |fs| {
        let (from, to) = (fs.file("a", b""), fs.file("b", b""));
        from.write_all_at(&pattern(3, 200_000), 0).unwrap();
        to.write_all_at(&pattern(4, 200_000), 0).unwrap();
        // Both have dirty pages now, and neither was closed or synced.
        let (mut read, mut written) = (10, 20);
        while read < 100_010 {
            let want = 100_010 - read as usize;
            copy_file_range(&from, Some(&mut read), &to, Some(&mut written), want).unwrap();
        }
        let mut model = pattern(4, 200_000);
        model[20..100_020].copy_from_slice(&pattern(3, 200_000)[10..100_010]);
        assert!(fs::read(fs.path("b")).unwrap() == model);
    });
}

#[test]
fn copy_file_range_stops_at_the_end_of_its_source() {
    on_fs("size=16M", |fs| {
        let (from, to) = (fs.file("a", b"0123456789"), fs.file("b", b""));
        assert_eq!(copy_file_range(&from, Some(&mut 6), &to, Some(&mut 0), 100).unwrap(), 4);
        assert_eq!(copy_file_range(&from, Some(&mut 10), &to, Some(&mut 0), 100).unwrap(), 0);
        assert_eq!(fs::read(fs.path("b")).unwrap(), b"6789");
    });
}

#[test]
fn copy_file_range_refuses_wrong_descriptors() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"text");
        let reader = File::open(fs.path("a")).unwrap();
        fs.file("b", b"text");
        let other = File::open(fs.path("b")).unwrap();
        assert_errno(copy_file_range(&reader, None, &other, None, 4), Errno::BADF);
        let dir = File::open(fs.dir()).unwrap();
        assert_errno(copy_file_range(&dir, None, &file, None, 4), Errno::ISDIR);
    });
}

#[test]
fn copy_file_range_works_to_and_from_another_file_system() {
    on_fs("size=16M", |fs| {
        let data = pattern(5, 100_000);
        let inside = fs.file("a", &data);
        fs::write(fs.outside("out"), b"").unwrap();
        let outside = File::options().read(true).write(true).open(fs.outside("out")).unwrap();
        match copy_file_range(&inside, None, &outside, None, data.len()) {
            // Linux refuses this between file systems of different types since 5.19.
            Err(errno) => assert_eq!(errno, Errno::XDEV),
            Ok(copied) => assert_ne!(copied, 0),
        }
        // cp falls back to read and write.
        let to = fs.path("back");
        e2e::run::ok(&mut e2e::run::command("cp", [fs.path("a"), fs.outside("out")]));
        e2e::run::ok(&mut e2e::run::command("cp", [fs.outside("out"), to.clone()]));
        assert!(fs::read(to).unwrap() == data);
    });
}

#[test]
fn sendfile_reads_and_writes() {
    on_fs("size=16M", |fs| {
        let data = pattern(6, 500_000);
        let (from, to) = (fs.file("a", &data), fs.file("b", b""));
        let mut offset = 0;
        while offset < data.len() as u64 {
            assert_ne!(sendfile(&to, &from, Some(&mut offset), data.len()).unwrap(), 0);
        }
        assert!(fs::read(fs.path("b")).unwrap() == data);
    });
}
