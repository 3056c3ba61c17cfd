//! The mapping of a region, and the only raw pointers into it.
//!
//! Other processes, and other hosts, change the mapped memory at any time. So no reference to it and
//! no slice of it ever leaves this module: the rest of the crate names bytes by their offset, and every
//! offset is checked against the length here. Single words are atomics ([`Word`]); bulk data is copied
//! by [`copy`], which never tears an aligned 8-byte word.
//!
//! A region does not know what pages are; it knows its superblock ([`layout`](super::layout)).
//!
//! The memory is taken to be hardware-coherent among all who map it: one host, or CXL 3 sharing.

mod backing;
mod copy;
mod dax;
mod futex;
mod open;
mod wipe;

pub use backing::Kind;
#[cfg(feature = "rdma")]
pub(crate) use backing::random_id;
pub use dax::Dax;
pub use futex::Slept;
pub use open::{Found, RegionError, RegionSource, Spec};
pub use wipe::{Wiped, wipe};

use super::layout::{self, Geometry, Superblock};
use super::protocol::SharedWord;
use super::ring::protocol::RingWord;
use crate::addr::RackId;
use memmap2::MmapRaw;
use parking_lot::RwLock;
use std::fs::File;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A mapped region.
pub struct Region {
    map: MmapRaw,
    /// Keeps the lock on the region, and is what holes are punched into.
    file: File,
    kind: Kind,
    superblock: Superblock,
    name: String,
    /// Whether its memory may be given back; held while that is being done.
    gives_back: RwLock<bool>,
    /// Whether a [`ring::Server`](super::ring::Server) of this process serves the channels.
    served: AtomicBool,
}

impl Region {
    /// Where everything is.
    #[inline]
    pub fn geometry(&self) -> &Geometry {
        &self.superblock.geometry
    }

    /// The rack whose memory this is.
    pub fn rack(&self) -> RackId {
        self.superblock.rack
    }

    /// Tells two pools apart.
    pub fn pool_id(&self) -> u128 {
        self.superblock.pool_id
    }

    /// Tells two regions apart, also of one pool; not zero.
    pub fn region_id(&self) -> u64 {
        self.superblock.region_id
    }

    /// What the region is made of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What to call the region in messages: its path, or `memfd`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the caller the one who serves the channels, until [`end_service`](Self::end_service). False if
    /// there is one already.
    pub(crate) fn begin_service(&self) -> bool {
        !self.served.swap(true, Ordering::Acquire)
    }

    /// Nobody serves the channels any more, nor writes an answer.
    pub(crate) fn end_service(&self) {
        self.served.store(false, Ordering::Release);
    }

