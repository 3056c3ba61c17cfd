//! Open flags.

use e2e::rustix::fs::{Mode, OFlags, open};
use e2e::rustix::io::{Errno, pread, pwrite, read, write};
use e2e::user::{NOBODY, as_id};
use e2e::{assert_errno, on_fs, on_fs_as_root, pattern};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

fn try_open(path: &Path, flags: OFlags) -> e2e::rustix::io::Result<OwnedFd> {
    open(path, flags, Mode::from_raw_mode(0o644))
}

#[test]
fn o_creat_makes_a_file_once_and_o_excl_refuses_a_second() {
    on_fs("size=16M", |fs| {
        let path = fs.path("a");
        assert_errno(try_open(&path, OFlags::RDONLY), Errno::NOENT);
        let new = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        write(try_open(&path, new).unwrap(), b"one").unwrap();
        assert_errno(try_open(&path, new), Errno::EXIST);
        try_open(&path, OFlags::CREATE | OFlags::RDWR).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
    });
}

#[test]
fn o_excl_does_not_follow_a_dangling_link() {
    on_fs("size=16M", |fs| {
        symlink("nowhere", fs.path("link")).unwrap();
        let new = OFlags::CREATE | OFlags::WRONLY;
        assert_errno(try_open(&fs.path("link"), new | OFlags::EXCL), Errno::EXIST);
        try_open(&fs.path("link"), new).unwrap();
        assert!(fs.path("nowhere").exists());
    });
}

#[test]
fn o_trunc_empties_a_file_and_its_open_descriptors_see_it() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", &pattern(1, 100_000));
        try_open(&fs.path("a"), OFlags::WRONLY | OFlags::TRUNC).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0);
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        assert_eq!(pread(&file, &mut [0u8; 10], 0).unwrap(), 0);
    });
}

#[test]
fn o_append_writes_at_the_end_whatever_the_offset() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"start");
        let one = try_open(&fs.path("a"), OFlags::WRONLY | OFlags::APPEND).unwrap();
        let two = try_open(&fs.path("a"), OFlags::WRONLY | OFlags::APPEND).unwrap();
        write(&one, b"-one").unwrap();
        write(&two, b"-two").unwrap();
        // Linux appends even where POSIX says that the offset counts; pwrite(2), BUGS.
        pwrite(&one, b"-three", 0).unwrap();
        assert_eq!(fs::read(fs.path("a")).unwrap(), b"start-one-two-three");
    });
}

#[test]
fn two_appending_processes_lose_no_record() {
    on_fs("size=16M", |fs| {
        fs.file("log", b"");
        let path = fs.path("log").display().to_string();
        let mut actors: Vec<_> = (0..2).map(|_| e2e::Actor::start()).collect();
        for actor in &mut actors {
            actor.ok(&format!("append {path}"));
        }
        for round in 0..200 {
            for (byte, actor) in (b'a'..).zip(&mut actors) {
                actor.begin(&format!("write 0 {} {byte}", 10 + round % 7));
            }
            for actor in &mut actors {
                actor.end().unwrap();
            }
        }
        let log = fs::read(fs.path("log")).unwrap();
        let expected: usize = (0..200).map(|round| 10 + round % 7).sum();
        for byte in [b'a', b'b'] {
            assert_eq!(log.iter().filter(|b| **b == byte).count(), expected);
        }
    });
}

#[test]
fn access_mode_limits_what_a_descriptor_can_do() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"text");
        let reader = try_open(&fs.path("a"), OFlags::RDONLY).unwrap();
        assert_errno(write(&reader, b"x"), Errno::BADF);
        let writer = try_open(&fs.path("a"), OFlags::WRONLY).unwrap();
        assert_errno(read(&writer, &mut [0u8; 4]), Errno::BADF);
        let path_only = try_open(&fs.path("a"), OFlags::PATH).unwrap();
        assert_errno(read(&path_only, &mut [0u8; 4]), Errno::BADF);
        assert_eq!(e2e::rustix::fs::fstat(&path_only).unwrap().st_size, 4);
    });
}

