//! The sled database itself: records by key, what it is for, and how far it has come.

use super::{Identity, StoreError, Wanted};
use crate::change::Change;
use crate::store::codec::{self, WHOLE};
use crate::store::frame::{self, Frame};
use pool::addr::PageSize;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Version of the records.
const FORMAT: u32 = 1;
const HEADER_KEY: [u8; 2] = [WHOLE, 0];
const APPLIED_KEY: [u8; 2] = [WHOLE, 2];
/// sled's cache, in bytes. It is read once and then only written.
const CACHE: u64 = 32 << 20;
/// How long a former database may take to let go of its files, and between two looks whether it has.
const HANDOVER: Duration = Duration::from_secs(5);
const HANDOVER_STEP: Duration = Duration::from_millis(5);
/// Records between two looks at whether to go on.
const STRIDE: usize = 1024;

/// What the database is for.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    pool: u128,
    page_shift: u32,
}

/// The database.
pub(super) struct Base {
    path: PathBuf,
    /// `None` after a failure, until it is opened again.
    db: Option<sled::Db>,
    identity: Identity,
    applied: u64,
}

/// A new value for each key, or its removal.
pub(super) type Target = HashMap<Vec<u8>, Option<Vec<u8>>>;

/// What these batches come to; the number of one that is no list of records instead.
pub(super) fn target_of(frames: &[Frame<'_>]) -> Result<Target, u64> {
    let mut target = Target::new();
    for frame in frames {
        for record in frame::records(frame.records) {
            let (key, value) = record.ok_or(frame.seq)?;
            target.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }
    Ok(target)
}

fn sorted(target: &Target) -> Vec<(&[u8], Option<&[u8]>)> {
    let mut all: Vec<_> = target.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
    all.sort_unstable_by_key(|(key, _)| *key);
    all
}

impl Base {
    /// Opens the database in `dir`. An empty one is made into one for what is wanted if it `may_be_new`.
    pub(super) fn open(dir: &Path, wanted: Wanted, may_be_new: bool) -> Result<Self, StoreError> {
        let path = dir.join("db");
        let (Wanted::This(identity) | Wanted::AnyOr(identity)) = wanted;
        let mut base = Self { db: Some(open_sled(&path)?), path, identity, applied: 0 };
        let header = Header { format: FORMAT, pool: identity.pool, page_shift: identity.page_size.shift() };
        match base.get(&HEADER_KEY)? {
            Some(stored) => base.identity = base.check(&stored, &header, wanted)?,
            None if may_be_new && base.db()?.is_empty() => base.put_header(&header)?,
            None => return Err(base.corrupt("it does not say which pool it is for")),
        }
        if let Some(applied) = base.get(&APPLIED_KEY)? {
            base.applied = codec::number(&applied)
                .ok_or_else(|| base.corrupt("the number of its last batch is none"))?;
        }
        Ok(base)
    }

    /// What it is for.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// The number of the last batch it has.
    pub(super) fn applied(&self) -> u64 {
        self.applied
    }

    /// Brings it to this target and says that it has all batches up to `seq`, durably. `false` if
    /// `go_on` said to stop before that.
    pub(super) fn apply(
        &mut self,
        target: &Target,
        seq: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        if self.db.is_none() {
            self.db = Some(open_sled(&self.path)?);
        }
        let result = self.try_apply(target, seq, go_on);
        if result.is_err() {
            // After a failure sled answers nothing but that failure.
            self.db = None;
        }
        result
    }

    fn try_apply(&self, target: &Target, seq: u64, go_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        for some in sorted(target).chunks(STRIDE) {
            if !go_on() {
                return Ok(false);
            }
            some.iter().try_for_each(|(key, value)| self.put(key, *value))?;
        }
        self.seal(seq)?;
        Ok(true)
    }

    /// Gives every record to `visit`, in the order of keys, as if `over` had been applied.
    pub(super) fn load(&self, over: &Target, visit: &mut dyn FnMut(Change)) -> Result<(), StoreError> {
        let over = sorted(over);
        let mut over = over.iter().peekable();
        let mut give = |key: &[u8], value: &[u8]| match codec::decode(key, value) {
            Some(change) => {
                visit(change);
                Ok(())
            }
            None if key == HEADER_KEY || key == APPLIED_KEY => Ok(()),
            None => Err(self.corrupt(&format!("the record {} cannot be read", hex(key)))),
        };
        for record in self.db()?.iter() {
            let (key, value) = record.map_err(|why| self.failed(why))?;
            while let Some((new, value)) = over.next_if(|(new, _)| *new < &key[..]) {
                value.map_or(Ok(()), |value| give(new, value))?;
            }
            match over.next_if(|(new, _)| *new == &key[..]) {
                Some((_, value)) => value.map_or(Ok(()), |value| give(&key, value))?,
                None => give(&key, &value)?,
            }
        }
        over.try_for_each(|(key, value)| value.map_or(Ok(()), |value| give(key, value)))
    }

    /// A batch of the journal is no list of records, though its checksum is right.
    pub(super) fn unreadable(&self, batch: u64) -> StoreError {
        self.corrupt(&format!("batch {batch} of its journal cannot be read"))
    }

    /// First everything, then the number that says so: it must never be on the disk alone.
    fn seal(&self, seq: u64) -> Result<(), StoreError> {
        self.flush()?;
        self.put(&APPLIED_KEY, Some(&seq.to_be_bytes()))?;
        self.flush()
    }

    fn put_header(&self, header: &Header) -> Result<(), StoreError> {
        let bytes = postcard::to_allocvec(header).map_err(|why| self.corrupt(&why.to_string()))?;
        self.put(&HEADER_KEY, Some(&bytes))?;
        self.flush()
    }

    fn check(&self, stored: &[u8], wanted: &Header, which: Wanted) -> Result<Identity, StoreError> {
        let stored: Header = postcard::from_bytes(stored)
            .map_err(|_| self.corrupt("what it says about the pool it is for cannot be read"))?;
        let place = self.path.parent().unwrap_or(&self.path).display();
        let refuse = |what: String| Err(StoreError::Mismatch(what));
        match () {
            () if stored.format != wanted.format => refuse(format!(
                "the state in {place} has format {}, and this program reads format {}: use the program \
                 that made it, or another state directory",
                stored.format, wanted.format
            )),
            () if matches!(which, Wanted::AnyOr(_)) => self.identity_in(&stored),
            () if stored.page_shift != wanted.page_shift => refuse(format!(
                "the state in {place} is for pages of {} bytes, and the pool has pages of {}: give \
                 page_size={} or another state directory",
                1u64 << stored.page_shift.min(63),
                1u64 << wanted.page_shift,
                1u64 << stored.page_shift.min(63)
            )),
            () if stored.pool != wanted.pool => refuse(format!(
                "the state in {place} is that of pool {:032x}, and this is pool {:032x}: give the memory \
                 (cxl=) that it was made with, or another state directory",
                stored.pool, wanted.pool
            )),
            () => self.identity_in(&stored),
        }
    }

    fn identity_in(&self, stored: &Header) -> Result<Identity, StoreError> {
        let page_size = PageSize::from_shift(stored.page_shift);
        let page_size = page_size.ok_or_else(|| self.corrupt("the size of its pages is none"))?;
        Ok(Identity { pool: stored.pool, page_size })
    }

    fn db(&self) -> Result<&sled::Db, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::Stopped("the database failed before".into()))
    }

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.db()?.get(key).map_err(|why| self.failed(why))
    }

    fn put(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), StoreError> {
        let db = self.db()?;
        let put = match value {
            Some(value) => db.insert(key, value),
            None => db.remove(key),
        };
        put.map(drop).map_err(|why| self.failed(why))
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db()?.flush().map(drop).map_err(|why| self.failed(why))
    }

    fn failed(&self, why: sled::Error) -> StoreError {
        failed(&self.path, why)
    }

    fn corrupt(&self, what: &str) -> StoreError {
        let what = format!("{what}; restore the directory from a backup, or use another state directory");
        StoreError::Corrupt { place: self.path.display().to_string(), what }
    }
}

fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
    wait_for_former(path);
    let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None);
    config.open().map_err(|why| failed(path, why))
}

/// Waits until nobody has sled's own lock, a flock(2) on its file.
///
/// We hold the lock on the directory, so the only one who can have it is a database that this process, or
/// one on its way out, has dropped: sled lets go of its files in the background, after `drop` returns. sled
/// itself does not wait but fails. If it takes too long, or cannot be found out, sled is left to say so.
fn wait_for_former(path: &Path) {
    let deadline = Instant::now() + HANDOVER;
    // There is none yet, or sled will say why it cannot be opened.
    let Ok(file) = File::open(path.join("db")) else { return };
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => sleep(HANDOVER_STEP),
            _ => break,
        }
    }
    // Not left to closing the file: a child that is being forked may have it open for a moment longer.
    let _ = flock(&file, FlockOperation::Unlock);
}

fn failed(path: &Path, why: sled::Error) -> StoreError {
    match why {
        sled::Error::Io(why) if matches!(why.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            StoreError::NoSpace { place: path.display().to_string() }
        }
        sled::Error::Io(source) => StoreError::Os { what: format!("using {}", path.display()), source },
        why => {
            let what = format!("{why}; restore the directory from a backup, or use another state directory");
            StoreError::Corrupt { place: path.display().to_string(), what }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