    /// A pointer to `len` bytes at `offset`.
    ///
    /// # Panics
    /// If they are not all in the region, or not aligned to `align`. Offsets come from a checked
    /// [`Geometry`] with checked frame numbers, so that is a mistake of this crate.
    #[inline(always)]
    fn ptr(&self, offset: u64, len: u64, align: u64) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.map.len() as u64), "offset {offset} + {len} is outside");
        assert!(offset & (align - 1) == 0, "offset {offset} is not aligned");
        // SAFETY: offset + len is within the mapping (asserted above), so the pointer stays within the
        // one allocation that the mapping is, which lives as long as `self`.
        unsafe { self.map.as_mut_ptr().add(offset as usize) }
    }

    /// The 8-byte word at `offset`.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 8 within the region.
    #[inline(always)]
    pub fn word(&self, offset: u64) -> Word<'_> {
        let ptr = self.ptr(offset, 8, 8).cast::<u64>();
        // SAFETY: a pointer into a mapping is not null.
        Word { ptr: unsafe { NonNull::new_unchecked(ptr) }, region: PhantomData }
    }

    /// Loads the 4-byte number at `offset`.
    ///
    /// # Panics
    /// If `offset` is not a multiple of 4 within the region.
    #[inline]
    pub fn load_u32(&self, offset: u64, order: Ordering) -> u32 {
        self.half(offset).load(order)
    }

    /// Stores a 4-byte number at `offset`.
    ///
    /// # Panics
    /// As [`load_u32`](Self::load_u32).
    #[inline]
    pub fn store_u32(&self, offset: u64, value: u32, order: Ordering) {
        self.half(offset).store(value, order);
    }

    #[inline]
    fn half(&self, offset: u64) -> &AtomicU32 {
        let ptr = self.ptr(offset, 4, 4).cast::<u32>();
        // SAFETY: the pointer is valid for reads and writes for the life of `self`, and aligned (both
        // checked by `ptr`); everyone who maps the region accesses this number by atomic operations.
        unsafe { AtomicU32::from_ptr(ptr) }
    }

    /// Copies from `offset` on into `to`, each aligned word of the region in one piece.
    ///
    /// # Panics
    /// If not all bytes are in the region.
    #[inline(always)]
    pub fn read(&self, offset: u64, to: &mut [u8]) {
        let from = self.ptr(offset, to.len() as u64, 1);
        // SAFETY: `from` is valid for `to.len()` bytes (checked), `to` is exclusively ours, and a Rust
        // slice never overlaps the mapping, since no slice of the mapping ever exists.
        unsafe { copy::out_of(from, to.as_mut_ptr(), to.len()) }
    }

    /// Appends `len` bytes from `offset` on to `to`, without clearing them first.
    ///
    /// # Panics
    /// If not all bytes are in the region.
    #[inline]
    pub fn append(&self, offset: u64, len: usize, to: &mut Vec<u8>) {
        let from = self.ptr(offset, len as u64, 1);
        to.reserve(len);
        let used = to.len();
        // SAFETY: `from` is valid for `len` bytes (checked); `to` has room for `len` more (reserved), all
        // of which are initialised by the copy before the length includes them.
        unsafe {
            copy::out_of(from, to.as_mut_ptr().add(used), len);
            to.set_len(used + len);
        }
    }

    /// Copies `from` to `offset` on, each aligned word of the region in one piece.
    ///
    /// # Panics
    /// If not all bytes are in the region.
    #[inline(always)]
    pub fn write(&self, offset: u64, from: &[u8]) {
        let to = self.ptr(offset, from.len() as u64, 1);
        // SAFETY: as in `read`, with the roles exchanged.
        unsafe { copy::into(to, from.as_ptr(), from.len()) }
    }

    /// Sets `len` bytes from `offset` on to zero.
    ///
    /// # Panics
    /// If not all bytes are in the region.
    #[inline]
    pub fn zero(&self, offset: u64, len: u64) {
        let to = self.ptr(offset, len, 1);
        // SAFETY: `to` is valid for `len` bytes (checked).
        unsafe { copy::zero(to, len as usize) }
    }

    /// Gives the memory under `range` back to the system; it then reads as zero. False if that was not
    /// done, because the system refused or because the region's kind keeps its memory
    /// ([`Kind::returns_memory`]), or since it is to keep it ([`keep_memory`](Self::keep_memory)).
    pub fn punch_hole(&self, range: Range<u64>) -> bool {
        let gives_back = self.gives_back.read();
        *gives_back && range.end <= self.geometry().len && backing::punch(&self.file, range)
    }

    /// Whether [`punch_hole`](Self::punch_hole) can do something.
    pub fn returns_memory(&self) -> bool {
        *self.gives_back.read()
    }

    /// From now on no memory is given back to the system: a device is to have access to it, which knows it by its
    /// place, and would go on to use what was there when the region has got other memory.
    pub fn keep_memory(&self) {
        *self.gives_back.write() = false;
    }

    /// Where `offset` is, as a number, for devices that access the memory by themselves.
    #[cfg(feature = "rdma")]
    pub(crate) fn device_address(&self, offset: u64) -> usize {
        self.ptr(offset, 0, 1) as usize
    }

    /// Makes what is stored in `range` survive loss of power, where the region is a file on a disk.
    /// Memory, and devdax (where it is up to the device whether its contents last), need nothing.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn sync(&self, range: Range<u64>) -> std::io::Result<()> {
        if self.kind != Kind::DiskFile || range.is_empty() {
            return Ok(());
        }
        self.map.flush_range(range.start as usize, (range.end - range.start) as usize)
    }

    /// Sets `range`, which must be whole 4 KiB blocks, to zero; by giving it back where that is possible.
    pub(crate) fn clear(&self, range: Range<u64>) {
        if !self.punch_hole(range.clone()) {
            self.zero(range.start, range.end - range.start);
        }
    }

    /// Sets the page index to empty; while it is unsettled.
    pub fn clear_index(&self) {
        let g = self.geometry();
        self.clear(g.index_at..g.index_at + (g.index_entries * layout::ENTRY_LEN));
    }
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("superblock", &self.superblock)
            .finish()
    }
}

