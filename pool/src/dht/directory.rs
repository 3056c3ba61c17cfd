//! Which segment a key is in: what this client knows, and the trie in the pool, which is the truth.
//!
//! What a client knows may be old. It notices because a segment that was split has frozen slots, and later is
//! freed, after which an access to it is an error; then it looks into the trie.

use super::error::{DhtError, Fault};
use super::layout::{self, DEPTH_MAX, PREFIX, SPLIT};
use super::space::Space;
use crate::addr::GAddr;
use crate::error::PoolError;
use parking_lot::RwLock;

/// A segment and its node in the trie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub at: GAddr,
    pub node: u64,
}

impl Segment {
    /// So many bits of the hashes of its keys are the same.
    pub fn depth(self) -> u32 {
        self.node.ilog2()
    }

    /// Which of the two that it is split into has the keys with this hash.
    pub fn side(self, hash: u64) -> usize {
        (hash >> (63 - self.depth()) & 1) as usize
    }

    /// The first hash, from the top bits, that belongs to it.
    pub fn first(self) -> u64 {
        let depth = self.depth();
        if depth == 0 { 0 } else { self.node << (64 - depth) }
    }
}

/// What this client knows.
pub struct Directory {
    root: GAddr,
    known: RwLock<Known>,
    /// Addresses of the trie's pages, 0 for those not seen yet. They never change.
    pages: RwLock<Vec<u64>>,
}

struct Known {
    depth: u32,
    /// By the top `depth` bits of the hash. The root stands for a segment that is not known yet.
    segments: Vec<Segment>,
}

impl Directory {
    /// Reads where the first segment is, or what became of it.
    pub fn open(space: &Space, root: GAddr) -> Result<Self, DhtError> {
        let first = Segment { at: root, node: 1 };
        let known = RwLock::new(Known { depth: 0, segments: vec![first] });
        let pages = RwLock::new(vec![0; (space.size.bytes() - PREFIX) as usize / 8]);
        let directory = Self { root, known, pages };
        directory.refresh(space, 0)?;
        Ok(directory)
    }

    /// The segment of keys with this hash, as far as is known; looks it up if nothing is.
    #[inline]
    pub fn locate(&self, space: &Space, hash: u64) -> Result<Segment, DhtError> {
        let known = self.known(hash);
        if known.at == self.root { self.refresh(space, hash) } else { Ok(known) }
    }

    #[inline]
    fn known(&self, hash: u64) -> Segment {
        let known = self.known.read();
        known.segments[index(hash, known.depth)]
    }

    /// Looks it up in the trie.
    pub fn refresh(&self, space: &Space, hash: u64) -> Result<Segment, DhtError> {
        let segment = self.walk(space, hash)?;
        let mut known = self.known.write();
        while known.depth < segment.depth() {
            known.segments = known.segments.iter().flat_map(|segment| [*segment; 2]).collect();
            known.depth += 1;
        }
        let spare = known.depth - segment.depth();
        let first = index(segment.first(), known.depth);
        known.segments[first..first + (1 << spare)].fill(segment);
        Ok(segment)
    }

    /// The leaf of the trie for this hash.
    fn walk(&self, space: &Space, hash: u64) -> Result<Segment, DhtError> {
        // Nodes that were split stay so: what is known is a good place to begin.
        let mut node = self.known(hash).node;
        loop {
            let word = self.get(space, node)?;
            if word & 1 == 1 {
                let at = GAddr::from_raw(word & !1, space.size);
                let at = at.ok_or_else(|| damaged(node, word))?;
                return Ok(Segment { at, node });
            }
            if word != SPLIT || node.ilog2() > DEPTH_MAX {
                return Err(damaged(node, word));
            }
            node = 2 * node + (hash >> (63 - node.ilog2()) & 1);
        }
    }

    /// The word of that node.
    pub fn get(&self, space: &Space, node: u64) -> Result<u64, DhtError> {
        match self.place(space, node, false)? {
            Some((page, offset)) => Ok(space.word(page, offset)?),
            None => Ok(0),
        }
    }

    /// Compare-and-swap of the word of that node; what it was. Makes the page that it is in.
    pub fn cas(&self, space: &Space, node: u64, old: u64, new: u64) -> Result<u64, DhtError> {
        match self.place(space, node, true)? {
            Some((page, offset)) => Ok(space.cas(page, offset, old, new)?),
            None => Err(damaged(node, 0)),
        }
    }

    /// Whether the trie has room for the two nodes below that one.
    pub fn has_room_below(&self, space: &Space, node: u64) -> bool {
        let words = space.size.bytes() / 8;
        node.ilog2() < DEPTH_MAX && (2 * node + 1) / words < self.pages.read().len() as u64
    }

    fn place(&self, space: &Space, node: u64, make: bool) -> Result<Option<(GAddr, u64)>, DhtError> {
        let words = space.size.bytes() / 8;
        let (number, offset) = ((node / words) as usize, node % words * 8);
        let known = self.pages.read().get(number).copied();
        let known = known.ok_or_else(|| damaged(node, 0))?;
        let raw = if known != 0 { known } else { self.page(space, number, make)? };
        if raw == 0 {
            return Ok(None);
        }
        let page = GAddr::from_raw(raw, space.size).ok_or_else(|| damaged(node, raw))?;
        Ok(Some((page, offset)))
    }

    fn page(&self, space: &Space, number: usize, make: bool) -> Result<u64, DhtError> {
        let at = PREFIX + number as u64 * 8;
        let mut raw = space.word(self.root, at)?;
        if raw == 0 && make {
            let page = space.page()?;
            raw = match space.cas(self.root, at, 0, page.raw())? {
                0 => page.raw(),
                other => {
                    space.free_page(page);
                    other
                }
            };
        }
        self.pages.write()[number] = raw;
        Ok(raw)
    }

    /// The pages of the trie that there are.
    pub fn trie_pages(&self, space: &Space) -> Result<Vec<GAddr>, PoolError> {
        let count = self.pages.read().len();
        let mut bytes = vec![0; count * 8];
        space.pool.read(space.at(self.root, PREFIX)?, &mut bytes)?;
        let pages = (0..count).filter_map(|i| GAddr::from_raw(layout::word(&bytes, i * 8)?, space.size));
        Ok(pages.collect())
    }
}

fn index(hash: u64, depth: u32) -> usize {
    if depth == 0 { 0 } else { (hash >> (64 - depth)) as usize }
}

fn damaged(node: u64, word: u64) -> DhtError {
    DhtError::Damaged(format!("node {node} of the trie is {word:#x}"))
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        Self::Error(error.into())
    }
}
