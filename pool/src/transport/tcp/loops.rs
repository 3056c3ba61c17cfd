//! The threads that wait for sockets: each an event loop with connections of its own.
//!
//! A loop serves what comes on its connections by itself: nobody else has to be woken for it. That is why there are several
//! with one thread each, and not one with several threads, which wake each other up whenever one has found something
//! to do. Nothing that runs on a loop may wait, as what else is on that loop would wait too.
//!
//! The loops of a node that serves look for the next request for a [while](crate::spin) before they sleep in the kernel:
//! a task keeps the loop awake, by being ready whenever the loop has nothing else to do, so that it looks at its sockets again.

use crate::spin::Spin;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};

/// The loops, as long as they run.
#[derive(Clone)]
pub(super) struct Handles {
    all: Arc<[Handle]>,
    next: Arc<AtomicUsize>,
}

/// Ends the loops when it is dropped, soon; waits for nothing.
pub(super) struct Loops {
    handles: Handles,
    /// Dropping it tells the loops.
    _alive: watch::Sender<()>,
}

impl Loops {
    /// So many loops, which run from now on; those of a node that `serves` look before they sleep.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(count: usize, serves: bool) -> io::Result<Self> {
        let (alive, over) = watch::channel(());
        let all = (0..count).map(|_| start(over.clone(), serves)).collect::<io::Result<_>>()?;
        Ok(Self { handles: Handles { all, next: Arc::default() }, _alive: alive })
    }

    /// The loops.
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }
}

impl Handles {
    /// The loops in turn: for one more connection.
    pub fn next(&self) -> &Handle {
        &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }
}

/// How much has come to a loop.
#[derive(Default)]
struct Arrivals {
    count: AtomicU64,
    came: Notify,
}

thread_local! {
    static ARRIVALS: Arc<Arrivals> = Arc::default();
}

/// Something has come by a connection of this loop.
pub(super) fn arrived() {
    ARRIVALS.with(|arrivals| {
        arrivals.count.fetch_add(1, Ordering::Relaxed);
        arrivals.came.notify_one();
    });
}

/// Keeps this loop awake after something has come, for as long as that is worth it.
async fn keep_awake() {
    let arrivals = ARRIVALS.with(Arc::clone);
    let (spin, mut seen) = (Spin::for_requests(), 0);
    loop {
        let began = Instant::now();
        // There may be a notification of something that came while it was awake.
        while arrivals.count.load(Ordering::Relaxed) == seen {
            arrivals.came.notified().await;
        }
        spin.slept(began.elapsed());
        seen = arrivals.count.load(Ordering::Relaxed);
        let mut looking = spin.begin();
        while looking.go_on() {
            tokio::task::yield_now().await;
            let count = arrivals.count.load(Ordering::Relaxed);
            if count != seen {
                seen = count;
                looking = spin.begin();
            }
        }
    }
}

fn start(mut over: watch::Receiver<()>, serves: bool) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name("pool-tcp".into()).spawn(move || {
        if serves {
            runtime.spawn(keep_awake());
        }
        // An error says that whoever could have sent something has gone, which is all that is waited for.
        let _ = runtime.block_on(over.changed());
        // Not to wait for the resolver.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}
