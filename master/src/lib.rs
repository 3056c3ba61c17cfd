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
//! reclaim.rs       hands pages that lost their file back to the daemon
//! recovery.rs      what opening found and did
//! ```
//!
//! **An operation is planned, committed, applied.** Planning reads the namespace and yields a list of
//! changes, touching nothing. The store then accepts the list as one atomic batch, or refuses it, and
//! only after that are the same changes applied to memory, by code that cannot fail. So memory and store
//! cannot differ, and what was answered is in the store.
//!
//! **Locks, in order:** the namespace (one `RwLock`; writers hold it upgradable while they plan and
//! commit, so readers go on, and exclusively only while they apply), then the store's own. The
//! reclaimer's lock is taken with neither held. No message is ever sent under a lock of the namespace.

#![forbid(unsafe_code)]

pub mod change;
pub mod clock;
mod config;
mod error;
mod namespace;
mod reclaim;
mod recovery;
mod serve;
pub mod store;

pub use config::MasterConfig;
pub use error::MasterError;
pub use recovery::{MissingPages, Recovery};
pub use serve::Master;
