//! How long the kernel believes files to be, where it collects what is written (`cache=writeback`) and other mounts use
//! the files too.
//!
//! With `FUSE_WRITEBACK_CACHE` the kernel goes by its own idea of the length and the times of a regular file for as long
//! as it has the inode, and takes no answer about them. When another mount is about to change a file, or might do so
//! unheard because the kernel was told of it without a lease, that idea is *in doubt*: from then on
//! - every request that comes before the kernel goes by a length (OPEN, GETATTR) is answered only once it has the right one
//!   ([`Fs::settle`]): that can be [set from its side](super::Kernel::correct). Attributes are given with no time to live,
//!   so there is such a request before every write(2), stat(2), and read(2) at the end. Before a write(2) this mount has the
//!   file exclusively, as nothing more is heard of what is written until it is written back;
//! - a read into the cache that finds the end of the file is answered only once the kernel does not believe it to be longer,
//!   as it would make zeros of what is missing ([`Fs::settle_end`]);
//! - what is written back up to the length that is believed does not make the file longer, as it may be the rest of a page
//!   beyond the end. What goes further does: a program has written there.
//!
//! **Stragglers.** The kernel asks first, and then writes into its cache, so a write(2) that is under way while the lease is
//! given up may come into the cache after that, without a lease. It is fetched from there a moment later, and before a
//! lock is given up, be it one on another file (closing and fsync(2) do so anyway).
//!
//! **Who waits for whom.** A correction takes the kernel's lock of the inode, whose holder may be waiting for an answer of
//! ours; so it is waited for on threads of their own, and for a while only. Nothing of this waits for the master while
//! a revocation is given up.

use super::Fs;
use super::error::{FsError, Result};
use super::file::{File, Held, State};
use super::shared::Shared;
use pool::proto::meta::{Attr, Caller, Ino, Kind, MetaRequest, SetAttr, SetTime, Time};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a correction is tried that a writer or another mount overtakes.
const TRIES: u32 = 100;

/// How long a write(2) may be under way between asking and writing into the cache.
const STRAGGLE: Duration = Duration::from_secs(10);

/// A change time that is older than this when it arrives is not that of a program that sets a time.
const OLD: i64 = 1;

/// On whose behalf times are set that the kernel has kept.
const SYSTEM: Caller = Caller { uid: 0, gid: 0 };

/// What came of a correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The kernel has length and time.
    Done,
    /// Somebody has written to the file meanwhile.
    Overtaken,
    /// Somebody keeps the inode locked, or it cannot be done.
    NotNow,
}

impl Fs {
    /// Whether the kernel keeps lengths and times of files that other mounts use too.
    pub fn has_writeback(&self) -> bool {
        self.config.writeback && self.shared.is_some()
    }

    /// Whether the kernel keeps those of this inode.
    pub(super) fn keeps_sizes(&self, attr: &Attr) -> bool {
        self.has_writeback() && attr.kind == Kind::File
    }

    /// Whether the kernel may have another idea of this file than is right.
    pub fn is_in_doubt(&self, ino: Ino) -> bool {
        self.has_writeback() && self.inodes.doubts(ino).is_some()
    }

    /// How long the kernel may believe these attributes of a file, apart from those that it keeps itself.
    pub(super) fn size_holds(&self, shared: &Shared, attr: &Attr, left: Duration) -> Duration {
        let but_for_the_size = |known: Attr| Attr { size: attr.size, ..known } == *attr;
        if !shared.known.attr(attr.ino).is_some_and(but_for_the_size) {
            // Of what becomes of it nobody tells.
            self.inodes.doubt(attr.ino);
            return Duration::ZERO;
        }
        self.inodes.tell(attr);
        // Whoever raises a doubt from here on finds what was told.
        if self.is_in_doubt(attr.ino) {
            return Duration::ZERO;
        }
        let without_lease = |file: Arc<File>| {
            file.cached_writers.load(Ordering::SeqCst) > 0 && file.state.read().held < Held::Exclusive
        };
        if self.inodes.live(attr.ino).is_some_and(without_lease) { Duration::ZERO } else { left }
    }

