//! Clones: copies of files and trees that share their pages until one side writes.
//!
//! The master counts how many places a page is in. **Invariant: a page is written in place only by a mount that holds
//! its file exclusively, and whose map says that the page is in no other place.** So whoever may write must know of a page that it is
//! shared before it can be written next:
//!
//! - In a namespace of one mount, a clone of a part of a file ([`Fs::clone_pages`]) is made under the exclusive states of
//!   both files; a clone of a tree ([`Fs::clone_tree`]) is made while nobody writes (`clones`), and every open file asks for its
//!   map anew.
//! - In one that others use too, the master first takes the right to write to the sources away from everybody, also from this mount,
//!   and the lease of the target; what was kept back is told by that. While it waits, nobody is granted them anew. An exclusive
//!   lease that is granted afterwards comes with a new map, which says what is shared. A mount that was away and has its
//!   lease again takes that map, too ([`recover`](Fs::recover)).
//!
//! Whoever writes to a shared page first puts a copy in its place ([`Fs::own`]): new page, old contents; then it writes
//! as always. The copy is committed at once, or, where others use the namespace, told with the rest of what is kept
//! back. A crash in between leaves the old contents in one page or the other.

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Held, State};
use super::io::WriteFlags;
use super::space::Origin;
use pool::Fill;
use pool::addr::GAddr;
use pool::proto::meta::{Caller, Extent, Ino, MetaError, MetaRequest};
use std::ops::Range;

/// Set on an empty directory, with an inode number in decimal as its value, it clones the directory of that number into
/// it. It is never listed and cannot be read.
pub const CLONE_XATTR: &[u8] = b"user.rchfs.clone";

/// How often a clone is tried of files whose sizes change meanwhile.
const CLONE_TRIES: u32 = 16;
/// Pages that are copied and committed in one step.
const COPY_STEP: u64 = 1024;

impl Fs {
    /// Makes all pages that `ranges` (in bytes) touch the file's own: those that are shared are copied.
    pub(super) fn own(
        &self,
        file: &File,
        state: &mut State,
        ranges: impl IntoIterator<Item = Range<u64>>,
        origin: Origin,
    ) -> Result<()> {
        for range in ranges.into_iter().filter(|range| range.start < range.end) {
            let pages = self.size.page_of(range.start)..self.size.pages_for(range.end);
            for shared in state.map.shared(pages) {
                for from in (shared.at..shared.end()).step_by(COPY_STEP as usize) {
                    let step = from..shared.end().min(from + COPY_STEP);
                    self.copy_shared(file, state, step, origin)?;
                }
            }
        }
        Ok(())
    }

    /// The parts of a write where it does not cover all of a page.
    pub(super) fn edges(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let whole = self.size.bytes() - 1;
        let partial = |at: u64| if at & whole == 0 { at..at } else { at - 1..at + 1 };
        [range.start, range.end].map(partial).into_iter()
    }

    /// Puts copies in the place of these pages of the file, which are all shared.
    fn copy_shared(&self, file: &File, state: &mut State, pages: Range<u64>, origin: Origin) -> Result<()> {
        self.before_taking(state);
        let new = self.take_pages(file, std::slice::from_ref(&pages), origin, Fill::Uninit)?;
        let flags = WriteFlags { origin: Origin::Cache, kill_suid: false };
        let done = new.iter().try_for_each(|extent| self.copy_into(state, *extent));
        if done.is_ok() && self.shared.is_some() {
            for extent in new {
                state.map.insert(extent);
                state.pending.insert(extent);
            }
            state.dirty = true;
            return Ok(());
        }
        match done.and_then(|()| self.commit(file, new.clone(), 0, flags)) {
            Ok(()) => {
                new.into_iter().for_each(|extent| state.map.insert(extent));
                Ok(())
            }
            Err(e) => {
                // Whether they are the file's now is not known if the master did not answer.
                if matches!(e, FsError::Transport(_)) && self.shared.is_none() {
                    *state = State::default();
                } else {
                    self.give_back(&new);
                }
                Err(e)
            }
        }
    }

    /// Copies what the file has at the place of `extent` into its pages.
    fn copy_into(&self, state: &State, extent: Extent) -> Result<()> {
        let (shift, len) = (self.size.shift(), self.size.bytes());
        let mut buffer = Vec::with_capacity(len as usize);
        for (at, page) in (extent.at..).zip(extent.run.iter()) {
            let to = GAddr::new(page, 0, self.size).ok_or(FsError::TooFewPages)?;
            for piece in state.map.pieces(at << shift, len, self.size) {
                buffer.clear();
                let from = piece.data.ok_or(FsError::TooFewPages)?;
                self.pool.read_into(from, piece.len as usize, &mut buffer)?;
                self.write_sole(to, &buffer)?;
            }
        }
        Ok(())
    }

