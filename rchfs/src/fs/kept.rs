//! Attributes that are set of a file while a program is at work on it, as cp(1) and tar(1) set them: kept back with
//! what is written, and told in the same message.
//!
//! **What is kept back:** modes, owners and given times of a regular file without extended attributes that is held
//! exclusively, between the open(2) or write(2) and the close(2) of a descriptor that can write. The close tells them
//! before it returns; so does all that makes what was written known ([`held`](super::held)), an fsync(2) of anything, and
//! whatever the master must see them for (extended attributes, set-id bits that go). Everything else is told at once.
//!
//! **Order:** what was written comes first, then what was set. So a time that is set stands for all writes
//! before it, and a later write takes a modification time that was set back out.
//!
//! The kernel has checked permissions, but for those to set an access control list. What the master would refuse is
//! never kept back: it could not be told.

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Handle, Held, State};
use pool::proto::meta::{Attr, Caller, Ino, Kind, MetaError, SetAttr, SetTime, Time};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// The extended attribute that is the access control list.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_IXGRP: u16 = 0o0010;

/// Attributes that were set and of which the master does not know.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    set: SetAttr,
    /// When the last of them was set.
    ctime: Time,
}

impl Kept {
    /// As to be told. `written`: the file was written since its modification time was set.
    pub fn to_tell(self, written: bool) -> SetAttr {
        SetAttr { mtime: self.set.mtime.filter(|_| !written), ..self.set }
    }

    /// `set` comes after what is kept already.
    fn add(&mut self, set: SetAttr, now: Time) {
        let kept = &mut self.set;
        if set.uid.is_some() || set.gid.is_some() {
            kept.uid = set.uid.or(kept.uid);
            kept.gid = set.gid.or(kept.gid);
            // The master sets owners first.
            kept.perm = kept.perm.map(without_set_id);
        }
        kept.perm = set.perm.or(kept.perm);
        kept.atime = set.atime.or(kept.atime);
        kept.mtime = set.mtime.or(kept.mtime);
        self.ctime = now;
    }

    /// The attributes with all that is kept.
    fn over(self, attr: Attr) -> Attr {
        let SetAttr { perm, uid, gid, atime, mtime, .. } = self.set;
        let owned = if uid.is_some() || gid.is_some() { without_set_id(attr.perm) } else { attr.perm };
        let time = |set: Option<SetTime>, known: Time| match set {
            Some(SetTime::At(time)) => time,
            Some(SetTime::Now) | None => known,
        };
        Attr {
            perm: perm.unwrap_or(owned),
            uid: uid.unwrap_or(attr.uid),
            gid: gid.unwrap_or(attr.gid),
            atime: time(atime, attr.atime),
            mtime: time(mtime, attr.mtime),
            ctime: self.ctime,
            ..attr
        }
    }
}

/// A mode without the bits that a change of owner clears.
fn without_set_id(perm: u16) -> u16 {
    let group = if perm & S_IXGRP != 0 { S_ISGID } else { 0 };
    perm & !(S_ISUID | group)
}

/// Whether the master would set this, whenever it is told.
fn can_be_kept(set: &SetAttr) -> bool {
    let SetAttr { perm, uid, gid, size, atime, mtime, ctime } = *set;
    let is_given = |time: SetTime| matches!(time, SetTime::At(Time { nsec, .. }) if nsec < 1_000_000_000);
    size.is_none()
        && ctime.is_none()
        && perm.is_none_or(|perm| perm <= 0o7777)
        && ![uid, gid].contains(&Some(u32::MAX))
        && [atime, mtime].into_iter().flatten().all(is_given)
}

