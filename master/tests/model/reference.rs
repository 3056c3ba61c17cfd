//! A file system as one would write it if nothing mattered but being right: names in maps, links
//! counted when asked for, one entry a page.

use pool::proto::meta::*;
use std::collections::{BTreeMap, BTreeSet};

pub type Pages = BTreeMap<u64, u64>;

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: Kind,
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    pub size: u64,
    pub times: [Time; 4],
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub target: Vec<u8>,
    pub entries: BTreeMap<Vec<u8>, Ino>,
    pub pages: Pages,
    /// Of a directory that is still linked.
    pub linked: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<Ino, Node>,
    pub page: u64,
}

type Res<T> = Result<T, MetaError>;

fn invalid() -> MetaError {
    MetaError::Invalid(String::new())
}

fn check_name(name: &[u8]) -> Res<()> {
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(invalid());
    }
    if name.len() > 255 {
        return Err(MetaError::NameTooLong);
    }
    Ok(())
}

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Permission fields of an access control list: where the owner's, the group class's and the others' are.
fn acl_classes(value: &[u8]) -> [usize; 3] {
    let tag = |i: usize| value[4 + 8 * i];
    let find = |wanted: u8| (0..(value.len() - 4) / 8).find(|&i| tag(i) == wanted);
    let group = find(0x10).or(find(0x04)).unwrap();
    [find(0x01).unwrap(), group, find(0x20).unwrap()].map(|i| 4 + 8 * i + 2)
}

impl Model {
    pub fn new(page: u64, now: Time) -> Self {
        let mut model = Self { nodes: BTreeMap::new(), page };
        let root = Node {
            kind: Kind::Dir,
            perm: 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            times: [now; 4],
            xattrs: BTreeMap::new(),
            target: Vec::new(),
            entries: BTreeMap::new(),
            pages: Pages::new(),
            linked: true,
        };
        model.nodes.insert(Ino::ROOT, root);
        model
    }

    fn node(&self, ino: Ino) -> Res<&Node> {
        self.nodes.get(&ino).ok_or(MetaError::Stale(ino))
    }

    fn dir(&self, ino: Ino) -> Res<&Node> {
        let node = self.node(ino)?;
        if node.kind == Kind::Dir { Ok(node) } else { Err(MetaError::NotDir) }
    }

    fn live_dir(&self, ino: Ino) -> Res<&Node> {
        let dir = self.dir(ino)?;
        if dir.linked { Ok(dir) } else { Err(MetaError::NotFound) }
    }

