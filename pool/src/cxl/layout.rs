//! Every byte of a region: zones, offsets, versions, checksums. Arithmetic only; no mapping, no I/O.
//!
//! All numbers are little endian. A region is, from its first byte, with zones in this order:
//!
//! ```text
//! zone               starts at                    length
//! superblock         0                            4096
//! client slots       4096                         64 a slot, SLOTS slots
//! frame descriptors  after the slots              16 a frame
//! page index         after that, rounded to 4096  4 an entry; a power of two, at least 2 entries a frame
//! message rings      after that, rounded to 4096  0 without channels, else see below
//! frames             after that, rounded to 2 MiB one page size a frame
//! end                after that, rounded to 2 MiB
//! ```
//!
//! A region that is all zero but for its superblock is a pool without pages. Making one therefore
//! writes 4096 bytes, however large the region is.
//!
//! ## Superblock
//!
//! ```text
//!   0  8  magic "RCHFSCXL"                     written once, covered by the checksum
//!   8  4  version of this layout
//!  12  4  binary logarithm of the page size
//!  16 16  pool id: random, tells two pools apart
//!  32  8  number of frames
//!  40  4  number of slots
//!  44  2  rack
//!  46  2  zero
//!  48  8  offset of the slots
//!  56  8  offset of the frame descriptors
//!  64  8  offset of the page index
//!  72  8  entries of the page index
//!  80  8  offset of the message rings
//!  88  8  offset of the frames
//!  96  8  length of the region
//! 104  8  region id: random, tells two regions apart; not zero
//! 112  4  number of channels
//! 116  8  zero
//! 124  4  CRC-32 of bytes 0 to 123
//! 128  8  frames ever used: no frame at or above this number has ever held a page
//! 136  8  page ids at or above this number have never been given out
//! 144  8  1 after an orderly end of the daemon, 0 while it runs and after a crash
//! 152  8  the daemon's process, as in a slot's owner word; only for messages to people
//! 192  8  slots ever used: no slot at or above this number has ever had an owner
//! 256  8  version of the page index: odd while entries move, see `index`
//! 264     zero
//! 320  8  how often pages that clients had taken, and no file had, were given up since those seemed to be gone; see
//!         `proto::far`
//! 328     zero to the end
//! ```
//!
//! ## Slot (64 bytes, a cache line)
//!
//! ```text
//!   0  8  owner: the client process, see `slots::ClientId`; 0 if the slot is free
//!   8  8  what the owner's thread is touching: first frame (high 32 bits), frames (low 32 bits); 0 nothing
//!  16  8  accesses by the owner's thread, and by those of earlier owners; written by the owner alone
//!  24 40  zero
//! ```
//!
//! ## Frame descriptor (16 bytes)
//!
//! ```text
//!   0  8  the truth about the frame, one word: page id (bits 12 to 63), state (bits 8 to 11),
//!         check (bits 0 to 7) over the rest of the word and the frame's number; 0: holds no page
//!   8  8  hints, see `frames`: bit 0 referenced, bit 1 all zero when it was given out, bits 2 and 3
//!         whose it is, bits 16 to 63 how often it was touched
//! ```
//!
//! ## Page index entry (4 bytes)
//!
//! 0 is empty, anything else is a frame's number plus one. The key is not in the entry but in that
//! frame's descriptor. Where the search for an id starts is [`index_home`].
//!
//! ## Message rings
//!
//! Nothing if there are no channels. Else, each part for all channels in order:
//!
//! ```text
//! ring header  at the zone's beginning  4096
//! records      after that               256 a channel, rounded to 4096
//! cells        after that               32 of 256 a channel
//! buffers      after that               32 of 20480 a channel
//! ```
//!
//! Memory is touched only where a channel has been claimed; buffers, only where a message was long.
//!
//! Ring header, each word that changes in cache lines of its own:
//!
//! ```text
//!   0 64  doorbells: bit c % 64 of word c / 64 says that channel c has something in its bitmap
//! 128  8  the daemon's poller: bit 0, it sleeps or is about to; above, how often it was woken. The low
//!         half is what it sleeps on
//! 256  8  serving: the random number of a daemon's life; 0 when nobody serves
//! 264     zero
//! ```
//!
//! Record of a channel:
//!
//! ```text
//!   0  8  owner: the client process, see `slots::ClientId`; 0 if the channel is free
//!   8  8  generation: how often the channel was claimed (low 32 bits)
//!  16  8  1 if the owner is done with it, but answers were outstanding
//! 128  8  bitmap of entries that were submitted (low 32 bits)
//! 192  8  the entry that the poller watches, plus one; 0 none
//! 200 56  zero
//! ```
//!
//! Cell of an entry, whose meaning is in `ring::protocol`:
//!
//! ```text
//!   0  8  state: kind (bits 0 to 2), ticket (bits 3 to 31), generation of the channel (bits 32 to 63).
//!         The low half is what the client sleeps on
//!   8  4  length of the message in bytes, at most 20480
//!  12  4  what kind of answer it is, see `ring::Status`; in a request 0
//!  16 240 the message, if it fits; a longer one is in the entry's buffer
//! ```

