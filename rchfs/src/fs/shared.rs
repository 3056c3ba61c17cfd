//! A namespace that is shared with other mounts: operations under leases.
//!
//! **The rule that keeps mounts from waiting for each other in a circle:** nothing that a revocation needs is locked
//! while an answer of the master is awaited that may itself wait for a revocation. A revocation needs the state of
//! the file, and the kernel's pages of it; so
//! - the state of a file is locked only over messages that the master answers at once, because this mount has an
//!   exclusive lease (commit, punch, resize), and never over any other;
//! - a request of the kernel that holds pages (reading into the cache, writing from it) never waits for the master
//!   while the mount has a lease that allows pages to be in the cache: it is then answered by that lease.
//!
//! The latter holds because a file that a program has open for writing is held exclusively or not at all
//! ([`File::writers`](super::file::File)), so no write has to exchange a shared lease for an exclusive one; and a
//! revocation touches the kernel's pages only when it takes a lease away.
//!
//! **Lock order:** a file's state, then shards of [`Known`], inodes, handles, the session (all leaves).

use super::Fs;
use super::error::{FsError, Result};
use super::file::File;
use super::known::{At, Known, Name, is_dot};
use super::session::Session;
use master::Ranges;
use parking_lot::Mutex;
use pool::proto::NodeId;
use pool::proto::meta::{Attr, DirEntry, Ino, MetaError, MetaReply, MetaRequest, NewNode, RenameMode, Time};
use pool::proto::mount::{Answer, Granted, MountError, MountReply, MountRequest};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The most inodes in one message that says they are not used any more.
const RELEASE: usize = 4096;

/// Access times that are kept to be told, at most: on a busy mount some are never told.
const ATIMES: usize = 1 << 16;

/// What belongs to a namespace that others use too.
pub(super) struct Shared {
    pub session: Session,
    pub known: Known,
    /// Files with something to tell the master.
    pub dirty: Mutex<Vec<Arc<File>>>,
    /// The locks that owners have, by inode, or may have if there are none: only they have something to give up at a close.
    pub locks: Mutex<HashMap<(Ino, u64), Ranges>>,
    /// The last session in which everything was reclaimed that was had in the one before.
    pub reclaimed: AtomicU64,
    /// When leases were taken away from files that were open for writing, where the kernel collects what is written.
    pub handed_over: Mutex<HashMap<Ino, Instant>>,
    /// When inodes were read, if the master is to be told.
    atimes: Mutex<HashMap<Ino, Time>>,
    /// The kernel asks for nothing any more.
    pub over: AtomicBool,
    /// The mount is over: no other session is opened.
    pub leaving: AtomicBool,
}

impl Shared {
    pub fn new(session: Session) -> Self {
        let known = Known::new(session.current().generation);
        let reclaimed = AtomicU64::new(session.current().number);
        Self {
            session,
            known,
            dirty: Mutex::default(),
            locks: Mutex::default(),
            reclaimed,
            handed_over: Mutex::default(),
            atimes: Mutex::default(),
            over: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
        }
    }

    /// `ino` was read at this time, which the master is told later.
    pub fn note_atime(&self, ino: Ino, time: Time) {
        let mut atimes = self.atimes.lock();
        if atimes.len() < ATIMES {
            atimes.insert(ino, time);
        }
    }

    /// Whenever `ino` was read so far, its access time has been set since.
    pub fn forget_atime(&self, ino: Ino) {
        self.atimes.lock().remove(&ino);
    }

    /// Some of what was noted so, at most `limit`.
    pub fn take_atimes(&self, limit: usize) -> Vec<(Ino, Time)> {
        let mut atimes = self.atimes.lock();
        let some: Vec<_> = atimes.iter().take(limit).map(|(ino, time)| (*ino, *time)).collect();
        some.iter().for_each(|(ino, _)| {
            atimes.remove(ino);
        });
        some
    }

    /// Asks for an operation; waits for another session if this one has ended.
    pub fn meta(&self, request: MetaRequest) -> Result<MetaReply> {
        loop {
            self.session.wait_valid()?;
            let generation = self.session.current().generation;
            match self.try_meta(&request) {
                Err(FsError::Mount(MountError::Expired)) => self.session.ended(generation),
                other => return other,
            }
        }
    }

