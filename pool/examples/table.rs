//! A hash table in a pool of one process: what a program does with one, and four clients that share it.
//!
//! ```text
//! cargo run -p pool --example table
//! cargo run -p pool --example table -- 127.0.0.1:31850 0     the same in rack 0 of a cluster
//! ```

use daemon::{Daemon, DaemonConfig, RegionSource};
use pool::Pool;
use pool::addr::{PageSize, RackId};
use pool::dht::{Dht, DhtError, Exchange};
use pool::proto::NodeId;
use pool::transport::{Handler, Local};
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [] => {
            let (rack, page_size) = (RackId(0), PageSize::MIN);
            let config = DaemonConfig { rack, source: RegionSource::Memfd, size: 16 << 20, page_size };
            let daemon = Arc::new(Daemon::start(config)?);
            let handler: Arc<dyn Handler> = daemon.clone();
            let transport = Arc::new(Local::new());
            transport.register(NodeId::Daemon(rack), &handler);
            use_table(&Pool::attach(daemon.region(), rack, transport)?)
        }
        [master, rack] => use_table(&Pool::connect(master, RackId(rack.parse()?))?),
        _ => Err("usage: table [MASTER RACK]".into()),
    }
}

fn use_table(pool: &Pool) -> Result<(), Box<dyn Error>> {
    let table = Dht::create(pool)?;
    println!("a table at {:#x}", table.root().raw());
    table.insert(b"colour", b"green")?;
    assert_eq!(table.get(b"colour")?.as_deref(), Some(&b"green"[..]));
    let done = table.compare_and_swap(b"colour", Some(b"red"), Some(b"blue"))?;
    assert_eq!(done, Exchange::Was(Some(b"green".to_vec())), "nothing was changed");

    // Others open it by its address, in this process or another, in this rack or another.
    std::thread::scope(|scope| {
        let count = |client: u64| {
            let table = Dht::open(pool, table.root())?;
            for i in 0..1000 {
                count_up(&table, b"counter")?;
                table.insert(&(client << 32 | i).to_be_bytes(), b"a record")?;
            }
            Ok::<(), DhtError>(())
        };
        let clients: Vec<_> = (0..4).map(|client| scope.spawn(move || count(client))).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or(Err(DhtError::Contended)))
    })?;
    let counted = table.get(b"counter")?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    println!("counted to {counted:?}");
    assert_eq!(counted, Some(4000));

    let stats = table.stats()?;
    println!("{} keys in {} segments, load factor {:.2}", stats.records, stats.segments, stats.load());
    assert_eq!(table.iter().count(), 4002);
    assert!(table.remove(b"colour")?);
    table.destroy()?;
    Ok(())
}

/// One more, whoever else counts at the same time.
fn count_up(table: &Dht, key: &[u8]) -> Result<(), DhtError> {
    let mut seen = table.get(key)?;
    loop {
        let number = seen.as_deref().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
        match table.compare_and_swap(key, seen.as_deref(), Some(&(number + 1).to_le_bytes()))? {
            Exchange::Done => return Ok(()),
            Exchange::Was(now) => seen = now,
        }
    }
}
