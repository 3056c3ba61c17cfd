//! Random operations by several mounts, each of which must see what a local file system shows after all of them.
//!
//! The operations follow each other, so rchfs/SEMANTICS.md allows one result each: that of the same operation on a
//! directory of a tmpfs.

use crate::{Mounts, on_mounts};
use e2e::rustix::fs::{
    CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, copy_file_range, fchmod, fchown, ftruncate,
    futimens, open, renameat_with,
};
use e2e::rustix::io::{Errno, pread, pwrite, write};
use e2e::{Rng, tree};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread::scope;
use tempfile::TempDir;

const NAMES: [&str; 8] = ["a", "b", "c", "d/a", "d/b", "d/c", "d", "e"];

/// Bytes in a page of the pool.
const PAGE: u64 = 16 << 10;

/// What a system call gave: an error, or what a program would see.
type Seen = Result<String, Option<i32>>;

fn seen(result: std::io::Result<String>) -> Seen {
    result.map_err(|error| error.raw_os_error())
}

fn errno<T>(result: Result<T, Errno>, show: impl FnOnce(T) -> String) -> Seen {
    result.map(show).map_err(|error| Some(error.raw_os_error()))
}

/// A file that is open in a mount and on the tmpfs.
struct Open {
    mounted: OwnedFd,
    local: OwnedFd,
}

struct World<'m> {
    mounts: &'m Mounts,
    count: usize,
    local: TempDir,
    open: Vec<Open>,
    log: Vec<String>,
}

