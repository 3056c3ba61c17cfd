//! Cloning a directory with all that is in it, in one step.

use super::Answer;
use crate::change::{Change, Meta};
use crate::namespace::Namespace;
use crate::namespace::edit::Edit;
use crate::namespace::inode::{Body, Inode};
use hashbrown::HashMap;
use pool::proto::meta::{Caller, Ino, Kind, MetaError, MetaReply};

/// Fills the empty directory `to` with a copy of `from`, and makes it like `from`.
pub(crate) fn clone_tree(e: &mut Edit, from: Ino, to: Ino, caller: Caller) -> Answer {
    let ns = e.ns();
    e.dir(from)?;
    if !e.dir(to)?.is_empty() {
        return Err(MetaError::NotEmpty);
    }
    if is_within(ns, to, from) {
        return Err(MetaError::Invalid("a directory cannot be cloned into itself".into()));
    }
    let may = |inode: &Inode| caller.uid == 0 || inode.meta.uid == caller.uid;
    if !may(ns.inode(to)?) {
        return Err(MetaError::NotPermitted);
    }
    let mut copies = Copies { of: HashMap::new(), may: &may };
    copies.of.insert(from, to);
    let source = ns.inode(from)?;
    let now = e.now();
    let target = e.meta_mut(to)?;
    let (nlink, btime) = (source.meta.nlink, target.btime);
    *target = Meta { nlink, btime, ctime: now, ..source.meta };
    ns.inode(to)?.xattrs.iter().flat_map(|list| list.keys()).for_each(|name| {
        e.change(Change::DelXattr(to, name.clone()));
    });
    copies.put_body(e, source, to)?;
    let mut todo = vec![(from, to)];
    while let Some((from, to)) = todo.pop() {
        for (cookie, entry) in ns.dir(from)?.after(0) {
            let (ino, first) = copies.copy(e, entry.ino)?;
            if first && ns.dir(entry.ino).is_ok() {
                todo.push((entry.ino, ino));
            }
            e.change(Change::PutEntry { parent: to, cookie, ino, name: entry.name.clone() });
        }
    }
    Ok(MetaReply::Attr(e.attr(to)?))
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

/// Which inodes were copied, and as which.
struct Copies<'f> {
    of: HashMap<Ino, Ino>,
    may: &'f dyn Fn(&Inode) -> bool,
}

impl Copies<'_> {
    /// The copy of an inode, and whether it was made just now. It begins with one link, and gets another with each
    /// further name that its original has in the tree.
    fn copy(&mut self, e: &mut Edit, ino: Ino) -> Result<(Ino, bool), MetaError> {
        if let Some(&copy) = self.of.get(&ino) {
            e.add_link(copy)?;
            return Ok((copy, false));
        }
        let inode = e.ns().inode(ino)?;
        if !(self.may)(inode) {
            return Err(MetaError::NotPermitted);
        }
        let now = e.now();
        let nlink = if inode.meta.kind == Kind::Dir { inode.meta.nlink } else { 1 };
        let copy = e.make(Meta { nlink, ctime: now, btime: now, ..inode.meta })?;
        if inode.meta.nlink > 1 && inode.meta.kind != Kind::Dir {
            self.of.insert(ino, copy);
        }
        self.put_body(e, inode, copy)?;
        Ok((copy, true))
    }

    /// Gives the copy what the inode has beside its attributes, but for entries.
    fn put_body(&self, e: &mut Edit, inode: &Inode, copy: Ino) -> Result<(), MetaError> {
        match &inode.body {
            Body::Plain | Body::Dir(_) => {}
            Body::Symlink(target) => e.change(Change::PutTarget(copy, target.clone())),
            Body::File(map) => map.iter().for_each(|extent| e.share(copy, extent)),
        }
        for (name, value) in inode.xattrs.iter().flat_map(|list| list.iter()) {
            e.change(Change::PutXattr(copy, name.clone(), value.clone()));
        }
        Ok(())
    }
}
