//! The client of a pool: allocate, free, read, write, compare-and-swap.
//!
//! | module | owns |
//! | --- | --- |
//! | `access` | what can be done to bytes, here and elsewhere |
//! | [`in_place`] | touching bytes of this rack: plain loads and stores, by way of a slot |
//! | `lease` | which slot a thread has |
//! | `far` | all of an access where the rack's memory is not mapped, by messages to its daemon |
//! | `remote` | the rest of an access: bytes of other racks, by messages to the daemon of this one |
//! | `direct` | short reads of other racks' pages without a detour, where that loses nothing |
//! | `alloc` | getting pages and objects, and giving them back, by messages to the daemon |
//! | `join` | finding the rack's region by way of the master |
//!
//! Nothing here knows a daemon or the master but by their messages, nor the layout of a region but by the
//! views in [`cxl`](crate::cxl).

mod access;
mod alloc;
mod direct;
mod far;
pub mod in_place;
mod join;
mod lease;
mod remote;

use crate::addr::{PageSize, RackId};
use crate::cxl::region::Region;
use crate::cxl::slots::ClientId;
use crate::error::PoolError;
use crate::proto::cluster::ClientName;
use crate::proto::page::{PageReply, PageRequest};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::{Transport, TransportError};
use direct::Direct;
use far::Far;
use in_place::InPlace;
use join::Membership;
use std::sync::{Arc, OnceLock};

/// What is in pages that are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeroes.
    Zeroed,
    /// Anything, also what other pages held before. For a caller that overwrites all of it.
    Uninit,
}

/// A pool as one process uses it. Clones are the same client; all methods may be called from any
/// number of threads at once.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    memory: Memory,
    page_size: PageSize,
    rack: RackId,
    /// Reaches the daemon of the rack.
    transport: Arc<dyn Transport>,
    /// `None` where there is no master.
    membership: Option<Membership>,
    /// Where this process may reach the daemons of other racks by TCP.
    direct: OnceLock<Direct>,
}

/// The rack's memory.
enum Memory {
    /// Mapped here.
    Mapped(InPlace),
    /// Not mapped: the daemon touches it.
    Far(Far),
}

impl Pool {
    /// The pool whose rack `rack` has the memory `region`, and a daemon that `transport` reaches.
    ///
    /// # Errors
    /// [`PoolError::WrongRack`]; or if the daemon does not answer.
    pub fn attach(
        region: Arc<Region>,
        rack: RackId,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, PoolError> {
        if region.rack() != rack {
            return Err(PoolError::WrongRack { found: region.rack(), wanted: rack });
        }
        Self::with_daemon(region, rack, transport, None)
    }

    fn with_daemon(
        region: Arc<Region>,
        rack: RackId,
        transport: Arc<dyn Transport>,
        membership: Option<Membership>,
    ) -> Result<Self, PoolError> {
        let pool = Self::of(InPlace::new(region), rack, transport, membership);
        pool.stat()?;
        Ok(pool)
    }

    /// The pool as the daemon of `rack` itself uses it, with the access slots that it has already; `transport` reaches
    /// that daemon. Sends nothing.
    pub fn within(in_place: InPlace, rack: RackId, transport: Arc<dyn Transport>) -> Self {
        Self::of(in_place, rack, transport, None)
    }

    fn of(
        in_place: InPlace,
        rack: RackId,
        transport: Arc<dyn Transport>,
        membership: Option<Membership>,
    ) -> Self {
        let page_size = in_place.region().geometry().page_size;
        let memory = Memory::Mapped(in_place);
        let direct = OnceLock::new();
        Self { inner: Arc::new(Inner { memory, page_size, rack, transport, membership, direct }) }
    }

    /// The size of a page.
    #[inline]
    pub fn page_size(&self) -> PageSize {
        self.inner.page_size
    }

    /// Whether this process has mapped the rack's memory; else its daemon touches it.
    #[inline]
    pub fn is_mapped(&self) -> bool {
        matches!(self.inner.memory, Memory::Mapped(_))
    }

    /// What the daemon of the rack, and by it the master, knows this client by.
    pub fn client(&self) -> ClientName {
        match &self.inner.memory {
            Memory::Mapped(_) => ClientName::Mapped(ClientId::this_process().raw()),
            Memory::Far(far) => ClientName::Far(far.name()),
        }
    }

    /// How often pages that this client has taken, and that are in no file, may have been taken from it, because
    /// it was not heard of. Never, where the memory is mapped.
    pub fn lapses(&self) -> u64 {
        match &self.inner.memory {
            Memory::Mapped(_) => 0,
            Memory::Far(far) => far.lapses(),
        }
    }

    /// Makes sure that the daemon knows of this client now. As [`lapses`](Self::lapses).
    ///
    /// # Errors
    /// If the daemon does not answer.
    pub fn check_in(&self) -> Result<u64, PoolError> {
        match &self.inner.memory {
            Memory::Mapped(_) => Ok(0),
            Memory::Far(far) => far.check_in(),
        }
    }

    /// The rack that this client is part of.
    pub fn rack(&self) -> RackId {
        self.inner.rack
    }

    /// Sends `request` to the daemon of the rack.
    fn call(&self, request: PageRequest) -> Result<PageReply, PoolError> {
        let reply = match &self.inner.memory {
            Memory::Mapped(_) => self.inner.transport.call(self.daemon(), Request::Page(request)),
            Memory::Far(far) => far.call(request),
        };
        match reply.map_err(|error| self.explain(error))? {
            Reply::Page(reply) => Ok(reply?),
            _ => Err(self.mismatch()),
        }
    }

    /// Sends `requests` to the daemon of the rack, all at once.
    fn call_all(&self, mut requests: Vec<Request>) -> Vec<Result<Reply, PoolError>> {
        let (transport, to) = (&self.inner.transport, self.daemon());
        let replies = match requests.pop() {
            Some(only) if requests.is_empty() => vec![transport.call(to, only)],
            Some(last) => {
                requests.push(last);
                transport.call_all(to, requests)
            }
            None => Vec::new(),
        };
        // One question to the master will do for all.
        let mut reason = None;
        let mut explain = |error| reason.get_or_insert_with(|| self.explain(error)).clone();
        replies.into_iter().map(|reply| reply.map_err(&mut explain)).collect()
    }

    /// What is behind a failure to reach the daemon.
    #[cold]
    fn explain(&self, error: TransportError) -> PoolError {
        match &self.inner.membership {
            Some(membership) => membership.explain(self.inner.rack, error),
            None => error.into(),
        }
    }

    fn daemon(&self) -> NodeId {
        NodeId::Daemon(self.inner.rack)
    }

    fn mismatch(&self) -> PoolError {
        TransportError::Mismatch(self.daemon()).into()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("Pool");
        text.field("rack", &self.inner.rack);
        if let Memory::Mapped(in_place) = &self.inner.memory {
            text.field("region", in_place.region());
        }
        text.finish()
    }
}
