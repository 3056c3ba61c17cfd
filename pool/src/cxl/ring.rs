//! Channels: how clients in other processes of a rack send requests to its daemon and get replies, in the
//! region.
//!
//! A client process claims a channel. A channel has 32 entries, each with room for one message, request or
//! answer; entries are independent of each other, so a short request never waits behind a long one, and
//! replies come in any order. Where everything is: [`layout`](super::layout). In what order it is
//! touched: [`protocol`]. The daemon's side is [`Server`]; the client's is
//! [`RingTransport`](crate::transport::RingTransport).
//!
//! This module has the views that both sides use: they know what a message is (postcard of a
//! [`Request`](crate::proto::Request) or [`Reply`](crate::proto::Reply)), and check every number that is
//! read from shared memory.
//!
//! A channel is freed by its client when no answer is outstanding, else by the daemon
//! ([`Server::sweep`]), when the client is dead or has left and no answer is outstanding any more. So
//! nobody ever writes to a channel that has got another owner.

pub mod protocol;
mod server;

pub use server::{Call, ReplyHandle, ServeError, Server};

use super::layout::{
    self, AT_OWNER, BUFFER_LEN, CELL_BODY, CELL_BODY_LEN, CELL_LEN, CELL_STATE, ENTRIES, RECORD_GENERATION,
    RECORD_LEAVING, RECORD_OWNER, RECORD_SUBMITTED, RECORD_WATCHED, RING_BELLS, RING_POLLER, RING_SERVING,
};
use super::protocol::SharedWord;
use super::region::{Region, Word};
use super::slots::ClientId;
use protocol::{Kind, Use};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::Ordering;

/// The most bytes of a message: [`ACCESS_MAX`](crate::proto::page::ACCESS_MAX) of data and what comes with
/// them.
pub const BODY_MAX: usize = BUFFER_LEN as usize;

/// So many runs of pages fit a message, wherever they are. Who asks with more must split them; who asks
/// for more pages must be content with an error if they turn out to lie in more runs.
pub const RUNS_MAX: usize = 1500;

/// So much of a message fits a cell, and so much of that its first cache line.
const INLINE: usize = (CELL_LEN - CELL_BODY) as usize;
const FIRST_LINE: usize = (64 - CELL_BODY) as usize;

/// What kind of answer is in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// A reply.
    Reply = 0,
    /// The request could not be decoded.
    Malformed = 1,
    /// The daemon was restarted and does not know what became of the request.
    Lost = 2,
    /// The daemon let go of the request without an answer.
    Dropped = 3,
    /// The reply is longer than [`BODY_MAX`]; the message is its length, as 8 bytes.
    TooLarge = 4,
}

impl Status {
    fn from_raw(raw: u32) -> Option<Self> {
        [Self::Reply, Self::Malformed, Self::Lost, Self::Dropped, Self::TooLarge].get(raw as usize).copied()
    }
}

/// The rings of a region that has channels.
#[derive(Clone, Copy)]
pub(crate) struct Rings<'r> {
    region: &'r Region,
    header: u64,
}

impl<'r> Rings<'r> {
    /// `None` if the region has no channels.
    #[inline]
    pub fn new(region: &'r Region) -> Option<Self> {
        Some(Self { region, header: region.geometry().ring_header_at()? })
    }

    /// Number of channels.
    #[inline]
    pub fn channels(self) -> u32 {
        self.region.geometry().channels
    }

    /// The doorbells of channels `64 * group` and on.
    #[inline]
    pub fn bells(self, group: u32) -> Word<'r> {
        debug_assert!(group < layout::CHANNELS_MAX / 64);
        self.region.word(self.header + RING_BELLS + group as u64 * 8)
    }

    /// The number of words of doorbells in use.
    #[inline]
    pub fn groups(self) -> u32 {
        self.channels().div_ceil(64)
    }

    /// What the poller sleeps on.
    #[inline]
    pub fn poller(self) -> Word<'r> {
        self.region.word(self.header + RING_POLLER)
    }

    /// The number of the daemon that serves; 0 if none does.
    #[inline]
    pub fn serving(self) -> Word<'r> {
        self.region.word(self.header + RING_SERVING)
    }

    /// Whether the process that owned the region last still runs.
    pub fn owner_is_alive(self) -> bool {
        let owner = self.region.word(AT_OWNER).load(Ordering::Acquire);
        ClientId::from_raw(owner).is_some_and(ClientId::is_alive)
    }

    /// The channel with this number.
    #[inline]
    pub fn channel(self, number: u32) -> Option<Channel<'r>> {
        Some(Channel { rings: self, number, record: self.region.geometry().record_at(number)? })
    }

    /// Claims a free channel; `None` if there is none. Returns it with its new generation.
    pub fn claim(self, client: ClientId) -> Option<(Channel<'r>, u32)> {
        let mut channels = (0..self.channels()).filter_map(|number| self.channel(number));
        let free = |channel: &Channel| {
            let owner = channel.owner();
            owner.load(Ordering::Relaxed) == 0 && owner.swap_if(0, client.raw())
        };
        let channel = channels.find(free)?;
        Some((channel, channel.begin()))
    }
}

/// One channel.
#[derive(Clone, Copy)]
pub(crate) struct Channel<'r> {
    rings: Rings<'r>,
    pub number: u32,
    record: u64,
}

