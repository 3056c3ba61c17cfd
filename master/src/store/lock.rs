//! One process at a time has a directory.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

const NAME: &str = "lock";

/// The lock on a directory, held as long as this lives; the kernel lets go of it if the process dies.
#[derive(Debug)]
pub(super) struct DirLock(#[expect(dead_code, reason = "held for its lock")] File);

impl DirLock {
    /// Takes the lock, and writes this process's id where the next one can read it.
    ///
    /// # Errors
    /// `InUse` if another has it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(NAME);
        let os = |what: &str, source: std::io::Error| StoreError::Os {
            what: format!("{what} {}", path.display()),
            source,
        };
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|why| os("opening", why))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who it is only makes the message better.
                let _ = file.read_to_string(&mut holder);
                let holder = Some(holder.trim()).filter(|h| !h.is_empty()).unwrap_or("(unknown)").into();
                return Err(StoreError::InUse { place: dir.display().to_string(), holder });
            }
            Err(why) => return Err(os("locking", why.into())),
        }
        file.set_len(0).map_err(|why| os("writing", why))?;
        writeln!(file, "{}", std::process::id()).map_err(|why| os("writing", why))?;
        Ok(Self(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::take(dir.path()).unwrap();
        let why = DirLock::take(dir.path()).unwrap_err().to_string();
        assert!(why.contains(&std::process::id().to_string()), "{why}");
        drop(first);
        DirLock::take(dir.path()).unwrap();
    }
}
