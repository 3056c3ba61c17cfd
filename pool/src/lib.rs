//! A memory pool that reaches past one machine: 64-bit addresses, pages that are allocated, freed,
//! read, written and compared-and-swapped by any process of a rack, in place, in shared memory.
//!
//! ```
//! use daemon::{Daemon, DaemonConfig, RegionSource};
//! use pool::addr::{GAddr, PageSize, RackId};
//! use pool::proto::NodeId;
//! use pool::transport::{Handler, Local};
//! use pool::{Fill, Pool};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A whole pool in this process: its daemon, a transport that reaches it, a client.
//! let rack = RackId(0);
//! let (source, size, page_size) = (RegionSource::Memfd, 16 << 20, PageSize::MIN);
//! let daemon = Arc::new(Daemon::start(DaemonConfig { rack, source, size, page_size })?);
//! let handler: Arc<dyn Handler> = daemon.clone();
//! let transport = Arc::new(Local::new());
//! transport.register(NodeId::Daemon(rack), &handler);
//! let pool = Pool::attach(daemon.region(), rack, transport)?;
//!
//! // Ten pages with consecutive ids are one range of addresses.
//! let runs = pool.alloc_runs(10, 0, Fill::Zeroed)?;
//! let base = GAddr::new(runs[0].first, 0, page_size).ok_or("no such address")?;
//! let edge = base.checked_add(4090, page_size).ok_or("no such address")?;
//! pool.write(edge, b"across two pages")?;
//! let mut text = [0; 16];
//! pool.read(edge, &mut text)?;
//! assert_eq!(&text, b"across two pages");
//!
//! assert_eq!(pool.cas(base, 0, 7)?, 0);
//! assert_eq!(pool.cas(base, 0, 8)?, 7);
//! pool.free_runs(&runs)?;
//! assert!(pool.read(base, &mut text).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! # Architecture
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`addr`] | addresses, ids, page sizes: numbers with checked arithmetic |
//! | [`cxl`] | the rack's memory: its layout, the mapping, slots, descriptors, index, and the protocol of access |
//! | [`proto`] | the messages to daemons and to the master: plain data |
//! | [`transport`] | carrying messages, without interpreting them |
//! | `tool` | the program `rcmp`; only with the feature `cli` |
//! | [`Pool`] | the client: asks the daemon for pages, and touches their bytes itself |
//!
//! The daemon of a rack (crate `daemon`) alone decides which page is in which frame, and writes that to
//! frame descriptors and the page index in the shared memory. A client finds a page by plain loads from
//! there, even the first time; a read or write sends no message, makes no system call and takes no lock
//! that two threads share. How that excludes the daemon's freeing or moving of the same frame is in
//! [`cxl::protocol`], which is also run under a model checker.
//!
//! # What a program may rely on
//!
//! 1. Every aligned 8-byte word is linearizable under read, write and compare-and-swap.
//! 2. Compare-and-swap is done by a CPU of the rack that holds the page.
//! 3. A read or write of any length at any address is allowed, also across pages. It is atomic word by
//!    word, not as a whole.
//! 4. An access to a page that was freed is an error, never another page's bytes. A page that is given
//!    out with [`Fill::Uninit`] holds what was in its frame before, for its owner to overwrite.
//!
//! # What it relies on
//!
//! - Within a rack the memory is hardware-coherent: one host, or CXL 3 sharing. All fences are those of
//!   the processor; nothing is flushed from caches.
//! - The clients of a rack trust each other. Whoever can map the region can read and change all of it;
//!   a region's file is made for its owner alone (mode 0600). What is checked is what accidents do:
//!   superblock and descriptors carry checksums, and every number read from the shared memory is
//!   checked before it is used as an offset. A client that is killed in the middle of an access holds
//!   nothing up; one that is stopped there makes the page it touches stay where it is.
//! - In this version all clients of a region are on one kernel, by which the daemon sees that one is dead.
//!
//! # Locks
//!
//! In order, outermost first; none is held while a message is sent or a client is waited for.
//!
//! 1. In the daemon: the state of the frames. A leaf.
//! 2. In the client: the list of slots that this process has leased. A leaf, taken when a thread touches
//!    a pool for the first time, and when it ends.

pub mod addr;
mod client;
pub mod connect;
pub mod cxl;
mod error;
pub mod heat;
pub mod proto;
pub mod swap;
#[cfg(feature = "cli")]
pub mod tool;
pub mod transport;
pub mod units;

pub use client::{Fill, Pool, in_place};
pub use error::PoolError;
