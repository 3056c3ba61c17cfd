//! The bytes on a connection. Arithmetic only, no I/O. All numbers are little endian.
//!
//! Whoever connects says hello; the other side accepts, or refuses with a sentence and closes:
//!
//! ```text
//! hello    magic "RCHFSTCP" 8 | version 4 | from 4 | to 4 | cluster 16 | CRC-32 of these 36 bytes 4
//! welcome  magic "RCHFSTCP" 8 | 0: accepted, 1: refused 4 | length of the sentence 4 | sentence
//! ```
//!
//! A node is 1 for the master, 65536 plus the rack for a daemon, 0 for whoever serves nothing. Cluster 0 is
//! any. Then frames go both ways, each a request, or the reply with the same id:
//!
//! ```text
//! frame    length of the body 4 | CRC-32 of all the rest 4 | kind 1 | zero 7 | id 8 | body
//! ```
//!
//! A body is a [`Request`](crate::proto::Request) or [`Reply`](crate::proto::Reply) in postcard's format.

use crate::addr::RackId;
use crate::proto::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of all this and of the messages.
pub const VERSION: u32 = 5;
/// The longest body: a page of the largest size, and room for what describes it.
pub const BODY_MAX: usize = (4 << 20) + (64 << 10);
/// Bytes in front of a body.
pub const HEADER: usize = 24;
/// Bytes of a hello.
pub const HELLO: usize = 40;
/// Bytes of a welcome, without its sentence.
pub const WELCOME: usize = 16;
/// The longest sentence of a welcome.
pub const SENTENCE_MAX: usize = 1024;

const MAGIC: [u8; 8] = *b"RCHFSTCP";
const HELLO_CHECKED: usize = HELLO - 4;
const AT_CRC: usize = 4;
const AT_KIND: usize = 8;
const AT_ID: usize = 16;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a reply with the same id.
    Request,
    /// Answers a request.
    Reply,
}

/// What stands in front of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Which request.
    pub id: u64,
    /// Bytes of the body.
    pub len: usize,
}

/// Who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who connects; `None` serves nothing.
    pub from: Option<NodeId>,
    /// Whom it wants.
    pub to: NodeId,
    /// The cluster; 0 any.
    pub cluster: u128,
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not this protocol.
    #[error("this is not rchfs's protocol")]
    Magic,
    /// Another version.
    #[error("version {0} of the protocol, not {VERSION}; use programs of the same version")]
    Version(u32),
    /// A checksum is wrong.
    #[error("a checksum is wrong")]
    Checksum,
    /// Longer than anything that is sent.
    #[error("{0} bytes are longer than a message can be, {BODY_MAX}")]
    TooLong(usize),
    /// No message of this version.
    #[error("not a message of this version")]
    Undecodable,
}

fn code_of(node: Option<NodeId>) -> u32 {
    match node {
        None => 0,
        Some(NodeId::Master) => 1,
        Some(NodeId::Daemon(rack)) => 1 << 16 | u32::from(rack.0),
    }
}

fn node_of(code: u32) -> Result<Option<NodeId>, FrameError> {
    match code {
        0 => Ok(None),
        1 => Ok(Some(NodeId::Master)),
        _ if code >> 16 == 1 => Ok(Some(NodeId::Daemon(RackId(code as u16)))),
        _ => Err(FrameError::Undecodable),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

impl Hello {
    /// The bytes.
    pub fn encode(&self) -> [u8; HELLO] {
        let mut out = [0; HELLO];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&code_of(self.from).to_le_bytes());
        out[16..20].copy_from_slice(&code_of(Some(self.to)).to_le_bytes());
        out[20..36].copy_from_slice(&self.cluster.to_le_bytes());
        let crc = crc32fast::hash(&out[..HELLO_CHECKED]);
        out[HELLO_CHECKED..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn decode(bytes: &[u8; HELLO]) -> Result<Self, FrameError> {
        if bytes[..8] != MAGIC {
            return Err(FrameError::Magic);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            other => return Err(FrameError::Version(other)),
        }
        if u32_at(bytes, HELLO_CHECKED) != crc32fast::hash(&bytes[..HELLO_CHECKED]) {
            return Err(FrameError::Checksum);
        }
        let to = node_of(u32_at(bytes, 16))?.ok_or(FrameError::Undecodable)?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[20..36]);
        Ok(Self { from: node_of(u32_at(bytes, 12))?, to, cluster: u128::from_le_bytes(cluster) })
    }
}

/// The bytes that accept, or refuse for a reason.
pub fn welcome(refusal: Option<&str>) -> Vec<u8> {
    let mut sentence = refusal.unwrap_or_default();
    let mut end = sentence.len().min(SENTENCE_MAX);
    while !sentence.is_char_boundary(end) {
        end -= 1;
    }
    sentence = &sentence[..end];
    let mut out = Vec::with_capacity(WELCOME + sentence.len());
    out.extend(MAGIC);
    out.extend(u32::from(refusal.is_some()).to_le_bytes());
    out.extend((sentence.len() as u32).to_le_bytes());
    out.extend(sentence.as_bytes());
    out
}

/// How long the sentence of a refusal is; `None` if this accepts.
///
/// # Errors
/// [`FrameError`].
pub fn refused(bytes: &[u8; WELCOME]) -> Result<Option<usize>, FrameError> {
    if bytes[..8] != MAGIC {
        return Err(FrameError::Magic);
    }
    match (u32_at(bytes, 8), u32_at(bytes, 12) as usize) {
        (0, _) => Ok(None),
        (1, len) if len <= SENTENCE_MAX => Ok(Some(len)),
        (1, len) => Err(FrameError::TooLong(len)),
        _ => Err(FrameError::Undecodable),
    }
}

/// A whole frame.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(kind: Kind, id: u64, message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![0; HEADER];
    out = postcard::to_extend(message, out).map_err(|_| FrameError::Undecodable)?;
    let len = out.len() - HEADER;
    if len > BODY_MAX {
        return Err(FrameError::TooLong(len));
    }
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out[AT_KIND] = kind as u8;
    out[AT_ID..HEADER].copy_from_slice(&id.to_le_bytes());
    let crc = checksum(&out);
    out[AT_CRC..AT_KIND].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Over all of a frame but itself.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..AT_CRC]);
    hasher.update(&frame[AT_KIND..]);
    hasher.finalize()
}