impl<'r> Channel<'r> {
    #[inline]
    fn word(self, at: u64) -> Word<'r> {
        self.rings.region.word(self.record + at)
    }

    /// The client process; 0 if the channel is free.
    #[inline]
    pub fn owner(self) -> Word<'r> {
        self.word(RECORD_OWNER)
    }

    /// 1 if the owner has left while answers were outstanding.
    pub fn leaving(self) -> Word<'r> {
        self.word(RECORD_LEAVING)
    }

    /// The bitmap of submitted entries.
    #[inline]
    pub fn submitted(self) -> Word<'r> {
        self.word(RECORD_SUBMITTED)
    }

    /// The entry that is watched, plus one.
    #[inline]
    pub fn watched(self) -> Word<'r> {
        self.word(RECORD_WATCHED)
    }

    /// The doorbell: its word, and the bit there.
    #[inline]
    pub fn bell(self) -> (Word<'r>, u64) {
        (self.rings.bells(self.number / 64), 1 << (self.number % 64))
    }

    /// The entry with this number.
    #[inline]
    pub fn entry(self, number: u32) -> Option<Entry<'r>> {
        let g = self.rings.region.geometry();
        let (cell, buffer) = (g.cell_at(self.number, number)?, g.buffer_at(self.number, number)?);
        Some(Entry { region: self.rings.region, cell, buffer })
    }

    /// The entries in order.
    pub fn entries(self) -> impl Iterator<Item = (u32, Entry<'r>)> {
        (0..ENTRIES).filter_map(move |number| Some((number, self.entry(number)?)))
    }

    /// Makes a claimed channel ready; returns its generation.
    fn begin(self) -> u32 {
        let word = self.word(RECORD_GENERATION);
        let generation = (word.load(Ordering::Relaxed) as u32).wrapping_add(1).max(1);
        word.store(generation as u64, Ordering::Relaxed);
        for (_, entry) in self.entries() {
            entry.state().store(Use::first(generation).state(Kind::Free), Ordering::Release);
        }
        self.submitted().store(0, Ordering::Release);
        generation
    }

    /// Gives the channel back. The daemon has no entry of it.
    pub fn release(self) {
        self.leaving().store(0, Ordering::Relaxed);
        self.submitted().store(0, Ordering::Relaxed);
        self.owner().store(0, Ordering::Release);
    }
}

/// One entry of a channel.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'r> {
    region: &'r Region,
    cell: u64,
    buffer: u64,
}

impl<'r> Entry<'r> {
    /// The state word ([`protocol`]).
    #[inline]
    pub fn state(self) -> Word<'r> {
        self.region.word(self.cell + CELL_STATE)
    }

    /// Puts a message in; one longer than [`BODY_MAX`] is cut off there, which no caller lets happen.
    #[inline]
    pub fn put(self, status: Status, message: &[u8]) {
        let message = &message[..message.len().min(BODY_MAX)];
        self.region.write(self.place(message.len()), message);
        let head = message.len() as u64 | (status as u64) << 32;
        self.region.word(self.cell + CELL_BODY_LEN).store(head, Ordering::Relaxed);
    }

    /// Calls `take` with what kind of answer is in the entry, and the message. `None` if there is
    /// neither, since something overwrote it.
    #[inline]
    pub fn get<T>(self, take: impl FnOnce(Status, &[u8]) -> T) -> Option<T> {
        let head = self.region.word(self.cell + CELL_BODY_LEN).load(Ordering::Relaxed);
        let (len, status) = (head as u32 as usize, Status::from_raw((head >> 32) as u32)?);
        if len <= FIRST_LINE {
            let mut bytes = [0; FIRST_LINE];
            self.region.read(self.place(len), &mut bytes[..len]);
            return Some(take(status, &bytes[..len]));
        }
        if len > BODY_MAX {
            return None;
        }
        let mut bytes = Vec::new();
        self.region.append(self.place(len), len, &mut bytes);
        Some(take(status, &bytes))
    }

    /// Where a message of this length is.
    #[inline]
    fn place(self, len: usize) -> u64 {
        if len <= INLINE { self.cell + CELL_BODY } else { self.buffer }
    }
}

/// Calls `take` with the message as bytes.
#[inline]
pub(crate) fn encode<M: Serialize, T>(
    message: &M,
    take: impl FnOnce(&[u8]) -> T,
) -> Result<T, postcard::Error> {
    let mut bytes = [0; FIRST_LINE];
    match postcard::to_slice(message, &mut bytes) {
        Ok(used) => Ok(take(used)),
        Err(postcard::Error::SerializeBufferFull) => encode_longer(message, take),
        Err(error) => Err(error),
    }
}

fn encode_longer<M: Serialize, T>(message: &M, take: impl FnOnce(&[u8]) -> T) -> Result<T, postcard::Error> {
    let mut bytes = [0; INLINE];
    match postcard::to_slice(message, &mut bytes) {
        Ok(used) => Ok(take(used)),
        Err(postcard::Error::SerializeBufferFull) => {
            Ok(take(&postcard::to_extend(message, Vec::with_capacity(BODY_MAX))?))
        }
        Err(error) => Err(error),
    }
}

/// The message that these bytes are, if they are all of one.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
