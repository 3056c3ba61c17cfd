//! What daemons, clients and tools ask of the master about racks, and about where pages are.
//!
//! **Where a page is.** Page ids are given to racks in blocks; a page is in the rack that its block was
//! given to, unless the directory says that it has moved. So allocating and freeing need no message to
//! the master, and the directory holds only the pages that are away from where they were made.
//!
//! **Swaps.** A [`Commit`](ClusterRequest::Commit) moves all its pages or none. After
//! [`Resolve`](ClusterRequest::Resolve) of a token no commit of that token can succeed any more, so its
//! answer, where the pages are, is final as far as that swap is concerned.

use crate::addr::{PageId, PageRun, PageSize, RackId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Page ids in a block: what a rack is given at a time.
pub const BLOCK: u64 = 1 << 20;

/// A request to the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterRequest {
    /// What this cluster is. Answered by [`ClusterReply::Cluster`].
    Describe,
    /// A daemon joins, or comes back. Answered by [`ClusterReply::Cluster`].
    Join(RackJoin),
    /// A daemon is still there. Every second. Answered by [`ClusterReply::Racks`].
    Beat {
        /// The rack.
        rack: RackId,
        /// As in [`RackJoin`].
        incarnation: u64,
        /// How it does.
        stats: RackStats,
        /// Swaps of this rack with lower numbers are over.
        oldest_swap: u64,
        /// How it deals with other racks now.
        ways: Ways,
    },
    /// A daemon ends in order. Answered by [`ClusterReply::Done`].
    Leave {
        /// The rack.
        rack: RackId,
        /// As in [`RackJoin`].
        incarnation: u64,
    },
    /// Give my rack a block of page ids. Answered by [`ClusterReply::Block`].
    TakeBlock {
        /// The rack.
        rack: RackId,
        /// As in [`RackJoin`].
        incarnation: u64,
    },
    /// Where pages are. Answered by [`ClusterReply::Homes`].
    Locate {
        /// The pages.
        pages: Vec<PageId>,
    },
    /// Move these pages, all or none. Answered by [`ClusterReply::Done`] also if that has been done
    /// already, or [`ClusterError::Refused`].
    Commit {
        /// Names the swap.
        token: SwapToken,
        /// The incarnation of the daemon that prepared the swap
        /// ([`PeerReply::Ready`](super::peer::PeerReply::Ready)). Refused if the rack that gives the page is
        /// not served by that one any more: its successor has asked where the pages are, and acted on that.
        home: u64,
        /// The moves.
        moves: Vec<Move>,
    },
    /// From now on refuse to commit this swap, and say where the pages are. Answered by
    /// [`ClusterReply::Homes`].
    Resolve {
        /// Names the swap.
        token: SwapToken,
        /// The pages.
        pages: Vec<PageId>,
    },
    /// These pages, all of this rack, do not exist any more. Answered by [`ClusterReply::Done`].
    Gone {
        /// The rack.
        rack: RackId,
        /// The pages; only those that were away from where they were made.
        pages: Vec<PageId>,
    },
    /// This client of my rack is no more, or is not listened to any longer: the sessions of its mounts end. Answered by
    /// [`ClusterReply::Done`]; from then on no file gets pages that it had taken.
    Died {
        /// The rack.
        rack: RackId,
        /// Which.
        client: ClientName,
    },
    /// Which of these pages no file has now. Answered by [`ClusterReply::Runs`].
    Unowned {
        /// The pages, in the order of their ids; none twice.
        pages: Vec<PageRun>,
    },
    /// The racks there are. Answered by [`ClusterReply::Racks`].
    Racks,
    /// Wait until `parties` callers have asked with the same name. Answered by [`ClusterReply::Done`] to
    /// all at once; [`ClusterError::Refused`] if they do not come within `wait_ms`.
    Barrier {
        /// Which.
        name: String,
        /// How many.
        parties: u32,
        /// How long, in milliseconds.
        wait_ms: u64,
    },
}

/// An answer of the master.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterReply {
    /// See [`Cluster`].
    Cluster(Cluster),
    /// All racks, in the order of their ids.
    Racks(Vec<Rack>),
    /// A block of ids: [`BLOCK`] ids from `number * BLOCK` on (the block 0 lacks id 0).
    Block {
        /// The number of the block.
        number: u64,
    },
    /// The rack of each page that was asked for, in order; `None` if its block was given to nobody.
    Homes(Vec<Option<RackId>>),
    /// Pages, in the order of their ids.
    Runs(Vec<PageRun>),
    /// Done.
    Done,
}

