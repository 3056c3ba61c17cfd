//! Which client has taken which pages for files, and what becomes of them when it is no more.
//!
//! A mount takes pages, writes to them, and tells the master later that they are a file's. If it dies before that nobody
//! knows of them but this daemon, which gave them out, from this rack or others.
//!
//! **Invariant:** a page of a client that is no more is freed only if no file has it, and none can get it any more. The
//! order of things sees to that:
//!
//! 1. The client is no more: its process is gone; or, if it has none that could be watched, nothing was heard of it for so
//!    long that it has to take it that its pages are gone ([`far`](crate::far)).
//! 2. The master is told, and ends the sessions of its mounts. What came of them before that is done; what comes later, and
//!    may have been on its way, is refused. No other client knows of the page: a page gets from one file into another only
//!    at the master, in one step.
//! 3. After that the master says which of the pages no file has: those are freed, wherever they are. An id is never used
//!    twice, so if some are gone already no harm is done.
//!
//! Pages that are freed otherwise leave the sets. Those that became a file's do not, so a set that is in many pieces is
//! looked through with the master now and then; one of more than [`MOST`] forgets its oldest. What is not known here, also
//! since another daemon gave it out, returns when no rack has clients (the master's `sweep`).
//!
//! Locks: a leaf. Nothing is asked of the master under it.

use crate::extents::Intervals;
use crate::frames::runs;
use crate::member::MasterError;
use crate::server::Node;
use parking_lot::Mutex;
use pool::addr::PageRun;
use pool::cxl::slots::ClientId;
use pool::proto::cluster::ClientName;
use pool::proto::page::{FREE_MAX, PageError};
use std::collections::HashMap;
use std::ops::Range;
use thiserror::Error;

/// Pieces of a set that are not worth to be looked through.
const FEW: usize = 1 << 16;
/// The most pieces of a set.
const MOST: usize = 1 << 20;
/// The most runs in one message.
const BATCH: usize = 1 << 16;

/// What a client has taken.
struct Taken {
    ids: Intervals,
    /// With so many pieces it is to be looked through.
    enough: usize,
}

impl Default for Taken {
    fn default() -> Self {
        Self { ids: Intervals::default(), enough: FEW }
    }
}

/// What a client that is no more has left.
struct Left {
    client: ClientName,
    ids: Intervals,
    /// The master knows that it is no more.
    told: bool,
}

#[derive(Default)]
struct State {
    living: HashMap<ClientName, Taken>,
    left: Vec<Left>,
}

/// Who has taken what.
#[derive(Default)]
pub(crate) struct Takers(Mutex<State>);

#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Master(#[from] MasterError),
    #[error(transparent)]
    Page(#[from] PageError),
}

impl Takers {
    /// The client has taken these.
    pub fn note(&self, client: ClientName, taken: &[PageRun]) {
        let mut state = self.0.lock();
        let known = state.living.entry(client).or_default();
        taken.iter().for_each(|run| known.ids.insert(ids(run)));
    }

    /// These are nobody's any more.
    pub fn freed(&self, freed: &[PageRun]) {
        let mut state = self.0.lock();
        for taken in state.living.values_mut() {
            freed.iter().for_each(|run| taken.ids.remove(ids(run)));
        }
        state.living.retain(|_, taken| taken.ids.len() > 0);
    }

    /// The client is no more; whether it has left anything.
    pub fn died(&self, client: ClientName) -> bool {
        let mut state = self.0.lock();
        let Some(taken) = state.living.remove(&client) else { return false };
        state.left.push(Left { client, ids: taken.ids, told: false });
        true
    }

    /// Those whose processes can be watched and are gone are no more.
    fn look_for_dead(&self) {
        let known: Vec<ClientName> = self.0.lock().living.keys().copied().collect();
        let is_dead = |client: &ClientName| match client {
            ClientName::Mapped(raw) => ClientId::from_raw(*raw).is_none_or(|client| !client.is_alive()),
            ClientName::Far(_) => false,
        };
        for client in known.into_iter().filter(is_dead) {
            self.died(client);
        }
    }

    /// Takes out what was left.
    fn take_left(&self) -> Vec<Left> {
        std::mem::take(&mut self.0.lock().left)
    }

    /// This is still to be dealt with.
    fn leave(&self, left: Left) {
        self.0.lock().left.push(left);
    }

    /// What is to be looked through.
    fn long(&self) -> Vec<(ClientName, Intervals)> {
        let state = self.0.lock();
        let long = state.living.iter().filter(|(_, taken)| taken.ids.pieces() >= taken.enough);
        long.map(|(client, taken)| (*client, taken.ids.clone())).collect()
    }

    /// Of what the client had taken as `looked` says, no file has `unowned`; the rest is settled.
    fn looked_through(&self, client: ClientName, mut looked: Intervals, unowned: &[PageRun]) {
        unowned.iter().for_each(|run| looked.remove(ids(run)));
        let mut state = self.0.lock();
        let Some(taken) = state.living.get_mut(&client) else { return };
        looked.iter().for_each(|settled| taken.ids.remove(settled));
        let surplus = taken.ids.pieces().saturating_sub(MOST / 2);
        if surplus > 0 {
            let oldest: Vec<Range<u64>> = taken.ids.iter().take(surplus).collect();
            oldest.into_iter().for_each(|ids| taken.ids.remove(ids));
        }
        taken.enough = (2 * taken.ids.pieces()).max(FEW);
    }
}

