//! A hash table in the pool: byte strings to byte strings, used by any number of clients in any racks at once.
//!
//! ```no_run
//! use pool::addr::RackId;
//! use pool::dht::{Dht, DhtError, Exchange};
//! use pool::Pool;
//!
//! # fn main() -> Result<(), DhtError> {
//! let table = Dht::create(&Pool::connect("10.0.0.1:31850", RackId(1))?)?;
//! // Whoever knows this address can use the table: `Dht::open(&pool, root)`.
//! println!("{:#x}", table.root().raw());
//! table.insert(b"colour", b"green")?;
//! assert_eq!(table.get(b"colour")?.as_deref(), Some(&b"green"[..]));
//! // Only if it is still what it was.
//! let done = table.compare_and_swap(b"colour", Some(b"green"), Some(b"blue"))?;
//! assert_eq!(done, Exchange::Done);
//! assert!(table.remove(b"colour")?);
//! # Ok(())
//! # }
//! ```
//!
//! # What a program may rely on
//!
//! - Each key is linearizable under all operations but [`scan`](Dht::scan) and [`stats`](Dht::stats), from any
//!   client in any rack, while pages move, the table grows, and clients are killed or stopped.
//! - No operation waits for another client. One that is killed leaves at most a few records and a page that nobody
//!   frees; one that is stopped and goes on later changes nothing that it should not.
//! - Keys have up to 16 MiB and values up to 1 TiB. What does not fit into a page with its header has pages of its own.
//! - A failed change was not made, unless the error is one of [`DhtError::Pool`]: then it may have been, or may be later.
//! - In a full pool lookups work, and so do most removals; one that has to copy another record of the same slot fails.
//!
//! # How it works
//!
//! Extendible hashing, with segments as in Nam et al., "Write-Optimized Dynamic Hashing for Persistent Memory"
//! (CCEH, FAST '19), and without locks. The first bits of a key's hash choose a **segment**, a page; others choose a
//! **slot** in it, a word, from which a chain of **records** hangs (`layout`). Records are objects of the pool that never
//! change once they are in a chain. Whatever is done to a key is one compare-and-swap of its slot, whose word also
//! has a tag that changes each time: that is the moment at which it happens. So nobody can be between two
//! steps of a change that others would have to wait for, or to clean up after.
//!
//! A lookup reads the slot, the chain, and the slot again: if that has not changed the chain was what it was, although
//! records that are replaced are freed at once and their memory is used again. It is shorter the second time:
//! a client keeps the places of records that it has seen, and a record has a live bit, which is taken from it before it is
//! replaced. So a get is one access to the pool, which matters most if that is in another rack: one message.
//!
//! A segment that has too many records is split by whoever notices (`split`), slot by slot, while others use it. A
//! directory of segments is kept by each client for itself, and corrected when it turns out to be old (`directory`).
//!
//! Of what can be wrong by chance: a tag comes again after 131,071 changes of a slot, so a client that is held up between
//! reading a slot and changing it for exactly a multiple of that, and finds the same address there, would undo a change. A
//! record that is overwritten while it is being read at a remembered place is told by its CRC.

mod chain;
mod change;
mod counters;
mod directory;
mod error;
mod layout;
mod places;
mod scan;
mod space;
mod split;
mod stats;

pub use counters::Counts;
pub use error::DhtError;
pub use scan::{Cursor, Entries};
pub use stats::Stats;

use crate::addr::GAddr;
use crate::client::Pool;
use crate::error::PoolError;
use change::Change;
use counters::Counters;
use directory::{Directory, Segment};
use error::Fault;
use layout::{HEADER, Header, KEY_MAX, MAGIC, PREFIX, VALUE_MAX, padded};
use places::{Place, Places};
use space::Space;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Records for each slot, above which a segment is split.
const LOAD_MAX: f64 = 1.0;

/// How many places a client remembers unless told otherwise: 4 MiB.
const PLACES: usize = 1 << 18;

/// What came of a [`compare_and_swap`](Dht::compare_and_swap).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// The key had the expected value, and has the new one.
    Done,
    /// The key had this value (`None`: it was not there), and still has.
    Was(Option<Vec<u8>>),
}

/// A hash table as one process uses it. Clones are the same; all methods may be called from any number of
/// threads at once.
#[derive(Clone)]
pub struct Dht {
    inner: Arc<Inner>,
}

