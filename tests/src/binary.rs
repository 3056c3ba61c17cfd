//! Finds the programs under test beside the test itself, and builds those that are missing or older than
//! their sources.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The crates that the programs are made of.
const SOURCES: [&str; 4] = ["pool", "daemon", "master", "rchfs"];

/// The top of the source tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// The directory of built programs that this test was built into (`target/debug` or the like).
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows where it is");
    let dir = exe.parent().expect("a file lies in a directory");
    match dir.file_name() {
        Some(name) if name == "deps" => dir.parent().expect("deps lies in target/PROFILE").to_path_buf(),
        _ => dir.to_path_buf(),
    }
}

/// The `mount.rchfs` under test: `RCHFS_MOUNT_BIN`, or the one of this build.
pub fn mount_rchfs() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match std::env::var_os("RCHFS_MOUNT_BIN") {
        Some(path) => PathBuf::from(path),
        None => built("rchfs", &SOURCES, "mount.rchfs"),
    })
}

/// The `rcmp-master` of this build.
pub fn rcmp_master() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("master", &["pool", "master"], "rcmp-master"))
}

/// The `rcmp-daemon` of this build.
pub fn rcmp_daemon() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("daemon", &["pool", "daemon"], "rcmp-daemon"))
}

/// The `rcmp` of this build.
pub fn rcmp() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("pool", &["pool"], "rcmp"))
}

/// The recording client of the cluster suites (see [`crate::cluster`]).
pub fn history() -> PathBuf {
    target_dir().join("e2e-history")
}

/// Where `rcmp-daemon` and `e2e-history` are that can make mistakes on purpose (`pool/src/breakage.rs`).
/// They are built apart from everything else, so that no other program can have the mistakes in it.
pub fn breakable() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let target = target_dir().with_file_name("breakable");
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default() + " --cfg rchfs_breakable";
        let mut cargo = cargo();
        cargo.args(["build", "--quiet", "-p", "daemon", "--bin", "rcmp-daemon"]);
        cargo.args(["-p", "e2e", "--bin", "e2e-history", "--target-dir"]).arg(&target);
        // Nobody looks into them with a debugger.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env("RUSTFLAGS", flags);
        let status = cargo.env_remove("CARGO_ENCODED_RUSTFLAGS").status().expect("cargo runs");
        assert!(status.success(), "the programs with mistakes do not build: {status}");
        target.join("debug")
    })
}

/// The program `name` of `package`, not older than the sources of these crates.
fn built(package: &str, sources: &[&str], name: &str) -> PathBuf {
    let path = target_dir().join(name);
    if is_stale(&path, sources) {
        build(package);
    }
    assert!(path.exists(), "{} was not built", path.display());
    path
}

/// The helper process of the suites (see [`crate::actor`]).
pub fn actor() -> PathBuf {
    target_dir().join("e2e-actor")
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|meta| meta.modified()).ok()
}

/// In the virtual machine the programs are as they were built for it, and there is no cargo.
fn is_stale(binary: &Path, sources: &[&str]) -> bool {
    if std::env::var_os("RCHFS_VM").is_some() {
        return false;
    }
    let Some(built) = modified(binary) else { return true };
    sources.iter().any(|krate| newest_source(&workspace().join(krate).join("src")) > Some(built))
}

fn newest_source(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    entries
        .filter_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => newest_source(&entry.path()),
            _ if entry.path().extension() == Some(OsStr::new("rs")) => modified(&entry.path()),
            _ => None,
        })
        .max()
}

/// Cargo's own lock makes this safe from several tests at once; all but the first find nothing to do.
fn build(package: &str) {
    let dir = target_dir();
    let profile = match dir.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--bins", "-p", package, "--profile", profile, "--target-dir"]);
    cargo.arg(dir.parent().expect("the profile's directory lies in a target directory"));
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{package} does not build: {status}");
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    cargo
}
