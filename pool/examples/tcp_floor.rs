//! The round trip of a small message over TCP on this machine: a bare one, and one of the transport.
//!
//! `tcp_floor [SECONDS] [PAIRS]` prints the mean and percentiles of 64 bytes back and forth between two threads over a
//! blocking loopback connection, then of a request of the transport that is answered at once, in turn. With PAIRS such
//! pairs, or callers, at once; if there are more of them than processors, what each takes is longer.

use pool::addr::RackId;
use pool::proto::page::{PageReply, PageRequest, PageStat};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, Tcp, TcpConfig, Transport};
use std::error::Error;
use std::io::{self, Read, Write};
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

/// Times of what each of `callers` does, all at once and for so long, in nanoseconds.
fn times<C: FnMut() -> io::Result<()> + Send>(time: Duration, callers: &mut [C]) -> io::Result<Vec<u64>> {
    let start = Instant::now();
    let one = |call: &mut C| {
        let mut times = Vec::new();
        while start.elapsed() < time {
            let before = Instant::now();
            call()?;
            times.push(before.elapsed().as_nanos() as u64);
        }
        Ok(times)
    };
    let all: io::Result<Vec<_>> = std::thread::scope(|scope| {
        let threads: Vec<_> = callers.iter_mut().map(|call| scope.spawn(|| one(call))).collect();
        let ended = |_| Err(io::Error::other("a thread has panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(ended)).collect()
    });
    Ok(all?.concat())
}

fn show(name: &str, times: &mut [u64]) -> f64 {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
    let mean = times.iter().sum::<u64>() as f64 / times.len() as f64 / 1000.0;
    println!("{name:<10} {mean:.2} us mean, {:.2} p50, {:.2} p99", at(0.5), at(0.99));
    mean
}

fn bare(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [1; BYTES];
    stream.write_all(&bytes)?;
    stream.read_exact(&mut bytes)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = [0; BYTES];
    while stream.read_exact(&mut bytes).is_ok() {
        stream.write_all(&bytes)?;
    }
    Ok(())
}

/// A connection to a thread that sends back what it gets.
fn pair() -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    stream.set_nodelay(true)?;
    let (other, _) = listener.accept()?;
    std::thread::spawn(move || echo(other));
    Ok(stream)
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(2.0), |word| word.parse())?;
    let pairs: usize = std::env::args().nth(2).map_or(Ok(1), |word| word.parse())?;
    let part = Duration::from_secs_f64(seconds / f64::from(ROUNDS));
    let streams: Vec<TcpStream> = (0..pairs).map(|_| pair()).collect::<io::Result<_>>()?;
    let mut bare: Vec<_> = streams.into_iter().map(|mut stream| move || bare(&mut stream)).collect();

    let config = |me| TcpConfig { me, cluster: 0, deadline: Duration::from_secs(10) };
    let (there, here) = (Tcp::new(config(Some(NODE)))?, Tcp::new(config(None))?);
    let server = there.serve(TcpListener::bind("127.0.0.1:0")?, NODE, Arc::new(AtOnce))?;
    here.set_addr(NODE, server.local_addr().to_string());
    let call = || here.call(NODE, Request::Page(PageRequest::Stat)).map(drop).map_err(io::Error::other);
    let mut ours = vec![call; pairs];
    times(part / 10, &mut ours)?;
    let (mut bare_times, mut our_times) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare_times.extend(times(part, &mut bare)?);
        our_times.extend(times(part, &mut ours)?);
    }
    if bare_times.is_empty() || our_times.is_empty() {
        return Err("there was no time to measure anything, or nobody to do it".into());
    }
    let floor = show("bare", &mut bare_times);
    let mean = show("transport", &mut our_times);
    println!("ratio      {:.2}", mean / floor);
    Ok(())
}
