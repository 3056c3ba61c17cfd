//! Listing directories: large ones, and ones that change meanwhile.

use e2e::rustix::fs::{Dir, FileType, Mode, OFlags, open};
use e2e::{Fixture, Rng, on_fs};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::{DirEntryExt, MetadataExt, symlink};

fn open_dir(fs: &Fixture, name: &str) -> Dir {
    Dir::read_from(open(fs.path(name), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()).unwrap()
}

fn fill(fs: &Fixture, name: &str, range: std::ops::Range<u32>) {
    for i in range {
        File::create_new(fs.path(&format!("{name}/{i:06}"))).unwrap();
    }
}

/// The name and place of the next entry that is not a dot.
fn next(dir: &mut Dir) -> Option<(String, i64)> {
    loop {
        let entry = dir.read()?.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        if !name.starts_with('.') {
            return Some((name, entry.offset()));
        }
    }
}

fn names(dir: &mut Dir) -> Vec<String> {
    std::iter::from_fn(|| next(dir)).map(|(name, _)| name).collect()
}

#[test]
fn a_listing_has_each_entry_once_with_dots_types_and_inodes() {
    on_fs("size=16M", |fs| {
        fs.file("f", b"");
        fs.subdir("d", 0o755);
        symlink("f", fs.path("l")).unwrap();
        e2e::run::ok(e2e::run::command("mkfifo", ["p"]).current_dir(fs.dir()));
        let mut listed = BTreeMap::new();
        for entry in open_dir(fs, ".") {
            let entry = entry.unwrap();
            let old = listed
                .insert(entry.file_name().to_str().unwrap().to_owned(), (entry.file_type(), entry.ino()));
            assert_eq!(old, None);
        }
        assert_eq!(listed.keys().collect::<Vec<_>>(), [".", "..", "d", "f", "l", "p"]);
        let expected = [
            ("d", FileType::Directory),
            ("f", FileType::RegularFile),
            ("l", FileType::Symlink),
            ("p", FileType::Fifo),
        ];
        for (name, kind) in expected {
            assert_eq!(listed[name], (kind, fs::symlink_metadata(fs.path(name)).unwrap().ino()), "{name}");
        }
    });
}

fn entries_are_listed_and_removed(fs: &Fixture, count: u32) {
    fs.subdir("d", 0o755);
    fill(fs, "d", 0..count);
    let inodes: HashSet<_> = fs::read_dir(fs.path("d")).unwrap().map(|entry| entry.unwrap().ino()).collect();
    assert_eq!(inodes.len(), count as usize);
    let attributes = fs::read_dir(fs.path("d")).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    assert_eq!(attributes.filter(|meta| meta.is_file() && meta.len() == 0).count(), count as usize);
    fs::remove_dir_all(fs.path("d")).unwrap();
    assert_eq!(fs::read_dir(fs.dir()).unwrap().count(), 0);
}

#[test]
fn one_hundred_thousand_entries_are_listed_and_removed() {
    on_fs("size=512M", |fs| entries_are_listed_and_removed(fs, 100_000));
}

/// Takes minutes; scripts/soak.sh runs it.
#[test]
#[ignore = "long"]
fn one_million_entries_are_listed_and_removed() {
    on_fs("size=4G", |fs| entries_are_listed_and_removed(fs, 1_000_000));
}

#[test]
fn entries_that_stay_are_listed_exactly_once_while_others_come_and_go() {
    on_fs("size=64M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..3000);
        let mut rng = Rng::new(1);
        let mut seen = Vec::new();
        let mut removed = BTreeSet::new();
        let mut added = 3000;
        let mut dir = open_dir(fs, "d");
        while let Some((name, _)) = next(&mut dir) {
            seen.push(name);
            if rng.one_in(3) {
                fill(fs, "d", added..added + 1);
                added += 1;
            }
            if rng.one_in(3) {
                let victim = format!("{:06}", rng.below(3000));
                if fs::remove_file(fs.path(&format!("d/{victim}"))).is_ok() {
                    removed.insert(victim);
                }
            }
            assert!(seen.len() < 20_000, "the listing does not end");
        }
        let unique: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(unique.len(), seen.len(), "an entry was listed twice");
        for name in (0..3000).map(|i| format!("{i:06}")).filter(|name| !removed.contains(name)) {
            assert!(unique.contains(&name), "{name} stayed and was not listed");
        }
    });
}