/// The permission bits that an access control list stands for, if it says no more than a mode can. Only in the
/// form in which libacl and the kernel write it.
fn as_mode(acl: &[u8]) -> Option<u16> {
    let entries = acl.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, rest) = entries.as_chunks::<8>();
    let [owner, group, other] = entries else { return None };
    let bits = |entry: &[u8; 8], wanted: u16| {
        let (tag, perm) =
            (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
        (tag == wanted && perm <= 7).then_some(perm)
    };
    let mode = bits(owner, 0x01)? << 6 | bits(group, 0x04)? << 3 | bits(other, 0x20)?;
    rest.is_empty().then_some(mode)
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: since.as_secs() as i64, nsec: since.subsec_nanos() }
}

impl Fs {
    /// Attributes as programs of this mount have made them: with the size, and what else is kept back.
    pub(super) fn as_kept(&self, attr: Attr) -> Attr {
        let Some(file) = self.shared.as_ref().and_then(|_| self.inodes.live(attr.ino)) else { return attr };
        let state = file.state.read();
        state.over(attr)
    }

    /// Keeps `set` back, and says what the attributes are then; `None` if the master is to be asked.
    pub(super) fn set_later(&self, file: &Arc<File>, set: SetAttr) -> Result<Option<Attr>> {
        if !can_be_kept(&set) {
            return Ok(None);
        }
        self.keep_back(file, |_| Ok(set))
    }

    /// The same of an access control list of `ino` that says no more than a mode can.
    ///
    /// # Errors
    /// `NotPermitted` to those who may not.
    pub(super) fn set_acl_later(&self, ino: Ino, caller: Caller, name: &[u8], value: &[u8]) -> Result<bool> {
        if name != ACL_ACCESS {
            return Ok(false);
        }
        let (Some(file), Some(mode)) = (self.inodes.live(ino), as_mode(value)) else { return Ok(false) };
        let kept = self.keep_back(&file, |attr| {
            if caller.uid != 0 && caller.uid != attr.uid {
                return Err(FsError::Meta(MetaError::NotPermitted));
            }
            let foreign = caller.uid != 0 && caller.gid != attr.gid;
            let kept = attr.perm & !0o777 & if foreign { !S_ISGID } else { !0 };
            Ok(SetAttr { perm: Some(kept | mode), ..SetAttr::default() })
        });
        kept.map(|attr| attr.is_some())
    }

