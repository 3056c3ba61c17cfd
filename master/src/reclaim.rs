//! Gives pages that no file has any more back to the daemon.
//!
//! A page that could not be given back is kept in a list and tried again with the next ones. Doing so
//! twice is harmless, since the id of a page is never used again; and what is still in the list when the
//! process ends is found at the next opening, when pages and files are compared.

use crate::error::MasterError;
use parking_lot::Mutex;
use pool::addr::PageRun;
use pool::proto::page::{PageReply, PageRequest, Reconciled};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::Transport;
use std::sync::Arc;

/// The most runs in one message.
const BATCH: usize = 16_384;

/// The way to the daemon.
pub(crate) struct Reclaimer {
    transport: Arc<dyn Transport>,
    home: NodeId,
    /// Pages that no file has but that the daemon may still hold. Taken out while a message is under
    /// way, so that the lock is not held then.
    owed: Mutex<Vec<PageRun>>,
}

impl Reclaimer {
    /// Pages go back to `home`.
    pub(crate) fn new(transport: Arc<dyn Transport>, home: NodeId) -> Self {
        Self { transport, home, owed: Mutex::default() }
    }

    /// Gives these pages back, and those that could not be given back before.
    pub(crate) fn free(&self, freed: Vec<PageRun>) {
        let mut all = std::mem::take(&mut *self.owed.lock());
        all.extend(freed);
        let mut rest = &all[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BATCH));
            if let Err(why) = self.ask(PageRequest::Free { runs: now.to_vec() }) {
                log::warn!("{} runs of pages could not be freed, and will be later: {why}", rest.len());
                self.owed.lock().extend(rest);
                return;
            }
            rest = later;
        }
    }

    /// How many runs could not be given back yet.
    pub(crate) fn owed(&self) -> usize {
        self.owed.lock().len()
    }

    /// Tells the daemon every page that has an owner.
    pub(crate) fn reconcile(&self, held: Vec<PageRun>) -> Result<Reconciled, MasterError> {
        match self.ask(PageRequest::Reconcile { held })? {
            PageReply::Reconciled(found) => Ok(found),
            _ => Err(MasterError::Mismatch),
        }
    }

    fn ask(&self, request: PageRequest) -> Result<PageReply, MasterError> {
        match self.transport.call(self.home, Request::Page(request))? {
            Reply::Page(reply) => Ok(reply?),
            Reply::Meta(_) | Reply::Unsupported => Err(MasterError::Mismatch),
        }
    }
}