use crate::addr::{FrameNo, PageSize, RackId};
use thiserror::Error;

/// The first eight bytes of a region.
pub const MAGIC: [u8; 8] = *b"RCHFSCXL";
/// The version of the layout that this module describes.
pub const VERSION: u32 = 2;

/// Alignment of the frames and of the region's end: the largest page, and the unit of devdax.
pub const HUGE: u64 = 2 << 20;
const SMALL: u64 = 4096;

/// Length of the superblock in bytes.
pub const SUPERBLOCK_LEN: u64 = 4096;
/// Length of the checked part of the superblock in bytes.
pub const SUPERBLOCK_FIXED: usize = 128;

/// Slots in a region.
pub const SLOTS: u32 = 4096;
/// Length of a slot in bytes.
pub const SLOT_LEN: u64 = 64;
/// Where the owner word is in a slot.
pub const SLOT_OWNER: u64 = 0;
/// Where the word that publishes a range of frames is in a slot.
pub const SLOT_HAZARD: u64 = SLOT_OWNER + 8;
/// Where the count of accesses is in a slot.
pub const SLOT_HITS: u64 = SLOT_HAZARD + 8;

/// Length of a frame descriptor in bytes.
pub const DESCRIPTOR_LEN: u64 = 16;
/// Where the word of truth is in a descriptor.
pub const DESCRIPTOR_WORD: u64 = 0;
/// Where the hints are in a descriptor.
pub const DESCRIPTOR_HINTS: u64 = DESCRIPTOR_WORD + 8;

/// Length of an entry of the page index in bytes.
pub const ENTRY_LEN: u64 = 4;
/// The most frames a region can have: a number plus one must fit an index entry.
pub const FRAMES_MAX: u64 = u32::MAX as u64 - 1;

