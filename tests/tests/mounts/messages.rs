//! How many messages to the master things take, and that others see what was kept back to make them so few.

use crate::{Mounts, on_mounts};
use e2e::rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, fsync, futimens, getxattr, listxattr, open, stat,
};
use e2e::rustix::io::write;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// What a mount may be telling in passing, a few times a second.
const PASSING: u64 = 8;
/// Longer than what was noted in passing is kept.
const QUIET: Duration = Duration::from_secs(1);

/// With `cache=writeback` the kernel sets times by itself when it writes, and asks before it does: that takes more messages.
const AUTO: [&str; 2] = ["cache=auto", "cache=auto"];

/// An access control list of these entries: tag, permissions, and who if that needs to be said.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry = |(tag, perm, id): &(u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [&2_u32.to_le_bytes()[..], &entries.iter().flat_map(entry).collect::<Vec<u8>>()].concat()
}

/// One that says as much as this mode.
fn minimal(mode: u32) -> Vec<u8> {
    let bits = |shift: u32| (mode >> shift & 7) as u16;
    acl(&[(0x01, bits(6), u32::MAX), (0x04, bits(3), u32::MAX), (0x20, bits(0), u32::MAX)])
}

fn set_times(file: &OwnedFd, sec: i64) {
    let time = Timespec { tv_sec: sec, tv_nsec: 5 };
    futimens(file, &Timestamps { last_access: time, last_modification: time }).expect("times can be set");
}

fn create(path: &Path) -> OwnedFd {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    open(path, flags, Mode::from_raw_mode(0o600)).expect("it can be made")
}

#[test]
fn copying_a_file_with_its_attributes_takes_two_messages() {
    const FILES: u64 = 50;
    on_mounts(&AUTO, |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        sleep(QUIET);
        let before = m.messages(0);
        for i in 0..FILES {
            // As cp -a does it.
            let file = create(&m.at(0, &format!("dir/{i}")));
            write(&file, &[b'c'; 5000]).unwrap();
            set_times(&file, 1_000_000 + i as i64);
            fchown(&file, Some(Uid::from_raw(7)), Some(Gid::from_raw(8))).unwrap();
            fsetxattr(&file, "system.posix_acl_access", &minimal(0o644), XattrFlags::empty()).unwrap();
            fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
        }
        let sent = m.messages(0) - before;
        for i in 0..FILES {
            for mount in [1, 0] {
                let found = fs::metadata(m.at(mount, &format!("dir/{i}"))).unwrap();
                let found =
                    (found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec(), found.len());
                assert_eq!(found, (0o100_640, 7, 8, 1_000_000 + i as i64, 5, 5000));
            }
        }
        assert!((2 * FILES..=2 * FILES + PASSING).contains(&sent), "{sent} messages for {FILES} files");
    });
}

#[test]
fn writing_a_new_file_takes_two_messages() {
    const FILES: u64 = 50;
    on_mounts(&AUTO, |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        sleep(QUIET);
        let before = m.messages(0);
        (0..FILES).for_each(|i| fs::write(m.at(0, &format!("dir/{i}")), [b'w'; 4096]).unwrap());
        let sent = m.messages(0) - before;
        assert!((2 * FILES..=2 * FILES + PASSING).contains(&sent), "{sent} messages for {FILES} files");
    });
}

#[test]
fn what_was_set_of_an_open_file_is_seen_by_the_other_mount_at_once() {
    on_mounts(&["", ""], |m| {
        let file = create(&m.at(0, "file"));
        let seen = |mount: usize| {
            let found = stat(m.at(mount, "file")).unwrap();
            (found.st_mode & 0o7777, found.st_uid, found.st_size)
        };
        let mtime = |mount: usize| fs::metadata(m.at(mount, "file")).unwrap().mtime();
        for round in 1..20_u32 {
            write(&file, b"some").unwrap();
            set_times(&file, i64::from(round));
            fchmod(&file, Mode::from_raw_mode(0o4711)).unwrap();
            assert_eq!(seen(1), (0o4711, round - 1, i64::from(round) * 8 - 4));
            assert_eq!(mtime(1), i64::from(round));
            // A new owner takes the bit away; a write takes the time away.
            fchown(&file, Some(Uid::from_raw(round)), None).unwrap();
            set_times(&file, i64::from(round));
            write(&file, b"more").unwrap();
            assert_eq!(seen(1), (0o711, round, i64::from(round) * 8));
            assert!(mtime(1) > 1_000_000_000);
            fchmod(&file, Mode::from_raw_mode(0o600)).unwrap();
            assert_eq!(seen(0), (0o600, round, i64::from(round) * 8));
        }
    });
}

