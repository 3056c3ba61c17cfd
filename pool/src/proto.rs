//! The messages of the cluster as plain data: no I/O, no behaviour.
//!
//! | module | who asks whom |
//! | --- | --- |
//! | [`page`] | a client asks its rack's daemon; the master asks any daemon |
//! | [`far`] | a client that cannot map its rack's memory asks the daemon there |
//! | [`peer`] | the daemon of a rack asks that of another |
//! | [`cluster`] | daemons, clients and tools ask the master about racks and where pages are |
//! | [`meta`] | the embedded mount asks the master about files |
//! | [`mount`] | a mount of a cluster asks the master about files, under leases |
//!
//! A [`Transport`](crate::transport::Transport) carries them; it never interprets them.

pub mod cluster;
pub mod far;
pub mod meta;
pub mod mount;
pub mod page;
pub mod peer;

use crate::addr::RackId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A party of the cluster that messages are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeId {
    /// The master of the cluster.
    Master,
    /// The daemon of a rack.
    Daemon(RackId),
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("the master"),
            Self::Daemon(rack) => write!(f, "the daemon of rack {rack}"),
        }
    }
}

/// Any request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// For a daemon, from a client or the master.
    Page(page::PageRequest),
    /// For a daemon, from another daemon.
    Peer(peer::PeerRequest),
    /// For the master, about the cluster.
    Cluster(cluster::ClusterRequest),
    /// For the master, about files.
    Meta(meta::MetaRequest),
    /// For the master, from a mount of a cluster.
    Mount(mount::MountRequest),
    /// For a daemon, from a client that cannot map the rack's memory.
    Far(far::FarRequest),
}

/// Any reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// To a [`Request::Page`].
    Page(Result<page::PageReply, page::PageError>),
    /// To a [`Request::Peer`].
    Peer(Result<peer::PeerReply, page::PageError>),
    /// To a [`Request::Cluster`].
    Cluster(Result<cluster::ClusterReply, cluster::ClusterError>),
    /// To a [`Request::Meta`].
    Meta(Result<meta::MetaReply, meta::MetaError>),
    /// To a [`Request::Mount`].
    Mount(Result<mount::MountReply, mount::MountError>),
    /// To a [`Request::Far`].
    Far(Result<far::FarReply, far::FarError>),
    /// The node does not serve requests of this kind.
    Unsupported,
}
