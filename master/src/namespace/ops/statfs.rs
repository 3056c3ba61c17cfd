//! How many inodes there are and can be.

use super::Answer;
use crate::namespace::Namespace;
use pool::proto::meta::{InodeStat, MetaReply};

/// The counts.
pub(crate) fn statfs(ns: &Namespace) -> Answer {
    Ok(MetaReply::Stat(InodeStat { used: ns.len() as u64, max: ns.limits().max_inodes }))
}
