//! Reading and writing: the hot path.
//!
//! A read, and a write to pages that exist, takes the file's state shared, cuts the range into pieces and
//! copies each straight between the caller's buffer and the pool. A write that needs pages or grows the
//! file takes the state exclusively: the data is in its pages before the master is told that they are the
//! file's, so a crash in between loses the pages (the next mount finds them) but never shows garbage.
//!
//! A page that clones have too is never written: a copy, or a new page if all of it is written, takes its place first.
//!
//! Bytes of a page past the end of the file are unspecified; whoever moves the end outwards zeroes what
//! that exposes, first.

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Handle, Held, State};
use super::held::KEEP_BACK;
use super::space::Origin;
use pool::Fill;
use pool::proto::meta::{Extent, FILE_SIZE_MAX, MetaRequest};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How a write came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteFlags {
    /// From the kernel's cache or from the program.
    pub origin: Origin,
    /// Set-id bits of the file go.
    pub kill_suid: bool,
}

impl Fs {
    /// Reads at `at` into `out`, and returns how many bytes: fewer than there is room for at the end of the
    /// file.
    pub fn read(&self, handle: u64, at: u64, out: &mut [u8]) -> Result<usize> {
        let handle = self.handles.get(handle)?;
        if !handle.access.read && !handle.access.write {
            return Err(FsError::WrongAccess);
        }
        self.was_read(&handle.file)?;
        self.read_file(&handle.file, at, out)
    }

    pub(super) fn read_file(&self, file: &File, at: u64, out: &mut [u8]) -> Result<usize> {
        let slow = file.slow.load(Ordering::Relaxed);
        if slow > 0 {
            std::thread::sleep(Duration::from_micros(100) * slow.min(50));
        }
        let state = self.loaded(file, Held::Shared)?;
        if self.shared.is_some() {
            file.fills.fetch_add(1, Ordering::SeqCst);
        }
        let len = state.size.saturating_sub(at).min(out.len() as u64);
        if !self.pool.is_mapped() {
            self.read_far(state.map.pieces(at, len, self.size), at, &mut out[..len as usize])?;
            return Ok(len as usize);
        }
        for piece in state.map.pieces(at, len, self.size) {
            let start = (piece.at - at) as usize;
            let to = &mut out[start..start + piece.len as usize];
            match piece.data {
                Some(from) => self.pool.read(from, to)?,
                None => to.fill(0),
            }
        }
        Ok(len as usize)
    }

    /// Writes all of `data` at `at`, or nothing that counts.
    pub fn write(&self, handle: u64, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        let handle = self.handles.get(handle)?;
        if !handle.access.write {
            return Err(FsError::WrongAccess);
        }
        if flags.origin == Origin::Program {
            self.begins_work(&handle);
        }
        self.write_file(&handle.file, at, data, flags)
    }

    /// Writes all of `data` at the end of a file that is shared with other mounts, if the handle was opened to
    /// append; whether it was, and where the data is then.
    pub fn append(&self, handle: u64, data: &[u8], flags: WriteFlags) -> Result<Option<u64>> {
        let handle = self.handles.get(handle)?;
        let Handle { file, access, .. } = &*handle;
        if self.shared.is_none() || !access.append || !access.write || flags.origin == Origin::Cache {
            return Ok(None);
        }
        self.begins_work(&handle);
        self.check_lost(file)?;
        let mut state = self.exclusive(file)?;
        let at = state.size;
        let end = at.checked_add(data.len() as u64).filter(|&e| e <= FILE_SIZE_MAX).ok_or(FsError::TooBig)?;
        file.wrote(true);
        if flags.kill_suid {
            self.tell_set(file, &mut state)?;
            self.kill_suid(file)?;
        }
        self.extend(file, &mut state, at..end, data, flags)?;
        Ok(Some(at))
    }