struct Inner {
    space: Space,
    root: GAddr,
    seed: u64,
    slots: u64,
    directory: Directory,
    places: Places,
    counters: Counters,
}

impl Dht {
    /// Makes an empty table: four pages.
    ///
    /// # Errors
    /// [`DhtError::Pool`]; what was allocated until then is freed.
    pub fn create(pool: &Pool) -> Result<Self, DhtError> {
        let space = Space::new(pool.clone());
        let mut pages = Vec::new();
        match make(&space, &mut pages) {
            Ok(root) => Self::open(pool, root),
            Err(error) => {
                pages.into_iter().for_each(|page| space.free_page(page));
                Err(error.into())
            }
        }
    }

    /// The table whose [`root`](Self::root) is at that address.
    ///
    /// # Errors
    /// [`DhtError::NoTable`]; or [`DhtError::Pool`].
    pub fn open(pool: &Pool, root: GAddr) -> Result<Self, DhtError> {
        Self::open_with(pool, root, PLACES)
    }

    /// As [`open`](Self::open); remembers where so many records are (16 bytes each, rounded up to a power of two).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(pool: &Pool, root: GAddr, places: usize) -> Result<Self, DhtError> {
        let space = Space::new(pool.clone());
        let none = || DhtError::NoTable(root.raw());
        if root.offset(space.size) != 0 {
            return Err(none());
        }
        let mut bytes = [0; PREFIX as usize];
        match pool.read(root, &mut bytes) {
            Err(PoolError::NoSuchPage(_) | PoolError::BadAddress { .. }) => return Err(none()),
            other => other?,
        }
        let word = |at: u64| layout::word(&bytes, at as usize).unwrap_or(0);
        let slots = word(layout::SLOTS);
        if word(0) != MAGIC || slots != slots_of(&space) {
            return Err(none());
        }
        let directory = Directory::open(&space, root)?;
        let (places, counters, seed) = (Places::new(places.max(1)), Counters::default(), word(layout::SEED));
        Ok(Self { inner: Arc::new(Inner { space, root, seed, slots, directory, places, counters }) })
    }

    /// Where the table is: what others need to open it.
    pub fn root(&self) -> GAddr {
        self.inner.root
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, DhtError> {
        let mut value = Vec::new();
        Ok(self.get_into(key, &mut value)?.then_some(value))
    }

    /// Puts the value of `key` into `value`, whose former content goes; false if the key is not there.
    ///
    /// # Errors
    /// [`DhtError`].
    #[inline]
    pub fn get_into(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, DhtError> {
        let hash = self.inner.hash(key)?;
        if self.inner.get_at_place(key, hash, value) {
            return Ok(true);
        }
        self.inner.retrying(hash, |segment| self.inner.get(segment, key, hash, value))
    }

    /// Gives `key` that value, whether it had one or not. True if it was not there before.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn insert(&self, key: &[u8], value: &[u8]) -> Result<bool, DhtError> {
        check_value(value)?;
        self.inner.change(key, false, |found| (Change::Put(value), found.is_none()))
    }

    /// Gives `key` that value if it has one; whether it had.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn update(&self, key: &[u8], value: &[u8]) -> Result<bool, DhtError> {
        check_value(value)?;
        let put = |found: Option<&[u8]>| match found {
            Some(_) => (Change::Put(value), true),
            None => (Change::Keep, false),
        };
        self.inner.change(key, false, put)
    }

    /// Takes `key` away; whether it was there.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn remove(&self, key: &[u8]) -> Result<bool, DhtError> {
        self.inner.change(key, false, |found| (Change::Remove, found.is_some()))
    }

    /// Gives `key` the value `new` if it has `expected`, as one step. `None` stands for a key that is not
    /// there, on both sides.
    ///
    /// # Errors
    /// [`DhtError`].
    pub fn compare_and_swap(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<Exchange, DhtError> {
        new.map_or(Ok(()), check_value)?;
        self.inner.change(key, true, |found| match (found == expected, new) {
            (true, Some(new)) => (Change::Put(new), Exchange::Done),
            (true, None) => (Change::Remove, Exchange::Done),
            (false, _) => (Change::Keep, Exchange::Was(found.map(<[u8]>::to_vec))),
        })
    }

    /// What this client has done, since it opened the table.
    pub fn counts(&self) -> Counts {
        self.inner.counters.sum()
    }
}

