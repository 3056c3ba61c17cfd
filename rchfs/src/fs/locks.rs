//! Locks that programs take on files, at the master, where other mounts see them.
//!
//! fuser does not say which of flock(2) and fcntl(2) a request comes from, so both are of one kind here and see each
//! other, as they do over NFS. Their owners differ, so each is given up when it should be: those of fcntl(2) when the
//! process closes the file, that of flock(2) with the last descriptor of the open file.
//!
//! What was granted is kept here too, and [reclaimed](super::reclaim) in another session. **Invariant:** what is given up is
//! given up here first, and told in a session that can have reclaimed nothing of it later; what is granted is noted only if the
//! session in which it was is still the one there is, so it is in the list that the next one reclaims.

use super::Fs;
use super::error::{FsError, Result};
use super::shared::Shared;
use master::{Held, LockMode, Ranges};
use pool::proto::NodeId;
use pool::proto::meta::Ino;
use pool::proto::mount::{Lock, LockFamily, LockHow, Locked, MountError, MountReply, MountRequest};
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

/// How soon a wait that the master did not answer is begun again.
const AGAIN: Duration = Duration::from_millis(100);

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
        let shared = self.shared_locks()?;
        shared.session.wait_valid()?;
        match ask(shared, shared.session.current().number, wanted, LockHow::Test)? {
            Locked::Conflict { exclusive, range, pid } => Ok(Some(InTheWay { exclusive, range, pid })),
            _ => Ok(None),
        }
    }

    /// Takes a lock; with `wait` when it becomes free, however long that takes. Must then be called on a thread that
    /// can be spared.
    ///
    /// # Errors
    /// [`FsError::Locked`], [`FsError::Deadlock`], [`FsError::TooManyLocks`]; [`FsError::Lost`] if another lock of the
    /// file was lost, or what was written to it, and nobody has been told.
    pub fn lock(&self, wanted: &LockWanted, wait: bool) -> Result<()> {
        let shared = self.shared_locks()?;
        if let Some(file) = self.inodes.live(wanted.ino) {
            self.check_lost(&file)?;
        }
        shared.locks.lock().entry((wanted.ino, wanted.owner)).or_default();
        let how = if wait { LockHow::Wait } else { LockHow::Try };
        loop {
            shared.session.wait_valid()?;
            let current = shared.session.current();
            let is_over = shared.over.load(Ordering::Relaxed);
            match ask(shared, current.number, wanted, how) {
                Ok(Locked::Granted) if shared.note_lock(current.generation, wanted) => return Ok(()),
                // It went with the session in which it was granted.
                Ok(Locked::Granted) => {}
                Ok(Locked::Later) if is_over => return Err(FsError::NoSession),
                Ok(Locked::Later) => {}
                Ok(Locked::Conflict { .. }) => return Err(FsError::Locked),
                Ok(Locked::Deadlock) => return Err(FsError::Deadlock),
                Ok(Locked::TooMany) => return Err(FsError::TooManyLocks),
                Err(FsError::Mount(MountError::Expired)) => shared.session.ended(current.generation),
                // The master may be on its way back.
                Err(FsError::Transport(_) | FsError::Mount(MountError::Ending)) if wait && !is_over => {
                    sleep(AGAIN)
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// Gives up locks on these bytes.
    pub fn unlock(&self, ino: Ino, owner: u64, range: RangeInclusive<u64>) -> Result<()> {
        if let Some(ranges) = self.shared_locks()?.locks.lock().get_mut(&(ino, owner)) {
            ranges.cut(&range);
        }
        self.give_up_locks(ino, owner, range, false)
    }

    /// Whether this owner may have locks on the file.
    pub fn may_have_locks(&self, ino: Ino, owner: u64) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.locks.lock().contains_key(&(ino, owner)))
    }

    /// The owner has closed the file: its locks go.
    pub fn closed_by(&self, ino: Ino, owner: u64) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        if shared.locks.lock().remove(&(ino, owner)).is_none() {
            return Ok(());
        }
        self.give_up_locks(ino, owner, 0..=u64::MAX, true)
    }

    /// Tells the master, in a session in which all was reclaimed that was not given up before.
    fn give_up_locks(&self, ino: Ino, owner: u64, range: RangeInclusive<u64>, all: bool) -> Result<()> {
        let shared = self.shared_locks()?;
        loop {
            shared.session.wait_valid()?;
            let (current, family) = (shared.session.current(), LockFamily::Posix);
            let (session, range) = (current.number, range.clone());
            match shared.session.call(MountRequest::Unlock { session, ino, family, owner, range, all }) {
                Ok(_) if shared.session.current().number == session => return Ok(()),
                // Another session may have reclaimed them before this was given up in the one before.
                Ok(_) | Err(FsError::Mount(MountError::Expired)) => shared.session.ended(current.generation),
                Err(why) => return Err(why),
            }
        }
    }
}

impl Shared {
    /// A lock was granted in the session of this generation; false if there is another session by now.
    fn note_lock(&self, generation: u64, granted: &LockWanted) -> bool {
        let mut locks = self.locks.lock();
        if self.session.current().generation != generation {
            return false;
        }
        // Unless its owner has closed the file meanwhile.
        if let Some(ranges) = locks.get_mut(&(granted.ino, granted.owner)) {
            let mode = if granted.exclusive { LockMode::Write } else { LockMode::Read };
            ranges.put(&granted.range, mode, granted.pid);
        }
        true
    }

    /// All locks that this mount has.
    pub(super) fn all_locks(&self) -> Vec<Lock> {
        let locks = self.locks.lock();
        let of = |(&(ino, owner), ranges): (&(Ino, u64), &Ranges)| -> Vec<Lock> {
            let lock = |held: Held| {
                let (exclusive, range, pid) = (held.mode == LockMode::Write, held.range(), held.pid);
                Lock { ino, family: LockFamily::Posix, owner, exclusive, range, pid }
            };
            ranges.iter().map(lock).collect()
        };
        locks.iter().flat_map(of).collect()
    }

    /// This mount has not got the lock any more.
    pub(super) fn lost_lock(&self, lock: &Lock) {
        if let Some(ranges) = self.locks.lock().get_mut(&(lock.ino, lock.owner)) {
            ranges.cut(&lock.range);
        }
    }
}

fn ask(shared: &Shared, session: u64, wanted: &LockWanted, how: LockHow) -> Result<Locked> {
    let LockWanted { ino, owner, exclusive, range, pid } = wanted.clone();
    let lock = Lock { ino, family: LockFamily::Posix, owner, exclusive, range, pid };
    match shared.session.call(MountRequest::Lock { session, lock, how })? {
        MountReply::Locked(locked) => Ok(locked),
        _ => Err(FsError::BadReply(NodeId::Master)),
    }
}
