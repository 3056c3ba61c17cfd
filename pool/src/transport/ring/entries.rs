//! Which entries of a channel are free: this process's own knowledge, shared by its threads.
//!
//! An entry is free, in the hands of one thread, or given up: the thread did not wait for the answer to
//! the end, so the entry is the daemon's until it is DONE. The lock is a leaf, held only to pick a number.

use crate::cxl::layout::ENTRIES;
use crate::cxl::ring::protocol::Use;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often who waits for an entry looks whether one that was given up is done.
const LOOK: Duration = Duration::from_millis(5);

pub struct Entries {
    inner: Mutex<Inner>,
    freed: Condvar,
}

struct Inner {
    free: u32,
    given_up: u32,
    waiting: u32,
    /// The current use of each entry, or the last one.
    uses: [Use; ENTRIES as usize],
}

/// An entry in the hands of a thread, for one use.
#[derive(Clone, Copy)]
pub struct Held {
    pub entry: u32,
    pub this: Use,
}

impl Entries {
    /// All entries of a channel that was claimed with `generation`.
    pub fn new(generation: u32) -> Self {
        let uses = [Use::first(generation); ENTRIES as usize];
        let inner = Inner { free: u32::MAX, given_up: 0, waiting: 0, uses };
        Self { inner: Mutex::new(inner), freed: Condvar::new() }
    }

    /// A free entry if there is one now. `is_done` says whether an entry that was given up is done.
    #[inline]
    pub fn try_pick(&self, is_done: impl Fn(Held) -> bool) -> Option<Held> {
        Self::take(&mut self.inner.lock(), is_done)
    }

    /// A free entry; waits for one until the deadline.
    #[inline]
    pub fn pick(&self, deadline: impl FnOnce() -> Instant, is_done: impl Fn(Held) -> bool) -> Option<Held> {
        let mut inner = self.inner.lock();
        match Self::take(&mut inner, &is_done) {
            Some(held) => Some(held),
            None => self.wait(inner, deadline(), is_done),
        }
    }

    #[cold]
    fn wait(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        deadline: Instant,
        is_done: impl Fn(Held) -> bool,
    ) -> Option<Held> {
        inner.waiting += 1;
        let mut held = None;
        while held.is_none() && Instant::now() < deadline {
            // Nobody tells when the daemon finishes an entry that was given up.
            let limit = if inner.given_up == 0 { deadline } else { deadline.min(Instant::now() + LOOK) };
            self.freed.wait_until(&mut inner, limit);
            held = Self::take(&mut inner, &is_done);
        }
        inner.waiting -= 1;
        held
    }

    #[inline]
    fn take(inner: &mut Inner, is_done: impl Fn(Held) -> bool) -> Option<Held> {
        if inner.given_up != 0 {
            Self::reclaim(inner, is_done);
        }
        let entry = (inner.free != 0).then(|| inner.free.trailing_zeros())?;
        inner.free &= inner.free - 1;
        let this = inner.uses[entry as usize].next();
        inner.uses[entry as usize] = this;
        Some(Held { entry, this })
    }

    #[cold]
    fn reclaim(inner: &mut Inner, is_done: impl Fn(Held) -> bool) {
        let given_up = inner.given_up;
        for entry in (0..ENTRIES).filter(|entry| given_up >> entry & 1 == 1) {
            if is_done(Held { entry, this: inner.uses[entry as usize] }) {
                inner.given_up &= !(1 << entry);
                inner.free |= 1 << entry;
            }
        }
    }

    /// The answer has been taken, or nothing was submitted.
    #[inline]
    pub fn release(&self, held: Held) {
        let mut inner = self.inner.lock();
        inner.free |= 1 << held.entry;
        if inner.waiting > 0 {
            self.freed.notify_one();
        }
    }

    /// The answer is not waited for any more.
    pub fn give_up(&self, held: Held) {
        self.inner.lock().given_up |= 1 << held.entry;
    }

    /// Whether all entries are free.
    pub fn all_free(&self, is_done: impl Fn(Held) -> bool) -> bool {
        let mut inner = self.inner.lock();
        Self::reclaim(&mut inner, is_done);
        inner.free == u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_given_up_is_free_only_once_it_is_done() {
        let entries = Entries::new(1);
        let held: Vec<Held> = (0..ENTRIES).map(|_| entries.try_pick(|_| true).unwrap()).collect();
        assert!(entries.try_pick(|_| true).is_none());
        entries.give_up(held[3]);
        assert!(entries.try_pick(|_| false).is_none());
        assert!(entries.pick(Instant::now, |_| false).is_none());
        let again = entries.try_pick(|given_up| given_up.this == held[3].this).unwrap();
        assert_eq!((again.entry, again.this), (3, held[3].this.next()));
    }

    #[test]
    fn who_waits_for_an_entry_gets_the_next_one_that_is_free() {
        let entries = Entries::new(1);
        let held: Vec<Held> = (0..ENTRIES).map(|_| entries.try_pick(|_| true).unwrap()).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| entries.pick(|| deadline, |_| true).map(|held| held.entry));
            entries.release(held[7]);
            assert_eq!(waiter.join().unwrap(), Some(7));
        });
    }
}