#[test]
fn what_was_set_survives_the_mount_once_a_descriptor_was_closed_or_anything_was_synced() {
    on_mounts(&["", ""], |m| {
        let mut open_files = Vec::new();
        for i in 0..20 {
            let file = create(&m.at(0, &format!("closed{i}")));
            write(&file, b"data").unwrap();
            fchmod(&file, Mode::from_raw_mode(0o640)).unwrap();
            set_times(&file, 77);
            drop(file);
            // And what is set of a file that is not open is told at once.
            let path = m.at(0, &format!("path{i}"));
            fs::write(&path, b"data").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
            chownat(CWD, &path, Some(Uid::from_raw(9)), None, AtFlags::empty()).unwrap();
            // Of two descriptors one is enough.
            let file = create(&m.at(0, &format!("two{i}")));
            let other = file.as_fd().try_clone_to_owned().unwrap();
            fchmod(&file, Mode::from_raw_mode(0o611)).unwrap();
            drop(other);
            open_files.push(file);
        }
        let synced = create(&m.at(0, "synced"));
        let held = create(&m.at(0, "held"));
        write(&held, b"data").unwrap();
        fchmod(&held, Mode::from_raw_mode(0o622)).unwrap();
        fsync(&synced).unwrap();
        m.kill(0);
        drop((open_files, synced, held));
        let mode = |name: &str| fs::metadata(m.at(1, name)).unwrap().mode() & 0o7777;
        for i in 0..20 {
            assert_eq!(mode(&format!("closed{i}")), 0o640);
            assert_eq!(fs::metadata(m.at(1, &format!("closed{i}"))).unwrap().mtime(), 77);
            assert_eq!(mode(&format!("path{i}")), 0o604);
            assert_eq!(fs::metadata(m.at(1, &format!("path{i}"))).unwrap().uid(), 9);
            assert_eq!(mode(&format!("two{i}")), 0o611);
        }
        assert_eq!(mode("held"), 0o622);
    });
}

#[test]
fn modes_and_lists_change_each_other_in_the_order_in_which_they_are_set() {
    const NAME: &str = "system.posix_acl_access";
    let full = acl(&[
        (0x01, 7, u32::MAX),
        (0x02, 6, 33),
        (0x04, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 0, u32::MAX),
    ]);
    on_mounts(&["", ""], |m| {
        let local = tempfile::TempDir::with_prefix_in("rchfs-e2e-acl.", "/dev/shm").unwrap();
        let set = |path: &Path| {
            let file = create(path);
            let look = |path: &Path| {
                let mut buffer = [0_u8; 256];
                let list = getxattr(path, NAME, &mut buffer).map(|len| buffer[..len].to_vec());
                let mode = fs::metadata(path).unwrap().mode();
                let mut names = [0_u8; 256];
                let len = listxattr(path, &mut names).unwrap();
                (mode, list, names[..len].to_vec())
            };
            let mut seen = Vec::new();
            let chmod = |mode: u32| fchmod(&file, Mode::from_raw_mode(mode)).unwrap();
            let list = |list: &[u8]| fsetxattr(&file, NAME, list, XattrFlags::empty()).unwrap();
            chmod(0o2640);
            list(&minimal(0o751));
            seen.push(look(path));
            chmod(0o600);
            list(&full);
            seen.push(look(path));
            chmod(0o711);
            seen.push(look(path));
            list(&minimal(0o640));
            chmod(0o611);
            seen.push(look(path));
            fsetxattr(&file, "user.some", b"value", XattrFlags::empty()).unwrap();
            chmod(0o644);
            seen.push(look(path));
            drop(file);
            seen.push(look(path));
            seen
        };
        let mounted = set(&m.at(0, "file"));
        assert_eq!(mounted, set(&local.path().join("file")));
        assert_eq!(fs::metadata(m.at(1, "file")).unwrap().mode() & 0o7777, 0o644);
    });
}

/// All names of a directory, and all that can be seen of what they stand for.
fn look(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let data = if found.is_file() { fs::read(entry.path()).unwrap().len() } else { 0 };
        let mut buffer = [0_u8; 64];
        assert!(getxattr(entry.path(), "system.posix_acl_access", &mut buffer).is_err());
        assert_eq!(listxattr(entry.path(), &mut buffer), Ok(0));
        assert_eq!(data as u64, if found.is_file() { found.len() } else { 0 });
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    names
}