/// The most channels a region can have: their doorbells are one cache line.
pub const CHANNELS_MAX: u32 = 512;
/// Entries of a channel.
pub const ENTRIES: u32 = 32;
/// Length of the ring header in bytes.
pub const RING_HEADER_LEN: u64 = SMALL;
/// Where the doorbells are in the ring header.
pub const RING_BELLS: u64 = 0;
/// Where the poller's word is in the ring header.
pub const RING_POLLER: u64 = 128;
/// Where the number of the daemon that serves is in the ring header.
pub const RING_SERVING: u64 = 256;
/// Length of a channel's record in bytes.
pub const RECORD_LEN: u64 = 256;
/// Where the owner is in a record.
pub const RECORD_OWNER: u64 = 0;
/// Where the generation is in a record.
pub const RECORD_GENERATION: u64 = RECORD_OWNER + 8;
/// Where the mark of an owner that has left is in a record.
pub const RECORD_LEAVING: u64 = RECORD_GENERATION + 8;
/// Where the bitmap of submitted entries is in a record.
pub const RECORD_SUBMITTED: u64 = 128;
/// Where the watched entry is in a record.
pub const RECORD_WATCHED: u64 = 192;
/// Length of a cell in bytes.
pub const CELL_LEN: u64 = 256;
/// Where the state is in a cell.
pub const CELL_STATE: u64 = 0;
/// Where the length of the message is in a cell.
pub const CELL_BODY_LEN: u64 = CELL_STATE + 8;
/// Where the kind of answer is in a cell.
pub const CELL_STATUS: u64 = CELL_BODY_LEN + 4;
/// Where a short message is in a cell.
pub const CELL_BODY: u64 = CELL_STATUS + 4;
/// Length of an entry's buffer in bytes.
pub const BUFFER_LEN: u64 = 20 << 10;

const AT_VERSION: usize = 8;
const AT_PAGE_SHIFT: usize = AT_VERSION + 4;
const AT_POOL_ID: usize = AT_PAGE_SHIFT + 4;
const AT_FRAMES: usize = AT_POOL_ID + 16;
const AT_SLOTS: usize = AT_FRAMES + 8;
const AT_RACK: usize = AT_SLOTS + 4;
const AT_SLOTS_ZONE: usize = AT_RACK + 4;
const AT_DESCRIPTOR_ZONE: usize = AT_SLOTS_ZONE + 8;
const AT_INDEX_ZONE: usize = AT_DESCRIPTOR_ZONE + 8;
const AT_INDEX_ENTRIES: usize = AT_INDEX_ZONE + 8;
const AT_RING_ZONE: usize = AT_INDEX_ENTRIES + 8;
const AT_FRAME_ZONE: usize = AT_RING_ZONE + 8;
const AT_LEN: usize = AT_FRAME_ZONE + 8;
const AT_REGION_ID: usize = AT_LEN + 8;
const AT_CHANNELS: usize = AT_REGION_ID + 8;
const AT_CRC: usize = SUPERBLOCK_FIXED - 4;

/// Where the number of frames ever used is.
pub const AT_FRAMES_USED: u64 = SUPERBLOCK_FIXED as u64;
/// Where the number is below which page ids may have been given out.
pub const AT_NEXT_ID: u64 = AT_FRAMES_USED + 8;
/// Where the mark of an orderly end is.
pub const AT_CLEAN: u64 = AT_NEXT_ID + 8;
/// Where the daemon's process is.
pub const AT_OWNER: u64 = AT_CLEAN + 8;
/// Where the number of slots ever used is: a cache line of its own, since clients write it.
pub const AT_SLOTS_USED: u64 = 192;
/// Where the version of the page index is: a cache line of its own, since the daemon writes it often.
pub const AT_INDEX_VERSION: u64 = 256;
/// Where the count is of how often pages that clients had taken were given up.
pub const AT_GIVEN_UP: u64 = 320;

const _: () = {
    assert!(AT_CHANNELS + 4 <= AT_CRC);
    assert!(CHANNELS_MAX as u64 / 8 <= 64 && RING_SERVING + 8 <= RING_HEADER_LEN && ENTRIES == 32);
    assert!(RECORD_WATCHED + 64 <= RECORD_LEN && CELL_BODY < CELL_LEN && CELL_LEN.is_multiple_of(64));
    assert!((ENTRIES as u64 * CELL_LEN).is_multiple_of(SMALL) && BUFFER_LEN.is_multiple_of(SMALL));
    assert!(AT_OWNER + 8 <= AT_SLOTS_USED && AT_SLOTS_USED.is_multiple_of(64));
    assert!(AT_INDEX_VERSION >= AT_SLOTS_USED + 64 && AT_INDEX_VERSION + 64 <= AT_GIVEN_UP);
    assert!(AT_GIVEN_UP + 8 <= SUPERBLOCK_LEN);
    assert!(SUPERBLOCK_LEN.is_multiple_of(SLOT_LEN) && SLOT_HITS + 8 <= SLOT_LEN);
    assert!(SLOTS >= 1024 && (SLOTS as u64 * SLOT_LEN).is_multiple_of(SMALL));
    assert!(DESCRIPTOR_HINTS + 8 == DESCRIPTOR_LEN);
    assert!(HUGE == PageSize::MAX.bytes() && HUGE.is_multiple_of(SMALL));
    assert!(FRAMES_MAX < u32::MAX as u64);
};

