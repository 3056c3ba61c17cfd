//! Operations on ranges of a file: fallocate(2), lseek(2) for data and holes, copy_file_range(2).

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Held, State};
use super::io::WriteFlags;
use super::space::Origin;
use pool::Fill;
use pool::proto::meta::{FILE_SIZE_MAX, MetaRequest};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What fallocate(2) does to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Falloc {
    /// Pages for it all; the file grows to its end unless `keep_size`.
    Allocate {
        /// `FALLOC_FL_KEEP_SIZE`
        keep_size: bool,
    },
    /// It becomes a hole; the size stays.
    PunchHole,
    /// It reads as zeros and has pages; the file grows unless `keep_size`.
    ZeroRange {
        /// `FALLOC_FL_KEEP_SIZE`
        keep_size: bool,
    },
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// The most bytes that one call copies: the caller asks again for the rest, and others get a turn.
const COPY_MAX: u64 = 16 << 20;
/// The size of the buffer between a read and a write of a copy.
const COPY_CHUNK: u64 = 1 << 20;
/// Pages allocated and committed in one step of fallocate.
const ALLOC_STEP: u64 = 16 << 10;

fn by_program(kill_suid: bool) -> WriteFlags {
    WriteFlags { origin: Origin::Program, kill_suid }
}

impl Fs {
    /// fallocate(2). With `kill_suid` the file loses its set-id bits.
    pub fn fallocate(&self, handle: u64, at: u64, len: u64, what: Falloc, kill_suid: bool) -> Result<()> {
        let handle = self.handles.get(handle)?;
        if !handle.access.write {
            return Err(FsError::WrongAccess);
        }
        if len == 0 {
            return Err(FsError::BadRange);
        }
        let end = at.checked_add(len).filter(|&e| e <= FILE_SIZE_MAX).ok_or(FsError::TooBig)?;
        let file = &handle.file;
        self.check_lost(file)?;
        let _no_clone = self.clones.read();
        let mut state = self.exclusive(file)?;
        self.tell_locked(file, &mut state)?;
        file.wrote(false);
        if kill_suid {
            self.kill_suid(file)?;
        }
        // Copies of shared pages may be kept back.
        self.keeps_back(file);
        match what {
            Falloc::PunchHole => self.punch(file, &mut state, at..end),
            Falloc::Allocate { keep_size } => self.allocate(file, &mut state, at..end, keep_size),
            Falloc::ZeroRange { keep_size } => {
                self.zero_mapped(file, &mut state, at..end, Origin::Program)?;
                self.allocate(file, &mut state, at..end, keep_size)
            }
        }
    }

    fn punch(&self, file: &File, state: &mut State, range: Range<u64>) -> Result<()> {
        let whole = self.size.pages_for(range.start)..self.size.page_of(range.end);
        let shift = self.size.shift();
        if whole.start < whole.end {
            self.zero_mapped(file, state, range.start..whole.start << shift, Origin::Program)?;
            self.zero_mapped(file, state, whole.end << shift..range.end, Origin::Program)?;
        } else {
            self.zero_mapped(file, state, range, Origin::Program)?;
            return self.commit(file, vec![], 0, by_program(false));
        }
        let (from, to) = (whole.start, whole.end);
        self.meta_held(MetaRequest::Punch { ino: file.ino, from, to })?;
        state.map.remove(whole);
        Ok(())
    }

    fn allocate(&self, file: &File, state: &mut State, range: Range<u64>, keep_size: bool) -> Result<()> {
        let holes = state.map.holes(self.size.page_of(range.start)..self.size.pages_for(range.end));
        self.check_room(holes.iter().map(|h| h.end - h.start).sum())?;
        if range.start > state.size && !keep_size {
            self.zero_mapped(file, state, state.size..range.start, Origin::Program)?;
        }
        if !keep_size && state.size < range.end {
            // What was kept beyond the end of the file, and the rest of its last page.
            self.zero_mapped(file, state, state.size..range.end, Origin::Program)?;
        }
        for step in holes.into_iter().flat_map(in_steps) {
            let new = self.take_pages(file, &[step], Origin::Program, Fill::Zeroed)?;
            if let Err(e) = self.commit(file, new.clone(), 0, by_program(false)) {
                // Without an answer they may be the file's.
                if !matches!(e, FsError::Transport(_)) {
                    self.give_back(&new);
                }
                return Err(e);
            }
            new.into_iter().for_each(|e| state.map.insert(e));
        }
        if !keep_size && range.end > state.size {
            self.commit(file, vec![], range.end, by_program(false))?;
            state.size = range.end;
        }
        Ok(())
    }

    /// Refuses early what cannot fit, before anything is taken.
    fn check_room(&self, pages: u64) -> Result<()> {
        let room = self.space()?.available;
        if pages > room { Err(FsError::Full) } else { Ok(()) }
    }

    /// lseek(2) for data or a hole, from `at` on.
    pub fn seek(&self, handle: u64, at: u64, what: Seek) -> Result<u64> {
        let handle = self.handles.get(handle)?;
        let state = self.loaded(&handle.file, Held::Shared)?;
        if at >= state.size {
            return Err(FsError::NothingThere(at));
        }
        match what {
            Seek::Hole => Ok(state.map.next_hole(at, self.size).min(state.size)),
            Seek::Data => state
                .map
                .next_data(at, self.size)
                .filter(|&d| d < state.size)
                .ok_or(FsError::NothingThere(at)),
        }
    }

    /// Whether the kernel may hold data of the file that it has not written yet.
    pub fn may_be_dirty(&self, handle: u64) -> bool {
        (self.shared.is_none() || self.has_writeback())
            && self.handles.get(handle).is_ok_and(|h| h.file.cached_writers.load(Ordering::Relaxed) > 0)
    }

    /// Whether a read that found the end of the file may be wrong about it: it came past the kernel's
    /// cache, and that may hold data further out.
    pub fn may_go_on(&self, handle: u64) -> bool {
        self.handles.get(handle).is_ok_and(|h| h.access.direct) && self.may_be_dirty(handle)
    }

    /// Copies up to `len` bytes between files (or within one, where the ranges do not overlap) and
    /// returns how many; fewer at the end of the source, and of a long copy. Whole pages between files are not copied but
    /// [shared](super::clone). With `kill_suid` the target
    /// loses its set-id bits. A place is a handle and an offset.
    pub fn copy(&self, from: (u64, u64), to: (u64, u64), len: u64, kill_suid: bool) -> Result<u64> {
        let ((from, from_at), (to, to_at)) = (from, to);
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        if !from.access.read || !to.access.write {
            return Err(FsError::WrongAccess);
        }
        if kill_suid {
            let mut state = self.exclusive(&to.file)?;
            self.tell_set(&to.file, &mut state)?;
            self.kill_suid(&to.file)?;
        }
        let cloned = self.clone_pages((&from.file, from_at), (&to.file, to_at), len)?;
        if cloned > 0 {
            return Ok(cloned);
        }
        let len = len.min(COPY_MAX);
        let mut buffer = vec![0; len.min(COPY_CHUNK) as usize];
        let mut done = 0;
        while done < len {
            let chunk = (len - done).min(COPY_CHUNK) as usize;
            match self.copy_chunk(&from.file, from_at + done, &to.file, to_at + done, &mut buffer[..chunk]) {
                // The end of the source, as it was when the copy came there.
                Ok(n) if n < chunk as u64 => return Ok(done + n),
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn copy_chunk(
        &self,
        from: &File,
        from_at: u64,
        to: &Arc<File>,
        to_at: u64,
        buffer: &mut [u8],
    ) -> Result<u64> {
        let read = self.read_file(from, from_at, buffer)?;
        if read > 0 {
            self.write_file(to, to_at, &buffer[..read], by_program(false))?;
        }
        Ok(read as u64)
    }
}

/// Cuts a range of pages into steps.
fn in_steps(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let end = range.end.min(at.saturating_add(ALLOC_STEP));
        let step = at..end;
        at = end;
        (step.start < step.end).then_some(step)
    })
}
