//! Reading and writing pages, wherever they are.
//!
//! Pages of this rack are touched in place ([`InPlace`](super::in_place::InPlace)); on a hit that is no
//! message, no system call and no write to memory that another thread writes, but for a sampled count of
//! touches. What is elsewhere is [`remote`]'s.

use super::in_place::{InPlace, Stopped, Stretch};
use super::{Pool, remote};
use crate::addr::GAddr;
use crate::error::PoolError;
use crate::proto::page::{PageReply, PageRequest};
use std::ops::Range;

/// What an access does to the bytes that it is about; each of them is touched once, in any order.
pub(super) trait Op {
    /// Whether it stores in the bytes, other than by compare-and-swap.
    fn writes(&self) -> bool;
    /// Whether it does nothing but read, and so may be done twice.
    fn reads(&self) -> bool {
        false
    }
    /// Touches bytes in this rack; while their frames are published.
    fn in_place(&mut self, s: &Stretch<'_>);
    /// The message that does the same to the bytes `part` of the access, which begin at `at`.
    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest;
    /// Takes the answer to that message. False if it is not an answer to it.
    fn take(&mut self, part: &Range<u64>, reply: PageReply) -> bool;
}

struct Read<'a>(&'a mut [u8]);

impl Op for Read<'_> {
    #[inline]
    fn writes(&self) -> bool {
        false
    }

    fn reads(&self) -> bool {
        true
    }

    #[inline]
    fn in_place(&mut self, s: &Stretch<'_>) {
        s.region.read(s.offset, &mut self.0[s.range()]);
    }

    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest {
        PageRequest::Read { at, len: (part.end - part.start) as u32 }
    }

    fn take(&mut self, part: &Range<u64>, reply: PageReply) -> bool {
        let to = &mut self.0[part.start as usize..part.end as usize];
        match reply {
            PageReply::Data(data) if data.len() == to.len() => to.copy_from_slice(&data),
            _ => return false,
        }
        true
    }
}

struct Write<'a>(&'a [u8]);

impl Op for Write<'_> {
    #[inline]
    fn writes(&self) -> bool {
        true
    }

    #[inline]
    fn in_place(&mut self, s: &Stretch<'_>) {
        s.region.write(s.offset, &self.0[s.range()]);
    }

    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest {
        PageRequest::Write { at, data: self.0[part.start as usize..part.end as usize].to_vec() }
    }

    fn take(&mut self, _: &Range<u64>, reply: PageReply) -> bool {
        reply == PageReply::Done
    }
}

struct Zero;

impl Op for Zero {
    #[inline]
    fn writes(&self) -> bool {
        true
    }

    #[inline]
    fn in_place(&mut self, s: &Stretch<'_>) {
        s.region.zero(s.offset, s.len as u64);
    }

    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest {
        PageRequest::Write { at, data: vec![0; (part.end - part.start) as usize] }
    }

    fn take(&mut self, _: &Range<u64>, reply: PageReply) -> bool {
        reply == PageReply::Done
    }
}

struct Cas {
    old: u64,
    new: u64,
    was: u64,
}

impl Op for Cas {
    #[inline]
    fn writes(&self) -> bool {
        false
    }

    #[inline]
    fn in_place(&mut self, s: &Stretch<'_>) {
        self.was = s.cas(self.old, self.new);
    }

    fn request(&self, at: GAddr, _: &Range<u64>) -> PageRequest {
        PageRequest::Cas { at, old: self.old, new: self.new }
    }

    fn take(&mut self, _: &Range<u64>, reply: PageReply) -> bool {
        match reply {
            PageReply::Was(was) => self.was = was,
            _ => return false,
        }
        true
    }
}

impl Pool {
    /// Reads `to.len()` bytes at `at`. Every aligned 8-byte word is read in one piece.
    ///
    /// # Errors
    /// [`PoolError::NoSuchPage`], [`PoolError::BadAddress`], [`PoolError::Busy`], [`PoolError::NoSlot`]; of
    /// pages in other racks also [`PoolError::Unreachable`] and what [`call`](crate::transport) fails with.
    pub fn read(&self, at: GAddr, to: &mut [u8]) -> Result<(), PoolError> {
        self.access(at, to.len() as u64, &mut Read(to))
    }

