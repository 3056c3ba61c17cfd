//! The program `rcmp`: looking at a cluster, and measuring it.
//!
//! It is a client like any other, on nothing but the public interface of this crate and the messages to the
//! master.

mod bench;
mod clone;
mod dht;
mod link;
mod shell;
mod status;
mod units;
mod wipe;

use crate::addr::RackId;
use crate::client::Pool;
use crate::dht::DhtError;
use crate::error::PoolError;
use crate::proto::cluster::ClusterError;
use crate::transport::TransportError;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use thiserror::Error;

/// Look at a cluster of rcmp-master and rcmp-daemons, and measure it.
#[derive(Debug, Parser)]
#[command(name = "rcmp", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show each rack: how full it is, and what its clients do.
    Status(status::StatusArgs),
    /// Give up the pool on a device, or in a file, so that another can be made there.
    Wipe(wipe::WipeArgs),
    /// Copy a file or a directory tree of a mounted rchfs without copying its data.
    Clone(clone::CloneArgs),
    /// Measure reads and writes of the pool, or of bare memory.
    Bench(Box<bench::BenchArgs>),
    /// Make and use a hash table in the pool.
    Dht(dht::DhtArgs),
    /// Use the pool by hand, or by a script from standard input.
    Shell(shell::ShellArgs),
}

/// Where the cluster is.
#[derive(Clone, Debug, Args)]
struct MasterArg {
    /// The master's HOST:PORT.
    #[arg(long, default_value = "127.0.0.1:31850", value_name = "HOST:PORT")]
    master: String,
    /// `none` on a host that cannot map the rack's memory: everything goes by way of its daemon, over TCP.
    #[arg(long, value_enum, default_value_t = Cxl::Map)]
    cxl: Cxl,
}

/// How the pool is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cxl {
    /// The rack's memory is mapped.
    Map,
    /// It is not: the daemon of the rack reads and writes.
    None,
}

impl MasterArg {
    /// The pool, as a client of that rack.
    fn pool(&self, rack: RackId) -> Result<Pool, PoolError> {
        match self.cxl {
            Cxl::Map => Pool::connect(&self.master, rack),
            Cxl::None => Pool::connect_without_cxl(&self.master, rack),
        }
    }
}

/// Why `rcmp` failed.
#[derive(Debug, Error)]
enum ToolError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("the master at {0} refuses: {1}")]
    Refused(String, ClusterError),
    #[error("{0} gave an answer that does not fit the question; is it an rcmp-master of this version?")]
    Mismatch(String),
    #[error("{0}")]
    Region(String),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error(transparent)]
    Dht(#[from] DhtError),
    /// It works, and the answer is no.
    #[error("{0}")]
    No(String),
    #[error("{0}")]
    Usage(String),
}

/// Does what the command line says. The exit code is 0 if that worked, 1 if not, 2 if the command line makes
/// no sense.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Status(arguments) => status::run(&arguments),
        Command::Wipe(arguments) => wipe::run(&arguments),
        Command::Clone(arguments) => clone::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Dht(arguments) => dht::run(&arguments),
        Command::Shell(arguments) => shell::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rcmp: {error}");
            ExitCode::from(if matches!(error, ToolError::Usage(_)) { 2 } else { 1 })
        }
    }
}