/// Where the zones of a region are; follows from the page size and the numbers of frames and channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a page, and of a frame.
    pub page_size: PageSize,
    /// Number of frames.
    pub frames: u32,
    /// Number of channels for messages between clients and the daemon.
    pub channels: u32,
    /// Offset of the client slots.
    pub slots_at: u64,
    /// Offset of the frame descriptors.
    pub descriptors_at: u64,
    /// Offset of the page index.
    pub index_at: u64,
    /// Entries of the page index: a power of two, at least 16.
    pub index_entries: u64,
    /// Offset of the message rings.
    pub rings_at: u64,
    /// Offset of the frames.
    pub frames_at: u64,
    /// Length of the region in bytes.
    pub len: u64,
}

impl Geometry {
    /// The geometry of a region of `frames` frames and `channels` channels; `None` for no frame, for
    /// more than [`FRAMES_MAX`], and for more channels than [`CHANNELS_MAX`].
    pub fn for_frames(page_size: PageSize, frames: u64, channels: u32) -> Option<Self> {
        if frames == 0 || frames > FRAMES_MAX || channels > CHANNELS_MAX {
            return None;
        }
        // No sum overflows: fewer than 2^32 frames of 2^21 bytes are less than 2^53 bytes, and 512
        // channels less than 2^29.
        let slots_at = SUPERBLOCK_LEN;
        let descriptors_at = slots_at + SLOTS as u64 * SLOT_LEN;
        let index_at = (descriptors_at + frames * DESCRIPTOR_LEN).next_multiple_of(SMALL);
        let index_entries = (2 * frames).next_power_of_two().max(16);
        let rings_at = (index_at + index_entries * ENTRY_LEN).next_multiple_of(SMALL);
        let frames_at = (rings_at + rings_len(channels)).next_multiple_of(HUGE);
        let len = (frames_at + frames * page_size.bytes()).next_multiple_of(HUGE);
        let frames = frames as u32;
        Some(Self {
            page_size,
            frames,
            channels,
            slots_at,
            descriptors_at,
            index_at,
            index_entries,
            rings_at,
            frames_at,
            len,
        })
    }

    /// The geometry with `channels` channels and the most frames in a region of at most `len` bytes;
    /// `None` if there is no room for one.
    pub fn for_len(page_size: PageSize, len: u64, channels: u32) -> Option<Self> {
        // The length grows with the frames, so the largest number that fits is found by halving.
        let (mut fits, mut beyond) = (0, (len >> page_size.shift()).min(FRAMES_MAX) + 1);
        while beyond - fits > 1 {
            let half = fits + (beyond - fits) / 2;
            match Self::for_frames(page_size, half, channels) {
                Some(g) if g.len <= len => fits = half,
                _ => beyond = half,
            }
        }
        Self::for_frames(page_size, fits, channels)
    }

    /// Bytes of page data that the region can hold.
    pub fn data_bytes(&self) -> u64 {
        self.frames as u64 * self.page_size.bytes()
    }

    /// Bytes of descriptors and index for each frame, rounded up.
    pub fn metadata_per_frame(&self) -> u64 {
        DESCRIPTOR_LEN + (self.index_entries * ENTRY_LEN).div_ceil(self.frames as u64)
    }

