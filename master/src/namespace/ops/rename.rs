//! Renaming: moving a name, replacing a target or exchanging two names.
//!
//! Whose place an entry takes: a name that stays keeps its place (so an atomic replacement is never
//! missed by a listing); an entry that only gets a new name in its directory keeps its own (so a loop that
//! renames what it lists ends); an entry that moves to another directory gets a new place there.

use super::Answer;
use crate::change::Change;
use crate::namespace::Namespace;
use crate::namespace::edit::Edit;
use crate::namespace::name::Name;
use pool::proto::meta::{Ino, Kind, MetaError, MetaReply, RenameMode};

/// What to rename.
pub(crate) struct Rename {
    /// Old directory.
    pub parent: Ino,
    /// Old name.
    pub name: Vec<u8>,
    /// New directory.
    pub new_parent: Ino,
    /// New name.
    pub new_name: Vec<u8>,
    /// What to do about a target.
    pub mode: RenameMode,
}

/// An entry.
#[derive(Clone, Copy)]
struct Found {
    parent: Ino,
    cookie: u64,
    ino: Ino,
    is_dir: bool,
}

/// Renames.
pub(crate) fn rename(e: &mut Edit, rename: &Rename) -> Answer {
    e.dir(rename.parent)?;
    e.dir(rename.new_parent)?;
    let name = Name::plain(&rename.name, MetaError::Busy)?;
    let new_name = Name::plain(&rename.new_name, MetaError::Busy)?;
    let from = find(e.ns(), rename.parent, name)?.ok_or(MetaError::NotFound)?;
    let to = find(e.ns(), rename.new_parent, new_name)?;
    match (rename.mode, to) {
        (RenameMode::NoReplace, Some(_)) => return Err(MetaError::Exists),
        (RenameMode::Exchange, None) => return Err(MetaError::NotFound),
        _ => {}
    }
    no_cycle(e.ns(), from, rename.new_parent)?;
    match (rename.mode, to) {
        (_, Some(to)) if to.ino == from.ino => {}
        (RenameMode::Exchange, Some(to)) => exchange(e, (from, name), (to, new_name))?,
        (_, Some(to)) => {
            replace(e, from, to, new_name)?;
            return Ok(MetaReply::Renamed { replaced: Some(e.attr(to.ino)?) });
        }
        (_, None) => relocate(e, from, rename.new_parent, new_name)?,
    }
    Ok(MetaReply::Renamed { replaced: None })
}

fn find(ns: &Namespace, parent: Ino, name: &[u8]) -> Result<Option<Found>, MetaError> {
    let Some((cookie, ino)) = ns.dir(parent)?.find(name) else { return Ok(None) };
    let is_dir = ns.inode(ino)?.meta.kind == Kind::Dir;
    Ok(Some(Found { parent, cookie, ino, is_dir }))
}

/// A directory must not come to lie within itself.
fn no_cycle(ns: &Namespace, moved: Found, into: Ino) -> Result<(), MetaError> {
    if moved.is_dir && is_within(ns, into, moved.ino)? {
        return Err(MetaError::Invalid("a directory cannot be moved into itself".into()));
    }
    Ok(())
}

/// Is `dir` the directory `above`, or anywhere in it?
fn is_within(ns: &Namespace, mut dir: Ino, above: Ino) -> Result<bool, MetaError> {
    while dir != above {
        let parent = ns.dir(dir)?.parent;
        if parent == dir {
            return Ok(false);
        }
        dir = parent;
    }
    Ok(true)
}

fn relocate(e: &mut Edit, from: Found, new_parent: Ino, new_name: &[u8]) -> Result<(), MetaError> {
    let cookie = if new_parent == from.parent {
        from.cookie
    } else {
        if from.is_dir {
            move_parent_link(e, from.parent, new_parent)?;
        }
        e.change(Change::DelEntry { parent: from.parent, cookie: from.cookie });
        e.dir(new_parent)?.fresh_cookie()
    };
    e.change(Change::PutEntry { parent: new_parent, cookie, ino: from.ino, name: new_name.into() });
    touch_all(e, &[from.parent, new_parent], &[from.ino])
}

fn replace(e: &mut Edit, from: Found, to: Found, new_name: &[u8]) -> Result<(), MetaError> {
    if to.is_dir && is_within(e.ns(), from.parent, to.ino)? {
        return Err(MetaError::NotEmpty);
    }
    match (from.is_dir, to.is_dir) {
        (true, false) => return Err(MetaError::NotDir),
        (false, true) => return Err(MetaError::IsDir),
        (true, true) if !e.ns().dir(to.ino)?.is_empty() => return Err(MetaError::NotEmpty),
        _ => {}
    }
    if to.is_dir {
        drop_parent_link(e, from.parent)?;
    }
    e.drop_name(to.ino)?;
    e.change(Change::DelEntry { parent: from.parent, cookie: from.cookie });
    let (parent, cookie) = (to.parent, to.cookie);
    e.change(Change::PutEntry { parent, cookie, ino: from.ino, name: new_name.into() });
    touch_all(e, &[from.parent, to.parent], &[from.ino])
}

fn exchange(
    e: &mut Edit,
    (from, name): (Found, &[u8]),
    (to, new_name): (Found, &[u8]),
) -> Result<(), MetaError> {
    no_cycle(e.ns(), to, from.parent)?;
    if from.parent != to.parent {
        match (from.is_dir, to.is_dir) {
            (true, false) => move_parent_link(e, from.parent, to.parent)?,
            (false, true) => move_parent_link(e, to.parent, from.parent)?,
            _ => {}
        }
    }
    let (parent, cookie) = (from.parent, from.cookie);
    e.change(Change::PutEntry { parent, cookie, ino: to.ino, name: name.into() });
    let (parent, cookie) = (to.parent, to.cookie);
    e.change(Change::PutEntry { parent, cookie, ino: from.ino, name: new_name.into() });
    touch_all(e, &[from.parent, to.parent], &[from.ino, to.ino])
}

/// The `..` of a directory now refers to `new`.
fn move_parent_link(e: &mut Edit, old: Ino, new: Ino) -> Result<(), MetaError> {
    e.add_link(new)?;
    drop_parent_link(e, old)
}

fn drop_parent_link(e: &mut Edit, parent: Ino) -> Result<(), MetaError> {
    let above = e.meta_mut(parent)?;
    above.nlink = above.nlink.saturating_sub(1);
    Ok(())
}

fn touch_all(e: &mut Edit, dirs: &[Ino], moved: &[Ino]) -> Result<(), MetaError> {
    for &dir in dirs {
        e.touch(dir)?;
    }
    for &ino in moved {
        e.changed(ino)?;
    }
    Ok(())
}
