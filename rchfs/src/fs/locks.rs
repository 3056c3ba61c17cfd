//! Locks that programs take on files, at the master, where other mounts see them.
//!
//! fuser does not say which of flock(2) and fcntl(2) a request comes from, so both are of one kind here and see each
//! other, as they do over NFS. Their owners differ, so each is given up when it should be: those of fcntl(2) when the
//! process closes the file, that of flock(2) with the last descriptor of the open file.

use super::Fs;
use super::error::{FsError, Result};
use super::shared::Shared;
use pool::proto::NodeId;
use pool::proto::meta::Ino;
use pool::proto::mount::{Lock, LockFamily, LockHow, Locked, MountError, MountReply, MountRequest};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

/// What is asked of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWanted {
    /// The file.
    pub ino: Ino,
    /// Whose, as the kernel numbers owners.
    pub owner: u64,
    /// The owner alone is to have it.
    pub exclusive: bool,
    /// Which bytes.
    pub range: RangeInclusive<u64>,
    /// The process.
    pub pid: u32,
}

/// A lock that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InTheWay {
    /// The owner alone has it.
    pub exclusive: bool,
    /// Which bytes.
    pub range: RangeInclusive<u64>,
    /// The process; 0 if it is one of another mount.
    pub pid: u32,
}

impl Fs {
    fn shared_locks(&self) -> Result<&Shared> {
        self.shared.as_ref().ok_or(FsError::NotSupported)
    }

    /// What is in the way of a lock, if anything is.
    pub fn test_lock(&self, wanted: &LockWanted) -> Result<Option<InTheWay>> {
        match ask(self.shared_locks()?, wanted, LockHow::Test)? {
            Locked::Conflict { exclusive, range, pid } => Ok(Some(InTheWay { exclusive, range, pid })),
            _ => Ok(None),
        }
    }

    /// Takes a lock; with `wait` when it becomes free, however long that takes. Must then be called on a thread that
    /// can be spared.
    ///
    /// # Errors
    /// [`FsError::Locked`], [`FsError::Deadlock`], [`FsError::TooManyLocks`]
    pub fn lock(&self, wanted: &LockWanted, wait: bool) -> Result<()> {
        let shared = self.shared_locks()?;
        shared.lockers.lock().insert((wanted.ino, wanted.owner));
        let how = if wait { LockHow::Wait } else { LockHow::Try };
        loop {
            match ask(shared, wanted, how)? {
                Locked::Granted => return Ok(()),
                Locked::Later if shared.over.load(Ordering::Relaxed) => return Err(FsError::NoSession),
                Locked::Later => {}
                Locked::Conflict { .. } => return Err(FsError::Locked),
                Locked::Deadlock => return Err(FsError::Deadlock),
                Locked::TooMany => return Err(FsError::TooManyLocks),
            }
        }
    }

    /// Gives up locks on these bytes.
    pub fn unlock(&self, ino: Ino, owner: u64, range: RangeInclusive<u64>) -> Result<()> {
        self.give_up_locks(ino, owner, range, false)
    }

    /// Whether this owner may have locks on the file.
    pub fn may_have_locks(&self, ino: Ino, owner: u64) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.lockers.lock().contains(&(ino, owner)))
    }

    /// The owner has closed the file: its locks go.
    pub fn closed_by(&self, ino: Ino, owner: u64) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        if !shared.lockers.lock().remove(&(ino, owner)) {
            return Ok(());
        }
        self.give_up_locks(ino, owner, 0..=u64::MAX, true)
    }

    fn give_up_locks(&self, ino: Ino, owner: u64, range: RangeInclusive<u64>, all: bool) -> Result<()> {
        let shared = self.shared_locks()?;
        let session = shared.session.current().number;
        let family = LockFamily::Posix;
        let request = MountRequest::Unlock { session, ino, family, owner, range, all };
        match shared.session.call(request) {
            // They went with the session.
            Ok(_) | Err(FsError::Mount(MountError::Expired)) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

fn ask(shared: &Shared, wanted: &LockWanted, how: LockHow) -> Result<Locked> {
    shared.session.wait_valid()?;
    let LockWanted { ino, owner, exclusive, range, pid } = wanted.clone();
    let lock = Lock { ino, family: LockFamily::Posix, owner, exclusive, range, pid };
    let session = shared.session.current().number;
    match shared.session.call(MountRequest::Lock { session, lock, how })? {
        MountReply::Locked(locked) => Ok(locked),
        _ => Err(FsError::BadReply(NodeId::Master)),
    }
}
