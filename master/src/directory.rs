//! Where pages are: the block of ids that a rack was given, or, for a page that has moved, the directory's
//! own record. And which swaps may still move pages.
//!
//! Plain data, without locks, stores or messages. What changes homes is planned as records
//! ([`ClusterChange`]) by one function, and [applied](Directory::apply) by another that cannot fail, so
//! that the records can be committed to a store in between; whoever plans keeps others from changing
//! anything until then.
//!
//! Invariants: every page of a block that was given to a rack has exactly one home. A page that is in the
//! rack of its block has no record of its own. A swap changes homes at most once, and never after it was
//! resolved.

mod moved;
mod swaps;
#[cfg(test)]
mod tests;

use crate::change::ClusterChange;
use moved::Moved;
use pool::addr::{PageId, PageRun, PageSize, RackId};
use pool::proto::cluster::{BLOCK, ClusterError, Move, SwapToken};
use std::collections::{BTreeMap, HashSet};
use swaps::Swaps;

/// The most blocks that may be missing between two that are known, so that a damaged record cannot ask
/// for all of the memory.
const WIDEST_GAP: u64 = 1 << 16;

/// A block of page ids.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// The rack that it was given to; none if its record is lost.
    rack: Option<RackId>,
    /// How many of its pages are in other racks.
    moved: u32,
}

/// The page directory.
#[derive(Debug)]
pub(crate) struct Directory {
    term: u64,
    /// One past the largest page id.
    id_limit: u64,
    /// By number.
    blocks: Vec<Block>,
    moved: Moved,
    /// Racks that have joined, or that a swap was resolved for, in this term.
    swaps: BTreeMap<RackId, Swaps>,
}

impl Directory {
    /// No blocks yet, in this term of the master.
    pub(crate) fn new(term: u64, page_size: PageSize) -> Self {
        let id_limit = page_size.id_limit().min(PageId::LIMIT);
        Self { term, id_limit, blocks: Vec::new(), moved: Moved::default(), swaps: BTreeMap::new() }
    }

    /// What was loaded serves in this term.
    pub(crate) fn begin(&mut self, term: u64) {
        self.term = term;
    }

