//! How the daemon of this process reaches other racks: what `--transport` means on this host.

use crate::ClusterDaemon;
use crate::cli::{Options, Way};
use pool::addr::RackId;
use pool::transport::{Racks, Tcp};
use std::net::IpAddr;
use std::sync::Arc;

/// The ways to other racks.
pub struct Reach {
    racks: Arc<Racks>,
    #[cfg(feature = "rdma")]
    way: Way,
    #[cfg(feature = "rdma")]
    device: Option<pool::transport::rdma::RdmaDevice>,
}

impl Reach {
    /// Finds out what there is. `near`: where this daemon listens.
    ///
    /// # Errors
    /// A sentence, if RDMA is demanded and cannot be had.
    pub fn find(options: &Options, near: IpAddr, tcp: Arc<Tcp>) -> Result<Self, String> {
        let racks = Racks::new(RackId(options.rack), tcp);
        let way = options.transport;
        #[cfg(feature = "rdma")]
        let device = {
            let config = pool::transport::rdma::RdmaConfig {
                device: options.rdma_device.clone(),
                near: Some(near),
                deadline: options.deadline,
                spin: options.rdma_spin,
            };
            let found = match way {
                Way::Tcp => Err(String::new()),
                Way::Auto | Way::Rdma => pool::transport::rdma::RdmaDevice::open(config),
            };
            excuse(way, found)?
        };
        #[cfg(not(feature = "rdma"))]
        {
            let _ = near;
            if way == Way::Rdma {
                let text = "this program was built without RDMA: build it with --features rdma";
                return Err(format!("{text}, or give --transport auto"));
            }
        }
        Ok(Self {
            racks,
            #[cfg(feature = "rdma")]
            way,
            #[cfg(feature = "rdma")]
            device,
        })
    }

    /// The transport to start the daemon with.
    pub fn transport(&self) -> Arc<Racks> {
        Arc::clone(&self.racks)
    }

    /// Opens the memory of `daemon` to other racks, one-sided, if that can be done.
    ///
    /// # Errors
    /// A sentence, if RDMA is demanded and cannot be had.
    #[cfg(feature = "rdma")]
    pub fn attach(&mut self, daemon: &Arc<ClusterDaemon>) -> Result<(), String> {
        let Some(device) = self.device.take() else { return Ok(()) };
        let name = device.describe();
        if let Some(rdma) = excuse(self.way, device.register(daemon.region()))? {
            let handler: Arc<dyn pool::transport::Handler> = daemon.clone();
            self.racks.attach(Arc::new(rdma), &handler);
            log::info!("RDMA by {name}; compare-and-swap by the processor of the page's rack");
        }
        Ok(())
    }

    /// There is no one-sided access in this build.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "rdma"))]
    pub fn attach(&mut self, _daemon: &Arc<ClusterDaemon>) -> Result<(), String> {
        Ok(())
    }
}

/// What could not be had: an error if it is demanded, else a line.
#[cfg(feature = "rdma")]
fn excuse<T>(way: Way, found: Result<T, String>) -> Result<Option<T>, String> {
    match (way, found) {
        (_, Ok(found)) => Ok(Some(found)),
        (Way::Tcp, Err(_)) => Ok(None),
        (Way::Auto, Err(why)) => {
            log::info!("other racks are reached by TCP: {why}");
            Ok(None)
        }
        (Way::Rdma, Err(why)) => Err(format!("{why}; or give --transport auto or tcp")),
    }
}