    /// The kernel may be about to write into its cache when it asks for attributes with this handle: then the file is to
    /// be held exclusively. Comes before it is [settled](Self::settle): what is in doubt later is known to be so.
    pub fn before_writing(&self, handle: u64) -> Result<()> {
        if self.has_writeback()
            && let Ok(handle) = self.handles.get(handle)
            && handle.access.write
            && !handle.access.direct
        {
            drop(self.loaded(&handle.file, Held::Exclusive)?);
        }
        Ok(())
    }

    /// The attributes of a file as it now is, which is held exclusively if it is open for writing.
    fn settled_attr(&self, ino: Ino) -> Result<Attr> {
        if let Some(file) = self.inodes.live(ino)
            && file.writers.load(Ordering::SeqCst) > 0
        {
            drop(self.loaded(&file, Held::Exclusive)?);
        }
        self.getattr(ino, None)
    }

    /// Has the kernel take over what is right of a file that is in doubt. Must not be called on a thread that answers
    /// requests.
    pub fn settle(&self, ino: Ino) {
        let Some(kernel) = self.kernel.get().filter(|_| self.has_writeback()) else { return };
        for _ in 0..TRIES {
            let Some(doubt) = self.inodes.doubts(ino) else { return };
            if self.getattr_known(ino).is_ok_and(|attr| attr.kind != Kind::File) {
                self.inodes.settled(ino, doubt);
                return;
            }
            // Before it writes back: what is longer then was written since.
            let Some(believed) = kernel.believed_size(ino) else { return };
            kernel.drop_pages(ino);
            let attr = match self.settled_attr(ino) {
                Ok(attr) => attr,
                Err(why) => return log::debug!("inode {}: stays in doubt: {why}", ino.0),
            };
            match kernel.correct(&attr, believed) {
                Settled::Done if self.inodes.settled(ino, doubt) => {
                    return self.believes_nothing_wrong(ino);
                }
                Settled::Done | Settled::Overtaken => {}
                Settled::NotNow => {
                    log::debug!("inode {}: the kernel does not take its length now", ino.0);
                    // Better too long a file than one without what is about to be written.
                    return self.believes_nothing_wrong(ino);
                }
            }
        }
    }

    /// Has the kernel take over where a file that is in doubt ends, if it ends before what it believes. For a read that was
    /// answered under the lease and keeps a page: this waits neither for the master nor for that page. Must not be called on a
    /// thread that answers requests.
    pub fn settle_end(&self, ino: Ino) {
        let (Some(kernel), Some(shared), Some(file)) =
            (self.kernel.get(), &self.shared, self.inodes.live(ino))
        else {
            return;
        };
        let Some(believed) = kernel.believed_size(ino) else { return };
        if file.writers.load(Ordering::SeqCst) > 0 && believed > file.believed.load(Ordering::SeqCst) {
            // Somebody has made it longer here since, and that is still to be written back.
            return;
        }
        let size = {
            let state = file.state.read();
            if state.held == Held::Nothing { return } else { state.size }
        };
        if let Some(attr) = shared.known.attr(ino).or_else(|| self.inodes.told(ino))
            && size < believed
        {
            kernel.shorten(&Attr { size, ..attr }, believed);
        }
    }

    fn believes_nothing_wrong(&self, ino: Ino) {
        if let Some(file) = self.inodes.live(ino) {
            file.believed.store(0, Ordering::SeqCst);
        }
    }

    /// Whether data from the kernel's cache that ends at `end`, beyond the file, makes the file longer. A mapping
    /// has no way to do that, and is all that there is without writeback.
    pub(super) fn makes_longer(&self, file: &File, end: u64) -> bool {
        self.has_writeback() && end > file.believed.load(Ordering::SeqCst)
    }

