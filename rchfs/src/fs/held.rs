//! Leases on files: how they are had, and what this mount keeps back under them.
//!
//! Under an exclusive lease new pages, a new size, and attributes that were set ([`kept`](super::kept)) are not told to
//! the master one by one, but all together: within [`Fs::tend`]'s time, at close(2) and fsync(2), when somebody asks for
//! the attributes, and before the lease is given up.

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Held, State};
use super::known::At;
use super::map::ExtentMap;
use super::session::now;
use super::shared::Shared;
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use pool::addr::PageRun;
use pool::proto::NodeId;
use pool::proto::meta::{Attr, Extent, Ino, MetaReply, MetaRequest};
use pool::proto::mount::{Acknowledged, Granted, MountError, MountReply, MountRequest, Revoke};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often a lease is asked for that is taken away again before it is used.
const TRIES: u32 = 10_000;
/// Bytes that may be kept back of one file.
pub(super) const KEEP_BACK: u64 = 64 << 20;

/// What came of a poll.
#[derive(Debug)]
pub enum Polled {
    /// This is revoked, perhaps nothing: to be [given up](Fs::give_up_lease) and [acknowledged](Fs::acknowledge).
    Revoked(Vec<Revoke>),
    /// The session had ended, and there is another: [`Fs::recover`] is to be called, by another thread than the one
    /// that polls.
    NewSession,
}

/// A lease as the master granted it.
struct Taken {
    at: At,
    attr: Attr,
    granted: Granted,
    extents: Vec<Extent>,
    shared: Vec<PageRun>,
}

impl Fs {
    /// Whether the state may be used for what needs `want`.
    pub(super) fn may_use(&self, state: &State, want: Held) -> bool {
        state.held >= want && self.shared.as_ref().is_none_or(|shared| shared.session.is_valid())
    }

