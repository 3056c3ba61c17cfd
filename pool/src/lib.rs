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
//! In a cluster the daemon is a process of its own, one in each rack, and a client joins by the address of
//! the master. Addresses are then good in every rack. `examples/cluster.rs` is a whole program.
//!
//! ```no_run
//! use pool::addr::RackId;
//! use pool::{Pool, PoolError};
//!
//! # fn main() -> Result<(), PoolError> {
//! // This process is on a host of rack 1: it maps that rack's memory, and asks that rack's daemon for the rest.
//! let pool = Pool::connect("10.0.0.1:31850", RackId(1))?;
//! let counter = pool.alloc(8)?;
//! // Wherever the page is, and while it moves, nothing comes between the comparison and the swap.
//! let mut seen = 0;
//! loop {
//!     match pool.cas(counter, seen, seen + 1)? {
//!         was if was == seen => break,
//!         was => seen = was,
//!     }
//! }
//! pool.free(counter)
//! # }
//! ```
//!
//! A process on a host that cannot map the rack's memory uses [`Pool::connect_without_cxl`] instead. What is promised is the
//! same; every access is a message by TCP to the daemon ([`proto::far`]).
//!
//! # Architecture
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`addr`] | addresses, ids, page sizes: numbers with checked arithmetic |
//! | [`cxl`] | the rack's memory: its layout, the mapping, slots, descriptors, index, and the protocol of access |
//! | [`proto`] | the messages to daemons and to the master: plain data |
//! | [`transport`] | carrying messages, without interpreting them |
//! | [`workers`] | threads of servers for what has to wait |
//! | [`dht`] | a hash table, on the public interface of [`Pool`] alone |
//! | `tool` | the program `rcmp`; only with the feature `cli` |
//! | [`connect`] | joining a cluster: which transport a client uses for what |
//! | [`heat`], [`swap`] | how hot a page is, and when it moves: pure decisions, time is an argument |
//! | [`units`] | sizes and times as people write them |
//! | [`Pool`] | the client: asks the daemon for pages, and touches their bytes itself |
//!
//! The daemon of a rack (crate `daemon`) alone decides which page is in which frame, and writes that to
//! frame descriptors and the page index in the shared memory. A client finds a page by plain loads from
//! there, even the first time; a read or write sends no message, makes no system call and takes no lock
//! that two threads share. How that excludes the daemon's freeing or moving of the same frame is in
//! [`cxl::protocol`], which is also run under a model checker.
//!
//! Without a cluster there is one rack and no master. In one, the master knows which racks there are, and
//! which rack a page is in if it has left the one that it was made in; allocating, freeing and accesses in
//! the rack do not ask it. A page that is not in this rack is read, written and compared-and-swapped at its
//! home, by a message to the own daemon through a channel in the rack's memory and one from there to the other
//! daemon; hot pages move here ([`swap`]). Where no page ever does, and there is no one-sided access, short reads are
//! asked of the other daemon by the client itself, which saves half of the wake-ups. Else a client talks to no other rack's
//! daemon, and to the master only when it joins, or to learn why its daemon does not answer.
//!
//! # What a program may rely on
//!
//! 1. Every aligned 8-byte word is linearizable under read, write and compare-and-swap, from any client in
//!    any rack, while pages move.
//! 2. Compare-and-swap is done by a CPU of the rack that holds the page.
//! 3. A read or write of any length at any address is allowed, also across pages. It is atomic word by
//!    word, not as a whole.
//! 4. An access to a page that was freed is an error, never another page's bytes. A page that is given
//!    out with [`Fill::Uninit`] holds what was in its frame before, for its owner to overwrite.
//!
//! 5. What cannot be done is an error after a deadline, never a hang: a daemon or master that has ended, a
//!    rack that is out of reach. An access that failed so may or may not have been done. When the daemon is
//!    back on its region, the same [`Pool`] goes on; [`PoolError::StaleRegion`] says that it has another
//!    region, and that the client has to join again.
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
//! - In this version the daemon and all clients of a rack are on one kernel, by which the daemon sees that one
//!   is dead: a client on another host would seem so, and lose its protection. So a rack is one host; racks
//!   are on hosts of their own, or several on one.
//! - Between racks, on TCP, nobody is authenticated and nothing is encrypted; checksums find what accidents do.
//! - The page ids that a rack may give out come from the master, a block at a time. A rack that has none left
//!   cannot allocate while the master is away.
//!
//! # Locks
//!
//! In order, outermost first. None is held while a message is sent or a client is waited for, and none of one
//! party while one of another is taken: they only exchange messages.
//!
//! 1. In the daemon: a shard of what is known of other racks' pages, or of who holds references here; then
//!    that of small objects; then the state of the frames, a leaf. Its swaps, doubts and blocks of ids are
//!    leaves too. The docs of each module have the whole.
//! 2. In the client: the list of slots that this process has leased. A leaf, taken when a thread touches
//!    a pool for the first time, and when it ends. The free entries of its channel are behind another leaf.
//! 3. In the TCP transport: a lane's state, then its connection's queues, which are leaves. Answers are handed
//!    over with none of them held.

pub mod addr;
#[cfg(rchfs_breakable)]
pub mod breakage;
mod client;
pub mod connect;
pub mod cxl;
pub mod dht;
mod error;
pub mod heat;
pub mod proto;
mod spin;
pub mod swap;
#[cfg(feature = "cli")]
pub mod tool;
pub mod transport;
pub mod units;
pub mod workers;

pub use client::{Fill, Pool, in_place};
pub use error::PoolError;
