//! Listing a directory with attributes, and the leases that come along.
//!
//! A listing revokes nothing and waits for nobody: attributes of entries that others may be changing come without a
//! lease, and the mount asks for them again when it needs them.

use super::Core;
use crate::mounts::Mounts;
use crate::mounts::leases::{Mode, Need};
use pool::proto::meta::{Attr, Ino, MetaReply, MetaRequest};
use pool::proto::mount::{Answer, MountError, MountReply};

/// Whether `session` may be granted a shared lease of `ino` without anything being revoked.
fn is_free(m: &Mounts, session: u64, ino: Ino) -> bool {
    m.sessions.outstanding(session, ino).is_empty()
        && !m.parked.iter().any(|parked| parked.changes.contains(&ino))
        && m.leases.conflicts(ino, session, &Need::Read).is_empty()
}

impl Core {
    /// Lists the directory `dir` for `session`, as `request` says.
    pub(super) fn list(
        &self,
        m: &mut Mounts,
        session: u64,
        dir: Ino,
        request: MetaRequest,
    ) -> Result<MountReply, MountError> {
        if !m.sessions.is_alive(session) {
            return Err(MountError::Expired);
        }
        let mut result = self.serve(request);
        m.seq += 1;
        let seq = m.seq;
        let mut granted: Vec<Attr> = Vec::new();
        if let Ok(MetaReply::Entries(entries)) = &mut result {
            granted.reserve(entries.len() + 1);
            if is_free(m, session, dir)
                && let Ok(attr) = self.ns.read().attr(dir)
            {
                m.leases.grant(dir, session, Mode::Shared, seq);
                granted.push(attr);
            }
            for entry in entries {
                let named = !matches!(&entry.name[..], b"." | b"..");
                if named && is_free(m, session, entry.ino) {
                    m.leases.grant(entry.ino, session, Mode::Shared, seq);
                    granted.extend(entry.attr.take());
                }
            }
        }
        Ok(MountReply::Answer(Answer { seq, result, granted, extents: None }))
    }
}
