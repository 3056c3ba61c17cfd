//! Makes a loaded namespace a tree: a root, no orphans, everything reached, every number right.

use super::super::Namespace;
use super::super::edit::Edit;
use super::{Census, Loaded, Repair};
use crate::change::{Change, Meta};
use crate::store::StoreError;
use hashbrown::HashSet;
use pool::proto::meta::{Caller, Ino, Kind, Time};

/// Where inodes go that nothing leads to.
const LOST_FOUND: &[u8] = b"lost+found";

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// The changes, to be committed in this order. The namespace has them already.
    pub batches: Vec<Vec<Change>>,
    /// Inodes without a link that were removed.
    pub orphans: u64,
    /// Inodes without a link that were kept.
    pub nameless: Vec<Ino>,
    /// Everything else: nothing that happens if a process just ends.
    pub repairs: Vec<Repair>,
}

/// Mends `ns`, in memory only. An empty namespace gets a root. With `keep`, inodes without a link are not removed: somebody
/// may have them open.
///
/// # Errors
/// The root is no directory.
pub(crate) fn mend(
    ns: &mut Namespace,
    loaded: Loaded,
    root: Caller,
    now: Time,
    keep: bool,
) -> Result<Mended, StoreError> {
    let mut mended = Mended { repairs: loaded.said, ..Mended::default() };
    match ns.get(Ino::ROOT).map(|inode| inode.meta.kind) {
        Some(Kind::Dir) => {}
        Some(_) => {
            let what = "inode 1 is no directory; restore it from a backup".into();
            return Err(StoreError::Corrupt { place: "the root".into(), what });
        }
        None => {
            if ns.len() > 0 {
                mended.say("the root directory was missing".into(), "it was made again");
            }
            mended.step(ns, vec![Change::PutInode(Ino::ROOT, new_dir(root, 0o755, now))]);
        }
    }
    mended.step(ns, loaded.dropped);
    let mut census = Census::of(ns);
    let nameless = orphans(ns, &census);
    if keep {
        mended.nameless = nameless;
    } else {
        mended.orphans = nameless.len() as u64;
        let removed = removal(ns, &nameless, now);
        mended.step(ns, removed);
    }
    let attached = attach_lost(ns, &mut census, root, now, &mut mended);
    if !attached.is_empty() {
        mended.step(ns, attached);
        census = Census::of(ns);
    }
    let corrected = correct(ns, &census, &mut mended);
    mended.step(ns, corrected);
    ns.recount();
    Ok(mended)
}

impl Mended {
    fn step(&mut self, ns: &mut Namespace, changes: Vec<Change>) {
        changes.iter().for_each(|change| ns.apply(change.clone()));
        if !changes.is_empty() {
            self.batches.push(changes);
        }
    }

    fn say(&mut self, wrong: String, done: &str) {
        self.repairs.push(Repair { wrong, done: done.into() });
    }
}

fn new_dir(owner: Caller, perm: u16, now: Time) -> Meta {
    Meta {
        kind: Kind::Dir,
        perm,
        nlink: 2,
        uid: owner.uid,
        gid: owner.gid,
        rdev: 0,
        size: 0,
        pages: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
    }
}

/// What has no link and no entry.
fn orphans(ns: &Namespace, census: &Census) -> Vec<Ino> {
    let unlinked = ns.iter().filter(|(ino, inode)| inode.meta.nlink == 0 && census.names(*ino) == 0);
    let empty =
        unlinked.filter(|(ino, inode)| *ino != Ino::ROOT && inode.dir().is_none_or(|dir| dir.is_empty()));
    empty.map(|(ino, _)| ino).collect()
}

/// Removes these. Whoever had them open is gone.
fn removal(ns: &Namespace, inos: &[Ino], now: Time) -> Vec<Change> {
    let mut e = Edit::new(ns, now);
    for (ino, inode) in inos.iter().filter_map(|ino| Some((*ino, ns.get(*ino)?))) {
        e.remove(ino, inode);
    }
    e.finish().changes
}

