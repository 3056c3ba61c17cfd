//! The bytes of files where the rack's memory is not mapped, and each access is a message to its daemon: what several
//! pages need is asked for at once, and what may or may not have been done is done again as long as the leases hold.
//!
//! **Pages that are in no file yet.** The daemons take them back when a client is no more, as far as they know; and one
//! that was cut off they take for that after a while ([`Pool::lapses`](pool::Pool::lapses)). So pages that were taken before that
//! are not told to the master any more.

use super::Fs;
use super::error::{FsError, Result};
use super::file::State;
use super::map::Piece;
use pool::PoolError;
use pool::addr::GAddr;

impl Fs {
    /// Whether what this mount holds it still holds.
    fn still(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.session.is_valid())
    }

    /// Reads `pieces`, which begin at `at` in the file, into `out`.
    #[cold]
    pub(super) fn read_far(
        &self,
        pieces: impl Iterator<Item = Piece>,
        at: u64,
        out: &mut [u8],
    ) -> Result<()> {
        // What lies between holes is one access.
        let (mut parts, mut from, mut end): (Vec<(GAddr, u64)>, usize, usize) = (Vec::new(), 0, 0);
        for piece in pieces {
            let start = (piece.at - at) as usize;
            let stop = start + piece.len as usize;
            match piece.data {
                Some(data) => {
                    if parts.is_empty() {
                        from = start;
                    }
                    parts.push((data, piece.len));
                    end = stop;
                }
                None => {
                    self.read_all(&mut parts, &mut out[from..end])?;
                    out[start..stop].fill(0);
                    (from, end) = (stop, stop);
                }
            }
        }
        self.read_all(&mut parts, &mut out[from..end])
    }

    fn read_all(&self, parts: &mut Vec<(GAddr, u64)>, out: &mut [u8]) -> Result<()> {
        if !parts.is_empty() {
            self.pool.read_parts(parts, out)?;
            parts.clear();
        }
        Ok(())
    }

    /// Writes `data` to `pieces`; false, with nothing done, if there is a hole or a shared page.
    #[cold]
    pub(super) fn overwrite_far(&self, pieces: impl Iterator<Item = Piece>, data: &[u8]) -> Result<bool> {
        let mut parts = Vec::new();
        for piece in pieces {
            let Some(to) = piece.data.filter(|_| !piece.shared) else { return Ok(false) };
            parts.push((to, piece.len));
        }
        self.pool.write_parts_while(&parts, data, &|| self.still()).map_err(lost)?;
        Ok(true)
    }

    /// Writes bytes of a file that is held exclusively.
    pub(super) fn write_sole(&self, to: GAddr, data: &[u8]) -> Result<()> {
        self.pool.write_parts_while(&[(to, data.len() as u64)], data, &|| self.still()).map_err(lost)
    }

    /// Sets bytes of a file that is held exclusively to zero.
    pub(super) fn zero_piece(&self, at: GAddr, len: u64) -> Result<()> {
        self.pool.zero_while(at, len, &|| self.still()).map_err(lost)
    }

    /// Whether the pages that the master does not know of are still this mount's.
    pub(super) fn still_has_pending(&self, state: &State) -> bool {
        state.pending.runs().next().is_none() || state.lapses == self.pool.lapses()
    }

    /// Notes that pages are about to be taken, of which the master does not know.
    pub(super) fn before_taking(&self, state: &mut State) {
        if state.pending.runs().next().is_none() {
            state.lapses = self.pool.lapses();
        }
    }
}

fn lost(error: PoolError) -> FsError {
    match error {
        PoolError::Lapsed => FsError::Lost,
        error => error.into(),
    }
}
