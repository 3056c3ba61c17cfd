//! The bytes of a journal segment.
//!
//! ```text
//! segment   magic 8 | format 4 | number 8 | pool 16 | CRC-32 of these 36 bytes 4 | frame ...
//! frame     length of the records 4 | CRC-32 of length, sequence and records 4 | sequence 8 | record ...
//! record    length of the key 2 | length of the value 4, or ffff_ffff to remove | key | value
//! ```
//!
//! All numbers little-endian. A frame is one batch; sequence numbers go up by one from frame to frame,
//! also from segment to segment. Whatever ends within the last frame, or is no frame at the end, was
//! being written when the system went down; a frame that is wrong with good ones after it is damage.

use super::codec::Record;

const MAGIC: [u8; 8] = *b"rchfsjnl";
const FORMAT: u32 = 1;
/// Bytes of a segment before its first frame.
pub(super) const SEGMENT_HEADER: usize = 40;
const FRAME_HEADER: usize = 16;
const REMOVED: u32 = u32::MAX;

/// Which segment of which pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentId {
    /// Identity of the pool.
    pub pool: u128,
    /// Place in the order of segments.
    pub number: u64,
}

/// A frame that checks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its place in the order of all frames.
    pub seq: u64,
    /// Its records.
    pub records: &'a [u8],
}

/// What a segment holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan<'a> {
    /// Frames in order.
    pub frames: Vec<Frame<'a>>,
    /// Bytes at the end that are no frame.
    pub torn: usize,
}

/// The first bytes of a segment.
pub(super) fn segment_header(id: SegmentId) -> [u8; SEGMENT_HEADER] {
    let mut header = [0; SEGMENT_HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..20].copy_from_slice(&id.number.to_le_bytes());
    header[20..36].copy_from_slice(&id.pool.to_le_bytes());
    let crc = crc32fast::hash(&header[..36]);
    header[36..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// A batch that is a frame but for its number.
pub(super) struct Unnumbered(Vec<u8>);

impl Unnumbered {
    /// Of these records; `None` if it would be too long to be one.
    pub(super) fn new(records: &[Record]) -> Option<Self> {
        let mut out = vec![0; FRAME_HEADER];
        for (key, value) in records {
            let value_len = match value {
                Some(value) => u32::try_from(value.len()).ok().filter(|len| *len != REMOVED)?,
                None => REMOVED,
            };
            out.extend(u16::try_from(key.len()).ok()?.to_le_bytes());
            out.extend(value_len.to_le_bytes());
            out.extend(key);
            out.extend(value.iter().flatten());
        }
        let len = u32::try_from(out.len() - FRAME_HEADER).ok()?;
        out[..4].copy_from_slice(&len.to_le_bytes());
        Some(Self(out))
    }

    /// The frame, with this number.
    pub(super) fn number(self, seq: u64) -> Vec<u8> {
        let Self(mut out) = self;
        let len = [out[0], out[1], out[2], out[3]];
        let seq = seq.to_le_bytes();
        let crc = checksum(len, seq, &out[FRAME_HEADER..]).to_le_bytes();
        out[4..8].copy_from_slice(&crc);
        out[8..16].copy_from_slice(&seq);
        out
    }
}

fn checksum(len: [u8; 4], seq: [u8; 8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&len);
    hasher.update(&seq);
    hasher.update(records);
    hasher.finalize()
}

/// Reads a segment.
///
/// # Errors
/// What is wrong, if it is more than an end that was being written.
pub(super) fn scan(bytes: &[u8], id: SegmentId) -> Result<Scan<'_>, String> {
    let mut found = Scan::default();
    let Some((header, _)) = bytes.split_first_chunk::<SEGMENT_HEADER>() else {
        found.torn = bytes.len();
        return Ok(found);
    };
    check_header(header, id)?;
    let (mut at, mut last) = (SEGMENT_HEADER, None::<u64>);
    while let Some((frame, next)) = frame_at(bytes, at) {
        if last.is_some_and(|last| Some(frame.seq) != last.checked_add(1)) {
            return Err(format!("at byte {at} is batch {}, which does not follow the one before", frame.seq));
        }
        last = Some(frame.seq);
        found.frames.push(frame);
        at = next;
    }
    if let Some(good) = later_frame(bytes, at, last) {
        return Err(format!("the batch at byte {at} is damaged, but there is a good one at byte {good}"));
    }
    found.torn = bytes.len() - at;
    Ok(found)
}

fn check_header(header: &[u8; SEGMENT_HEADER], id: SegmentId) -> Result<(), String> {
    if *header == segment_header(id) {
        return Ok(());
    }
    let crc = crc32fast::hash(&header[..36]).to_le_bytes();
    Err(match () {
        () if header[36..] != crc || header[..8] != MAGIC => {
            "its first bytes are not those of a journal".into()
        }
        () if header[8..12] != FORMAT.to_le_bytes() => "it is of another version of this program".into(),
        () => "it belongs to another pool or another place in the journal".into(),
    })
}

/// The frame that begins at `at`, and where the next begins.
fn frame_at(bytes: &[u8], at: usize) -> Option<(Frame<'_>, usize)> {
    let (len, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let records = rest.get(..u32::from_le_bytes(*len) as usize)?;
    if checksum(*len, *seq, records) != u32::from_le_bytes(*crc) {
        return None;
    }
    Some((Frame { seq: u64::from_le_bytes(*seq), records }, at + FRAME_HEADER + records.len()))
}

/// Where after `at` there is a frame that could have come later, if anywhere. Sequence numbers are
/// compared first, so that few checksums are computed.
fn later_frame(bytes: &[u8], at: usize, last: Option<u64>) -> Option<usize> {
    let plausible = |seq: u64| match last {
        Some(last) => seq > last && seq - last <= bytes.len() as u64,
        None => seq != 0,
    };
    (at + 1..bytes.len().saturating_sub(FRAME_HEADER - 1)).find(|&at| {
        let seq = bytes[at + 8..].first_chunk().map(|seq| u64::from_le_bytes(*seq));
        seq.is_some_and(plausible) && frame_at(bytes, at).is_some()
    })
}

/// The records of a frame: key, and value unless it is removed. `None` in the place of what is none.
pub(super) fn records(mut rest: &[u8]) -> impl Iterator<Item = Option<(&[u8], Option<&[u8]>)>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = take_record(rest);
        rest = record.map_or(&[], |(_, after)| after);
        Some(record.map(|(record, _)| record))
    })
}