impl Inner {
    #[inline]
    fn hash(&self, key: &[u8]) -> Result<u64, DhtError> {
        match key.len() as u64 {
            0..=KEY_MAX => Ok(layout::hash(self.seed, key)),
            len => Err(DhtError::KeyTooLong { len, most: KEY_MAX }),
        }
    }

    /// Reads the record that this client has seen last for this hash, if that is still the key's.
    #[inline]
    fn get_at_place(&self, key: &[u8], hash: u64, value: &mut Vec<u8>) -> bool {
        thread_local!(static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        let Some(Place { packed, len, state }) = self.places.get(hash) else { return false };
        let Some(at) = layout::unpack(packed, self.space.size) else { return false };
        RECORD.with_borrow_mut(|record| {
            // Objects take whole lines, which are copied at once.
            let lines = len.next_multiple_of(64);
            if record.len() < lines {
                record.resize(lines, 0);
            }
            // Whatever is wrong will be found again at the slot, and told.
            if self.space.pool.read(at, &mut record[..lines]).is_err() {
                return false;
            }
            let record = &record[..len];
            let Some(header) = Header::of(record).filter(|header| header.state == state) else {
                return false;
            };
            let (from, long) = (HEADER + padded(header.key_len()) as usize, header.value_len() as usize);
            let ours = record.get(HEADER..HEADER + key.len()) == Some(key)
                && header.key_len() == key.len() as u64
                && layout::is_sound(record);
            let Some(found) = record.get(from..).and_then(|rest| rest.get(..long)).filter(|_| ours) else {
                return false;
            };
            value.clear();
            value.extend_from_slice(found);
            self.counters.at_place();
            true
        })
    }

    fn get(&self, segment: Segment, key: &[u8], hash: u64, value: &mut Vec<u8>) -> Result<bool, Fault> {
        let (head, witness) = self.readable(segment, hash)?;
        let chain = self.chain(head.packed(), Some((key, hash)), true)?;
        value.clear();
        let Some(link) = chain.links.last().filter(|_| chain.found) else {
            self.confirm(witness)?;
            self.counters.looked();
            return Ok(false);
        };
        self.space.take(link.header, &link.bytes, false, value)?;
        self.confirm(witness)?;
        self.counters.looked();
        if !layout::is_sound(&link.bytes) {
            let at = link.at.raw();
            return Err(DhtError::Damaged(format!("the record at {at:#x} has a wrong checksum")).into());
        }
        if link.header.is_live() && !link.header.is_large(self.space.size) {
            let (packed, len) = (link.packed, link.bytes.len());
            self.places.put(hash, Place { packed, len, state: link.header.state });
        }
        Ok(true)
    }
}

fn check_value(value: &[u8]) -> Result<(), DhtError> {
    match value.len() as u64 {
        0..=VALUE_MAX => Ok(()),
        len => Err(DhtError::ValueTooLong { len, most: VALUE_MAX }),
    }
}

/// How many slots a segment has.
fn slots_of(space: &Space) -> u64 {
    (space.size.bytes() - PREFIX) / 8
}

fn make(space: &Space, pages: &mut Vec<GAddr>) -> Result<GAddr, PoolError> {
    let mut page = || space.page().inspect(|page| pages.push(*page));
    let (root, trie, segment) = (page()?, page()?, page()?);
    space.set(segment, 0, 1)?;
    space.set(trie, 8, split::leaf(segment))?;
    space.set(root, PREFIX, trie.raw())?;
    space.set(root, layout::SEED, space::random())?;
    space.set(root, layout::SLOTS, slots_of(space))?;
    space.set(root, 0, MAGIC)?;
    Ok(root)
}

/// How long an operation is tried again.
#[derive(Default)]
struct Patience {
    rounds: u32,
    since: Option<Instant>,
}

impl Patience {
    const LONGEST: Duration = Duration::from_secs(10);

    /// Waits a little; false if that has gone on for too long.
    fn wait(&mut self) -> bool {
        self.rounds += 1;
        match self.rounds {
            0..16 => std::hint::spin_loop(),
            16..200 => std::thread::yield_now(),
            _ => {
                std::thread::sleep(Duration::from_micros(50));
                return self.since.get_or_insert_with(Instant::now).elapsed() < Self::LONGEST;
            }
        }
        true
    }
}

impl std::fmt::Debug for Dht {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dht").field("root", &self.inner.root).finish_non_exhaustive()
    }
}
