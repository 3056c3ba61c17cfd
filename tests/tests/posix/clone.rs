//! Clones: copies that share pages, by copy_file_range and by `rcmp clone`.

use e2e::binary::rcmp;
use e2e::fixture::{is_reference, skipped};
use e2e::map::Map;
use e2e::{Fixture, on_fs, on_fs_as_root, pattern};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn used(fs: &Fixture) -> u64 {
    let stat = fs.statfs();
    (stat.f_blocks - stat.f_bfree) * stat.f_frsize
}

/// What several unlinked files share is counted as used until the kernel has forgotten them, a moment later.
fn all_comes_back(fs: &Fixture) {
    let end = Instant::now() + Duration::from_secs(20);
    while used(fs) > 0 {
        assert!(Instant::now() < end, "{} bytes stay in use", used(fs));
        sleep(Duration::from_millis(10));
    }
}

fn run_clone(from: &Path, to: &Path) -> Output {
    Command::new(rcmp()).arg("clone").arg(from).arg(to).output().expect("rcmp runs")
}

#[track_caller]
fn clone(from: &Path, to: &Path) {
    let output = run_clone(from, to);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn refused(from: &Path, to: &Path) -> String {
    let output = run_clone(from, to);
    assert!(!output.status.success(), "it was cloned");
    String::from_utf8(output.stderr).expect("text")
}

fn cp(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs").success());
}

#[test]
fn cp_shares_pages_until_one_side_writes() {
    on_fs("size=64M", |fs| {
        if is_reference() {
            return skipped("tmpfs copies");
        }
        let data = pattern(1, 8 * MIB + 1000);
        let a = fs.file("a", &data);
        let b = fs.path("b");
        a.sync_all().unwrap();
        let before = used(fs);
        cp(&fs.path("a"), &b);
        // One page of room: what is counted as used is not always exact to the page at once.
        assert!(used(fs) <= before + 4096, "{} and then {}", before, used(fs));
        assert!(fs::read(&b).unwrap() == data);
        let b = File::options().read(true).write(true).open(&b).unwrap();
        // In the middle of a page, over a border of pages, a whole page, and the end.
        let mut model = data.clone();
        for (at, len) in [(5000, 10), (3 * 4096 - 7, 20), (1 << 20, 4096), (data.len() - 5, 500)] {
            b.write_all_at(&vec![0xee; len], at as u64).unwrap();
            model.resize(model.len().max(at + len), 0);
            model[at..at + len].fill(0xee);
        }
        b.sync_all().unwrap();
        assert!(fs::read(fs.path("b")).unwrap() == model && fs::read(fs.path("a")).unwrap() == data);
        assert!(used(fs) <= before + 8 * 4096, "only what was written is copied");
        a.write_all_at(&[0xdd; 9000], 100).unwrap();
        a.sync_all().unwrap();
        assert!(
            fs::read(fs.path("b")).unwrap() == model,
            "what is written to the source is not seen in the clone"
        );
        fs::remove_file(fs.path("a")).unwrap();
        drop(a);
        assert!(fs::read(fs.path("b")).unwrap() == model, "the clone keeps its pages without its source");
    });
}

#[test]
fn what_a_clone_exposes_by_growing_is_zero_and_its_source_is_left_alone() {
    on_fs("size=64M", |fs| {
        let data = pattern(2, 100_000);
        drop(fs.file("a", &data));
        cp(&fs.path("a"), &fs.path("b"));
        let b = File::options().write(true).open(fs.path("b")).unwrap();
        b.set_len(50_000).unwrap();
        b.set_len(100_000).unwrap();
        let got = fs::read(fs.path("b")).unwrap();
        assert!(got[..50_000] == data[..50_000] && got[50_000..].iter().all(|&byte| byte == 0));
        assert!(fs::read(fs.path("a")).unwrap() == data);
    });
}

#[test]
fn the_space_of_clones_comes_back_with_the_last_of_them() {
    on_fs("size=64M", |fs| {
        drop(fs.file("a", &pattern(3, 4 * MIB)));
        let full = used(fs);
        for i in 0..5 {
            cp(&fs.path("a"), &fs.path(&format!("b{i}")));
        }
        fs::remove_file(fs.path("a")).unwrap();
        (0..4).for_each(|i| fs::remove_file(fs.path(&format!("b{i}"))).unwrap());
        if !is_reference() {
            assert_eq!(used(fs), full);
        }
        fs::remove_file(fs.path("b4")).unwrap();
        all_comes_back(fs);
    });
}

#[test]
fn a_shared_mapping_of_a_clone_is_a_file_of_its_own() {
    on_fs("size=64M", |fs| {
        let data = pattern(4, 64 * 4096);
        drop(fs.file("a", &data));
        cp(&fs.path("a"), &fs.path("b"));
        let b = File::options().read(true).write(true).open(fs.path("b")).unwrap();
        let mut map = Map::new(&b, 0, data.len(), true).unwrap();
        map.write(10_000, &[1; 10_000]);
        map.sync().unwrap();
        let mut model = data.clone();
        model[10_000..20_000].fill(1);
        assert!(fs::read(fs.path("b")).unwrap() == model && fs::read(fs.path("a")).unwrap() == data);
    });
}

#[test]
fn rcmp_clones_a_file_and_a_tree() {
    on_fs_as_root("size=128M", |fs| {
        if is_reference() {
            return skipped("tmpfs has no clones");
        }
        let src = fs.subdir("src", 0o751);
        fs::create_dir(src.join("deep")).unwrap();
        let data = pattern(5, 3 * MIB + 17);
        let open = File::create(src.join("deep/big")).unwrap();
        open.write_all_at(&data, 0).unwrap();
        // Not synced: rcmp sees to that.
        fs::write(src.join("small"), b"text").unwrap();
        fs::set_permissions(src.join("small"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(src.join("small"), src.join("deep/hard")).unwrap();
        symlink("deep/big", src.join("sym")).unwrap();
        clone(&src, &fs.path("dst"));
        let same = Command::new("diff").arg("-r").arg(&src).arg(fs.path("dst")).status().unwrap();
        assert!(same.success());
        let (old, new) = (fs::metadata(&src).unwrap(), fs::metadata(fs.path("dst")).unwrap());
        assert_eq!((new.mode(), new.nlink(), new.mtime_nsec()), (old.mode(), old.nlink(), old.mtime_nsec()));
        let hard = fs::metadata(fs.path("dst/deep/hard")).unwrap();
        assert_eq!((hard.nlink(), hard.ino()), (2, fs::metadata(fs.path("dst/small")).unwrap().ino()));
        assert!(used(fs) < 4 * MIB as u64, "the data was copied");
        // An open file that was written before goes on being written, on its side only.
        open.write_all_at(b"changed", 100).unwrap();
        open.sync_all().unwrap();
        assert!(fs::read(fs.path("dst/deep/big")).unwrap() == data);
        clone(&fs.path("dst/deep/big"), &fs.path("file"));
        assert!(fs::read(fs.path("file")).unwrap() == data);
        let times = |name: &str| fs::metadata(fs.path(name)).unwrap().modified().unwrap();
        assert_eq!(times("file"), times("dst/deep/big"));
        for name in ["src", "dst"] {
            fs::remove_dir_all(fs.path(name)).unwrap();
        }
        drop(open);
        fs::remove_file(fs.path("file")).unwrap();
        all_comes_back(fs);
    });
}

#[test]
fn what_cannot_be_cloned_is_refused_in_a_sentence() {
    on_fs_as_root("size=64M", |fs| {
        if is_reference() {
            return skipped("tmpfs has no clones");
        }
        let src = fs.subdir("src", 0o755);
        drop(fs.file("file", b"text"));
        symlink("file", fs.path("sym")).unwrap();
        assert!(refused(&src, &src.join("inside")).contains("into itself"));
        assert!(!src.join("inside").exists());
        assert!(refused(&src, &fs.path("file")).contains("exists"));
        assert!(refused(&fs.path("sym"), &fs.path("new")).contains("neither a regular file nor a directory"));
        assert!(refused(&src, &fs.outside("new")).contains("same mounted rchfs"));
        assert!(refused(&fs.path("missing"), &fs.path("new")).contains("No such file"));
        assert!(!fs.path("new").exists());
    });
}
