//! Who has the file system mounted: one at a time, for as long as it is heard of.
//!
//! Plain data; time is an argument, counted from any moment on. Not stored: a mount that is there when the master
//! comes back says so within a second.

use pool::proto::cluster::{ClusterError, MOUNT_LEASE};
use std::time::Duration;

/// A mount that is there.
struct Held {
    mount: u64,
    by: String,
    heard: Duration,
}

/// The mount that there is, if any.
#[derive(Default)]
pub(crate) struct Mounts(Option<Held>);

impl Mounts {
    /// The file system is this mount's from now on, for [`MOUNT_LEASE`].
    pub(crate) fn hold(&mut self, mount: u64, by: String, now: Duration) -> Result<(), ClusterError> {
        match &self.0 {
            Some(held) if held.mount != mount && now.saturating_sub(held.heard) < MOUNT_LEASE => {
                Err(ClusterError::Mounted { by: held.by.clone() })
            }
            _ => {
                self.0 = Some(Held { mount, by, heard: now });
                Ok(())
            }
        }
    }

    /// This mount is gone.
    pub(crate) fn release(&mut self, mount: u64) {
        self.0 = self.0.take().filter(|held| held.mount != mount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(100);

    fn refused(mounts: &mut Mounts, mount: u64, now: Duration) -> bool {
        mounts.hold(mount, format!("number {mount}"), now).is_err()
    }

    #[test]
    fn a_second_mount_is_told_who_has_it() {
        let mut mounts = Mounts::default();
        assert!(!refused(&mut mounts, 1, START));
        let by = "number 1".to_owned();
        assert_eq!(mounts.hold(2, "number 2".into(), START), Err(ClusterError::Mounted { by }));
    }

    #[test]
    fn a_mount_that_is_heard_of_keeps_it_and_one_that_is_not_loses_it() {
        let mut mounts = Mounts::default();
        let later = |n: u32| START + MOUNT_LEASE / 2 * n;
        assert!(!refused(&mut mounts, 1, later(0)));
        assert!(!refused(&mut mounts, 1, later(1)));
        assert!(refused(&mut mounts, 2, later(2)));
        assert!(!refused(&mut mounts, 2, later(3)));
        // The first was only stopped.
        assert!(refused(&mut mounts, 1, later(4)));
    }

    #[test]
    fn after_an_unmount_the_next_gets_it_at_once() {
        let mut mounts = Mounts::default();
        assert!(!refused(&mut mounts, 1, START));
        mounts.release(2);
        assert!(refused(&mut mounts, 2, START));
        mounts.release(1);
        assert!(!refused(&mut mounts, 2, START));
    }
}
