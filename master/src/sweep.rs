//! When the pages of a rack are compared with those of the files, and when pages without a file are freed.
//!
//! A mount takes pages, and commits them to a file later: to free every page that is in no file would take
//! them away from under it. And while the master lists the pages of the files, pages move. So a page
//! is freed only if
//!
//! 1. it has been where it is since some moment (it is *settled*; the rack's daemon knows which pages are, see
//!    [`Reconcile`](pool::proto::page::PageRequest::Reconcile)),
//! 2. after that moment every rack of the cluster said that it has no client: so whoever took the page is
//!    gone, and whoever comes later takes other pages, since no id is given out twice,
//! 3. after that the files were looked through, and none has it. A page of a file cannot have been missed:
//!    had it come here since, it would not be settled.
//!
//! That is for what nobody knows of any more. What a client had taken that dies while others live its rack's daemon
//! knows, and frees when the master has said which of it no file has, and can get no more
//! ([`ClusterRequest::Unowned`](pool::proto::cluster::ClusterRequest::Unowned)).
//!
//! This file decides what is due, and does nothing about it. A rack is *checked* (nothing is freed, all its
//! pages are settled) when its daemon joins, and *swept* when nobody uses the cluster, if anybody did since
//! it was last swept, or never was.

use pool::addr::RackId;
use std::collections::BTreeMap;

/// What is to be done with a rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Compare, and free nothing.
    Check,
    /// Free what is settled and in no file, once all racks confirm that they have no clients.
    Sweep,
}

#[derive(Clone, Copy, Debug)]
struct State {
    incarnation: u64,
    checked: bool,
    /// There may be pages without a file that are settled.
    wanted: bool,
    /// There were clients since a task last began, so there may be such pages that are not.
    used: bool,
    busy: Option<Busy>,
}

/// A task under way.
#[derive(Clone, Copy, Debug)]
struct Busy {
    task: Task,
    /// `used` when it began.
    used: bool,
}

/// What is to be done with all racks.
#[derive(Debug, Default)]
pub(crate) struct Sweeper {
    racks: BTreeMap<RackId, State>,
}

impl Sweeper {
    /// A daemon has joined that had not, in this term of the master.
    pub(crate) fn joined(&mut self, rack: RackId, incarnation: u64) {
        let state = State { incarnation, checked: false, wanted: true, used: false, busy: None };
        self.racks.insert(rack, state);
    }

    /// Somewhere in the cluster there is a client.
    pub(crate) fn used(&mut self) {
        self.racks.values_mut().for_each(|state| state.used = true);
    }

    /// What to do now with this rack and this incarnation of its daemon; `quiet` says whether there seem to
    /// be no clients. The task is under way until [`done`](Self::done).
    pub(crate) fn due(&mut self, rack: RackId, quiet: bool) -> Option<(Task, u64)> {
        let state = self.racks.get_mut(&rack).filter(|state| state.busy.is_none())?;
        let task = match () {
            () if !state.checked => Task::Check,
            () if quiet && (state.wanted || state.used) => Task::Sweep,
            () => return None,
        };
        state.busy = Some(Busy { task, used: std::mem::take(&mut state.used) });
        Some((task, state.incarnation))
    }

    /// A task has ended, `well` or not at all.
    pub(crate) fn done(&mut self, rack: RackId, incarnation: u64, well: bool) {
        let state = self.racks.get_mut(&rack).filter(|state| state.incarnation == incarnation);
        let Some(state) = state else { return };
        let Some(busy) = state.busy.take() else { return };
        match (well, busy.task) {
            (false, _) => state.used |= busy.used,
            (true, Task::Check) => state.checked = true,
            // What was not settled when it began is now.
            (true, Task::Sweep) => state.wanted = busy.used,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RACK: RackId = RackId(1);

    fn finish(sweeper: &mut Sweeper, quiet: bool, well: bool) -> Option<Task> {
        let (task, incarnation) = sweeper.due(RACK, quiet)?;
        assert_eq!(sweeper.due(RACK, quiet), None, "one at a time");
        sweeper.done(RACK, incarnation, well);
        Some(task)
    }

    #[test]
    fn a_rack_that_joins_is_checked_until_it_worked_and_swept_once_it_is_quiet() {
        let mut sweeper = Sweeper::default();
        assert_eq!(sweeper.due(RACK, true), None);
        sweeper.joined(RACK, 7);
        assert_eq!(finish(&mut sweeper, true, false), Some(Task::Check));
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Check));
        assert_eq!(finish(&mut sweeper, false, true), None);
        assert_eq!(finish(&mut sweeper, true, false), Some(Task::Sweep));
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Sweep));
        assert_eq!(finish(&mut sweeper, true, true), None);
    }

    #[test]
    fn after_clients_there_are_two_sweeps_one_to_settle_pages_and_one_to_free_them() {
        let mut sweeper = Sweeper::default();
        sweeper.joined(RACK, 7);
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Check));
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Sweep));
        sweeper.used();
        assert_eq!(finish(&mut sweeper, false, true), None);
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Sweep));
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Sweep));
        assert_eq!(finish(&mut sweeper, true, true), None);
    }

    #[test]
    fn clients_that_come_during_a_sweep_are_not_forgotten() {
        let mut sweeper = Sweeper::default();
        sweeper.joined(RACK, 7);
        finish(&mut sweeper, true, true);
        let (_, incarnation) = sweeper.due(RACK, true).unwrap();
        sweeper.used();
        sweeper.done(RACK, incarnation, true);
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Sweep));
    }

    #[test]
    fn what_was_done_with_a_former_daemon_does_not_count_for_the_next() {
        let mut sweeper = Sweeper::default();
        sweeper.joined(RACK, 7);
        let (_, former) = sweeper.due(RACK, true).unwrap();
        sweeper.joined(RACK, 8);
        sweeper.done(RACK, former, true);
        assert_eq!(finish(&mut sweeper, true, true), Some(Task::Check));
    }
}
