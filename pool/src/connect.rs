//! Joining a cluster: the one place that knows which transports a client uses for what.
//!
//! The master is reached by TCP, the daemon of the rack by a channel in the rack's memory; by TCP too from a host
//! that cannot map that. Daemons of other racks are reached, for short reads and where that one allows it, by TCP.

use crate::addr::RackId;
use crate::client::Pool;
use crate::error::PoolError;
use crate::proto::NodeId;
use crate::transport::{RingTransport, Tcp, TcpConfig, Transport, TransportError};
use std::sync::Arc;
use std::time::Duration;

/// How long a request of a client may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A transport that reaches the master at `addr` (`HOST:PORT`), and nobody else. Nothing is sent yet.
///
/// # Errors
/// If the system gives no threads.
pub fn to_master(addr: &str) -> Result<Arc<dyn Transport>, TransportError> {
    Ok(tcp(addr)?)
}

fn tcp(master: &str) -> Result<Arc<Tcp>, TransportError> {
    let config = TcpConfig { me: None, cluster: 0, deadline: DEADLINE };
    let tcp = Tcp::new(config).map_err(|e| TransportError::Broken(NodeId::Master, e.to_string()))?;
    tcp.set_addr(NodeId::Master, master.to_owned());
    Ok(tcp)
}

impl Pool {
    /// The pool of the cluster whose master is at `master` (`HOST:PORT`), for a process on a host of `rack`.
    ///
    /// # Errors
    /// The master or the daemon of the rack cannot be reached, or the rack's memory cannot be mapped or is
    /// not the one that the daemon serves; with what to do about it.
    pub fn connect(master: &str, rack: RackId) -> Result<Self, PoolError> {
        let tcp = tcp(master)?;
        let pool = Self::join(tcp.clone(), rack, |region| {
            Ok(Arc::new(RingTransport::new(region, rack, DEADLINE)?))
        })?;
        pool.read_directly(tcp);
        Ok(pool)
    }

    /// As [`connect`](Self::connect), for a process on a host that cannot map the memory of `rack`: one without CXL,
    /// or another than the rack's. Every read, write and compare-and-swap is a message by TCP to the daemon of `rack`,
    /// also if the page is in another rack; all that the pool promises holds, at the price of the way.
    ///
    /// The daemon knows such a client by its connection and by a sign of life every
    /// [`RENEW`](crate::proto::far::RENEW). When the daemon has been started again the same pool goes on. An access that
    /// was under way is an error, as it may or may not have been done, but for reads, which are made again.
    ///
    /// # Errors
    /// The master or the daemon of the rack cannot be reached; with what to do about it.
    pub fn connect_without_cxl(master: &str, rack: RackId) -> Result<Self, PoolError> {
        let tcp = tcp(master)?;
        let told = Arc::clone(&tcp);
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let by = format!("process {} on {}", std::process::id(), host.trim());
        Self::join_without_cxl(tcp, rack, by, move |cluster| told.set_cluster(cluster.id))
    }
}
