//! The lines to one node: one for each thread that waits for a reply, kept for the next.
//!
//! # Invariants
//!
//! - There are at most [`LINES`] of them, with those that are being opened; whoever gets none sends by a lane.
//! - A line is in the hands of one thread, or idle, or gone. It is idle only when nothing is owed on it.
//! - When one breaks or is late, the idle ones go too: what ended it has most likely ended them.
//!
//! Locks: `state` is a leaf; nothing is waited for under it.

use super::line::{Fault, Line};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most lines to one node.
const LINES: usize = 32;
/// How long one is kept for the next request.
const KEEP: Duration = Duration::from_secs(10);
/// How long none is opened after one could not be.
const ALONE: Duration = Duration::from_millis(100);

/// The lines to one node.
#[derive(Default)]
pub(super) struct Calls(Mutex<State>);

#[derive(Default)]
struct State {
    /// Used last is last; since when each has been idle.
    idle: Vec<(u64, Line, Instant)>,
    /// All there are; without a stream while it is opened.
    lines: HashMap<u64, Option<Arc<TcpStream>>>,
    next: u64,
    /// None is opened before then, for this reason.
    down: Option<(Instant, String)>,
    closed: bool,
}

/// The right to one line; it is gone, with the line, unless it is given [back](Self::back).
pub(super) struct Place {
    calls: Arc<Calls>,
    number: u64,
    kept: bool,
}

/// What a thread gets that wants a line.
pub(super) enum Got {
    Line(Place, Line),
    /// It may open one.
    Place(Place),
    /// There are as many as there may be.
    Full,
    /// None can be had now, for this reason.
    Down(String),
}

impl Calls {
    /// A line, or the right to open one.
    pub fn get(self: &Arc<Self>) -> Got {
        let mut state = self.0.lock();
        let place = |number| Place { calls: Arc::clone(self), number, kept: false };
        if let Some((number, line, _)) = state.idle.pop() {
            return Got::Line(place(number), line);
        }
        match &state.down {
            _ if state.closed => return Got::Down("it has gone".into()),
            _ if state.lines.len() >= LINES => return Got::Full,
            Some((until, why)) if Instant::now() < *until => return Got::Down(why.clone()),
            _ => {}
        }
        state.next += 1;
        let number = state.next;
        state.lines.insert(number, None);
        Got::Place(place(number))
    }

    /// None can be opened now.
    pub fn failed(&self, why: String) {
        self.0.lock().down = Some((Instant::now() + ALONE, why));
    }

    /// Lets go of the lines that nobody uses; says whether there were any.
    pub fn forget_idle(&self) -> bool {
        let mut state = self.0.lock();
        let idle = std::mem::take(&mut state.idle);
        idle.iter().for_each(|(number, ..)| drop(state.lines.remove(number)));
        drop(state);
        !idle.is_empty()
    }

    /// Ends all lines for good: who waits gets an error.
    pub fn close(&self) {
        self.forget_idle();
        let mut state = self.0.lock();
        state.closed = true;
        for stream in state.lines.values().flatten() {
            // It may have been shut down already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Place {
    /// The line over `stream`, opened for this place.
    pub fn line(&self, stream: TcpStream) -> Result<Line, Fault> {
        let line = Line::new(stream).map_err(|e| Fault::Broken(e.to_string()))?;
        let mut state = self.calls.0.lock();
        if state.closed {
            return Err(Fault::Broken("it was closed".into()));
        }
        state.lines.insert(self.number, Some(line.stream()));
        state.down = None;
        Ok(line)
    }

    /// Gives the line back, for the next.
    pub fn back(mut self, line: Line) {
        let now = Instant::now();
        let mut state = self.calls.0.lock();
        if state.closed {
            return;
        }
        state.idle.push((self.number, line, now));
        // Those that are not needed any more are at the bottom.
        let old = state.idle.first().is_some_and(|(.., since)| now.duration_since(*since) > KEEP);
        let gone = old.then(|| state.idle.remove(0));
        gone.iter().for_each(|(number, ..)| drop(state.lines.remove(number)));
        drop(state);
        self.kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.kept {
            self.calls.0.lock().lines.remove(&self.number);
        }
    }
}
