//! Cloning a directory with all that is in it, in one step.
//!
//! A [`TreeCopy`] is made beside the namespace, some inodes at a time. Then it is written down, in one batch, and then
//! put into the namespace ([`Made`]), some at a time again. **Nothing leads to what was made before the very last of it,
//! which takes the place of the directory that it is made for.** So nobody sees a part of it.
//!
//! Who carries it out sees to it that the tree and that directory stay as they are from [`TreeCopy::new`] to the
//! end of [`Made::put`], and that nobody else gives out the inode numbers that it was given.

use crate::change::{Change, Meta};
use crate::namespace::dir::{Dir, Entry};
use crate::namespace::inode::{Body, Inode};
use crate::namespace::{Namespace, shares};
use hashbrown::HashMap;
use pool::addr::PageRun;
use pool::proto::meta::{Caller, Ino, Kind, MetaError, Time};

/// A copy of a directory that is being made.
pub(crate) struct TreeCopy {
    caller: Caller,
    now: Time,
    /// The names of the extended attributes that the directory has which the copy is for.
    had: Vec<Box<[u8]>>,
    /// The most inodes there may be beside the first.
    room: u64,
    made: Made,
    /// Where in `made` the copies are of what has several names.
    linked: HashMap<Ino, usize>,
    /// Directories whose entries are still to be copied.
    todo: Vec<Filling>,
}

/// A directory that is being filled.
struct Filling {
    from: Ino,
    /// Where in `made` its copy is.
    copy: usize,
    /// What comes after this cookie is still to be copied.
    after: u64,
}

/// What was made, and is not in the namespace yet.
pub(crate) struct Made {
    /// The directory that is replaced by the first of `inodes`.
    to: Ino,
    /// The number of the second of them; the others follow.
    first: u64,
    // As the namespace has them: putting one in moves and allocates nothing.
    #[allow(clippy::vec_box)]
    inodes: Vec<Box<Inode>>,
    /// Pages that get into one more file.
    shared: Vec<PageRun>,
}

impl TreeCopy {
    /// A copy of `from` for the empty directory `to`, for `caller`, at this time; of at most `room` inodes beside that of
    /// `to`, with numbers from `first` on.
    ///
    /// # Errors
    /// `Stale`, `NotDir`, `NotFound` if one of them was removed, `NotEmpty`, `NotPermitted`, and `Invalid` if `to` is in
    /// `from`.
    pub(crate) fn new(
        ns: &Namespace,
        (from, to): (Ino, Ino),
        (caller, now): (Caller, Time),
        (first, room): (u64, u64),
    ) -> Result<Self, MetaError> {
        let (source, _) = directory(ns, from)?;
        let (target, dir) = directory(ns, to)?;
        if !dir.is_empty() {
            return Err(MetaError::NotEmpty);
        }
        if is_within(ns, to, from) {
            return Err(MetaError::Invalid("a directory cannot be cloned into itself".into()));
        }
        let meta = Meta { btime: target.meta.btime, ctime: now, ..source.meta };
        let body = Body::Dir(Box::new(Dir::new(dir.parent)));
        let top = Box::new(Inode { meta, body, xattrs: source.xattrs.clone() });
        let copy = Self {
            caller,
            now,
            had: target.xattrs.iter().flat_map(|list| list.keys()).cloned().collect(),
            room,
            made: Made { to, first, inodes: vec![top], shared: Vec::new() },
            linked: HashMap::new(),
            todo: vec![Filling { from, copy: 0, after: 0 }],
        };
        copy.check_owner(target)?;
        Ok(copy)
    }

    /// Copies at most `most` entries more; whether that was all.
    ///
    /// # Errors
    /// `NotPermitted`; `NoSpace` if there is no room. The copy is of no use then.
    pub(crate) fn go_on(&mut self, ns: &Namespace, most: usize) -> Result<bool, MetaError> {
        let mut left = most;
        while let Some(Filling { from, copy, after }) = self.todo.pop() {
            for (cookie, entry) in ns.dir(from)?.after(after) {
                if left == 0 {
                    let before = Filling { from, copy, after: cookie - 1 };
                    self.todo.push(before);
                    return Ok(false);
                }
                left -= 1;
                let ino = self.copy(ns, entry.ino, copy)?;
                if let Body::Dir(dir) = &mut self.made.inodes[copy].body {
                    dir.put(cookie, Entry { ino, name: entry.name.clone() });
                }
            }
        }
        Ok(true)
    }

