//! The kernel's table of mounts (`/proc/self/mountinfo`), read only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which the kernel lists our mounts.
pub const FS_TYPE: &str = "fuse.rchfs";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its device, as `major:minor`; unique among the mounts there are.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type.
    pub fs_type: String,
}

impl Mount {
    /// Whether it is one of ours.
    pub fn is_rchfs(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// The mount that is seen at `dir` (an absolute path without links), if `dir` is a mount point: of
/// several on one another the last.
///
/// # Errors
/// If the table cannot be read.
pub fn top(dir: &Path) -> io::Result<Option<Mount>> {
    let text = fs::read("/proc/self/mountinfo")?;
    Ok(mounts(&text).filter(|m| m.point == dir).last())
}

/// The mounts in the text of a table.
pub fn mounts(text: &[u8]) -> impl Iterator<Item = Mount> {
    text.split(|b| *b == b'\n').filter_map(parse)
}

/// One line: `36 35 98:0 /root /point options optional... - type source options`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|b| *b == b' ');
    let device = String::from_utf8(words.nth(2)?.to_vec()).ok()?;
    let point = PathBuf::from(OsString::from_vec(unescape(words.nth(1)?)));
    words.find(|w| *w == b"-")?;
    let fs_type = String::from_utf8(unescape(words.next()?)).ok()?;
    Some(Mount { device, point, fs_type })
}

/// The table writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        let code = (first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_understood() {
        let line =
            b"36 35 0:57 / /mnt/my\\040pool rw,nosuid shared:1 master:2 - fuse.rchfs embedded rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!((mount.device.as_str(), mount.point.as_path()), ("0:57", Path::new("/mnt/my pool")));
        assert!(mount.is_rchfs());
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"36 35 0:57 / /mnt rw"), None);
    }

    #[test]
    fn the_root_is_in_the_table() {
        assert_eq!(top(Path::new("/")).unwrap().unwrap().point, Path::new("/"));
        assert_eq!(top(Path::new("/no/such/mount")).unwrap(), None);
    }

    #[test]
    fn a_backslash_that_escapes_nothing_stays() {
        assert_eq!(unescape(b"a\\134b\\9"), b"a\\b\\9");
    }
}
