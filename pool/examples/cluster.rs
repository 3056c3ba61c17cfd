//! A client of a cluster, for a host of a rack: pages, words and small objects that every client of every
//! rack can use by their addresses.
//!
//! ```text
//! scripts/cluster.sh up
//! cargo run -p pool --example cluster -- MASTER RACK            makes something, uses it and frees it
//! cargo run -p pool --example cluster -- MASTER RACK ADDRESS    reads what another client left there
//! ```
//!
//! With `KEEP=1` the first leaves what it wrote, for the second.

use pool::addr::{GAddr, RackId};
use pool::{Fill, Pool, PoolError};
use std::error::Error;
use std::process::ExitCode;

const NOTE: &[u8] = b"written through the pool";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match &words[..] {
        [master, rack] => make(master, rack),
        [master, rack, at] => read(master, rack, at),
        _ => Err("usage: cluster MASTER RACK [ADDRESS]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error}");
            ExitCode::FAILURE
        }
    }
}

fn join(master: &str, rack: &str) -> Result<Pool, Box<dyn Error>> {
    let rack = RackId(rack.parse().map_err(|_| format!("{rack} is no rack, a number from 0 to 65535"))?);
    Ok(Pool::connect(master, rack)?)
}

fn make(master: &str, rack: &str) -> Result<(), Box<dyn Error>> {
    let pool = join(master, rack)?;
    let (stat, page_size) = (pool.stat()?, pool.page_size());
    println!("rack {} of {} pages of {page_size}, {} free", pool.rack(), stat.total, stat.free);

    // Pages come from this rack while it has room, else from others. Whoever knows an address can use it.
    let runs = pool.alloc_runs(4, 0, Fill::Zeroed)?;
    let base = GAddr::new(runs[0].first, 0, page_size).ok_or("no such address")?;
    pool.write(base, NOTE)?;
    let word = base.checked_add(64, page_size).ok_or("no such address")?;
    assert_eq!(pool.cas(word, 0, 7)?, 0, "a new page is zero");
    assert_eq!(pool.cas(word, 0, 8)?, 7, "and now it is not: nothing is changed");
    println!("page {} is in rack {}", runs[0].first, pool.where_is(runs[0].first)?.rack);

    // Small objects share pages.
    let object = pool.alloc(100)?;
    pool.write(object, &[1; 100])?;
    pool.free(object)?;
    match pool.free(object) {
        Err(PoolError::NoSuchObject(_)) => println!("{:#x} was freed, once", object.raw()),
        other => return Err(format!("freed twice: {other:?}").into()),
    }
    if std::env::var_os("KEEP").is_some() {
        println!("left at {:#x}", base.raw());
    } else {
        println!("{} pages freed", pool.free_runs(&runs)?);
    }
    Ok(())
}

fn read(master: &str, rack: &str, at: &str) -> Result<(), Box<dyn Error>> {
    let pool = join(master, rack)?;
    let raw = u64::from_str_radix(at.trim_start_matches("0x"), 16)?;
    let at = GAddr::from_raw(raw, pool.page_size()).ok_or("no such address in this pool")?;
    let mut note = vec![0; NOTE.len()];
    pool.read(at, &mut note)?;
    println!("{}", String::from_utf8_lossy(&note));
    Ok(())
}
