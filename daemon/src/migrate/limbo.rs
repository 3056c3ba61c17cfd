//! Asking the master how swaps ended, and settling what an earlier daemon of this rack was in the middle of.

use super::Halt;
use crate::frames::{Arriving, Departing};
use crate::remote::Remote;
use pool::addr::{PageId, RackId};
use pool::proto::cluster::{ClusterReply, ClusterRequest, SwapToken};
use pool::proto::page::PageError;
use pool::proto::{NodeId, Reply, Request};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Pause between questions to a master that does not answer.
const PAUSE: Duration = Duration::from_millis(50);

impl Remote {
    /// Asks the master until it answers; afterwards the swap can never be committed. The pages stay as they
    /// are meanwhile.
    pub(super) fn resolve(&self, token: SwapToken, pages: &[PageId]) -> Result<Vec<Option<RackId>>, Halt> {
        loop {
            if self.is_closed() {
                return Err(Halt);
            }
            let request = ClusterRequest::Resolve { token, pages: pages.to_vec() };
            let reply = self.context.transport.call(NodeId::Master, Request::Cluster(request));
            match reply {
                Ok(Reply::Cluster(Ok(ClusterReply::Homes(homes)))) if homes.len() == pages.len() => {
                    return Ok(homes);
                }
                other => log::warn!("the master does not say how a swap of pages {pages:?} ended: {other:?}"),
            }
            if !self.pause(PAUSE) {
                return Err(Halt);
            }
        }
    }

    /// After a restart, once this daemon has joined: asks the master about every page that an earlier daemon
    /// was moving, and settles it. Waits for the master; to be called again until it succeeds.
    ///
    /// From the moment of joining on, no swap in which the earlier daemon took part can be committed, so that
    /// where the pages are then is final.
    pub fn settle_limbo(self: &Arc<Self>) -> Result<(), PageError> {
        let mut limbo = self.swaps.limbo.lock();
        let (departing, arriving) = (&limbo.0, &limbo.1);
        let pages: Vec<PageId> =
            departing.iter().map(Departing::page).chain(arriving.iter().map(Arriving::page)).collect();
        if pages.is_empty() {
            return Ok(());
        }
        let (departing, arriving) = std::mem::take(&mut *limbo);
        drop(limbo);
        let mut homes = HashMap::new();
        for part in pages.chunks(4096) {
            match self.ask_homes(part.to_vec()) {
                Ok(found) => homes.extend(part.iter().copied().zip(found)),
                Err(error) => {
                    *self.swaps.limbo.lock() = (departing, arriving);
                    return Err(error);
                }
            }
        }
        let here = self.context.rack;
        let home_of = |page: PageId| homes.get(&page).copied().flatten();
        for departing in departing {
            // A page that the master has never heard of has not moved.
            match home_of(departing.page()).filter(|home| *home != here) {
                Some(to) => self.depart(departing, to),
                None => self.context.frames.thaw(departing),
            }
        }
        for arriving in arriving {
            match home_of(arriving.page()) {
                Some(home) if home == here => self.arrive(arriving),
                _ => self.context.frames.abandon(arriving),
            }
        }
        log::info!("{} pages that were being moved when the last daemon ended are settled", pages.len());
        for page in pages {
            self.swaps.unset_moving(page);
            self.wake(page);
        }
        Ok(())
    }
}