/// A client process of a rack, as its daemon knows it. Never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClientName {
    /// It has mapped the rack's memory: its [`ClientId`](crate::cxl::slots::ClientId).
    Mapped(u64),
    /// It has not: the random number that it [entered](super::far::FarRequest::Enter) with.
    Far(u64),
}

/// What all parties of a cluster must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Tells two clusters apart; the pool id of their regions.
    pub id: u128,
    /// The size of a page.
    pub page_size: PageSize,
    /// Counts the starts of the master. A [`SwapToken`] of an earlier term is refused.
    pub term: u64,
}

/// A daemon that wants to serve a rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackJoin {
    /// The rack.
    pub rack: RackId,
    /// The cluster that its region belongs to; 0 for a new region.
    pub cluster: u128,
    /// The size of a page of its region.
    pub page_size: PageSize,
    /// A random number, new at each start of the daemon.
    pub incarnation: u64,
    /// Where other daemons reach it: `HOST:PORT`.
    pub addr: String,
    /// Where clients of the rack find its region: an absolute path.
    pub region: String,
    /// A random number that the region got when it was made.
    pub region_id: u64,
    /// How it reaches other racks, for people to read; as of the last sign of life.
    pub transport: String,
}

/// How a rack deals with others, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ways {
    /// How it reaches them, each: `rdma:1,2 tcp:3`.
    pub transport: String,
    /// Who compares and swaps words of its pages, and what its RDMA device, if it has one, says of its own
    /// atomic operations: `home CPU (device: HCA)`.
    pub cas: String,
}

/// What is known of a rack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rack {
    /// How it joined.
    pub join: RackJoin,
    /// Who compares and swaps words of its pages ([`Ways::cas`]); empty if it has not said so yet.
    pub cas: String,
    /// Whether it is there, as far as known.
    pub alive: bool,
    /// How it did when it was last heard of.
    pub stats: RackStats,
}

/// How a rack does. Counts are since the start of its daemon, unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RackStats {
    /// Pages that it can give out in all: without the swap reserve.
    pub total: u64,
    /// Pages that it can give out now: without the swap reserve.
    pub free: u64,
    /// Client processes there are now.
    pub clients: u64,
    /// Of those, clients that have not mapped the rack's memory.
    pub far_clients: u64,
    /// Accesses in place by clients of the rack: an estimate, from samples.
    pub hits: u64,
    /// Accesses by clients of the rack to pages of other racks.
    pub misses: u64,
    /// Of those, accesses in place by way of the other rack's daemon or its memory.
    pub direct: u64,
    /// Pages that moved here.
    pub swaps_in: u64,
    /// Pages that moved away.
    pub swaps_out: u64,
    /// Swaps that this rack asked for and was refused.
    pub swaps_refused: u64,
    /// Bytes read and written in other racks.
    pub bytes_out: u64,
    /// Bytes read and written here by other racks.
    pub bytes_in: u64,
}

/// Names one attempt to swap, in all the life of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SwapToken {
    /// The rack that wants a page.
    pub rack: RackId,
    /// The incarnation of its daemon.
    pub incarnation: u64,
    /// The term of the master when the swap began.
    pub term: u64,
    /// Counts the swaps of that incarnation, from 1 on.
    pub number: u64,
}

/// A page that goes from one rack to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// The page.
    pub page: PageId,
    /// Where it is.
    pub from: RackId,
    /// Where it goes.
    pub to: RackId,
}

/// Why the master refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum ClusterError {
    /// A rack has one daemon.
    #[error(
        "rack {rack} is served by the daemon at {addr}, which is alive; stop that first, or use another rack id"
    )]
    RackInUse {
        /// The rack.
        rack: RackId,
        /// Where its daemon is.
        addr: String,
    },
    /// The region belongs to another cluster.
    #[error(
        "the region belongs to cluster {found:032x} and this is {wanted:032x}; name another file, or remove that one to start empty"
    )]
    OtherCluster {
        /// The region's.
        found: u128,
        /// This one.
        wanted: u128,
    },
    /// The region's pages have another size.
    #[error(
        "the region has pages of {found} and the cluster of {wanted}; name another file, or remove that one to start empty"
    )]
    PageSize {
        /// The region's.
        found: PageSize,
        /// The cluster's.
        wanted: PageSize,
    },
    /// The daemon is not the one that serves the rack (any more): it has to join again.
    #[error("rack {0} is not served by this daemon (any more)")]
    NotJoined(RackId),
    /// There is no such rack.
    #[error("there is no rack {0} in this cluster; `rcmp status` lists those there are")]
    NoSuchRack(RackId),
    /// The request cannot be carried out now.
    #[error("{0}")]
    Refused(String),
    /// The master's store failed.
    #[error("{0}")]
    Store(String),
}
