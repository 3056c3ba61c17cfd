//! The threads that wait for sockets: each an event loop with connections of its own.
//!
//! A loop serves what comes on its connections by itself: nobody else has to be woken for it. That is why there are several
//! with one thread each, and not one with several threads, which wake each other up whenever one has found something
//! to do. Nothing that runs on a loop may wait, as what else is on that loop would wait too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

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
    /// So many loops, which run from now on.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(count: usize) -> io::Result<Self> {
        let (alive, over) = watch::channel(());
        let all = (0..count).map(|_| start(over.clone())).collect::<io::Result<_>>()?;
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

fn start(mut over: watch::Receiver<()>) -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name("pool-tcp".into()).spawn(move || {
        // An error says that whoever could have sent something has gone, which is all that is waited for.
        let _ = runtime.block_on(over.changed());
        // Not to wait for the resolver.
        runtime.shutdown_background();
    })?;
    Ok(handle)
}
