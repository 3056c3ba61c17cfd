//! What a directory tree looks like from outside, in a form that can be compared.

use rustix::fs::{FileType, Stat, fstat, lgetxattr, llistxattr, lstat};
use rustix::io::{Result, pread};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

/// What there is to say about each name.
pub type Tree = BTreeMap<String, String>;

/// Everything below `top`, with itself.
pub fn read(top: &Path) -> Tree {
    let mut tree = Tree::new();
    collect(top, top, &mut tree);
    tree
}

fn collect(top: &Path, path: &Path, tree: &mut Tree) {
    let name = path.strip_prefix(top).expect("below the top").display().to_string();
    let mut text = describe(path).unwrap_or_else(|errno| format!("{errno:?}"));
    let meta = fs::symlink_metadata(path).expect("just listed");
    if meta.is_file() {
        let bytes = fs::read(path).expect("root reads everything");
        text += &format!(", {} bytes read, {:x}", bytes.len(), digest(&bytes));
    } else if meta.is_symlink() {
        text += &format!(", to {}", fs::read_link(path).expect("a link").display());
    }
    tree.insert(name, text);
    if meta.is_dir() {
        for entry in fs::read_dir(path).expect("a directory") {
            collect(top, &entry.expect("an entry").path(), tree);
        }
    }
}

/// Kind, mode, links, owner, size, times that were set, attributes.
///
/// # Errors
/// Those of lstat(2).
pub fn describe(path: &Path) -> Result<String> {
    let stat = lstat(path)?;
    Ok(format!("{}{}", describe_stat(&stat), attributes(path)))
}

/// The same, and the contents, of an open file.
pub fn describe_open(fd: &OwnedFd) -> String {
    let stat = fstat(fd).expect("it is open");
    let mut bytes = vec![0; if is(&stat, FileType::RegularFile) { stat.st_size as usize } else { 0 }];
    let count = pread(fd, &mut bytes, 0);
    format!("{}, {count:?} {:x}", describe_stat(&stat), digest(&bytes))
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

fn describe_stat(stat: &Stat) -> String {
    let kind = FileType::from_raw_mode(stat.st_mode);
    // The size of a directory is the file system's own affair.
    let size = if kind == FileType::Directory { 0 } else { stat.st_size };
    // A time of the present differs between the two; one that was set ends in 5 nanoseconds.
    let mtime = if stat.st_mtime_nsec == 5 { stat.st_mtime } else { 0 };
    format!(
        "{kind:?} {:o} links {} owner {}:{} size {size} mtime {mtime}",
        stat.st_mode & 0o7777,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
    )
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let len = llistxattr(path, &mut names).unwrap_or(0);
    let mut names: Vec<_> =
        names[..len].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")).collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        let mut value = vec![0; 4096];
        let len = lgetxattr(path, name, &mut value).expect("just listed");
        text += &format!(", {} {len} {:x}", String::from_utf8_lossy(name), digest(&value[..len]));
    }
    text
}

/// The names in a directory.
///
/// # Errors
/// Those of opening it.
pub fn list(path: &Path) -> Result<String> {
    let entries = fs::read_dir(path)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).expect("an error of the system"))?;
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    Ok(format!("{names:?}"))
}

/// FNV-1a: enough to see that two contents differ.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The first name about which the two say something else.
pub fn first_difference(got: &Tree, expected: &Tree) -> Option<String> {
    let names = got.keys().chain(expected.keys());
    let mut differing = names.filter(|name| got.get(*name) != expected.get(*name));
    differing.next().map(|name| format!("{name:?} is {:?}, expected {:?}", got.get(name), expected.get(name)))
}
