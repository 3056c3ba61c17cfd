//! What a master is told when it is opened.

use pool::addr::PageSize;
use pool::proto::NodeId;
use pool::proto::meta::Caller;
use std::path::PathBuf;

/// What a master needs to know.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// Directory of the store; `None` keeps the namespace in memory only.
    pub store: Option<PathBuf>,
    /// Size of the pool's pages. A store remembers it and refuses another.
    pub page_size: PageSize,
    /// The most inodes there may be.
    pub max_inodes: u64,
    /// Identity of the pool that holds the pages. A store remembers it and refuses another.
    pub pool_id: u128,
    /// The daemon that owns the pages.
    pub home: NodeId,
    /// Owner of the root directory, when it is made.
    pub root: Caller,
    /// Mend a namespace that is damaged, as far as it can be, instead of refusing it.
    pub repair: bool,
}
