//! Reading and writing through descriptors: buffered, direct, vectored, after unlink.

use e2e::rustix::fs::{Mode, OFlags, fsync, open};
use e2e::rustix::io::{Errno, pread, pwrite};
use e2e::{Rng, assert_errno, on_fs, pattern};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Memory aligned as O_DIRECT asks.
#[repr(align(4096))]
struct Aligned([u8; 16384]);

fn direct(path: &Path) -> File {
    open(path, OFlags::RDWR | OFlags::DIRECT, Mode::empty()).unwrap().into()
}

#[test]
fn what_is_written_is_read_back_at_every_alignment() {
    on_fs("size=64M", |fs| {
        let file = fs.file("a", b"");
        let mut model = vec![0u8; 300_000];
        let mut rng = Rng::new(7);
        for i in 0..400 {
            let at = rng.below(280_000) as usize;
            let data = pattern(i, rng.below(20_000) as usize);
            file.write_all_at(&data, at as u64).unwrap();
            model[at..at + data.len()].copy_from_slice(&data);
        }
        let size = file.metadata().unwrap().len() as usize;
        let mut got = vec![0; size];
        file.read_exact_at(&mut got, 0).unwrap();
        assert!(got == model[..size]);
        assert!(model[size..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn direct_and_buffered_descriptors_see_each_others_writes() {
    on_fs("size=64M", |fs| {
        let buffered = fs.file("a", &pattern(1, 65_536));
        let direct = direct(&fs.path("a"));
        let mut model = pattern(1, 65_536);
        let mut rng = Rng::new(8);
        let mut buffer = Box::new(Aligned([0; 16384]));
        for i in 0..300 {
            let at = rng.below(12) as usize * 4096;
            let data = pattern(1000 + i, 16_384);
            let (start, new) = if rng.one_in(2) {
                buffer.0.copy_from_slice(&data);
                assert_eq!(direct.write_at(&buffer.0, at as u64).unwrap(), 16_384);
                (at, &data[..])
            } else {
                assert_eq!(buffered.write_at(&data[..10_000], at as u64 + 17).unwrap(), 10_000);
                (at + 17, &data[..10_000])
            };
            model[start..start + new.len()].copy_from_slice(new);

            let at = rng.below(12) as usize * 4096;
            assert_eq!(direct.read_at(&mut buffer.0, at as u64).unwrap(), 16_384);
            assert!(buffer.0[..] == model[at..at + 16_384], "direct read, round {i}");
            let mut seen = vec![0; 16_384];
            buffered.read_exact_at(&mut seen, at as u64).unwrap();
            assert!(seen[..] == model[at..at + 16_384], "buffered read, round {i}");
        }
    });
}

#[test]
fn direct_writes_extend_a_file_and_direct_reads_stop_at_its_end() {
    on_fs("size=64M", |fs| {
        fs.file("a", b"");
        let file = direct(&fs.path("a"));
        let mut buffer = Box::new(Aligned([5; 16384]));
        assert_eq!(file.write_at(&buffer.0, 8192).unwrap(), 16_384);
        assert_eq!(file.metadata().unwrap().len(), 24_576);
        fs::File::options().append(true).open(fs.path("a")).unwrap().write_all(b"tail").unwrap();
        assert_eq!(file.read_at(&mut buffer.0, 20_480).unwrap(), 4100);
        assert_eq!(&buffer.0[4096..4100], b"tail");
        assert_eq!(file.read_at(&mut buffer.0, 1 << 20).unwrap(), 0);
    });
}

#[test]
fn unlinked_open_file_keeps_its_contents_until_last_close() {
    on_fs("size=16M", |fs| {
        let before = fs.statfs();
        let data = pattern(3, 1 << 20);
        let file = fs.file("a", &data);
        let again = File::open(fs.path("a")).unwrap();
        fs::remove_file(fs.path("a")).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        assert!(!fs.path("a").exists());
        let mut got = vec![0; data.len()];
        again.read_exact_at(&mut got, 0).unwrap();
        assert!(got == data);
        file.write_all_at(b"still written", 2 << 20).unwrap();
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(again.metadata().unwrap().len(), (2 << 20) + 13);
        drop((file, again));
        super::space::wait_until_free(fs, before.f_bfree);
        super::space::wait_until_inodes_free(fs, before.f_ffree);
    });
}

#[test]
fn unlinked_open_directory_is_empty_and_refuses_new_entries() {
    on_fs("size=16M", |fs| {
        let path = fs.subdir("d", 0o755);
        let dir = open(&path, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        fs::remove_dir(&path).unwrap();
        assert_eq!(e2e::rustix::fs::fstat(&dir).unwrap().st_nlink, 0);
        let made = e2e::rustix::fs::openat(&dir, "x", OFlags::CREATE | OFlags::RDWR, Mode::RUSR);
        assert_errno(made, Errno::NOENT);
        assert_errno(e2e::rustix::fs::mkdirat(&dir, "x", Mode::RWXU), Errno::NOENT);
        let left = e2e::rustix::fs::Dir::read_from(&dir).unwrap().filter_map(Result::ok);
        assert!(left.map(|entry| entry.file_name().to_bytes().to_vec()).all(|name| name.starts_with(b".")));
    });
}

#[test]
fn reading_and_writing_nothing_succeeds() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"text");
        assert_eq!(pread(&file, &mut [0u8; 0], 0).unwrap(), 0);
        assert_eq!(pread(&file, &mut [0u8; 8], 4).unwrap(), 0);
        assert_eq!(pread(&file, &mut [0u8; 8], 1 << 40).unwrap(), 0);
        assert_eq!(pwrite(&file, &[], 100).unwrap(), 0);
        assert_eq!(file.metadata().unwrap().len(), 4);
    });
}

#[test]
fn the_offset_of_a_descriptor_moves_and_seeks() {
    on_fs("size=16M", |fs| {
        let mut file = fs.file("a", b"0123456789");
        file.seek(SeekFrom::Start(3)).unwrap();
        let mut three = [0; 3];
        file.read_exact(&mut three).unwrap();
        assert_eq!(&three, b"345");
        assert_eq!(file.stream_position().unwrap(), 6);
        assert_eq!(file.seek(SeekFrom::End(-2)).unwrap(), 8);
        file.write_all(b"XYZ").unwrap();
        assert_eq!(fs::read(fs.path("a")).unwrap(), b"01234567XYZ");
        e2e::assert_os_error(file.seek(SeekFrom::Current(-100)), Errno::INVAL);
        assert_eq!(file.seek(SeekFrom::End(1000)).unwrap(), 1011);
        file.write_all(b"!").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1012);
    });
}

#[test]
fn large_single_reads_and_writes_are_whole() {
    on_fs("size=128M", |fs| {
        let data = pattern(4, 33 << 20);
        let file = fs.file("a", b"");
        assert_eq!(file.write_at(&data, 1).unwrap(), data.len());
        fsync(&file).unwrap();
        let mut got = vec![0; data.len() + 10];
        assert_eq!(file.read_at(&mut got, 0).unwrap(), data.len() + 1);
        assert!(got[1..=data.len()] == data);
    });
}

#[test]
fn fsync_works_on_files_and_directories_and_after_unlink() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"text");
        fsync(&file).unwrap();
        e2e::rustix::fs::fdatasync(&file).unwrap();
        fs::remove_file(fs.path("a")).unwrap();
        file.write_all_at(b"more", 4).unwrap();
        fsync(&file).unwrap();
        let dir = open(fs.dir(), OFlags::RDONLY, Mode::empty()).unwrap();
        fsync(&dir).unwrap();
        e2e::rustix::fs::syncfs(&dir).unwrap();
    });
}
