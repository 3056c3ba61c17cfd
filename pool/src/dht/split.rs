//! Splitting a segment while others use it.
//!
//! A segment gets two children, empty pages. Then each of its slots is *frozen*: from then on nothing can change
//! it. Its records are hung into the same slot of the children: first into that of the first, then into that of
//! the second. Who comes to a frozen slot does the same, so all of this can be done by any number of clients
//! at once, and goes on when one of them dies. When all slots are moved the trie is changed, and the segment freed.
//!
//! # Invariants
//!
//! - A child's slot is untouched (0) until it is filled, by a compare-and-swap from 0, and never again after that.
//! - Nobody changes a slot of a child before both are filled, and no record of the old chain is freed before. So whoever
//!   fills one has read the chain as it was frozen, or fails.
//! - A record is in one chain only. Of the old chain, the longest end whose records all belong to one child goes there as
//!   it is. All others are copied; they lose their live bit before, and are freed by whoever fills the second slot.
//! - A child is split only when it is a leaf of the trie, which is when its parent has been moved completely.
//!
//! A client that dies in between leaves at most a page, or a few records, that nobody frees.

use super::chain::gone;
use super::change::skips_freezing;
use super::error::{DhtError, Fault};
use super::layout::{self, CHILDREN, CURSOR, Head, PREFIX, SPLIT};
use super::{Inner, LOAD_MAX, Patience, Segment};
use crate::addr::GAddr;
use crate::error::PoolError;

/// So many slots are looked at to see how full a segment is.
const SAMPLE: u64 = 1024;
/// So many slots are moved by whoever meets a split.
const STRIPE: u64 = 32;

impl Inner {
    /// Splits a segment if it is too full. That is no part of the operation that found it so: if the pool is
    /// full chains grow.
    pub fn consider_split(&self, segment: Segment) {
        let done = self.is_full(segment).and_then(|full| if full { self.split(segment) } else { Ok(()) });
        match done {
            Ok(()) | Err(Fault::Retry | Fault::Stale) => {}
            Err(Fault::Error(error)) => log::debug!("a segment of a hash table is not split: {error}"),
        }
    }

    fn is_full(&self, segment: Segment) -> Result<bool, Fault> {
        let count = self.slots.min(SAMPLE);
        let mut bytes = vec![0; count as usize * 8];
        // Any part will do, but the same would not if only that were full.
        let from = super::space::random() % (self.slots - count + 1);
        self.space.pool.read(self.space.at(segment.at, PREFIX + from * 8)?, &mut bytes).map_err(gone)?;
        let heads = (0..count as usize).filter_map(|i| layout::word(&bytes, i * 8).map(Head));
        let empty = heads.filter(|head| head.packed() == 0).count().max(1);
        // Of so many records thrown at random a part e^-load of the slots gets none.
        let load = (count as f64 / empty as f64).ln();
        Ok(load > LOAD_MAX)
    }

    fn split(&self, segment: Segment) -> Result<(), Fault> {
        if !self.directory.has_room_below(&self.space, segment.node)
            || self.directory.get(&self.space, segment.node)? != leaf(segment.at)
        {
            return Ok(());
        }
        let children = [self.make_child(segment, 0)?, self.make_child(segment, 1)?];
        while self.help(segment, children)? {}
        self.counters.split();
        Ok(())
    }

    /// The child on that side; makes it.
    fn make_child(&self, segment: Segment, side: usize) -> Result<GAddr, Fault> {
        let word = CHILDREN[side];
        let raw = self.space.word(segment.at, word).map_err(gone)?;
        let raw = match raw {
            0 => {
                let child = self.space.page()?;
                let named = self
                    .space
                    .set(child, 0, 2 * segment.node + side as u64)
                    .and_then(|()| self.space.cas(segment.at, word, 0, child.raw()));
                match named {
                    Ok(0) => child.raw(),
                    Ok(other) => {
                        self.space.free_page(child);
                        other
                    }
                    Err(error) => {
                        // If there is no answer it may be named now.
                        if matches!(error, PoolError::NoSuchPage(_)) {
                            self.space.free_page(child);
                        }
                        return Err(gone(error));
                    }
                }
            }
            raw => raw,
        };
        let damaged = || DhtError::Damaged(format!("the segment at {:#x} has no child", segment.at.raw()));
        Ok(GAddr::from_raw(raw, self.space.size).ok_or_else(damaged)?)
    }

