//! The daemon and the client of a pool together, in one process and across crashes.

#[path = "suite/access.rs"]
mod access;
#[path = "suite/common.rs"]
mod common;
