//! A cluster on this machine: a master, a daemon a rack, and clients that record what they do.
//!
//! Each is a process, on a port that the system chose and with a region of its own in `/dev/shm`. They are
//! killed, stopped and started again by their ids. Whatever happens to the test, they are gone and their
//! regions removed when the value is dropped; if the test's thread is killed the kernel kills them with it.

mod client;
mod server;

pub use client::Client;
pub use server::{Refused, Server};

use crate::binary;
use crate::history::{self, Verdict};
use crate::run;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use tempfile::TempDir;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many racks.
    pub racks: u16,
    /// The size of each rack's region, as on the command line.
    pub size: &'static str,
    /// The devices that the racks' memory is, all of each; files if there are none.
    pub devices: Vec<&'static str>,
    /// Further options of the daemons.
    pub daemon: Vec<&'static str>,
    /// Further options of the master.
    pub master: Vec<&'static str>,
    /// A mistake that the daemons and the clients make on purpose ([`binary::breakable`]); "" for none by the
    /// programs that could.
    pub mistake: Option<&'static str>,
    /// The words at either end of a page that clients use most.
    pub edge: u64,
}

impl Shape {
    /// Racks between which pages move at nearly every access.
    pub fn restless(racks: u16) -> Self {
        let daemon = vec!["--swap-watermark", "0.1", "--heat-half-life", "1s", "--swap-reserve", "2M"];
        let master = vec!["--page-size", "4K"];
        Self { racks, size: "32M", devices: Vec::new(), daemon, master, mistake: None, edge: 16 }
    }

    /// A program that can make mistakes, if one is wanted, or that of this build.
    fn program(&self, name: &str, sound: impl FnOnce() -> PathBuf) -> Command {
        let Some(mistake) = self.mistake else { return Command::new(sound()) };
        let mut command = Command::new(binary::breakable().join(name));
        command.env("RCHFS_BREAK", mistake);
        command
    }

    fn rcmp_daemon(&self) -> Command {
        self.program("rcmp-daemon", || binary::rcmp_daemon().into())
    }

    fn history(&self) -> Command {
        self.program("e2e-history", binary::history)
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    shape: Shape,
    /// Of each rack. Declared in the order in which they must end: daemons say goodbye to the master.
    daemons: Vec<Server>,
    master: Server,
    regions: TempDir,
    top: TempDir,
    writers: AtomicU16,
}

impl Cluster {
    /// Starts a master and its daemons; returns when all of them are ready.
    pub fn start(shape: Shape) -> Self {
        let top = tempfile::tempdir().expect("a directory can be made");
        let regions = TempDir::with_prefix_in("rchfs-e2e.", "/dev/shm").expect("/dev/shm can be written");
        fs::create_dir(top.path().join("histories")).expect("a directory can be made");
        let master = must(start_master(&shape, top.path(), "127.0.0.1:0"));
        let (daemons, writers) = (Vec::new(), AtomicU16::new(1));
        let mut cluster = Self { shape, daemons, master, regions, top, writers };
        for rack in 0..cluster.shape.racks {
            let daemon = must(cluster.start_daemon(rack, &[]));
            cluster.daemons.push(daemon);
        }
        cluster
    }

    /// The address of the master.
    pub fn master(&self) -> &str {
        self.master.addr()
    }

    /// The process of the master.
    pub fn master_server(&self) -> &Server {
        &self.master
    }

    /// The process of a rack's daemon.
    pub fn daemon(&self, rack: u16) -> &Server {
        &self.daemons[usize::from(rack)]
    }

    /// The file or the device of a rack's region.
    pub fn region(&self, rack: u16) -> PathBuf {
        if let Some(device) = self.shape.devices.get(usize::from(rack)) {
            return device.into();
        }
        self.regions.path().join(format!("rack{rack}"))
    }

    /// A directory for what the test leaves.
    pub fn dir(&self) -> &Path {
        self.top.path()
    }

    /// Starts a daemon for that rack, with these options after the usual ones.
    ///
    /// # Errors
    /// [`Refused`] if it ends before it is ready.
    pub fn start_daemon(&self, rack: u16, more: &[&str]) -> Result<Server, Refused> {
        let (number, region) = (rack.to_string(), self.region(rack));
        let region = region.to_str().expect("the path is text");
        let mut arguments = vec!["--master", self.master(), "--listen", "127.0.0.1:0", "--rack", &number];
        let size = if self.shape.devices.is_empty() { self.shape.size } else { "0" };
        arguments.extend(["--cxl", region, "--cxl-size", size]);
        arguments.extend(&self.shape.daemon);
        arguments.extend(more);
        Server::start(self.shape.rcmp_daemon(), &arguments, &self.top.path().join(format!("rack{rack}.log")))
    }

    /// Starts a daemon for another rack, with all of the memory at `region`.
    ///
    /// # Errors
    /// As [`start_daemon`](Self::start_daemon).
    pub fn start_another(&self, rack: u16, region: &str, more: &[&str]) -> Result<Server, Refused> {
        let number = rack.to_string();
        let mut arguments = vec!["--master", self.master(), "--rack", &number, "--cxl", region];
        arguments.extend(more);
        Server::start(self.shape.rcmp_daemon(), &arguments, &self.top.path().join(format!("rack{rack}.log")))
    }