impl World<'_> {
    /// Does the same in a mount and on the tmpfs, and compares.
    #[track_caller]
    fn both(&mut self, mount: usize, what: String, act: impl Fn(&Path) -> Seen) {
        let mut found = act(self.mounts.dir(mount));
        // A directory that another mount has moved, and that is in use here: rchfs/SEMANTICS.md.
        if found == Err(Some(libc::ESTALE)) {
            for name in NAMES {
                let _ = fs::symlink_metadata(self.mounts.at(mount, name));
            }
            found = act(self.mounts.dir(mount));
        }
        let expected = act(self.local.path());
        self.log.push(format!("mount {mount}: {what} -> {expected:?}"));
        assert_eq!(found, expected, "\n{}", self.recent());
    }

    fn recent(&self) -> String {
        let from = self.log.len().saturating_sub(60);
        self.log[from..].join("\n")
    }

    fn step(&mut self, rng: &mut Rng) {
        let mount = rng.below(self.count as u64) as usize;
        let name = rng.pick(&NAMES);
        let other = rng.pick(&NAMES);
        let (at, len) = (rng.below(70_000), 1 + rng.below(20_000) as usize);
        let data = vec![b'a' + rng.below(26) as u8; len];
        match rng.below(23) {
            0 => self.both(mount, format!("mkdir {name}"), |top| {
                seen(fs::create_dir(top.join(name)).map(|()| String::new()))
            }),
            1 => self.both(mount, format!("rmdir {name}"), |top| {
                seen(fs::remove_dir(top.join(name)).map(|()| String::new()))
            }),
            2 | 3 => self.both(mount, format!("unlink {name}"), |top| {
                // Of a directory, Linux and tmpfs agree on the error.
                seen(fs::remove_file(top.join(name)).map(|()| String::new()))
            }),
            4 | 5 => self.both(mount, format!("rename {name} {other}"), |top| {
                seen(fs::rename(top.join(name), top.join(other)).map(|()| String::new()))
            }),
            6 => self.both(mount, format!("exchange {name} {other}"), |top| {
                let (from, to) = (top.join(name), top.join(other));
                errno(renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE), |()| String::new())
            }),
            7 => self.both(mount, format!("link {name} {other}"), |top| {
                seen(fs::hard_link(top.join(name), top.join(other)).map(|()| String::new()))
            }),
            8 | 9 => self.both(mount, format!("write {name}, {len} bytes"), |top| {
                seen(fs::write(top.join(name), &data).map(|()| String::new()))
            }),
            10 => self.both(mount, format!("truncate {name} to {at}"), |top| {
                let file = fs::OpenOptions::new().write(true).open(top.join(name));
                seen(file.and_then(|file| file.set_len(at)).map(|()| String::new()))
            }),
            11 => self.both(mount, format!("append {len} to {name}"), |top| {
                let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE;
                let file = open(top.join(name), flags, Mode::from_raw_mode(0o644));
                errno(file.and_then(|file| write(&file, &data)), |n| n.to_string())
            }),
            12 => self.both(mount, format!("chmod {name}"), |top| {
                let perm = fs::Permissions::from_mode(0o600 | (at % 64) as u32);
                seen(fs::set_permissions(top.join(name), perm).map(|()| String::new()))
            }),
            13 | 14 => self.both(mount, format!("stat {name}"), |top| {
                seen(fs::symlink_metadata(top.join(name)).map(|m| {
                    let size = if m.is_dir() { 0 } else { m.len() };
                    let time = if m.is_file() { shown(m.mtime()) } else { String::new() };
                    format!("{:o} {} {} {size} {time}", m.mode(), m.nlink(), m.uid())
                }))
            }),
            15 => self.both(mount, format!("read {name}"), |top| {
                seen(fs::read(top.join(name)).map(|bytes| sum(&bytes)))
            }),
            16 => self.both(mount, "list".into(), |top| {
                let list = |dir: PathBuf| -> std::io::Result<BTreeSet<String>> {
                    let names = fs::read_dir(dir)?.map(|e| Ok(e?.file_name().to_string_lossy().into_owned()));
                    names.collect()
                };
                let (above, below) = (list(top.to_path_buf()), list(top.join("d")));
                seen(above.map(|above| format!("{above:?} {:?}", below.ok())))
            }),
            17 if self.open.len() < 6 => {
                let flags = OFlags::RDWR;
                let mode = Mode::empty();
                let mounted = open(self.mounts.at(mount, name), flags, mode);
                let local = open(self.local.path().join(name), flags, mode);
                self.log.push(format!("mount {mount}: open {name} -> {:?}", local.as_ref().err()));
                match (mounted, local) {
                    (Ok(mounted), Ok(local)) => self.open.push(Open { mounted, local }),
                    (found, expected) => {
                        assert_eq!(found.err(), expected.err(), "\n{}", self.recent());
                    }
                }
            }
            17 => {
                let at = rng.below(self.open.len() as u64) as usize;
                self.log.push(format!("close {at}"));
                self.open.swap_remove(at);
            }
            18 | 19 => {
                let (from, to) = (rng.below(5) * PAGE, rng.below(5) * PAGE);
                let odd = if rng.below(4) == 0 { 1 + rng.below(PAGE) } else { 0 };
                let len = if rng.below(2) == 0 { 1 + rng.below(90_000) } else { PAGE * (1 + rng.below(4)) };
                self.both(
                    mount,
                    format!("copy {len} from {name} at {from} to {other} at {to} + {odd}"),
                    |top| {
                        errno(copy(&top.join(name), from, &top.join(other), to + odd, len), |n| n.to_string())
                    },
                );
            }
            _ if self.open.is_empty() => {}
            _ => self.use_open(rng, at, &data),
        }
    }

    /// Uses a file that is open.
    fn use_open(&mut self, rng: &mut Rng, at: u64, data: &[u8]) {
        let number = rng.below(self.open.len() as u64) as usize;
        let which = rng.below(7);
        let mode = rng.pick(&[0o600, 0o644, 0o4711, 0o2755, 0o6640]);
        let time = Timespec { tv_sec: rng.below(1000) as i64, tv_nsec: 0 };
        let act = |file: &OwnedFd| match which {
            0 => errno(pwrite(file, data, at), |n| format!("wrote {n}")),
            1 => {
                let mut found = vec![0; 40_000];
                errno(pread(file, &mut found, at), |n| sum(&found[..n]))
            }
            2 => errno(ftruncate(file, at), |()| "cut".into()),
            3 => errno(fchmod(file, Mode::from_raw_mode(mode)), |()| format!("mode {mode:o}")),
            4 => {
                let owner = Some(Uid::from_raw(time.tv_sec as u32 % 3));
                errno(fchown(file, owner, None), |()| format!("owner {owner:?}"))
            }
            5 => {
                let times = Timestamps { last_access: time, last_modification: time };
                errno(futimens(file, &times), |()| format!("time {}", time.tv_sec))
            }
            _ => errno(e2e::rustix::fs::fstat(file), |stat| {
                let time = shown(stat.st_mtime);
                format!("{:o} {} {} {} {time}", stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_size)
            }),
        };
        let (found, expected) = (act(&self.open[number].mounted), act(&self.open[number].local));
        self.log.push(format!("open file {number}: {which} at {at}, {} bytes -> {expected:?}", data.len()));
        assert_eq!(found, expected, "\n{}", self.recent());
    }
}