    /// Makes a change that was planned here, or was in the store. What is no change of the directory does
    /// nothing.
    pub(crate) fn apply(&mut self, change: &ClusterChange) {
        match *change {
            ClusterChange::PutBlock(number, rack) if self.accepts_block(number) => {
                let number = number as usize;
                if number >= self.blocks.len() {
                    self.blocks.resize(number + 1, Block::default());
                }
                self.blocks[number].rack = Some(rack);
            }
            ClusterChange::PutMoved(page, rack) => {
                if self.moved.insert(page, rack).is_none()
                    && let Some(block) = self.block_mut(page)
                {
                    block.moved += 1;
                }
            }
            ClusterChange::DelMoved(page) => {
                if self.moved.remove(page).is_some()
                    && let Some(block) = self.block_mut(page)
                {
                    block.moved = block.moved.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    /// Whether a block with this number can come after those there are.
    fn accepts_block(&self, number: u64) -> bool {
        number < self.id_limit.div_ceil(BLOCK) && number < self.blocks.len() as u64 + WIDEST_GAP
    }

    /// Why this record cannot be one of this directory, loaded in order of numbers.
    pub(crate) fn objection(&self, record: &ClusterChange) -> Option<String> {
        match *record {
            ClusterChange::PutBlock(number, _) if number != self.blocks.len() as u64 => {
                let known = self.blocks.len();
                Some(format!(
                    "after {known} blocks of page ids comes number {number}: where pages are is lost"
                ))
            }
            _ => None,
        }
    }

    /// The rack that a page is in; `None` if its block was given to nobody.
    pub(crate) fn home(&self, page: PageId) -> Option<RackId> {
        match self.block(page) {
            Some(Block { rack: Some(rack), moved: 0 }) => Some(*rack),
            block => self.moved.get(page).or(block?.rack),
        }
    }

    /// Gives the parts of a run that are in one rack each to `visit`, in order.
    pub(crate) fn split(&self, run: PageRun, visit: &mut dyn FnMut(Option<RackId>, PageRun)) {
        let (mut at, end) = (run.first, run.end());
        while at.raw() < end {
            let home = self.home(at);
            let mut next = self.alike_until(at, end);
            while next < end && PageId::new(next).and_then(|page| self.home(page)) == home {
                next = PageId::new(next).map_or(end, |page| self.alike_until(page, end));
            }
            if let Some(part) = PageRun::new(at, (next - at.raw()) as u32) {
                visit(home, part);
            }
            match PageId::new(next) {
                Some(page) => at = page,
                None => return,
            }
        }
    }

    /// Up to where, and at most to `end`, pages are known to have the home of `page` without a look.
    fn alike_until(&self, page: PageId, end: u64) -> u64 {
        match self.block(page) {
            Some(Block { rack: Some(_), moved: 0 }) => end.min((page.raw() / BLOCK + 1) * BLOCK),
            _ => page.raw() + 1,
        }
    }

    fn block(&self, page: PageId) -> Option<&Block> {
        self.blocks.get(usize::try_from(page.raw() / BLOCK).ok()?)
    }

    fn block_mut(&mut self, page: PageId) -> Option<&mut Block> {
        self.blocks.get_mut(usize::try_from(page.raw() / BLOCK).ok()?)
    }

    /// Pages that are not in the rack of their block, and the bytes that remembering them takes.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.moved.len() as u64, self.moved.bytes() as u64)
    }

    /// From now on the daemon of `rack` is the one with this incarnation; swaps of others cannot be
    /// committed any more.
    ///
    /// # Errors
    /// `Refused` if that incarnation was succeeded by another before.
    pub(crate) fn joined(&mut self, rack: RackId, incarnation: u64) -> Result<(), ClusterError> {
        self.check_joining(rack, incarnation)?;
        self.swaps.entry(rack).or_default().join(incarnation);
        Ok(())
    }

    /// Whether [`joined`](Self::joined) would be refused.
    ///
    /// # Errors
    /// As that.
    pub(crate) fn check_joining(&self, rack: RackId, incarnation: u64) -> Result<(), ClusterError> {
        match self.swaps.get(&rack) {
            Some(swaps) if swaps.is_past(incarnation) => Err(ClusterError::Refused(format!(
                "another daemon has served rack {rack} since this one did; restart this one"
            ))),
            _ => Ok(()),
        }
    }

    /// Swaps of this daemon with lower numbers are over.
    pub(crate) fn prune(&mut self, rack: RackId, incarnation: u64, oldest: u64) {
        if let Some(swaps) = self.swaps.get_mut(&rack)
            && swaps.is_current(incarnation)
        {
            swaps.prune(oldest);
        }
    }

    /// The next block, for this rack.
    ///
    /// # Errors
    /// `NotJoined`; `Refused` when there are no more ids.
    pub(crate) fn plan_block(&self, rack: RackId, incarnation: u64) -> Result<ClusterChange, ClusterError> {
        if !self.swaps.get(&rack).is_some_and(|swaps| swaps.is_current(incarnation)) {
            return Err(ClusterError::NotJoined(rack));
        }
        let number = self.blocks.len() as u64;
        if !self.accepts_block(number) {
            return Err(ClusterError::Refused("the cluster has given out all its page ids".into()));
        }
        Ok(ClusterChange::PutBlock(number, rack))
    }

    /// What moves these pages; nothing if this swap has moved its pages already. To be followed by
    /// [`committed`](Self::committed).
    ///
    /// # Errors
    /// `Refused`: the swap was resolved, or is over, or is of another term or incarnation, or one of its
    /// pages is not where it says.
    pub(crate) fn plan_commit(
        &self,
        token: SwapToken,
        moves: &[Move],
    ) -> Result<Vec<ClusterChange>, ClusterError> {
        if self.may_move(token)? {
            self.check_moves(token, moves)?;
            return Ok(moves.iter().map(|m| self.moving(m.page, m.to)).collect());
        }
        Ok(Vec::new())
    }

    /// The record of a page being in `rack`.
    fn moving(&self, page: PageId, rack: RackId) -> ClusterChange {
        match self.block(page).and_then(|block| block.rack) {
            Some(own) if own == rack => ClusterChange::DelMoved(page),
            _ => ClusterChange::PutMoved(page, rack),
        }
    }

    /// Whether this swap may still move its pages; not if it has.
    fn may_move(&self, token: SwapToken) -> Result<bool, ClusterError> {
        let refuse = |why: &str| Err(ClusterError::Refused(format!("swap {} {why}", token.number)));
        if token.term != self.term {
            return refuse("began under another term of the master");
        }
        match self.swaps.get(&token.rack) {
            Some(swaps) if swaps.is_current(token.incarnation) => match swaps.outcome(token.number) {
                None => Ok(true),
                Some(swaps::Outcome::Committed) => Ok(false),
                Some(swaps::Outcome::Fenced) => refuse("was given up"),
                Some(swaps::Outcome::Forgotten) => refuse("was over long ago"),
            },
            _ => refuse("is not one of the daemon that serves the rack"),
        }
    }

    fn check_moves(&self, token: SwapToken, moves: &[Move]) -> Result<(), ClusterError> {
        let refuse = |why: String| Err(ClusterError::Refused(why));
        let mut seen = HashSet::with_capacity(moves.len());
        for Move { page, from, to } in moves {
            if self.home(*page) != Some(*from) {
                return refuse(format!("page {page} is not in rack {from}"));
            }
            if from == to || (*from != token.rack && *to != token.rack) {
                return refuse(format!("page {page} cannot go from rack {from} to {to} for {}", token.rack));
            }
            if !self.swaps.get(to).is_some_and(Swaps::has_joined) {
                return Err(ClusterError::NoSuchRack(*to));
            }
            if !seen.insert(*page) {
                return refuse(format!("page {page} is named twice"));
            }
        }
        Ok(())
    }

    /// What was planned for this swap has been applied.
    pub(crate) fn committed(&mut self, token: SwapToken) {
        self.swaps.entry(token.rack).or_default().committed(token.number);
    }

    /// From now on this swap moves no pages.
    ///
    /// # Errors
    /// `Refused` for a swap of a term that has not begun, and if there are too many swaps of daemons that
    /// are not known.
    pub(crate) fn resolve(&mut self, token: SwapToken) -> Result<(), ClusterError> {
        if token.term < self.term {
            return Ok(());
        }
        if token.term > self.term {
            return Err(ClusterError::Refused(format!(
                "swap {} is of term {}, and the master's is {}: its state is an old copy; restore the newest",
                token.number, token.term, self.term
            )));
        }
        self.swaps.entry(token.rack).or_default().fence(token.incarnation, token.number)
    }

    /// What forgets those of these pages that are in `rack` though they were made elsewhere: they do not
    /// exist any more.
    pub(crate) fn plan_gone(&self, rack: RackId, pages: &[PageId]) -> Vec<ClusterChange> {
        let moved_here = pages.iter().filter(|page| self.moved.get(**page) == Some(rack));
        moved_here.map(|page| ClusterChange::DelMoved(*page)).collect()
    }
}
