//! Random operations, and how they are asked of the master and of the reference.

use super::reference::Model;
use crate::fixture::*;
use pool::addr::PageRun;
use pool::proto::meta::*;
use proptest::prelude::*;

/// An operation on the inodes and names that there are by then: numbers pick among them.
#[derive(Clone, Debug)]
pub enum Op {
    Make {
        parent: usize,
        name: u8,
        node: u8,
        user: bool,
        perm: u16,
        umask: u16,
    },
    Link {
        ino: usize,
        parent: usize,
        name: u8,
    },
    Unlink {
        parent: usize,
        name: u8,
    },
    Rmdir {
        parent: usize,
        name: u8,
    },
    Rename {
        from: (usize, u8),
        to: (usize, u8),
        mode: u8,
    },
    Chmod {
        ino: usize,
        perm: u16,
    },
    Chown {
        ino: usize,
        uid: Option<u32>,
        gid: Option<u32>,
        user: bool,
    },
    Truncate {
        ino: usize,
        size: u64,
        user: bool,
    },
    Times {
        ino: usize,
        atime: Option<SetTime>,
        mtime: Option<SetTime>,
        ctime: Option<Time>,
    },
    Commit {
        ino: usize,
        runs: Vec<(u8, u8)>,
        size: u64,
        touch: bool,
        kill: bool,
        /// Mode, owner and modification time to set with it.
        set: Option<(Option<u16>, Option<u32>, Option<SetTime>)>,
    },
    /// Commits some pages of a file again, where they are.
    Again {
        ino: usize,
        step: usize,
    },
    Punch {
        ino: usize,
        from: u64,
        to: u64,
    },
    /// Gives a file pages of another.
    Clone {
        from: (usize, u64),
        to: (usize, u64),
        pages: u64,
        size: u64,
    },
    SetXattr {
        ino: usize,
        name: u8,
        value: u8,
        mode: u8,
        user: bool,
    },
    RemoveXattr {
        ino: usize,
        name: u8,
    },
    Forget {
        ino: usize,
    },
    Lookup {
        parent: usize,
        name: u8,
    },
    Restart,
}

pub fn ops(max: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..max)
}

fn op() -> impl Strategy<Value = Op> {
    let i = || 0usize..24;
    let n = || 0u8..20;
    let time = prop_oneof![
        Just(SetTime::Now),
        (-5i64..5, 0u32..1_000_000_000).prop_map(|(sec, nsec)| SetTime::At(Time { sec, nsec })),
    ];
    let set = (prop::option::of(0u16..0o10000), prop::option::of(0u32..3), prop::option::of(time.clone()));
    let set = prop::option::of(set);
    let runs = || prop::collection::vec((0u8..8, 1u8..6), 0..4);
    let times = (i(), prop::option::of(time.clone()), prop::option::of(time), any::<bool>());
    prop_oneof![
        10 => (i(), n(), 0u8..9, any::<bool>(), 0u16..0o10000, 0u16..0o1000).prop_map(
            |(parent, name, node, user, perm, umask)| Op::Make { parent, name, node, user, perm, umask }
        ),
        3 => (i(), i(), n()).prop_map(|(ino, parent, name)| Op::Link { ino, parent, name }),
        4 => (i(), n()).prop_map(|(parent, name)| Op::Unlink { parent, name }),
        3 => (i(), n()).prop_map(|(parent, name)| Op::Rmdir { parent, name }),
        8 => ((i(), n()), (i(), n()), 0u8..5).prop_map(|(from, to, mode)| Op::Rename { from, to, mode }),
        2 => (i(), 0u16..0o10000).prop_map(|(ino, perm)| Op::Chmod { ino, perm }),
        2 => (i(), prop::option::of(0u32..3), prop::option::of(0u32..3), any::<bool>())
            .prop_map(|(ino, uid, gid, user)| Op::Chown { ino, uid, gid, user }),
        3 => (i(), 0u64..40 * PAGE, any::<bool>()).prop_map(|(ino, size, user)| Op::Truncate { ino, size, user }),
        2 => times.prop_map(|(ino, atime, mtime, set)| Op::Times {
            ino,
            atime,
            mtime,
            ctime: set.then_some(Time { sec: 9, nsec: 9 }),
        }),
        8 => (i(), runs(), 0u64..50 * PAGE, any::<bool>(), any::<bool>(), set)
            .prop_map(|(ino, runs, size, touch, kill, set)| Op::Commit { ino, runs, size, touch, kill, set }),
        2 => (i(), 1usize..4).prop_map(|(ino, step)| Op::Again { ino, step }),
        3 => (i(), 0u64..30, 0u64..40).prop_map(|(ino, from, to)| Op::Punch { ino, from, to }),
        6 => ((i(), 0u64..20), (i(), 0u64..20), 0u64..20, 0u64..50 * PAGE)
            .prop_map(|(from, to, pages, size)| Op::Clone { from, to, pages, size }),
        4 => (i(), 0u8..7, 0u8..6, 0u8..3, any::<bool>())
            .prop_map(|(ino, name, value, mode, user)| Op::SetXattr { ino, name, value, mode, user }),
        2 => (i(), 0u8..7).prop_map(|(ino, name)| Op::RemoveXattr { ino, name }),
        3 => i().prop_map(|ino| Op::Forget { ino }),
        2 => (i(), n()).prop_map(|(parent, name)| Op::Lookup { parent, name }),
        1 => Just(Op::Restart),
    ]
}

