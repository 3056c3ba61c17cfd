//! The master: the namespace of the file system, in memory, committed to a store.
//!
//! ```text
//! serve.rs         serves requests: read under the lock, or plan, commit, apply; then free pages
//! namespace.rs     inodes and how a change is applied to them
//!   inode.rs dir.rs extents.rs xattr.rs acl.rs name.rs    one structure or rule each
//!   edit.rs        what an operation plans: new attributes, changes, pages to free
//!   ops/           one operation a file
//!   check.rs       is what was loaded a tree, and how to make it one
//! change.rs        a change as plain data: what the namespace tells the store, and the store at loading
//! store.rs         the trait; store/ has its implementations
//! reclaim.rs       hands pages that lost their file back to the daemons
//! recovery.rs      what opening found and did
//!
//! cluster.rs       serves what is asked about racks and pages
//!   racks.rs       who serves which rack, and how it does
//!   directory.rs   which rack a page is in, and which swaps may still move it
//!   barrier.rs     callers that wait for each other
//! mounts.rs        the mounts of the file system: their sessions and leases
//!   tree.rs        a tree that is made to stand still, to be cloned
//! locks.rs         flock(2) and fcntl(2) locks of all mounts
//! sweep.rs         when pages of a rack are compared with those of the files; compare.rs does it
//! ```
//!
//! **An operation is planned, committed, applied.** Planning reads the namespace and yields a list of
//! changes, touching nothing. The store then accepts the list as one atomic batch, or refuses it, and
//! only after that are the same changes applied to memory, by code that cannot fail. So memory and store
//! cannot differ, and what was answered is in the store.
//!
//! A clone of a tree for a mount of a cluster is made without that one lock being held all the time: the tree is
//! made to stand still bit by bit, and what is made of it is put in bit by bit, its top last ([`mounts`],
//! `serve/clone.rs`). In between is one batch of the store, as for everything else.
//!
//! **Locks, in order:** the namespace (one `RwLock`; writers hold it upgradable while they plan and
//! commit, so readers go on, and exclusively only while they apply), then the store's own. Those of the
//! cluster ([`cluster`]) are taken without that of the namespace; then the store's. The reclaimer's lock is
//! taken with none of them held. No message is ever sent under a lock of the namespace or of the cluster;
//! the one lock that is held while daemons are asked is the turn of [`compare`], which nobody waits for.
//!
//! **A master of a cluster** is opened before there are daemons, and serves all requests also without them.
//! A daemon that joins is told, by a thread, which pages of its rack files have.
//!
//! **What survives.** As for the namespace, a change of the directory that was answered survives the death of
//! the master. Loss of power may undo the moves of about the last second, between two beats of a daemon: those
//! pages are looked for where they were before. A term never comes again, nor is a block given out twice.

#![forbid(unsafe_code)]

mod barrier;
pub mod change;
pub mod cli;
pub mod clock;
mod cluster;
mod compare;
mod config;
mod directory;
mod error;
mod locks;
mod mounts;
mod namespace;
mod racks;
mod reclaim;
mod recovery;
mod serve;
pub mod store;
mod sweep;

pub use cluster::AddressBook;
pub use config::{MasterConfig, Pages};
pub use error::MasterError;
pub use recovery::{MissingPages, Recovery};
pub use serve::Master;
