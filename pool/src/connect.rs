//! Joining a cluster: the one place that knows which transports a client uses for what.
//!
//! The master is reached by TCP, the daemon of the rack by a channel in the rack's memory; daemons of other racks, where
//! that one allows it, by TCP, for short reads.

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
    let config = TcpConfig { me: None, cluster: 0, deadline: DEADLINE };
    let tcp = Tcp::new(config).map_err(|e| TransportError::Broken(NodeId::Master, e.to_string()))?;
    tcp.set_addr(NodeId::Master, addr.to_owned());
    Ok(tcp)
}

impl Pool {
    /// The pool of the cluster whose master is at `master` (`HOST:PORT`), for a process on a host of `rack`.
    ///
    /// # Errors
    /// The master or the daemon of the rack cannot be reached, or the rack's memory cannot be mapped or is
    /// not the one that the daemon serves; with what to do about it.
    pub fn connect(master: &str, rack: RackId) -> Result<Self, PoolError> {
        let pool = Self::join(to_master(master)?, rack, |region| {
            Ok(Arc::new(RingTransport::new(region, rack, DEADLINE)?))
        })?;
        pool.read_directly();
        Ok(pool)
    }
}
