//! What this mount knows of the namespace under leases: attributes, names (also those that there are not), listings of
//! directories, extended attributes (above all that there are none), and short maps that came along. All of it may be
//! used without a message, as long as the session is valid.
//!
//! **Order.** Answers of the master and revocations may overtake each other. What an answer says is noted only if it
//! is of the present session, is not older than the last revocation of that inode (its shard's `floor`), and is
//! newer than what is there; where it is not noted, what is there from before it is dropped. So nothing must be locked
//! while the master is asked.
//!
//! A shard's lock is a leaf.

use parking_lot::Mutex;
use pool::proto::meta::{Attr, DirEntry, Extent, Ino, Kind, Time};
use pool::proto::mount::{Granted, Seq};
use std::collections::HashMap;

const SHARDS: u64 = 1024;
/// Names kept of one directory, at most.
const NAMES: usize = 1 << 17;
/// Entries kept of the listing of one directory, at most.
const LISTED: usize = 1 << 16;

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
    /// It has no extended attributes.
    bare: bool,
    /// Of some that it may have: the value, or that there is none.
    xattrs: HashMap<Box<[u8]>, Option<Vec<u8>>>,
    /// The names of all that it has.
    xattr_list: Option<Vec<u8>>,
    /// What was listed of it, if it is a directory, since its attributes last changed.
    listing: Option<Box<Listing>>,
    /// The map, if it came along and nobody has used it yet; and whether it came with an exclusive lease.
    extents: Option<(Vec<Extent>, bool)>,
}

/// A directory as it was listed, from the beginning.
#[derive(Default)]
struct Listing {
    entries: Vec<Listed>,
    /// There are no more.
    whole: bool,
}

struct Listed {
    cookie: u64,
    ino: Ino,
    kind: Kind,
    name: Box<[u8]>,
    /// Of `.` and `..` only: others are looked at anew each time.
    attr: Option<Box<Attr>>,
}

impl Listed {
    fn of(entry: &DirEntry) -> Self {
        let DirEntry { cookie, ino, kind, name, attr } = entry;
        let attr = attr.filter(|_| is_dot(name)).map(Box::new);
        Self { cookie: *cookie, ino: *ino, kind: *kind, name: name[..].into(), attr }
    }

    fn entry(&self) -> DirEntry {
        let Self { cookie, ino, kind, name, attr } = self;
        DirEntry {
            cookie: *cookie,
            ino: *ino,
            kind: *kind,
            name: name.to_vec(),
            attr: attr.as_deref().copied(),
        }
    }
}

/// Whether the name is that of the directory itself, or of the one that holds it.
pub(super) fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

impl Inode {
    /// Only names are known, if anything is.
    fn changed(&mut self) {
        self.attr = None;
        self.bare = false;
        self.xattrs.clear();
        (self.xattr_list, self.listing, self.extents) = (None, None, None);
    }

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

    /// Attributes, and whether there are no extended ones.
    pub fn attr_and_bare(&self, ino: Ino) -> Option<(Attr, bool)> {
        let shard = self.shard(ino).lock();
        let inode = shard.inodes.get(&ino)?;
        Some((inode.attr?.1, inode.bare))
    }