    pub(super) fn write_file(&self, file: &Arc<File>, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        if self.shared.is_some() {
            return self.write_shared(file, at, data, flags);
        }
        let end = at.checked_add(data.len() as u64).filter(|&e| e <= FILE_SIZE_MAX).ok_or(FsError::TooBig)?;
        file.wrote(flags.origin == Origin::Program);
        if flags.kill_suid {
            self.kill_suid(file)?;
        }
        let _no_clone = self.clones.read();
        let state = file.state.read();
        if state.held == Held::Exclusive && end <= state.size && self.try_overwrite(&state, at, data)? {
            return Ok(());
        }
        drop(state);
        self.extend(file, &mut *self.exclusive(file)?, at..end, data, flags)
    }

    /// As [`write_file`](Self::write_file), of a file that is shared with other mounts.
    fn write_shared(&self, file: &Arc<File>, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        let end = at.checked_add(data.len() as u64).filter(|&e| e <= FILE_SIZE_MAX).ok_or(FsError::TooBig)?;
        let cached = flags.origin == Origin::Cache;
        let fences = file.fences.load(Ordering::SeqCst);
        if cached && file.fenced.load(Ordering::SeqCst) {
            return Err(FsError::Lost);
        }
        // What was in the cache when the lease was lost may have waited for another one.
        let in_time = || match cached && file.fences.load(Ordering::SeqCst) != fences {
            true => Err(FsError::Lost),
            false => Ok(()),
        };
        self.check_lost(file)?;
        let state = self.loaded(file, Held::Exclusive)?;
        in_time()?;
        file.wrote(true);
        if !flags.kill_suid && end <= state.size && self.try_overwrite(&state, at, data)? {
            drop(state);
            self.keeps_back(file);
            return Ok(());
        }
        drop(state);
        let mut state = self.exclusive(file)?;
        in_time()?;
        file.wrote(true);
        if flags.kill_suid {
            self.tell_set(file, &mut state)?;
            self.kill_suid(file)?;
        }
        if !cached || self.makes_longer(file, end) {
            return self.extend(file, &mut state, at..end, data, flags);
        }
        // What lies beyond the end was cut off elsewhere.
        let end = end.min(state.size);
        if at >= end {
            return Ok(());
        }
        self.extend(file, &mut state, at..end, &data[..(end - at) as usize], flags)
    }

    /// Set-id bits of the file go. It must be held exclusively, with nothing set that the master does not know of.
    pub(super) fn kill_suid(&self, file: &File) -> Result<()> {
        self.commit(file, vec![], 0, WriteFlags { origin: Origin::Program, kill_suid: true })
    }

    /// Writes to pages that exist; false, with nothing written, if there is a hole or a shared page: before the caller has
    /// dealt with that, others may look at the file, or clone it.
    fn try_overwrite(&self, state: &State, at: u64, data: &[u8]) -> Result<bool> {
        let pieces = || state.map.pieces(at, data.len() as u64, self.size);
        let one = pieces().next().is_none_or(|piece| piece.len == data.len() as u64);
        if !one && pieces().any(|piece| piece.data.is_none() || piece.shared) {
            return Ok(false);
        }
        if !self.pool.is_mapped() {
            return self.overwrite_far(state.map.pieces(at, data.len() as u64, self.size), data);
        }
        for piece in state.map.pieces(at, data.len() as u64, self.size) {
            let Some(to) = piece.data.filter(|_| !piece.shared) else { return Ok(false) };
            let from = (piece.at - at) as usize;
            self.pool.write(to, &data[from..from + piece.len as usize])?;
        }
        Ok(true)
    }