    /// Keeps back what `set` makes of the attributes as they are.
    fn keep_back(
        &self,
        file: &Arc<File>,
        set: impl FnOnce(&Attr) -> Result<SetAttr>,
    ) -> Result<Option<Attr>> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let mut state = file.state.write();
        // In this order: a close counts down, then looks whether there is something to tell.
        if file.at_work.load(Ordering::SeqCst) == 0 || !self.may_use(&state, Held::Exclusive) {
            return Ok(None);
        }
        // A revocation that has begun has taken this away, and tells what is kept back once the state is unlocked.
        let Some((attr, true)) = shared.known.attr_and_bare(file.ino) else { return Ok(None) };
        if attr.kind != Kind::File {
            return Ok(None);
        }
        let attr = state.over(attr);
        let (set, now) = (set(&attr)?, now());
        if set.mtime.is_some() {
            file.touched.store(false, Ordering::Release);
        }
        state.kept.get_or_insert(Kept { set: SetAttr::default(), ctime: now }).add(set, now);
        state.dirty = true;
        self.keeps_back(file);
        Ok(Some(state.over(attr)))
    }

    /// Tells what was set of the file, if anything was that the master does not know of. It is held exclusively then.
    pub(super) fn tell_set(&self, file: &File, state: &mut State) -> Result<()> {
        if state.kept.is_some() { self.tell_locked(file, state) } else { Ok(()) }
    }

    /// The same of all files.
    pub(super) fn tell_all_set(&self) -> Result<()> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let files: Vec<_> = shared.dirty.lock().clone();
        files.iter().filter(|file| file.state.read().kept.is_some()).try_for_each(|file| self.tell(file))
    }

    /// The handle is being used to write.
    pub(super) fn begins_work(&self, handle: &Handle) {
        if handle.access.write
            && handle.idle.load(Ordering::Relaxed)
            && handle.idle.swap(false, Ordering::SeqCst)
        {
            handle.file.at_work.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A descriptor of the handle is closed.
    pub(super) fn ends_work(&self, handle: &Handle) {
        if handle.access.write && !handle.idle.swap(true, Ordering::SeqCst) {
            handle.file.at_work.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl State {
    /// The attributes with what is kept back.
    fn over(&self, attr: Attr) -> Attr {
        let attr = self.kept.map_or(attr, |kept| kept.over(attr));
        if self.dirty { Attr { size: self.size, ..attr } } else { attr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { set: SetAttr::default(), ctime: Time::default() }
    }

    const fn perm(perm: u16) -> SetAttr {
        SetAttr { perm: Some(perm), uid: None, gid: None, size: None, atime: None, mtime: None, ctime: None }
    }

    #[test]
    fn a_change_of_owner_takes_set_id_bits_that_were_set_before_and_leaves_those_set_after() {
        let owner = SetAttr { uid: Some(5), ..SetAttr::default() };
        let mut first = kept();
        first.add(perm(0o6755), Time::default());
        first.add(owner, Time::default());
        assert_eq!(first.to_tell(false), SetAttr { uid: Some(5), ..perm(0o755) });
        let mut last = kept();
        last.add(owner, Time::default());
        last.add(perm(0o6755), Time::default());
        assert_eq!(last.to_tell(false), SetAttr { uid: Some(5), ..perm(0o6755) });
        assert_eq!(without_set_id(0o6744), 0o2744, "without group execution it is no such bit");
    }

    #[test]
    fn a_write_after_a_time_was_set_takes_it_back() {
        let time = Some(SetTime::At(Time { sec: 7, nsec: 0 }));
        let mut set = kept();
        set.add(SetAttr { atime: time, mtime: time, ..SetAttr::default() }, Time::default());
        set.add(perm(0o600), Time::default());
        assert_eq!(set.to_tell(false), SetAttr { atime: time, mtime: time, ..perm(0o600) });
        assert_eq!(set.to_tell(true), SetAttr { atime: time, mtime: None, ..perm(0o600) });
    }

    #[test]
    fn what_the_master_would_refuse_or_take_for_another_time_is_not_kept_back() {
        let at = |nsec| SetAttr { atime: Some(SetTime::At(Time { sec: 0, nsec })), ..SetAttr::default() };
        assert!(can_be_kept(&perm(0o7777)) && can_be_kept(&at(999_999_999)));
        assert!(!can_be_kept(&at(1_000_000_000)) && !can_be_kept(&perm(0o10000)));
        assert!(!can_be_kept(&SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() }));
        assert!(!can_be_kept(&SetAttr { uid: Some(u32::MAX), ..SetAttr::default() }));
        assert!(!can_be_kept(&SetAttr { size: Some(0), ..SetAttr::default() }));
    }

    #[test]
    fn a_list_that_is_a_mode_is_taken_for_one_and_no_other() {
        let entry = |tag: u16, perm: u16| {
            let id = u32::MAX.to_le_bytes();
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id].concat()
        };
        let list = |entries: &[Vec<u8>]| [&2_u32.to_le_bytes()[..], &entries.concat()].concat();
        let three = [entry(1, 6), entry(4, 4), entry(0x20, 0)];
        assert_eq!(as_mode(&list(&three)), Some(0o640));
        assert_eq!(as_mode(&list(&[entry(1, 6), entry(2, 7), entry(4, 4), entry(0x20, 0)])), None);
        assert_eq!(as_mode(&list(&[entry(1, 8), entry(4, 4), entry(0x20, 0)])), None);
        assert_eq!(as_mode(&[&list(&three)[..], b"x"].concat()), None);
        assert_eq!(as_mode(&list(&three[..2])), None);
        assert_eq!(as_mode(&1_u32.to_le_bytes()), None);
    }
}
