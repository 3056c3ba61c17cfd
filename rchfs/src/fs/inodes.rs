//! The inodes that the kernel knows of: how often it was told, what is open, what was unlinked.
//!
//! The kernel may name an inode as long as it has not forgotten every lookup of it, so an unlinked
//! inode lives until then. A shard's lock is a leaf, but for that of
//! the list of what is unused.

use super::file::File;
use parking_lot::Mutex;
use pool::proto::meta::{Attr, Ino, Time};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const SHARDS: u64 = 64;

/// The table of known inodes.
pub struct Inodes {
    shards: Vec<Mutex<HashMap<Ino, Known>>>,
    /// Unlinked files that nobody has open: they go as soon as the kernel forgets them.
    doomed: Doomed,
    /// Unused inodes stay, and are listed, until the leases on them are given back.
    keep: bool,
    unused: Mutex<Vec<Ino>>,
}

#[derive(Default)]
struct Doomed {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Doomed {
    /// One more, if it was unlinked.
    fn add(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.files.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// One less, if it was unlinked.
    fn remove(&self, bytes: Option<u64>) {
        if let Some(bytes) = bytes {
            self.files.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct Known {
    lookups: u64,
    opens: u32,
    /// Bytes that go with it, once it has no name left.
    orphan: Option<u64>,
    file: Option<Arc<File>>,
    /// Its attributes were revoked, perhaps while an answer with them was on its way.
    doubtful: bool,
    /// How often they were.
    doubts: u64,
    /// Attributes that the kernel was told to believe last, of a file whose length it keeps itself.
    told: Option<Box<Attr>>,
    /// The modification time that the kernel is about to be told.
    correction: Option<Time>,
}

impl Known {
    fn unused(&self) -> bool {
        self.lookups == 0 && self.opens == 0
    }
}

impl Default for Inodes {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            doomed: Doomed::default(),
            keep: false,
            unused: Mutex::default(),
        }
    }
}

impl Inodes {
    /// For a namespace that others use too: what is not used any more is listed
    /// ([`take_unused`](Self::take_unused)).
    pub fn shared() -> Self {
        Self { keep: true, ..Self::default() }
    }

    /// Inodes that may not be used any more.
    pub fn take_unused(&self) -> Vec<Ino> {
        let mut unused = std::mem::take(&mut *self.unused.lock());
        unused.sort_unstable();
        unused.dedup();
        unused
    }

    /// Lists `ino` again.
    pub fn unused_again(&self, ino: Ino) {
        self.unused.lock().push(ino);
    }

    /// Removes `ino` if it is not used; true if it is not there then.
    pub fn remove_unused(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino).lock();
        match shard.get(&ino) {
            None => true,
            // Whoever works on the file without a handle has it too.
            Some(known)
                if known.unused() && known.file.as_ref().is_none_or(|f| Arc::strong_count(f) == 1) =>
            {
                let orphan = shard.remove(&ino).and_then(|known| known.orphan);
                self.doomed.remove(orphan);
                true
            }
            Some(known) => {
                if known.unused() {
                    self.unused.lock().push(ino);
                }
                false
            }
        }
    }

    /// Whether a program has it open.
    pub fn is_open(&self, ino: Ino) -> bool {
        self.shard(ino).lock().get(&ino).is_some_and(|known| known.opens > 0)
    }

    /// The inodes that programs have open.
    pub fn all_open(&self) -> Vec<Ino> {
        let of = |shard: &Mutex<HashMap<Ino, Known>>| -> Vec<_> {
            shard.lock().iter().filter(|(_, known)| known.opens > 0).map(|(ino, _)| *ino).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, Known>> {
        &self.shards[(ino.0 % SHARDS) as usize]
    }

    /// The kernel was told of `ino` once more.
    pub fn looked_up(&self, ino: Ino) {
        self.shard(ino).lock().entry(ino).or_default().lookups += 1;
    }

    /// The kernel takes back `count` lookups. Returns true if the inode was unlinked and this was the
    /// last reference: it can be freed.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(known) = shard.get_mut(&ino) else { return false };
        known.lookups = known.lookups.saturating_sub(count);
        self.drop_unused(&mut shard, ino)
    }

    /// Attributes of `ino` that are on their way to the kernel, if there are any, are out of date.
    pub fn doubt(&self, ino: Ino) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
            known.doubtful = true;
            known.doubts += 1;
        }
    }

    /// As [`doubt`](Self::doubt), of all.
    pub fn doubt_all(&self) {
        self.all().into_iter().for_each(|ino| self.doubt(ino));
    }

    /// Whether what the kernel has of `ino` is in doubt, and the how manieth doubt that is.
    pub fn doubts(&self, ino: Ino) -> Option<u64> {
        self.shard(ino).lock().get(&ino).filter(|known| known.doubtful).map(|known| known.doubts)
    }

    /// The kernel has it right since this doubt arose. False if there was another since.
    pub fn settled(&self, ino: Ino, doubt: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(known) = shard.get_mut(&ino) else { return true };
        known.doubtful &= known.doubts != doubt;
        !known.doubtful
    }

    /// The kernel is told to believe `attr` for a while.
    pub fn tell(&self, attr: &Attr) {
        if let Some(known) = self.shard(attr.ino).lock().get_mut(&attr.ino) {
            match &mut known.told {
                Some(told) => **told = *attr,
                None => known.told = Some(Box::new(*attr)),
            }
        }
    }