    /// The state, shared, with at least this lease.
    pub(super) fn loaded<'f>(&self, file: &'f File, want: Held) -> Result<RwLockReadGuard<'f, State>> {
        for _ in 0..TRIES {
            let state = file.state.read();
            if self.may_use(&state, want) {
                return Ok(state);
            }
            drop(state);
            self.acquire(file, want)?;
        }
        Err(FsError::NoSession)
    }

    /// The state, exclusively, with the right to write.
    pub(super) fn exclusive<'f>(&self, file: &'f File) -> Result<RwLockWriteGuard<'f, State>> {
        for _ in 0..TRIES {
            let state = file.state.write();
            if self.may_use(&state, Held::Exclusive) {
                return Ok(state);
            }
            drop(state);
            self.acquire(file, Held::Exclusive)?;
        }
        Err(FsError::NoSession)
    }

    /// Asks for a lease, or waits for another thread that does; the caller looks whether it is there now.
    fn acquire(&self, file: &File, want: Held) -> Result<()> {
        let Some(shared) = &self.shared else {
            let mut state = file.state.write();
            return if state.held == Held::Nothing { self.load(file, &mut state) } else { Ok(()) };
        };
        self.about_to_wait();
        shared.session.wait_valid()?;
        let mut asking = file.asking.lock();
        if *asking {
            file.asked.wait(&mut asking);
            return Ok(());
        }
        *asking = true;
        drop(asking);
        let result = self.ask(shared, file, want);
        file.stop_asking();
        result
    }

    fn ask(&self, shared: &Shared, file: &File, want: Held) -> Result<()> {
        let wants_to_write = want == Held::Exclusive || file.writers.load(Ordering::SeqCst) > 0;
        let held = if wants_to_write { Held::Exclusive } else { Held::Shared };
        let mut state = file.state.write();
        if state.held >= held {
            return Ok(());
        }
        // Revoking takes the map away, then locks the state: a map that is still there is good.
        if state.held == Held::Nothing
            && let Some((attr, extents, exclusive)) = shared.known.take_extents(file.ino, wants_to_write)
        {
            let held = if exclusive { Held::Exclusive } else { Held::Shared };
            *state = State::of(held, attr, extents, &[]);
            return Ok(());
        }
        drop(state);
        let generation = shared.session.current().generation;
        let taken = match take(shared, file.ino, wants_to_write) {
            Err(FsError::Mount(MountError::Expired)) => {
                shared.session.ended(generation);
                return Ok(());
            }
            other => other?,
        };
        let mut state = file.state.write();
        if shared.known.note(taken.at, taken.granted, false) && state.held < held {
            *state = State::of(held, taken.attr, taken.extents, &taken.shared);
        }
        Ok(())
    }

    /// Something is kept back of the file: it is looked after from now on.
    pub(super) fn keeps_back(&self, file: &Arc<File>) {
        if let Some(shared) = &self.shared
            && !file.queued.swap(true, Ordering::AcqRel)
        {
            shared.dirty.lock().push(file.clone());
        }
    }

    /// Tells the master what was kept back of the file.
    pub(super) fn tell(&self, file: &File) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        if !file.touched.load(Ordering::Acquire) && !file.state.read().dirty {
            return Ok(());
        }
        self.tell_locked(file, &mut file.state.write())
    }

    /// As [`tell`](Self::tell), with the state locked.
    pub(super) fn tell_locked(&self, file: &File, state: &mut State) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let touch = file.touched.swap(false, Ordering::AcqRel);
        if !touch && !state.dirty {
            return Ok(());
        }
        if state.held < Held::Exclusive {
            // It was lost, and said so.
            return Ok(());
        }
        if !self.still_has_pending(state) {
            self.give_up(file, state);
            return Ok(());
        }
        let extents: Vec<Extent> = state.pending.extents().collect();
        let set = state.kept.map(|kept| kept.to_tell(touch));
        let request =
            MetaRequest::Commit { ino: file.ino, extents, size: state.size, touch, kill_suid: false, set };
        match shared.meta_held(&request) {
            Ok(MetaReply::Attr(_)) => {
                (state.pending, state.kept) = (ExtentMap::default(), None);
                (state.dirty, state.unsure) = (false, false);
                Ok(())
            }
            Ok(_) => Err(Self::bad_reply()),
            Err(why) => {
                state.unsure |= !matches!(why, FsError::Lost);
                if touch {
                    file.touched.store(true, Ordering::Release);
                }
                Err(why)
            }
        }
    }

    /// What time brings: what was kept back is told, and what is not used is given up. Called a few times a second.
    pub fn tend(&self) {
        let Some(shared) = &self.shared else { return };
        let dirty = std::mem::take(&mut *shared.dirty.lock());
        for file in dirty {
            file.queued.store(false, Ordering::Release);
            if let Err(why) = self.tell(&file) {
                log::debug!("inode {}: told later: {why}", file.ino.0);
                self.keeps_back(&file);
            }
            self.fetch_stragglers(&file);
        }
        self.tell_atimes();
        self.release_unused();
    }

    /// Waits until something is revoked, or a moment has passed, and renews the leases; returns what is revoked.
    ///
    /// # Errors
    /// If the master does not answer. If the session has ended, another is opened, and what to do then is in
    /// [`Polled::NewSession`].
    pub fn poll(&self) -> Result<Polled> {
        let Some(shared) = &self.shared else { return Ok(Polled::Revoked(Vec::new())) };
        let (session, current, sent) = (&shared.session, shared.session.current(), now());
        match session.call_uncounted(MountRequest::Poll { session: current.number }) {
            Ok(MountReply::Revoked(list)) => {
                session.renewed(current.generation, sent);
                Ok(Polled::Revoked(list))
            }
            Ok(_) => Err(Self::bad_reply()),
            Err(FsError::Mount(MountError::Expired)) => {
                session.ended(current.generation);
                if shared.leaving.load(Ordering::SeqCst) {
                    return Ok(Polled::Revoked(Vec::new()));
                }
                session.reopen()?;
                Ok(Polled::NewSession)
            }
            Err(why) => Err(why),
        }
    }

    /// Says that these have been given up.
    ///
    /// # Errors
    /// If the master does not answer.
    pub fn acknowledge(&self, done: Vec<Acknowledged>) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let session = shared.session.current().number;
        shared.session.call_uncounted(MountRequest::Acknowledge { session, done }).map(drop)
    }

    /// Ends the session, in good order, and returns its number. A poll that is under way ends, but may be just opening another
    /// session: to be called again when nobody polls any more, with what it returned.
    ///
    /// # Errors
    /// If the master does not answer.
    pub fn leave(&self, left: Option<u64>) -> Result<u64> {
        let Some(shared) = &self.shared else { return Ok(0) };
        let leaves_again = shared.leaving.swap(true, Ordering::SeqCst);
        if !leaves_again {
            self.tend();
        }
        let session = shared.session.current().number;
        if left != Some(session) {
            shared.session.call_uncounted(MountRequest::Close { session })?;
        }
        Ok(session)
    }

    /// After the session was lost, and another opened: what was kept back is told if nobody has changed the file
    /// since, and is given up otherwise.
    pub fn recover(&self) {
        let Some(shared) = &self.shared else { return };
        let generation = shared.session.current().generation;
        let files = self.inodes.all_live();
        for file in &files {
            file.start_asking();
        }
        // Pages that no file has are this mount's only if the daemon knows it.
        let known_there = self.pool.check_in();
        if let Err(why) = &known_there {
            log::warn!("what was written and not told is lost: {why}");
        }
        let known: Vec<_> = files.iter().map(|file| shared.known.attr(file.ino)).collect();
        shared.known.clear(generation);
        self.reclaim(shared);
        let mut changed = Vec::new();
        for (file, known) in files.iter().zip(known) {
            let mut state = file.state.write();
            self.size_in_doubt(file, &state);
            let held = std::mem::replace(&mut state.held, Held::Nothing);
            let has_pending = known_there.is_ok() && self.still_has_pending(&state);
            drop(state);
            let same = has_pending && held == Held::Exclusive && take_again(shared, file, known);
            if !same {
                let mut state = file.state.write();
                self.give_up(file, &mut state);
                if held != Held::Nothing || self.may_have_stragglers(file) {
                    file.fences.fetch_add(1, Ordering::SeqCst);
                    file.fenced.store(true, Ordering::SeqCst);
                    changed.push(file.ino);
                }
            }
        }
        shared.session.ready(generation);
        files.iter().for_each(|file| file.stop_asking());
        if let Some(kernel) = self.kernel.get() {
            changed.iter().for_each(|ino| kernel.drop_pages(*ino));
            kernel.forget_names();
            self.inodes.doubt_all();
            self.inodes.all().into_iter().for_each(|ino| kernel.attributes_changed(ino));
            files.iter().for_each(|file| self.have_size_asked_for(file));
        }
        for file in &files {
            file.fenced.store(false, Ordering::SeqCst);
        }
    }

    /// Forgets what was kept back: the file is somebody else's now.
    fn give_up(&self, file: &File, state: &mut State) {
        if state.dirty {
            log::error!("inode {}: {}", file.ino.0, FsError::Lost);
            file.lost.store(true, Ordering::Release);
        }
        let pending: Vec<Extent> = state.pending.extents().collect();
        let unsure = state.unsure;
        *state = State::default();
        file.touched.store(false, Ordering::Release);
        if unsure {
            log::warn!("inode {}: pages that may be its own return when this mount ends", file.ino.0);
        } else if !pending.is_empty() {
            self.give_back(&pending);
        }
    }

    /// Whether what was written to the file was lost since that was last asked.
    pub(super) fn check_lost(&self, file: &File) -> Result<()> {
        if file.lost.load(Ordering::Relaxed) && file.lost.swap(false, Ordering::AcqRel) {
            return Err(FsError::Lost);
        }
        Ok(())
    }
}

