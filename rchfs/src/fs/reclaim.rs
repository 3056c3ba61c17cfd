//! What a mount that has lost its session reclaims in the next: its locks, and the inodes that programs have open, which may
//! have no name.
//!
//! Locks come back only if the master was started anew and nobody can have had them meanwhile. Of those that do not, the
//! next write, fsync(2), close(2) or lock of the file says `EIO`: a program that relied on one has lost what it relied
//! on, as if what it wrote were lost.

use super::Fs;
use super::error::{FsError, Result};
use super::shared::Shared;
use pool::proto::NodeId;
use pool::proto::meta::Ino;
use pool::proto::mount::{Lock, MountError, MountReply, MountRequest};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The most locks, and inodes, in a message.
const TOGETHER: usize = 4096;
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(3);
/// The pause after the master did not answer.
const PAUSE: Duration = Duration::from_millis(100);

impl Fs {
    /// Reclaims everything in the present session, which nobody relies on yet.
    pub(super) fn reclaim(&self, shared: &Shared) {
        let (session, was) = (shared.session.current().number, shared.reclaimed.load(Ordering::SeqCst));
        let (locks, open) = (shared.all_locks(), self.inodes.all_open());
        let count = locks.len().max(open.len()).div_ceil(TOGETHER).max(1);
        for number in 0..count {
            let (open, locks) = (part(&open, number), part(&locks, number));
            let more = number + 1 < count;
            match patiently(shared, &MountRequest::Reclaim { session, was, open, locks: locks.clone(), more })
            {
                Ok((lost, gone)) => self.not_reclaimed(shared, &lost, &gone),
                // There will be another one, in which all of it is reclaimed.
                Err(FsError::Mount(MountError::Expired)) => return,
                Err(why) => {
                    log::warn!("locks are lost: {why}");
                    self.not_reclaimed(shared, &locks, &[]);
                }
            }
        }
        shared.reclaimed.store(session, Ordering::SeqCst);
    }

    fn not_reclaimed(&self, shared: &Shared, lost: &[Lock], gone: &[Ino]) {
        lost.iter().for_each(|lock| shared.lost_lock(lock));
        for ino in lost.iter().map(|lock| lock.ino).chain(gone.iter().copied()) {
            log::error!("inode {}: a lock of it is lost, or it is no more", ino.0);
            if let Some(file) = self.inodes.live(ino) {
                file.lost.store(true, Ordering::Release);
            }
        }
    }
}

fn part<T: Clone>(all: &[T], number: usize) -> Vec<T> {
    all.chunks(TOGETHER).nth(number).unwrap_or_default().to_vec()
}

/// What could not be reclaimed.
fn patiently(shared: &Shared, request: &MountRequest) -> Result<(Vec<Lock>, Vec<Ino>)> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match shared.session.call_uncounted(request.clone()) {
            Ok(MountReply::Reclaimed { lost, gone }) => return Ok((lost, gone)),
            Ok(_) => return Err(FsError::BadReply(NodeId::Master)),
            Err(FsError::Transport(_)) if Instant::now() < deadline => sleep(PAUSE),
            Err(why) => return Err(why),
        }
    }
}
