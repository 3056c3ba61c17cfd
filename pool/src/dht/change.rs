//! Changing the record of a key: one compare-and-swap of its slot.

use super::chain::{Chain, Link, Witness, is_broken};
use super::error::{DhtError, Fault};
use super::layout::Head;
use super::places::Place;
use super::space::Fresh;
use super::{Inner, Segment};
use crate::error::PoolError;

/// An insertion after which a chain has so many records looks at how full the segment is.
const LONG: usize = 3;

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub enum Change<'v> {
    /// It stays as it is.
    Keep,
    /// It has this value.
    Put(&'v [u8]),
    /// It is not there.
    Remove,
}

/// Whether a change was made.
enum Done {
    Yes,
    /// The slot had changed; nothing was done.
    No(Fault),
    /// It may have been.
    Unknown(Fault),
}

impl Inner {
    /// Changes `key` as `decide` says, which is given its value (if `wants_value`, else an empty one) or
    /// `None`, and may be called several times; what it answered the last time is true.
    pub fn change<'v, T>(
        &self,
        key: &[u8],
        wants_value: bool,
        mut decide: impl FnMut(Option<&[u8]>) -> (Change<'v>, T),
    ) -> Result<T, DhtError> {
        let hash = self.hash(key)?;
        let mut prepared = None;
        let result = self.retrying(hash, |segment| {
            self.attempt(segment, key, hash, wants_value, &mut decide, &mut prepared)
        });
        if let Some(fresh) = prepared {
            self.space.discard(fresh);
        }
        result
    }

    fn attempt<'v, T>(
        &self,
        segment: Segment,
        key: &[u8],
        hash: u64,
        wants_value: bool,
        decide: &mut impl FnMut(Option<&[u8]>) -> (Change<'v>, T),
        prepared: &mut Option<Fresh>,
    ) -> Result<T, Fault> {
        let (segment, head) = self.writable(segment, hash)?;
        let slot = self.slot(hash);
        let chain = self.chain(head.packed(), Some((key, hash)), wants_value)?;
        let mut chain = self.whole(chain)?;
        let mut value = Vec::new();
        if wants_value && let Some(link) = chain.links.last().filter(|_| chain.found) {
            self.space.take(link.header, &link.bytes, false, &mut value)?;
        }
        self.confirm(Witness { at: segment.at, slot, head })?;
        let (change, answer) = decide(chain.found.then_some(&value[..]));
        let found = if chain.found { chain.links.pop() } else { None };
        let before = chain.links;
        match (change, &found) {
            (Change::Keep, _) | (Change::Remove, None) => return Ok(answer),
            (Change::Put(value), _) if prepared.is_none() => {
                *prepared = Some(self.space.prepare(key, value)?);
            }
            _ => {}
        }
        let puts = matches!(change, Change::Put(_));
        let mut new = Vec::new();
        let built = match &found {
            // In front of the others.
            None => self.build(prepared, hash, head.packed(), &[], &mut new),
            Some(found) => {
                let mut nothing = None;
                let fresh = if puts { &mut *prepared } else { &mut nothing };
                self.build(fresh, hash, found.header.link, &before, &mut new)
            }
        };
        let done = match built {
            Ok(first) => {
                let replaced: &[Link] = if found.is_some() { &before } else { &[] };
                self.publish(segment, slot, head, first, replaced, found.as_ref())
            }
            // What was sent may yet be written: that memory must not become somebody else's.
            Err(fault) if fault.is_open() => Done::Unknown(fault),
            Err(fault) => Done::No(fault),
        };
        match done {
            Done::Yes => {
                if puts && let Some(fresh) = prepared.take() {
                    self.remember(hash, &fresh);
                }
                if puts && found.is_none() && before.len() + 1 >= LONG {
                    self.consider_split(segment);
                }
                Ok(answer)
            }
            Done::No(fault) => {
                new.into_iter().for_each(|fresh| self.space.discard(fresh));
                Err(fault)
            }
            // What may be in the chain now must not be freed.
            Done::Unknown(fault) => {
                prepared.take();
                Err(fault)
            }
        }
    }

