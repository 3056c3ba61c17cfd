//! `rcmp bench ycsb`: the workloads A to F of YCSB on a hash table in the pool, and on Redis and memcached beside it.
//!
//! Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", SoCC '10. Keys have 8 bytes. A scan (E) reads up to 100
//! records in the table's own order; the two servers have nothing like it and are left out there.
//!
//! Every key is read once before anything is measured, so that the client has seen where the records are.

mod load;
mod server;

use super::pattern::Pattern;
use crate::addr::RackId;
use crate::client::Pool;
use crate::dht::Dht;
use crate::tool::units::{Steps, count, parse_size, parse_steps, time};
use crate::tool::{MasterArg, ToolError};
use clap::{Args, ValueEnum};
use load::{Case, Measured, Workload, key};
use serde_json::json;
use server::{Memcached, Redis};
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct YcsbArgs {
    #[command(flatten)]
    master: MasterArg,
    /// The rack whose client does the operations.
    #[arg(long, default_value_t = 0)]
    rack: u16,
    /// The rack whose client makes the table, and so where it lies at first; its region must be on this machine.
    /// --rack unless said.
    #[arg(long, value_name = "RACK")]
    table_rack: Option<u16>,
    /// Which of A to F.
    #[arg(long, value_delimiter = ',', default_value = "a,b,c,d,e,f", ignore_case = true)]
    workload: Vec<Workload>,
    /// How keys are chosen; D takes the latest.
    #[arg(long, value_delimiter = ',', default_value = "zipf")]
    pattern: Vec<Pattern>,
    /// Keys of the table at first.
    #[arg(long, default_value = "100K", value_parser = parse_size)]
    records: u64,
    /// Bytes of a value: numbers and ranges that double.
    #[arg(long, default_value = "64", value_parser = parse_steps)]
    value: Steps,
    /// Threads: numbers and ranges that double.
    #[arg(long, default_value = "1", value_parser = parse_steps)]
    threads: Steps,
    /// What is measured, one directly after the other.
    #[arg(long, value_delimiter = ',', default_value = "pool")]
    on: Vec<On>,
    /// Where a Redis server listens; its data are changed.
    #[arg(long, default_value = "127.0.0.1:6379", value_name = "HOST:PORT")]
    redis: String,
    /// Where a memcached listens; its data are changed.
    #[arg(long, default_value = "127.0.0.1:11211", value_name = "HOST:PORT")]
    memcached: String,
    /// How long each case is measured, in seconds.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How long each case runs before that, in seconds.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum On {
    Pool,
    Redis,
    Memcached,
}

/// What a thread does operations on.
pub(super) trait Store {
    /// Whether this may run a workload.
    fn runs(&self, workload: Workload) -> bool;
    /// Whether operations are so short that not each of them is timed.
    fn is_fast(&self) -> bool;
    /// Reads the value of a key; false if it is not there.
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ToolError>;
    /// Inserts or replaces.
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ToolError>;
    /// Reads up to so many records from a key on.
    fn scan(&mut self, key: &[u8], count: usize) -> Result<(), ToolError>;
}

struct Table(Dht);

impl Store for Table {
    fn runs(&self, _: Workload) -> bool {
        true
    }

    fn is_fast(&self) -> bool {
        true
    }

