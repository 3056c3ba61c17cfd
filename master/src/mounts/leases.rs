//! Which sessions have which leases. Plain data.
//!
//! Invariant: if a session holds an inode exclusively, no other holds it but in mode [`Mode::Used`].

use hashbrown::HashMap;
use pool::proto::meta::Ino;
use pool::proto::mount::{Revoked, Seq};

/// What a session has of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    /// No lease, but a program there has it open.
    Used,
    /// What is known of it may be kept.
    Shared,
    /// A file that it may write.
    Exclusive,
}

/// A session's hold on an inode.
#[derive(Clone, Copy, Debug)]
struct Hold {
    session: u64,
    mode: Mode,
    /// When it was last granted.
    seq: Seq,
}

/// What an operation does to an inode, as far as others are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing that anybody must know of.
    Nothing,
    /// It is looked at: what others keep back must be told.
    Read,
    /// It changes.
    Change,
    /// A name of this directory changes.
    Entry(Vec<u8>),
    /// Pages of it get into other files: nobody may write to them in place any more, whoever asks included.
    Share,
    /// Pages of other files get into it: nobody knows its map any more, whoever asks included.
    Replace,
}

impl Need {
    /// Whether others must wait until it is done.
    pub(crate) fn is_change(&self) -> bool {
        matches!(self, Self::Change | Self::Entry(_) | Self::Share | Self::Replace)
    }
}

/// All holds.
#[derive(Debug, Default)]
pub(crate) struct Leases(HashMap<Ino, Vec<Hold>>);

impl Leases {
    /// The mode in which `session` holds `ino`.
    pub(crate) fn mode(&self, ino: Ino, session: u64) -> Option<Mode> {
        self.0.get(&ino)?.iter().find(|hold| hold.session == session).map(|hold| hold.mode)
    }

    /// The sessions that hold `ino` in any mode.
    pub(crate) fn holders(&self, ino: Ino) -> Vec<u64> {
        self.0.get(&ino).into_iter().flatten().map(|hold| hold.session).collect()
    }

    /// What must be revoked, and of which sessions, before `session` does this to `ino`.
    pub(crate) fn conflicts(&self, ino: Ino, session: u64, need: &Need) -> Vec<(u64, Revoked)> {
        let revoked = |hold: &Hold| match (need, hold.mode) {
            (Need::Read | Need::Share, Mode::Exclusive) => Some(Revoked::Writing),
            (Need::Change | Need::Replace, Mode::Exclusive | Mode::Shared) => Some(Revoked::All),
            // Directories are held shared only.
            (Need::Entry(name), Mode::Shared) => Some(Revoked::Entry(name.clone())),
            _ => None,
        };
        let all = matches!(need, Need::Share | Need::Replace);
        let others = self.0.get(&ino).into_iter().flatten().filter(|hold| all || hold.session != session);
        others.filter_map(|hold| Some((hold.session, revoked(hold)?))).collect()
    }

    /// `session` holds `ino` at least in this mode from now on.
    pub(crate) fn grant(&mut self, ino: Ino, session: u64, mode: Mode, seq: Seq) {
        let holds = self.0.entry(ino).or_insert_with(|| Vec::with_capacity(1));
        match holds.iter_mut().find(|hold| hold.session == session) {
            Some(hold) => (hold.mode, hold.seq) = (hold.mode.max(mode), seq),
            None => holds.push(Hold { session, mode, seq }),
        }
    }

    /// `session` holds `ino` in this mode at most from now on; not at all with `None`.
    pub(crate) fn reduce(&mut self, ino: Ino, session: u64, mode: Option<Mode>) {
        let Some(holds) = self.0.get_mut(&ino) else { return };
        match mode {
            Some(mode) => {
                let held = holds.iter_mut().find(|hold| hold.session == session);
                held.into_iter().for_each(|hold| hold.mode = hold.mode.min(mode));
            }
            None => holds.retain(|hold| hold.session != session),
        }
        if holds.is_empty() {
            self.0.remove(&ino);
        }
    }

