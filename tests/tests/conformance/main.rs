//! The public conformance suites: pjdfstest (system calls as POSIX has them) and fsx (one file under
//! random operations). Their settings, with the reason for each exclusion, are in `tests/conformance/`.

use e2e::binary::workspace;
use e2e::run::{command, ok};
use e2e::{Fixture, Rng, on_fs, on_fs_as_root};
use std::path::PathBuf;

fn settings(name: &str) -> PathBuf {
    workspace().join("tests/conformance").join(name)
}

/// A tool that scripts/test.sh installs with cargo, which may not be in the path.
fn tool(name: &str) -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    match home.map(|home| home.join("bin").join(name)) {
        Some(path) if path.exists() => path.display().to_string(),
        _ => name.to_owned(),
    }
}

#[test]
fn pjdfstest_passes() {
    on_fs_as_root("size=256M,page_size=4K", |fs| {
        let mut pjdfstest = command(&tool("pjdfstest"), ["-c"]);
        pjdfstest.arg(settings("pjdfstest.toml")).arg("-p").arg(fs.dir());
        // A second file system, for EXDEV.
        let said = ok(pjdfstest.arg("-s").arg("/dev/shm"));
        let summary = said.lines().find(|line| line.starts_with("Summary:")).unwrap_or_default();
        println!("pjdfstest: {summary}");
        // On tmpfs, too, 384 pass; fewer means that something was skipped that should not be.
        assert!(passed(summary) >= Some(384), "{said}");
    });
}

/// The number before the word `passed` in the summary.
fn passed(summary: &str) -> Option<usize> {
    let before = summary.split(',').find_map(|part| part.trim().strip_suffix(" passed"))?;
    before.parse().ok()
}

/// fsx with these settings and several seeds; the seed is printed by fsx and by us.
fn fsx(settings_file: &str, operations: u32) {
    on_fs("size=64M", |fs| {
        let seed = Rng::seed_from_env("RCHFS_FSX_SEED");
        for i in 0..3 {
            fsx_once(fs, settings_file, operations, seed.wrapping_add(i) % 1_000_000_007);
        }
    });
}

fn fsx_once(fs: &Fixture, settings_file: &str, operations: u32, seed: u64) {
    println!("fsx {settings_file} seed {seed}");
    let mut fsx = command(&tool("fsx"), ["-q", "-f"]);
    fsx.arg(settings(settings_file)).arg("-P").arg(fs.outside(""));
    fsx.args(["-S", &seed.to_string(), "-N", &operations.to_string()]);
    ok(fsx.arg(fs.path(&format!("fsx-{seed}"))));
}

fn operations() -> u32 {
    std::env::var("RCHFS_FSX_OPERATIONS").map_or(8000, |n| n.parse().expect("a number"))
}

#[test]
fn fsx_reads_and_writes() {
    fsx("fsx-plain.toml", operations());
}

#[test]
fn fsx_with_holes_allocation_and_copies() {
    fsx("fsx-holes.toml", operations());
}

#[test]
fn fsx_with_mappings_and_invalidation() {
    fsx("fsx-mapped.toml", operations());
}

#[test]
fn fsx_with_a_close_after_every_few_operations() {
    fsx("fsx-reopen.toml", operations() / 2);
}

#[test]
fn fsx_with_large_operations() {
    fsx("fsx-large.toml", operations() / 8);
}
