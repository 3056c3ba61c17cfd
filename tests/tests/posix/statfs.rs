//! What df(1) shows.

use e2e::{fixture, on_fs, pattern};
use std::fs;

#[test]
fn the_capacity_is_the_size_asked_for_less_a_little() {
    on_fs("size=64M", |fs| {
        let stat = fs.statfs();
        let total = stat.f_blocks * stat.f_frsize;
        assert!((60 << 20..=64 << 20).contains(&total), "{total}");
        assert!(stat.f_bfree <= stat.f_blocks && stat.f_bavail <= stat.f_bfree);
        assert_eq!(stat.f_namemax, 255);
        assert!(stat.f_frsize >= 4096 && stat.f_frsize.is_power_of_two());
    });
}

#[test]
fn a_new_file_system_uses_nothing() {
    on_fs("size=64M", |fs| {
        let stat = fs.statfs();
        assert_eq!(stat.f_bfree, stat.f_blocks);
        assert!(stat.f_files - stat.f_ffree <= 1);
    });
}

#[test]
fn blocks_and_inodes_are_counted_and_come_back() {
    on_fs("size=64M,page_size=4K", |fs| {
        let before = fs.statfs();
        fs.file("a", &pattern(1, 1 << 20)).sync_all().unwrap();
        fs.subdir("d", 0o755);
        std::os::unix::fs::symlink("a", fs.path("l")).unwrap();
        let used = fs.statfs();
        assert_eq!((before.f_bfree - used.f_bfree) * used.f_frsize, 1 << 20);
        assert_eq!(before.f_ffree - used.f_ffree, 3);
        fs::hard_link(fs.path("a"), fs.path("b")).unwrap();
        assert_eq!(used.f_ffree - fs.statfs().f_ffree, u64::from(fixture::is_reference()));
        for name in ["a", "b", "l"] {
            fs::remove_file(fs.path(name)).unwrap();
        }
        fs::remove_dir(fs.path("d")).unwrap();
        super::space::wait_until_free(fs, before.f_bfree);
        super::space::wait_until_inodes_free(fs, before.f_ffree);
    });
}

#[test]
fn page_sizes_from_4k_to_2m_work() {
    if fixture::is_reference() {
        return fixture::skipped("tmpfs has no page size");
    }
    for page_size in ["4K", "16K", "64K", "256K", "2M"] {
        on_fs(&format!("size=128M,page_size={page_size}"), |fs| {
            let before = fs.statfs().f_bfree;
            let data = pattern(9, 5_000_001);
            fs.file("a", &data).sync_all().unwrap();
            fs::copy(fs.path("a"), fs.path("b")).unwrap();
            assert!(fs::read(fs.path("b")).unwrap() == data, "{page_size}");
            fs::remove_file(fs.path("a")).unwrap();
            fs::remove_file(fs.path("b")).unwrap();
            super::space::wait_until_free(fs, before);
        });
    }
}

#[test]
fn df_names_the_file_system() {
    on_fs("size=64M", |fs| {
        let df = e2e::run::ok(e2e::run::command("df", ["--output=fstype,target"]).arg(fs.dir()));
        assert!(df.contains(if fixture::is_reference() { "tmpfs" } else { "fuse.rchfs" }), "{df}");
    });
}