impl Node {
    /// Frees what clients that are no more have taken, and no file has. Waits.
    pub fn give_back_of_the_dead(&self) {
        self.takers.look_for_dead();
        self.far.look_for_gone();
        for mut left in self.takers.take_left() {
            match self.give_back_of(&mut left) {
                Ok(0) => {}
                Ok(freed) => log::info!("{freed} pages that a client took and no file has returned"),
                Err(why) => {
                    log::warn!("pages that a client took before it died are not free yet: {why}");
                    self.takers.leave(left);
                }
            }
        }
        for (client, taken) in self.takers.long() {
            match self.unowned(&taken) {
                Ok(unowned) => self.takers.looked_through(client, taken, &unowned),
                Err(why) => log::debug!("what a client took is looked through later: {why}"),
            }
        }
    }

    fn give_back_of(&self, left: &mut Left) -> Result<u64, Fault> {
        if !left.told {
            self.member.died(left.client)?;
            left.told = true;
        }
        let unowned = self.unowned(&left.ids)?;
        let mut freed = 0;
        for run in unowned.iter().flat_map(|run| runs_of(ids(run))) {
            freed += self.free(&[run])?;
        }
        Ok(freed)
    }

    fn unowned(&self, taken: &Intervals) -> Result<Vec<PageRun>, MasterError> {
        let all: Vec<PageRun> = taken.iter().flat_map(|ids| runs(ids.start, ids.end - ids.start)).collect();
        let mut unowned = Vec::new();
        for some in all.chunks(BATCH) {
            unowned.extend(self.member.unowned(some.to_vec())?);
        }
        Ok(unowned)
    }
}

fn ids(run: &PageRun) -> Range<u64> {
    run.first.raw()..run.end()
}

/// In parts that can be freed at once.
fn runs_of(ids: Range<u64>) -> impl Iterator<Item = PageRun> {
    let end = ids.end;
    ids.step_by(FREE_MAX as usize).flat_map(move |first| runs(first, FREE_MAX.min(end - first)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pool::addr::PageId;

    const ONE: ClientName = ClientName::Far(1);
    const OTHER: ClientName = ClientName::Far(2);

    fn run(first: u64, count: u32) -> PageRun {
        PageRun::new(PageId::new(first).unwrap(), count).unwrap()
    }

    /// Who has left what, from which id to which.
    fn left(takers: &Takers) -> Vec<(ClientName, Vec<(u64, u64)>)> {
        let ids = |left: &Left| left.ids.iter().map(|ids| (ids.start, ids.end)).collect();
        takers.take_left().iter().map(|left| (left.client, ids(left))).collect()
    }

    #[test]
    fn who_dies_leaves_what_it_took_and_was_not_freed() {
        let takers = Takers::default();
        takers.note(ONE, &[run(10, 10), run(40, 2)]);
        takers.note(OTHER, &[run(20, 5)]);
        takers.freed(&[run(12, 3), run(100, 7)]);
        assert!(takers.died(ONE));
        assert_eq!(left(&takers), [(ONE, vec![(10, 12), (15, 20), (40, 42)])]);
        assert!(!takers.died(ONE), "it has left nothing more");
        takers.freed(&[run(20, 5)]);
        assert!(!takers.died(OTHER), "it had nothing any more");
    }

    #[test]
    fn what_is_taken_after_death_is_left_as_well() {
        let takers = Takers::default();
        takers.note(ONE, &[run(10, 1)]);
        takers.died(ONE);
        takers.note(ONE, &[run(11, 1)]);
        takers.died(ONE);
        assert_eq!(left(&takers), [(ONE, vec![(10, 11)]), (ONE, vec![(11, 12)])]);
    }

    #[test]
    fn a_process_that_runs_is_not_dead_and_one_that_never_was_is() {
        let takers = Takers::default();
        let (me, nobody) = (ClientName::Mapped(ClientId::this_process().raw()), ClientName::Mapped(0));
        takers.note(me, &[run(1, 1)]);
        takers.note(nobody, &[run(2, 1)]);
        takers.look_for_dead();
        assert_eq!(left(&takers), [(nobody, vec![(2, 3)])]);
    }

    #[test]
    fn what_became_a_files_is_forgotten_when_the_set_is_in_many_pieces() {
        let takers = Takers::default();
        for i in 0..FEW as u64 {
            takers.note(ONE, &[run(10 + 2 * i, 1)]);
        }
        let (client, looked) = takers.long().pop().unwrap();
        takers.note(ONE, &[run(5, 1)]);
        takers.looked_through(client, looked, &[run(14, 1)]);
        assert!(takers.long().is_empty());
        takers.died(ONE);
        assert_eq!(left(&takers), [(ONE, vec![(5, 6), (14, 15)])]);
    }
}
