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
use super::known::{At, Known, Name};
use super::session::Session;
use parking_lot::Mutex;
use pool::proto::NodeId;
use pool::proto::meta::{Ino, MetaError, MetaReply, MetaRequest, NewNode};
use pool::proto::mount::{Answer, MountError, MountReply, MountRequest};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The most inodes in one message that says they are not used any more.
const RELEASE: usize = 4096;

/// What belongs to a namespace that others use too.
pub(super) struct Shared {
    pub session: Session,
    pub known: Known,
    /// Files with something to tell the master.
    pub dirty: Mutex<Vec<Arc<File>>>,
    /// Owners that have taken locks of fcntl(2), by inode: only they have something to give up at a close.
    pub lockers: Mutex<HashSet<(Ino, u64)>>,
    /// The mount is over: no other session is opened.
    pub leaving: AtomicBool,
}

impl Shared {
    pub fn new(session: Session) -> Self {
        let known = Known::new(session.current().generation);
        Self {
            session,
            known,
            dirty: Mutex::default(),
            lockers: Mutex::default(),
            leaving: AtomicBool::new(false),
        }
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
        let Answer { seq, result, granted, extents } = answer;
        let at = At { generation: current.generation, seq };
        granted.into_iter().for_each(|attr| {
            self.known.note(at, attr);
        });
        self.note_names(at, request, &result);
        if let (Some(extents), Ok(MetaReply::Attr(attr))) = (extents, &result) {
            self.known.note_extents(at, attr.ino, extents, false);
        }
        if let (MetaRequest::Make { node: NewNode::File, .. }, Ok(MetaReply::Attr(attr))) = (request, &result)
        {
            self.known.note_extents(at, attr.ino, Vec::new(), true);
        }
        Ok(result?)
    }

    /// What the answer says about names and extended attributes.
    fn note_names(&self, at: At, request: &MetaRequest, result: &std::result::Result<MetaReply, MetaError>) {
        let known = &self.known;
        match (request, result) {
            (MetaRequest::Lookup { name, .. }, _) if matches!(&name[..], b"." | b"..") => {}
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
            (MetaRequest::Rename { parent, name, new_parent, new_name, .. }, Ok(_)) => {
                // Of two names of one inode both stay, so even the old one is not known to be free.
                known.note_name(at, *parent, name, Name::Unknown);
                known.note_name(at, *new_parent, new_name, Name::Unknown);
            }
            (MetaRequest::GetXattr { ino, name }, Ok(MetaReply::Bytes(value))) => {
                known.note_xattr(at, *ino, name, Some(value.clone()));
            }
            (MetaRequest::GetXattr { ino, name }, Err(MetaError::NoAttribute)) => {
                known.note_xattr(at, *ino, name, None);
            }
            _ => {}
        }
    }
}

impl Fs {
    /// Messages sent to the master so far about files; 0 if nobody else uses them.
    pub fn messages(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.session.messages())
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
