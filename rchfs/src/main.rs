//! `mount.rchfs`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rchfs::run::main(std::env::args_os())
}
