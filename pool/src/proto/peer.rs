//! What the daemon of one rack asks of the daemon of another.
//!
//! **References.** A daemon that reads and writes a page of another rack in place first asks for a
//! [`Reference`] to it; the home of the page remembers who has one. Before the page moves or is freed the
//! home revokes all references to it: [`PeerRequest::Revoke`] is answered when no access by that
//! reference is under way any more. A holder that does not answer is fenced: its key becomes worthless,
//! once no access by it is under way, and it has to ask anew.
//!
//! **A swap** takes [`Prepare`](PeerRequest::Prepare) and [`Finish`](PeerRequest::Finish), with the
//! master's [`Commit`](super::cluster::ClusterRequest::Commit) between them as the point from which the
//! pages are where they go. The requester asks for `page`, and may offer a page of its own for it.

use super::cluster::SwapToken;
use super::page::PageKind;
use crate::addr::{GAddr, PageId, PageRun, RackId};
use serde::{Deserialize, Serialize};

/// A request between daemons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// Give me a reference to a page of yours. Answered by [`PeerReply::Reference`], [`PeerReply::Moving`]
    /// or [`PeerReply::NotHere`].
    Acquire {
        /// The rack that will hold it.
        holder: RackId,
        /// The page.
        page: PageId,
    },
    /// I do not use these pages any more. Answered by [`PeerReply::Done`], also if the key is not valid any
    /// more, when nothing is done.
    Release {
        /// The rack that held references.
        holder: RackId,
        /// The key of those references.
        key: u64,
        /// The pages. None: the key itself is given up, since the holder does not know what came of an
        /// access; once that is answered no access by it can happen any more.
        pages: Vec<PageId>,
    },
    /// Give up your references to these pages of mine. Answered by [`PeerReply::Done`] once no access by
    /// them is under way.
    Revoke {
        /// The rack that the pages are in.
        home: RackId,
        /// The pages.
        pages: Vec<PageId>,
    },
    /// Read by reference. What a transport without one-sided access sends for
    /// [`Transport::start_read`](crate::transport::Transport::start_read). Answered by
    /// [`PeerReply::Data`] or [`PeerReply::Fenced`].
    ReadAt {
        /// Where.
        at: RemoteAt,
        /// Bytes.
        len: u32,
    },
    /// Write by reference, likewise. Answered by [`PeerReply::Done`] or [`PeerReply::Fenced`].
    WriteAt {
        /// Where.
        at: RemoteAt,
        /// What.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Read from a page of yours, as your own clients do. Answered by [`PeerReply::Data`], [`PeerReply::Moving`] or
    /// [`PeerReply::NotHere`].
    Read {
        /// First byte.
        at: GAddr,
        /// Bytes; at most [`ACCESS_MAX`](super::page::ACCESS_MAX), all in one page.
        len: u32,
    },
    /// Compare and swap a word of a page of yours, by your processor. Answered by [`PeerReply::Was`],
    /// [`PeerReply::Moving`] or [`PeerReply::NotHere`].
    Cas {
        /// The word.
        at: GAddr,
        /// What it must be.
        old: u64,
        /// What it becomes.
        new: u64,
    },
    /// Give out pages of your rack, zeroed; as many as there are, up to `pages`. Answered by
    /// [`PeerReply::Runs`].
    Alloc {
        /// How many.
        pages: u64,
        /// Whose they will be.
        kind: PageKind,
    },
    /// Take back those of these pages that are yours. Answered by [`PeerReply::Freed`].
    Free {
        /// The pages.
        runs: Vec<PageRun>,
    },
    /// Give out an object in a page of your rack
    /// ([`AllocObject`](super::page::PageRequest::AllocObject)). Answered by [`PeerReply::Object`].
    AllocObject {
        /// Bytes.
        size: u64,
    },
    /// Take back an object in a page of yours. Answered by [`PeerReply::Done`], [`PeerReply::NotHere`],
    /// [`PeerReply::Moving`] or an error.
    FreeObject {
        /// Its first byte.
        at: GAddr,
    },
    /// Make those of these pages that are yours survive loss of power. Answered by [`PeerReply::Done`].
    Sync {
        /// The pages.
        runs: Vec<PageRun>,
    },
    /// Freeze `page` for a move to my rack. Answered by [`PeerReply::Ready`] with what it holds, or
    /// [`PeerReply::Refused`].
    Prepare {
        /// Names the swap.
        token: SwapToken,
        /// The page that is wanted.
        page: PageId,
        /// Its heat in the requester's rack.
        heat: f64,
        /// The page that comes in return, if any, frozen.
        victim: Option<Image>,
        /// Whether the requester can fetch the page from where it lies.
        lend: bool,
    },
    /// The end of a prepared swap. Answered by [`PeerReply::Done`].
    Finish {
        /// Names the swap.
        token: SwapToken,
        /// Whether the pages have moved.
        committed: bool,
    },
    /// Accept a link for one-sided access by my key ([`fabric`](crate::transport::fabric)). Answered by
    /// [`PeerReply::Linked`], or an error if there is no such access.
    Link {
        /// The rack that will have it.
        holder: RackId,
        /// What the transport there is to be told.
        #[serde(with = "serde_bytes")]
        offer: Vec<u8>,
    },
    /// I have withdrawn your key: a link to me for it is dead. Answered by [`PeerReply::Done`].
    Unlink {
        /// The rack whose memory it was a link to.
        home: RackId,
        /// The key.
        key: u64,
    },
}