    /// Kills a rack's daemon with SIGKILL and starts one with these options, in the place of the usual ones, on what
    /// it left.
    pub fn replace_daemon(&mut self, rack: u16, options: &[&'static str]) {
        self.daemons[usize::from(rack)].kill();
        let usual = std::mem::replace(&mut self.shape.daemon, options.to_vec());
        self.daemons[usize::from(rack)] = must(self.start_daemon(rack, &[]));
        self.shape.daemon = usual;
    }

    /// Kills a rack's daemon with SIGKILL.
    pub fn kill_daemon(&mut self, rack: u16) {
        self.daemons[usize::from(rack)].kill();
    }

    /// Kills a rack's daemon with SIGKILL and starts another one on what it left.
    pub fn restart_daemon(&mut self, rack: u16) {
        self.daemons[usize::from(rack)].kill();
        self.daemons[usize::from(rack)] = must(self.start_daemon(rack, &[]));
    }

    /// Kills the master with SIGKILL and starts another one, at the same address, on what it left.
    pub fn restart_master(&mut self) {
        let addr = self.master.addr().to_owned();
        self.master.kill();
        self.master = must(start_master(&self.shape, self.top.path(), &addr));
    }

    /// Allocates pages as a client of that rack; their numbers, as [`Cluster::client`] wants them.
    pub fn make_pages(&self, rack: u16, count: u32) -> String {
        let mut command = self.shape.history();
        command.arg("make").arg(format!("master={}", self.master())).arg(format!("rack={rack}"));
        run::ok(command.arg(format!("count={count}"))).trim().to_owned()
    }

    /// Starts a client of that rack that uses these pages with so many threads for that time, and records
    /// it; returns when it has begun.
    pub fn client(&self, rack: u16, pages: &str, threads: u16, seconds: f64) -> Client {
        let on = [format!("pages={pages}"), format!("edge={}", self.shape.edge)];
        self.start_client("run", &on, rack, threads, seconds)
    }

    /// As [`client`](Self::client), for one that does not map the rack's memory.
    pub fn far_client(&self, rack: u16, pages: &str, threads: u16, seconds: f64) -> Client {
        let on = [format!("pages={pages}"), format!("edge={}", self.shape.edge), "cxl=none".into()];
        self.start_client("run", &on, rack, threads, seconds)
    }

    /// Makes a hash table as a client of that rack; where it is.
    pub fn make_table(&self, rack: u16) -> String {
        let mut command = self.shape.history();
        command.arg("make-table").arg(format!("master={}", self.master())).arg(format!("rack={rack}"));
        run::ok(&mut command).trim().to_owned()
    }

    /// As [`client`](Self::client), for one that uses a hash table.
    pub fn table_client(&self, rack: u16, root: &str, threads: u16, seconds: f64) -> Client {
        self.start_client("table", &[format!("root={root}")], rack, threads, seconds)
    }

    fn start_client(&self, what: &str, on: &[String], rack: u16, threads: u16, seconds: f64) -> Client {
        let writer = self.writers.fetch_add(threads, Ordering::Relaxed);
        let mut arguments = vec![
            format!("master={}", self.master()),
            format!("rack={rack}"),
            format!("dir={}", self.histories().display()),
            format!("writer={writer}"),
            format!("threads={threads}"),
            format!("seconds={seconds}"),
            format!("seed={}", u64::from(writer) * 0x1234_5678_9abc),
        ];
        arguments.extend_from_slice(on);
        Client::start(self.shape.history(), what, &arguments)
    }

    /// Judges what all clients have recorded so far; they must have ended. Recordings that no correct pool could have led to
    /// are kept if `RCHFS_KEEP_HISTORIES` names a directory.
    pub fn judge(&self) -> Verdict {
        let history = history::load(&self.histories()).unwrap_or_else(|error| panic!("{error}"));
        let verdict = history::check(&history);
        if let Some(keep) =
            std::env::var_os("RCHFS_KEEP_HISTORIES").filter(|_| !verdict.violations.is_empty())
        {
            let kept = PathBuf::from(keep).join(self.master.pid().to_string());
            run::ok(Command::new("cp").arg("-r").arg(self.histories()).arg(&kept));
            eprintln!("the recordings are kept in {}", kept.display());
        }
        verdict
    }

    fn histories(&self) -> PathBuf {
        self.top.path().join("histories")
    }

    /// What `rcmp status --json` says of each rack under `name`, a number.
    pub fn counts(&self, name: &str) -> Vec<u64> {
        let count = |value: serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{name} is {value}"));
        self.racks(name).into_iter().map(count).collect()
    }

    /// What `rcmp status --json` says of each rack under `name`, a text.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let text = |value: serde_json::Value| match value {
            serde_json::Value::String(text) => text,
            other => panic!("{name} is {other}"),
        };
        self.racks(name).into_iter().map(text).collect()
    }

    fn racks(&self, name: &str) -> Vec<serde_json::Value> {
        let mut command = run::command(binary::rcmp().to_str().expect("the path is text"), ["status"]);
        let text = run::ok(command.args(["--json", "--master", self.master()]));
        let mut status: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let racks = status["racks"].as_array_mut().expect("it lists the racks");
        racks.iter_mut().map(|rack| rack[name].take()).collect()
    }

    /// What all processes said.
    pub fn said(&self) -> String {
        let daemons = self.daemons.iter().enumerate();
        let daemons = daemons.map(|(rack, daemon)| format!("--- rack {rack} said:\n{}", daemon.said()));
        format!("--- the master said:\n{}{}", self.master.said(), daemons.collect::<String>())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn start_master(shape: &Shape, top: &Path, listen: &str) -> Result<Server, Refused> {
    let state = top.join("state");
    let state = state.to_str().expect("the path is text");
    let mut arguments = vec!["--listen", listen, "--state", state];
    arguments.extend(&shape.master);
    Server::start(Command::new(binary::rcmp_master()), &arguments, &top.join("master.log"))
}

#[track_caller]
fn must(started: Result<Server, Refused>) -> Server {
    match started {
        Ok(server) => server,
        Err(refused) => panic!("not started: {}: {}", refused.status, refused.message),
    }
}
