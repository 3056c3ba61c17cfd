//! What stat(2) says about sizes and blocks while files grow and shrink.

use e2e::{on_fs, pattern};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

#[test]
fn the_size_is_right_at_every_moment_for_everybody() {
    on_fs("size=16M", |fs| {
        let file = fs.file("a", b"");
        let other = File::open(fs.path("a")).unwrap();
        let mut size = 0;
        for i in 1..200u64 {
            let data = pattern(i, (i * 37 % 900) as usize);
            file.write_all_at(&data, size).unwrap();
            size += data.len() as u64;
            assert_eq!(file.metadata().unwrap().len(), size);
            assert_eq!(other.metadata().unwrap().len(), size);
            assert_eq!(fs::metadata(fs.path("a")).unwrap().len(), size);
        }
    });
}

#[test]
fn blocks_count_the_pages_of_closed_files() {
    on_fs("size=64M,page_size=4K", |fs| {
        for size in [0u64, 1, 511, 512, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1] {
            let name = format!("f{size}");
            fs.file(&name, &pattern(size, size as usize));
            let meta = fs::metadata(fs.path(&name)).unwrap();
            assert_eq!((meta.len(), meta.blocks()), (size, size.div_ceil(4096) * 8));
        }
    });
}

#[test]
fn the_preferred_block_size_is_at_least_a_page() {
    on_fs("size=16M", |fs| {
        fs.file("a", b"x");
        let meta = fs::metadata(fs.path("a")).unwrap();
        assert!(meta.blksize() >= 4096 && meta.blksize().is_power_of_two(), "{}", meta.blksize());
    });
}

#[test]
fn du_agrees_with_df() {
    on_fs("size=64M,page_size=4K", |fs| {
        let before = fs.statfs();
        for i in 0..100 {
            fs.file(&format!("f{i}"), &pattern(i, 10_000 + i as usize * 300));
        }
        e2e::run::ok(&mut e2e::run::script(fs.dir(), "sync -f ."));
        let after = fs.statfs();
        let used = (before.f_bfree - after.f_bfree) * after.f_frsize;
        let blocks: u64 =
            fs::read_dir(fs.dir()).unwrap().map(|e| e.unwrap().metadata().unwrap().blocks()).sum();
        assert_eq!(used, blocks * 512);
    });
}

#[test]
fn writes_of_many_threads_into_one_file_all_arrive() {
    on_fs("size=64M", |fs| {
        let file = fs.file("a", b"");
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let file = &file;
                scope.spawn(move || {
                    for i in 0..64u64 {
                        let at = (i * 8 + thread) * 5000;
                        file.write_all_at(&pattern(at, 5000), at).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(fs.path("a")).unwrap();
        assert_eq!(bytes.len(), 512 * 5000);
        for at in (0..512u64).map(|i| i * 5000) {
            assert!(bytes[at as usize..at as usize + 5000] == pattern(at, 5000), "at {at}");
        }
    });
}
