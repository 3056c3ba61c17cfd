//! Reading and writing pages, wherever they are.
//!
//! Pages of this rack are touched in place ([`InPlace`](super::in_place::InPlace)); on a hit that is no
//! message, no system call and no write to memory that another thread writes, but for a sampled count of
//! touches. What is elsewhere is [`remote`]'s. All that a client does that has not mapped the rack's memory is
//! [`far`]'s.

use super::far::{self, Piece};
use super::in_place::{InPlace, Stopped, Stretch};
use super::{Memory, Pool, remote};
use crate::addr::GAddr;
use crate::error::PoolError;
use crate::proto::far::{FarReply, FarRequest, Ticket, ZERO_MAX};
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
    /// The message of a client without CXL that does the same.
    fn far(&self, ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest;
    /// Takes the answer to that one, as [`take`](Self::take).
    fn take_far(&mut self, part: &Range<u64>, reply: FarReply) -> bool;
    /// The most bytes of such a message: a multiple of 8.
    fn most(&self) -> u64 {
        far::DATA_MOST
    }
    /// Whether what may or may not have been done can be done again.
    fn repeats(&self) -> bool {
        false
    }
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

    fn far(&self, ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest {
        FarRequest::Read { ticket, at, len: (part.end - part.start) as u32 }
    }

    fn take_far(&mut self, part: &Range<u64>, reply: FarReply) -> bool {
        match reply {
            FarReply::Data(data) => self.take(part, PageReply::Data(data)),
            _ => false,
        }
    }

    fn repeats(&self) -> bool {
        true
    }
}

struct Write<'a> {
    from: &'a [u8],
    /// Nobody else writes there.
    sole: bool,
}

impl Op for Write<'_> {
    #[inline]
    fn writes(&self) -> bool {
        true
    }

    #[inline]
    fn in_place(&mut self, s: &Stretch<'_>) {
        s.region.write(s.offset, &self.from[s.range()]);
    }

    fn request(&self, at: GAddr, part: &Range<u64>) -> PageRequest {
        PageRequest::Write { at, data: self.from[part.start as usize..part.end as usize].to_vec() }
    }

    fn take(&mut self, _: &Range<u64>, reply: PageReply) -> bool {
        reply == PageReply::Done
    }

    fn far(&self, ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest {
        FarRequest::Write { ticket, at, data: self.from[part.start as usize..part.end as usize].to_vec() }
    }

    fn take_far(&mut self, _: &Range<u64>, reply: FarReply) -> bool {
        reply == FarReply::Done
    }

    fn repeats(&self) -> bool {
        self.sole
    }
}

struct Zero {
    /// Nobody else writes there.
    sole: bool,
}

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

    fn far(&self, ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest {
        far_zero(ticket, at, part)
    }

    fn take_far(&mut self, _: &Range<u64>, reply: FarReply) -> bool {
        reply == FarReply::Done
    }

    fn most(&self) -> u64 {
        ZERO_MAX as u64
    }

    fn repeats(&self) -> bool {
        self.sole
    }
}

