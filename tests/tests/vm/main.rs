//! What needs RDMA and devdax devices: run in a virtual machine that has them, by `scripts/vm/run.sh suite`.
//! Elsewhere each test says that it was skipped.

mod devdax;
mod faults;
mod racks;

use e2e::fixture::skipped;

/// Whether this is that machine.
pub fn in_vm() -> bool {
    let here = std::env::var_os("RCHFS_VM").is_some();
    if !here {
        skipped("runs in a virtual machine only: scripts/vm/run.sh suite");
    }
    here
}