/// An 8-byte word of a region, all accesses to which are atomic.
#[derive(Clone, Copy)]
pub struct Word<'r> {
    ptr: NonNull<u64>,
    region: PhantomData<&'r Region>,
}

impl Word<'_> {
    #[inline]
    fn atomic(&self) -> &AtomicU64 {
        // SAFETY: made by `Region::word` only, which checked bounds and alignment; the region outlives
        // `'r`; everyone who maps the region accesses its words by atomic operations or by `copy`, which
        // moves aligned words whole.
        unsafe { AtomicU64::from_ptr(self.ptr.as_ptr()) }
    }

    /// Sleeps until [`wake`](Self::wake), for at most `limit`, unless the low half of the word is not that
    /// of `expected` any more. May also return for no reason.
    pub fn sleep(&self, expected: u64, limit: Duration) -> Slept {
        // The low half is at the word's own place: the layout is little endian.
        // SAFETY: 4 bytes at the beginning of the word are valid and aligned, as in `atomic`.
        unsafe { futex::wait(self.ptr.as_ptr().cast(), expected as u32, limit) }
    }

    /// Wakes all who sleep at this word, in every process of this kernel.
    pub fn wake(&self) {
        // SAFETY: as in `sleep`.
        unsafe { futex::wake(self.ptr.as_ptr().cast()) }
    }

    /// Stores the larger of `value` and what is there; returns what was there.
    #[inline]
    pub fn fetch_max(&self, value: u64) -> u64 {
        self.atomic().fetch_max(value, Ordering::SeqCst)
    }

    /// Adds `n`, wrapping around.
    #[inline]
    pub fn fetch_add(&self, n: u64) -> u64 {
        self.atomic().fetch_add(n, Ordering::Relaxed)
    }

    /// Sets the bits of `mask`.
    #[inline]
    pub fn fetch_or(&self, mask: u64) -> u64 {
        self.atomic().fetch_or(mask, Ordering::Relaxed)
    }

    /// Stores `new` if the word is `old`; returns what was there. A full barrier.
    #[inline]
    pub fn cas(&self, old: u64, new: u64) -> u64 {
        match self.atomic().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(was) | Err(was) => was,
        }
    }
}

impl RingWord for Word<'_> {
    #[inline]
    fn swap(&self, value: u64) -> u64 {
        self.atomic().swap(value, Ordering::SeqCst)
    }

    #[inline]
    fn set(&self, mask: u64) {
        self.atomic().fetch_or(mask, Ordering::SeqCst);
    }

    #[inline]
    fn clear(&self, mask: u64) {
        self.atomic().fetch_and(!mask, Ordering::SeqCst);
    }

    #[inline]
    fn add(&self, n: u64) {
        self.atomic().fetch_add(n, Ordering::SeqCst);
    }
}

impl SharedWord for Word<'_> {
    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.atomic().load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.atomic().store(value, order);
    }

    #[inline]
    fn swap_if(&self, old: u64, new: u64) -> bool {
        self.cas(old, new) == old
    }

    /// An exchange, not a store and a fence: on x86-64 `mfence` also holds up the loads of later accesses
    /// until all before are done, so that a thread has but one cache miss under way at a time (a read
    /// of 64 bytes then costs ten times as much). An exchange orders just as much here: it, the load in
    /// [`check`](crate::cxl::protocol::check) and the daemon's fence are all sequentially consistent.
    #[inline]
    fn store_first(&self, value: u64) {
        self.atomic().swap(value, Ordering::SeqCst);
    }

    #[inline]
    fn fence() {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}