/// What the header at the beginning of `bytes` says; `None` if there is not all of it yet.
///
/// # Errors
/// [`FrameError`]. The checksum is checked with the body.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some(head) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32_at(head, 0) as usize;
    if len > BODY_MAX {
        return Err(FrameError::TooLong(len));
    }
    let kind = match head[AT_KIND] {
        0 => Kind::Request,
        1 => Kind::Reply,
        _ => return Err(FrameError::Undecodable),
    };
    let mut id = [0; 8];
    id.copy_from_slice(&head[AT_ID..]);
    Ok(Some(Header { kind, id: u64::from_le_bytes(id), len }))
}

/// The message in a whole frame.
///
/// # Errors
/// [`FrameError::Checksum`], [`FrameError::Undecodable`].
pub fn message<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    check(frame)?;
    postcard::from_bytes(&frame[HEADER..]).map_err(|_| FrameError::Undecodable)
}

fn check(frame: &[u8]) -> Result<(), FrameError> {
    if frame.len() < HEADER || u32_at(frame, AT_CRC) != checksum(frame) {
        return Err(FrameError::Checksum);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Request;
    use crate::proto::page::PageRequest;

    #[test]
    fn a_hello_says_what_was_put_in_and_every_flipped_bit_is_noticed() {
        for from in [None, Some(NodeId::Master), Some(NodeId::Daemon(RackId(65535)))] {
            let hello = Hello { from, to: NodeId::Daemon(RackId(0)), cluster: 7 << 90 };
            let bytes = hello.encode();
            assert_eq!(Hello::decode(&bytes), Ok(hello));
            for bit in 0..8 * HELLO {
                let mut bad = bytes;
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Hello::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_says_what_was_put_in_and_every_flipped_bit_is_noticed() {
        let request = Request::Page(PageRequest::Free { runs: Vec::new() });
        let frame = encode(Kind::Request, 77, &request).unwrap();
        let len = frame.len() - HEADER;
        assert_eq!(header(&frame), Ok(Some(Header { kind: Kind::Request, id: 77, len })));
        assert_eq!(message(&frame), Ok(request.clone()));
        for bit in 0..8 * frame.len() {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let same = header(&bad).is_ok_and(|h| h.is_some_and(|h| h.len == len))
                && message::<Request>(&bad) == Ok(request.clone());
            assert!(!same, "bit {bit}");
        }
        for cut in 0..HEADER {
            assert_eq!(header(&frame[..cut]), Ok(None));
        }
    }

    #[test]
    fn a_refusal_has_a_sentence() {
        let long = "é".repeat(2000);
        for (sentence, expected) in [("no", 2), (&long, SENTENCE_MAX)] {
            let bytes = welcome(Some(sentence));
            assert_eq!(refused(bytes.first_chunk().unwrap()), Ok(Some(expected)));
            assert_eq!(bytes.len(), WELCOME + expected);
        }
        assert_eq!(refused(welcome(None).first_chunk().unwrap()), Ok(None));
        assert_eq!(refused(&[0; WELCOME]), Err(FrameError::Magic));
    }
}
