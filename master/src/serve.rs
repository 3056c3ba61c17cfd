//! Serves requests: reads under the lock, or plans, commits and applies; then gives freed pages back.

use crate::clock::{Clock, SystemClock};
use crate::config::MasterConfig;
use crate::error::MasterError;
use crate::namespace::edit::Edit;
use crate::namespace::{Namespace, check, ops};
use crate::reclaim::Reclaimer;
use crate::recovery::{self, Recovery};
use crate::store::sled::{Identity, SledStore, Tuning};
use crate::store::{Store, StoreError, Volatile};
use parking_lot::{RwLock, RwLockUpgradableReadGuard};
use pool::proto::meta::{MetaError, MetaReply, MetaRequest};
use pool::proto::{Reply, Request};
use pool::transport::{Handler, Transport};
use std::sync::Arc;

/// The master of a pool.
pub struct Master {
    /// First in the lock order; see the crate's description.
    ns: RwLock<Namespace>,
    store: Box<dyn Store>,
    clock: Arc<dyn Clock>,
    reclaimer: Reclaimer,
    recovery: Recovery,
}

impl Master {
    /// Opens the store that `config` names (or none), checks what it holds, and tells the daemon at
    /// `config.home`, through `transport`, which pages have an owner.
    ///
    /// # Errors
    /// The store cannot be opened or does not fit `config`, or the daemon does not answer; `Damaged` if
    /// `config` does not say to repair.
    pub fn open(config: MasterConfig, transport: Arc<dyn Transport>) -> Result<Self, MasterError> {
        let identity = Identity { pool: config.pool_id, page_size: config.page_size };
        let store: Box<dyn Store> = match &config.store {
            None => Box::new(Volatile),
            Some(dir) => Box::new(SledStore::open(dir, identity, Tuning::default())?),
        };
        Self::open_with(&config, transport, store, Arc::new(SystemClock))
    }

    /// As [`open`](Self::open), with this store and this clock.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        config: &MasterConfig,
        transport: Arc<dyn Transport>,
        store: Box<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MasterError> {
        let reclaimer = Reclaimer::new(transport, config.home);
        let (ns, recovery) = recovery::recover(config, &*store, &reclaimer, clock.now())?;
        Ok(Self { ns: RwLock::new(ns), store, clock, reclaimer, recovery })
    }

    /// What opening found, and did about it.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Ends in good order: pages still owed go back, and the store is brought up to date and closed.
    /// Requests that change something fail afterwards.
    ///
    /// # Errors
    /// The store could not be brought up to date. Nothing answered is lost.
    pub fn shutdown(&self) -> Result<(), MasterError> {
        self.reclaimer.free(Vec::new());
        Ok(self.store.close()?)
    }

    /// What is wrong with the namespace, a sentence each; nothing if all is well. Takes a while.
    pub fn check(&self) -> Vec<String> {
        check::problems(&self.ns.read())
    }

    fn serve(&self, request: MetaRequest) -> Result<MetaReply, MetaError> {
        match request {
            MetaRequest::Lookup { parent, name } => ops::lookup(&self.ns.read(), parent, &name),
            MetaRequest::GetAttr { ino } => ops::getattr(&self.ns.read(), ino),
            MetaRequest::ReadLink { ino } => ops::readlink(&self.ns.read(), ino),
            MetaRequest::ReadDir { ino, after, limit, plus } => {
                ops::readdir(&self.ns.read(), ino, after, limit, plus)
            }
            MetaRequest::Map { ino, from, limit } => ops::map(&self.ns.read(), ino, from, limit),
            MetaRequest::GetXattr { ino, name } => ops::getxattr(&self.ns.read(), ino, &name),
            MetaRequest::ListXattr { ino } => ops::listxattr(&self.ns.read(), ino),
            MetaRequest::StatFs => ops::statfs(&self.ns.read()),
            MetaRequest::Sync => self.sync(),
            change => self.change(|edit| plan(edit, change)),
        }
    }

    /// Plans a change, commits it, applies it, and frees what it freed. Readers wait only while it is
    /// applied.
    fn change(
        &self,
        plan: impl FnOnce(&mut Edit) -> Result<MetaReply, MetaError>,
    ) -> Result<MetaReply, MetaError> {
        let ns = self.ns.upgradable_read();
        let mut edit = Edit::new(&ns, self.clock.now());
        let reply = plan(&mut edit)?;
        let plan = edit.finish();
        if !plan.changes.is_empty() {
            self.store.commit(&plan.changes).map_err(refused)?;
            let mut ns = RwLockUpgradableReadGuard::upgrade(ns);
            plan.changes.into_iter().for_each(|change| ns.apply(change));
        } else {
            drop(ns);
        }
        if !plan.freed.is_empty() {
            self.reclaimer.free(plan.freed);
        }
        Ok(reply)
    }

    fn sync(&self) -> Result<MetaReply, MetaError> {
        if self.reclaimer.owed() > 0 {
            self.reclaimer.free(Vec::new());
        }
        self.store.sync().map_err(refused)?;
        Ok(MetaReply::Done)
    }
}

impl Handler for Master {
    fn handle(&self, request: Request) -> Reply {
        match request {
            Request::Meta(request) => Reply::Meta(self.serve(request)),
            Request::Page(_) => Reply::Unsupported,
        }
    }
}

/// Plans any request that changes something.
fn plan(e: &mut Edit, request: MetaRequest) -> Result<MetaReply, MetaError> {
    match request {
        MetaRequest::SetAttr { ino, caller, set } => ops::setattr(e, ino, caller, &set),
        MetaRequest::Make { parent, name, caller, node, perm, umask } => {
            ops::make(e, &ops::Make { parent, name, caller, node, perm, umask })
        }
        MetaRequest::Link { ino, parent, name } => ops::link(e, ino, parent, &name),
        MetaRequest::Unlink { parent, name } => ops::unlink(e, parent, &name),
        MetaRequest::Rmdir { parent, name } => ops::rmdir(e, parent, &name),
        MetaRequest::Rename { parent, name, new_parent, new_name, mode } => {
            ops::rename(e, &ops::Rename { parent, name, new_parent, new_name, mode })
        }
        MetaRequest::Commit { ino, extents, size, touch, kill_suid } => {
            ops::commit(e, &ops::Commit { ino, extents, size, touch, kill_suid })
        }
        MetaRequest::Punch { ino, from, to } => ops::punch(e, ino, from, to),
        MetaRequest::SetXattr { ino, caller, name, value, mode } => {
            ops::setxattr(e, &ops::SetXattr { ino, caller, name, value, mode })
        }
        MetaRequest::RemoveXattr { ino, name } => ops::removexattr(e, ino, &name),
        MetaRequest::Forget { inos } => ops::forget(e, inos),
        MetaRequest::Lookup { .. }
        | MetaRequest::GetAttr { .. }
        | MetaRequest::ReadLink { .. }
        | MetaRequest::ReadDir { .. }
        | MetaRequest::Map { .. }
        | MetaRequest::GetXattr { .. }
        | MetaRequest::ListXattr { .. }
        | MetaRequest::StatFs
        | MetaRequest::Sync => Err(MetaError::Invalid("this request changes nothing".into())),
    }
}

/// How the store's refusal looks to who asked.
fn refused(why: StoreError) -> MetaError {
    match why {
        StoreError::NoSpace { .. } => MetaError::NoSpace(why.to_string()),
        _ => MetaError::Io(why.to_string()),
    }
}
