//! The messages of the cluster as plain data: no I/O, no behaviour.
//!
//! [`page`] is what a client asks of its rack's daemon, [`meta`] what a mount asks of the master.
//! A [`Transport`](crate::transport::Transport) carries them; it never interprets them.

pub mod meta;
pub mod page;

use crate::addr::RackId;
use serde::{Deserialize, Serialize};

/// A party of the cluster that messages are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeId {
    /// The master of the cluster.
    Master,
    /// The daemon of a rack.
    Daemon(RackId),
}

/// Any request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// For a daemon.
    Page(page::PageRequest),
    /// For the master.
    Meta(meta::MetaRequest),
}

/// Any reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// From a daemon.
    Page(Result<page::PageReply, page::PageError>),
    /// From the master.
    Meta(Result<meta::MetaReply, meta::MetaError>),
    /// The node does not serve requests of this kind.
    Unsupported,
}
