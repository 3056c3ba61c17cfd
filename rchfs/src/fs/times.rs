//! The times that are this side's to keep: modification times of writes that pass the kernel's cache,
//! and access times (relatime, as mount(8) has it). Those of a namespace that others use too are told a moment later,
//! a few at a time, so that no read waits for them.

use super::Fs;
use super::error::{FsError, Result};
use super::file::File;
use pool::proto::meta::{Attr, Caller, Ino, MetaRequest, SetAttr, SetTime, Time};
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds after which an access time is renewed whatever happened.
const RELATIME_SECS: i64 = 24 * 3600;

/// Access times that are told at a time.
const ATIMES: usize = 1024;

/// Who renews access times.
const SYSTEM: Caller = Caller { uid: 0, gid: 0 };

fn now_secs() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

/// Whether relatime renews the access time of an inode with these attributes.
fn is_stale(attr: &Attr, now: i64) -> bool {
    let Time { sec, .. } = attr.atime;
    attr.atime <= attr.mtime || attr.atime <= attr.ctime || now.saturating_sub(sec) >= RELATIME_SECS
}

impl Fs {
    /// Tells the master that `file` was written, if it does not know.
    pub(super) fn flush_times(&self, file: &File) -> Result<()> {
        if self.shared.is_some() {
            return self.tell(file);
        }
        if !file.touched.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let request = MetaRequest::Commit {
            ino: file.ino,
            extents: vec![],
            size: 0,
            touch: true,
            kill_suid: false,
            set: None,
        };
        let attr = self.meta_attr(request)?;
        if let Some(kernel) = self.kernel.get() {
            self.inodes.correct_mtime(file.ino, Some(attr.mtime));
            kernel.set_mtime(file.ino, attr.mtime);
        }
        Ok(())
    }

    /// Answers the correction of a modification time that [`Kernel::set_mtime`](super::Kernel) makes the
    /// kernel ask for. Refused if a program has set the time in the meantime.
    pub fn mtime_corrected(&self, ino: Ino, time: Time) -> Result<Attr> {
        if self.inodes.may_correct_mtime(ino, time) {
            self.meta_attr(MetaRequest::GetAttr { ino })
        } else {
            Err(FsError::Overtaken)
        }
    }

    /// `file` was read.
    pub(super) fn was_read(&self, file: &File) -> Result<()> {
        if self.config.noatime {
            return Ok(());
        }
        let now = now_secs();
        if now < file.atime_good_until.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.shared.is_none() {
            self.flush_times(file)?;
        }
        self.renew_atime(file.ino, now)?;
        file.atime_good_until.store(now + RELATIME_SECS, Ordering::Relaxed);
        Ok(())
    }

    /// The directory `ino` was read.
    pub(super) fn dir_was_read(&self, ino: Ino) -> Result<()> {
        if self.config.noatime { Ok(()) } else { self.renew_atime(ino, now_secs()) }
    }

    /// Tells the master of access times that it has not been told of. What others have changed since they were noted
    /// keeps its own.
    pub(super) fn tell_atimes(&self) {
        let Some(shared) = &self.shared else { return };
        let as_known = |(ino, atime): (Ino, Time)| {
            let attr = shared.known.attr(ino).filter(|attr| is_stale(attr, atime.sec))?;
            Some((ino, atime, attr.ctime))
        };
        let times: Vec<_> = shared.take_atimes(ATIMES).into_iter().filter_map(as_known).collect();
        if times.is_empty() {
            return;
        }
        match self.meta(MetaRequest::Accessed { times: times.clone() }) {
            Ok(_) => {
                times.into_iter().for_each(|(ino, atime, ctime)| shared.known.accessed(ino, atime, ctime))
            }
            Err(why) => log::debug!("access times stay: {why}"),
        }
    }

    fn renew_atime(&self, ino: Ino, now: i64) -> Result<()> {
        if let Some(shared) = &self.shared {
            let nsec = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
            shared.note_atime(ino, Time { sec: now, nsec });
            return Ok(());
        }
        let attr = self.getattr_known(ino)?;
        if is_stale(&attr, now) {
            let set = SetAttr { atime: Some(SetTime::Now), ctime: Some(attr.ctime), ..SetAttr::default() };
            self.meta_attr(MetaRequest::SetAttr { ino, caller: SYSTEM, set })?;
        }
        Ok(())
    }
}
