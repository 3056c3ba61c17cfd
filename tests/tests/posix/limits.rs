//! The limits of names, links, sizes and processes, and the errors beyond them.

use e2e::rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ftruncate, open};
use e2e::rustix::io::{Errno, pwrite};
use e2e::{Actor, assert_errno, assert_os_error, fixture, on_fs, pattern};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;

#[test]
fn names_have_up_to_255_bytes() {
    on_fs("size=16M", |fs| {
        let (most, over) = ("n".repeat(255), "n".repeat(256));
        fs.file(&most, b"x");
        assert_eq!(fs::read(fs.path(&most)).unwrap(), b"x");
        assert_os_error(fs::write(fs.path(&over), b""), Errno::NAMETOOLONG);
        assert_os_error(fs::create_dir(fs.path(&over)), Errno::NAMETOOLONG);
        assert_os_error(symlink("x", fs.path(&over)), Errno::NAMETOOLONG);
        assert_os_error(fs::hard_link(fs.path(&most), fs.path(&over)), Errno::NAMETOOLONG);
        assert_os_error(fs::rename(fs.path(&most), fs.path(&over)), Errno::NAMETOOLONG);
        assert_os_error(fs::metadata(fs.path(&over)), Errno::NAMETOOLONG);
        assert_os_error(fs::remove_file(fs.path(&over)), Errno::NAMETOOLONG);
        assert_eq!(fs.statfs().f_namemax, 255);
    });
}

#[test]
fn paths_have_up_to_4095_bytes_and_link_targets_too() {
    on_fs("size=16M", |fs| {
        let long = "x/".repeat(2500);
        assert_os_error(fs::metadata(fs.path(&long)), Errno::NAMETOOLONG);
        assert_os_error(symlink(&long, fs.path("l")), Errno::NAMETOOLONG);
        assert_os_error(symlink("", fs.path("l")), Errno::NOENT);
    });
}

#[test]
fn names_are_any_bytes_but_slash_and_zero() {
    on_fs("size=16M", |fs| {
        let names: Vec<Vec<u8>> = (1..=255u8).filter(|b| *b != b'/').map(|b| vec![b'n', b, b]).collect();
        for name in &names {
            fs::write(fs.dir().join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
        }
        let mut listed = vec![];
        for entry in fs::read_dir(fs.dir()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(fs::read(entry.path()).unwrap(), entry.file_name().as_bytes());
            listed.push(entry.file_name().as_bytes().to_vec());
        }
        listed.sort();
        assert_eq!(listed, names);
        // Names that differ in case only, or in normal form only, are different names.
        fs.file("Å", b"1");
        fs.file("A\u{30a}", b"2");
        fs.file("å", b"3");
        assert_eq!(fs::read(fs.path("Å")).unwrap(), b"1");
    });
}

#[test]
fn a_file_can_have_many_links_and_emlink_ends_them_if_anything() {
    on_fs("size=64M", |fs| {
        fs.file("a", b"");
        fs.subdir("d", 0o755);
        for i in 0..70_000u32 {
            match fs::hard_link(fs.path("a"), fs.path(&format!("d/{i}"))) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(Errno::MLINK.raw_os_error()), "{error}");
                    assert!(i >= 31_999, "only {i} links");
                    break;
                }
            }
        }
        let links = fs::read_dir(fs.path("d")).unwrap().count() as u64;
        assert_eq!(fs::metadata(fs.path("a")).unwrap().nlink(), links + 1);
    });
}

#[test]
fn sizes_reach_2_to_the_63_less_one() {
    on_fs("size=16M,page_size=4K", |fs| {
        let most = i64::MAX as u64;
        let file = fs.file("a", b"");
        file.set_len(most).unwrap();
        assert_eq!(file.metadata().unwrap().len(), most);
        assert_errno(ftruncate(&file, most + 1), Errno::INVAL);
        let mut byte = [1];
        file.read_exact_at(&mut byte, most - 1).unwrap();
        assert_eq!(byte, [0]);
        file.set_len(0).unwrap();
        let last = most - 1;
        file.write_all_at(b"z", last).unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.metadata().unwrap().len(), last + 1);
        file.read_exact_at(&mut byte, last).unwrap();
        assert_eq!(byte, *b"z");
        drop(file);
        assert_eq!(fs::metadata(fs.path("a")).unwrap().blocks(), 8);
        fs::OpenOptions::new().write(true).open(fs.path("a")).unwrap().set_len(1).unwrap();
        assert_eq!(fs::metadata(fs.path("a")).unwrap().blocks(), 0);
    });
}

