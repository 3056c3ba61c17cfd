//! Several mounts of one cluster's file system: what each sees of the others, and what becomes of those that die or
//! are stopped. rchfs/SEMANTICS.md is what is tested here.

mod agree;
mod clone;
mod death;
mod far;
mod locks;
mod messages;
mod programs;
mod seen;
mod writeback;

use e2e::cluster::{Cluster, Shape};
use e2e::fixture::has_fuse;
use e2e::{Mount, run};
use std::fs::create_dir_all;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One cluster at a time: on few processors several would only wait for each other.
static TURN: Mutex<()> = Mutex::new(());

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "after {LONG:?} still not: {what}");
        sleep(Duration::from_millis(50));
    }
}

/// Mounts of one file system.
pub struct Mounts {
    mounts: Vec<Option<Mount>>,
    cluster: Cluster,
}

impl Mounts {
    /// Where the mount of this number is.
    pub fn dir(&self, number: usize) -> &Path {
        self.mount(number).dir()
    }

    /// A path in the mount of this number.
    pub fn at(&self, number: usize, name: &str) -> PathBuf {
        self.dir(number).join(name)
    }

    /// The mount of this number.
    pub fn mount(&self, number: usize) -> &Mount {
        self.mounts[number].as_ref().expect("it is mounted")
    }

    /// Kills the process of a mount.
    pub fn kill(&mut self, number: usize) {
        self.mounts[number].take().expect("it is mounted").kill();
    }

    /// Unmounts.
    pub fn end(&mut self, number: usize) {
        let status = self.mounts[number].take().expect("it is mounted").unmount();
        assert!(status.success(), "{status}");
    }

    /// The cluster.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// Kills the master and starts it again; returns when these mounts have new sessions, and what they held again.
    pub fn restart_master(&mut self, numbers: &[usize]) {
        self.cluster.restart_master();
        let deadline = Instant::now() + Duration::from_secs(30);
        for number in numbers {
            // An operation that was under way fails; the next ones wait.
            while let Err(error) = std::fs::write(self.at(*number, "back"), b"") {
                assert!(Instant::now() < deadline, "still: {error}");
                sleep(Duration::from_millis(100));
            }
        }
        std::fs::remove_file(self.at(numbers[0], "back")).expect("it was just made");
    }

    /// A directory that is on none of the mounts.
    pub fn cluster_dir(&self) -> &Path {
        self.cluster.dir()
    }

    /// Messages about files that the mount has sent to the master.
    pub fn messages(&self, number: usize) -> u64 {
        let mut buffer = [0_u8; 32];
        let len = e2e::rustix::fs::getxattr(self.dir(number), "trusted.rchfs.messages", &mut buffer);
        let len = len.expect("the mount says how many");
        let text = std::str::from_utf8(&buffer[..len]).expect("it is text");
        text.parse().expect("it is a number")
    }
}

/// Runs `test` on mounts with these options, of the racks 0, 1, 0, ... of one cluster.
pub fn on_mounts(options: &[&str], test: impl FnOnce(&mut Mounts)) {
    if !has_fuse() || !e2e::rustix::process::geteuid().is_root() {
        return;
    }
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let shape = Shape {
        racks: 2,
        size: "96M",
        devices: Vec::new(),
        daemon: vec!["--swap-reserve", "4M"],
        master: vec!["--page-size", "16K"],
        mistake: None,
        edge: 16,
    };
    let cluster = Cluster::start(shape);
    let start = |(number, more): (usize, &&str)| {
        let dir = cluster.dir().join(format!("m{number}"));
        create_dir_all(&dir).expect("a directory can be made");
        let options = format!("rack={}{}{more}", number % 2, if more.is_empty() { "" } else { "," });
        let log = cluster.dir().join(format!("m{number}.log"));
        // A host that cannot map the region: it is not there.
        let _hidden = more.contains("cxl=none").then(|| Hidden::new(cluster.region(number as u16 % 2)));
        let mount = Mount::start_from(cluster.master(), &dir, &options, &log);
        Some(mount.unwrap_or_else(|failed| panic!("{}: {}", failed.status, failed.message)))
    };
    let mounts = options.iter().enumerate().map(start).collect();
    let mut mounts = Mounts { mounts, cluster };
    test(&mut mounts);
    for mount in mounts.mounts.drain(..).flatten() {
        let status = mount.unmount();
        assert!(status.success(), "{status}");
    }
}

/// A file that is not at its place; it is again when this is dropped.
pub struct Hidden {
    path: PathBuf,
    elsewhere: PathBuf,
}

impl Hidden {
    /// Hides the file. Who has it open or mapped goes on to use it.
    pub fn new(path: PathBuf) -> Self {
        let elsewhere = path.with_extension("hidden");
        std::fs::rename(&path, &elsewhere).expect("it is there");
        Self { path, elsewhere }
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        std::fs::rename(&self.elsewhere, &self.path).expect("it is still there");
    }
}

/// A tool that scripts/test.sh installs with cargo, which may not be in the path.
pub fn tool(name: &str) -> std::process::Command {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let path = home.map(|home| home.join("bin").join(name)).filter(|path| path.exists());
    let name = path.map_or(name.to_owned(), |path| path.display().to_string());
    run::command(&name, [] as [&str; 0])
}