#[test]
fn looking_at_what_is_held_takes_no_message() {
    on_mounts(&["", ""], |m| {
        fs::create_dir_all(m.at(0, "dir/below")).unwrap();
        (0..300).for_each(|i| fs::write(m.at(0, &format!("dir/{i}")), format!("{i}")).unwrap());
        for mount in 0..2 {
            for _ in 0..2 {
                assert_eq!(look(&m.at(mount, "dir")).len(), 301);
            }
            // Access times are told a moment later.
            sleep(QUIET);
            let before = m.messages(mount);
            for _ in 0..3 {
                assert_eq!(look(&m.at(mount, "dir")).len(), 301);
                assert!(!m.at(mount, "dir/none").exists());
            }
            assert_eq!(m.messages(mount), before, "messages of mount {mount}");
        }
        // Both hold the listing now, and each change elsewhere takes it.
        for round in 0..10 {
            let (one, other) = (round % 2, (round + 1) % 2);
            fs::write(m.at(one, &format!("dir/new{round}")), b"").unwrap();
            assert!(look(&m.at(other, "dir")).contains(&format!("new{round}")));
            assert!(look(&m.at(one, "dir")).contains(&format!("new{round}")));
            fs::rename(m.at(other, &format!("dir/new{round}")), m.at(other, &format!("dir/old{round}")))
                .unwrap();
            assert!(look(&m.at(one, "dir")).contains(&format!("old{round}")));
            fs::remove_file(m.at(one, &format!("dir/old{round}"))).unwrap();
            assert_eq!(look(&m.at(other, "dir")).len(), 301);
            assert_eq!(look(&m.at(one, "dir")).len(), 301);
        }
    });
}

#[test]
fn a_file_that_nothing_is_known_of_takes_one_message_to_read() {
    const FILES: u64 = 50;
    on_mounts(&["", ""], |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        (0..FILES).for_each(|i| fs::write(m.at(0, &format!("dir/{i}")), vec![b'u'; 20_000]).unwrap());
        assert!(!m.at(1, "dir/none").exists());
        sleep(QUIET);
        let read = |m: &Mounts| {
            let before = m.messages(1);
            (0..FILES)
                .for_each(|i| assert_eq!(fs::read(m.at(1, &format!("dir/{i}"))).unwrap().len(), 20_000));
            m.messages(1) - before
        };
        let sent = read(m);
        assert!((FILES..=FILES + PASSING).contains(&sent), "{sent} messages for {FILES} files");
    });
}

#[test]
fn a_tree_that_nothing_is_known_of_takes_few_messages_to_read_and_to_remove() {
    const FILES: u64 = 100;
    on_mounts(&AUTO, |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        (0..FILES).for_each(|i| fs::write(m.at(0, &format!("dir/{i}")), vec![b'u'; 20_000]).unwrap());
        // The other mount has no right to write to them any more.
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        sleep(QUIET);
        let before = m.messages(1);
        assert_eq!(look(&m.at(1, "dir")).len() as u64, FILES);
        let sent = m.messages(1) - before;
        assert!(sent <= 3 + PASSING, "{sent} messages to read {FILES} files");
        sleep(QUIET);
        let before = m.messages(1);
        fs::remove_dir_all(m.at(1, "dir")).unwrap();
        let sent = m.messages(1) - before;
        assert!((FILES + 1..=FILES + 3 + PASSING).contains(&sent), "{sent} messages to remove {FILES} files");
    });
}

#[test]
fn a_name_is_known_to_be_free_once_its_directory_was_listed() {
    const FILES: u64 = 50;
    on_mounts(&["", ""], |m| {
        fs::create_dir(m.at(0, "dir")).unwrap();
        (0..200).for_each(|i| fs::write(m.at(0, &format!("dir/old{i}")), b"").unwrap());
        assert_eq!(fs::read_dir(m.at(1, "dir")).unwrap().count(), 200);
        sleep(QUIET);
        let before = m.messages(1);
        (0..FILES).for_each(|i| drop(create(&m.at(1, &format!("dir/{i}")))));
        let sent = m.messages(1) - before;
        assert!((FILES..=FILES + PASSING).contains(&sent), "{sent} messages to make {FILES} files");
        // What the other mount makes meanwhile is found.
        fs::write(m.at(0, "dir/theirs"), b"theirs").unwrap();
        assert_eq!(fs::read(m.at(1, "dir/theirs")).unwrap(), b"theirs");
    });
}
