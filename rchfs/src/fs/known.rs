//! What this mount knows of the namespace under leases: attributes, names (also those that there are not), extended
//! attributes, and short maps that came along. All of it may be used without a message, as long as the session is
//! valid.
//!
//! **Order.** Answers of the master and revocations may overtake each other. What an answer says is noted only if it
//! is of the present session, is not older than the last revocation of that inode (its shard's `floor`), and is
//! newer than what is there; where it is not noted, what is there from before it is dropped. So nothing must be locked
//! while the master is asked.
//!
//! A shard's lock is a leaf.

use parking_lot::Mutex;
use pool::proto::meta::{Attr, Extent, Ino, Kind, Time};
use pool::proto::mount::Seq;
use std::collections::HashMap;

const SHARDS: u64 = 1024;
/// Names kept of one directory, at most.
const NAMES: usize = 1 << 17;

/// What a name of a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// An inode.
    Is(Ino),
    /// Nothing.
    Free,
    /// The master must be asked.
    Unknown,
}

#[derive(Default)]
struct Inode {
    /// Of the last answer about it.
    seq: Seq,
    attr: Option<(Seq, Attr)>,
    names: HashMap<Box<[u8]>, (Seq, Name)>,
    /// What is not among `names` does not exist. So for a directory that this mount has made.
    complete: bool,
    xattrs: HashMap<Box<[u8]>, Option<Vec<u8>>>,
    /// The map, if it came along and nobody has used it yet; and whether it came with an exclusive lease.
    extents: Option<(Vec<Extent>, bool)>,
}

impl Inode {
    /// What `name` stands for is not known, as of `seq`.
    fn unknown(&mut self, seq: Seq, name: &[u8]) {
        if self.complete {
            self.names.insert(name.into(), (seq, Name::Unknown));
        } else {
            self.names.remove(name);
        }
    }
}

#[derive(Default)]
struct Shard {
    inodes: HashMap<Ino, Inode>,
    /// Nothing older is noted.
    floor: Seq,
    /// The session.
    generation: u64,
}

impl Shard {
    fn takes(&self, at: At) -> bool {
        at.generation == self.generation && at.seq >= self.floor
    }
}

/// The place of an answer: in which session it was asked for, and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub generation: u64,
    pub seq: Seq,
}

/// All that is known.
pub(super) struct Known(Vec<Mutex<Shard>>);

impl Known {
    /// Nothing, in the first session.
    pub fn new(generation: u64) -> Self {
        let shard = || Mutex::new(Shard { generation, ..Shard::default() });
        Self((0..SHARDS).map(|_| shard()).collect())
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        &self.0[(ino.0 % SHARDS) as usize]
    }

    /// Attributes.
    pub fn attr(&self, ino: Ino) -> Option<Attr> {
        self.shard(ino).lock().inodes.get(&ino)?.attr.map(|(_, attr)| attr)
    }

    /// Notes attributes; false if they are out of date, or not of this session: then nothing else in the same
    /// answer about this inode may be used later, either.
    pub fn note(&self, at: At, attr: Attr) -> bool {
        let mut shard = self.shard(attr.ino).lock();
        if !shard.takes(at) {
            // It may be what this mount itself has changed, so what is known from before is out of date.
            if let Some(inode) = shard.inodes.get_mut(&attr.ino)
                && inode.attr.is_some_and(|(seq, _)| seq < at.seq)
            {
                inode.attr = None;
                inode.xattrs.clear();
                inode.extents = None;
            }
            return false;
        }
        let inode = shard.inodes.entry(attr.ino).or_default();
        inode.seq = inode.seq.max(at.seq);
        match &mut inode.attr {
            Some((seq, _)) if *seq >= at.seq => {}
            // Nothing has happened to it, so the rest is as it was, too.
            Some((seq, same)) if *same == attr => *seq = at.seq,
            _ => {
                inode.attr = Some((at.seq, attr));
                inode.xattrs.clear();
                inode.extents = None;
            }
        }
        true
    }

