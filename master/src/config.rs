//! What a master is told when it is opened.

use pool::addr::PageSize;
use pool::proto::NodeId;
use pool::proto::meta::Caller;
use std::path::PathBuf;

/// Who holds the pages of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// One daemon, which is there already, and of which nobody else knows: the embedded pool. The pages
    /// of the files are compared with its pages at opening. The master answers nothing about a cluster.
    Daemon(NodeId),
    /// The daemons of a cluster, which come and go: a page is where the master's directory says. Each
    /// rack's pages are compared when its daemon joins.
    Cluster,
}

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
    /// Who holds the pages.
    pub pages: Pages,
    /// Owner of the root directory, when it is made.
    pub root: Caller,
    /// Mend a namespace that is damaged, as far as it can be, instead of refusing it.
    pub repair: bool,
}
