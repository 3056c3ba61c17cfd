//! The daemon and the client of a pool together, in one process and across crashes.

#[path = "suite/access.rs"]
mod access;
#[path = "suite/common.rs"]
mod common;
#[path = "suite/crash.rs"]
mod crash;
#[path = "suite/hammer.rs"]
mod hammer;
#[path = "suite/reopen.rs"]
mod reopen;
#[path = "suite/slots.rs"]
mod slots;