type Borrowed<'a> = (&'a [u8], Option<&'a [u8]>);

fn take_record(bytes: &[u8]) -> Option<(Borrowed<'_>, &[u8])> {
    let (key_len, rest) = bytes.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key_len).into())?;
    match u32::from_le_bytes(*value_len) {
        REMOVED => Some(((key, None), rest)),
        len => {
            let (value, rest) = rest.split_at_checked(len as usize)?;
            Some(((key, Some(value)), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: SegmentId = SegmentId { pool: 5, number: 2 };

    fn sample() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = segment_header(ID).to_vec();
        let mut ends = vec![bytes.len()];
        for seq in 10..14u64 {
            let records = [(vec![1, seq as u8], Some(vec![9; seq as usize])), (vec![2], None)];
            bytes.extend(Unnumbered::new(&records).unwrap().number(seq));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_frame_gives_back_its_records() {
        let (bytes, _) = sample();
        let found = scan(&bytes, ID).unwrap();
        assert_eq!((found.frames.len(), found.torn), (4, 0));
        let first: Vec<_> = records(found.frames[0].records).collect();
        assert_eq!(first, [Some((&[1, 10][..], Some(&[9; 10][..]))), Some((&[2][..], None))]);
    }

    #[test]
    fn whatever_the_length_the_whole_frames_before_it_are_found() {
        let (bytes, ends) = sample();
        for len in 0..=bytes.len() {
            let found = scan(&bytes[..len], ID).unwrap();
            let whole = ends.iter().filter(|end| **end <= len).count().saturating_sub(1);
            assert_eq!(found.frames.len(), whole, "{len}");
            let used = if len < SEGMENT_HEADER { 0 } else { ends[whole] };
            assert_eq!(found.torn, len - used, "{len}");
        }
    }

    #[test]
    fn a_changed_byte_before_the_last_frame_is_damage_and_in_it_an_end() {
        let (bytes, ends) = sample();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let found = scan(&changed, ID);
            if at < ends[3] {
                assert!(found.is_err(), "{at}: {found:?}");
            } else {
                assert_eq!(found.unwrap().frames.len(), 3, "{at}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_an_end() {
        let (mut bytes, _) = sample();
        bytes.extend([0; 5000]);
        let found = scan(&bytes, ID).unwrap();
        assert_eq!((found.frames.len(), found.torn), (4, 5000));
    }

    #[test]
    fn a_missing_batch_and_a_foreign_segment_are_damage() {
        let (mut bytes, ends) = sample();
        assert!(scan(&bytes, SegmentId { pool: 6, ..ID }).is_err());
        assert!(scan(&bytes, SegmentId { number: 3, ..ID }).is_err());
        bytes.drain(ends[1]..ends[2]);
        assert!(scan(&bytes, ID).is_err());
    }
}
