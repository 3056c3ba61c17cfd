//! Settings of a mount that only root can make, in `/sys/class/bdi`: how far the kernel reads ahead, and
//! how much dirty data it may hold. Without them everything works, slower or with less certainty about
//! space (see [`fs::space`](crate::fs)).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How far the kernel reads ahead, in KiB: a request's worth or two.
const READ_AHEAD_KB: u32 = 2048;

/// Makes the settings for the file system mounted on `dir`, as far as this process may.
pub fn tune(dir: &Path, max_dirty: Option<u64>) {
    let dev = match fs::metadata(dir) {
        Ok(m) => m.dev(),
        Err(e) => return log::debug!("looking for the settings of {}: {e}", dir.display()),
    };
    let bdi = format!("/sys/class/bdi/{}:{}", libc::major(dev), libc::minor(dev));
    set(&format!("{bdi}/read_ahead_kb"), &READ_AHEAD_KB.to_string());
    if let Some(bytes) = max_dirty {
        set(&format!("{bdi}/max_bytes"), &bytes.to_string());
    }
}

fn set(file: &str, value: &str) {
    let result: io::Result<()> = fs::write(file, value);
    log::debug!("{file} = {value}: {result:?}");
}
