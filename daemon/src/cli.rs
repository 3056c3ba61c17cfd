//! The command line of `rcmp-daemon`: what is written, and what it means.

use crate::config::{ClusterConfig, DaemonError, SwapConfig};
use clap::{Parser, ValueEnum};
use pool::addr::RackId;
use pool::cxl::region::RegionSource;
use pool::units::{parse_duration, parse_size};
use std::path::PathBuf;
use std::time::Duration;

/// The daemon of a rack: owns the rack's part of the pool and serves its clients and the other racks.
///
/// Sizes are written as 512M or 2G (powers of 1024), times as 10ms or 1.5s. Ends in order on SIGTERM and
/// SIGINT; the region keeps its pages, and the next daemon goes on with them.
#[derive(Debug, Parser)]
#[command(name = "rcmp-daemon", version)]
pub struct Options {
    /// The master of the cluster: HOST:PORT.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:31850")]
    pub master: String,
    /// Where to listen for other racks and the master: HOST:PORT. Port 0: one that is free. Other hosts
    /// reach the daemon at this address, so it must not be 0.0.0.0.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// The id of the rack, from 0 to 65535; each rack of a cluster has its own.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub rack: u16,
    /// The memory of the rack: a devdax device, or a file (in /dev/shm, to simulate one), which is made if
    /// it is not there.
    #[arg(long, value_name = "PATH")]
    pub cxl: PathBuf,
    /// Bytes of pages that the memory holds. 0: all of the device, or as much as the file has that is there.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = parse_size)]
    pub cxl_size: u64,
    /// The most client processes of the rack at a time. Matters only when the region is made.
    #[arg(long, value_name = "COUNT", default_value_t = 128)]
    pub clients: u32,
    /// The heat from which on a page of another rack moves here: accesses within about a half-life. `off`:
    /// pages never move here.
    #[arg(long, value_name = "HEAT", default_value = "3", value_parser = parse_watermark)]
    pub swap_watermark: Mark,
    /// The time in which the heat of a page halves. Long enough for some accesses to a page of another rack, of
    /// which each takes some tens of microseconds over TCP.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    pub heat_half_life: Duration,
    /// Bytes that are kept free for pages that move here. Default: a sixteenth of the memory, at most 64M.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub swap_reserve: Option<u64>,
    /// How long a page is not asked for again when its rack did not let it go.
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = parse_duration)]
    pub swap_cooling: Duration,
    /// How to talk to other racks.
    #[arg(long, value_enum, default_value_t = Way::Auto)]
    pub transport: Way,
    /// The RDMA device to use, as `rdma link` calls it. Default: the one that has the address of --listen, else
    /// the first whose port is up.
    #[arg(long, value_name = "NAME")]
    pub rdma_device: Option<String>,
    /// How long to look for the end of an access by RDMA before sleeping.
    #[arg(long, value_name = "TIME", default_value = "50us", value_parser = parse_duration)]
    pub rdma_spin: Duration,
    /// How long to wait for another rack, or the master, before that is an error.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub deadline: Duration,
}

/// How racks talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// RDMA to racks that have it too, if there is a device here; TCP to all others.
    Auto,
    /// As auto, but the daemon does not start without a device.
    Rdma,
    /// TCP.
    Tcp,
}

/// A swap watermark; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark(pub Option<f64>);

fn parse_watermark(text: &str) -> Result<Mark, String> {
    if text.eq_ignore_ascii_case("off") {
        return Ok(Mark(None));
    }
    let mark: f64 = text.parse().map_err(|_| format!("`{text}` is neither a number nor `off`"))?;
    Ok(Mark(Some(mark)))
}

impl Options {
    /// What they mean, for a daemon that listens at `addr`.
    ///
    /// # Errors
    /// [`DaemonError::Config`] if they contradict each other.
    pub fn resolve(&self, addr: String) -> Result<ClusterConfig, DaemonError> {
        let swap = SwapConfig {
            watermark: self.swap_watermark.0,
            half_life: self.heat_half_life,
            cooling: self.swap_cooling,
            reserve: self.swap_reserve,
        };
        let config = ClusterConfig {
            clients: self.clients,
            addr,
            transport: "tcp".into(),
            swap,
            deadline: self.deadline,
            ..ClusterConfig::new(RackId(self.rack), RegionSource::Path(self.cxl.clone()), self.cxl_size)
        };
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(arguments: &[&str]) -> Result<ClusterConfig, String> {
        let all = ["rcmp-daemon", "--cxl", "/dev/shm/x"].iter().chain(arguments);
        let options = Options::try_parse_from(all).map_err(|e| e.to_string())?;
        options.resolve("127.0.0.1:1".into()).map_err(|e| e.to_string())
    }

    #[test]
    fn sizes_and_times_have_units() {
        let config = resolve(&["--cxl-size", "2G", "--heat-half-life", "500us", "--rack", "3"]).unwrap();
        assert_eq!((config.size, config.rack), (2 << 30, RackId(3)));
        assert_eq!(config.swap.half_life, Duration::from_micros(500));
        assert_eq!((config.swap.watermark, config.swap.reserve, config.clients), (Some(3.0), None, 128));
    }

    #[test]
    fn swapping_can_be_turned_off() {
        assert_eq!(resolve(&["--cxl-size", "1G", "--swap-watermark", "off"]).unwrap().swap.watermark, None);
    }

    #[test]
    fn contradictions_are_refused() {
        for (arguments, word) in [
            (&["--cxl-size", "64M", "--swap-reserve", "64M"][..], "reserve"),
            (&["--cxl-size", "1G", "--clients", "0"], "clients"),
            (&["--cxl-size", "1G", "--swap-watermark", "0"], "watermark"),
            (&["--cxl-size", "1G", "--swap-watermark", "hot"], "watermark"),
            (&["--cxl-size", "1G", "--deadline", "5"], "deadline"),
            (&["--cxl-size", "lots"], "size"),
        ] {
            let error = resolve(arguments).unwrap_err();
            assert!(error.contains(word), "{arguments:?}: {error}");
        }
    }
}