    /// Notes an inode as an answer says it is; false if that is out of date, or not of this session: then nothing else
    /// in the same answer about this inode may be used later, either. `exclusive`: it came with an exclusive lease,
    /// which counts for its map unless it has become a shared one since.
    pub fn note(&self, at: At, granted: Granted, exclusive: bool) -> bool {
        let Granted { attr, bare, extents } = granted;
        let mut shard = self.shard(attr.ino).lock();
        if !shard.takes(at) {
            // It may be what this mount itself has changed, so what is known from before is out of date.
            if let Some(inode) = shard.inodes.get_mut(&attr.ino)
                && inode.attr.is_some_and(|(seq, _)| seq < at.seq)
            {
                inode.changed();
            }
            return false;
        }
        let inode = shard.inodes.entry(attr.ino).or_default();
        inode.seq = inode.seq.max(at.seq);
        match inode.attr {
            Some((seq, _)) if seq >= at.seq => return true,
            // Nothing has happened to it but that it was read, so the rest is as it was, too.
            Some((_, same)) if (Attr { atime: attr.atime, ..same }) == attr && inode.bare == bare => {}
            _ => inode.changed(),
        }
        (inode.attr, inode.bare) = (Some((at.seq, attr)), bare);
        if let Some(extents) = extents {
            let exclusive = exclusive || inode.extents.as_ref().is_some_and(|(_, exclusive)| *exclusive);
            inode.extents = Some((extents, exclusive));
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

    /// Notes entries of `dir` that come after the cookie `after`; `whole` if there are no more. They must be of the answer
    /// that its attributes were noted from last.
    pub fn note_listing(&self, at: At, dir: Ino, after: u64, entries: &[DirEntry], whole: bool) {
        let mut shard = self.shard(dir).lock();
        let takes = shard.takes(at);
        let Some(inode) = shard.inodes.get_mut(&dir) else { return };
        if !takes || inode.attr.is_none_or(|(seq, _)| seq != at.seq) {
            return;
        }
        let mut listing = match inode.listing.take() {
            _ if after == 0 => Box::<Listing>::default(),
            // Nothing has happened to the directory since.
            Some(listing) if listing.entries.last().is_some_and(|last| last.cookie == after) => listing,
            other => {
                inode.listing = other;
                return;
            }
        };
        if listing.entries.len() + entries.len() > LISTED {
            return;
        }
        listing.entries.extend(entries.iter().map(Listed::of));
        listing.whole = whole;
        let named = |listed: &Listed| is_dot(&listed.name) || inode.names.contains_key(&listed.name);
        inode.complete |= whole && listing.entries.iter().all(named);
        inode.listing = Some(listing);
    }

    /// Up to `limit` entries of `dir` after the cookie `after`, without attributes but for `.` and `..`; `None` if the
    /// master must be asked.
    pub fn list(&self, dir: Ino, after: u64, limit: u32) -> Option<Vec<DirEntry>> {
        let shard = self.shard(dir).lock();
        let listing = shard.inodes.get(&dir)?.listing.as_ref()?;
        let from = listing.entries.partition_point(|listed| listed.cookie <= after);
        let some = listing.entries[from..].iter().take(limit as usize);
        (listing.whole || some.len() > 0).then(|| some.map(Listed::entry).collect())
    }

    /// The value of an extended attribute, or that there is none; `None` if the master must be asked.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Option<Option<Vec<u8>>> {
        let shard = self.shard(ino).lock();
        let inode = shard.inodes.get(&ino)?;
        let other = inode.bare.then_some(None);
        inode.xattrs.get(name).cloned().or(other)
    }

    /// Notes the value of an extended attribute. It was granted with the attributes.
    pub fn note_xattr(&self, at: At, ino: Ino, name: &[u8], value: Option<Vec<u8>>) {
        self.note_of(at, ino, |inode| drop(inode.xattrs.insert(name.into(), value)));
    }

    /// The names of all extended attributes, each ended by a zero byte; `None` if the master must be asked.
    pub fn xattr_list(&self, ino: Ino) -> Option<Vec<u8>> {
        let shard = self.shard(ino).lock();
        let inode = shard.inodes.get(&ino)?;
        if inode.bare { Some(Vec::new()) } else { inode.xattr_list.clone() }
    }

    /// Notes the names of all extended attributes, likewise.
    pub fn note_xattr_list(&self, at: At, ino: Ino, names: Vec<u8>) {
        self.note_of(at, ino, |inode| inode.xattr_list = Some(names));
    }

    /// Notes something that is not older than the attributes that are known.
    fn note_of(&self, at: At, ino: Ino, note: impl FnOnce(&mut Inode)) {
        let mut shard = self.shard(ino).lock();
        if shard.takes(at)
            && let Some(inode) = shard.inodes.get_mut(&ino)
            && inode.attr.is_some_and(|(seq, _)| seq <= at.seq)
        {
            note(inode);
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
            (inode.attr, inode.listing) = (None, None);
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

    /// With extended attributes, and a map that is too long to come along.
    fn got(ino: u64, size: u64) -> Granted {
        Granted { attr: attr(ino, size), bare: false, extents: None }
    }

    fn at(seq: Seq) -> At {
        At { generation: 1, seq }
    }

    #[test]
    fn an_answer_that_a_revocation_overtook_is_not_noted() {
        let known = Known::new(1);
        known.revoke(10, Ino(5));
        assert!(!known.note(at(9), got(5, 1), false));
        assert_eq!(known.attr(Ino(5)), None);
        assert!(known.note(at(11), got(5, 2), false));
        assert_eq!(known.attr(Ino(5)).unwrap().size, 2);
    }

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let known = Known::new(1);
        known.note(at(7), got(5, 70), false);
        known.note(at(6), got(5, 60), false);
        assert_eq!(known.attr(Ino(5)).unwrap().size, 70);
        known.note_name(at(7), Ino(5), b"a", Name::Free);
        known.note_name(at(6), Ino(5), b"a", Name::Is(Ino(9)));
        assert_eq!(known.name(Ino(5), b"a"), Name::Free);
    }

    #[test]
    fn what_was_forgotten_is_not_brought_back_by_an_old_answer() {
        let known = Known::new(1);
        known.note(at(7), got(5, 70), false);
        assert_eq!(known.forget(Ino(5)), 7);
        assert!(!known.note(at(6), got(5, 60), false));
    }

    #[test]
    fn an_exclusive_lease_that_became_a_shared_one_before_its_map_was_noted_is_not_taken_for_exclusive() {
        let with_map = |ino| Granted { extents: Some(Vec::new()), ..got(ino, 0) };
        let known = Known::new(1);
        known.share(8, Ino(5));
        known.note(at(7), with_map(5), true);
        assert!(known.take_extents(Ino(5), true).is_none());
        known.note(at(9), with_map(6), true);
        // It was looked up once more: it is still held exclusively.
        known.note(at(10), with_map(6), false);
        assert!(known.take_extents(Ino(6), true).is_some());
        known.note(at(11), with_map(7), true);
        known.share(12, Ino(7));
        known.note(at(13), with_map(7), false);
        assert!(known.take_extents(Ino(7), true).is_none());
        assert!(known.take_extents(Ino(7), false).is_some());
    }

    fn entry(cookie: u64, name: &str) -> DirEntry {
        DirEntry { cookie, ino: Ino(cookie), kind: Kind::File, name: name.into(), attr: None }
    }

    fn list(known: &Known, after: u64) -> Option<Vec<u64>> {
        let listed = known.list(Ino(5), after, 100)?;
        Some(listed.into_iter().map(|entry| entry.cookie).collect())
    }

    #[test]
    fn a_listing_is_kept_in_parts_until_the_directory_changes() {
        let known = Known::new(1);
        let note = |seq: Seq, size: u64, after: u64, entries: &[DirEntry], whole: bool| {
            known.note(at(seq), got(5, size), false);
            entries.iter().for_each(|e| known.note_name(at(seq), Ino(5), &e.name, Name::Is(e.ino)));
            known.note_listing(at(seq), Ino(5), after, entries, whole);
        };
        note(1, 70, 0, &[entry(3, "a"), entry(7, "b")], false);
        assert_eq!((list(&known, 0), list(&known, 5)), (Some(vec![3, 7]), Some(vec![7])));
        assert_eq!(list(&known, 7), None, "there may be more");
        assert_eq!(known.name(Ino(5), b"c"), Name::Unknown);
        note(2, 70, 7, &[entry(8, "c")], true);
        assert_eq!((list(&known, 0), list(&known, 8)), (Some(vec![3, 7, 8]), Some(vec![])));
        assert_eq!(known.name(Ino(5), b"d"), Name::Free, "all names are known");
        // A part that does not follow on anything is of no use, nor one that something newer is known about.
        note(3, 71, 3, &[entry(7, "b")], true);
        assert_eq!(list(&known, 0), None);
        known.note_listing(at(2), Ino(5), 0, &[entry(3, "a")], true);
        assert_eq!(list(&known, 0), None);
        note(4, 71, 0, &[entry(3, "a")], true);
        known.revoke_name(5, Ino(5), b"x");
        assert_eq!(list(&known, 0), None);
        assert_eq!(known.name(Ino(5), b"x"), Name::Unknown);
    }

    #[test]
    fn that_there_are_no_extended_attributes_is_known_until_there_are() {
        let bare = |size| Granted { bare: true, ..got(5, size) };
        let known = Known::new(1);
        known.note(at(1), bare(1), false);
        assert_eq!((known.xattr(Ino(5), b"user.a"), known.xattr_list(Ino(5))), (Some(None), Some(vec![])));
        known.note(at(2), bare(2), false);
        assert_eq!(known.xattr(Ino(5), b"user.a"), Some(None), "it was written, no more");
        known.note(at(3), got(5, 2), false);
        assert_eq!((known.xattr(Ino(5), b"user.a"), known.xattr_list(Ino(5))), (None, None));
        known.note_xattr_list(at(3), Ino(5), b"user.b\0".to_vec());
        known.note_xattr_list(at(2), Ino(5), b"old\0".to_vec());
        assert_eq!(known.xattr_list(Ino(5)), Some(b"user.b\0".to_vec()));
        known.note(at(4), got(5, 3), false);
        assert_eq!(known.xattr_list(Ino(5)), None);
    }

    #[test]
    fn that_an_inode_was_read_leaves_all_else_that_is_known() {
        let known = Known::new(1);
        known.note(at(1), got(5, 70), false);
        known.note_listing(at(1), Ino(5), 0, &[entry(3, "a")], false);
        let mut read = got(5, 70);
        read.attr.atime.sec = 9;
        known.note(at(2), read, false);
        assert_eq!(known.attr(Ino(5)).unwrap().atime.sec, 9);
        assert_eq!(list(&known, 0), Some(vec![3]));
    }

    #[test]
    fn answers_of_another_session_count_for_nothing() {
        let known = Known::new(1);
        known.note(at(7), got(5, 70), false);
        known.clear(2);
        assert_eq!(known.attr(Ino(5)), None);
        assert!(!known.note(at(8), got(5, 80), false));
    }

    #[test]
    fn what_an_answer_that_is_not_noted_has_changed_is_not_known_any_more() {
        let known = Known::new(1);
        known.note(at(1), got(5, 0), false);
        known.note_name(at(1), Ino(5), b"made", Name::Free);
        known.note_name(at(5), Ino(5), b"newer", Name::Free);
        // Another name is revoked before the answer arrives that "made" was made.
        known.revoke_name(3, Ino(5), b"other");
        known.note_name(at(2), Ino(5), b"made", Name::Is(Ino(6)));
        known.note_name(at(2), Ino(5), b"newer", Name::Is(Ino(7)));
        assert_eq!(known.name(Ino(5), b"made"), Name::Unknown);
        assert_eq!(known.name(Ino(5), b"newer"), Name::Free);
        known.note(at(6), got(9, 1), false);
        known.share(8, Ino(9));
        assert!(!known.note(at(7), got(9, 2), false));
        assert_eq!(known.attr(Ino(9)), None);
    }

    #[test]
    fn a_directory_made_here_has_no_other_names_until_somebody_else_changes_one() {
        let known = Known::new(1);
        known.note(at(1), got(5, 0), false);
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
        known.note(at(1), got(5, 70), false);
        known.note_xattr(at(2), Ino(5), b"user.a", None);
        known.note(at(3), got(5, 70), false);
        assert_eq!(known.xattr(Ino(5), b"user.a"), Some(None));
        known.note(at(4), got(5, 71), false);
        assert_eq!(known.xattr(Ino(5), b"user.a"), None);
    }

    #[test]
    fn a_revoked_name_leaves_the_other_names() {
        let known = Known::new(1);
        known.note(at(1), got(5, 0), false);
        known.note_name(at(1), Ino(5), b"a", Name::Is(Ino(6)));
        known.note_name(at(2), Ino(5), b"b", Name::Is(Ino(7)));
        known.revoke_name(3, Ino(5), b"a");
        assert_eq!((known.name(Ino(5), b"a"), known.name(Ino(5), b"b")), (Name::Unknown, Name::Is(Ino(7))));
        assert_eq!(known.attr(Ino(5)), None);
    }
}