#[test]
fn ranges_that_end_beyond_the_largest_offset_are_refused() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let most = i64::MAX as u64;
        assert_errno(fallocate(&file, FallocateFlags::empty(), most - 10, 100), Errno::FBIG);
        assert_errno(pwrite(&file, b"xy", most - 1), Errno::INVAL);
        assert_errno(pwrite(&file, b"x", most + 1), Errno::INVAL);
        assert_eq!(file.metadata().unwrap().len(), 0);
    });
}

#[test]
fn the_limit_of_the_process_on_file_sizes_is_efbig_and_a_signal() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        let mut actor = Actor::with_file(&fs.path("a"));
        actor.ok("ignore-xfsz");
        actor.ok("fsize 10000");
        assert_eq!(actor.ok("write 0 10000 1"), "10000");
        assert_eq!(actor.tell("write 10000 1 1"), Err(Errno::FBIG.raw_os_error()));
        assert_eq!(actor.ok("write 9990 100 1"), "10");
        assert_eq!(fs::metadata(fs.path("a")).unwrap().len(), 10_000);

        let mut actor = Actor::with_file(&fs.path("a"));
        actor.ok("fsize 10000");
        actor.begin("write 10000 1 1");
        assert_eq!(actor.ended().signal(), Some(25));
    });
}

#[test]
fn many_descriptors_can_be_open_at_once() {
    on_fs("size=16M", |fs| {
        let limit = e2e::rustix::process::getrlimit(e2e::rustix::process::Resource::Nofile);
        let count = limit.current.unwrap_or(4096).min(4096) / 2;
        let files: Vec<_> = (0..count).map(|i| fs.file(&i.to_string(), &pattern(i, 100))).collect();
        for (i, file) in files.iter().enumerate() {
            let mut got = [0; 100];
            file.read_exact_at(&mut got, 0).unwrap();
            assert_eq!(got[..], pattern(i as u64, 100));
        }
    });
}

#[test]
fn the_number_of_inodes_is_limited_and_comes_back() {
    if fixture::is_reference() {
        return fixture::skipped("tmpfs counts inodes by memory");
    }
    on_fs("size=4M", |fs| {
        let before = fs.statfs();
        assert!(before.f_files > 0 && before.f_ffree > 0);
        // Empty files cost no page, so their number must have a limit of its own.
        let dir = fs.subdir("d", 0o755);
        let mut made = 0u64;
        let error = loop {
            match fs::File::create_new(dir.join(made.to_string())) {
                Ok(_) => made += 1,
                Err(error) => break error,
            }
            assert!(made <= before.f_ffree, "{made} files where {} fit", before.f_ffree);
        };
        assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()), "{error}");
        assert_eq!(fs.statfs().f_ffree, 0);
        assert_os_error(fs::create_dir(fs.path("e")), Errno::NOSPC);
        assert_os_error(symlink("x", fs.path("e")), Errno::NOSPC);
        fs::remove_dir_all(&dir).unwrap();
        super::space::wait_until_inodes_free(fs, before.f_ffree);
    });
}

#[test]
fn trailing_slashes_and_dots_are_understood() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fs.file("d/f", b"x");
        assert_eq!(fs::read(fs.path("d/./../d//f")).unwrap(), b"x");
        assert_os_error(fs::metadata(fs.path("d/f/.")), Errno::NOTDIR);
        open(fs.path("d/"), OFlags::RDONLY, Mode::empty()).unwrap();
        fs::create_dir(fs.path("e/")).unwrap();
        assert_os_error(fs::remove_file(fs.path("d/f/")), Errno::NOTDIR);
    });
}
