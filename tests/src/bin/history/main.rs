//! A client of the pool that does at random whatever a client can do, and records it for the checker
//! ([`e2e::history`]). Used by the cluster suites; arguments are words `NAME=VALUE`.
//!
//! ```text
//! e2e-history make master=HOST:PORT rack=N count=PAGES
//!     allocates pages, prints their numbers on one line, separated by commas
//! e2e-history run master=HOST:PORT rack=N pages=P,P,... dir=DIR writer=W threads=T seconds=S seed=X
//!             edge=E
//!     T threads (recorded as W, W + 1, ...) use the pages, all but the last: that is the board on which
//!     threads tell each other of pages of their own; most of all the E words at either end. Prints "ready" before it begins, and in the end how
//!     many operations there were and how many of them failed.
//! e2e-history make-table master=HOST:PORT rack=N
//!     makes a hash table, prints where its root is
//! e2e-history table master=HOST:PORT rack=N root=R dir=DIR writer=W threads=T seconds=S seed=X
//!     the same with the keys of a table
//! ```
//! All but `make` also take `cxl=none`: the client does not map the rack's memory.

mod table;
mod work;

use e2e::history::value::WRITERS;
use pool::addr::{PageId, PageSize, RackId};
use pool::{Fill, Pool, PoolError};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::exit;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use work::{Tally, Worker};

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let arguments = Arguments::parse(words);
    match command.as_str() {
        "make" => make(&arguments),
        "run" => run(&arguments),
        "make-table" => match pool::dht::Dht::create(&must_open(&door(&arguments))) {
            Ok(table) => println!("{}", table.root().raw()),
            Err(error) => fail(&error.to_string()),
        },
        "table" => run_on_table(&arguments),
        _ => fail("e2e-history make|run NAME=VALUE..."),
    }
}

struct Arguments(HashMap<String, String>);

impl Arguments {
    fn parse(words: impl Iterator<Item = String>) -> Self {
        let pairs = words.map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => fail(&format!("{word}: expected NAME=VALUE")),
        });
        Self(pairs.collect())
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| fail(&format!("{name}=... is missing")))
    }

    fn number<N: FromStr>(&self, name: &str) -> N {
        let text = self.text(name);
        text.parse().unwrap_or_else(|_| fail(&format!("{name}={text} is not a number")))
    }
}

/// How a client gets at the pool, again if need be.
type Door = Arc<dyn Fn() -> Result<Pool, PoolError> + Send + Sync>;

fn door(arguments: &Arguments) -> Door {
    let (master, rack) = (arguments.text("master").to_owned(), RackId(arguments.number("rack")));
    match arguments.0.get("cxl").map(String::as_str) {
        None => Arc::new(move || Pool::connect(&master, rack)),
        Some("none") => Arc::new(move || Pool::connect_without_cxl(&master, rack)),
        Some(_) => fail("cxl=...: only none"),
    }
}

fn must_open(door: &Door) -> Pool {
    door().unwrap_or_else(|error| fail(&error.to_string()))
}

fn make(arguments: &Arguments) {
    let pool = must_open(&door(arguments));
    match pool.alloc_runs(arguments.number("count"), 0, Fill::Zeroed) {
        Ok(runs) => {
            let pages = runs.iter().flat_map(|run| run.iter()).map(|page| page.raw().to_string());
            println!("{}", pages.collect::<Vec<_>>().join(","));
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn run(arguments: &Arguments) {
    let door = door(arguments);
    let pool = must_open(&door);
    let shared = Shared::new(arguments.text("pages"), pool.page_size(), arguments.number("edge"));
    let (first, threads): (u16, u16) = (arguments.number("writer"), arguments.number("threads"));
    if usize::from(first + threads) > shared.board_words() || first + threads > WRITERS {
        fail("too many threads");
    }
    let seed: u64 = arguments.number("seed");
    let dir = PathBuf::from(arguments.text("dir"));
    println!("ready");
    let until = Instant::now() + Duration::from_secs_f64(arguments.number("seconds"));
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let start = |writer| {
            let mut worker = Worker::new(door.clone(), pool.clone(), &shared, &dir, writer, seed);
            scope.spawn(move || worker.work(until))
        };
        for thread in (first..first + threads).map(start).collect::<Vec<_>>() {
            sum += thread.join().unwrap_or_else(|_| fail("a thread panicked"));
        }
    });
    println!("{} operations, {} failed", sum.operations, sum.failed);
}

fn run_on_table(arguments: &Arguments) {
    let door = door(arguments);
    let (first, threads): (u16, u16) = (arguments.number("writer"), arguments.number("threads"));
    let (root, seed): (u64, u64) = (arguments.number("root"), arguments.number("seed"));
    let dir = PathBuf::from(arguments.text("dir"));
    // Some clients remember next to nothing, and always go by way of the segments.
    let places = if first.is_multiple_of(3) { 1 } else { 4096 };
    let opened = table::open(&door, root, places).unwrap_or_else(|error| fail(&error.to_string()));
    println!("ready");
    let until = Instant::now() + Duration::from_secs_f64(arguments.number("seconds"));
    let mut sum = Tally::default();
    std::thread::scope(|scope| {
        let start = |writer| {
            let mut worker = table::Worker::new(door.clone(), opened.clone(), &dir, writer, seed);
            scope.spawn(move || worker.work(until))
        };
        for thread in (first..first + threads).map(start).collect::<Vec<_>>() {
            sum += thread.join().unwrap_or_else(|_| fail("a thread panicked"));
        }
    });
    println!("{} operations, {} failed", sum.operations, sum.failed);
}

/// The pages that all clients use.
struct Shared {
    size: PageSize,
    pages: Vec<PageId>,
    board: PageId,
    /// Words at each end of a page that are used most.
    edge: u64,
}

impl Shared {
    fn new(list: &str, size: PageSize, edge: u64) -> Self {
        let page = |text: &str| text.parse().ok().and_then(PageId::new);
        let mut pages: Vec<PageId> = list.split(',').filter_map(page).collect();
        match pages.pop() {
            Some(board) if !pages.is_empty() => Self { size, pages, board, edge },
            _ => fail("pages=...: at least two are needed"),
        }
    }

    fn board_words(&self) -> usize {
        self.size.bytes() as usize / 8
    }
}

fn fail(reason: &str) -> ! {
    eprintln!("e2e-history: {reason}");
    exit(1)
}
