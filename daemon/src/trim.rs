//! Giving the memory of free frames back to the system, some time after they were freed.
//!
//! A thread, woken by a free, looks once a second for free frames that held pages: those that were free
//! at two looks in a row, and make up at least [`CHUNK`], are given back. So memory that is soon used
//! again is not given back and faulted in for nothing, and a free of many small runs costs nothing here.
//! The frames are out of the free set meanwhile; an allocation that would fail without them waits.
//!
//! When there is nothing left to give back the thread sleeps until the next free.

use crate::extents::Intervals;
use crate::frames::{FrameState, FrameTable};
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The least that is given back at once: memory in smaller pieces is not worth a system call.
const CHUNK: u64 = pool::cxl::layout::HUGE;
/// The most that is out of the free set at a time.
const CHUNK_MAX: u64 = 16 * CHUNK;
/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// The thread that gives memory back.
pub(crate) struct Trimmer {
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Trimmer {
    /// Starts the thread, if the region's memory can be given back.
    pub fn start(frames: &Arc<FrameTable>) -> io::Result<Self> {
        let mut thread = None;
        if frames.region().kind().returns_memory() {
            let frames = Arc::clone(frames);
            thread = Some(std::thread::Builder::new().name("pool-trim".into()).spawn(move || run(&frames))?);
        }
        Ok(Self { thread: Mutex::new(thread) })
    }

    /// Waits for the thread, which ends when the frames are closed.
    pub fn join(&self) {
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            log::error!("the thread that gives memory back has panicked");
        }
    }
}

fn run(frames: &FrameTable) {
    let chunk = CHUNK / frames.region().geometry().page_size.bytes();
    let mut before = Intervals::default();
    while frames.wait_for_freed() && frames.pause(PERIOD) {
        let now = frames.with_state(|state| {
            let now = candidates(state, chunk);
            state.freed = now.len() > 0;
            now
        });
        for (range, _) in before.iter().flat_map(|range| now.split(range)).filter(|(_, both)| *both) {
            if !chunks(range, chunk).all(|part| trim(frames, part)) {
                return;
            }
        }
        before = now;
    }
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

/// Gives the memory of `range` back, if it is still free. False if there is no point in going on.
fn trim(frames: &FrameTable, range: Range<u64>) -> bool {
    let count = range.end - range.start;
    let taken = frames.with_state(|state| {
        let taken = !state.closed && state.free.take_exact(range.clone());
        state.trimming += if taken { count } else { 0 };
        taken
    });
    if !taken {
        return true;
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
    if !given && frames.region().returns_memory() {
        log::warn!("{}: the system takes no memory back", frames.region().name());
    }
    given
}