    /// What it was told so last.
    pub fn told(&self, ino: Ino) -> Option<Attr> {
        self.shard(ino).lock().get(&ino)?.told.as_deref().copied()
    }

    /// Whether that is so; not any more after this.
    pub fn settle_doubt(&self, ino: Ino) -> bool {
        self.shard(ino).lock().get_mut(&ino).is_some_and(|known| std::mem::take(&mut known.doubtful))
    }

    /// All inodes that the kernel may know.
    pub fn all(&self) -> Vec<Ino> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<_>>()).collect()
    }

    /// Opens the file once more: the state that all who have it open share.
    pub fn open(&self, ino: Ino) -> Arc<File> {
        let mut shard = self.shard(ino).lock();
        let known = shard.entry(ino).or_default();
        if known.opens == 0 {
            self.doomed.remove(known.orphan);
        }
        known.opens += 1;
        known.file.get_or_insert_with(|| Arc::new(File::new(ino))).clone()
    }

    /// Closes the file once. Returns true if the inode can be freed, as [`forget`](Self::forget).
    pub fn close(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(known) = shard.get_mut(&ino) else { return false };
        known.opens = known.opens.saturating_sub(1);
        if known.opens == 0 {
            if !self.keep {
                known.file = None;
            }
            self.doomed.add(known.orphan);
        }
        self.drop_unused(&mut shard, ino)
    }

    /// The shared state of the file, if somebody has it open.
    pub fn live(&self, ino: Ino) -> Option<Arc<File>> {
        self.shard(ino).lock().get(&ino)?.file.clone()
    }

    /// The shared states of all files that somebody has open.
    pub fn all_live(&self) -> Vec<Arc<File>> {
        let of = |shard: &Mutex<HashMap<Ino, Known>>| -> Vec<_> {
            shard.lock().values().filter_map(|known| known.file.clone()).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// The kernel is about to be told that `ino` was modified at `time`; or, with `None`, must not be any
    /// more.
    pub fn correct_mtime(&self, ino: Ino, time: Option<Time>) {
        if let Some(known) = self.shard(ino).lock().get_mut(&ino) {
            known.correction = time;
        }
    }

    /// Whether that is still so.
    pub fn may_correct_mtime(&self, ino: Ino, time: Time) -> bool {
        self.shard(ino).lock().get(&ino).is_some_and(|k| k.correction == Some(time))
    }

    /// `ino` lost its last name and takes `bytes`. Returns true if nobody refers to it: it can be freed.
    pub fn orphaned(&self, ino: Ino, bytes: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(known) = shard.get_mut(&ino) else { return true };
        known.orphan = Some(bytes);
        if known.opens == 0 {
            self.doomed.add(Some(bytes));
        }
        false
    }

    /// Bytes that come back when the kernel has forgotten what was unlinked.
    pub fn doomed_bytes(&self) -> u64 {
        self.doomed.bytes.load(Ordering::Relaxed)
    }

    /// Whether there are unlinked files that nobody has open.
    pub fn has_doomed(&self) -> bool {
        self.doomed.files.load(Ordering::Relaxed) > 0
    }

    /// The unlinked files that nobody has open, which the caller now frees.
    pub fn take_doomed(&self) -> Vec<Ino> {
        let mut taken = Vec::new();
        for shard in &self.shards {
            for (&ino, known) in shard.lock().iter_mut().filter(|(_, k)| k.opens == 0) {
                if let Some(bytes) = known.orphan.take() {
                    self.doomed.remove(Some(bytes));
                    taken.push(ino);
                }
            }
        }
        taken
    }

    /// Removes the entry if nothing refers to it; true if it was of an unlinked inode.
    fn drop_unused(&self, shard: &mut HashMap<Ino, Known>, ino: Ino) -> bool {
        if !shard.get(&ino).is_some_and(Known::unused) {
            return false;
        }
        if self.keep {
            self.unused.lock().push(ino);
            return false;
        }
        let Some(Known { orphan: Some(bytes), .. }) = shard.remove(&ino) else { return false };
        self.doomed.remove(Some(bytes));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(70);

    #[test]
    fn an_unlinked_open_file_is_freed_at_its_last_reference() {
        let inodes = Inodes::default();
        inodes.looked_up(INO);
        let first = inodes.open(INO);
        assert!(Arc::ptr_eq(&first, &inodes.open(INO)));
        assert!(!inodes.orphaned(INO, 8192));
        assert_eq!(inodes.doomed_bytes(), 0);
        assert!(!inodes.close(INO));
        assert!(!inodes.close(INO));
        assert_eq!(inodes.doomed_bytes(), 8192);
        assert!(inodes.live(INO).is_none());
        assert!(inodes.forget(INO, 1));
        assert_eq!(inodes.doomed_bytes(), 0);
    }

    #[test]
    fn an_unlinked_file_is_freed_once_even_when_taken_early() {
        let inodes = Inodes::default();
        inodes.looked_up(INO);
        inodes.orphaned(INO, 4096);
        assert_eq!(inodes.take_doomed(), [INO]);
        assert_eq!(inodes.doomed_bytes(), 0);
        assert!(!inodes.forget(INO, 1));
    }

    #[test]
    fn a_linked_file_is_never_freed() {
        let inodes = Inodes::default();
        inodes.looked_up(INO);
        inodes.open(INO);
        assert!(!inodes.forget(INO, 1));
        assert!(!inodes.close(INO));
    }
}
