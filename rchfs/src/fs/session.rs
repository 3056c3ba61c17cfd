//! This mount's session at the master: messages, and whether the leases can still be relied on.
//!
//! The leases hold until [`LEASE`] after the last poll that was answered was sent, by the clock that goes on while the
//! host sleeps. Whoever is about to rely on a lease asks [`Session::is_valid`]; a mount that was stopped so finds out
//! before it reads or writes anything. What remains: a thread that is stopped between that question and the copy
//! that follows. Pages that were freed meanwhile are out of its reach (their ids are never used again), those that
//! still belong to the file are not; rchfs/SEMANTICS.md says so.

use super::error::{FsError, Result};
use parking_lot::{Condvar, Mutex};
use pool::addr::RackId;
use pool::proto::cluster::ClientName;
use pool::proto::mount::{LEASE, MountReply, MountRequest};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long an operation waits for a session before it fails.
const PATIENCE: Duration = Duration::from_secs(10);
const LEASE_NS: u64 = LEASE.as_nanos() as u64;

/// Which session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Its number at the master.
    pub number: u64,
    /// Counts the sessions of this mount.
    pub generation: u64,
    /// Until when its leases hold, in nanoseconds of [`now`].
    until: u64,
    /// What the last session left has been dealt with: its leases may be relied on.
    ready: bool,
}

/// The session. Its lock is a leaf.
pub struct Session {
    transport: Arc<dyn Transport>,
    by: String,
    client: (RackId, ClientName),
    current: Mutex<Current>,
    changed: Condvar,
    /// As in `current`, if that is ready, and 0 otherwise: read at every access.
    valid_until: AtomicU64,
    messages: AtomicU64,
}

/// The clock of leases, in nanoseconds: it goes on while the host sleeps.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a timespec to write to.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    // Without a clock nothing may be relied on.
    if done == 0 { time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 } else { u64::MAX }
}

impl Session {
    /// Opens a session for `by`, which is for people to read, and which is this client of that rack.
    ///
    /// # Errors
    /// If the master does not answer.
    pub fn open(transport: Arc<dyn Transport>, by: String, client: (RackId, ClientName)) -> Result<Self> {
        let session = Self {
            transport,
            by,
            client,
            current: Mutex::default(),
            changed: Condvar::new(),
            valid_until: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        };
        session.reopen()?;
        session.ready(session.current().generation);
        Ok(session)
    }

    /// Opens another session, which nobody relies on before [`ready`](Self::ready).
    pub(super) fn reopen(&self) -> Result<()> {
        self.valid_until.store(0, Ordering::SeqCst);
        let at = now();
        let open = MountRequest::Open { by: self.by.clone(), client: self.client };
        let MountReply::Opened { session } = self.call(open)? else {
            return Err(FsError::BadReply(NodeId::Master));
        };
        let mut current = self.current.lock();
        let generation = current.generation + 1;
        *current = Current { number: session, generation, until: at.saturating_add(LEASE_NS), ready: false };
        Ok(())
    }

    /// The session may be relied on, if it still is this one.
    pub(super) fn ready(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation != generation {
            return;
        }
        current.ready = true;
        self.valid_until.store(current.until, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// A poll of this session that was sent at `sent` has been answered.
    pub(super) fn renewed(&self, generation: u64, sent: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.until = current.until.max(sent.saturating_add(LEASE_NS));
            if current.ready {
                self.valid_until.store(current.until, Ordering::SeqCst);
                self.changed.notify_all();
            }
        }
    }

    /// This session is over: nothing may be relied on until there is another.
    pub(super) fn ended(&self, generation: u64) {
        let mut current = self.current.lock();
        if current.generation == generation {
            current.ready = false;
            self.valid_until.store(0, Ordering::SeqCst);
        }
    }

    /// Which session this is.
    pub(super) fn current(&self) -> Current {
        *self.current.lock()
    }

    /// Whether leases can be relied on now.
    #[inline]
    pub(super) fn is_valid(&self) -> bool {
        now() < self.valid_until.load(Ordering::SeqCst)
    }

    /// How long they can be at least.
    pub(super) fn left(&self) -> Duration {
        Duration::from_nanos(self.valid_until.load(Ordering::SeqCst).saturating_sub(now()))
    }

    /// Waits until leases can be relied on.
    ///
    /// # Errors
    /// [`FsError::NoSession`] after a while.
    pub(super) fn wait_valid(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut current = self.current.lock();
        while !self.is_valid() {
            if Instant::now() >= deadline {
                return Err(FsError::NoSession);
            }
            self.changed.wait_for(&mut current, Duration::from_millis(100));
        }
        Ok(())
    }

    /// Sends a message and waits for its answer.
    ///
    /// # Errors
    /// [`FsError::Mount`] if the master refuses, or that it does not answer.
    pub(super) fn call(&self, request: MountRequest) -> Result<MountReply> {
        self.messages.fetch_add(1, Ordering::Relaxed);
        match self.transport.call(NodeId::Master, Request::Mount(request))? {
            Reply::Mount(reply) => Ok(reply?),
            _ => Err(FsError::BadReply(NodeId::Master)),
        }
    }

    /// As [`call`](Self::call), but not among the messages that are counted: those that are sent anyway.
    pub(super) fn call_uncounted(&self, request: MountRequest) -> Result<MountReply> {
        match self.transport.call(NodeId::Master, Request::Mount(request))? {
            Reply::Mount(reply) => Ok(reply?),
            _ => Err(FsError::BadReply(NodeId::Master)),
        }
    }

    /// Messages sent to the master so far, without polls.
    pub(super) fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}