/// Gives a name in `/lost+found` to everything that nothing leads to.
fn attach_lost(
    ns: &Namespace,
    census: &mut Census,
    root: Caller,
    now: Time,
    mended: &mut Mended,
) -> Vec<Change> {
    let mut lost: Vec<(Ino, Option<Change>)> = Vec::new();
    let kept: HashSet<Ino> = mended.nameless.iter().copied().collect();
    kept.iter().for_each(|ino| census.reach(*ino));
    let mut nameless: Vec<Ino> =
        ns.iter().map(|(ino, _)| ino).filter(|ino| census.names(*ino) == 0 && !kept.contains(ino)).collect();
    nameless.sort_unstable();
    for ino in nameless.into_iter().filter(|ino| *ino != Ino::ROOT) {
        census.reach(ino);
        lost.push((ino, None));
    }
    let mut dirs: Vec<Ino> = ns.iter().filter(|(_, i)| i.dir().is_some()).map(|(ino, _)| ino).collect();
    dirs.sort_unstable();
    for ino in dirs {
        if !census.reached.contains(&ino) {
            census.reach(ino);
            lost.push((ino, entry_of(ns, ino)));
        }
    }
    if lost.is_empty() {
        return Vec::new();
    }
    attach(ns, root, now, lost, mended)
}

/// Removal of the entry that a directory has, in a ring of directories that hold each other.
fn entry_of(ns: &Namespace, ino: Ino) -> Option<Change> {
    let parent = ns.dir(ino).ok()?.parent;
    let (cookie, _) = ns.dir(parent).ok()?.after(0).find(|(_, entry)| entry.ino == ino)?;
    Some(Change::DelEntry { parent, cookie })
}

fn attach(
    ns: &Namespace,
    root: Caller,
    now: Time,
    lost: Vec<(Ino, Option<Change>)>,
    mended: &mut Mended,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let (parent, mut cookie) = lost_found(ns, root, now, &mut changes);
    for (ino, removal) in lost {
        changes.extend(removal);
        let name = free_name(ns, parent, &format!("#{}", ino.0));
        let done = format!("it is in the lost+found of the root now, as {name}");
        mended.say(format!("nothing led to inode {}", ino.0), &done);
        changes.push(Change::PutEntry { parent, cookie, ino, name: name.into_bytes().into() });
        cookie += 1;
    }
    changes
}

/// The directory `/lost+found`, made if it is missing, and a free cookie in it.
fn lost_found(ns: &Namespace, root: Caller, now: Time, changes: &mut Vec<Change>) -> (Ino, u64) {
    let top = ns.dir(Ino::ROOT).ok();
    let there = top.and_then(|dir| dir.find(LOST_FOUND)).map(|(_, ino)| ino);
    if let Some((ino, dir)) = there.and_then(|ino| Some((ino, ns.dir(ino).ok()?))) {
        return (ino, dir.fresh_cookie());
    }
    let ino = Ino(ns.next_ino);
    let name = free_name(ns, Ino::ROOT, "lost+found").into_bytes().into();
    let cookie = top.map_or(0, |dir| dir.fresh_cookie());
    changes.push(Change::InoMark(ino.0 + 1));
    changes.push(Change::PutInode(ino, new_dir(root, 0o700, now)));
    changes.push(Change::PutEntry { parent: Ino::ROOT, cookie, ino, name });
    (ino, super::super::dir::Dir::new(ino).fresh_cookie())
}

/// `name`, or with a number added one that the directory does not have.
fn free_name(ns: &Namespace, parent: Ino, name: &str) -> String {
    let taken = |name: &str| ns.dir(parent).is_ok_and(|dir| dir.find(name.as_bytes()).is_some());
    if !taken(name) {
        return name.into();
    }
    (1..u64::MAX).map(|n| format!("{name}.{n}")).find(|name| !taken(name)).unwrap_or_default()
}

/// Sets the numbers that can be counted to what they are.
fn correct(ns: &Namespace, census: &Census, mended: &mut Mended) -> Vec<Change> {
    let mut changes = Vec::new();
    for (ino, inode) in ns.iter() {
        let nlink = census.nlink(ino, inode.meta.kind);
        let pages = inode.extents().map_or(0, |map| map.iter().map(|e| u64::from(e.run.count)).sum());
        let right = Meta { nlink, pages, ..inode.meta };
        if right != inode.meta {
            let was = inode.meta;
            let wrong = format!(
                "inode {} had {} links and {} pages counted, and has {nlink} and {pages}",
                ino.0, was.nlink, was.pages
            );
            mended.say(wrong, "the count was corrected");
            changes.push(Change::PutInode(ino, right));
        }
    }
    changes
}
