//! Compares the pages of a rack with those of the files, when [`sweep`](crate::sweep) says that it is time.

use crate::cluster::ClusterState;
use crate::error::MasterError;
use crate::namespace::Namespace;
use crate::reclaim::Reclaimer;
use crate::recovery::{self, MissingPages};
use crate::sweep::Task;
use parking_lot::{Mutex, RwLock};
use pool::addr::{PageId, PageRun, RackId};
use pool::proto::NodeId;
use std::collections::BTreeMap;
use std::ops::Range;

/// The most runs in one message.
const BATCH: usize = 65_536;
/// The most files of a rack that are named in the log.
const NAMED: usize = 10;

/// Compares one rack at a time, and remembers what was not there.
#[derive(Default)]
pub(crate) struct Comparer {
    /// Held while a rack is compared, so that daemons that do not answer keep one thread waiting at most.
    turn: Mutex<()>,
    missing: Mutex<BTreeMap<RackId, Vec<MissingPages>>>,
}

impl Comparer {
    /// Does what is due with this rack, unless another is being compared: then it is due again when the
    /// rack's daemon is heard of the next time.
    pub(crate) fn run(
        &self,
        rack: RackId,
        cluster: &ClusterState,
        ns: &RwLock<Namespace>,
        reclaimer: &Reclaimer,
    ) {
        let Some(_turn) = self.turn.try_lock() else { return };
        while let Some((task, incarnation)) = cluster.due(rack) {
            let result = self.compare(rack, task, cluster, ns, reclaimer);
            cluster.compared(rack, incarnation, matches!(result, Ok(true)));
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(why) => {
                    log::warn!("rack {rack}: its pages could not be compared, and will be later: {why}");
                    return;
                }
            }
        }
    }

    /// Pages of files that their racks do not have.
    pub(crate) fn missing(&self) -> Vec<MissingPages> {
        self.missing.lock().values().flatten().cloned().collect()
    }

    /// `false` if it is not the time for it after all.
    fn compare(
        &self,
        rack: RackId,
        task: Task,
        cluster: &ClusterState,
        ns: &RwLock<Namespace>,
        reclaimer: &Reclaimer,
    ) -> Result<bool, MasterError> {
        if task == Task::Sweep && !nobody_is_there(cluster, reclaimer)? {
            return Ok(false);
        }
        let held = recovery::held(&ns.read());
        let held = cluster.at_home(&held, rack);
        let (mut leaked, mut missing) = (0, Vec::new());
        for (part, ids) in parts(&held, BATCH) {
            let found = reclaimer.reconcile(NodeId::Daemon(rack), part.to_vec(), ids, task == Task::Sweep)?;
            leaked += found.leaked;
            missing.extend(found.missing);
        }
        if leaked > 0 {
            log::info!("rack {rack}: {leaked} pages that no file had returned to the pool");
        }
        // What has moved or been freed in the meantime is not missing.
        let missing = recovery::missing(&ns.read(), &cluster.at_home(&missing, rack));
        self.report(rack, missing);
        Ok(true)
    }

    fn report(&self, rack: RackId, found: Vec<MissingPages>) {
        let mut missing = self.missing.lock();
        if missing.get(&rack).is_none_or(|known| *known != found) {
            for file in found.iter().take(NAMED) {
                let (at, count) = (file.extent.at, file.extent.run.count);
                log::error!("rack {rack}: {}: {count} pages from page {at} on do not exist", file.path);
            }
            if found.len() > NAMED {
                log::error!("rack {rack}: and {} more parts of files", found.len() - NAMED);
            }
        }
        missing.insert(rack, found);
    }
}

/// Whether all racks say, now, that they have no client.
fn nobody_is_there(cluster: &ClusterState, reclaimer: &Reclaimer) -> Result<bool, MasterError> {
    for rack in cluster.quiet().into_iter().flatten() {
        let found = reclaimer.reconcile(NodeId::Daemon(rack), Vec::new(), 0..0, false)?;
        if found.clients != Some(0) {
            return Ok(false);
        }
    }
    // Nobody has joined in the meantime, nor come to life.
    Ok(cluster.quiet().is_some())
}

/// Runs in order of ids, at most `most` at a time, each time with the ids that they speak for; all ids
/// together.
fn parts(held: &[PageRun], most: usize) -> impl Iterator<Item = (&[PageRun], Range<u64>)> {
    let count = held.len().div_ceil(most).max(1);
    let first = move |part: usize| match held.get(part * most) {
        Some(run) if part > 0 => run.first.raw(),
        None if part > 0 => PageId::LIMIT,
        _ => 0,
    };
    (0..count).map(move |i| {
        let runs = &held[i * most..held.len().min((i + 1) * most)];
        (runs, first(i)..first(i + 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_have_all_runs_and_speak_for_all_ids() {
        for len in 0..8u64 {
            let runs = (0..len).filter_map(|i| PageRun::new(PageId::new(10 * i + 5)?, 3));
            let held: Vec<_> = runs.collect();
            let mut next = 0;
            let mut seen = Vec::new();
            for (runs, ids) in parts(&held, 3) {
                assert_eq!(ids.start, next);
                assert!(runs.iter().all(|run| ids.contains(&run.first.raw()) && run.end() <= ids.end));
                next = ids.end;
                seen.extend_from_slice(runs);
            }
            assert_eq!((next, seen), (PageId::LIMIT, held));
        }
    }
}