    /// As [`meta`](Self::meta), for what is done under an exclusive lease.
    ///
    /// # Errors
    /// [`FsError::Lost`] if the lease is gone.
    pub fn meta_held(&self, request: &MetaRequest) -> Result<MetaReply> {
        match self.try_meta(request) {
            Err(FsError::Mount(MountError::Expired | MountError::NotHeld(_))) => Err(FsError::Lost),
            other => other,
        }
    }

    fn try_meta(&self, request: &MetaRequest) -> Result<MetaReply> {
        let current = self.session.current();
        let message = MountRequest::Do { session: current.number, request: request.clone() };
        let MountReply::Answer(answer) = self.session.call(message)? else {
            return Err(FsError::BadReply(NodeId::Master));
        };
        let Answer { seq, mut result, granted } = answer;
        let at = At { generation: current.generation, seq };
        if let (MetaRequest::ReadDir { ino, after, limit, .. }, Ok(MetaReply::Entries(entries))) =
            (request, &mut result)
        {
            self.note_entries(at, *ino, entries, granted);
            self.known.note_listing(at, *ino, *after, entries, entries.len() < *limit as usize);
        } else {
            let made = match (request, &result) {
                (MetaRequest::Make { node: NewNode::File, .. }, Ok(MetaReply::Attr(attr))) => Some(attr.ino),
                _ => None,
            };
            granted.into_iter().for_each(|granted| {
                let exclusive = made == Some(granted.attr.ino);
                self.known.note(at, granted, exclusive);
            });
        }
        self.note_names(at, request, &result);
        if let (MetaRequest::Make { node: NewNode::Dir, .. }, Ok(MetaReply::Attr(attr))) = (request, &result)
        {
            self.known.note_empty(at, attr.ino);
        }
        Ok(result?)
    }

    /// What the answer says about names and extended attributes.
    fn note_names(&self, at: At, request: &MetaRequest, result: &std::result::Result<MetaReply, MetaError>) {
        let known = &self.known;
        match (request, result) {
            (MetaRequest::Lookup { name, .. }, _) if is_dot(name) => {}
            (
                MetaRequest::Lookup { parent, name }
                | MetaRequest::Make { parent, name, .. }
                | MetaRequest::Link { parent, name, .. },
                Ok(MetaReply::Attr(attr)),
            ) => known.note_name(at, *parent, name, Name::Is(attr.ino)),
            (MetaRequest::Lookup { parent, name }, Err(MetaError::NotFound))
            | (MetaRequest::Unlink { parent, name } | MetaRequest::Rmdir { parent, name }, Ok(_)) => {
                known.note_name(at, *parent, name, Name::Free);
            }
            (MetaRequest::Rename { parent, name, new_parent, new_name, mode }, Ok(_)) => {
                self.note_renamed(at, (*parent, name), (*new_parent, new_name), *mode);
            }
            (MetaRequest::GetXattr { ino, name }, Ok(MetaReply::Bytes(value))) => {
                known.note_xattr(at, *ino, name, Some(value.clone()));
            }
            (MetaRequest::GetXattr { ino, name }, Err(MetaError::NoAttribute)) => {
                known.note_xattr(at, *ino, name, None);
            }
            (MetaRequest::ListXattr { ino }, Ok(MetaReply::Bytes(names))) => {
                known.note_xattr_list(at, *ino, names.clone());
            }
            _ => {}
        }
    }

    /// What the listing of a directory says. Entries of which this mount has a lease get their attributes from that.
    fn note_entries(&self, at: At, dir: Ino, entries: &mut [DirEntry], granted: Vec<Granted>) {
        let leased: HashMap<Ino, Attr> = granted.iter().map(|found| (found.attr.ino, found.attr)).collect();
        granted.into_iter().for_each(|found| {
            self.known.note(at, found, false);
        });
        for entry in entries {
            if entry.attr.is_none() {
                entry.attr = leased.get(&entry.ino).copied();
            }
            if leased.contains_key(&dir) && !is_dot(&entry.name) {
                self.known.note_name(at, dir, &entry.name, Name::Is(entry.ino));
            }
        }
    }

