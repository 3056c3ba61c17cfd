//! What one mount does is seen by the others.

use crate::{Mounts, on_mounts};
use e2e::rustix::fs::{Mode, OFlags, open, unlink};
use e2e::rustix::io::{pread, pwrite};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

#[test]
fn names_and_attributes_changed_by_one_are_changed_for_the_other() {
    on_mounts(&["", ""], |m| {
        assert!(!m.at(1, "file").exists());
        fs::write(m.at(0, "file"), b"first").unwrap();
        assert_eq!(fs::read(m.at(1, "file")).unwrap(), b"first");
        fs::create_dir(m.at(1, "dir")).unwrap();
        fs::rename(m.at(1, "file"), m.at(1, "dir/moved")).unwrap();
        assert!(!m.at(0, "file").exists());
        assert_eq!(fs::read(m.at(0, "dir/moved")).unwrap(), b"first");
        fs::set_permissions(m.at(0, "dir/moved"), fs::Permissions::from_mode(0o751)).unwrap();
        assert_eq!(fs::metadata(m.at(1, "dir/moved")).unwrap().mode() & 0o7777, 0o751);
        fs::hard_link(m.at(1, "dir/moved"), m.at(1, "linked")).unwrap();
        assert_eq!(fs::metadata(m.at(0, "dir/moved")).unwrap().nlink(), 2);
        fs::remove_file(m.at(0, "dir/moved")).unwrap();
        assert_eq!(fs::metadata(m.at(1, "linked")).unwrap().nlink(), 1);
        fs::remove_dir(m.at(1, "dir")).unwrap();
        assert!(!m.at(0, "dir").exists());
    });
}