    /// Moves a few slots, or does what is left to do afterwards; whether there is more.
    pub fn help(&self, segment: Segment, children: [GAddr; 2]) -> Result<bool, Fault> {
        let begin = self.space.word(segment.at, CURSOR).map_err(gone)?;
        let end = (begin + STRIPE).min(self.slots);
        for slot in begin..end {
            self.move_slot(segment, children, slot)?;
        }
        if begin < end {
            self.space.cas(segment.at, CURSOR, begin, end).map_err(gone)?;
        }
        if end < self.slots {
            return Ok(true);
        }
        for (side, child) in children.into_iter().enumerate() {
            self.directory.cas(&self.space, 2 * segment.node + side as u64, 0, leaf(child))?;
        }
        let old = leaf(segment.at);
        if self.directory.cas(&self.space, segment.node, old, SPLIT)? == old {
            self.space.free_page(segment.at);
        }
        Ok(false)
    }

    /// Freezes a slot, and hangs its records into the children.
    pub fn move_slot(&self, segment: Segment, children: [GAddr; 2], slot: u64) -> Result<(), Fault> {
        let head = self.freeze(segment, slot)?;
        let mut patience = Patience::default();
        for side in 0..2 {
            while self.head(children[side], slot)?.is_untouched() {
                match self.fill(segment, children, slot, head, side) {
                    // Somebody else was first, and what was read may have been freed since.
                    Ok(()) | Err(Fault::Retry) if patience.wait() => {}
                    Ok(()) | Err(Fault::Retry) => return Err(DhtError::Contended.into()),
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }

    fn freeze(&self, segment: Segment, slot: u64) -> Result<Head, Fault> {
        let mut head = self.head(segment.at, slot)?;
        while !head.is_frozen() {
            if skips_freezing() {
                // The mistake: the slot is frozen only after it was moved.
                return Ok(head);
            }
            let was = self.swing(segment.at, slot, head, head.frozen())?;
            head = if was == head { head.frozen() } else { was };
        }
        Ok(head)
    }

    /// Hangs the records of a frozen chain that belong to one child into its slot.
    fn fill(
        &self,
        segment: Segment,
        children: [GAddr; 2],
        slot: u64,
        head: Head,
        side: usize,
    ) -> Result<(), Fault> {
        let chain = self.chain(head.packed(), None, true)?.links;
        // Nothing of the chain is freed before the second is filled.
        if !self.head(children[1], slot)?.is_untouched() {
            return Ok(());
        }
        let depth = segment.depth();
        let side_of = |i: usize| chain[i].header.side(depth);
        let last = chain.len().checked_sub(1).map(side_of);
        let end = (0..chain.len()).rev().take_while(|i| Some(side_of(*i)) == last).last().unwrap_or(0);
        let (copied, kept) = chain.split_at(end);
        let tail = if last == Some(side) { kept.first().map_or(0, |link| link.packed) } else { 0 };
        let ours = || copied.iter().filter(|link| link.header.side(depth) == side);
        for link in ours() {
            self.space.invalidate(link.at, link.header)?;
        }
        let mut new = Vec::new();
        let filled = self
            .copies(ours(), tail, &mut new)
            .and_then(|first| self.swing(children[side], slot, Head(0), Head::first(first)));
        match filled {
            Ok(was) if was.is_untouched() => {
                self.counters.copies(new.len());
                if side == 1 {
                    for link in copied {
                        self.space.free(link.at, link.header, &link.bytes, false);
                    }
                }
                if side == 1 && skips_freezing() {
                    let now = self.head(segment.at, slot)?;
                    self.swing(segment.at, slot, now, now.frozen())?;
                }
                Ok(())
            }
            // It may have been done, and then others use what was made.
            Err(fault) if fault.is_open() => Err(fault),
            other => {
                new.into_iter().for_each(|fresh| self.space.discard(fresh));
                other.map(drop)
            }
        }
    }
}

/// The word of the trie for a segment.
pub fn leaf(at: GAddr) -> u64 {
    at.raw() | 1
}