    /// The slot of this hash where it can be changed: helps a split that has come to it.
    fn writable(&self, mut segment: Segment, hash: u64) -> Result<(Segment, Head), Fault> {
        let slot = self.slot(hash);
        loop {
            let head = self.head(segment.at, slot)?;
            if !head.is_frozen() {
                return Ok((segment, head));
            }
            let children = self.children(segment.at)?.ok_or(Fault::Retry)?;
            self.move_slot(segment, children, slot)?;
            self.help(segment, children)?;
            let side = segment.side(hash);
            segment = Segment { at: children[side], node: 2 * segment.node + side as u64 };
        }
    }

    /// Reads the rest of the records that stand before the one that was found: they are copied if that changes.
    fn whole(&self, mut chain: Chain) -> Result<Chain, Fault> {
        if chain.found {
            let before = chain.links.len() - 1;
            for link in &mut chain.links[..before] {
                self.space.load(link.at, true, &mut link.bytes)?;
            }
        }
        Ok(chain)
    }

    /// Makes what stands in front of `tail`: copies of `before`, and then `fresh`, if any. Returns the first. The copies
    /// are added to `new`.
    fn build(
        &self,
        fresh: &mut Option<Fresh>,
        hash: u64,
        tail: u64,
        before: &[Link],
        new: &mut Vec<Fresh>,
    ) -> Result<u64, Fault> {
        let mut next = tail;
        if let Some(fresh) = fresh {
            self.space.place(fresh, hash, next)?;
            next = fresh.packed;
        }
        self.copies(before.iter(), next, new)
    }

    /// Copies records, so that the last is followed by `tail`; the first of them. They are added to `new`.
    pub fn copies<'l>(
        &self,
        links: impl DoubleEndedIterator<Item = &'l Link>,
        tail: u64,
        new: &mut Vec<Fresh>,
    ) -> Result<u64, Fault> {
        let mut next = tail;
        for link in links.rev() {
            let mut copy = self.space.copy(&link.bytes)?;
            // Of the hash only the upper half is in the record, and more is not used.
            let written = self.space.place(&mut copy, u64::from(link.header.hash()) << 32, next);
            next = copy.packed;
            new.push(copy);
            written?;
        }
        Ok(next)
    }

    fn publish(
        &self,
        segment: Segment,
        slot: u64,
        head: Head,
        first: u64,
        copied: &[Link],
        found: Option<&Link>,
    ) -> Done {
        for link in copied.iter().chain(found) {
            if let Err(fault) = self.space.invalidate(link.at, link.header) {
                return Done::No(fault);
            }
        }
        match self.swing(segment.at, slot, head, head.next(first)) {
            Ok(was) if was == head => {}
            Ok(_) => return Done::No(Fault::Retry),
            // A page that is not there was not changed.
            Err(Fault::Stale) => return Done::No(Fault::Stale),
            Err(fault) => return Done::Unknown(fault),
        }
        for link in copied {
            self.space.free(link.at, link.header, &link.bytes, false);
        }
        if let Some(link) = found {
            self.space.free(link.at, link.header, &link.bytes, true);
        }
        Done::Yes
    }

    /// This client will look for the record where it has just put it.
    fn remember(&self, hash: u64, fresh: &Fresh) {
        if let Some(header) = fresh.header().filter(|header| !header.is_large(self.space.size)) {
            self.places
                .put(hash, Place { packed: fresh.packed, len: fresh.bytes.len(), state: header.state });
        }
    }

    /// An operation on keys with this hash, again and again until it succeeds or fails.
    pub fn retrying<T>(
        &self,
        hash: u64,
        mut attempt: impl FnMut(Segment) -> Result<T, Fault>,
    ) -> Result<T, DhtError> {
        let mut segment = self.directory.locate(&self.space, hash)?;
        let mut patience = super::Patience::default();
        loop {
            match attempt(segment) {
                Ok(done) => return Ok(done),
                Err(Fault::Error(error)) => return Err(error),
                Err(Fault::Stale) => segment = self.directory.refresh(&self.space, hash)?,
                Err(Fault::Retry) => {}
            }
            self.counters.retry();
            if !patience.wait() {
                return Err(DhtError::Contended);
            }
        }
    }
}

/// What `is_broken` is about, where a split goes wrong on purpose.
pub(super) fn skips_freezing() -> bool {
    is_broken("dht-freeze")
}

impl From<Fault> for PoolError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Error(DhtError::Pool(error)) => error,
            other => Self::Os(format!("{other:?}")),
        }
    }
}