    /// Offset of the first byte of `frame`; `None` if there is no such frame.
    #[inline]
    pub fn frame_at(&self, frame: FrameNo) -> Option<u64> {
        (frame.0 < self.frames).then(|| self.frames_at + ((frame.0 as u64) << self.page_size.shift()))
    }

    /// Offset of the descriptor of `frame`; `None` if there is no such frame.
    #[inline]
    pub fn descriptor_at(&self, frame: FrameNo) -> Option<u64> {
        (frame.0 < self.frames).then(|| self.descriptors_at + frame.0 as u64 * DESCRIPTOR_LEN)
    }

    /// Offset of slot `slot`; `None` if there is no such slot.
    #[inline]
    pub fn slot_at(&self, slot: u32) -> Option<u64> {
        (slot < SLOTS).then(|| self.slots_at + slot as u64 * SLOT_LEN)
    }

    /// Offset of the ring header; `None` if there are no channels.
    pub fn ring_header_at(&self) -> Option<u64> {
        (self.channels > 0).then_some(self.rings_at)
    }

    /// Offset of the record of `channel`; `None` if there is no such channel.
    #[inline]
    pub fn record_at(&self, channel: u32) -> Option<u64> {
        let records_at = self.rings_at + RING_HEADER_LEN;
        (channel < self.channels).then(|| records_at + channel as u64 * RECORD_LEN)
    }

    /// Offset of the cell of `entry` of `channel`; `None` if there is none.
    #[inline]
    pub fn cell_at(&self, channel: u32, entry: u32) -> Option<u64> {
        Some(cells_at(self.rings_at, self.channels) + self.entry_number(channel, entry)? * CELL_LEN)
    }

    /// Offset of the buffer of `entry` of `channel`; `None` if there is none.
    #[inline]
    pub fn buffer_at(&self, channel: u32, entry: u32) -> Option<u64> {
        let entries = self.channels as u64 * ENTRIES as u64;
        let buffers_at = cells_at(self.rings_at, self.channels) + entries * CELL_LEN;
        Some(buffers_at + self.entry_number(channel, entry)? * BUFFER_LEN)
    }

    #[inline]
    fn entry_number(&self, channel: u32, entry: u32) -> Option<u64> {
        (channel < self.channels && entry < ENTRIES).then(|| (channel * ENTRIES + entry) as u64)
    }
}

const fn cells_at(rings_at: u64, channels: u32) -> u64 {
    rings_at + RING_HEADER_LEN + (channels as u64 * RECORD_LEN).next_multiple_of(SMALL)
}

const fn rings_len(channels: u32) -> u64 {
    if channels == 0 {
        return 0;
    }
    cells_at(0, channels) + channels as u64 * ENTRIES as u64 * (CELL_LEN + BUFFER_LEN)
}

/// Where in an index of `entries` entries the search for page `id` starts.
///
/// Sixteen consecutive ids are neighbours, which is a cache line of entries; where each such group
/// lies is as good as random, so that long-lived runs do not pile up in front of new ones.
#[inline]
pub fn index_home(id: u64, entries: u64) -> u64 {
    let group = (id >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 4;
    // The high bits of a product are the well-mixed ones; bring them down.
    ((group ^ (group >> 29)) << 4 | (id & 15)) & (entries - 1)
}

/// The part of the superblock that is written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Tells two pools apart.
    pub pool_id: u128,
    /// Tells two regions apart; not zero.
    pub region_id: u64,
    /// The rack whose memory this is.
    pub rack: RackId,
    /// Where everything is.
    pub geometry: Geometry,
}

/// Why bytes are not a superblock that this version understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SuperblockError {
    /// Another magic number.
    #[error("no superblock")]
    Magic,
    /// Another version of the layout.
    #[error("version {0} of the layout, not {VERSION}")]
    Version(u32),
    /// The checksum, or a number that it covers, is wrong.
    #[error("a damaged superblock")]
    Damaged,
}

