//! `rcmp dht`: a hash table from the command line.

use super::units::size;
use super::{MasterArg, ToolError};
use crate::addr::{GAddr, RackId};
use crate::dht::{Cursor, Dht, DhtError, Exchange, Stats};
use clap::{Args, Subcommand};
use serde_json::json;
use std::io::{Write, stdout};

#[derive(Debug, Args)]
pub(super) struct DhtArgs {
    #[command(subcommand)]
    what: What,
    /// The rack whose client this is.
    #[arg(long, default_value_t = 0, global = true)]
    rack: u16,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make an empty table, and print its address, which the other commands take.
    Create {
        #[command(flatten)]
        master: MasterArg,
    },
    /// Print the value of a key; exit with 1 if it is not there.
    Get {
        #[command(flatten)]
        on: TableArg,
        key: String,
    },
    /// Give a key a value, whether it had one or not.
    Put {
        #[command(flatten)]
        on: TableArg,
        key: String,
        value: String,
    },
    /// Take a key away; exit with 1 if it is not there.
    Remove {
        #[command(flatten)]
        on: TableArg,
        key: String,
    },
    /// Give a key a value, or take it away, if it has the value that is expected; else exit with 1.
    Cas {
        #[command(flatten)]
        on: TableArg,
        key: String,
        /// What it must have; without this it must not be there.
        #[arg(long, value_name = "VALUE")]
        old: Option<String>,
        /// What it gets; without this it is taken away.
        #[arg(long, value_name = "VALUE")]
        new: Option<String>,
    },
    /// Print keys and values, a line each, with a tab between.
    Scan {
        #[command(flatten)]
        on: TableArg,
        /// How many.
        #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
        limit: usize,
    },
    /// How full the table is, and what finding a key costs.
    Stats {
        #[command(flatten)]
        on: TableArg,
        /// A JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Free the table with all that is in it.
    Destroy {
        #[command(flatten)]
        on: TableArg,
    },
}

#[derive(Debug, Args)]
struct TableArg {
    #[command(flatten)]
    master: MasterArg,
    /// The table's address, as `create` has printed it.
    #[arg(value_parser = parse_address)]
    table: u64,
}

/// An address: hexadecimal with `0x`, or decimal.
pub(super) fn parse_address(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("{text} is no address, a number such as 0x10040"))
}

pub(super) fn run(arguments: &DhtArgs) -> Result<(), ToolError> {
    let open = |on: &TableArg| -> Result<Dht, ToolError> {
        let pool = on.master.pool(RackId(arguments.rack))?;
        let at = GAddr::from_raw(on.table, pool.page_size()).ok_or(DhtError::NoTable(on.table))?;
        Ok(Dht::open_with(&pool, at, 1)?)
    };
    let absent = |key: &str| ToolError::No(format!("there is no key {key:?}"));
    match &arguments.what {
        What::Create { master } => {
            let table = Dht::create(&master.pool(RackId(arguments.rack))?)?;
            println!("{:#x}", table.root().raw());
        }
        What::Get { on, key } => {
            let value = open(on)?.get(key.as_bytes())?.ok_or_else(|| absent(key))?;
            line(&[&value])?;
        }
        What::Put { on, key, value } => drop(open(on)?.insert(key.as_bytes(), value.as_bytes())?),
        What::Remove { on, key } => {
            if !open(on)?.remove(key.as_bytes())? {
                return Err(absent(key));
            }
        }
        What::Cas { on, key, old, new } => {
            let bytes = |value: &Option<String>| value.clone().map(String::into_bytes);
            let (old, new) = (bytes(old), bytes(new));
            match open(on)?.compare_and_swap(key.as_bytes(), old.as_deref(), new.as_deref())? {
                Exchange::Done => {}
                Exchange::Was(None) => return Err(absent(key)),
                Exchange::Was(Some(was)) => {
                    let was = String::from_utf8_lossy(&was).into_owned();
                    return Err(ToolError::No(format!("{key:?} is {was:?}; nothing was changed")));
                }
            }
        }
        What::Scan { on, limit } => scan(&open(on)?, *limit)?,
        What::Stats { on, json } => show(&open(on)?.stats()?, *json),
        What::Destroy { on } => open(on)?.destroy()?,
    }
    Ok(())
}

fn scan(table: &Dht, limit: usize) -> Result<(), ToolError> {
    let (mut next, mut left) = (Some(Cursor::default()), limit);
    while let Some(cursor) = next.filter(|_| left > 0) {
        let (entries, after) = table.scan(cursor, left.min(1000))?;
        for (key, value) in entries.iter().take(left) {
            line(&[key, value])?;
        }
        left -= entries.len().min(left);
        next = after;
    }
    Ok(())
}

fn line(parts: &[&[u8]]) -> Result<(), ToolError> {
    let mut text = parts.join(&b'\t');
    text.push(b'\n');
    stdout().write_all(&text).map_err(|error| ToolError::Io("standard output".into(), error))
}

fn show(stats: &Stats, as_json: bool) {
    let Stats { records, bytes, segments, slots, depth, chains, directory_pages } = stats;
    if as_json {
        let value = json!({
            "records": records, "bytes": bytes, "segments": segments, "slots": slots,
            "depth_min": depth.0, "depth_max": depth.1, "chains": chains, "directory_pages": directory_pages,
            "load": stats.load(), "probes": stats.probes(), "probes_absent": stats.probes_of_absent(),
            "pages_per_get": stats.pages(),
        });
        println!("{value:#}");
        return;
    }
    println!("{records} keys, {} bytes of keys and values", size(*bytes));
    println!("{segments} segments of {} slots, depth {} to {}", slots / segments.max(&1), depth.0, depth.1);
    println!("{directory_pages} pages of directory");
    println!("load factor {:.2}: keys for each slot", stats.load());
    println!(
        "records looked at: {:.2} for a key that is there, {:.2} for one that is not",
        stats.probes(),
        stats.probes_of_absent()
    );
    println!("pages touched by a get: {:.2}; 1 where the client has seen the record before", stats.pages());
    let lengths = chains.iter().enumerate().map(|(length, count)| format!("{length}: {count}"));
    println!("slots by their number of records: {}", lengths.collect::<Vec<_>>().join(", "));
}