#[test]
fn a_rename_is_atomic_to_the_other_mount() {
    on_mounts(&["", ""], |m| {
        fs::write(m.at(0, "target"), b"0000").unwrap();
        let over = AtomicBool::new(false);
        scope(|scope| {
            scope.spawn(|| {
                for i in 0..300_u32 {
                    fs::write(m.at(0, "new"), format!("{i:04}")).unwrap();
                    fs::rename(m.at(0, "new"), m.at(0, "target")).unwrap();
                }
                over.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !over.load(Ordering::Acquire) {
                let found = fs::read_to_string(m.at(1, "target")).expect("there always is one");
                let number: u32 = found.parse().expect("it is whole");
                assert!(number >= last, "{number} came after {last}");
                last = number;
            }
        });
    });
}

fn each_write_is_read(m: &Mounts) {
    let flags = OFlags::CREATE | OFlags::RDWR;
    let a = open(m.at(0, "word"), flags, Mode::from_raw_mode(0o600)).unwrap();
    let b = open(m.at(1, "word"), flags, Mode::from_raw_mode(0o600)).unwrap();
    for i in 0..200_u64 {
        let (writer, reader) = if i % 2 == 0 { (&a, &b) } else { (&b, &a) };
        pwrite(writer, &i.to_le_bytes(), 8).unwrap();
        let mut found = [0; 8];
        assert_eq!(pread(reader, &mut found, 8).unwrap(), 8);
        assert_eq!(u64::from_le_bytes(found), i);
    }
}

#[test]
fn every_completed_write_is_read_by_the_other() {
    on_mounts(&["", ""], |m| each_write_is_read(m));
}

#[test]
fn without_a_cache_every_completed_write_is_read_by_the_other() {
    on_mounts(&["cache=none", "cache=none"], |m| each_write_is_read(m));
}

#[test]
fn a_file_made_shorter_and_longer_elsewhere_is_so_through_an_open_descriptor() {
    on_mounts(&["", ""], |m| {
        fs::write(m.at(0, "file"), vec![b'x'; 100_000]).unwrap();
        let mut file = File::open(m.at(1, "file")).unwrap();
        let mut all = Vec::new();
        assert_eq!(file.read_to_end(&mut all).unwrap(), 100_000);
        let other = OpenOptions::new().write(true).open(m.at(0, "file")).unwrap();
        other.set_len(10).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 10);
        other.set_len(30).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        all.clear();
        file.read_to_end(&mut all).unwrap();
        assert_eq!(all, [&[b'x'; 10][..], &[0; 20][..]].concat());
    });
}

#[test]
fn appended_records_are_neither_lost_nor_mixed() {
    const RECORDS: usize = 200;
    on_mounts(&["", "", ""], |m| {
        let write = |mount: usize, writer: usize| {
            let mut file = OpenOptions::new().append(true).create(true).open(m.at(mount, "log")).unwrap();
            for i in 0..RECORDS {
                let record = format!("{writer} {i} {}\n", "y".repeat((i * 37 + writer) % 300));
                file.write_all(record.as_bytes()).unwrap();
            }
        };
        let write = &write;
        scope(|scope| (0..6).for_each(|writer| drop(scope.spawn(move || write(writer % 3, writer)))));
        for mount in 0..3 {
            let text = fs::read_to_string(m.at(mount, "log")).unwrap();
            let mut next = [0; 6];
            for line in text.lines() {
                let mut words = line.split(' ');
                let writer: usize = words.next().unwrap().parse().unwrap();
                let i: usize = words.next().unwrap().parse().unwrap();
                assert_eq!(i, next[writer], "records of one writer are in order");
                assert_eq!(words.next().unwrap().len(), (i * 37 + writer) % 300, "mixed: {line}");
                next[writer] += 1;
            }
            assert_eq!(next, [RECORDS; 6]);
        }
    });
}

#[test]
fn a_file_unlinked_elsewhere_lives_until_its_last_close() {
    on_mounts(&["", ""], |m| {
        fs::write(m.at(0, "file"), vec![b'k'; 200_000]).unwrap();
        let mut file = OpenOptions::new().read(true).write(true).open(m.at(0, "file")).unwrap();
        unlink(m.at(1, "file")).unwrap();
        assert!(!m.at(0, "file").exists());
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b"still").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        file.read_to_end(&mut all).unwrap();
        assert_eq!((&all[..6], all.len()), (&b"stillk"[..], 200_000));
        let used = |m: &Mounts| {
            let stat = e2e::rustix::fs::statvfs(m.dir(1)).unwrap();
            stat.f_files - stat.f_ffree
        };
        let before = used(m);
        drop(file);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while used(m) >= before {
            // Closing does not make the kernel forget the inode; asking for memory does.
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
            assert!(std::time::Instant::now() < deadline, "the inode stays");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
}

#[test]
fn what_was_written_through_a_mapping_is_seen_after_msync() {
    use e2e::rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    on_mounts(&["", ""], |m| {
        fs::write(m.at(0, "file"), vec![b'a'; 8192]).unwrap();
        let map = |mount: usize| {
            let file = OpenOptions::new().read(true).write(true).open(m.at(mount, "file")).unwrap();
            let both = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new mapping, at a place that the kernel chooses.
            unsafe { mmap(std::ptr::null_mut(), 8192, both, MapFlags::SHARED, &file, 0) }.unwrap()
        };
        let (a, b) = (map(0).cast::<u8>(), map(1).cast::<u8>());
        for round in b'b'..b'h' {
            // SAFETY: `a` and `b` are mapped, 8192 bytes long, and unmapped only below.
            unsafe {
                assert_eq!(b.add(5000).read_volatile(), round - 1);
                a.add(5000).write_volatile(round);
                msync(a.cast(), 8192, MsyncFlags::SYNC).unwrap();
            }
            assert_eq!(fs::read(m.at(1, "file")).unwrap()[5000], round);
        }
        // SAFETY: nothing uses the mappings any more.
        unsafe {
            munmap(a.cast(), 8192).unwrap();
            munmap(b.cast(), 8192).unwrap();
        }
    });
}

#[test]
fn entries_that_stay_are_listed_exactly_once_under_churn() {
    on_mounts(&["", ""], |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        for i in 0..400 {
            fs::write(m.at(0, &format!("dir/stays{i}")), b"").unwrap();
        }
        let over = AtomicBool::new(false);
        scope(|scope| {
            scope.spawn(|| {
                for i in 0..300 {
                    fs::write(m.at(0, &format!("dir/goes{i}")), b"").unwrap();
                    fs::remove_file(m.at(0, &format!("dir/goes{i}"))).unwrap();
                }
                over.store(true, Ordering::Release);
            });
            while !over.load(Ordering::Acquire) {
                let mut seen = HashSet::new();
                for entry in fs::read_dir(m.at(1, "dir")).unwrap() {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    assert!(seen.insert(name.clone()), "{name} twice");
                }
                assert_eq!(seen.iter().filter(|name| name.starts_with("stays")).count(), 400);
            }
        });
    });
}

#[test]
fn what_a_mount_holds_under_lease_takes_no_message() {
    on_mounts(&["", ""], |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        fs::write(m.at(0, "dir/file"), vec![b'c'; 50_000]).unwrap();
        let use_it = || {
            for _ in 0..20 {
                assert_eq!(fs::read(m.at(1, "dir/file")).unwrap().len(), 50_000);
                assert_eq!(fs::metadata(m.at(1, "dir/file")).unwrap().len(), 50_000);
                assert!(!m.at(1, "dir/none").exists());
            }
        };
        use_it();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let before = m.messages(1);
        use_it();
        assert_eq!(m.messages(1), before, "messages were sent");
        // And a change elsewhere takes them.
        fs::write(m.at(0, "dir/none"), b"").unwrap();
        assert!(m.at(1, "dir/none").exists());
        assert!(m.messages(1) > before);
    });
}

#[test]
fn an_operation_on_names_takes_one_message() {
    on_mounts(&["", ""], |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        fs::write(m.at(0, "dir/first"), b"").unwrap();
        let count = |what: &dyn Fn(usize)| {
            std::thread::sleep(std::time::Duration::from_millis(700));
            let before = m.messages(0);
            (0..50).for_each(what);
            m.messages(0) - before
        };
        // A few more are what is told in passing.
        let made = count(&|i| drop(File::create_new(m.at(0, &format!("dir/{i}"))).unwrap()));
        let renamed =
            count(&|i| fs::rename(m.at(0, &format!("dir/{i}")), m.at(0, &format!("dir/r{i}"))).unwrap());
        let removed = count(&|i| fs::remove_file(m.at(0, &format!("dir/r{i}"))).unwrap());
        println!("50 creates {made}, renames {renamed}, removals {removed} messages");
        // A name has to be looked up before it is made, if it was not known to be free; and after it was renamed.
        assert!((50..=105).contains(&made), "{made} messages for 50 files made");
        assert!((50..=155).contains(&renamed), "{renamed} messages for 50 renames");
        assert!((50..=105).contains(&removed), "{removed} messages for 50 removals");
    });
}
