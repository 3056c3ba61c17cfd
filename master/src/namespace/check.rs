//! Is a namespace what it should be, and if not, how it becomes so again.
//!
//! A store whose batches are atomic never holds anything else; this is for stores that were damaged and
//! for mistakes in the operations. What is found is said, whatever can be kept is kept: inodes that
//! nothing leads to are put into `/lost+found`.

mod load;
mod mend;

pub(crate) use load::{Loaded, Loader};
pub(crate) use mend::{Mended, mend};

use super::Namespace;
use super::shares::Shares;
use hashbrown::{HashMap, HashSet};
use pool::proto::meta::{Ino, Kind};
use std::fmt;

/// Something wrong, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    /// What was wrong.
    pub wrong: String,
    /// What was done.
    pub done: String,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.wrong, self.done)
    }
}

/// What the entries of a namespace say about its inodes.
#[derive(Debug, Default)]
struct Census {
    /// How many entries name an inode.
    names: HashMap<Ino, u32>,
    /// The directories in a directory.
    subdirs: HashMap<Ino, Vec<Ino>>,
    /// Directories that the root leads to.
    reached: HashSet<Ino>,
}

impl Census {
    fn of(ns: &Namespace) -> Self {
        let mut census = Self { names: HashMap::with_capacity(ns.len()), ..Self::default() };
        for (parent, inode) in ns.iter() {
            for (_, entry) in inode.dir().into_iter().flat_map(|dir| dir.after(0)) {
                *census.names.entry(entry.ino).or_default() += 1;
                if ns.dir(entry.ino).is_ok() {
                    census.subdirs.entry(parent).or_default().push(entry.ino);
                }
            }
        }
        census.reach(Ino::ROOT);
        census
    }

    /// Adds the directory `from` and all directories in it to those that are reached.
    fn reach(&mut self, from: Ino) {
        let mut todo = vec![from];
        while let Some(ino) = todo.pop() {
            if self.reached.insert(ino) {
                todo.extend(self.subdirs.get(&ino).into_iter().flatten());
            }
        }
    }

    fn names(&self, ino: Ino) -> u32 {
        self.names.get(&ino).copied().unwrap_or(0)
    }

    /// The `nlink` that an inode should have.
    fn nlink(&self, ino: Ino, kind: Kind) -> u32 {
        match kind {
            Kind::Dir if ino == Ino::ROOT || self.names(ino) > 0 => {
                2 + self.subdirs.get(&ino).map_or(0, |dirs| dirs.len() as u32)
            }
            _ => self.names(ino),
        }
    }
}

/// What is wrong with a namespace, a sentence each; nothing if every invariant holds. Inodes without a
/// link are in order: they are open.
pub(crate) fn problems(ns: &Namespace) -> Vec<String> {
    let census = Census::of(ns);
    let mut found = Vec::new();
    for (ino, inode) in ns.iter() {
        let (meta, wanted) = (&inode.meta, census.nlink(ino, inode.meta.kind));
        if meta.nlink != wanted {
            found.push(format!("inode {} has {} links and should have {wanted}", ino.0, meta.nlink));
        }
        if meta.kind == Kind::Dir && meta.nlink > 0 && !census.reached.contains(&ino) {
            found.push(format!("nothing leads to directory {}", ino.0));
        }
        let pages: u64 = inode.extents().map_or(0, |map| map.iter().map(|e| u64::from(e.run.count)).sum());
        if meta.pages != pages {
            found.push(format!("file {} counts {} pages and has {pages}", ino.0, meta.pages));
        }
        for (_, entry) in inode.dir().into_iter().flat_map(|dir| dir.after(0)) {
            match ns.get(entry.ino) {
                None => found.push(format!("an entry of directory {} names no inode", ino.0)),
                Some(child) if child.dir().is_some_and(|dir| dir.parent != ino) => {
                    found.push(format!("directory {} does not know that it is in {}", entry.ino.0, ino.0));
                }
                Some(_) => {}
            }
        }
    }
    if ns.shares != Shares::of(ns.runs()) {
        found.push("the count of places that pages are in is wrong".into());
    }
    found
}

/// A path from the root to each of these inodes, as far as there is one.
pub(crate) fn paths(ns: &Namespace, inos: impl Iterator<Item = Ino>) -> HashMap<Ino, String> {
    let wanted: HashSet<Ino> = inos.collect();
    let mut above: HashMap<Ino, (Ino, &[u8])> = HashMap::new();
    for (parent, inode) in ns.iter().filter(|_| !wanted.is_empty()) {
        for (_, entry) in inode.dir().into_iter().flat_map(|dir| dir.after(0)) {
            if wanted.contains(&entry.ino) || ns.dir(entry.ino).is_ok() {
                above.insert(entry.ino, (parent, &entry.name));
            }
        }
    }
    wanted.iter().filter_map(|&ino| Some((ino, path(&above, ino)?))).collect()
}

fn path(above: &HashMap<Ino, (Ino, &[u8])>, mut ino: Ino) -> Option<String> {
    let mut names = Vec::new();
    while ino != Ino::ROOT {
        let (parent, name) = above.get(&ino).filter(|_| names.len() <= above.len())?;
        names.push(String::from_utf8_lossy(name));
        ino = *parent;
    }
    Some(names.iter().rev().map(|name| format!("/{name}")).collect())
}
