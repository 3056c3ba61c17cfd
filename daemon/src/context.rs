//! What all parts of a daemon in a cluster share.

use crate::counters::Counters;
use crate::frames::FrameTable;
use parking_lot::RwLock;
use pool::addr::RackId;
use pool::heat::HalfLife;
use pool::in_place::InPlace;
use pool::proto::cluster::Cluster;
use pool::swap::SwapPolicy;
use pool::transport::Transport;
use pool::workers::Workers;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What all parts of a daemon in a cluster share.
pub(crate) struct Context {
    /// The rack that this daemon serves.
    pub rack: RackId,
    /// A random number, new at each start.
    pub incarnation: u64,
    /// The cluster, as the master described it when this daemon last joined.
    pub cluster: RwLock<Cluster>,
    /// The frames of the rack.
    pub frames: Arc<FrameTable>,
    /// The pages of the rack, as a client touches them.
    pub in_place: InPlace,
    /// Reaches the master and the daemons of other racks.
    pub transport: Arc<dyn Transport>,
    /// When pages move.
    pub policy: Arc<dyn SwapPolicy>,
    /// In what time heat halves.
    pub half_life: HalfLife,
    /// How long a request of a client may take that other racks have to do with.
    pub deadline: Duration,
    /// Threads for what has to wait.
    pub workers: Workers,
    /// What is counted.
    pub counters: Counters,
    /// The beginning of this daemon's time.
    pub started: Instant,
}

impl Context {
    /// Nanoseconds since the start: the clock of heat.
    pub fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}
