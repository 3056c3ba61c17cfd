//! What a daemon is told: alone ([`DaemonConfig`]) or as a member of a cluster ([`ClusterConfig`]), and
//! why it does not start.

use pool::addr::{PageSize, RackId};
use pool::cxl::region::{RegionError, RegionSource};
use pool::cxl::ring::ServeError;
use pool::proto::cluster::ClusterError;
use pool::transport::TransportError;
use std::time::Duration;
use thiserror::Error;

/// What a daemon is to manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The rack.
    pub rack: RackId,
    /// Where its memory comes from.
    pub source: RegionSource,
    /// Bytes of page data that it can hold. 0: what the device, or the region that is there, has.
    pub size: u64,
    /// The size of a page.
    pub page_size: PageSize,
}

/// The most client processes that a rack can be configured for.
pub const CLIENTS_MAX: u32 = pool::cxl::layout::CHANNELS_MAX;

/// What the daemon of a rack in a cluster is told. What all racks agree on (the size of a page, which
/// cluster this is) the master tells.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The rack.
    pub rack: RackId,
    /// Where its memory comes from.
    pub source: RegionSource,
    /// Bytes of page data that it can hold. 0: what the device, or the region that is there, has.
    pub size: u64,
    /// The most client processes at a time.
    pub clients: u32,
    /// Where other daemons, and the master, reach this one: `HOST:PORT`.
    pub addr: String,
    /// How it talks to other racks, for people to read: `tcp`.
    pub transport: String,
    /// When pages move.
    pub swap: SwapConfig,
    /// How long a request of a client may take that other racks have to do with.
    pub deadline: Duration,
    /// How long to try to reach a master that does not answer when the daemon starts.
    pub patience: Duration,
    /// The time between two signs of life to the master, and between two looks for clients that died.
    pub beat: Duration,
}

impl ClusterConfig {
    /// For `rack`, with memory from `source`, and what is usual otherwise.
    pub fn new(rack: RackId, source: RegionSource, size: u64) -> Self {
        Self {
            rack,
            source,
            size,
            clients: 128,
            addr: String::new(),
            transport: "local".into(),
            swap: SwapConfig::default(),
            deadline: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            beat: Duration::from_secs(1),
        }
    }

    /// Finds what contradicts itself.
    ///
    /// # Errors
    /// [`DaemonError::Config`], with what to change.
    pub fn check(&self) -> Result<(), DaemonError> {
        let fault = |text: String| Err(DaemonError::Config(text));
        let swap = &self.swap;
        if self.size != 0 {
            swap.reserve_of(self.size)?;
        }
        if self.clients == 0 || self.clients > CLIENTS_MAX {
            return fault(format!("{} clients: from 1 to {CLIENTS_MAX} are possible", self.clients));
        }
        if swap.watermark.is_some_and(|mark| !mark.is_finite() || mark <= 0.0) {
            return fault("the swap watermark must be more than 0; `off` turns swapping off".into());
        }
        for (what, time) in
            [("deadline", self.deadline), ("heat half-life", swap.half_life), ("beat", self.beat)]
        {
            if time.is_zero() {
                return fault(format!("a {what} of no time is not possible"));
            }
        }
        Ok(())
    }
}

/// When pages move between racks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SwapConfig {
    /// Heat from which on a page of another rack is asked for; `None`: never.
    pub watermark: Option<f64>,
    /// The time in which heat halves.
    pub half_life: Duration,
    /// How long after a refusal a page is not asked for again.
    pub cooling: Duration,
    /// Bytes that are kept free for pages that come from other racks; `None`: a sixteenth of the memory, at
    /// most 64 MiB.
    pub reserve: Option<u64>,
}

impl SwapConfig {
    /// How much of `size` bytes of page data is the reserve.
    ///
    /// # Errors
    /// [`DaemonError::Config`] if that would be all of it.
    pub fn reserve_of(&self, size: u64) -> Result<u64, DaemonError> {
        let reserve = self.reserve.unwrap_or((size / 16).min(64 << 20));
        if reserve < size {
            return Ok(reserve);
        }
        let text = "leaves nothing to give out; make it smaller, or the memory larger";
        Err(DaemonError::Config(format!("a swap reserve of {reserve} of {size} bytes {text}")))
    }
}

impl Default for SwapConfig {
    fn default() -> Self {
        // Within 1 ms a client makes some 25 accesses to another rack over TCP, to all pages together: next to no page
        // would ever be hot. Measured, zipf 0.99 over 256 MiB in pages of 64 KiB, half of it remote: 8 of 2048
        // pages moved with a half-life of 1 ms, and all with one of 100 ms.
        let (half_life, cooling) = (Duration::from_millis(100), Duration::from_millis(10));
        Self { watermark: Some(3.0), half_life, cooling, reserve: None }
    }
}

/// Why a daemon does not start.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// What it was told contradicts itself.
    #[error("{0}")]
    Config(String),
    /// There is no region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The region cannot be marked as in use.
    #[error("cannot write the superblock: {0}")]
    Superblock(std::io::Error),
    /// The operating system failed.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Clients in other processes cannot be served.
    #[error(transparent)]
    Rings(ServeError),
    /// The master cannot be asked.
    #[error("{0}; start rcmp-master first, or say with --master where it is")]
    Master(TransportError),
    /// The master does not take this daemon.
    #[error(transparent)]
    Refused(ClusterError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClusterConfig {
        ClusterConfig::new(RackId(0), RegionSource::Memfd, 1 << 30)
    }

    #[test]
    fn the_usual_is_free_of_contradictions() {
        config().check().unwrap();
        let reserve = |size| SwapConfig::default().reserve_of(size).unwrap();
        assert_eq!((reserve(1 << 40), reserve(16 << 20)), (64 << 20, 1 << 20));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_what_to_change() {
        let refused = |change: fn(&mut ClusterConfig), word: &str| {
            let mut config = config();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        };
        refused(|c| c.swap.reserve = Some(c.size), "reserve");
        refused(|c| c.clients = 0, "clients");
        refused(|c| c.clients = CLIENTS_MAX + 1, "clients");
        refused(|c| c.swap.watermark = Some(0.0), "watermark");
        refused(|c| c.swap.watermark = Some(f64::NAN), "watermark");
        refused(|c| c.deadline = Duration::ZERO, "deadline");
        refused(|c| c.swap.half_life = Duration::ZERO, "half-life");
    }

    #[test]
    fn the_reserve_of_a_region_whose_size_is_to_be_found_out_is_judged_then() {
        let swap = SwapConfig { reserve: Some(1 << 30), ..SwapConfig::default() };
        ClusterConfig { size: 0, swap, ..config() }.check().unwrap();
        assert!(swap.reserve_of(1 << 30).is_err());
    }
}