fn name(pick: u8) -> Vec<u8> {
    match pick {
        0 => b".".into(),
        1 => b"..".into(),
        2 => vec![b'x'; 256],
        3 => b"a/b".into(),
        n => vec![b'a' + n % 6],
    }
}

fn acl(entries: &[(u8, u8, u32)]) -> Vec<u8> {
    let entries =
        entries.iter().flat_map(|&(tag, perm, id)| [&[tag, 0, perm, 0][..], &id.to_le_bytes()].concat());
    [2, 0, 0, 0].into_iter().chain(entries).collect()
}

fn xattr(name: u8, value: u8) -> (Vec<u8>, Vec<u8>) {
    let none = u32::MAX;
    let lists = [
        acl(&[(1, 7, none), (2, value, 5), (4, 5, none), (0x10, 6, none), (0x20, 4, none)]),
        acl(&[(1, 6, none), (4, value, none), (0x20, 1, none)]),
    ];
    let list = lists[usize::from(value) % 2].clone();
    match name {
        0 | 1 => (b"system.posix_acl_access".into(), list),
        2 | 3 => (b"system.posix_acl_default".into(), list),
        4 => (b"security.capability".into(), vec![value]),
        5 => (b"trusted.t".into(), vec![value; 3]),
        _ => (b"user.u".into(), vec![value; value.into()]),
    }
}

fn caller(user: bool) -> Caller {
    if user { Caller { uid: 1, gid: 2 } } else { ROOT }
}

/// All inodes that were ever made, to pick from.
pub struct Inos(pub Vec<Ino>);

impl Inos {
    fn pick(&self, i: usize) -> Ino {
        self.0[i % self.0.len()]
    }

    /// Mostly a directory.
    fn pick_dir(&self, model: &Model, i: usize) -> Ino {
        let is_dir = |ino: &&Ino| model.nodes.get(ino).is_some_and(|n| n.kind == Kind::Dir);
        let dirs: Vec<&Ino> = self.0.iter().filter(is_dir).collect();
        if i % 12 == 11 { self.pick(i) } else { *dirs[i % dirs.len()] }
    }
}

/// The request for an operation; `None` for a restart.
pub fn request(op: &Op, inos: &Inos, model: &Model, daemon: &FakeDaemon) -> Option<MetaRequest> {
    let dir = |i: usize| inos.pick_dir(model, i);
    let setattr = |ino: usize, user: bool, set: SetAttr| {
        Some(MetaRequest::SetAttr { ino: inos.pick(ino), caller: caller(user), set })
    };
    let none = SetAttr::default();
    match *op {
        Op::Make { parent, name: n, node, user, perm, umask } => {
            let node = match node {
                0..3 => NewNode::File,
                3..6 => NewNode::Dir,
                6 => NewNode::Symlink(vec![b't'; usize::from(perm) * 3]),
                7 => NewNode::Fifo,
                _ => NewNode::Char(perm.into()),
            };
            Some(MetaRequest::Make {
                parent: dir(parent),
                name: name(n),
                caller: caller(user),
                node,
                perm,
                umask,
            })
        }
        Op::Link { ino, parent, name: n } => {
            Some(MetaRequest::Link { ino: inos.pick(ino), parent: dir(parent), name: name(n) })
        }
        Op::Unlink { parent, name: n } => Some(MetaRequest::Unlink { parent: dir(parent), name: name(n) }),
        Op::Rmdir { parent, name: n } => Some(MetaRequest::Rmdir { parent: dir(parent), name: name(n) }),
        Op::Rename { from, to, mode } => Some(MetaRequest::Rename {
            parent: dir(from.0),
            name: name(from.1),
            new_parent: dir(to.0),
            new_name: name(to.1),
            mode: match mode {
                0 => RenameMode::NoReplace,
                1 => RenameMode::Exchange,
                _ => RenameMode::Replace,
            },
        }),
        Op::Chmod { ino, perm } => setattr(ino, false, SetAttr { perm: Some(perm), ..none }),
        Op::Chown { ino, uid, gid, user } => setattr(ino, user, SetAttr { uid, gid, ..none }),
        Op::Truncate { ino, size, user } => setattr(ino, user, SetAttr { size: Some(size), ..none }),
        Op::Times { ino, atime, mtime, ctime } => {
            setattr(ino, false, SetAttr { atime, mtime, ctime, ..none })
        }
        Op::Commit { ino, ref runs, size, touch, kill, set } => {
            let mut at = 0;
            let mut extents = Vec::new();
            for &(gap, count) in runs {
                at += u64::from(gap);
                extents.push(Extent { at, run: daemon.alloc(count.into()) });
                at += u64::from(count);
            }
            let set = set.map(|(perm, uid, mtime)| SetAttr { perm, uid, mtime, ..none });
            Some(MetaRequest::Commit { ino: inos.pick(ino), extents, size, touch, kill_suid: kill, set })
        }
        Op::Again { ino, step } => {
            let ino = inos.pick(ino);
            // A page that the file has in two places can be in neither of them "again".
            let all = || model.nodes.get(&ino).into_iter().flat_map(|node| &node.pages);
            let once = |page: u64| all().filter(|(_, p)| **p == page).count() == 1;
            let pages = all().filter(|(_, page)| once(**page));
            let extents = pages.step_by(step).map(|(&at, &page)| Extent { at, run: run(page, 1) }).collect();
            Some(MetaRequest::Commit { ino, extents, size: 0, touch: false, kill_suid: false, set: None })
        }
        Op::Punch { ino, from, to } => Some(MetaRequest::Punch { ino: inos.pick(ino), from, to }),
        Op::Clone { from, to, pages, size } => Some(MetaRequest::Clone {
            from: (inos.pick(from.0), from.1),
            to: (inos.pick(to.0), to.1),
            pages,
            size,
            expect: None,
        }),
        Op::SetXattr { ino, name, value, mode, user } => {
            let (name, value) = xattr(name, value);
            let mode = [XattrMode::Any, XattrMode::Create, XattrMode::Replace][usize::from(mode)];
            Some(MetaRequest::SetXattr { ino: inos.pick(ino), caller: caller(user), name, value, mode })
        }
        Op::RemoveXattr { ino, name } => {
            Some(MetaRequest::RemoveXattr { ino: inos.pick(ino), name: xattr(name, 0).0 })
        }
        Op::Forget { ino } => Some(MetaRequest::Forget { inos: vec![inos.pick(ino)] }),
        Op::Lookup { parent, name: n } => Some(MetaRequest::Lookup { parent: dir(parent), name: name(n) }),
        Op::Restart => None,
    }
}

