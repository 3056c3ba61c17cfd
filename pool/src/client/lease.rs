//! The access slots that this process has, one for each thread and pool.
//!
//! A thread leases a slot at its first access and keeps it until it ends or the pool is dropped; to
//! find it again is a look at thread-local memory. No other thread writes the slot's hazard word, so
//! an access takes no lock.
//!
//! Lock order: the list of leased slots is a leaf; nothing else is locked while it is.

use crate::cxl::region::Region;
use crate::cxl::slots::{ClientId, Slots};
use crate::error::PoolError;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a thread waits for a slot when all are taken.
const PATIENCE: Duration = Duration::from_millis(200);

/// The number of no pool.
const NO_POOL: u64 = 0;

/// The slots that one client has leased.
pub struct Leases {
    /// Tells the pools of this process apart; never reused.
    pool: u64,
    region: Arc<Region>,
    client: ClientId,
    /// Slots of all threads; `None` once the pool is dropped.
    taken: Mutex<Option<Vec<u32>>>,
}

/// A thread's hold on a slot.
struct Lease {
    pool: u64,
    slot: u32,
    leases: Weak<Leases>,
    process: u32,
}

thread_local! {
    static HELD: RefCell<Vec<Lease>> = const { RefCell::new(Vec::new()) };
    /// The pool that this thread used last, and its slot there, which is one of `HELD`. Has no
    /// destructor, so that to look at it is but a load.
    static LAST: Cell<(u64, u32)> = const { Cell::new((NO_POOL, 0)) };
}

impl Leases {
    pub fn new(region: Arc<Region>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(NO_POOL + 1);
        let (pool, client) = (NEXT.fetch_add(1, Ordering::Relaxed), ClientId::this_process());
        Arc::new(Self { pool, region, client, taken: Mutex::new(Some(Vec::new())) })
    }

    /// Calls `access` with the number of this thread's slot.
    #[inline]
    pub fn with_slot<T>(self: &Arc<Self>, access: impl FnOnce(u32) -> T) -> Result<T, PoolError> {
        let (pool, slot) = LAST.get();
        if pool == self.pool {
            return Ok(access(slot));
        }
        self.with_other_slot(access)
    }

    /// This thread's slot, if it used this pool last.
    #[inline]
    pub fn last_slot(&self) -> Option<u32> {
        let (pool, slot) = LAST.get();
        (pool == self.pool).then_some(slot)
    }

    /// As [`with_slot`](Self::with_slot), where this thread used another pool last, or none.
    #[cold]
    fn with_other_slot<T>(self: &Arc<Self>, access: impl FnOnce(u32) -> T) -> Result<T, PoolError> {
        let held = HELD.try_with(|held| {
            held.borrow().iter().find(|lease| lease.pool == self.pool).map(|lease| lease.slot)
        });
        if let Ok(Some(slot)) = held {
            LAST.set((self.pool, slot));
            return Ok(access(slot));
        }
        self.with_new_slot(access)
    }

    #[cold]
    fn with_new_slot<T>(self: &Arc<Self>, access: impl FnOnce(u32) -> T) -> Result<T, PoolError> {
        let slot = self.claim()?;
        let process = std::process::id();
        let lease = Lease { pool: self.pool, slot, leases: Arc::downgrade(self), process };
        // A thread that is past its thread-local memory holds the lease for this access only.
        let mut lease = Some(lease);
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            held.retain(|lease| lease.leases.strong_count() > 0);
            held.extend(lease.take());
            LAST.set((self.pool, slot));
        });
        let result = access(slot);
        drop(lease);
        Ok(result)
    }

    fn claim(&self) -> Result<u32, PoolError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let mut taken = self.taken.lock();
                let slot = Slots::new(&self.region).claim(self.client);
                if let (Some(slot), Some(taken)) = (slot, taken.as_mut()) {
                    taken.push(slot);
                    return Ok(slot);
                }
            }
            if Instant::now() >= deadline {
                return Err(PoolError::NoSlot);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn give_back(&self, slot: u32) {
        let mut taken = self.taken.lock();
        if let Some(taken) = taken.as_mut()
            && let Some(at) = taken.iter().position(|s| *s == slot)
        {
            taken.swap_remove(at);
            Slots::new(&self.region).release(slot);
        }
    }

    /// Gives all slots back. No thread may be in an access, nor begin one afterwards.
    pub fn close(&self) {
        for slot in self.taken.lock().take().into_iter().flatten() {
            Slots::new(&self.region).release(slot);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if LAST.get().0 == self.pool {
            LAST.set((NO_POOL, 0));
        }
        // In a forked child this is a copy of the parent's lease.
        if self.process == std::process::id()
            && let Some(leases) = self.leases.upgrade()
        {
            leases.give_back(self.slot);
        }
    }
}
