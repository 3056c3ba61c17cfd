//! Words and records of a table in the pool.

use super::error::{DhtError, Fault};
use super::layout::{self, HEADER, Header, padded};
use crate::addr::{GAddr, PageRun, PageSize};
use crate::client::{Fill, Pool};
use crate::error::PoolError;
use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// So much of a record is read at once, before its length is known.
const GUESS: u64 = 192;

/// The pool, as a table uses it.
#[derive(Clone, Debug)]
pub struct Space {
    pub pool: Pool,
    pub size: PageSize,
}

impl Space {
    pub fn new(pool: Pool) -> Self {
        let size = pool.page_size();
        Self { pool, size }
    }

    /// The address `offset` bytes after `base`.
    #[inline]
    pub fn at(&self, base: GAddr, offset: u64) -> Result<GAddr, PoolError> {
        base.checked_add(offset, self.size).ok_or(PoolError::BadAddress { at: base.raw(), len: offset })
    }

    /// The word `offset` bytes after `base`.
    #[inline]
    pub fn word(&self, base: GAddr, offset: u64) -> Result<u64, PoolError> {
        let mut bytes = [0; 8];
        self.pool.read(self.at(base, offset)?, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Compare-and-swap of that word; what it was.
    pub fn cas(&self, base: GAddr, offset: u64, old: u64, new: u64) -> Result<u64, PoolError> {
        self.pool.cas(self.at(base, offset)?, old, new)
    }

    /// Writes that word.
    pub fn set(&self, base: GAddr, offset: u64, value: u64) -> Result<(), PoolError> {
        self.pool.write(self.at(base, offset)?, &value.to_ne_bytes())
    }

    /// A page of zeroes.
    pub fn page(&self) -> Result<GAddr, PoolError> {
        let page = self.pool.alloc_page()?;
        GAddr::new(page, 0, self.size).ok_or(PoolError::BadAddress { at: page.raw(), len: 0 })
    }

    /// Gives a page back, if that can be done; else it is lost to the pool until the pool ends.
    pub fn free_page(&self, at: GAddr) {
        if let Some(page) = at.page(self.size)
            && let Err(error) = self.pool.free_page(page)
        {
            log::warn!("page {page} of a hash table is not needed any more, and cannot be freed: {error}");
        }
    }

    /// Reads the record at `at` into `bytes`: its header, its key, and if `all` is set the rest. What was freed
    /// meanwhile, or never was a record, is [`Fault::Retry`].
    pub fn load(&self, at: GAddr, all: bool, bytes: &mut Vec<u8>) -> Result<Header, Fault> {
        bytes.clear();
        let in_page = self.size.bytes() - at.offset(self.size);
        self.more(at, GUESS.min(in_page), bytes)?;
        let header = Header::of(bytes).ok_or(Fault::Retry)?;
        let large = header.is_large(self.size);
        let wanted = match all {
            _ if large => {
                self.more(at, HEADER as u64 + 8, bytes)?;
                let runs = layout::word(bytes, HEADER).ok_or(Fault::Retry)?;
                runs.checked_mul(16).and_then(|len| len.checked_add(HEADER as u64 + 8)).ok_or(Fault::Retry)?
            }
            true => HEADER as u64 + header.payload(),
            false => HEADER as u64 + header.key_len(),
        };
        if wanted > in_page {
            return Err(Fault::Retry);
        }
        self.more(at, wanted, bytes)?;
        if all || large {
            bytes.truncate(wanted as usize);
        }
        Ok(header)
    }

    /// Reads on until `bytes` has the first `wanted` of what is at `at`.
    fn more(&self, at: GAddr, wanted: u64, bytes: &mut Vec<u8>) -> Result<(), Fault> {
        let have = bytes.len() as u64;
        if wanted <= have {
            return Ok(());
        }
        let from = self.at(at, have).map_err(|error| Fault::gone_or(error, Fault::Retry))?;
        bytes.resize(wanted as usize, 0);
        self.pool.read(from, &mut bytes[have as usize..]).map_err(|error| Fault::gone_or(error, Fault::Retry))
    }

    /// Whether the record that was [loaded](Self::load) has this key.
    pub fn has_key(&self, header: Header, bytes: &[u8], key: &[u8], hash: u64) -> Result<bool, Fault> {
        if header.hash() != (hash >> 32) as u32 || header.key_len() != key.len() as u64 {
            return Ok(false);
        }
        if !header.is_large(self.size) {
            return Ok(bytes.get(HEADER..HEADER + key.len()).ok_or(Fault::Retry)? == key);
        }
        let mut stored = Vec::new();
        self.payload(bytes, 0, key.len() as u64, &mut stored)?;
        Ok(stored == key)
    }

    /// Appends key or value of a record that was loaded whole to `out`.
    pub fn take(&self, header: Header, bytes: &[u8], key: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (from, len) = match key {
            true => (0, header.key_len()),
            false => (padded(header.key_len()), header.value_len()),
        };
        if header.is_large(self.size) {
            return self.payload(bytes, from, len, out);
        }
        let from = HEADER + from as usize;
        out.extend_from_slice(bytes.get(from..from + len as usize).ok_or(Fault::Retry)?);
        Ok(())
    }

    /// Appends `len` bytes from byte `from` of what a large record's runs hold.
    fn payload(&self, bytes: &[u8], from: u64, len: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        let runs = layout::runs(bytes).ok_or(Fault::Retry)?;
        // What makes no sense must not become an allocation.
        if self.capacity(&runs) < from.saturating_add(len) {
            return Err(Fault::Retry);
        }
        self.each_piece(&runs, from, len, |at, _, piece| self.pool.read_into(at, piece as usize, out))
            .map_err(|error| Fault::gone_or(error, Fault::Retry))
    }

    fn capacity(&self, runs: &[PageRun]) -> u64 {
        runs.iter().map(|run| u64::from(run.count) << self.size.shift()).sum()
    }

    /// Calls `act` with the address, the place and the length of each piece of `len` bytes from `from` on that lies in one run.
    fn each_piece(
        &self,
        runs: &[PageRun],
        mut from: u64,
        len: u64,
        mut act: impl FnMut(GAddr, u64, u64) -> Result<(), PoolError>,
    ) -> Result<(), PoolError> {
        let mut done = 0;
        for run in runs {
            let bytes = u64::from(run.count) << self.size.shift();
            if from >= bytes {
                from -= bytes;
                continue;
            }
            let piece = (bytes - from).min(len - done);
            if piece > 0 {
                let first = GAddr::new(run.first, 0, self.size);
                let first = first.ok_or(PoolError::BadAddress { at: run.first.raw(), len: bytes })?;
                act(self.at(first, from)?, done, piece)?;
            }
            (from, done) = (0, done + piece);
        }
        Ok(())
    }

    /// A record of key and value that is written but for its first three words, which [`place`](Self::place)
    /// gives it. Nobody else knows of it.
    pub fn prepare(&self, key: &[u8], value: &[u8]) -> Result<Fresh, DhtError> {
        let (key_len, value_len) = (key.len() as u64, value.len() as u64);
        let whole = HEADER as u64 + padded(key_len) + padded(value_len);
        if whole <= self.size.bytes() {
            return self.keep(layout::inline(key, value), Vec::new());
        }
        let pages = self.size.pages_for(padded(key_len) + padded(value_len));
        let runs = self.pool.alloc_runs(pages, 0, Fill::Uninit)?;
        let written = self
            .each_piece(&runs, 0, key_len, |at, done, len| self.pool.write(at, part(key, done, len)))
            .and_then(|()| {
                let from = padded(key_len);
                self.each_piece(&runs, from, value_len, |at, done, len| {
                    self.pool.write(at, part(value, done, len))
                })
            });
        if let Err(error) = written {
            self.free_runs(&runs);
            return Err(error.into());
        }
        let record = layout::outline(key_len, value_len, &runs);
        if record.len() as u64 > self.size.bytes() {
            self.free_runs(&runs);
            let (wanted, free) = (pages, 0);
            return Err(PoolError::OutOfMemory { wanted, free }.into());
        }
        self.keep(record, runs)
    }

    /// A copy of a record that was loaded whole; it has the same runs.
    pub fn copy(&self, bytes: &[u8]) -> Result<Fresh, DhtError> {
        self.keep(bytes.to_vec(), Vec::new())
    }

    fn keep(&self, bytes: Vec<u8>, runs: Vec<PageRun>) -> Result<Fresh, DhtError> {
        let fresh = self.pool.alloc((bytes.len() as u64).max(64)).map_err(DhtError::from).and_then(|at| {
            match layout::pack(at) {
                Some(packed) => Ok((at, packed)),
                None => {
                    self.free_object(at);
                    Err(DhtError::AddressTooHigh)
                }
            }
        });
        match fresh {
            Ok((at, packed)) => Ok(Fresh { at, packed, bytes, runs }),
            Err(error) => {
                self.free_runs(&runs);
                Err(error)
            }
        }
    }

    /// Writes a fresh record, with `link` as the next one of its chain.
    pub fn place(&self, fresh: &mut Fresh, hash: u64, link: u64) -> Result<(), PoolError> {
        layout::seal(&mut fresh.bytes, identity(hash), (hash >> 32) as u32, link);
        self.pool.write(fresh.at, &fresh.bytes)
    }

    /// Gives back a record that is in no chain, and its runs if they are its own.
    pub fn discard(&self, fresh: Fresh) {
        self.free_object(fresh.at);
        self.free_runs(&fresh.runs);
    }

    /// Gives back a record that is in no chain any more; with its runs if `deep`.
    pub fn free(&self, at: GAddr, header: Header, bytes: &[u8], deep: bool) {
        if deep && header.is_large(self.size) {
            self.free_runs(&layout::runs(bytes).unwrap_or_default());
        }
        self.free_object(at);
    }

    fn free_object(&self, at: GAddr) {
        if let Err(error) = self.pool.free(at) {
            log::warn!("a record of a hash table is not needed any more, and cannot be freed: {error}");
        }
    }

    fn free_runs(&self, runs: &[PageRun]) {
        if !runs.is_empty()
            && let Err(error) = self.pool.free_runs(runs)
        {
            log::warn!("pages of a hash table are not needed any more, and cannot be freed: {error}");
        }
    }

    /// Takes the live bit from a record: whoever has seen it looks at its slot from now on.
    pub fn invalidate(&self, at: GAddr, header: Header) -> Result<(), Fault> {
        #[cfg(rchfs_breakable)]
        if crate::breakage::is("dht-invalidate") {
            return Ok(());
        }
        if !header.is_live() {
            return Ok(());
        }
        // If it is not what it was, somebody else has done so.
        let done = self.pool.cas(at, header.state, header.state & !1);
        done.map(drop).map_err(|error| Fault::gone_or(error, Fault::Retry))
    }
}

fn part(bytes: &[u8], from: u64, len: u64) -> &[u8] {
    &bytes[from as usize..(from + len) as usize]
}

/// A record that nobody else knows of yet.
#[derive(Debug)]
pub struct Fresh {
    pub at: GAddr,
    pub packed: u64,
    pub bytes: Vec<u8>,
    /// Its own.
    runs: Vec<PageRun>,
}

impl Fresh {
    /// The runs belong to another record, or to the chain that this one is now in.
    pub fn header(&self) -> Option<Header> {
        Header::of(&self.bytes)
    }
}

/// An identity that no other record has: 16 bits of the hash, and 47 by chance.
fn identity(hash: u64) -> u64 {
    (hash >> 48) << 47 | random() >> 17
}

/// Any number.
pub fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::process::id()));
    }
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
