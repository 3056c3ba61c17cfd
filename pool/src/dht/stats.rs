//! What a table is made of, found by going through all of it.

use super::chain::gone;
use super::error::{DhtError, Fault};
use super::layout::{self, HEADER, Head, PREFIX};
use super::{Dht, Inner, Segment};
use crate::error::PoolError;

/// What a table is made of. While others change it the numbers are about right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Keys.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// Segments, of a page each.
    pub segments: u64,
    /// Slots of all segments.
    pub slots: u64,
    /// Bits of the hash that tell segments apart: the fewest and the most.
    pub depth: (u32, u32),
    /// How many chains have no record, one, two and so on.
    pub chains: Vec<u64>,
    /// Pages for root and trie.
    pub directory_pages: u64,
}

impl Stats {
    /// Records for each slot.
    pub fn load(&self) -> f64 {
        self.records as f64 / self.slots.max(1) as f64
    }

    /// Records that are looked at to find a key that is there, on average.
    pub fn probes(&self) -> f64 {
        let sum: f64 = (1..)
            .zip(self.chains.iter().skip(1))
            .map(|(n, count): (u64, &u64)| (n * (n + 1) / 2 * count) as f64)
            .sum();
        sum / self.records.max(1) as f64
    }

    /// Records that are looked at to find that a key is not there, on average.
    pub fn probes_of_absent(&self) -> f64 {
        self.load()
    }

    /// Pages that are touched to find a key that is there by way of its segment: that one, and one a record.
    pub fn pages(&self) -> f64 {
        1.0 + self.probes()
    }
}

impl Dht {
    /// Counts everything. Reads the whole index and the header of each record.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn stats(&self) -> Result<Stats, DhtError> {
        let inner = &*self.inner;
        let pages = inner.directory.trie_pages(&inner.space)?.len() as u64;
        let mut stats = Stats { directory_pages: 1 + pages, depth: (u32::MAX, 0), ..Stats::default() };
        let mut hash = 0u64;
        loop {
            let before = stats.clone();
            let segment = inner.retrying(hash, |segment| {
                stats = before.clone();
                inner.count(segment, &mut stats).map(|()| segment)
            })?;
            match segment.depth() {
                0 => break,
                depth => match segment.first().checked_add(1 << (64 - depth)) {
                    Some(next) => hash = next,
                    None => break,
                },
            }
        }
        Ok(stats)
    }

    /// Frees everything. Nobody may use the table any more, here or elsewhere.
    ///
    /// # Errors
    /// [`DhtError`]; what is left then stays allocated.
    pub fn destroy(self) -> Result<(), DhtError> {
        let inner = &*self.inner;
        let mut hash = 0u64;
        loop {
            let segment = inner.directory.refresh(&inner.space, hash)?;
            // A split that nobody finished: finish it, and look again.
            if let Some(children) = inner.children(segment.at).map_err(PoolError::from)? {
                while inner.help(segment, children).map_err(PoolError::from)? {}
                continue;
            }
            inner.free_segment(segment).map_err(PoolError::from)?;
            match segment.depth() {
                0 => break,
                depth => match segment.first().checked_add(1 << (64 - depth)) {
                    Some(next) => hash = next,
                    None => break,
                },
            }
        }
        for page in inner.directory.trie_pages(&inner.space)? {
            inner.space.free_page(page);
        }
        inner.space.free_page(inner.root);
        Ok(())
    }
}

impl Inner {
    fn heads(&self, segment: Segment) -> Result<Vec<Head>, Fault> {
        let mut bytes = vec![0; self.slots as usize * 8];
        self.space.pool.read(self.space.at(segment.at, PREFIX)?, &mut bytes).map_err(gone)?;
        Ok((0..self.slots as usize).filter_map(|i| layout::word(&bytes, i * 8).map(Head)).collect())
    }

    fn count(&self, segment: Segment, stats: &mut Stats) -> Result<(), Fault> {
        if let Some(children) = self.children(segment.at)? {
            // Rather than to count one that is being split, help.
            while self.help(segment, children)? {}
            return Err(Fault::Stale);
        }
        stats.segments += 1;
        stats.slots += self.slots;
        stats.depth = (stats.depth.0.min(segment.depth()), stats.depth.1.max(segment.depth()));
        let mut bytes = Vec::new();
        for head in self.heads(segment)? {
            let (mut packed, mut length) = (head.packed(), 0usize);
            while let Some(at) = layout::unpack(packed, self.space.size) {
                bytes.resize(HEADER, 0);
                match self.space.pool.read(at, &mut bytes[..HEADER]) {
                    Ok(()) => {}
                    Err(PoolError::NoSuchPage(_) | PoolError::BadAddress { .. }) => break,
                    Err(error) => return Err(error.into()),
                }
                let Some(header) = layout::Header::of(&bytes) else { break };
                stats.bytes += header.key_len() + header.value_len();
                packed = header.link;
                length += 1;
                // Records may be replaced meanwhile; what then looks like a chain is not followed for ever.
                if length > 1000 {
                    break;
                }
            }
            stats.records += length as u64;
            if stats.chains.len() <= length {
                stats.chains.resize(length + 1, 0);
            }
            stats.chains[length] += 1;
        }
        Ok(())
    }

    fn free_segment(&self, segment: Segment) -> Result<(), Fault> {
        for head in self.heads(segment)? {
            for link in self.chain(head.packed(), None, true)?.links {
                self.space.free(link.at, link.header, &link.bytes, true);
            }
        }
        self.space.free_page(segment.at);
        Ok(())
    }
}
