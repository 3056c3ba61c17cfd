//! `mount.rchfs`: a POSIX file system whose blocks are pages of a memory pool.
//!
//! ```text
//! main.rs -> cli (options) -> run (background, signals) -> backend -> embed (a whole pool in this process)
//!                                   |                              \\-> cluster (one that others serve)
//!                                 fuse  decodes requests (of /dev/fuse, or io_uring), encodes replies,
//!                                   |   tells the kernel things
//!                                   |
//!                                  fs   what each operation means
//!                                /      \
//!                     messages to the    pages of the pool,
//!                     master             by load and store
//! ```
//!
//! `SEMANTICS.md` beside this crate says what programs may rely on.

pub mod backend;
pub mod cli;
pub mod cluster;
pub mod embed;
pub mod fs;
pub mod fuse;
pub mod run;