    fn at(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).unwrap()
    }

    pub fn nlink(&self, ino: Ino) -> u32 {
        let node = &self.nodes[&ino];
        if node.kind == Kind::Dir {
            if !node.linked {
                return 0;
            }
            let subdirs = node.entries.values().filter(|child| self.nodes[child].kind == Kind::Dir).count();
            return 2 + subdirs as u32;
        }
        let dirs = self.nodes.values();
        dirs.flat_map(|dir| dir.entries.values()).filter(|child| **child == ino).count() as u32
    }

    fn parent(&self, ino: Ino) -> Option<Ino> {
        self.nodes
            .iter()
            .find(|(_, dir)| dir.entries.values().any(|child| *child == ino))
            .map(|(ino, _)| *ino)
    }

    pub fn attr(&self, ino: Ino) -> Res<Attr> {
        let node = self.node(ino)?;
        let [atime, mtime, ctime, btime] = node.times;
        Ok(Attr {
            ino,
            kind: node.kind,
            perm: node.perm,
            nlink: self.nlink(ino),
            uid: node.uid,
            gid: node.gid,
            rdev: node.rdev,
            size: match node.kind {
                Kind::Dir => 64 + 32 * node.entries.len() as u64,
                Kind::Symlink => node.target.len() as u64,
                _ => node.size,
            },
            blocks: self.pages_counted(ino, node) * (self.page / 512),
            atime,
            mtime,
            ctime,
            btime,
        })
    }

    /// Pages of a file; only its own once it has no link.
    fn pages_counted(&self, ino: Ino, node: &Node) -> u64 {
        let shared = if self.nlink(ino) == 0 { self.shared() } else { BTreeSet::new() };
        node.pages.values().filter(|page| !shared.contains(page)).count() as u64
    }

    fn modified(&mut self, ino: Ino, now: Time) {
        let times = &mut self.at(ino).times;
        (times[1], times[2]) = (now, now);
    }

    fn changed(&mut self, ino: Ino, now: Time) {
        self.at(ino).times[2] = now;
    }

    /// Whether making this is allowed; the inode number comes from the master.
    pub fn can_make(&self, parent: Ino, name: &[u8], node: &NewNode) -> Res<()> {
        let dir = self.live_dir(parent)?;
        check_name(name)?;
        if name == b"." || name == b".." || dir.entries.contains_key(name) {
            return Err(MetaError::Exists);
        }
        match node {
            NewNode::Symlink(target) if target.is_empty() => Err(invalid()),
            NewNode::Symlink(target) if target.len() > 4095 => Err(MetaError::NameTooLong),
            _ => Ok(()),
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub fn make(
        &mut self,
        ino: Ino,
        parent: Ino,
        name: &[u8],
        caller: Caller,
        new: &NewNode,
        perm: u16,
        umask: u16,
        now: Time,
    ) {
        let above = self.nodes[&parent].clone();
        let (kind, rdev, target) = match new {
            NewNode::File => (Kind::File, 0, Vec::new()),
            NewNode::Dir => (Kind::Dir, 0, Vec::new()),
            NewNode::Symlink(target) => (Kind::Symlink, 0, target.clone()),
            NewNode::Fifo => (Kind::Fifo, 0, Vec::new()),
            NewNode::Socket => (Kind::Socket, 0, Vec::new()),
            NewNode::Char(rdev) => (Kind::Char, *rdev, Vec::new()),
            NewNode::Block(rdev) => (Kind::Block, *rdev, Vec::new()),
        };
        let mut perm = perm;
        let mut xattrs = BTreeMap::new();
        match above.xattrs.get(DEFAULT) {
            _ if kind == Kind::Symlink => perm = 0o777,
            None => perm &= !umask,
            Some(default) => {
                let mut access = default.clone();
                for (at, shift) in acl_classes(default).into_iter().zip([6, 3, 0]) {
                    access[at] &= (perm >> shift & 7) as u8;
                    perm = perm & !(7 << shift) | u16::from(access[at]) << shift;
                }
                if access.len() > 4 + 3 * 8 {
                    xattrs.insert(ACCESS.to_vec(), access);
                }
                if kind == Kind::Dir {
                    xattrs.insert(DEFAULT.to_vec(), default.clone());
                }
            }
        }
        let mut gid = caller.gid;
        if above.perm & 0o2000 != 0 {
            gid = above.gid;
            if kind == Kind::Dir {
                perm |= 0o2000;
            }
        }
        let node = Node {
            kind,
            perm,
            uid: caller.uid,
            gid,
            rdev,
            size: 0,
            times: [now; 4],
            xattrs,
            target,
            entries: BTreeMap::new(),
            pages: Pages::new(),
            linked: true,
        };
        self.nodes.insert(ino, node);
        self.at(parent).entries.insert(name.to_vec(), ino);
        self.modified(parent, now);
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, name: &[u8], now: Time) -> Res<()> {
        let dir = self.live_dir(parent)?;
        check_name(name)?;
        if name == b"." || name == b".." || dir.entries.contains_key(name) {
            return Err(MetaError::Exists);
        }
        if self.node(ino)?.kind == Kind::Dir {
            return Err(MetaError::NotPermitted);
        }
        if self.nlink(ino) == 0 {
            return Err(MetaError::NotFound);
        }
        self.at(parent).entries.insert(name.to_vec(), ino);
        self.modified(parent, now);
        self.changed(ino, now);
        Ok(())
    }

    pub fn unlink(&mut self, parent: Ino, name: &[u8], now: Time) -> Res<Ino> {
        let dir = self.dir(parent)?;
        check_name(name)?;
        if name == b"." || name == b".." {
            return Err(MetaError::IsDir);
        }
        let ino = *dir.entries.get(name).ok_or(MetaError::NotFound)?;
        if self.nodes[&ino].kind == Kind::Dir {
            return Err(MetaError::IsDir);
        }
        self.at(parent).entries.remove(name);
        self.modified(parent, now);
        self.changed(ino, now);
        Ok(ino)
    }

    pub fn rmdir(&mut self, parent: Ino, name: &[u8], now: Time) -> Res<Ino> {
        let dir = self.dir(parent)?;
        check_name(name)?;
        match name {
            b"." => return Err(invalid()),
            b".." => return Err(MetaError::NotEmpty),
            _ => {}
        }
        let ino = *dir.entries.get(name).ok_or(MetaError::NotFound)?;
        if !self.dir(ino)?.entries.is_empty() {
            return Err(MetaError::NotEmpty);
        }
        self.at(parent).entries.remove(name);
        self.at(ino).linked = false;
        self.modified(parent, now);
        self.changed(ino, now);
        Ok(ino)
    }

    fn contains(&self, above: Ino, ino: Ino) -> bool {
        let mut at = Some(ino);
        while let Some(ino) = at {
            if ino == above {
                return true;
            }
            at = self.parent(ino);
        }
        false
    }

    /// The inode that was replaced.
    pub fn rename(
        &mut self,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        mode: RenameMode,
        now: Time,
    ) -> Res<Option<Ino>> {
        self.live_dir(parent)?;
        self.live_dir(new_parent)?;
        for name in [name, new_name] {
            check_name(name)?;
            if name == b"." || name == b".." {
                return Err(MetaError::Busy);
            }
        }
        let from = *self.nodes[&parent].entries.get(name).ok_or(MetaError::NotFound)?;
        let to = self.nodes[&new_parent].entries.get(new_name).copied();
        if mode == RenameMode::NoReplace && to.is_some() {
            return Err(MetaError::Exists);
        }
        if mode == RenameMode::Exchange && to.is_none() {
            return Err(MetaError::NotFound);
        }
        if self.contains(from, new_parent) {
            return Err(invalid());
        }
        if to == Some(from) {
            return Ok(None);
        }
        let mut replaced = None;
        if let Some(to) = to {
            let (is_dir, onto_dir) = (self.nodes[&from].kind == Kind::Dir, self.nodes[&to].kind == Kind::Dir);
            if mode == RenameMode::Exchange {
                if self.contains(to, parent) {
                    return Err(invalid());
                }
            } else {
                if self.contains(to, parent) {
                    return Err(MetaError::NotEmpty);
                }
                match (is_dir, onto_dir) {
                    (true, false) => return Err(MetaError::NotDir),
                    (false, true) => return Err(MetaError::IsDir),
                    (true, true) if !self.nodes[&to].entries.is_empty() => return Err(MetaError::NotEmpty),
                    _ => {}
                }
                if onto_dir {
                    self.at(to).linked = false;
                }
                replaced = Some(to);
            }
            self.changed(to, now);
        }
        self.at(parent).entries.remove(name);
        if mode == RenameMode::Exchange {
            self.at(parent).entries.insert(name.to_vec(), to.unwrap());
        }
        self.at(new_parent).entries.insert(new_name.to_vec(), from);
        self.modified(parent, now);
        self.modified(new_parent, now);
        self.changed(from, now);
        Ok(replaced)
    }

    fn file(&self, ino: Ino) -> Res<&Node> {
        let node = self.node(ino)?;
        match node.kind {
            Kind::File => Ok(node),
            Kind::Dir => Err(MetaError::IsDir),
            _ => Err(invalid()),
        }
    }

    fn strip(&mut self, ino: Ino) {
        let node = self.at(ino);
        node.perm &= !0o4000;
        if node.perm & 0o10 != 0 {
            node.perm &= !0o2000;
        }
    }

    pub fn setattr(&mut self, ino: Ino, caller: Caller, set: &SetAttr, now: Time) -> Res<()> {
        if set.size.is_some() {
            self.file(ino)?;
            if set.size > Some(i64::MAX as u64) {
                return Err(MetaError::TooBig);
            }
        }
        if self.node(ino)?.kind == Kind::Symlink && set.perm.is_some() {
            return Err(MetaError::NotSupported);
        }
        let page = self.page;
        if let Some(size) = set.size {
            let node = self.at(ino);
            node.size = size;
            node.pages.retain(|at, _| at * page < size);
            node.xattrs.remove(&b"security.capability"[..]);
            self.modified(ino, now);
            if caller.uid != 0 {
                self.strip(ino);
            }
        }
        if set.uid.is_some() || set.gid.is_some() {
            let node = self.at(ino);
            node.uid = set.uid.unwrap_or(node.uid);
            node.gid = set.gid.unwrap_or(node.gid);
            node.xattrs.remove(&b"security.capability"[..]);
            if node.kind != Kind::Dir {
                self.strip(ino);
            }
        }
        let node = self.at(ino);
        if let Some(perm) = set.perm {
            node.perm = perm & 0o7777;
            if let Some(acl) = node.xattrs.get_mut(ACCESS) {
                for (at, shift) in acl_classes(acl).into_iter().zip([6, 3, 0]) {
                    acl[at] = (perm >> shift & 7) as u8;
                }
            }
        }
        for (i, asked) in [(0, set.atime), (1, set.mtime)] {
            match asked {
                None => {}
                Some(SetTime::Now) => node.times[i] = now,
                Some(SetTime::At(time)) => node.times[i] = time,
            }
        }
        node.times[2] = set.ctime.unwrap_or(now);
        Ok(())
    }

    pub fn commit(
        &mut self,
        ino: Ino,
        extents: &[Extent],
        size: u64,
        touch: bool,
        kill_suid: bool,
        now: Time,
    ) -> Res<()> {
        self.file(ino)?;
        let new = extents.iter().flat_map(|e| (e.at..).zip(e.run.iter().map(|p| p.raw())));
        let node = self.at(ino);
        node.pages.extend(new);
        node.size = node.size.max(size);
        let perm = node.perm;
        if kill_suid {
            self.strip(ino);
            if self.nodes[&ino].perm != perm {
                self.changed(ino, now);
            }
        }
        if touch {
            self.at(ino).xattrs.remove(&b"security.capability"[..]);
            self.modified(ino, now);
        }
        Ok(())
    }

    pub fn punch(&mut self, ino: Ino, from: u64, to: u64, now: Time) -> Res<()> {
        self.file(ino)?;
        if from > to {
            return Err(invalid());
        }
        self.at(ino).pages.retain(|at, _| *at < from || *at >= to);
        self.modified(ino, now);
        Ok(())
    }

    pub fn clone_pages(
        &mut self,
        from: (Ino, u64),
        to: (Ino, u64),
        pages: u64,
        size: u64,
        now: Time,
    ) -> Res<()> {
        if from.0 == to.0 && from.1 < to.1 + pages && to.1 < from.1 + pages {
            return Err(invalid());
        }
        self.file(from.0)?;
        self.file(to.0)?;
        let source = self.at(from.0).pages.clone();
        let target = self.at(to.0);
        for i in 0..pages {
            match source.get(&(from.1 + i)) {
                Some(&page) => target.pages.insert(to.1 + i, page),
                None => target.pages.remove(&(to.1 + i)),
            };
        }
        target.size = target.size.max(size);
        target.xattrs.remove(&b"security.capability"[..]);
        self.modified(to.0, now);
        Ok(())
    }

    /// Pages that are in more than one place.
    pub fn shared(&self) -> BTreeSet<u64> {
        let mut seen = BTreeSet::new();
        let all = self.nodes.values().flat_map(|node| node.pages.values().copied());
        all.filter(|page| !seen.insert(*page)).collect()
    }

    pub fn setxattr(
        &mut self,
        ino: Ino,
        caller: Caller,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
        now: Time,
    ) -> Res<()> {
        let node = self.node(ino)?.clone();
        let exists = node.xattrs.contains_key(name);
        if name == ACCESS || name == DEFAULT {
            if node.kind == Kind::Symlink {
                return Err(MetaError::NotSupported);
            }
            if name == DEFAULT && node.kind != Kind::Dir || caller.uid != 0 && caller.uid != node.uid {
                return Err(MetaError::NotPermitted);
            }
            if name == ACCESS {
                let classes = acl_classes(value).map(|at| u16::from(value[at]));
                let at = self.at(ino);
                at.perm = at.perm & !0o777 | classes[0] << 6 | classes[1] << 3 | classes[2];
                if caller.uid != 0 && caller.gid != at.gid {
                    at.perm &= !0o2000;
                }
            }
            if name == ACCESS && value.len() == 28 {
                self.at(ino).xattrs.remove(name);
            } else {
                self.at(ino).xattrs.insert(name.to_vec(), value.to_vec());
            }
        } else {
            if name.starts_with(b"user.") && node.kind != Kind::File && node.kind != Kind::Dir {
                return Err(MetaError::NotPermitted);
            }
            if mode == XattrMode::Create && exists {
                return Err(MetaError::Exists);
            }
            if mode == XattrMode::Replace && !exists {
                return Err(MetaError::NoAttribute);
            }
            self.at(ino).xattrs.insert(name.to_vec(), value.to_vec());
        }
        self.changed(ino, now);
        Ok(())
    }

    pub fn removexattr(&mut self, ino: Ino, name: &[u8], now: Time) -> Res<()> {
        let node = self.node(ino)?;
        if node.xattrs.contains_key(name) {
            self.at(ino).xattrs.remove(name);
            self.changed(ino, now);
            return Ok(());
        }
        match name {
            ACCESS | DEFAULT => Ok(()),
            _ if name.starts_with(b"user.") && node.kind != Kind::File && node.kind != Kind::Dir => {
                Err(MetaError::NotPermitted)
            }
            _ => Err(MetaError::NoAttribute),
        }
    }

    pub fn forget(&mut self, ino: Ino) {
        if self.nodes.contains_key(&ino) && self.nlink(ino) == 0 {
            self.nodes.remove(&ino);
        }
    }

    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Res<Ino> {
        let dir = self.dir(parent)?;
        check_name(name)?;
        dir.entries.get(name).copied().ok_or(MetaError::NotFound)
    }

    /// After a restart nothing is open any more.
    pub fn restart(&mut self) {
        let unlinked: Vec<Ino> = self.nodes.keys().copied().filter(|ino| self.nlink(*ino) == 0).collect();
        unlinked.into_iter().for_each(|ino| self.forget(ino));
    }
}