    /// `session` gives up `ino`, unless it was granted after `seq`; whether it does.
    pub(crate) fn give_up(&mut self, ino: Ino, session: u64, seq: Seq) -> bool {
        if self.granted_after(ino, session, seq) {
            return false;
        }
        self.reduce(ino, session, None);
        true
    }

    /// Whether `session` was granted `ino` after `seq`.
    pub(crate) fn granted_after(&self, ino: Ino, session: u64, seq: Seq) -> bool {
        let mut holds = self.0.get(&ino).into_iter().flatten();
        holds.any(|hold| hold.session == session && hold.seq > seq)
    }

    /// Nobody holds `ino`: it is no more.
    pub(crate) fn remove(&mut self, ino: Ino) {
        self.0.remove(&ino);
    }

    /// `session` holds nothing any more.
    pub(crate) fn remove_session(&mut self, session: u64) {
        self.0.retain(|_, holds| {
            holds.retain(|hold| hold.session != session);
            !holds.is_empty()
        });
    }

    /// Inodes that somebody holds.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(7);

    #[test]
    fn readers_share_and_a_change_revokes_all_others() {
        let mut leases = Leases::default();
        leases.grant(FILE, 1, Mode::Shared, 1);
        leases.grant(FILE, 2, Mode::Shared, 2);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Read), []);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Change), [(2, Revoked::All)]);
        assert_eq!(leases.conflicts(FILE, 3, &Need::Change).len(), 2);
    }

    #[test]
    fn a_reader_takes_the_right_to_write_and_leaves_the_rest() {
        let mut leases = Leases::default();
        leases.grant(FILE, 1, Mode::Exclusive, 1);
        assert_eq!(leases.conflicts(FILE, 2, &Need::Read), [(1, Revoked::Writing)]);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Change), []);
        leases.reduce(FILE, 1, Some(Mode::Shared));
        assert_eq!(leases.conflicts(FILE, 2, &Need::Read), []);
        assert_eq!(leases.mode(FILE, 1), Some(Mode::Shared));
    }

    #[test]
    fn pages_are_shared_when_nobody_may_write_to_them_not_even_who_asks() {
        let mut leases = Leases::default();
        leases.grant(FILE, 1, Mode::Exclusive, 1);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Share), [(1, Revoked::Writing)]);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Replace), [(1, Revoked::All)]);
        leases.reduce(FILE, 1, Some(Mode::Shared));
        leases.grant(FILE, 2, Mode::Shared, 2);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Share), []);
        assert_eq!(leases.conflicts(FILE, 1, &Need::Replace).len(), 2);
    }

    #[test]
    fn an_open_file_without_a_lease_is_remembered_but_in_nobodys_way() {
        let mut leases = Leases::default();
        leases.grant(FILE, 1, Mode::Exclusive, 1);
        leases.reduce(FILE, 1, Some(Mode::Used));
        assert_eq!(leases.conflicts(FILE, 2, &Need::Change), []);
        assert_eq!(leases.holders(FILE), [1]);
    }

    #[test]
    fn what_was_granted_later_is_not_given_up() {
        let mut leases = Leases::default();
        leases.grant(FILE, 1, Mode::Shared, 5);
        assert!(!leases.give_up(FILE, 1, 4));
        assert!(leases.give_up(FILE, 1, 5));
        assert_eq!(leases.len(), 0);
    }

    #[test]
    fn names_are_revoked_one_by_one() {
        let mut leases = Leases::default();
        leases.grant(Ino::ROOT, 1, Mode::Shared, 1);
        let need = Need::Entry(b"a".to_vec());
        assert_eq!(leases.conflicts(Ino::ROOT, 2, &need), [(1, Revoked::Entry(b"a".to_vec()))]);
        assert_eq!(leases.mode(Ino::ROOT, 1), Some(Mode::Shared));
    }
}
