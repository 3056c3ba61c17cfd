//! The command line of `rcmp bench`, and which cases it means.

use super::pattern::Pattern;
use super::run::{Case, Timing};
use super::ycsb::YcsbArgs;
use crate::tool::units::{Steps, parse_size, parse_steps};
use crate::tool::{MasterArg, ToolError};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub which: Option<Which>,
    #[command(flatten)]
    pub pool: PoolArgs,
    #[command(flatten)]
    pub cases: CaseArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Which {
    /// Measure the same accesses on a bare mapping of shared memory; needs no cluster.
    Floor(CaseArgs),
    /// Allocate pages in a rack and print their ids, for `rcmp bench --pages` on hosts of other racks.
    Fill(FillArgs),
    /// Measure the workloads of YCSB on a hash table in the pool, and on Redis and memcached beside it.
    Ycsb(Box<YcsbArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    #[command(flatten)]
    pub master: MasterArg,
    /// The rack whose client this is.
    #[arg(long, default_value_t = 0)]
    pub rack: u16,
    /// How much to allocate.
    #[arg(long, default_value = "128M", value_parser = parse_size)]
    pub span: u64,
}

#[derive(Debug, Args)]
pub(crate) struct PoolArgs {
    #[command(flatten)]
    pub master: MasterArg,
    /// The rack whose client this is.
    #[arg(long, default_value_t = 0)]
    pub rack: u16,
    /// The part of the data that lies in another rack, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub remote: f64,
    /// That rack; its region must be on this machine, or --pages given.
    #[arg(long, default_value_t = 1, value_name = "RACK")]
    pub remote_rack: u16,
    /// A file of page ids, from `rcmp bench fill`, to use as the remote part.
    #[arg(long, value_name = "FILE")]
    pub pages: Option<PathBuf>,
    /// Measure each case on bare memory too, side by side.
    #[arg(long)]
    pub floor: bool,
    /// Begin each case together with other processes: how many there are.
    #[arg(long, default_value_t = 1)]
    pub parties: u32,
    /// The name that they know each other by; a new one for each run.
    #[arg(long, default_value = "rcmp-bench")]
    pub barrier: String,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CaseArgs {
    /// Bytes an access: numbers and ranges that double.
    #[arg(long, default_value = "64..4K", value_parser = parse_steps)]
    payload: Steps,
    /// Threads of this process: numbers and ranges that double.
    #[arg(long, default_value = "1", value_parser = parse_steps)]
    threads: Steps,
    /// How addresses are chosen.
    #[arg(long, value_delimiter = ',', default_value = "zipf")]
    pattern: Vec<Pattern>,
    /// What is done there.
    #[arg(long, value_delimiter = ',', default_value = "read,write")]
    op: Vec<Act>,
    /// Each address depends on what was read before it, so that accesses do not overlap; reads only.
    #[arg(long)]
    dependent: bool,
    /// How much memory the addresses are spread over.
    #[arg(long, default_value = "256M", value_parser = parse_size)]
    pub span: u64,
    /// Seconds before a case is measured.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Seconds that a case is measured.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// One JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What is done at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Act {
    Read,
    Write,
    /// Reads and writes in turn.
    Mixed,
    /// A compare-and-swap of the first word.
    Cas,
    /// No access: a question to the rack's daemon and its answer.
    Message,
}

impl CaseArgs {
    /// All combinations.
    pub fn cases(&self) -> Result<Vec<Case>, ToolError> {
        let usage = |text: String| Err(ToolError::Usage(text));
        if self.dependent && self.op != [Act::Read] {
            return usage("--dependent needs --op read".into());
        }
        let largest = self.payload.0.iter().max().copied().unwrap_or(0);
        if let Some(odd) = self.payload.0.iter().find(|payload| !payload.is_power_of_two() || **payload < 8) {
            return usage(format!("--payload {odd}: powers of two from 8 on"));
        }
        if largest > 4096 || self.span < 1 << 20 {
            return usage("--payload is at most 4K, and --span at least 1M".into());
        }
        let threads = self.threads.0.iter().map(|threads| *threads as usize);
        if threads.clone().any(|threads| threads > 1024) {
            return usage("--threads: at most 1024".into());
        }
        let mut cases = Vec::new();
        for pattern in &self.pattern {
            for act in &self.op {
                for threads in threads.clone() {
                    // The payload means nothing to these but the distance between addresses.
                    let payloads = match act {
                        Act::Cas | Act::Message => &[64][..],
                        Act::Read | Act::Write | Act::Mixed => &self.payload.0,
                    };
                    cases.extend(payloads.iter().map(|payload| Case {
                        pattern: *pattern,
                        act: *act,
                        dependent: self.dependent,
                        payload: *payload as usize,
                        threads,
                    }));
                }
            }
        }
        Ok(cases)
    }

    pub fn timing(&self) -> Result<Timing, ToolError> {
        let time = |seconds: f64| {
            let good = (0.0..86400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds));
            good.ok_or_else(|| ToolError::Usage(format!("{seconds} is no time to measure")))
        };
        Ok(Timing { warm_up: time(self.warm_up)?, measured: time(self.seconds)? })
    }
}
