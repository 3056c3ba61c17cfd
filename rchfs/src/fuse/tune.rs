//! Settings of a mount that only root can make, in `/sys/class/bdi`: how far the kernel reads ahead, and
//! how much dirty data it may hold. Without them everything works, slower or with less certainty about
//! space (see [`fs::space`](crate::fs::space)).

use std::fs;
use std::io;

/// How far the kernel reads ahead, in KiB: a request's worth or two.
const READ_AHEAD_KB: u32 = 2048;

/// The settings of one mount.
pub struct Settings {
    folder: String,
}

impl Settings {
    /// The settings of the mount with this device number, as `major:minor`. It is not asked itself: a look
    /// at its directory would keep it from being unmounted at that moment.
    pub fn of(device: &str) -> Self {
        Self { folder: format!("/sys/class/bdi/{device}") }
    }

    /// Sets what does not change over the life of the mount.
    pub fn begin(&self) {
        self.set("read_ahead_kb", u64::from(READ_AHEAD_KB));
    }

    /// Sets how many bytes of dirty data the kernel may hold, or as near to it as it accepts: not more
    /// than it allows for all file systems together.
    pub fn limit_dirty(&self, bytes: u64) {
        let mut bytes = bytes;
        while !self.set("max_bytes", bytes) && bytes > 1 << 20 {
            bytes /= 2;
        }
    }

    /// Returns false if the value is refused as too large.
    fn set(&self, name: &str, value: u64) -> bool {
        let result = fs::write(format!("{}/{name}", self.folder), value.to_string());
        log::debug!("{}/{name} = {value}: {result:?}", self.folder);
        !result.is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput)
    }
}
