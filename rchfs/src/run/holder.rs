//! Which process serves a mount: for messages only, so a wrong or missing answer harms nothing.

use super::table::{self, Mount};
use std::fs;
use std::path::Path;

/// The process that serves the FUSE mount with this device (`major:minor`); `None` if the kernel does
/// not tell (before Linux 6.17), or not us.
pub fn server_of(device: &str) -> Option<u32> {
    let minor = device.strip_prefix("0:")?;
    processes().into_iter().find(|pid| connections(*pid).iter().any(|c| c == minor))
}

/// Whether the process serves a mount that can still be reached (it may hold the connection of one that
/// is gone); `None` if there is no telling.
pub fn serves(pid: u32) -> Option<bool> {
    fs::metadata(format!("/proc/{pid}/fdinfo")).ok()?;
    let table = fs::read(format!("/proc/{pid}/mountinfo")).ok()?;
    let mounted: Vec<_> = table::mounts(&table).filter(Mount::is_rchfs).collect();
    let is_mounted = |c: &String| mounted.iter().any(|m| m.device.strip_prefix("0:") == Some(c));
    Some(connections(pid).iter().any(is_mounted))
}

/// The processes that run `mount.rchfs`.
fn processes() -> Vec<u32> {
    let Ok(dir) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = dir.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_rchfs(*pid)).collect()
}

fn is_rchfs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|comm| matches!(comm.trim_end(), "mount.rchfs" | "mount-rchfs"))
}

/// The FUSE connections of a process, by number.
fn connections(pid: u32) -> Vec<String> {
    let Ok(dir) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return Vec::new() };
    dir.flatten().filter_map(|e| connection(&e.path())).collect()
}

fn connection(fdinfo: &Path) -> Option<String> {
    let text = fs::read_to_string(fdinfo).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("fuse_connection:"))?;
    Some(line.trim().to_owned())
}
