//! Measures the namespace: `cargo run --release -p master --example measure [ENTRIES] [DIR]`.
//!
//! Makes, fills, looks up, lists and unlinks ENTRIES files (1,000,000) in one directory, without a store and then
//! with one in DIR (a temporary directory), and prints operations a second, the longest single create,
//! and the memory that a file with a 16-byte name takes, empty and with a page.

use master::{Master, MasterConfig, Pages};
use pool::addr::{PageId, PageRun, PageSize, RackId};
use pool::proto::meta::*;
use pool::proto::page::{PageReply, PageRequest, Reconciled};
use pool::proto::{NodeId, Reply, Request};
use pool::transport::{Handler, Local, Transport};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOME: NodeId = NodeId::Daemon(RackId(0));
const ROOT: Caller = Caller { uid: 0, gid: 0 };

/// A daemon without pages: no file here has any.
struct NoPages;

impl Handler for NoPages {
    fn handle(&self, request: Request) -> Reply {
        Reply::Page(Ok(match request {
            Request::Page(PageRequest::Reconcile { .. }) => PageReply::Reconciled(Reconciled::default()),
            _ => PageReply::Freed(0),
        }))
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn name(i: u64) -> Vec<u8> {
    format!("file-{i:011}").into_bytes()
}

fn ask(master: &Master, request: MetaRequest) -> MetaReply {
    match master.handle(Request::Meta(request)) {
        Reply::Meta(Ok(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn each(what: &str, count: u64, mut op: impl FnMut(u64)) {
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    for i in 0..count {
        let before = Instant::now();
        op(i);
        longest = longest.max(before.elapsed());
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    println!("  {what:8} {rate:9.0} a second, longest {:.1} ms", longest.as_secs_f64() * 1e3);
}

fn measure(store: Option<&Path>, count: u64) {
    let local = Local::new();
    let daemon: Arc<dyn Handler> = Arc::new(NoPages);
    local.register(HOME, &daemon);
    let config = MasterConfig {
        store: store.map(Path::to_path_buf),
        page_size: PageSize::MIN,
        max_inodes: u64::MAX,
        pool_id: 1,
        pages: Pages::Daemon(HOME),
        root: ROOT,
        repair: false,
    };
    let transport: Arc<dyn Transport> = Arc::new(local);
    let mut master = Master::open(config.clone(), transport.clone()).expect("opening");
    let before = resident();
    let parent = Ino::ROOT;
    each("create", count, |i| {
        let (name, node) = (name(i), NewNode::File);
        ask(&master, MetaRequest::Make { parent, name, caller: ROOT, node, perm: 0o644, umask: 0 });
    });
    println!("  {} bytes a file", resident().saturating_sub(before) / count);
    let mut first = parent.0 + 1;
    each("commit", count, |i| {
        // Inode numbers follow each other, and so do the pages.
        let (ino, run) = (Ino(first), PageId::new(i + 1).and_then(|page| PageRun::new(page, 1)));
        let extents = run.map(|run| Extent { at: 0, run }).into_iter().collect();
        ask(
            &master,
            MetaRequest::Commit { ino, extents, size: 4096, touch: true, kill_suid: false, set: None },
        );
        first += 1;
    });
    println!("  {} bytes a file with a page", resident().saturating_sub(before) / count);
    each("lookup", count, |i| {
        let name = name(i.wrapping_mul(7_368_787) % count);
        ask(&master, MetaRequest::Lookup { parent, name });
    });
    let (mut after, mut seen) = (0, 0);
    each("readdir", count.div_ceil(100), |_| {
        let list = MetaRequest::ReadDir { ino: parent, after, limit: 100, plus: true };
        let MetaReply::Entries(entries) = ask(&master, list) else { panic!("no entries") };
        seen += entries.len();
        after = entries.last().map_or(after, |e| e.cookie);
    });
    println!("  (readdir: 100 entries with attributes a call; {seen} seen)");
    if store.is_some() {
        let start = Instant::now();
        master.shutdown().expect("closing");
        println!("  shutdown {:.2} s", start.elapsed().as_secs_f64());
        drop(master);
        let start = Instant::now();
        master = Master::open(config, transport).expect("opening again");
        println!("  open     {:.2} s, {} inodes", start.elapsed().as_secs_f64(), master.recovery().inodes);
    }
    let mut gone = Vec::new();
    each("unlink", count, |i| {
        let unlink = MetaRequest::Unlink { parent, name: name(i.wrapping_mul(7_368_787) % count) };
        let MetaReply::Attr(attr) = ask(&master, unlink) else { panic!("not unlinked") };
        gone.push(attr.ino);
        if gone.len() == 64 {
            ask(&master, MetaRequest::Forget { inos: std::mem::take(&mut gone) });
        }
    });
    master.shutdown().expect("closing");
}

fn main() {
    let mut args = std::env::args().skip(1);
    let count = args.next().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    println!("{count} files in one directory, volatile");
    measure(None, count);
    let temporary = tempfile::tempdir().expect("a temporary directory");
    let dir = args.next().map_or_else(|| temporary.path().to_path_buf(), PathBuf::from);
    println!("{count} files in one directory, with a store in {}", dir.display());
    measure(Some(&dir), count);
}