    /// Copies up to `len` bytes between two files by sharing whole pages, and returns how many: 0 if the places do not
    /// lie on pages, or if it is not worth it. The last page of the source is shared even if only a part of it is
    /// its file's, where the target ends there too.
    pub(super) fn clone_pages(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u64> {
        let ((from, from_at), (to, to_at)) = (from, to);
        let aligned = (from_at | to_at) & (self.size.bytes() - 1) == 0;
        if !aligned || from.ino == to.ino || len < self.size.bytes() {
            return Ok(0);
        }
        if self.shared.is_some() {
            return self.clone_shared((from, from_at), (to, to_at), len);
        }
        let _no_clone = self.clones.read();
        let (mut source, mut target) = if from.ino < to.ino {
            let source = from.state.write();
            (source, to.state.write())
        } else {
            let target = to.state.write();
            (from.state.write(), target)
        };
        for (file, state) in [(from, &mut source), (to, &mut target)] {
            if state.held == Held::Nothing {
                self.load(file, state)?;
            }
        }
        let (pages, bytes) = self.whole_pages((source.size, from_at), (target.size, to_at), len);
        if pages == 0 {
            return Ok(0);
        }
        if to_at > target.size {
            let tail = target.size..to_at;
            self.zero_mapped(to, &mut target, tail, Origin::Program)?;
        }
        let (first, at) = (self.size.page_of(from_at), self.size.page_of(to_at));
        let size = to_at.checked_add(bytes).ok_or(FsError::TooBig)?;
        to.wrote(false);
        let (from, to) = ((from.ino, first), (to.ino, at));
        let cloned = self.meta_attr(MetaRequest::Clone { from, to, pages, size, expect: None });
        if matches!(&cloned, Ok(_) | Err(FsError::Transport(_))) {
            source.map.share(first..first + pages);
            *target = State::default();
        }
        cloned.map(|_| bytes)
    }

    /// How many whole pages of a copy of `len` bytes can be shared, and how many bytes that is. Files are given by their
    /// sizes, with the place of each, which lies on a page.
    fn whole_pages(&self, from: (u64, u64), to: (u64, u64), len: u64) -> (u64, u64) {
        let ((source, from_at), (target, to_at)) = (from, to);
        let have = source.saturating_sub(from_at).min(len);
        let to_the_end = from_at.saturating_add(have) == source && to_at.saturating_add(have) >= target;
        let pages = if to_the_end { self.size.pages_for(have) } else { self.size.page_of(have) };
        (pages, have.min(pages << self.size.shift()))
    }

    /// As [`clone_pages`](Self::clone_pages), of files that other mounts use too. Nothing is locked while the master has their
    /// leases revoked, so it is told how long the files are believed to be.
    fn clone_shared(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u64> {
        let ((from, from_at), (to, to_at)) = (from, to);
        for _ in 0..CLONE_TRIES {
            let source = self.loaded(from, Held::Shared)?.size;
            let mut target = self.loaded(to, Held::Shared)?.size;
            let (pages, bytes) = self.whole_pages((source, from_at), (target, to_at), len);
            if pages == 0 {
                return Ok(0);
            }
            if target < to_at {
                self.lengthen(to, to_at)?;
                target = to_at;
            }
            let (first, at) = (self.size.page_of(from_at), self.size.page_of(to_at));
            let size = to_at.checked_add(bytes).ok_or(FsError::TooBig)?;
            let expect = Some((source, target));
            let request =
                MetaRequest::Clone { from: (from.ino, first), to: (to.ino, at), pages, size, expect };
            to.wrote(false);
            match self.meta_attr(request) {
                Ok(_) => return Ok(bytes),
                Err(FsError::Meta(MetaError::Busy)) => {}
                Err(why) => return Err(why),
            }
        }
        // Somebody makes one of them longer all the time.
        Ok(0)
    }

    /// Makes a file that other mounts use too at least `size` bytes long.
    fn lengthen(&self, file: &File, size: u64) -> Result<()> {
        let mut state = self.exclusive(file)?;
        if size > state.size {
            let tail = state.size..size;
            self.zero_mapped(file, &mut state, tail, Origin::Program)?;
            state.size = size;
            state.dirty = true;
            self.tell_locked(file, &mut state)?;
        }
        Ok(())
    }

    /// Clones the directory whose inode number is written in `value` into the empty directory `to`.
    pub(super) fn clone_tree(&self, to: Ino, caller: Caller, value: &[u8]) -> Result<()> {
        let number =
            std::str::from_utf8(value).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
        let from = Ino(number.ok_or(FsError::BadRange)?);
        if self.shared.is_some() {
            return self.meta_attr(MetaRequest::CloneTree { from, to, caller }).map(drop);
        }
        let _nobody_writes = self.clones.write();
        for file in self.inodes.all_live() {
            self.flush_times(&file)?;
        }
        let cloned = self.meta_attr(MetaRequest::CloneTree { from, to, caller });
        if matches!(&cloned, Ok(_) | Err(FsError::Transport(_))) {
            self.inodes.all_live().iter().for_each(|file| *file.state.write() = State::default());
            if let Some(kernel) = self.kernel.get() {
                kernel.forget_attributes(to);
            }
        }
        cloned.map(drop)
    }
}
