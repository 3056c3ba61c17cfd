//! `rcmp-master`: the life of the process. What it serves is in the library.
#![forbid(unsafe_code)]

use clap::Parser;
use master::Master;
use master::cli::Options;
use master::clock::SystemClock;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{getegid, geteuid};
use pool::proto::NodeId;
use pool::proto::meta::Caller;
use pool::transport::{Handler, Tcp, TcpConfig};
use pool::units::one_line;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// How long a daemon may take to answer the master.
const DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            eprintln!("rcmp-master: {}", one_line(&error.render().to_string()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("rcmp-master: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    // Before there are threads, which inherit it: only this one takes the signals.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    ends.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let listener = TcpListener::bind(&options.listen)
        .map_err(|e| format!("cannot listen at {}: {e}; give another --listen HOST:PORT", options.listen))?;
    let id = random_id().map_err(|e| format!("cannot read /dev/urandom: {e}"))?;
    let root = Caller { uid: geteuid().as_raw(), gid: getegid().as_raw() };
    let (config, store) = options.open(id, root).map_err(|e| e.to_string())?;
    let tcp = TcpConfig { me: Some(NodeId::Master), cluster: config.pool_id, deadline: DEADLINE };
    let tcp = Tcp::new(tcp).map_err(|e| format!("cannot start a thread: {e}"))?;
    let book = Arc::downgrade(&tcp);
    let addresses = Box::new(move |node, addr: &str| {
        if let Some(tcp) = book.upgrade() {
            tcp.set_addr(node, addr.to_owned());
        }
    });
    let master = Master::open_cluster(&config, tcp.clone(), store, Arc::new(SystemClock), addresses);
    let master = Arc::new(master.map_err(|e| e.to_string())?);
    for repair in &master.recovery().repairs {
        log::warn!("{repair}");
    }
    let handler: Arc<dyn Handler> = master.clone();
    let server = tcp.serve(listener, NodeId::Master, handler).map_err(|e| format!("cannot serve: {e}"))?;
    let state = options.state.as_ref().map_or("in memory only".into(), |dir| format!("in {}", dir.display()));
    println!(
        "rcmp-master: cluster {:032x}, pages of {}, listening on {}, {state}",
        config.pool_id,
        config.page_size,
        server.local_addr()
    );
    ends.wait().map_err(|e| format!("cannot wait for signals: {e}"))?;
    drop(server);
    master.shutdown().map_err(|e| e.to_string())
}

/// Tells a new cluster from all others.
fn random_id() -> io::Result<u128> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    // 0 stands for any cluster.
    Ok(u128::from_le_bytes(bytes) | 1)
}