    /// Writes where pages are missing or the file must grow. The file is held exclusively.
    fn extend(
        &self,
        file: &Arc<File>,
        state: &mut State,
        range: Range<u64>,
        data: &[u8],
        flags: WriteFlags,
    ) -> Result<()> {
        if range.start > state.size {
            let tail = state.size..range.start;
            self.zero_mapped(file, state, tail, flags.origin)?;
        }
        let pages = self.size.page_of(range.start)..self.size.pages_for(range.end);
        self.own(file, state, self.edges(&range), flags.origin)?;
        let holes = state.map.not_own(pages);
        self.before_taking(state);
        let new = self.take_pages(file, &holes, flags.origin, Fill::Uninit)?;
        let replaced: Vec<Extent> = holes.iter().flat_map(|hole| state.map.shared(hole.clone())).collect();
        new.iter().for_each(|&e| state.map.insert(e));
        let size = state.size.max(range.end);
        let written = self
            .zero_edges(state, &holes, &range)
            .and_then(|()| self.try_overwrite(state, range.start, data))
            .and_then(|whole| if whole { Ok(()) } else { Err(FsError::TooFewPages) })
            .and_then(|()| match self.shared {
                Some(_) => {
                    state.dirty |= !new.is_empty() || size != state.size;
                    new.iter().for_each(|&extent| state.pending.insert(extent));
                    Ok(())
                }
                None => self.commit_new(file, &new, size, state.size, flags),
            });
        match &written {
            Ok(()) => {
                state.size = size;
                self.keeps_back(file);
                let kept_back: u64 = state.pending.runs().map(|run| u64::from(run.count)).sum();
                if kept_back << self.size.shift() > KEEP_BACK {
                    self.tell_locked(file, state)?;
                }
            }
            // Nobody knows whether the pages are the file's now: ask again before the next access.
            Err(FsError::Transport(_)) if self.shared.is_none() => *state = State::default(),
            Err(_) => {
                if self.shared.is_some() {
                    holes.into_iter().for_each(|hole| state.map.remove(hole));
                    replaced.into_iter().for_each(|extent| {
                        state.map.insert(extent);
                        state.map.share(extent.at..extent.end());
                    });
                } else {
                    *state = State::default();
                }
                self.give_back(&new);
            }
        }
        written
    }

    /// Zeroes what the write `range` leaves untouched of the new pages that fill `holes`.
    fn zero_edges(&self, state: &State, holes: &[Range<u64>], range: &Range<u64>) -> Result<()> {
        let shift = self.size.shift();
        for hole in holes {
            let (start, end) = (hole.start << shift, hole.end << shift);
            self.zero_in_place(state, start..range.start.max(start))?;
            self.zero_in_place(state, range.end.min(end)..end)?;
        }
        Ok(())
    }

    /// Tells the master about new pages or a new size, if there is anything new.
    fn commit_new(&self, file: &File, new: &[Extent], size: u64, old: u64, flags: WriteFlags) -> Result<()> {
        if new.is_empty() && size == old {
            return Ok(());
        }
        self.commit(file, new.to_vec(), size, flags)
    }

    pub(super) fn commit(
        &self,
        file: &File,
        extents: Vec<Extent>,
        size: u64,
        flags: WriteFlags,
    ) -> Result<()> {
        let touch = flags.origin == Origin::Program;
        let kill_suid = flags.kill_suid;
        let set = None;
        self.meta_held(MetaRequest::Commit { ino: file.ino, extents, size, touch, kill_suid, set }).map(drop)
    }

    /// Zeroes those bytes of `range` that are in pages, which become the file's own.
    pub(super) fn zero_mapped(
        &self,
        file: &File,
        state: &mut State,
        range: Range<u64>,
        origin: Origin,
    ) -> Result<()> {
        self.own(file, state, [range.clone()], origin)?;
        self.zero_in_place(state, range)
    }

    fn zero_in_place(&self, state: &State, range: Range<u64>) -> Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        for piece in state.map.pieces(range.start, range.end - range.start, self.size) {
            if let Some(at) = piece.data {
                self.zero_piece(at, piece.len)?;
            }
        }
        Ok(())
    }

    /// Makes everything that was written to the file, and all of the namespace, survive loss of power
    /// (as far as the pool's memory does).
    pub fn fsync(&self, handle: u64) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file = &handle.file;
        self.flush_times(file)?;
        self.check_lost(file)?;
        if file.unsynced.swap(false, Ordering::AcqRel) {
            let runs: Vec<_> = self.loaded(file, Held::Shared)?.map.runs().collect();
            if let Err(e) = self.pool.sync_runs(&runs) {
                file.unsynced.store(true, Ordering::Release);
                return Err(e.into());
            }
        }
        self.fsync_names()
    }

    /// Makes the namespace survive loss of power.
    pub fn fsync_names(&self) -> Result<()> {
        self.tell_all_set()?;
        self.meta(MetaRequest::Sync).map(drop)
    }
}
