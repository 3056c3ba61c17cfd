//! What the command line depends on besides its words: the machine and who asks.

use std::fs;

/// Facts about the machine and the user.
#[derive(Clone, Debug)]
pub struct Host {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Whether `/etc/fuse.conf` lets ordinary users give `allow_other`.
    pub user_allow_other: bool,
}

impl Host {
    /// This machine and this user.
    pub fn probe() -> Self {
        Self {
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
            memory: total_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            user_allow_other: allows_other(&fs::read_to_string("/etc/fuse.conf").unwrap_or_default()),
        }
    }

    /// Whether the user is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// `MemTotal` in bytes. A machine that does not say is taken to have enough: the pool will find out.
fn total_memory(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.map_or(u64::MAX, |n| n.saturating_mul(1024))
}

/// Whether a `fuse.conf` has the line `user_allow_other`.
fn allows_other(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(total_memory("MemTotal:       24684096 kB\nMemFree: 1 kB\n"), 24_684_096 * 1024);
        assert_eq!(total_memory("nothing"), u64::MAX);
    }

    #[test]
    fn user_allow_other_counts_only_on_a_line_by_itself() {
        assert!(allows_other("# mount_max = 1000\n user_allow_other \n"));
        assert!(!allows_other("#user_allow_other\n# user_allow_other - using it\n"));
    }
}