    /// What `name` of `dir` stands for.
    pub fn name(&self, dir: Ino, name: &[u8]) -> Name {
        let shard = self.shard(dir).lock();
        let Some(inode) = shard.inodes.get(&dir) else { return Name::Unknown };
        let other = if inode.complete { Name::Free } else { Name::Unknown };
        inode.names.get(name).map_or(other, |(_, is)| *is)
    }

    /// `dir` has just been made, so there is nothing in it.
    pub fn note_empty(&self, at: At, dir: Ino) {
        let mut shard = self.shard(dir).lock();
        if let Some(inode) = shard.inodes.get_mut(&dir)
            && inode.attr.is_some_and(|(seq, _)| seq == at.seq)
        {
            inode.complete = true;
        }
    }

    /// Notes what `name` of `dir` stands for.
    pub fn note_name(&self, at: At, dir: Ino, name: &[u8], is: Name) {
        let mut shard = self.shard(dir).lock();
        if !shard.takes(at) {
            if let Some(inode) = shard.inodes.get_mut(&dir)
                && inode.names.get(name).is_none_or(|(seq, _)| *seq < at.seq)
            {
                inode.unknown(at.seq, name);
            }
            return;
        }
        let Some(inode) = shard.inodes.get_mut(&dir) else { return };
        match inode.names.get_mut(name) {
            Some(known) if known.0 < at.seq => *known = (at.seq, is),
            Some(_) => {}
            None => {
                if inode.names.len() >= NAMES {
                    inode.names.clear();
                    inode.complete = false;
                    // An answer on its way may be older than what was just forgotten.
                    shard.floor = shard.floor.max(at.seq);
                }
                if let Some(inode) = shard.inodes.get_mut(&dir) {
                    inode.names.insert(name.into(), (at.seq, is));
                }
            }
        }
    }

