//! Links `mount.rchfs`, the name under which mount(8) looks for a helper, to the program `mount-rchfs`
//! beside it: cargo allows no dot in the name of a program.

use std::io::ErrorKind;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // target/PROFILE/build/rchfs-HASH/out
    let out = std::env::var_os("OUT_DIR").map(PathBuf::from);
    let Some(profile) = out.as_deref().and_then(|out| out.ancestors().nth(3)) else { return };
    match std::os::unix::fs::symlink("mount-rchfs", profile.join("mount.rchfs")) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            println!("cargo::warning=no link mount.rchfs in {}: {e}", profile.display());
        }
        _ => {}
    }
}
