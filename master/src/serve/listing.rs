//! Listing a directory with attributes, and the leases that come along.
//!
//! A listing revokes nothing and waits for nobody: attributes of entries that others may be changing come without a
//! lease, and the mount asks for them again when it needs them.

use super::Core;
use super::mount::as_granted;
use crate::mounts::Mounts;
use crate::mounts::leases::{Mode, Need};
use pool::proto::meta::{Ino, MetaReply, MetaRequest};
use pool::proto::mount::{Answer, Granted, LISTED_EXTENTS, MountError, MountReply};

/// Whether `session` may be granted a shared lease of `ino` without anything being revoked.
fn is_free(m: &Mounts, session: u64, ino: Ino) -> bool {
    m.sessions.outstanding(session, ino).is_empty()
        && !m.parked.iter().any(|parked| parked.changes.contains(&ino))
        && m.leases.conflicts(ino, session, &Need::Read).is_empty()
}

impl Core {
    /// Lists the directory `dir` for `session`, as `request` says; `plus` with attributes.
    pub(super) fn list(
        &self,
        m: &mut Mounts,
        session: u64,
        dir: Ino,
        plus: bool,
        request: MetaRequest,
    ) -> Result<MountReply, MountError> {
        if !m.sessions.is_alive(session) {
            return Err(MountError::Expired);
        }
        let mut result = self.serve(request);
        m.seq += 1;
        let seq = m.seq;
        let mut granted: Vec<Granted> = Vec::new();
        if let Ok(MetaReply::Entries(entries)) = &mut result {
            let ns = self.ns.read();
            let mut grant = |ino: Ino, extents: u32| {
                let found = if is_free(m, session, ino) { as_granted(&ns, ino, extents) } else { None }?;
                m.leases.grant(ino, session, Mode::Shared, seq);
                granted.push(found);
                Some(())
            };
            grant(dir, 0);
            for entry in entries.iter_mut().filter(|_| plus) {
                let named = !matches!(&entry.name[..], b"." | b"..");
                if named && grant(entry.ino, LISTED_EXTENTS).is_some() {
                    entry.attr = None;
                }
            }
        }
        Ok(MountReply::Answer(Answer { seq, result, granted }))
    }
}