impl Superblock {
    /// The bytes of this superblock.
    pub fn encode(&self) -> [u8; SUPERBLOCK_FIXED] {
        let mut out = [0; SUPERBLOCK_FIXED];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let g = &self.geometry;
        put(0, &MAGIC);
        put(AT_VERSION, &VERSION.to_le_bytes());
        put(AT_PAGE_SHIFT, &g.page_size.shift().to_le_bytes());
        put(AT_POOL_ID, &self.pool_id.to_le_bytes());
        put(AT_FRAMES, &(g.frames as u64).to_le_bytes());
        put(AT_SLOTS, &SLOTS.to_le_bytes());
        put(AT_RACK, &self.rack.0.to_le_bytes());
        put(AT_SLOTS_ZONE, &g.slots_at.to_le_bytes());
        put(AT_DESCRIPTOR_ZONE, &g.descriptors_at.to_le_bytes());
        put(AT_INDEX_ZONE, &g.index_at.to_le_bytes());
        put(AT_INDEX_ENTRIES, &g.index_entries.to_le_bytes());
        put(AT_RING_ZONE, &g.rings_at.to_le_bytes());
        put(AT_FRAME_ZONE, &g.frames_at.to_le_bytes());
        put(AT_LEN, &g.len.to_le_bytes());
        put(AT_REGION_ID, &self.region_id.to_le_bytes());
        put(AT_CHANNELS, &g.channels.to_le_bytes());
        let crc = crc32fast::hash(&out[..AT_CRC]);
        out[AT_CRC..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The superblock that these bytes say.
    ///
    /// # Errors
    /// [`SuperblockError`]; the version is looked at before the checksum, since another version may
    /// have its checksum elsewhere.
    pub fn decode(bytes: &[u8; SUPERBLOCK_FIXED]) -> Result<Self, SuperblockError> {
        if bytes[..8] != MAGIC {
            return Err(SuperblockError::Magic);
        }
        let version = u32::from_le_bytes(field(bytes, AT_VERSION));
        if version != VERSION {
            return Err(SuperblockError::Version(version));
        }
        if u32::from_le_bytes(field(bytes, AT_CRC)) != crc32fast::hash(&bytes[..AT_CRC]) {
            return Err(SuperblockError::Damaged);
        }
        let shift = u32::from_le_bytes(field(bytes, AT_PAGE_SHIFT));
        let frames = u64::from_le_bytes(field(bytes, AT_FRAMES));
        let channels = u32::from_le_bytes(field(bytes, AT_CHANNELS));
        let geometry =
            PageSize::from_shift(shift).and_then(|size| Geometry::for_frames(size, frames, channels));
        let found = Self {
            pool_id: u128::from_le_bytes(field(bytes, AT_POOL_ID)),
            region_id: u64::from_le_bytes(field(bytes, AT_REGION_ID)),
            rack: RackId(u16::from_le_bytes(field(bytes, AT_RACK))),
            geometry: geometry.ok_or(SuperblockError::Damaged)?,
        };
        // The zones must be where this version puts them, and the unused bytes zero.
        if found.encode() == *bytes { Ok(found) } else { Err(SuperblockError::Damaged) }
    }
}

fn field<const N: usize>(bytes: &[u8; SUPERBLOCK_FIXED], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        Superblock {
            pool_id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
            region_id: 0x89ab_cdef_0123_4567,
            rack: RackId(7),
            geometry: Geometry::for_frames(PageSize::MIN, 1000, 128).unwrap(),
        }
    }

    #[test]
    fn zones_do_not_overlap_and_frames_are_aligned() {
        for shift in 12..=21 {
            let size = PageSize::from_shift(shift).unwrap();
            for frames in [1, 2, 3, 511, 512, 513, 65_536, 1_000_003, FRAMES_MAX] {
                let g = Geometry::for_frames(size, frames, 0).unwrap();
                assert!(g.slots_at >= SUPERBLOCK_LEN);
                assert!(g.descriptors_at >= g.slots_at + SLOTS as u64 * SLOT_LEN);
                assert!(g.index_at >= g.descriptors_at + frames * DESCRIPTOR_LEN);
                assert!(g.rings_at >= g.index_at + g.index_entries * ENTRY_LEN);
                assert!(g.frames_at >= g.rings_at && g.frames_at.is_multiple_of(HUGE));
                assert!(g.len >= g.frames_at + g.data_bytes() && g.len.is_multiple_of(HUGE));
                assert!(g.index_entries >= 2 * frames && g.index_entries.is_power_of_two());
            }
            assert_eq!(Geometry::for_frames(size, 0, 0), None);
            assert_eq!(Geometry::for_frames(size, FRAMES_MAX + 1, 0), None);
        }
    }

    #[test]
    fn the_parts_of_the_rings_do_not_overlap_and_end_before_the_frames() {
        for channels in [1, 2, 63, 128, CHANNELS_MAX] {
            let g = Geometry::for_frames(PageSize::MIN, 100, channels).unwrap();
            let last = channels - 1;
            assert!(g.record_at(0).unwrap() >= g.ring_header_at().unwrap() + RING_HEADER_LEN);
            assert!(g.cell_at(0, 0).unwrap() >= g.record_at(last).unwrap() + RECORD_LEN);
            assert!(g.buffer_at(0, 0).unwrap() >= g.cell_at(last, ENTRIES - 1).unwrap() + CELL_LEN);
            assert!(g.frames_at >= g.buffer_at(last, ENTRIES - 1).unwrap() + BUFFER_LEN);
            assert_eq!(g.cell_at(0, 1).unwrap(), g.cell_at(0, 0).unwrap() + CELL_LEN);
            assert_eq!((g.record_at(channels), g.cell_at(0, ENTRIES)), (None, None));
            assert_eq!(g.buffer_at(channels, 0), None);
        }
        assert_eq!(Geometry::for_frames(PageSize::MIN, 100, CHANNELS_MAX + 1), None);
        let none = Geometry::for_frames(PageSize::MIN, 100, 0).unwrap();
        assert_eq!((none.ring_header_at(), none.record_at(0)), (None, None));
    }

    #[test]
    fn the_largest_geometry_for_a_length_fits_and_one_more_frame_does_not() {
        for len in [4 * HUGE, 250 * (1 << 20), (1 << 30) + 12_345] {
            for shift in [12, 16, 21] {
                let size = PageSize::from_shift(shift).unwrap();
                let g = Geometry::for_len(size, len, 0).unwrap();
                assert!(g.len <= len);
                assert!(Geometry::for_frames(size, g.frames as u64 + 1, 0).unwrap().len > len);
            }
        }
        assert_eq!(Geometry::for_len(PageSize::MIN, HUGE, 0), None);
    }

    #[test]
    fn a_superblock_is_read_back() {
        assert_eq!(Superblock::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn every_flipped_bit_of_a_superblock_is_noticed() {
        let good = sample().encode();
        for bit in 0..SUPERBLOCK_FIXED * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Superblock::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut other = sample().encode();
        other[AT_VERSION] = 9;
        assert_eq!(Superblock::decode(&other), Err(SuperblockError::Version(9)));
    }

    #[test]
    fn consecutive_ids_are_neighbours_in_the_index_and_groups_spread() {
        let entries = 1 << 16;
        for id in (16..100_000).step_by(16) {
            let home = index_home(id, entries);
            assert!((1..16).all(|i| index_home(id + i, entries) == home + i));
        }
        let mut groups: Vec<u64> = (0..2048).map(|g| index_home(g * 16, entries)).collect();
        groups.sort_unstable();
        groups.dedup();
        // 2048 groups thrown at random into 4096 places hit about 1612 of them.
        assert!(groups.len() > 1400, "{}", groups.len());
    }
}