#[test]
fn removing_while_listing_removes_everything_in_one_pass() {
    on_fs("size=64M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..5000);
        let mut dir = open_dir(fs, "d");
        while let Some((name, _)) = next(&mut dir) {
            fs::remove_file(fs.path(&format!("d/{name}"))).unwrap();
        }
        fs::remove_dir(fs.path("d")).unwrap();
    });
}

#[test]
fn seekdir_returns_to_a_place_even_after_changes() {
    on_fs("size=64M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..2000);
        let mut dir = open_dir(fs, "d");
        let all: Vec<_> = std::iter::from_fn(|| next(&mut dir)).collect();
        assert_eq!(all.iter().map(|(_, at)| at).collect::<HashSet<_>>().len(), 2000, "places are unique");
        for i in [0, 1, 500, 1234, 1998] {
            dir.seek(all[i].1).unwrap();
            let expected = all[i + 1..].iter().map(|(name, _)| name.clone());
            assert!(names(&mut dir).into_iter().eq(expected), "after entry {i}");
        }
        dir.seek(all[1999].1).unwrap();
        assert_eq!(next(&mut dir), None);
        // The entry that the place comes from may be gone.
        fs::remove_file(fs.path(&format!("d/{}", all[500].0))).unwrap();
        fs::remove_file(fs.path(&format!("d/{}", all[501].0))).unwrap();
        dir.seek(all[500].1).unwrap();
        // Whether one that was removed is still listed is left open by POSIX.
        let following = names(&mut dir).into_iter().filter(|name| *name != all[501].0);
        assert!(following.eq(all[502..].iter().map(|(name, _)| name.clone())));
    });
}

#[test]
fn rewinddir_sees_what_is_new() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..10);
        let mut dir = open_dir(fs, "d");
        assert_eq!(names(&mut dir).len(), 10);
        fill(fs, "d", 10..20);
        fs::remove_file(fs.path("d/000000")).unwrap();
        dir.rewind();
        let listed: BTreeSet<_> = names(&mut dir).into_iter().collect();
        assert_eq!(listed, (1..20).map(|i| format!("{i:06}")).collect());
    });
}

#[test]
fn two_listings_of_one_directory_do_not_disturb_each_other() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..1000);
        let (mut one, mut two) = (open_dir(fs, "d"), open_dir(fs, "d"));
        let (mut a, mut b) = (vec![], vec![]);
        for i in 0..3000 {
            if i % 3 == 0 { b.extend(next(&mut two)) } else { a.extend(next(&mut one)) }
        }
        a.sort();
        b.sort();
        assert_eq!((a.len(), b.len()), (1000, 1000));
        assert_eq!(a, b);
    });
}

#[test]
fn a_renamed_entry_is_listed_at_least_under_one_name() {
    on_fs("size=16M", |fs| {
        fs.subdir("d", 0o755);
        fill(fs, "d", 0..500);
        let mut dir = open_dir(fs, "d");
        let mut inodes = HashSet::new();
        let mut round = 0;
        while let Some(entry) = dir.read() {
            inodes.insert(entry.unwrap().ino());
            let name = format!("d/{:06}", round % 500);
            // A name of the same length in another order.
            if fs.path(&name).exists() {
                fs::rename(fs.path(&name), fs.path(&format!("d/{:06}", 999_999 - round))).unwrap();
            }
            round += 1;
            assert!(round < 5000, "the listing does not end");
        }
        assert_eq!(fs::read_dir(fs.path("d")).unwrap().count(), 500);
    });
}