    /// The copy of an inode, which gets a name in the directory `parent` of those that were made. It is made with one link,
    /// and gets another with each further name that its original has in the tree.
    fn copy(&mut self, ns: &Namespace, ino: Ino, parent: usize) -> Result<Ino, MetaError> {
        if let Some(&at) = self.linked.get(&ino) {
            self.made.inodes[at].meta.nlink += 1;
            return Ok(self.made.number(at));
        }
        let inode = ns.inode(ino)?;
        self.check_owner(inode)?;
        let at = self.made.inodes.len();
        if at as u64 > self.room {
            return Err(MetaError::NoSpace("there are as many inodes as there may be".into()));
        }
        let body = match &inode.body {
            Body::Plain => Body::Plain,
            Body::Symlink(target) => Body::Symlink(target.clone()),
            Body::File(map) => {
                self.made.shared.extend(map.iter().map(|extent| extent.run));
                Body::File(map.clone())
            }
            Body::Dir(_) => {
                self.todo.push(Filling { from: ino, copy: at, after: 0 });
                Body::Dir(Box::new(Dir::new(self.made.number(parent))))
            }
        };
        let nlink = if inode.meta.kind == Kind::Dir { inode.meta.nlink } else { 1 };
        if inode.meta.nlink > 1 && inode.meta.kind != Kind::Dir {
            self.linked.insert(ino, at);
        }
        let meta = Meta { nlink, ctime: self.now, btime: self.now, ..inode.meta };
        self.made.inodes.push(Box::new(Inode { meta, body, xattrs: inode.xattrs.clone() }));
        Ok(self.made.number(at))
    }

    fn check_owner(&self, inode: &Inode) -> Result<(), MetaError> {
        if may_copy(self.caller, inode) { Ok(()) } else { Err(MetaError::NotPermitted) }
    }

    /// What the store must be told, all in one batch, and what is then to be put into the namespace.
    pub(crate) fn finish(self) -> (Vec<Change>, Made) {
        let Self { had, mut made, .. } = self;
        let mut changes = Vec::with_capacity(3 * made.inodes.len() + had.len());
        changes.extend(had.into_iter().map(|name| Change::DelXattr(made.to, name)));
        for (at, inode) in made.inodes.iter().enumerate() {
            write_down(&mut changes, made.number(at), inode);
        }
        shares::join_runs(&mut made.shared);
        (changes, made)
    }
}

impl Made {
    fn number(&self, at: usize) -> Ino {
        if at == 0 { self.to } else { Ino(self.first + at as u64 - 1) }
    }

    /// One past the last inode number that was used.
    pub(crate) fn end(&self) -> u64 {
        self.number(self.inodes.len()).0
    }

    /// Puts at most `most` inodes into the namespace, or the pages of so many runs; whether that was all.
    pub(crate) fn put(&mut self, ns: &mut Namespace, most: usize) -> bool {
        if !self.shared.is_empty() {
            let from = self.shared.len().saturating_sub(most);
            self.shared.drain(from..).for_each(|run| ns.share(run));
            return false;
        }
        for _ in 0..most {
            let Some(inode) = self.inodes.pop() else { break };
            match self.inodes.len() {
                0 => ns.replace_dir(self.to, inode),
                at => ns.put_made(self.number(at), inode),
            }
        }
        self.inodes.is_empty()
    }
}

/// Whether `caller` may clone this as a part of a tree.
pub(crate) fn may_copy(caller: Caller, inode: &Inode) -> bool {
    caller.uid == 0 || inode.meta.uid == caller.uid
}

/// A directory that is linked somewhere.
fn directory(ns: &Namespace, ino: Ino) -> Result<(&Inode, &Dir), MetaError> {
    let (inode, dir) = (ns.inode(ino)?, ns.dir(ino)?);
    if inode.meta.nlink == 0 { Err(MetaError::NotFound) } else { Ok((inode, dir)) }
}

/// Whether `ino` is the directory `above` or somewhere in it.
fn is_within(ns: &Namespace, mut ino: Ino, above: Ino) -> bool {
    while ino != above {
        match ns.dir(ino) {
            Ok(dir) if dir.parent != ino => ino = dir.parent,
            _ => return false,
        }
    }
    true
}

/// All records of an inode.
fn write_down(changes: &mut Vec<Change>, ino: Ino, inode: &Inode) {
    changes.push(Change::PutInode(ino, inode.meta));
    match &inode.body {
        Body::Plain => {}
        Body::Symlink(target) => changes.push(Change::PutTarget(ino, target.clone())),
        Body::File(map) => changes.extend(map.iter().map(|extent| Change::PutExtent(ino, extent))),
        Body::Dir(dir) => changes.extend(dir.after(0).map(|(cookie, entry)| {
            let name = entry.name.clone();
            Change::PutEntry { parent: ino, cookie, ino: entry.ino, name }
        })),
    }
    for (name, value) in inode.xattrs.iter().flat_map(|list| list.iter()) {
        changes.push(Change::PutXattr(ino, name.clone(), value.clone()));
    }
}
