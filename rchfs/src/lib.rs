//! `mount.rchfs`: a POSIX file system whose blocks are pages of a memory pool.
//!
//! ```text
//! main.rs -> cli (options) -> run (background, signals) -> embed (master, daemon and pool in this process)
//!                                   |
//!                                 fuse  decodes requests, encodes replies, tells the kernel things
//!                                   |
//!                                  fs   what each operation means
//!                                /      \
//!                     messages to the    pages of the pool,
//!                     master             by load and store
//! ```
//!
//! `SEMANTICS.md` beside this crate says what programs may rely on.

pub mod cli;
pub mod embed;
pub mod fs;
pub mod fuse;
pub mod run;
