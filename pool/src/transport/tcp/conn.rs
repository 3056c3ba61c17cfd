//! One connection: frames out from any thread, frames in by one task.
//!
//! A frame goes out from the thread that sends it, as far as the socket takes it at once; a task writes the
//! rest. What queues is bounded: a peer that does not read costs its senders errors, not memory.
//!
//! Locks: `out` and `pending` are leaves; neither is held while an answer is handed over.

use super::frame::{self, FrameError, Header, Kind};
use super::loops;
use crate::proto::{NodeId, Reply, Request};
use crate::transport::{Answer, Done, Handler, TransportError};
use parking_lot::Mutex;
use socket2::SockRef;
use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

/// The most bytes that wait to be written.
const QUEUE_MAX: usize = 64 << 20;
/// How much is read at a time.
const READ_MIN: usize = 64 << 10;

/// A request that waits for its reply.
pub(super) struct Waiting {
    pub done: Done<Reply>,
    pub until: Instant,
}

#[derive(Default)]
struct Out {
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first of the queue that are written already.
    written: usize,
    bytes: usize,
    closed: bool,
}

/// A connection that has been accepted by both sides.
pub(super) struct Conn {
    half: OwnedWriteHalf,
    out: Mutex<Out>,
    /// There is something to write, or nothing will be any more.
    flush: Notify,
    pending: Mutex<HashMap<u64, Waiting>>,
    closed: AtomicBool,
}