/// What the reference says to a request. The inode number of something new is taken from `got`.
pub fn expected(
    model: &mut Model,
    request: &MetaRequest,
    got: &Result<MetaReply>,
    now: Time,
) -> Result<MetaReply> {
    let ino = match request {
        MetaRequest::Make { parent, name, caller, node, perm, umask } => {
            model.can_make(*parent, name, node)?;
            let Ok(MetaReply::Attr(made)) = got else { panic!("{request:?} was refused: {got:?}") };
            assert!(!model.nodes.contains_key(&made.ino), "an inode number was given out again");
            model.make(made.ino, *parent, name, *caller, node, *perm, *umask, now);
            made.ino
        }
        MetaRequest::Link { ino, parent, name } => {
            model.link(*ino, *parent, name, now)?;
            *ino
        }
        MetaRequest::Unlink { parent, name } => model.unlink(*parent, name, now)?,
        MetaRequest::Rmdir { parent, name } => model.rmdir(*parent, name, now)?,
        MetaRequest::Rename { parent, name, new_parent, new_name, mode } => {
            let replaced = model.rename((*parent, name), (*new_parent, new_name), *mode, now)?;
            let replaced = replaced.map(|ino| model.attr(ino)).transpose()?;
            return Ok(MetaReply::Renamed { replaced });
        }
        MetaRequest::SetAttr { ino, caller, set } => {
            model.setattr(*ino, *caller, set, now)?;
            *ino
        }
        MetaRequest::Commit { ino, extents, size, touch, kill_suid, set } => {
            model.commit(*ino, extents, *size, *touch, *kill_suid, now)?;
            if let Some(set) = set {
                model.setattr(*ino, caller(false), set, now)?;
            }
            *ino
        }
        MetaRequest::Punch { ino, from, to } => {
            model.punch(*ino, *from, *to, now)?;
            *ino
        }
        MetaRequest::Clone { from, to, pages, size, expect: _ } => {
            model.clone_pages(*from, *to, *pages, *size, now)?;
            to.0
        }
        MetaRequest::SetXattr { ino, caller, name, value, mode } => {
            model.setxattr(*ino, *caller, name, value, *mode, now)?;
            *ino
        }
        MetaRequest::RemoveXattr { ino, name } => {
            model.removexattr(*ino, name, now)?;
            *ino
        }
        MetaRequest::Forget { inos } => {
            inos.iter().for_each(|ino| model.forget(*ino));
            return Ok(MetaReply::Done);
        }
        MetaRequest::Lookup { parent, name } => match &name[..] {
            b"." | b".." => return got.clone(),
            name => model.lookup(*parent, name)?,
        },
        other => panic!("{other:?}"),
    };
    Ok(MetaReply::Attr(model.attr(ino)?))
}

/// Pages that a request brings and no file has.
pub fn brought(model: &Model, request: &MetaRequest) -> Vec<PageRun> {
    let MetaRequest::Commit { extents, .. } = request else { return Vec::new() };
    let owned = |run: &PageRun| model.nodes.values().any(|n| n.pages.values().any(|p| *p == run.first.raw()));
    extents.iter().map(|e| e.run).filter(|run| !owned(run)).collect()
}