    /// What a rename has made of two names. Of two names of one inode both stay, so even the old one is free only if
    /// they were known to be of different ones. (Nobody has changed them since: that would have been revoked first, and
    /// the kernel lets no other operation of this mount come between.)
    fn note_renamed(&self, at: At, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) {
        let (old, new) = (self.known.name(from.0, from.1), self.known.name(to.0, to.1));
        let (old, new) = match (mode, old, new) {
            (RenameMode::Exchange, Name::Is(a), Name::Is(b)) => (Name::Is(b), Name::Is(a)),
            (RenameMode::Replace | RenameMode::NoReplace, Name::Is(a), Name::Free) => {
                (Name::Free, Name::Is(a))
            }
            (RenameMode::Replace, Name::Is(a), Name::Is(b)) if a != b => (Name::Free, Name::Is(a)),
            _ => (Name::Unknown, Name::Unknown),
        };
        self.known.note_name(at, from.0, from.1, old);
        self.known.note_name(at, to.0, to.1, new);
    }
}

impl Fs {
    /// Messages sent to the master so far about files; 0 if nobody else uses them.
    pub fn messages(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.session.messages())
    }

    /// How long the kernel may believe these attributes: as long as the lease holds under which they are known, if
    /// nothing that is to be told to the master will change them.
    pub fn attr_holds(&self, attr: &Attr) -> Duration {
        let Some(shared) = &self.shared else { return Duration::ZERO };
        let left = shared.session.left();
        if self.keeps_sizes(attr) {
            return self.size_holds(shared, attr, left);
        }
        let known = shared.known.attr(attr.ino) == Some(*attr);
        let keeps_back = |file: &File| file.touched.load(Ordering::Acquire) || file.state.read().dirty;
        if known && !self.inodes.live(attr.ino).is_some_and(|file| keeps_back(&file)) {
            left
        } else {
            Duration::ZERO
        }
    }

    /// How long the kernel may believe that the name stands for this inode, or for none.
    pub fn name_holds(&self, dir: Ino, name: &[u8], is: Option<Ino>) -> Duration {
        let Some(shared) = &self.shared else { return Duration::ZERO };
        let left = shared.session.left();
        let known = is.map_or(Name::Free, Name::Is);
        if shared.known.name(dir, name) == known { left } else { Duration::ZERO }
    }

    /// `ino` is being opened. Its attributes may have been revoked while an answer with them was on its way to the
    /// kernel, which did not know the inode then; now it does.
    pub fn settle_doubt(&self, ino: Ino) {
        let doubted = || match self.has_writeback() {
            // It stays so until the length is settled, too.
            true => self.inodes.doubts(ino).is_some(),
            false => self.inodes.settle_doubt(ino),
        };
        if self.shared.is_some()
            && doubted()
            && let Some(kernel) = self.kernel.get()
        {
            kernel.attributes_changed(ino);
        }
    }

    /// Whoever waits for a lock gives up, soon: the mount is over.
    pub fn end_waits(&self) {
        if let Some(shared) = &self.shared {
            shared.over.store(true, Ordering::Relaxed);
        }
    }

    /// Whether other mounts use the files too.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Gives back leases of inodes that the kernel has forgotten; frees those without a name. What was written to
    /// them is told first.
    pub(super) fn release_unused(&self) {
        let Some(shared) = &self.shared else { return };
        let mut unused = self.inodes.take_unused();
        while !unused.is_empty() {
            let rest = unused.split_off(unused.len().min(RELEASE));
            self.give_back_leases(shared, std::mem::replace(&mut unused, rest));
        }
    }

    fn give_back_leases(&self, shared: &Shared, inos: Vec<Ino>) {
        let mut given_up = Vec::with_capacity(inos.len());
        for ino in inos {
            if let Some(file) = self.inodes.live(ino)
                && let Err(why) = self.tell(&file)
            {
                log::warn!("inode {}: {why}", ino.0);
                self.inodes.unused_again(ino);
                continue;
            }
            let seq = shared.known.forget(ino);
            if self.inodes.remove_unused(ino) {
                given_up.push((ino, seq));
            }
        }
        if given_up.is_empty() {
            return;
        }
        let session = shared.session.current().number;
        match shared.session.call(MountRequest::Release { session, inos: given_up }) {
            Ok(_) => {}
            Err(why) => log::debug!("leases are given back when the session ends: {why}"),
        }
    }
}
