//! Becoming a client of a cluster, and noticing that one has lost its rack.
//!
//! The master says which racks there are and where their regions are. Whether the region at that place is
//! the one that the daemon serves is checked against what the daemon told the master.

use super::direct::Direct;
use super::far::Far;
use super::{Inner, Memory, Pool};
use crate::addr::RackId;
use crate::cxl::region::Region;
use crate::error::PoolError;
use crate::proto::cluster::{Cluster, ClusterReply, ClusterRequest, Rack, RackJoin};
use crate::proto::{NodeId, Reply, Request};
use crate::transport::{Route, Tcp, Transport, TransportError};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// What a client keeps of the cluster that it is part of.
pub(super) struct Membership {
    /// Reaches the master.
    master: Arc<dyn Transport>,
    /// The daemon's region, if this client has mapped it.
    region_id: Option<u64>,
}

impl Pool {
    /// Joins rack `rack` of the cluster whose master `master` reaches: maps the rack's region, which must
    /// be on this host, and makes by `make_ring` what reaches the daemon through it.
    ///
    /// # Errors
    /// [`PoolError::NoSuchRack`], [`PoolError::DaemonDown`]; [`PoolError::Region`] if the region cannot be
    /// mapped; [`PoolError::OtherCluster`], [`PoolError::WrongRack`], [`PoolError::OtherPageSize`],
    /// [`PoolError::StaleRegion`] if it is not the one that the daemon serves;
    /// what `make_ring` fails with; or if the master or the daemon does not answer.
    pub fn join(
        master: Arc<dyn Transport>,
        rack: RackId,
        make_ring: impl FnOnce(Arc<Region>) -> Result<Arc<dyn Transport>, PoolError>,
    ) -> Result<Self, PoolError> {
        let cluster = match ask(&*master, ClusterRequest::Describe)? {
            ClusterReply::Cluster(cluster) => cluster,
            _ => return Err(TransportError::Mismatch(NodeId::Master).into()),
        };
        let Rack { join, alive, .. } = find(&*master, rack)?;
        if !alive {
            return Err(PoolError::DaemonDown(rack));
        }
        let region = Region::join(Path::new(&join.region)).map_err(|e| PoolError::Region(e.to_string()))?;
        check(&region, &cluster, &join)?;
        let region = Arc::new(region);
        let ring = make_ring(Arc::clone(&region))?;
        let membership = Membership { master, region_id: Some(join.region_id) };
        Self::with_daemon(region, rack, ring, Some(membership))
    }

    /// Joins rack `rack` of the cluster whose master `transport` reaches, on a host that cannot map the rack's region:
    /// the rack's daemon, which `transport` is told the address of, reads and writes for this client. `by` says who
    /// that is, for people to read; `told` is called with the cluster before the daemon is.
    ///
    /// # Errors
    /// [`PoolError::NoSuchRack`], [`PoolError::DaemonDown`]; or if the master or the daemon does not answer.
    pub fn join_without_cxl(
        transport: Arc<dyn Transport>,
        rack: RackId,
        by: String,
        told: impl FnOnce(&Cluster),
    ) -> Result<Self, PoolError> {
        let cluster = match ask(&*transport, ClusterRequest::Describe)? {
            ClusterReply::Cluster(cluster) => cluster,
            _ => return Err(TransportError::Mismatch(NodeId::Master).into()),
        };
        told(&cluster);
        let Rack { join, alive, .. } = find(&*transport, rack)?;
        if !alive {
            return Err(PoolError::DaemonDown(rack));
        }
        transport.set_addr(NodeId::Daemon(rack), join.addr);
        let memory = Memory::Far(Far::enter(Arc::clone(&transport), rack, by)?);
        let membership = Some(Membership { master: Arc::clone(&transport), region_id: None });
        let page_size = cluster.page_size;
        let direct = OnceLock::new();
        let pool = Self { inner: Arc::new(Inner { memory, page_size, rack, transport, membership, direct }) };
        pool.stat()?;
        Ok(pool)
    }
}

impl Pool {
    /// From now on short reads of pages of other racks may be asked of the daemons there, by `tcp`.
    pub(crate) fn read_directly(&self, tcp: Arc<Tcp>) {
        if let Memory::Mapped(in_place) = &self.inner.memory {
            tcp.set_cluster(in_place.region().pool_id());
            self.inner.direct.get_or_init(|| Direct::new(tcp));
        }
    }

    /// Reaches the daemon of the rack and, in a cluster, the master.
    pub fn transport(&self) -> Arc<dyn Transport> {
        let daemon = Arc::clone(&self.inner.transport);
        match &self.inner.membership {
            Some(membership) => {
                Arc::new(Route::new(NodeId::Daemon(self.inner.rack), daemon, Arc::clone(&membership.master)))
            }
            None => daemon,
        }
    }
}

impl Membership {
    /// What is behind a failure to reach the daemon of `rack`.
    pub fn explain(&self, rack: RackId, error: TransportError) -> PoolError {
        match find(&*self.master, rack) {
            Ok(now) if self.region_id.is_some_and(|mapped| now.join.region_id != mapped) => {
                PoolError::StaleRegion(rack)
            }
            Ok(now) if !now.alive => PoolError::DaemonDown(rack),
            Err(gone @ PoolError::NoSuchRack { .. }) => gone,
            Ok(_) | Err(_) => error.into(),
        }
    }
}

/// Whether `region` is the one with which the daemon joined.
fn check(region: &Region, cluster: &Cluster, join: &RackJoin) -> Result<(), PoolError> {
    let page_size = region.geometry().page_size;
    if region.pool_id() != cluster.id {
        return Err(PoolError::OtherCluster { found: region.pool_id(), wanted: cluster.id });
    }
    if region.rack() != join.rack {
        return Err(PoolError::WrongRack { found: region.rack(), wanted: join.rack });
    }
    if page_size != cluster.page_size {
        return Err(PoolError::OtherPageSize { found: page_size, wanted: cluster.page_size });
    }
    if region.region_id() != join.region_id {
        return Err(PoolError::StaleRegion(join.rack));
    }
    Ok(())
}

pub(super) fn find(master: &dyn Transport, rack: RackId) -> Result<Rack, PoolError> {
    let ClusterReply::Racks(racks) = ask(master, ClusterRequest::Racks)? else {
        return Err(TransportError::Mismatch(NodeId::Master).into());
    };
    let there_are = racks.iter().map(|rack| rack.join.rack).collect();
    let found = racks.into_iter().find(|found| found.join.rack == rack);
    found.ok_or(PoolError::NoSuchRack { rack, there_are })
}

fn ask(master: &dyn Transport, request: ClusterRequest) -> Result<ClusterReply, PoolError> {
    match master.call(NodeId::Master, Request::Cluster(request))? {
        Reply::Cluster(reply) => Ok(reply?),
        _ => Err(TransportError::Mismatch(NodeId::Master).into()),
    }
}