impl Conn {
    /// The connection over `stream`, and the half that [`read`](Self::read) reads.
    pub fn new(stream: TcpStream) -> (Arc<Self>, OwnedReadHalf) {
        let (read, half) = stream.into_split();
        let conn = Self {
            half,
            out: Mutex::default(),
            flush: Notify::new(),
            pending: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        (Arc::new(conn), read)
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sends a request whose reply `waiting` gets. If it cannot be sent, it is given back.
    pub fn request(&self, id: u64, frame: Vec<u8>, waiting: Waiting) -> Result<(), (Waiting, String)> {
        self.pending.lock().insert(id, waiting);
        match self.send(frame) {
            Ok(()) if !self.is_closed() => Ok(()),
            // Whoever closed it may have taken the request along, to fail it.
            sent => match self.pending.lock().remove(&id) {
                Some(waiting) => Err((waiting, sent.err().unwrap_or_else(|| "it was closed".into()))),
                None => Ok(()),
            },
        }
    }

    /// Sends a frame, or has it sent.
    fn send(&self, frame: Vec<u8>) -> Result<(), String> {
        let mut out = self.out.lock();
        if out.closed {
            return Err("it was closed".into());
        }
        if out.bytes + frame.len() > QUEUE_MAX {
            return Err(format!("more than {QUEUE_MAX} bytes wait to be sent"));
        }
        let mut written = 0;
        if out.queue.is_empty() {
            while written < frame.len() {
                match self.half.try_write(&frame[written..]) {
                    Ok(n) => written += n,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    // The reader finds out too, and closes.
                    Err(e) => return Err(e.to_string()),
                }
            }
            if written == frame.len() {
                return Ok(());
            }
            out.written = written;
        }
        out.bytes += frame.len();
        out.queue.push_back(frame);
        drop(out);
        self.flush.notify_one();
        Ok(())
    }

    /// Writes what queues, until the connection is closed.
    pub async fn write(self: Arc<Self>) {
        loop {
            self.flush.notified().await;
            loop {
                if self.is_closed() {
                    return;
                }
                match self.write_queued() {
                    Ok(true) => break,
                    Ok(false) if self.half.writable().await.is_ok() => {}
                    _ => return self.close(),
                }
            }
        }
    }

    /// Writes as much as can be at once; whether that was all.
    fn write_queued(&self) -> std::io::Result<bool> {
        let mut out = self.out.lock();
        while let Some(first) = out.queue.front() {
            match self.half.try_write(&first[out.written..]) {
                Ok(n) if out.written + n == first.len() => {
                    out.bytes -= first.len();
                    out.written = 0;
                    out.queue.pop_front();
                }
                Ok(n) => out.written += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Reads frames until the connection ends, and hands requests to `handler`; says why it ended.
    pub async fn read(self: Arc<Self>, mut half: OwnedReadHalf, handler: Option<Arc<dyn Handler>>) -> String {
        let mut buffer = Vec::with_capacity(READ_MIN);
        let why = loop {
            if buffer.capacity() - buffer.len() < READ_MIN {
                buffer.reserve(READ_MIN.max(wanted(&buffer)));
            }
            match half.read_buf(&mut buffer).await {
                Ok(0) if self.is_closed() => break "it was closed".into(),
                Ok(0) => break "the other side closed it".into(),
                Ok(_) => loops::arrived(),
                Err(e) => break e.to_string(),
            }
            if let Err(e) = self.take_frames(&mut buffer, handler.as_ref()) {
                break e.to_string();
            }
        };
        self.close();
        why
    }

    /// Handles and removes the whole frames at the beginning of `buffer`.
    fn take_frames(
        self: &Arc<Self>,
        buffer: &mut Vec<u8>,
        handler: Option<&Arc<dyn Handler>>,
    ) -> Result<(), FrameError> {
        let mut at = 0;
        while let Some(header) = frame::header(&buffer[at..])? {
            let end = at + frame::HEADER + header.len;
            let Some(whole) = buffer.get(at..end) else { break };
            self.take(header, whole, handler)?;
            at = end;
        }
        buffer.drain(..at);
        // One large message must not hold memory for ever.
        if buffer.is_empty() && buffer.capacity() > 8 * READ_MIN {
            *buffer = Vec::with_capacity(READ_MIN);
        }
        Ok(())
    }

    fn take(
        self: &Arc<Self>,
        header: Header,
        whole: &[u8],
        handler: Option<&Arc<dyn Handler>>,
    ) -> Result<(), FrameError> {
        match (header.kind, handler) {
            (Kind::Reply, _) => {
                let reply: Reply = frame::message(whole)?;
                // One that came after its time has nobody waiting for it.
                let waiting = self.pending.lock().remove(&header.id);
                if let Some(waiting) = waiting {
                    (waiting.done)(Ok(reply));
                }
                Ok(())
            }
            (Kind::Request, Some(handler)) => {
                let request: Request = frame::message(whole)?;
                Arc::clone(handler).serve(request, self.answer(header.id));
                Ok(())
            }
            (Kind::Request, None) => Err(FrameError::Undecodable),
        }
    }

    /// Sends the reply to request `id`.
    fn answer(self: &Arc<Self>, id: u64) -> Answer {
        let conn = Arc::clone(self);
        Box::new(move |reply| {
            let sent = frame::encode(Kind::Reply, id, &reply).map_err(|e| e.to_string());
            if let Err(why) = sent.and_then(|frame| conn.send(frame)) {
                // Then the other side need not wait for it.
                log::debug!("a reply cannot be sent: {why}");
                conn.close();
            }
        })
    }

    /// Closes; what waits for a reply must then be [taken](Self::abandon).
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut out = self.out.lock();
        out.closed = true;
        out.queue.clear();
        drop(out);
        self.flush.notify_one();
        // Wakes both tasks, whatever they wait for. It may have been shut down already.
        let _ = SockRef::from(self.half.as_ref()).shutdown(Shutdown::Both);
    }

    /// The requests that will get no reply here any more.
    pub fn abandon(&self) -> Vec<Waiting> {
        std::mem::take(&mut *self.pending.lock()).into_values().collect()
    }

    /// Takes out the requests whose time is up; also says when the next is.
    pub fn expired(&self, now: Instant) -> (Vec<Waiting>, Option<Instant>) {
        let mut pending = self.pending.lock();
        let late: Vec<u64> = pending.iter().filter(|(_, w)| w.until <= now).map(|(id, _)| *id).collect();
        let late = late.iter().filter_map(|id| pending.remove(id)).collect();
        (late, pending.values().map(|waiting| waiting.until).min())
    }
}

/// Bytes that the frame at the beginning of `buffer` still lacks.
fn wanted(buffer: &[u8]) -> usize {
    match frame::header(buffer) {
        Ok(Some(header)) => (frame::HEADER + header.len).saturating_sub(buffer.len()),
        _ => 0,
    }
}

/// Fails requests because of a broken connection to `node`.
pub(super) fn fail(node: NodeId, waiting: Vec<Waiting>, why: &str) {
    for waiting in waiting {
        (waiting.done)(Err(TransportError::Broken(node, why.into())));
    }
}