/// An answer of a daemon to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerReply {
    /// See [`Reference`].
    Reference(Reference),
    /// The page is being moved or freed: ask again a little later.
    Moving,
    /// The page is not in this rack.
    NotHere,
    /// The key is not valid (any more).
    Fenced,
    /// What was read.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// What the word was.
    Was(u64),
    /// Pages given out.
    Runs(Vec<PageRun>),
    /// Where the object is.
    Object(GAddr),
    /// How many pages were taken back.
    Freed(u64),
    /// The page is frozen.
    Ready {
        /// What it holds.
        image: Image,
        /// The incarnation of this daemon, for [`Commit`](super::cluster::ClusterRequest::Commit).
        incarnation: u64,
    },
    /// The page stays.
    Refused(Refusal),
    /// Done.
    Done,
    /// The link is accepted, for accesses by this key.
    Linked {
        /// As in the [`Reference`].
        key: u64,
        /// What the transport here is to be told.
        #[serde(with = "serde_bytes")]
        answer: Vec<u8>,
    },
}

/// What a holder needs to access a page of another rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Where its frame begins in the home's region, in bytes.
    pub offset: u64,
    /// The holder's right to access that region. One for all pages of a rack; changes when the holder is
    /// fenced, and when the home is restarted.
    pub key: u64,
}

/// A place in another rack's region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteAt {
    /// Bytes from the beginning of the region.
    pub offset: u64,
    /// As in the [`Reference`].
    pub key: u64,
    /// Who accesses.
    pub holder: RackId,
}

/// A page on its way.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Which.
    pub page: PageId,
    /// Whose.
    pub kind: PageKind,
    /// CRC-32 of `data`.
    pub crc: u32,
    /// What it holds: a whole page; nothing if it is lent.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Where in the sender's region it lies, to be [fetched](crate::transport::Transport::fetch) from there. It stays
    /// frozen there until the swap is over.
    pub lent: Option<u64>,
}

impl Image {
    /// `data` as the contents of `page`.
    pub fn new(page: PageId, kind: PageKind, data: Vec<u8>) -> Self {
        let crc = crc32fast::hash(&data);
        Self { page, kind, crc, data, lent: None }
    }

    /// What lies at `offset` of the sender's region, with that CRC-32, as the contents of `page`.
    pub fn lent(page: PageId, kind: PageKind, crc: u32, offset: u64) -> Self {
        Self { page, kind, crc, data: Vec::new(), lent: Some(offset) }
    }

    /// Whether it is `len` bytes long, and as it was made; of what is lent that is not known yet.
    pub fn is_sound(&self, len: u64) -> bool {
        self.lent.is_some() || self.data.len() as u64 == len && crc32fast::hash(&self.data) == self.crc
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({}, {:?}, {} bytes, crc {:x})", self.page, self.kind, self.data.len(), self.crc)
    }
}

/// Why a page stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It is used at least as much where it is.
    Hotter,
    /// It is being moved or freed already, or a client does not let go of it.
    Busy,
    /// It is not in this rack.
    NotHere,
    /// There is no room for what comes in return.
    Full,
    /// The image that came in return is damaged.
    BadImage,
}
