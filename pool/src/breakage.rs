//! Mistakes that are made on purpose, to show that the checker of histories finds them. There is no such
//! code in any program but those that `tests/tests/broken` builds for itself with `--cfg rchfs_breakable`;
//! and those too are right unless `RCHFS_BREAK` names a mistake:
//!
//! | mistake | what is left out |
//! | --- | --- |
//! | `revoke` | a page is moved or freed while other racks hold references to it |
//! | `slots` | the daemon does not wait for those who have a frame published |
//! | `check` | a client does not look at the descriptor of a frame that it has published |
//! | `cas` | compare-and-swap is a read and a write |
//! | `dht-freeze` | a slot of a hash table is frozen only after its records were moved to other segments |
//! | `dht-both` | a reader uses one half of a slot that was split before both are there |
//! | `dht-invalidate` | a record that is replaced keeps its live bit, by which it is used without a look at its slot |
//! | `dht-confirm` | the slot is not looked at again after its chain was read |
//!
//! Threads of these programs are held up now and then where that is allowed but seldom happens, so that a
//! mistake need not wait for the scheduler to show.

use crate::cxl::protocol::SharedWord;
use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One in so many accesses of a thread is held up, and for how long: longer than a page takes to move, and
/// not as long as a daemon waits for a client.
const HELD_UP: (u32, Duration) = (64, Duration::from_micros(500));

/// Whether this process makes that mistake.
pub fn is(mistake: &str) -> bool {
    static CHOSEN: OnceLock<String> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("RCHFS_BREAK").unwrap_or_default()) == mistake
}

/// Holds this thread up now and then, while it has frames published.
pub(crate) fn dawdle() {
    thread_local!(static CALLS: Cell<u32> = const { Cell::new(0) });
    let calls = CALLS.get().wrapping_add(1);
    CALLS.set(calls);
    if calls.is_multiple_of(HELD_UP.0) {
        std::thread::sleep(HELD_UP.1);
    }
}

/// What looks like a compare-and-swap of `word`.
pub(crate) fn read_then_write(word: &impl SharedWord, old: u64, new: u64) -> u64 {
    let was = word.load(Ordering::SeqCst);
    if was == old {
        dawdle();
        word.store(new, Ordering::SeqCst);
    }
    was
}