#[test]
fn directories_open_only_for_reading() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fs.file("f", b"");
        assert_errno(try_open(&fs.path("d"), OFlags::WRONLY), Errno::ISDIR);
        assert_errno(try_open(&fs.path("d"), OFlags::RDWR), Errno::ISDIR);
        assert_errno(try_open(&fs.path("d"), OFlags::CREATE | OFlags::RDONLY), Errno::ISDIR);
        assert_errno(try_open(&fs.path("f"), OFlags::DIRECTORY | OFlags::RDONLY), Errno::NOTDIR);
        let dir = try_open(&fs.path("d"), OFlags::DIRECTORY | OFlags::RDONLY).unwrap();
        assert_errno(read(&dir, &mut [0u8; 4]), Errno::ISDIR);
        assert_errno(try_open(&fs.path("f/x"), OFlags::RDONLY), Errno::NOTDIR);
        assert_errno(try_open(&fs.path("f/"), OFlags::RDONLY), Errno::NOTDIR);
    });
}

#[test]
fn o_nofollow_refuses_a_link() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"");
        symlink("a", fs.path("link")).unwrap();
        assert_errno(try_open(&fs.path("link"), OFlags::RDONLY | OFlags::NOFOLLOW), Errno::LOOP);
        try_open(&fs.path("link"), OFlags::PATH | OFlags::NOFOLLOW).unwrap();
    });
}

#[test]
fn o_tmpfile_is_refused_as_the_file_system_has_none() {
    on_fs("size=16M", |fs| {
        let made = try_open(fs.dir(), OFlags::TMPFILE | OFlags::RDWR);
        if e2e::fixture::is_reference() {
            made.unwrap();
        } else {
            assert_errno(made, Errno::OPNOTSUPP);
        }
    });
}

#[test]
fn o_sync_and_o_dsync_writes_are_readable_elsewhere_at_once() {
    on_fs("size=16M", |fs| {
        for flag in [OFlags::SYNC, OFlags::DSYNC] {
            let path = fs.path("a");
            let file = try_open(&path, OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | flag).unwrap();
            let data = pattern(2, 70_001);
            assert_eq!(write(&file, &data).unwrap(), data.len());
            assert_eq!(fs::read(&path).unwrap(), data);
        }
    });
}

#[test]
fn o_trunc_empties_a_file_however_it_is_opened_but_not_the_one_that_a_program_runs_from() {
    on_fs("size=16M", |fs| {
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDONLY] {
            fs.file("a", b"text");
            try_open(&fs.path("a"), flags | OFlags::TRUNC).unwrap();
            assert_eq!(fs::read(fs.path("a")).unwrap(), b"", "{flags:?}");
        }
        let program = fs.path("program");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let len = fs::metadata(&program).unwrap().len();
        let mut running = std::process::Command::new(&program).arg("60").spawn().unwrap();
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::RDONLY] {
            assert_errno(try_open(&program, flags | OFlags::TRUNC), Errno::TXTBSY);
        }
        assert_eq!(fs::metadata(&program).unwrap().len(), len);
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(running.try_wait().unwrap(), None, "it goes on");
        running.kill().unwrap();
        running.wait().unwrap();
    });
}

#[test]
fn o_noatime_is_for_the_owner() {
    on_fs_as_root("size=16M", |fs| {
        let path = fs.path("a");
        fs.file("a", b"text");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        as_id(NOBODY, || assert_errno(try_open(&path, OFlags::RDONLY | OFlags::NOATIME), Errno::PERM));
        std::os::unix::fs::chown(&path, Some(NOBODY), None).unwrap();
        as_id(NOBODY, || try_open(&path, OFlags::RDONLY | OFlags::NOATIME).unwrap());
    });
}

#[test]
fn new_files_get_the_mode_less_the_umask() {
    on_fs("size=16M", |fs| {
        // The umask belongs to the process, so another one does it.
        e2e::run::ok(&mut e2e::run::script(
            fs.dir(),
            "umask 027; touch f; mkdir d; mkfifo p
             test $(stat -c %a f) = 640; test $(stat -c %a d) = 750; test $(stat -c %a p) = 640
             umask 000; touch g; test $(stat -c %a g) = 666",
        ));
    });
}

#[test]
fn a_new_file_without_write_permission_can_still_be_written_by_its_maker() {
    on_fs_as_root("size=16M", |fs| {
        let dir = fs.subdir("d", 0o777);
        as_id(NOBODY, || {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            let file = open(dir.join("a"), flags, Mode::empty()).unwrap();
            assert_eq!(write(&file, b"text").unwrap(), 4);
            assert_errno(try_open(&dir.join("a"), OFlags::RDONLY), Errno::ACCESS);
        });
    });
}
