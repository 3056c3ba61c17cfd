//! The part of an access that could not be made in place: pages of other racks, by messages to the daemon
//! of this one; and pages that are on their way.
//!
//! The bytes that are left are kept as a list of ranges. In each round, what is in this rack is touched in
//! place, and what is not is cut into pieces, up to [`WINDOW`] of them, that are asked for together. A piece
//! whose page has come here meanwhile goes back to the list.
//!
//! Each byte is touched once, and a piece that was not done is the only thing that is tried again: a word
//! that was written twice could undo another client's write in between.
//!
//! Pieces end at multiples of 8, or where the access ends, so that every aligned word is moved whole.

use super::Pool;
use super::access::{Op, bad};
use super::direct;
use super::in_place::{InPlace, Stopped, Why};
use crate::addr::{GAddr, PageId};
use crate::error::PoolError;
use crate::proto::page::{ACCESS_MAX, PageReply};
use crate::proto::{Reply, Request};
use std::ops::Range;
use std::time::{Duration, Instant};

/// How many pieces are asked for together.
const WINDOW: usize = 16;

/// How long an access that gets no further is tried again.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_micros(5), Duration::from_millis(1));

const _: () = assert!(ACCESS_MAX.is_multiple_of(8));

/// Finishes an access to `len` bytes at `at` that stopped.
#[cold]
pub(super) fn go_on(
    pool: &Pool,
    in_place: &InPlace,
    at: GAddr,
    len: u64,
    stopped: Stopped,
    op: &mut dyn Op,
) -> Result<(), PoolError> {
    let left = std::iter::once(stopped.done..len).collect();
    Rest { pool, in_place, at, len, op, left, pieces: Vec::new(), trouble: None }.finish()
}

/// What is left of an access. Ranges are in bytes from its beginning.
struct Rest<'a> {
    pool: &'a Pool,
    in_place: &'a InPlace,
    at: GAddr,
    len: u64,
    op: &'a mut dyn Op,
    /// What has not been touched, the last bytes first.
    left: Vec<Range<u64>>,
    /// What of it is in other racks, and the next to be asked for.
    pieces: Vec<Range<u64>>,
    /// Since it got no further.
    trouble: Option<Trouble>,
}

/// An access that gets no further.
struct Trouble {
    until: Instant,
    pause: Duration,
}

impl Rest<'_> {
    fn finish(mut self) -> Result<(), PoolError> {
        while !self.left.is_empty() {
            let moving = self.look()?;
            if !self.pieces.is_empty() {
                self.ask()?;
            } else if let Some(page) = moving {
                self.in_place.wait(page).map_err(|_| PoolError::Busy(page))?;
                self.back_off(page)?;
            }
        }
        Ok(())
    }

    /// Touches what is in this rack, in order, until a window is full of what is not, or a page is on its
    /// way, which is returned.
    fn look(&mut self) -> Result<Option<PageId>, PoolError> {
        while self.pieces.len() < WINDOW
            && let Some(mut part) = self.left.pop()
        {
            let op = &mut *self.op;
            let result = self.in_place.stretches(self.at, part.clone(), &mut |s| op.in_place(s));
            let done = result.map_or_else(|stopped| stopped.done, |()| part.end);
            if done > part.start {
                self.trouble = None;
            }
            let Err(stopped) = result else { continue };
            part.start = done;
            match (stopped.why, stopped.page) {
                (Why::Absent, Some(_)) => {
                    let piece = self.piece(&part);
                    part.start = piece.end;
                    self.pieces.push(piece);
                }
                (Why::Moving, Some(page)) => {
                    self.left.push(part);
                    return Ok(Some(page));
                }
                (Why::NoSlot, _) => return Err(PoolError::NoSlot),
                (Why::BadAddress | Why::Absent | Why::Moving, _) => return Err(bad(self.at, self.len)),
            }
            if !part.is_empty() {
                self.left.push(part);
            }
        }
        Ok(None)
    }

    /// The beginning of `part` that one message can be about.
    fn piece(&self, part: &Range<u64>) -> Range<u64> {
        // No sum overflows: the last byte of the access has an address.
        let start = self.at.raw() + part.start;
        let size = self.pool.page_size();
        let in_page = size.bytes() - size.offset_of(start);
        let in_message = ACCESS_MAX as u64 - start % 8;
        part.start..part.end.min(part.start + in_page.min(in_message))
    }

    /// Asks the home of the only piece itself, if it is a short read; whether it was answered.
    fn ask_home(&mut self) -> Result<bool, PoolError> {
        let (Some(direct), [piece]) = (self.pool.inner.direct.get(), &self.pieces[..]) else {
            return Ok(false);
        };
        let len = piece.end - piece.start;
        if !self.op.reads() || len > direct::READ_MAX {
            return Ok(false);
        }
        let Some(data) = direct.read(self.pool, self.start(piece)?, len as u32) else { return Ok(false) };
        let done = self.op.take(piece, PageReply::Data(data));
        if done {
            self.pieces.clear();
            self.trouble = None;
        }
        Ok(done)
    }

    /// Asks the daemon for all pieces.
    fn ask(&mut self) -> Result<(), PoolError> {
        if self.ask_home()? {
            return Ok(());
        }
        let requests: Result<Vec<Request>, PoolError> = self
            .pieces
            .iter()
            .map(|piece| Ok(Request::Page(self.op.request(self.start(piece)?, piece))))
            .collect();
        let replies = self.pool.call_all(requests?);
        if replies.len() != self.pieces.len() {
            return Err(self.pool.mismatch());
        }
        let (mut first_error, mut came) = (Ok(()), None);
        // From the last piece on, which is the order of what is left.
        for (piece, reply) in std::mem::take(&mut self.pieces).into_iter().zip(replies).rev() {
            match self.take(&piece, reply) {
                Ok(true) => self.trouble = None,
                Ok(false) => {
                    came = self.start(&piece)?.page(self.pool.page_size());
                    self.left.push(piece);
                }
                Err(error) => first_error = Err(error),
            }
        }
        first_error?;
        came.map_or(Ok(()), |page| self.back_off(page))
    }

    /// Where a piece begins.
    fn start(&self, piece: &Range<u64>) -> Result<GAddr, PoolError> {
        self.at.checked_add(piece.start, self.pool.page_size()).ok_or(bad(self.at, self.len))
    }

    /// Takes the answer about a piece. False if its page is in this rack now.
    fn take(&mut self, piece: &Range<u64>, reply: Result<Reply, PoolError>) -> Result<bool, PoolError> {
        match reply? {
            Reply::Page(Ok(PageReply::Here)) => Ok(false),
            Reply::Page(Ok(reply)) => match self.op.take(piece, reply) {
                true => Ok(true),
                false => Err(self.pool.mismatch()),
            },
            Reply::Page(Err(error)) => Err(error.into()),
            _ => Err(self.pool.mismatch()),
        }
    }

    /// Pauses, longer each time, if nothing has been touched since the last time; `page` is to blame.
    ///
    /// # Errors
    /// [`PoolError::Busy`] when that has gone on for too long.
    fn back_off(&mut self, page: PageId) -> Result<(), PoolError> {
        let Some(trouble) = &mut self.trouble else {
            // The first time it is most likely that the page has just come.
            self.trouble = Some(Trouble { until: Instant::now() + PATIENCE, pause: PAUSES.0 });
            return Ok(());
        };
        if Instant::now() >= trouble.until {
            return Err(PoolError::Busy(page));
        }
        std::thread::sleep(trouble.pause);
        trouble.pause = (trouble.pause * 2).min(PAUSES.1);
        Ok(())
    }
}
