//! The journal: segments in a directory, each appended to by one write a batch.
//!
//! Invariants: segments are numbered without gaps; only the last is written to, and every earlier one is
//! on the disk in whole (a segment is synced before its successor is used). A batch that could not be
//! written leaves no trace.

use super::frame::{self, Frame, SegmentId, Unnumbered};
use super::{StoreError, full_or_os};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PREFIX: &str = "journal.";

/// A segment that can be appended to.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: Arc<File>,
    id: SegmentId,
    len: u64,
}

/// What the journal held when it was opened: segments in order.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Old>);

#[derive(Debug)]
struct Old {
    path: PathBuf,
    id: SegmentId,
    bytes: Vec<u8>,
}

/// Where the good part of each old segment ends.
#[derive(Debug)]
pub(super) struct Endings(Vec<Ending>);

#[derive(Debug)]
struct Ending {
    path: PathBuf,
    whole: u64,
    torn: usize,
}

/// Segments that are no longer written to.
#[derive(Debug, Default)]
pub(super) struct Retired {
    /// Where they are.
    pub paths: Vec<PathBuf>,
    /// How long they are together, in bytes.
    pub len: u64,
}

impl Segment {
    /// A new segment, on the disk with its name.
    pub(super) fn create(dir: &Path, id: SegmentId) -> Result<Self, StoreError> {
        let path = dir.join(format!("{PREFIX}{:016}", id.number));
        let header = frame::segment_header(id);
        let make = || {
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            // One that a failed attempt left behind.
            file.set_len(0)?;
            file.write_all(&header)?;
            file.sync_data()?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = Arc::new(make().map_err(|why| full_or_os(dir, "making a journal in", why))?);
        Ok(Self { path, file, id, len: header.len() as u64 })
    }

    /// The id of the segment after this one.
    pub(super) fn next_id(&self) -> SegmentId {
        SegmentId { number: self.id.number + 1, ..self.id }
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The open file, to sync it without holding anything.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// `NoSpace` and `Os`: the segment is as before. `Stopped`: it could not be put back as before, and
    /// must not be appended to any more.
    pub(super) fn append(&mut self, seq: u64, batch: Unnumbered) -> Result<(), StoreError> {
        let bytes = batch.number(seq);
        if let Err(why) = (&*self.file).write_all(&bytes) {
            if let Err(worse) = self.file.set_len(self.len) {
                return Err(StoreError::Stopped(format!("{} cannot be cut: {worse}", self.path.display())));
            }
            return Err(full_or_os(&self.path, "writing", why));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}

/// Reads all segments in `dir`, without looking into them: which pool they are of is said by
/// [`Found::of_pool`].
pub(super) fn read(dir: &Path) -> Result<Found, StoreError> {
    let os = |why| full_or_os(dir, "reading", why);
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(os)? {
        let path = entry.map_err(os)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse().ok()) {
            let bytes = std::fs::read(&path).map_err(|why| full_or_os(&path, "reading", why))?;
            segments.push(Old { path, id: SegmentId { pool: 0, number }, bytes });
        }
    }
    segments.sort_unstable_by_key(|old: &Old| old.id.number);
    Ok(Found(segments))
}

impl Found {
    /// Is there no segment at all?
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of this pool, or they are refused.
    pub(super) fn of_pool(mut self, pool: u128) -> Self {
        self.0.iter_mut().for_each(|old| old.id.pool = pool);
        self
    }

    /// All batches after `applied`, in order.
    ///
    /// # Errors
    /// `Corrupt` if anything is wrong but the very end, which was being written.
    pub(super) fn frames(&self, applied: u64) -> Result<Vec<Frame<'_>>, StoreError> {
        let mut frames: Vec<Frame> = Vec::new();
        let mut last = applied;
        for (i, old) in self.0.iter().enumerate() {
            let damaged = |what: String| damaged(&old.path, what);
            let found = frame::scan(&old.bytes, old.id).map_err(damaged)?;
            for frame in found.frames.into_iter().filter(|frame| frame.seq > applied) {
                if frame.seq != last + 1 {
                    return Err(damaged(format!("changes {} to {} are missing", last + 1, frame.seq - 1)));
                }
                last = frame.seq;
                frames.push(frame);
            }
            if found.torn > 0 && i + 1 < self.0.len() {
                return Err(damaged("its end is missing, but there is a journal after it".into()));
            }
        }
        Ok(frames)
    }

    /// The number for the next segment.
    pub(super) fn next_number(&self) -> u64 {
        self.0.last().map_or(1, |old| old.id.number + 1)
    }

    /// Lets go of what was read, but for where it ends.
    pub(super) fn endings(self) -> Endings {
        let ending = |old: Old| {
            let torn = frame::scan(&old.bytes, old.id).map_or(0, |found| found.torn);
            Ending { path: old.path, whole: (old.bytes.len() - torn) as u64, torn }
        };
        Endings(self.0.into_iter().map(ending).collect())
    }
}

impl Endings {
    /// Makes these segments ones that another can follow: without an unfinished end, and on the disk.
    ///
    /// # Errors
    /// `NoSpace`, `Os`
    pub(super) fn retire(self) -> Result<Retired, StoreError> {
        let mut retired = Retired::default();
        for Ending { path, whole, torn } in self.0 {
            settle(&path, whole, torn).map_err(|why| full_or_os(&path, "finishing", why))?;
            if whole > 0 {
                retired.len += whole;
                retired.paths.push(path);
            }
        }
        Ok(retired)
    }
}

/// Leaves `whole` bytes of a segment, on the disk.
fn settle(path: &Path, whole: u64, torn: usize) -> std::io::Result<()> {
    if torn > 0 {
        log::warn!("{}: the last {torn} bytes are a change that was never finished; cut off", path.display());
    }
    if whole == 0 {
        return std::fs::remove_file(path);
    }
    let file = OpenOptions::new().write(true).open(path)?;
    if torn > 0 {
        file.set_len(whole)?;
    }
    file.sync_all()
}

fn damaged(path: &Path, what: String) -> StoreError {
    let advice = "nothing was changed; restore the directory from a backup, or move this file and all \
                  later journals away to go on without the changes in them";
    StoreError::Corrupt { place: path.display().to_string(), what: format!("{what}; {advice}") }
}