    /// The value of an extended attribute, or that there is none; `None` if the master must be asked.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Option<Option<Vec<u8>>> {
        self.shard(ino).lock().inodes.get(&ino)?.xattrs.get(name).cloned()
    }

    /// Notes the value of an extended attribute. It was granted with the attributes.
    pub fn note_xattr(&self, at: At, ino: Ino, name: &[u8], value: Option<Vec<u8>>) {
        let mut shard = self.shard(ino).lock();
        if shard.takes(at)
            && let Some(inode) = shard.inodes.get_mut(&ino)
            && inode.attr.is_some_and(|(seq, _)| seq <= at.seq)
        {
            inode.xattrs.insert(name.into(), value);
        }
    }

    /// Notes the map of a file that came with its attributes, and perhaps an exclusive lease; unless that has become a
    /// shared one since the attributes were noted.
    pub fn note_extents(&self, at: At, ino: Ino, extents: Vec<Extent>, exclusive: bool) {
        let mut shard = self.shard(ino).lock();
        if shard.takes(at)
            && let Some(inode) = shard.inodes.get_mut(&ino)
            && inode.attr.is_some_and(|(seq, _)| seq == at.seq)
        {
            inode.extents = Some((extents, exclusive));
        }
    }

    /// Attributes and map of a file, if both are known, and whether it may be written; the map is taken out. Nothing
    /// if it is to be written and may not.
    pub fn take_extents(&self, ino: Ino, to_write: bool) -> Option<(Attr, Vec<Extent>, bool)> {
        let mut shard = self.shard(ino).lock();
        let inode = shard.inodes.get_mut(&ino)?;
        let (_, attr) = inode.attr?;
        let (extents, exclusive) = inode.extents.take_if(|(_, exclusive)| *exclusive || !to_write)?;
        Some((attr, extents, exclusive))
    }

    /// A name of `dir` is about to change elsewhere.
    pub fn revoke_name(&self, seq: Seq, dir: Ino, name: &[u8]) {
        let mut shard = self.shard(dir).lock();
        shard.floor = shard.floor.max(seq);
        if let Some(inode) = shard.inodes.get_mut(&dir) {
            inode.unknown(seq, name);
            inode.attr = None;
        }
    }

    /// The names of `dir` that may stand for directories.
    pub fn directories_in(&self, dir: Ino) -> Vec<Box<[u8]>> {
        let names: Vec<(Box<[u8]>, Ino)> = {
            let shard = self.shard(dir).lock();
            let names = shard.inodes.get(&dir).into_iter().flat_map(|inode| &inode.names);
            let found = names.filter_map(|(name, (_, is))| match is {
                Name::Is(ino) => Some((name.clone(), *ino)),
                Name::Free | Name::Unknown => None,
            });
            found.collect()
        };
        let may_be = |ino| self.attr(ino).is_none_or(|attr| attr.kind == Kind::Dir);
        names.into_iter().filter(|(_, ino)| may_be(*ino)).map(|(name, _)| name).collect()
    }

    /// The exclusive lease on `ino` has become a shared one.
    pub fn share(&self, seq: Seq, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        shard.floor = shard.floor.max(seq);
        if let Some((_, exclusive)) = shard.inodes.get_mut(&ino).and_then(|inode| inode.extents.as_mut()) {
            *exclusive = false;
        }
    }

    /// The lease on `ino` is gone.
    pub fn revoke(&self, seq: Seq, ino: Ino) {
        let mut shard = self.shard(ino).lock();
        shard.floor = shard.floor.max(seq);
        shard.inodes.remove(&ino);
    }

    /// `ino` is not used any more. The number up to which leases on it are given up.
    pub fn forget(&self, ino: Ino) -> Seq {
        let mut shard = self.shard(ino).lock();
        let seq = shard.inodes.remove(&ino).map_or(0, |inode| inode.seq);
        shard.floor = shard.floor.max(seq);
        shard.floor
    }

    /// The inode has another access time, if it has not changed since it was as is known.
    pub fn accessed(&self, ino: Ino, atime: Time, ctime: Time) {
        let mut shard = self.shard(ino).lock();
        let attr = shard.inodes.get_mut(&ino).and_then(|inode| inode.attr.as_mut());
        if let Some((_, attr)) = attr.filter(|(_, attr)| attr.ctime == ctime) {
            attr.atime = atime;
        }
    }

    /// Another session: nothing is known.
    pub fn clear(&self, generation: u64) {
        for shard in &self.0 {
            let mut shard = shard.lock();
            shard.generation = generation;
            shard.inodes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(ino: u64, size: u64) -> Attr {
        let time = Time::default();
        Attr {
            ino: Ino(ino),
            kind: Kind::File,
            perm: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
        }
    }

    fn at(seq: Seq) -> At {
        At { generation: 1, seq }
    }

    #[test]
    fn an_answer_that_a_revocation_overtook_is_not_noted() {
        let known = Known::new(1);
        known.revoke(10, Ino(5));
        assert!(!known.note(at(9), attr(5, 1)));
        assert_eq!(known.attr(Ino(5)), None);
        assert!(known.note(at(11), attr(5, 2)));
        assert_eq!(known.attr(Ino(5)).unwrap().size, 2);
    }

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let known = Known::new(1);
        known.note(at(7), attr(5, 70));
        known.note(at(6), attr(5, 60));
        assert_eq!(known.attr(Ino(5)).unwrap().size, 70);
        known.note_name(at(7), Ino(5), b"a", Name::Free);
        known.note_name(at(6), Ino(5), b"a", Name::Is(Ino(9)));
        assert_eq!(known.name(Ino(5), b"a"), Name::Free);
    }

    #[test]
    fn what_was_forgotten_is_not_brought_back_by_an_old_answer() {
        let known = Known::new(1);
        known.note(at(7), attr(5, 70));
        assert_eq!(known.forget(Ino(5)), 7);
        assert!(!known.note(at(6), attr(5, 60)));
    }

    #[test]
    fn an_exclusive_lease_that_became_a_shared_one_before_its_map_was_noted_is_not_taken_for_exclusive() {
        let known = Known::new(1);
        known.note(at(7), attr(5, 0));
        known.share(8, Ino(5));
        known.note_extents(at(7), Ino(5), Vec::new(), true);
        assert!(known.take_extents(Ino(5), true).is_none());
        known.note(at(9), attr(6, 0));
        known.note_extents(at(9), Ino(6), Vec::new(), true);
        assert!(known.take_extents(Ino(6), true).is_some());
    }

    #[test]
    fn answers_of_another_session_count_for_nothing() {
        let known = Known::new(1);
        known.note(at(7), attr(5, 70));
        known.clear(2);
        assert_eq!(known.attr(Ino(5)), None);
        assert!(!known.note(at(8), attr(5, 80)));
    }

    #[test]
    fn what_an_answer_that_is_not_noted_has_changed_is_not_known_any_more() {
        let known = Known::new(1);
        known.note(at(1), attr(5, 0));
        known.note_name(at(1), Ino(5), b"made", Name::Free);
        known.note_name(at(5), Ino(5), b"newer", Name::Free);
        // Another name is revoked before the answer arrives that "made" was made.
        known.revoke_name(3, Ino(5), b"other");
        known.note_name(at(2), Ino(5), b"made", Name::Is(Ino(6)));
        known.note_name(at(2), Ino(5), b"newer", Name::Is(Ino(7)));
        assert_eq!(known.name(Ino(5), b"made"), Name::Unknown);
        assert_eq!(known.name(Ino(5), b"newer"), Name::Free);
        known.note(at(6), attr(9, 1));
        known.share(8, Ino(9));
        assert!(!known.note(at(7), attr(9, 2)));
        assert_eq!(known.attr(Ino(9)), None);
    }

    #[test]
    fn a_directory_made_here_has_no_other_names_until_somebody_else_changes_one() {
        let known = Known::new(1);
        known.note(at(1), attr(5, 0));
        assert_eq!(known.name(Ino(5), b"a"), Name::Unknown);
        known.note_empty(at(1), Ino(5));
        assert_eq!(known.name(Ino(5), b"a"), Name::Free);
        known.note_name(at(2), Ino(5), b"a", Name::Is(Ino(6)));
        known.revoke_name(4, Ino(5), b"b");
        // An answer that was overtaken: what it has made is there, though nobody knows what has become of it since.
        known.note_name(at(3), Ino(5), b"c", Name::Is(Ino(7)));
        let names = [&b"a"[..], b"b", b"c", b"d"].map(|name| known.name(Ino(5), name));
        assert_eq!(names, [Name::Is(Ino(6)), Name::Unknown, Name::Unknown, Name::Free]);
        known.note_name(at(5), Ino(5), b"b", Name::Free);
        assert_eq!(known.name(Ino(5), b"b"), Name::Free);
        known.revoke(6, Ino(5));
        assert_eq!(known.name(Ino(5), b"d"), Name::Unknown);
    }

    #[test]
    fn attributes_that_have_not_changed_leave_what_else_is_known() {
        let known = Known::new(1);
        known.note(at(1), attr(5, 70));
        known.note_xattr(at(2), Ino(5), b"user.a", None);
        known.note(at(3), attr(5, 70));
        assert_eq!(known.xattr(Ino(5), b"user.a"), Some(None));
        known.note(at(4), attr(5, 71));
        assert_eq!(known.xattr(Ino(5), b"user.a"), None);
    }

    #[test]
    fn a_revoked_name_leaves_the_other_names() {
        let known = Known::new(1);
        known.note(at(1), attr(5, 0));
        known.note_name(at(1), Ino(5), b"a", Name::Is(Ino(6)));
        known.note_name(at(2), Ino(5), b"b", Name::Is(Ino(7)));
        known.revoke_name(3, Ino(5), b"a");
        assert_eq!((known.name(Ino(5), b"a"), known.name(Ino(5), b"b")), (Name::Unknown, Name::Is(Ino(7))));
        assert_eq!(known.attr(Ino(5)), None);
    }
}
