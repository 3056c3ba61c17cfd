//! A connection that one thread at a time uses: it writes a request, looks for the reply for a [while](crate::spin), and
//! then sleeps in the kernel until it is there. So a request costs two wake-ups at most, the server's and the caller's.
//!
//! After an error a line is of no use any more: a reply that came late would be taken for another's.

use super::frame::{self, HEADER, Header, Kind};
use crate::proto::Reply;
use crate::spin::Spin;
use socket2::SockRef;
use std::io::{ErrorKind, Read, Result as IoResult, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of the buffer for replies, but for long ones.
const BUFFER: usize = 8 << 10;
/// Longer buffers are not kept.
const KEPT: usize = 256 << 10;
/// How precisely deadlines are kept.
const NEARLY: Duration = Duration::from_millis(20);

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It did not come in time.
    Late,
    /// The connection broke, or what came is no reply to what was asked; a sentence.
    Broken(String),
}

/// A connection that has been accepted by both sides.
pub(super) struct Line {
    stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    /// How long the kernel waits for one piece of a reply, or for room for one of a request; 0 is for ever.
    wait: Duration,
    spin: Spin,
}

impl Line {
    /// The line over `stream`, which is not blocking yet.
    pub fn new(stream: TcpStream) -> IoResult<Self> {
        stream.set_nonblocking(false)?;
        Ok(Self {
            stream: Arc::new(stream),
            buffer: Vec::new(),
            wait: Duration::ZERO,
            spin: Spin::for_answers(),
        })
    }

    /// To shut it down, whoever uses it.
    pub fn stream(&self) -> Arc<TcpStream> {
        Arc::clone(&self.stream)
    }

    /// Whether the other side has neither closed it nor said anything unasked.
    pub fn is_quiet(&self) -> bool {
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let came = SockRef::from(&*self.stream).recv_with_flags(&mut [MaybeUninit::uninit()], flags);
        matches!(came, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Sends the request `id`, a whole frame, and waits for its reply.
    pub fn ask(&mut self, id: u64, request: &[u8], until: Instant) -> Result<Reply, Fault> {
        self.send(request, until)?;
        if self.look() {
            return self.receive(id, until);
        }
        let began = Instant::now();
        let reply = self.receive(id, until);
        self.spin.slept(began.elapsed());
        reply
    }

    /// Whether something comes while it is worth looking; a reply or an error is for [`receive`](Self::receive) to see.
    fn look(&self) -> bool {
        let mut looking = self.spin.begin();
        loop {
            let go_on = looking.go_on();
            if !self.is_quiet() || !go_on {
                return go_on;
            }
        }
    }

    fn send(&mut self, mut frame: &[u8], until: Instant) -> Result<(), Fault> {
        while !frame.is_empty() {
            self.wait_until(until)?;
            match (&*self.stream).write(frame) {
                Ok(written) => frame = &frame[written..],
                Err(e) => again(&e)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, id: u64, until: Instant) -> Result<Reply, Fault> {
        self.buffer.resize(BUFFER.max(self.buffer.len()), 0);
        let mut have = 0;
        loop {
            self.wait_until(until)?;
            match (&*self.stream).read(&mut self.buffer[have..]) {
                Ok(0) => return Err(Fault::Broken("the other side closed it".into())),
                Ok(read) => have += read,
                Err(e) => {
                    again(&e)?;
                    continue;
                }
            }
            let Some(header) = frame::header(&self.buffer[..have]).map_err(broken)? else { continue };
            let whole = HEADER + header.len;
            if !is_reply(header, id) || have > whole {
                return Err(Fault::Broken("what came is not the reply to what was asked".into()));
            }
            if have == whole {
                let reply = frame::message(&self.buffer[..whole]).map_err(broken);
                if self.buffer.len() > KEPT {
                    self.buffer = Vec::new();
                }
                return reply;
            }
            self.buffer.resize(whole.max(self.buffer.len()), 0);
        }
    }

    /// Has the kernel wait until then, or nearly.
    fn wait_until(&mut self, until: Instant) -> Result<(), Fault> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Late);
        }
        if self.wait.is_zero() || left.abs_diff(self.wait) > NEARLY {
            let set = self.stream.set_read_timeout(Some(left));
            set.and_then(|()| self.stream.set_write_timeout(Some(left))).map_err(broken)?;
            self.wait = left;
        }
        Ok(())
    }
}

fn is_reply(header: Header, id: u64) -> bool {
    header.kind == Kind::Reply && header.id == id
}

/// Whether it is only that more time is needed: whether there is any, is for the caller to see.
fn again(error: &std::io::Error) -> Result<(), Fault> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        _ => Err(broken(error)),
    }
}

fn broken(why: impl ToString) -> Fault {
    Fault::Broken(why.to_string())
}