    /// The kernel asks before it goes by the length of this file, if it is open, again.
    pub(super) fn have_size_asked_for(&self, file: &File) {
        let Some(kernel) = self.kernel.get().filter(|_| self.has_writeback()) else { return };
        if let Some(told) = self.inodes.told(file.ino).filter(|_| self.inodes.is_open(file.ino)) {
            // What was answered before this is not believed after it.
            kernel.attributes_changed(file.ino);
            kernel.ask_for_size(&told);
        }
    }

    /// The lease goes: the kernel believes the file to be as it is now.
    pub(super) fn size_in_doubt(&self, file: &File, state: &State) {
        if self.has_writeback() && state.held != Held::Nothing && file.writers.load(Ordering::SeqCst) > 0 {
            file.believed.fetch_max(state.size, Ordering::SeqCst);
        }
    }

    /// Whether the kernel may hold something that was written without a lease.
    pub(super) fn may_have_stragglers(&self, file: &File) -> bool {
        self.has_writeback() && file.writers.load(Ordering::SeqCst) > 0
    }

    /// The lease on a file is gone: what still comes into the kernel's cache is to be fetched.
    pub(super) fn expect_stragglers(&self, file: &Arc<File>) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.may_have_stragglers(file)) {
            shared.handed_over.lock().insert(file.ino, Instant::now());
            file.straggling.store(true, Ordering::SeqCst);
            self.keeps_back(file);
        }
    }

    /// Fetches it.
    pub(super) fn fetch_stragglers(&self, file: &File) {
        if file.straggling.swap(false, Ordering::SeqCst)
            && let Some(kernel) = self.kernel.get()
        {
            kernel.write_back_soon(file.ino);
        }
    }

    /// The files from which it must be fetched before a lock is given up.
    pub fn stragglers(&self) -> Vec<Ino> {
        let Some(shared) = self.shared.as_ref().filter(|_| self.has_writeback()) else { return Vec::new() };
        let mut handed_over = shared.handed_over.lock();
        handed_over.retain(|_, when| when.elapsed() < STRAGGLE);
        handed_over.keys().copied().collect()
    }

    /// Has the kernel write back what it holds of these. Must not be called on a thread that answers requests.
    pub fn fetch(&self, files: &[Ino]) {
        if let Some(kernel) = self.kernel.get() {
            files.iter().for_each(|ino| kernel.drop_pages(*ino));
        }
    }

    /// Sets times, and nothing else, that the kernel says are those of the file. It does so on its own account (`by_itself`),
    /// or seems to, when it writes back: then they count as long as nobody else has changed the file.
    pub fn set_kept_times(
        &self,
        ino: Ino,
        mtime: Time,
        ctime: Time,
        by_itself: bool,
    ) -> Result<Option<Attr>> {
        let Some(shared) = self.shared.as_ref().filter(|_| self.has_writeback()) else { return Ok(None) };
        if !by_itself {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
            if now.saturating_sub(ctime.sec) <= OLD || !self.is_in_doubt(ino) {
                return Ok(None);
            }
            return Ok(Some(self.getattr_known(ino)?).filter(|attr| mtime <= attr.mtime));
        }
        let Some(file) = self.inodes.live(ino) else { return Ok(Some(kept(ino, mtime, ctime))) };
        let mut state = file.state.write();
        if !self.is_in_doubt(ino) && self.may_use(&state, Held::Exclusive) {
            self.tell_locked(&file, &mut state)?;
            let (mtime, ctime) = (Some(SetTime::At(mtime)), Some(ctime));
            let set = SetAttr { mtime, ctime, ..SetAttr::default() };
            match shared.meta_held(&MetaRequest::SetAttr { ino, caller: SYSTEM, set }) {
                Ok(_) | Err(FsError::Lost) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(Some(kept(ino, mtime, ctime)))
    }
}

/// An answer to the kernel's telling times, of which it looks at nothing.
fn kept(ino: Ino, mtime: Time, ctime: Time) -> Attr {
    Attr {
        ino,
        kind: Kind::File,
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: mtime,
        mtime,
        ctime,
        btime: mtime,
    }
}
