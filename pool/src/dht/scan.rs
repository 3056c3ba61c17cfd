//! Going through all keys, in an order of their hashes: segments by the top bits, within one by the slot.
//!
//! All segments have the same number of slots, and a key is in the same slot of whichever segment it is in. So a
//! place in the order is good also after the segment was split.

use super::chain::Witness;
use super::error::{DhtError, Fault};
use super::{Dht, Inner, Patience, Segment};

/// A place in the order of [`Dht::scan`]: still to come are, of the hashes from `start` to `end`, those in slots from `slot`
/// on, and all hashes from `end` on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    start: u64,
    end: u128,
    slot: u64,
}

/// Keys and their values.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

impl Dht {
    /// Keys and values from `from` on, about `limit` of them or somewhat more, and where to go on; `None` at the end. Begin with
    /// `Cursor::default()`.
    ///
    /// Every key that is there from the first call to the last is returned once, with a value that it had at
    /// some time between. A key that is inserted or removed meanwhile may be returned or not.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn scan(&self, from: Cursor, limit: usize) -> Result<(Entries, Option<Cursor>), DhtError> {
        let mut entries = Vec::new();
        let mut next = Some(from);
        while entries.len() < limit
            && let Some(cursor) = next
        {
            next = self.inner.scan_slot(cursor, limit, &mut entries)?;
        }
        Ok((entries, next))
    }

    /// As [`scan`](Self::scan), from the place of `key` on, which may be there or not.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn scan_from(&self, key: &[u8], limit: usize) -> Result<(Entries, Option<Cursor>), DhtError> {
        let hash = self.inner.hash(key)?;
        let segment = self.inner.directory.locate(&self.inner.space, hash)?;
        let cursor = Cursor { start: segment.first(), end: end(segment), slot: self.inner.slot(hash) };
        self.scan(cursor, limit)
    }

    /// All keys and values, as [`scan`](Self::scan) gives them.
    pub fn iter(&self) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), DhtError>> + '_ {
        let mut next = Some(Cursor::default());
        let mut entries = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = entries.next() {
                    return Some(Ok(entry));
                }
                match self.scan(next?, 256) {
                    Ok((found, cursor)) => (entries, next) = (found.into_iter(), cursor),
                    Err(error) => {
                        next = None;
                        return Some(Err(error));
                    }
                }
            }
        })
    }
}

/// One past the last hash that belongs to a segment.
fn end(segment: Segment) -> u128 {
    u128::from(segment.first()) + (1 << (64 - segment.depth()))
}

impl Inner {
    /// Adds the entries of slots from `cursor` on, up to the end of the segment or the limit; where to go on.
    fn scan_slot(
        &self,
        cursor: Cursor,
        limit: usize,
        entries: &mut Entries,
    ) -> Result<Option<Cursor>, DhtError> {
        let begin = entries.len();
        self.retrying(cursor.start, |segment| {
            entries.truncate(begin);
            self.scan_segment(segment, cursor, limit, entries)
        })
    }

    fn scan_segment(
        &self,
        segment: Segment,
        cursor: Cursor,
        limit: usize,
        entries: &mut Entries,
    ) -> Result<Option<Cursor>, Fault> {
        let (first, end) = (segment.first(), end(segment));
        if first < cursor.start || (cursor.slot > 0 && end > cursor.end) {
            // What this client knows is older than the cursor.
            return Err(Fault::Stale);
        }
        // One of several that the cursor's segment was split into is gone through to its end, so that the cursor need
        // not tell of each of them how far.
        let is_part = cursor.slot > 0 && end < cursor.end;
        let mut slot = cursor.slot;
        while slot < self.slots && (is_part || entries.len() < limit) {
            self.scan_chain(segment, slot, entries)?;
            slot += 1;
        }
        if slot < self.slots {
            return Ok(Some(Cursor { start: first, end, slot }));
        }
        let slot = if is_part { cursor.slot } else { 0 };
        // Past the last hash of all there is none.
        Ok(u64::try_from(end).ok().map(|start| Cursor { start, end: cursor.end, slot }))
    }

    /// Adds the entries of one slot, in this segment or in those that it was split into.
    fn scan_chain(&self, segment: Segment, slot: u64, entries: &mut Entries) -> Result<(), Fault> {
        let begin = entries.len();
        let mut patience = Patience::default();
        loop {
            match self.read_slot(segment, slot, entries) {
                Err(Fault::Retry) if patience.wait() => entries.truncate(begin),
                Err(Fault::Retry) => return Err(DhtError::Contended.into()),
                other => return other,
            }
        }
    }

    fn read_slot(&self, segment: Segment, slot: u64, entries: &mut Entries) -> Result<(), Fault> {
        let head = self.head(segment.at, slot)?;
        let mut witness = Witness { at: segment.at, slot, head };
        if head.is_frozen() {
            let children = self.children(segment.at)?.ok_or(Fault::Retry)?;
            let second = self.head(children[1], slot)?;
            if !second.is_untouched() {
                for (side, at) in children.into_iter().enumerate() {
                    self.read_slot(Segment { at, node: 2 * segment.node + side as u64 }, slot, entries)?;
                }
                return Ok(());
            }
            witness = Witness { at: children[1], slot, head: second };
        }
        let chain = self.chain(head.packed(), None, true)?;
        for link in &chain.links {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            self.space.take(link.header, &link.bytes, true, &mut key)?;
            self.space.take(link.header, &link.bytes, false, &mut value)?;
            entries.push((key, value));
        }
        self.confirm(witness)
    }
}