/// The message by which a client without CXL sets bytes to zero.
pub(super) fn far_zero(ticket: Ticket, at: GAddr, part: &Range<u64>) -> FarRequest {
    FarRequest::Zero { ticket, at, len: (part.end - part.start) as u32 }
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

    fn far(&self, ticket: Ticket, at: GAddr, _: &Range<u64>) -> FarRequest {
        FarRequest::Cas { ticket, at, old: self.old, new: self.new }
    }

    fn take_far(&mut self, _: &Range<u64>, reply: FarReply) -> bool {
        match reply {
            FarReply::Was(was) => self.was = was,
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
        let Memory::Mapped(in_place) = &self.inner.memory else {
            to.resize(before + len, 0);
            let result = self.read(at, &mut to[before..]);
            if result.is_err() {
                to.truncate(before);
            }
            return result;
        };
        to.reserve(len);
        let mut append = |s: &Stretch<'_>| s.region.append(s.offset, s.len, to);
        let Err(stopped) = in_place.look(at, 0..len as u64, &mut append) else {
            return Ok(());
        };
        // The rest does not come in order.
        to.resize(before + len, 0);
        let result = remote::go_on(self, in_place, at, len as u64, stopped, &mut Read(&mut to[before..]));
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
        self.access(at, from.len() as u64, &mut Write { from, sole: false })
    }

    /// Sets `len` bytes at `at` to zero.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn zero(&self, at: GAddr, len: u64) -> Result<(), PoolError> {
        self.access(at, len, &mut Zero { sole: false })
    }

    /// Fills `to` from several places, in order; how many bytes from each. For a client without CXL, which asks for
    /// all of them at once.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`PoolError::BadAddress`] if the parts are more or less than `to`.
    pub fn read_parts(&self, parts: &[(GAddr, u64)], to: &mut [u8]) -> Result<(), PoolError> {
        let pieces = pieces(parts, to.len() as u64)?;
        match &self.inner.memory {
            Memory::Far(far) => far.access(self, &pieces, &mut Read(to), &|| true),
            Memory::Mapped(_) => {
                let range = |piece: &Piece| piece.range.start as usize..piece.range.end as usize;
                pieces.iter().try_for_each(|piece| self.read(piece.at, &mut to[range(piece)]))
            }
        }
    }

    /// Writes `from` to several places, in order, for a caller that alone writes there as long as `still` says so:
    /// a client without CXL does again what the daemon may or may not have done, once it answers again.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`PoolError::Lapsed`] if `still` has said no; [`PoolError::BadAddress`] if the parts
    /// are more or less than `from`.
    pub fn write_parts_while(
        &self,
        parts: &[(GAddr, u64)],
        from: &[u8],
        still: &dyn Fn() -> bool,
    ) -> Result<(), PoolError> {
        let pieces = pieces(parts, from.len() as u64)?;
        match &self.inner.memory {
            Memory::Far(far) => far.access(self, &pieces, &mut Write { from, sole: true }, still),
            Memory::Mapped(_) => {
                let range = |piece: &Piece| piece.range.start as usize..piece.range.end as usize;
                pieces.iter().try_for_each(|piece| self.write(piece.at, &from[range(piece)]))
            }
        }
    }

    /// As [`zero`](Self::zero), for a caller that alone writes there as long as `still` says so.
    ///
    /// # Errors
    /// As [`write_parts_while`](Self::write_parts_while).
    pub fn zero_while(&self, at: GAddr, len: u64, still: &dyn Fn() -> bool) -> Result<(), PoolError> {
        match &self.inner.memory {
            Memory::Far(far) => {
                far.access(self, &[Piece { at, range: 0..len }], &mut Zero { sole: true }, still)
            }
            Memory::Mapped(_) => self.zero(at, len),
        }
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
        let in_place = match &self.inner.memory {
            Memory::Mapped(in_place) => in_place,
            Memory::Far(far) => return far.access(self, &[Piece { at, range: 0..len }], op, &|| true),
        };
        match in_place_by(in_place, at, 0..len, op) {
            Ok(()) => Ok(()),
            Err(stopped) => remote::go_on(self, in_place, at, len, stopped, op),
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

/// Where parts of these lengths are in a buffer of `len` bytes.
fn pieces(parts: &[(GAddr, u64)], len: u64) -> Result<Vec<Piece>, PoolError> {
    let mut end = 0_u64;
    let mut pieces = Vec::with_capacity(parts.len());
    for (at, part) in parts.iter().copied() {
        let start = end;
        end = start.checked_add(part).filter(|end| *end <= len).ok_or_else(|| bad(at, part))?;
        pieces.push(Piece { at, range: start..end });
    }
    match parts.last() {
        Some((at, part)) if end != len => Err(bad(*at, *part)),
        _ => Ok(pieces),
    }
}

pub(super) fn bad(at: GAddr, len: u64) -> PoolError {
    PoolError::BadAddress { at: at.raw(), len }
}
