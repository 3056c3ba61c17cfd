//! Being somebody else for a while.

use rustix::fs::{AtFlags, CWD, FileType, Mode, chmodat, makedev, mknodat};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Gid, Uid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::os::unix::fs::MetadataExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

/// A user without any rights (`nobody` on Debian).
pub const NOBODY: u32 = 65534;
/// Another one (`daemon`).
pub const DAEMON: u32 = 1;

/// Runs `act` with the rights of this user, group and supplementary groups: in a thread, since in the
/// kernel a thread has an identity of its own. Needs root.
pub fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    thread::scope(|scope| {
        let become_and_act = move || {
            set_thread_groups(&groups).expect("root may set its groups");
            set_thread_res_gid(gid, gid, gid).expect("root may set its group");
            set_thread_res_uid(uid, uid, uid).expect("root may become anybody");
            act()
        };
        scope.spawn(become_and_act).join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// As [`as_user`], with the user's number as its group and no other groups.
pub fn as_id<T: Send>(id: u32, act: impl FnOnce() -> T + Send) -> T {
    as_user(id, id, &[], act)
}

/// Runs `act` where everybody may open /dev/fuse, as udev arranges it on most machines. Where that is not
/// so, `act` gets a mount namespace of its own, in which a node made in `dir` takes its place. Needs root.
pub fn with_fuse_for_all<T: Send>(dir: &Path, act: impl FnOnce() -> T + Send) -> T {
    let fuse = Path::new("/dev/fuse");
    if fuse.metadata().is_ok_and(|meta| meta.mode() & 0o006 == 0o006) {
        return act();
    }
    thread::scope(|scope| {
        let prepare_and_act = move || {
            // SAFETY: of what the flag unshares, the mounts and with them the current directory, the rest
            // of this program takes nothing for shared; and it ends with this thread.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("root may have a namespace of its own");
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).expect("the namespace is ours");
            let node = dir.join("fuse");
            mknodat(CWD, &node, FileType::CharacterDevice, Mode::empty(), makedev(10, 229)).expect("a node");
            chmodat(CWD, &node, Mode::from_raw_mode(0o666), AtFlags::empty()).expect("its mode can be set");
            mount_bind(&node, fuse).expect("the namespace is ours");
            act()
        };
        scope.spawn(prepare_and_act).join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
