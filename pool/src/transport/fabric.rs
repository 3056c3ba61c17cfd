//! What hardware with one-sided access offers to [`Racks`](super::Racks): links between daemons, by which one
//! reads and writes the other's frames without its processor, and sends it short messages.
//!
//! The rules that make one-sided access safe:
//!
//! 1. **A link opens the memory of its home with one key**, the one that its holder had when the home accepted
//!    it. Accesses by another key do not go by that link.
//! 2. **The home withdraws a key by closing what it has [accepted](Fabric::accept)**
//!    ([`Accepted::close`]) before the key counts as withdrawn. When that returns, nothing that comes by the
//!    link is carried out any more, nor is anything being carried out.
//! 3. **An access is over, and its callback called, only once the device does nothing more for it**: its good
//!    completion, after which the home's memory has it; or an error, after which what it did is unknown.
//!    Time alone never ends it. A link that is late is failed, which makes the device end all that is under way.
//!
//! So a daemon that acknowledges a Revoke once its callbacks have been called, and raises a doubt for each that
//! was an error, promises truly that nothing more lands: by 3 for what went well, and for the rest because a
//! home that hears of a doubt withdraws the key, which is 2. The home needs no word of its own about an
//! access under way.
//!
//! A good completion means that the home's *device* has the bytes. That its processors see them before whatever
//! they hear later from the same device is the order of writes on the bus, which no registration here gives up (there is
//! none with relaxed ordering); messages about those accesses therefore go by the same device.

use super::{Done, Handler, TransportError};
use crate::proto::{NodeId, Reply, Request};
use std::sync::{Arc, Weak};

/// Takes what came of an access by a link; the error is a reason. As [`Done`].
pub type Landed<T> = Box<dyn FnOnce(Result<T, String>) + Send>;

/// A request that was not sent, and who waits for its reply.
pub type Unsent = Box<(Request, Done<Reply>)>;

/// A device with one-sided access, and the memory of this rack registered with it.
pub trait Fabric: Send + Sync {
    /// What it is, for people.
    fn describe(&self) -> String;

    /// With whose operations the atomic operations of the device are atomic, by its own word: `none`, `HCA` (with
    /// its own), or `GLOB` (with those of processors too).
    fn atomics(&self) -> &'static str;

    /// Begins a link to another daemon; also returns what that is to be told.
    ///
    /// # Errors
    /// A reason.
    fn begin(&self) -> Result<(Box<dyn Begun>, Vec<u8>), String>;

    /// Accepts the link that another daemon has begun; also returns what that is to be told. Its messages
    /// go to `handler`.
    ///
    /// # Errors
    /// A reason.
    fn accept(
        &self,
        offer: &[u8],
        handler: Weak<dyn Handler>,
    ) -> Result<(Arc<dyn Accepted>, Vec<u8>), String>;
}

/// A link that the other side has not accepted yet.
pub trait Begun: Send {
    /// Makes it one to `to`, by that side's answer.
    ///
    /// # Errors
    /// A reason.
    fn finish(self: Box<Self>, to: NodeId, answer: &[u8]) -> Result<Arc<dyn Link>, String>;
}

/// The home's end of a link.
pub trait Accepted: Send + Sync {
    /// Ends it: see the second rule.
    fn close(&self);

    /// Whether it can still be used, as far as known.
    fn is_up(&self) -> bool;
}

/// The holder's end of a link.
pub trait Link: Send + Sync {
    /// Whether it can be used, as far as known.
    fn is_up(&self) -> bool;

    /// Ends it; what is under way fails.
    fn close(&self, why: &str);

    /// Reads `len` bytes of the home's region. Aligned words are read in one piece.
    ///
    /// # Errors
    /// Gives `done` back if nothing was begun.
    fn read(&self, offset: u64, len: u32, done: Landed<Vec<u8>>) -> Result<(), Landed<Vec<u8>>>;

    /// Writes to the home's region. Aligned words are written in one piece.
    ///
    /// # Errors
    /// Gives what it was given back if nothing was begun.
    fn write(&self, offset: u64, data: Vec<u8>, done: Landed<()>) -> Result<(), (Vec<u8>, Landed<()>)>;

    /// Copies `len` bytes of the home's region into this one's. Waits.
    ///
    /// # Errors
    /// A reason; what is at `into` is then unspecified.
    fn fetch(&self, from: u64, into: u64, len: u64) -> Result<(), String>;

    /// Sends a short request.
    ///
    /// # Errors
    /// Gives what it was given back if nothing was sent.
    fn request(&self, request: Request, done: Done<Reply>) -> Result<(), Unsent>;
}

/// The error of a request whose link broke.
pub(super) fn broken(to: NodeId, why: &str) -> TransportError {
    TransportError::Broken(to, format!("by RDMA: {why}"))
}