    #[inline]
    fn get(&mut self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, ToolError> {
        Ok(self.0.get_into(key, value)?)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), ToolError> {
        self.0.insert(key, value)?;
        Ok(())
    }

    fn scan(&mut self, key: &[u8], count: usize) -> Result<(), ToolError> {
        let (entries, _) = self.0.scan_from(key, count)?;
        std::hint::black_box(entries);
        Ok(())
    }
}

pub(crate) fn run(arguments: &YcsbArgs) -> Result<(), ToolError> {
    let lasting = |seconds: f64| {
        Duration::try_from_secs_f64(seconds).map_err(|_| ToolError::Usage(format!("{seconds} s is no time")))
    };
    let (warm_up, measured) = (lasting(arguments.warm_up)?, lasting(arguments.seconds)?);
    if arguments.records == 0 || arguments.records > 1 << 30 {
        return Err(ToolError::Usage("--records: from 1 to 1G".into()));
    }
    let mut report = Report { json: arguments.json, is_first: true };
    for &value in &arguments.value.0 {
        for &pattern in &arguments.pattern {
            for &threads in &arguments.threads.0 {
                let case = |workload| Case {
                    workload,
                    pattern,
                    records: arguments.records,
                    value: value as usize,
                    threads: threads as usize,
                    warm_up,
                    measured,
                };
                for on in &arguments.on {
                    measure(arguments, *on, &case, &mut report)?;
                }
            }
        }
    }
    Ok(())
}

fn measure(
    arguments: &YcsbArgs,
    on: On,
    case: &dyn Fn(Workload) -> Case,
    report: &mut Report,
) -> Result<(), ToolError> {
    let cases: Vec<Case> = arguments.workload.iter().map(|workload| case(*workload)).collect();
    match on {
        On::Pool => {
            let (master, rack) = (&arguments.master, RackId(arguments.rack));
            let pool = master.pool(rack)?;
            let home = RackId(arguments.table_rack.unwrap_or(arguments.rack));
            let maker = if home == rack { pool.clone() } else { master.pool(home)? };
            let table = Dht::create(&maker)?;
            let result = on_table(&pool, &table, arguments, &cases, report);
            // Also after an error; nobody else knows of it.
            let freed = table.destroy();
            result?;
            freed?;
        }
        On::Redis => {
            let make = || Redis::connect(&arguments.redis);
            load::fill(&mut make()?, &case(Workload::C), 0)?;
            each(&cases, report, "redis", make)?;
        }
        On::Memcached => {
            let make = || Memcached::connect(&arguments.memcached);
            load::fill(&mut make()?, &case(Workload::C), 0)?;
            each(&cases, report, "memcached", make)?;
        }
    }
    Ok(())
}

fn on_table(
    pool: &Pool,
    made: &Dht,
    arguments: &YcsbArgs,
    cases: &[Case],
    report: &mut Report,
) -> Result<(), ToolError> {
    let Some(first) = cases.first() else { return Ok(()) };
    load::fill(&mut Table(made.clone()), first, 0)?;
    // What this client remembers costs less than a miss.
    let table = Dht::open_with(pool, made.root(), arguments.records as usize * 2)?;
    let mut value = Vec::new();
    for item in 0..arguments.records {
        table.get_into(&key(item), &mut value)?;
    }
    each(cases, report, "pool", || Ok(Table(table.clone())))
}

/// Runs the cases that `make` can.
fn each<S: Store + Send>(
    cases: &[Case],
    report: &mut Report,
    name: &str,
    make: impl Fn() -> Result<S, ToolError>,
) -> Result<(), ToolError> {
    for case in cases {
        let stores: Result<Vec<S>, ToolError> = (0..case.threads).map(|_| make()).collect();
        let stores = stores?;
        if stores.iter().all(|store| store.runs(case.workload)) {
            report.add(name, case, &load::run(stores, case)?);
        }
    }
    Ok(())
}

struct Report {
    json: bool,
    is_first: bool,
}

impl Report {
    fn add(&mut self, on: &str, case: &Case, measured: &Measured) {
        let Case { workload, pattern, value, threads, .. } = case;
        let Measured { rate, histogram } = measured;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| histogram.value_at_quantile(q));
        // Of one thread, as if it did nothing else.
        let mean = 1e9 * *threads as f64 / rate;
        if self.json {
            let line = json!({
                "on": on, "operation": workload.name(), "pattern": pattern.name(), "payload": value,
                "threads": threads, "per_second": rate, "mean_ns": mean, "p50_ns": p50, "p99_ns": p99,
                "p999_ns": p999,
            });
            println!("{line}");
            return;
        }
        let row = |cells: [&str; 9]| {
            let [on, workload, pattern, bytes, threads, rate, p50, p99, p999] = cells;
            println!(
                "{on:<10} {workload:<8} {pattern:<8} {bytes:>6} {threads:>7} {rate:>9} {p50:>10} {p99:>10} {p999:>10}"
            );
        };
        if std::mem::take(&mut self.is_first) {
            row(["on", "workload", "keys", "bytes", "threads", "ops/s", "p50", "p99", "p99.9"]);
        }
        let [p50, p99, p999] = [p50, p99, p999].map(|ns| time(ns as f64));
        let (value, threads, rate) = (value.to_string(), threads.to_string(), count(*rate));
        row([on, workload.name(), pattern.name(), &value, &threads, &rate, &p50, &p99, &p999]);
    }
}
