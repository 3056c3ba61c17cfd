//! The round trip of a small message over TCP on this machine: a bare one, and one of the transport.
//!
//! `tcp_floor [SECONDS]` prints the mean and percentiles of 64 bytes back and forth between two threads over a
//! blocking loopback connection, then of a request of the transport that is answered at once, in turn.

use pool::addr::RackId;
use pool::proto::page::{PageReply, PageRequest, PageStat};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, Tcp, TcpConfig, Transport};
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NODE: NodeId = NodeId::Daemon(RackId(0));
const BYTES: usize = 64;
const ROUNDS: u32 = 3;

struct AtOnce;

impl Handler for AtOnce {
    fn handle(&self, _: Request) -> Reply {
        Reply::Page(Ok(PageReply::Stat(PageStat { total: 2, free: 1 })))
    }
}

/// Times of `go` for so long, sorted, in nanoseconds.
fn times(
    time: Duration,
    mut go: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Vec<u64>, Box<dyn Error>> {
    let start = Instant::now();
    let mut times = Vec::new();
    while start.elapsed() < time {
        let before = Instant::now();
        go()?;
        times.push(before.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    Ok(times)
}

fn show(name: &str, times: &[u64]) -> f64 {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    let mean = times.iter().sum::<u64>() as f64 / times.len() as f64 / 1000.0;
    println!("{name:<10} {mean:.2} us mean, {:.2} p50, {:.2} p99", at(0.5), at(0.99));
    mean
}

fn bare(stream: &mut TcpStream) -> Result<(), Box<dyn Error>> {
    let mut bytes = [1; BYTES];
    stream.write_all(&bytes)?;
    Ok(stream.read_exact(&mut bytes)?)
}

fn echo(listener: &TcpListener) -> std::io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut bytes = [0; BYTES];
    while stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(2.0), |word| word.parse())?;
    let part = Duration::from_secs_f64(seconds / f64::from(ROUNDS));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || echo(&listener));
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;

    let config = |me| TcpConfig { me, cluster: 0, deadline: Duration::from_secs(10) };
    let (there, here) = (Tcp::new(config(Some(NODE)))?, Tcp::new(config(None))?);
    let server = there.serve(TcpListener::bind("127.0.0.1:0")?, NODE, Arc::new(AtOnce))?;
    here.set_addr(NODE, server.local_addr().to_string());
    let ours = || -> Result<(), Box<dyn Error>> {
        here.call(NODE, Request::Page(PageRequest::Stat))?;
        Ok(())
    };
    ours()?;
    let (mut bare_times, mut our_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_times.extend(times(part, || bare(&mut stream))?);
        our_times.extend(times(part, ours)?);
    }
    bare_times.sort_unstable();
    our_times.sort_unstable();
    let floor = show("bare", &bare_times);
    let mean = show("transport", &our_times);
    println!("ratio      {:.2}", mean / floor);
    Ok(())
}
