//! Slots, and the chains of records that hang from them.
//!
//! Records never change, but for the live bit of their state. A chain that was read is the slot's if the slot
//! has the same head before and after: what is in a chain is not freed.

use super::error::Fault;
use super::layout::{self, CHILDREN, Head, Header, PREFIX};
use super::{Inner, Segment};
use crate::addr::GAddr;
use crate::error::PoolError;

/// A chain that is longer is none.
const LENGTH_MAX: usize = 100_000;

/// A record of a chain.
#[derive(Debug)]
pub struct Link {
    pub at: GAddr,
    pub packed: u64,
    pub header: Header,
    /// As much as was asked for.
    pub bytes: Vec<u8>,
}

/// A chain up to the record that was looked for.
#[derive(Debug, Default)]
pub struct Chain {
    pub links: Vec<Link>,
    /// Whether the last of them is the one.
    pub found: bool,
}

impl Inner {
    /// Which slot of its segment a key with this hash is in.
    #[inline]
    pub fn slot(&self, hash: u64) -> u64 {
        (u64::from(hash as u32) * self.slots) >> 32
    }

    /// What is in a slot.
    #[inline]
    pub fn head(&self, at: GAddr, slot: u64) -> Result<Head, Fault> {
        self.counters.reads(1);
        self.space.word(at, PREFIX + slot * 8).map(Head).map_err(gone)
    }

    /// Puts `new` into a slot that has `old`; what it had.
    pub fn swing(&self, at: GAddr, slot: u64, old: Head, new: Head) -> Result<Head, Fault> {
        self.space.cas(at, PREFIX + slot * 8, old.0, new.0).map(Head).map_err(gone)
    }

    /// The two segments that this one is split into, if it is.
    pub fn children(&self, at: GAddr) -> Result<Option<[GAddr; 2]>, Fault> {
        self.counters.reads(1);
        let mut bytes = [0; 16];
        let from = self.space.at(at, CHILDREN[0])?;
        self.space.pool.read(from, &mut bytes).map_err(gone)?;
        let child = |i: usize| GAddr::from_raw(layout::word(&bytes, i * 8)?, self.space.size);
        Ok(child(0).zip(child(1)).map(<[GAddr; 2]>::from))
    }

    /// Reads the chain from `packed` on, up to the record of `key`, or all of it without one. `all`: whole
    /// records, not only their keys.
    pub fn chain(&self, mut packed: u64, key: Option<(&[u8], u64)>, all: bool) -> Result<Chain, Fault> {
        let mut chain = Chain::default();
        while packed != 0 && !chain.found {
            let at = layout::unpack(packed, self.space.size).ok_or(Fault::Retry)?;
            let mut bytes = Vec::new();
            self.counters.reads(1);
            let header = self.space.load(at, all, &mut bytes)?;
            if let Some((key, hash)) = key {
                chain.found = self.space.has_key(header, &bytes, key, hash)?;
            }
            chain.links.push(Link { at, packed, header, bytes });
            packed = header.link;
            if chain.links.len() > LENGTH_MAX {
                return Err(Fault::Retry);
            }
        }
        Ok(chain)
    }

    /// A slot of a segment for this hash that can be read now: its segment and head, and what has to be the
    /// same after reading for what was read to be true.
    pub fn readable(&self, mut segment: Segment, hash: u64) -> Result<(Head, Witness), Fault> {
        let slot = self.slot(hash);
        loop {
            let head = self.head(segment.at, slot)?;
            if !head.is_frozen() {
                return Ok((head, Witness { at: segment.at, slot, head }));
            }
            let children = self.children(segment.at)?.ok_or(Fault::Retry)?;
            // The second is filled last, and before that nothing changes in either, nor is anything freed.
            let second = self.head(children[1], slot)?;
            if second.is_untouched() && !is_broken("dht-both") {
                return Ok((head, Witness { at: children[1], slot, head: second }));
            }
            let side = segment.side(hash);
            segment = Segment { at: children[side], node: 2 * segment.node + side as u64 };
        }
    }

    /// Whether what was read meanwhile is true.
    pub fn confirm(&self, witness: Witness) -> Result<(), Fault> {
        if is_broken("dht-confirm") {
            return Ok(());
        }
        match self.head(witness.at, witness.slot)? == witness.head {
            true => Ok(()),
            false => Err(Fault::Retry),
        }
    }
}

/// A slot and what it had: as long as it has that, what was read below it has not changed.
#[derive(Clone, Copy, Debug)]
pub struct Witness {
    pub at: GAddr,
    pub slot: u64,
    pub head: Head,
}

/// A segment is not there any more.
pub fn gone(error: PoolError) -> Fault {
    Fault::gone_or(error, Fault::Stale)
}

/// Whether this program makes that mistake on purpose.
#[cfg(rchfs_breakable)]
pub fn is_broken(mistake: &str) -> bool {
    crate::breakage::is(mistake)
}

/// Whether this program makes that mistake on purpose: no.
#[cfg(not(rchfs_breakable))]
#[inline(always)]
pub fn is_broken(_: &str) -> bool {
    false
}