/// Has the exclusive lease again, if the file is as it was when it was last `known`.
fn take_again(shared: &Shared, file: &File, known: Option<Attr>) -> bool {
    let Some(known) = known else { return false };
    let Ok(taken) = take(shared, file.ino, true) else { return false };
    let stamp = |attr: &Attr| (attr.mtime, attr.ctime, attr.size, attr.blocks);
    let mut state = file.state.write();
    // Pages may have been put in the place of others, and may be shared, without a trace in the attributes.
    let mut map = State::of(Held::Exclusive, taken.attr, taken.extents, &taken.shared).map;
    state.pending.extents().for_each(|extent| map.insert(extent));
    let same = stamp(&taken.attr) == stamp(&known)
        && map.same_pages(&state.map)
        && shared.known.note(taken.at, taken.granted, false);
    if same {
        (state.held, state.map) = (Held::Exclusive, map);
    }
    same
}

/// Asks the master for a lease with the whole map.
fn take(shared: &Shared, ino: Ino, exclusive: bool) -> Result<Taken> {
    let current = shared.session.current();
    let message = MountRequest::Take { session: current.number, ino, exclusive };
    let MountReply::Answer(answer) = shared.session.call(message)? else {
        return Err(FsError::BadReply(NodeId::Master));
    };
    let at = At { generation: current.generation, seq: answer.seq };
    let MetaReply::Map { attr, mut extents, shared: mut in_others, mut next } = answer.result? else {
        return Err(FsError::BadReply(NodeId::Master));
    };
    let granted = answer.granted.into_iter().find(|granted| granted.attr.ino == ino);
    let granted = granted.ok_or(FsError::BadReply(NodeId::Master))?;
    while let Some(from) = next {
        let request = MetaRequest::Map { ino, from, limit: 4096 };
        let message = MountRequest::Do { session: current.number, request };
        let MountReply::Answer(answer) = shared.session.call(message)? else {
            return Err(FsError::BadReply(NodeId::Master));
        };
        let MetaReply::Map { extents: more, shared: also, next: then, .. } = answer.result? else {
            return Err(FsError::BadReply(NodeId::Master));
        };
        extents.extend(more);
        in_others.extend(also);
        next = then;
    }
    in_others.sort_unstable_by_key(|run| run.first);
    Ok(Taken { at, attr, granted, extents, shared: in_others })
}