/// Copies as cp(1) does, which shares whole pages where it can; how many bytes.
fn copy(from: &Path, from_at: u64, to: &Path, to_at: u64, len: u64) -> Result<u64, Errno> {
    let from = open(from, OFlags::RDONLY, Mode::empty())?;
    let to = open(to, OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o644))?;
    let mut done = 0;
    while done < len {
        let (mut here, mut there) = (from_at + done, to_at + done);
        let rest = (len - done) as usize;
        match copy_file_range(&from, Some(&mut here), &to, Some(&mut there), rest)? as u64 {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}

/// A modification time that a program has set; those of writes all look the same.
fn shown(mtime: i64) -> String {
    if mtime < 1_000_000_000 { mtime.to_string() } else { "lately".into() }
}

/// Tells contents apart.
fn sum(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(1_000_003) ^ u64::from(*byte));
    format!("{} bytes, {sum:x}", bytes.len())
}

fn random(options: &[&str], steps: usize) {
    on_mounts(options, |mounts| {
        let seed = Rng::seed_from_env("RCHFS_MOUNTS_SEED");
        println!("RCHFS_MOUNTS_SEED={seed}");
        let mut rng = Rng::new(seed);
        let local = TempDir::with_prefix_in("rchfs-e2e-model.", "/dev/shm").expect("/dev/shm can be written");
        fs::set_permissions(local.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (open, log) = (Vec::new(), Vec::new());
        let mut world = World { mounts, count: options.len(), local, open, log };
        for _ in 0..steps {
            world.step(&mut rng);
        }
    });
}

#[test]
fn two_mounts_are_as_one_local_file_system() {
    random(&["", ""], 4000);
}

#[test]
fn four_mounts_are_as_one_local_file_system() {
    random(&["", "", "cache=none", ""], 4000);
}

#[test]
fn mounts_with_and_without_cxl_are_as_one_local_file_system() {
    random(&["", "cxl=none", "cxl=none,cache=none"], 3000);
}

/// All at once: nobody hangs, nobody fails in a way that no local file system would, and all agree in the end.
#[test]
fn mounts_that_do_everything_at_once_agree_in_the_end() {
    everything_at_once(&["", "", ""]);
}

#[test]
fn mounts_with_and_without_cxl_that_do_everything_at_once_agree_in_the_end() {
    everything_at_once(&["", "cxl=none", "cxl=none"]);
}

fn everything_at_once(options: &[&str; 3]) {
    on_mounts(options, |m| {
        let seed = Rng::seed_from_env("RCHFS_MOUNTS_SEED");
        println!("RCHFS_MOUNTS_SEED={seed}");
        fs::create_dir(m.at(0, "d")).unwrap();
        let work = |mount: usize, number: u64| {
            let mut rng = Rng::new(seed.wrapping_add(number));
            let time = Timespec { tv_sec: number as i64, tv_nsec: 5 };
            let times = Timestamps { last_access: time, last_modification: time };
            for _ in 0..400 {
                let (name, other) = (m.at(mount, rng.pick(&NAMES)), m.at(mount, rng.pick(&NAMES)));
                let result = match rng.below(10) {
                    0 => fs::remove_file(&name),
                    1 => fs::rename(&name, &other),
                    2 => fs::hard_link(&name, &other),
                    3 | 4 => fs::write(&name, vec![b'x'; rng.below(30_000) as usize]),
                    5 => fs::metadata(&name).map(drop),
                    6 => fs::create_dir(&name),
                    7 => fs::read_dir(&name).map(|entries| assert!(entries.count() < 100)),
                    8 => fs::OpenOptions::new().write(true).open(&name).and_then(|file| {
                        std::io::Write::write_all(&mut &file, &[b'y'; 100])?;
                        file.set_permissions(fs::Permissions::from_mode(0o600 | (number as u32)))?;
                        futimens(&file, &times)?;
                        std::io::Write::write_all(&mut &file, &[b'z'; 100])
                    }),
                    _ => fs::read(&name).map(drop),
                };
                let code = result.err().and_then(|error| error.raw_os_error());
                // ESTALE may be: what a name stood for was replaced twice while it was being opened.
                let bad = [libc::EIO, libc::EAGAIN, libc::EBADF];
                assert!(code.is_none_or(|code| !bad.contains(&code)), "{name:?}: {code:?}");
            }
        };
        let work = &work;
        scope(|scope| (0..6).for_each(|n| drop(scope.spawn(move || work((n % 3) as usize, n)))));
        let first = tree::read(m.dir(0));
        for other in 1..3 {
            assert_eq!(tree::first_difference(&tree::read(m.dir(other)), &first), None);
        }
    });
}
