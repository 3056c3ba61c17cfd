//! `rcmp-daemon`: the life of the process. What it serves is in the library.
#![forbid(unsafe_code)]

use clap::Parser;
use daemon::cli::Options;
use daemon::reach::Reach;
use daemon::{ClusterDaemon, DaemonError};
use nix::sys::signal::{SigSet, Signal};
use pool::addr::RackId;
use pool::proto::NodeId;
use pool::transport::{Handler, Tcp, TcpConfig};
use pool::units::{Bytes, one_line};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            eprintln!("rcmp-daemon: {}", one_line(&error.render().to_string()));
            return ExitCode::from(2);
        }
        Err(help) => help.exit(),
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("rcmp-daemon: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    // Before there are threads, which inherit it: only this one takes the signals.
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    ends.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let refused = |error: DaemonError| error.to_string();
    options.resolve(options.listen.clone()).map_err(refused)?;
    let (listener, addr) = listen(&options.listen)?;
    let config = options.resolve(addr.to_string()).map_err(refused)?;
    let me = NodeId::Daemon(RackId(options.rack));
    let tcp = TcpConfig { me: Some(me), cluster: 0, deadline: options.deadline };
    let tcp = Tcp::new(tcp).map_err(|e| refused(DaemonError::Thread(e)))?;
    tcp.set_addr(NodeId::Master, options.master.clone());
    let mut reach = Reach::find(options, addr.ip(), tcp.clone())?;
    let daemon = ClusterDaemon::start(config, reach.transport()).map_err(refused)?;
    tcp.set_cluster(daemon.cluster().id);
    let watched = Arc::downgrade(&daemon);
    tcp.set_watch(Box::new(move |node| {
        if let (NodeId::Daemon(rack), Some(daemon)) = (node, watched.upgrade()) {
            daemon.peer_lost(rack);
        }
    }));
    let handler: Arc<dyn Handler> = daemon.clone();
    let server = tcp.serve(listener, me, handler).map_err(|e| format!("cannot serve at {addr}: {e}"))?;
    reach.attach(&daemon)?;
    let size = Bytes(daemon.region().geometry().data_bytes());
    println!("rcmp-daemon: rack {}, {size} in {}, listening on {addr}", options.rack, options.cxl.display());
    ends.wait().map_err(|e| format!("cannot wait for signals: {e}"))?;
    daemon.shutdown();
    drop(server);
    Ok(())
}

/// Listens at `wanted`; others are told the address, so it must be one.
fn listen(wanted: &str) -> Result<(TcpListener, SocketAddr), String> {
    let listener = TcpListener::bind(wanted)
        .map_err(|e| format!("cannot listen at {wanted}: {e}; give --listen HOST:PORT of this host"))?;
    let addr = listener.local_addr().map_err(|e| format!("cannot listen at {wanted}: {e}"))?;
    match addr.ip().is_unspecified() {
        true => Err(format!("--listen {wanted}: other racks are told it; give an address of this host")),
        false => Ok((listener, addr)),
    }
}
