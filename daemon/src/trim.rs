//! Giving the memory of free frames back to the system, some time after they were freed.
//!
//! A thread looks once a second, while there is something to look at, for free frames that held pages:
//! those that were free at two looks in a row, and make up at least [`CHUNK`], are given back. So
//! memory that is soon used again is not given back and faulted in for nothing, and a free of many
//! small runs costs nothing here. The frames are out of the free set meanwhile; an allocation that
//! would fail without them waits.

use crate::extents::Intervals;
use crate::frames::{FrameState, FrameTable};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The least that is given back at once, and what the thread takes out of the free set at once.
const CHUNK: u64 = pool::cxl::layout::HUGE;
const CHUNK_MAX: u64 = 16 * CHUNK;
/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// The thread that gives memory back.
pub(crate) struct Trimmer {
    control: Arc<Control>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Default)]
struct Control {
    stop: Mutex<bool>,
    changed: Condvar,
}

impl Trimmer {
    /// Starts the thread, if the region's memory can be given back.
    pub fn start(frames: &Arc<FrameTable>) -> io::Result<Self> {
        let control = Arc::new(Control::default());
        let mut thread = None;
        if frames.region().kind().returns_memory() {
            let (control, frames) = (Arc::clone(&control), Arc::downgrade(frames));
            let run = move || control.run(&frames);
            thread = Some(std::thread::Builder::new().name("pool-trim".into()).spawn(run)?);
        }
        Ok(Self { control, thread: Mutex::new(thread) })
    }

    /// Ends the thread.
    pub fn stop(&self) {
        *self.control.stop.lock() = true;
        self.control.changed.notify_all();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("the thread that gives memory back has panicked");
        }
    }
}

impl Control {
    fn run(&self, frames: &Weak<FrameTable>) {
        let mut before = Intervals::default();
        while !self.stopped_after(PERIOD) {
            let Some(frames) = frames.upgrade() else { return };
            let now = frames.with_state(|state| candidates(state, frames_per_chunk(&frames)));
            for range in before.iter().flat_map(|range| now.split(range)).filter(|(_, both)| *both) {
                for part in chunks(range.0, frames_per_chunk(&frames)) {
                    if *self.stop.lock() {
                        return;
                    }
                    trim(&frames, part);
                }
            }
            before = now;
        }
    }

    fn stopped_after(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop {
            self.changed.wait_for(&mut stop, time);
        }
        *stop
    }
}

fn frames_per_chunk(frames: &FrameTable) -> u64 {
    CHUNK / frames.region().geometry().page_size.bytes()
}

/// Free frames that may hold something, in whole chunks.
fn candidates(state: &FrameState, chunk: u64) -> Intervals {
    let free = state.free.longest(chunk).flat_map(|free| state.zero.split(free));
    free.filter(|(_, zero)| !zero)
        .map(|(range, _)| range.start.next_multiple_of(chunk)..range.end / chunk * chunk)
        .filter(|range| range.start < range.end)
        .collect()
}

fn chunks(range: Range<u64>, chunk: u64) -> impl Iterator<Item = Range<u64>> {
    let step = CHUNK_MAX / CHUNK * chunk;
    let end = range.end;
    range.step_by(step as usize).map(move |start| start..(start + step).min(end))
}

/// Gives the memory of `range` back, if it is still free.
fn trim(frames: &FrameTable, range: Range<u64>) {
    let count = range.end - range.start;
    let taken = frames.with_state(|state| {
        let taken = state.free.take_exact(range.clone());
        state.trimming += if taken { count } else { 0 };
        taken
    });
    if !taken {
        return;
    }
    let g = frames.region().geometry();
    let offset = |frame: u64| g.frames_at + frame * g.page_size.bytes();
    let given = frames.region().punch_hole(offset(range.start)..offset(range.end));
    frames.with_state(|state| {
        state.trimming -= count;
        state.free.insert(range.clone());
        if given {
            state.zero.insert(range);
        }
    });
}
