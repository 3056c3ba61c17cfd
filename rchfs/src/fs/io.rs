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
use super::file::{File, State};
use super::space::Origin;
use pool::Fill;
use pool::proto::meta::{Extent, FILE_SIZE_MAX, MetaRequest};
use std::ops::Range;
use std::sync::atomic::Ordering;

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
        let mut state = file.state.read();
        if !state.loaded {
            drop(state);
            state = self.loaded(file)?;
        }
        let len = state.size.saturating_sub(at).min(out.len() as u64);
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

    /// The state, shared, with its map.
    pub(super) fn loaded<'a>(&self, file: &'a File) -> Result<parking_lot::RwLockReadGuard<'a, State>> {
        let mut state = file.state.write();
        if !state.loaded {
            self.load(file, &mut state)?;
        }
        Ok(parking_lot::RwLockWriteGuard::downgrade(state))
    }

    /// Writes all of `data` at `at`, or nothing that counts.
    pub fn write(&self, handle: u64, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        let handle = self.handles.get(handle)?;
        if !handle.access.write {
            return Err(FsError::WrongAccess);
        }
        self.write_file(&handle.file, at, data, flags)
    }

    pub(super) fn write_file(&self, file: &File, at: u64, data: &[u8], flags: WriteFlags) -> Result<()> {
        let end = at.checked_add(data.len() as u64).filter(|&e| e <= FILE_SIZE_MAX).ok_or(FsError::TooBig)?;
        file.wrote(flags.origin == Origin::Program);
        if flags.kill_suid {
            self.commit(file, vec![], 0, flags)?;
        }
        let _no_clone = self.clones.read();
        let state = file.state.read();
        if state.loaded && end <= state.size && self.try_overwrite(&state, at, data)? {
            return Ok(());
        }
        drop(state);
        self.extend(file, at..end, data, flags)
    }

    /// Writes to pages that exist; false, with nothing lost, if there is a hole or a shared page.
    fn try_overwrite(&self, state: &State, at: u64, data: &[u8]) -> Result<bool> {
        for piece in state.map.pieces(at, data.len() as u64, self.size) {
            let Some(to) = piece.data.filter(|_| !piece.shared) else { return Ok(false) };
            let from = (piece.at - at) as usize;
            self.pool.write(to, &data[from..from + piece.len as usize])?;
        }
        Ok(true)
    }

    /// Writes where pages are missing or the file must grow.
    fn extend(&self, file: &File, range: Range<u64>, data: &[u8], flags: WriteFlags) -> Result<()> {
        let mut state = file.state.write();
        if !state.loaded {
            self.load(file, &mut state)?;
        }
        if range.start > state.size {
            let tail = state.size..range.start;
            self.zero_mapped(file, &mut state, tail, flags.origin)?;
        }
        let pages = self.size.page_of(range.start)..self.size.pages_for(range.end);
        self.own(file, &mut state, self.edges(&range), flags.origin)?;
        let holes = state.map.not_own(pages);
        let new = self.take_pages(file, &holes, flags.origin, Fill::Uninit)?;
        new.iter().for_each(|&e| state.map.insert(e));
        let size = state.size.max(range.end);
        let written = self
            .zero_edges(&state, &holes, &range)
            .and_then(|()| self.try_overwrite(&state, range.start, data))
            .and_then(|whole| if whole { Ok(()) } else { Err(FsError::TooFewPages) })
            .and_then(|()| self.commit_new(file, &new, size, state.size, flags));
        match &written {
            Ok(()) => state.size = size,
            // Nobody knows whether the pages are the file's now: ask again before the next access.
            Err(FsError::Transport(_)) => *state = State::default(),
            Err(_) => {
                *state = State::default();
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
        self.meta_attr(MetaRequest::Commit { ino: file.ino, extents, size, touch, kill_suid }).map(drop)
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
                self.pool.zero(at, piece.len)?;
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
        if file.unsynced.swap(false, Ordering::AcqRel) {
            let runs: Vec<_> = self.loaded(file)?.map.runs().collect();
            if let Err(e) = self.pool.sync_runs(&runs) {
                file.unsynced.store(true, Ordering::Release);
                return Err(e.into());
            }
        }
        self.fsync_names()
    }

    /// Makes the namespace survive loss of power.
    pub fn fsync_names(&self) -> Result<()> {
        self.meta(MetaRequest::Sync).map(drop)
    }
}
