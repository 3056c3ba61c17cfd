//! Giving up what the master revokes.
//!
//! **Taking the kernel's pages away.** As long as the mount has the lease it answers the kernel's reads, and each
//! may bring pages into the cache. So the pages are dropped, and then, with the state locked, the lease is given
//! up if no read was answered since that began; otherwise it is done again. Pages written through mappings come back
//! as writes meanwhile, under the lease that still is there.
//!
//! Runs on threads of its own, never on one that answers the kernel.

use super::Fs;
use super::file::{File, Held, State};
use super::known::Name;
use super::shared::Shared;
use pool::proto::meta::{Ino, Kind};
use pool::proto::mount::{Acknowledged, Revoke, Revoked, Seq};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long telling the master what was kept back is tried.
const PATIENCE: Duration = Duration::from_secs(2);

impl Fs {
    /// Gives up what is revoked; what to acknowledge then.
    pub fn give_up_lease(&self, revoke: &Revoke) -> Acknowledged {
        let Revoke { seq, ino, what } = revoke;
        let (seq, ino) = (*seq, *ino);
        let mut shared_left = false;
        if let Some(shared) = &self.shared {
            match what {
                Revoked::Entry(name) => {
                    let file = match shared.known.name(ino, name) {
                        Name::Is(found) => {
                            shared.known.attr(found).is_some_and(|attr| attr.kind != Kind::Dir)
                        }
                        Name::Free => true,
                        Name::Unknown => false,
                    };
                    shared.known.revoke_name(seq, ino, name);
                    self.inodes.doubt(ino);
                    if let Some(kernel) = self.kernel.get() {
                        kernel.names_changed(ino);
                        if !file {
                            kernel.drop_name(ino, name);
                        }
                    }
                }
                Revoked::Writing => shared_left = self.stop_writing(shared, seq, ino),
                Revoked::All => self.drop_lease(shared, seq, ino),
                Revoked::Unlinked => {}
            }
        }
        Acknowledged { seq, used: self.inodes.is_open(ino), shared: shared_left }
    }

    /// Keeps only a shared lease; false if none at all is kept.
    fn stop_writing(&self, shared: &Shared, seq: Seq, ino: Ino) -> bool {
        // From here on an exclusive lease that came with the answer to a create is not found any more. Whoever has found it
        // has locked the state of a file that is live.
        shared.known.share(seq, ino);
        let Some(file) = self.inodes.live(ino) else {
            return shared.known.attr(ino).is_some();
        };
        let mut state = file.state.write();
        if file.writers.load(Ordering::SeqCst) > 0 {
            // A program could write to its pages without anybody being asked.
            drop(state);
            self.drop_lease(shared, seq, ino);
            return false;
        }
        self.tell_or_give_up(&file, &mut state);
        state.held = state.held.min(Held::Shared);
        true
    }

    fn drop_lease(&self, shared: &Shared, seq: Seq, ino: Ino) {
        let directories = shared.known.directories_in(ino);
        let names = shared.known.attr(ino).is_none_or(|attr| attr.kind == Kind::Dir);
        shared.known.revoke(seq, ino);
        self.inodes.doubt(ino);
        match self.inodes.live(ino) {
            Some(file) => {
                self.have_size_asked_for(&file);
                self.drop_file(shared, seq, &file);
            }
            None => match self.kernel.get() {
                Some(kernel) if names => kernel.names_changed(ino),
                Some(kernel) => kernel.attributes_changed(ino),
                None => {}
            },
        }
        // Of what becomes of these names this mount will not hear, and a kernel that believes a directory to be in two
        // places refuses to rename it.
        if let Some(kernel) = self.kernel.get() {
            directories.iter().for_each(|name| kernel.drop_name(ino, name));
        }
    }

    fn drop_file(&self, shared: &Shared, seq: Seq, file: &Arc<File>) {
        let mut tries = 0_u32;
        loop {
            let fills = file.fills.load(Ordering::SeqCst);
            if file.state.read().held == Held::Nothing {
                // Without a lease there is nothing in the cache.
                self.forget_attributes(file.ino);
            } else if let Some(kernel) = self.kernel.get() {
                kernel.drop_pages(file.ino);
            }
            let mut state = file.state.write();
            if state.held != Held::Nothing && file.fills.load(Ordering::SeqCst) != fills && tries < 1000 {
                drop(state);
                tries += 1;
                // Whoever reads all the time must leave a gap.
                file.slow.store(tries, Ordering::Relaxed);
                continue;
            }
            self.tell_or_give_up(file, &mut state);
            self.size_in_doubt(file, &state);
            *state = State::default();
            // An answer that was on its way under the old lease may have been noted since.
            shared.known.revoke(seq, file.ino);
            file.slow.store(0, Ordering::Relaxed);
            drop(state);
            self.expect_stragglers(file);
            return;
        }
    }

    fn forget_attributes(&self, ino: Ino) {
        if let Some(kernel) = self.kernel.get() {
            kernel.attributes_changed(ino);
        }
    }

    /// Tells what was kept back; what cannot be told is lost.
    fn tell_or_give_up(&self, file: &File, state: &mut State) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(why) = self.tell_locked(file, state) {
            if Instant::now() >= deadline || matches!(why, super::FsError::Lost) {
                if state.dirty {
                    log::error!("inode {}: what was written to it last is lost: {why}", file.ino.0);
                    file.lost.store(true, Ordering::Release);
                }
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