    /// Appends `len` bytes at `at` to `to`, which is not cleared first. On an error `to` is as long as it
    /// was.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_into(&self, at: GAddr, len: usize, to: &mut Vec<u8>) -> Result<(), PoolError> {
        let before = to.len();
        to.reserve(len);
        let mut append = |s: &Stretch<'_>| s.region.append(s.offset, s.len, to);
        let Err(stopped) = self.inner.in_place.look(at, 0..len as u64, &mut append) else {
            return Ok(());
        };
        // The rest does not come in order.
        to.resize(before + len, 0);
        let result = remote::go_on(self, at, len as u64, stopped, &mut Read(&mut to[before..]));
        if result.is_err() {
            to.truncate(before);
        }
        result
    }

    /// Writes `from` at `at`. Every aligned 8-byte word is written in one piece.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, at: GAddr, from: &[u8]) -> Result<(), PoolError> {
        self.access(at, from.len() as u64, &mut Write(from))
    }

    /// Sets `len` bytes at `at` to zero.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn zero(&self, at: GAddr, len: u64) -> Result<(), PoolError> {
        self.access(at, len, &mut Zero)
    }

    /// Stores `new` in the word at `at` if it is `old`, as one step to all clients; returns what was
    /// there. Words are in the byte order of the processor. If this fails for want of an answer, the word
    /// may or may not have been changed.
    ///
    /// # Errors
    /// [`PoolError::Unaligned`] if `at` is not a multiple of 8, else as [`read`](Self::read).
    pub fn cas(&self, at: GAddr, old: u64, new: u64) -> Result<u64, PoolError> {
        if !at.raw().is_multiple_of(8) {
            return Err(PoolError::Unaligned(at.raw()));
        }
        let mut cas = Cas { old, new, was: old };
        self.access(at, 8, &mut cas)?;
        Ok(cas.was)
    }

    /// Copies `len` bytes from `from` to `to`, as if by way of a buffer of that size: the ranges may
    /// overlap. Every aligned 8-byte word of the target is written in one piece.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn copy(&self, from: GAddr, to: GAddr, len: u64) -> Result<(), PoolError> {
        const PIECE: u64 = 64 << 10;
        let size = self.page_size();
        let range = |base: GAddr| base.checked_add(len.saturating_sub(1), size).ok_or(bad(base, len));
        range(from)?;
        range(to)?;
        let backwards = to > from && to.raw() - from.raw() < len;
        let mut buffer = Vec::with_capacity(PIECE.min(len) as usize);
        // A piece ends, or if they come from the end begins, with a whole word of the target.
        let beyond = |at: u64| (to.raw() % 8 + at) % 8;
        let mut left = 0..len;
        while !left.is_empty() {
            let piece = match left.end - left.start {
                n if n <= PIECE => left.clone(),
                _ if backwards => left.end - (PIECE - 8 + beyond(left.end))..left.end,
                _ => left.start..left.start + PIECE - beyond(left.start),
            };
            let place = |base: GAddr| base.checked_add(piece.start, size).ok_or(bad(base, len));
            buffer.clear();
            self.read_into(place(from)?, (piece.end - piece.start) as usize, &mut buffer)?;
            self.write(place(to)?, &buffer)?;
            left = if backwards { 0..piece.start } else { piece.end..len };
        }
        Ok(())
    }

    /// Has `op` touch `len` bytes at `at`.
    #[inline]
    pub(super) fn access(&self, at: GAddr, len: u64, op: &mut impl Op) -> Result<(), PoolError> {
        let in_place = &self.inner.in_place;
        match in_place_by(in_place, at, 0..len, op) {
            Ok(()) => Ok(()),
            Err(stopped) => remote::go_on(self, at, len, stopped, op),
        }
    }
}

/// Has `op` touch what it can of `part` of an access at `at` in this rack.
#[inline]
pub(super) fn in_place_by<O: Op>(
    in_place: &InPlace,
    at: GAddr,
    part: Range<u64>,
    op: &mut O,
) -> Result<(), Stopped> {
    let writes = op.writes();
    let mut touch = |s: &Stretch<'_>| op.in_place(s);
    if writes { in_place.stretches(at, part, &mut touch) } else { in_place.look(at, part, &mut touch) }
}

pub(super) fn bad(at: GAddr, len: u64) -> PoolError {
    PoolError::BadAddress { at: at.raw(), len }
}
