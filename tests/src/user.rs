//! Being somebody else for a while.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::panic::resume_unwind;
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
