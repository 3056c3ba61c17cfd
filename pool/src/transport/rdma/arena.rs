//! Memory that devices copy from and to: anonymous, in slots of one size, never part of the region.

use super::verbs::Memory;
use crate::cxl::region::Region;
use memmap2::{MmapOptions, MmapRaw};
use std::sync::Arc;

/// A slot that its owner alone may touch, except while a device has been asked to.
///
/// Whoever has one copies in or out only before a request about it is posted or after that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slot(pub u16);

/// Slots.
pub(super) struct Arena {
    map: MmapRaw,
    slot: usize,
}

impl Arena {
    /// `count` slots of `slot` bytes, and all of the slots.
    pub fn new(count: u16, slot: usize) -> Result<(Arc<Self>, Vec<Slot>), String> {
        let map = MmapOptions::new().len(usize::from(count) * slot).map_anon();
        let map: MmapRaw = map.map_err(|e| format!("no memory for buffers: {e}"))?.into();
        Ok((Arc::new(Self { map, slot }), (0..count).map(Slot).collect()))
    }

    /// Where a byte of a slot is.
    pub fn at(&self, slot: &Slot, offset: usize) -> usize {
        usize::from(slot.0) * self.slot + offset
    }

    fn ptr(&self, slot: &Slot, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.slot), "more than a slot holds");
        let at = self.at(slot, offset);
        assert!(at + len <= self.map.len(), "no such slot");
        // SAFETY: within the mapping (asserted).
        unsafe { self.map.as_mut_ptr().add(at) }
    }

    /// Copies `data` into a slot.
    pub fn put(&self, slot: &Slot, offset: usize, data: &[u8]) {
        let to = self.ptr(slot, offset, data.len());
        // SAFETY: `to` is valid for the length; no device touches the slot now (the owner's promise), and no
        // slice of the mapping exists.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), to, data.len()) }
    }

    /// What a slot holds.
    pub fn get(&self, slot: &Slot, offset: usize, len: usize) -> Vec<u8> {
        let mut data = Vec::with_capacity(len);
        let from = self.ptr(slot, offset, len);
        // SAFETY: as in `put`, with the roles exchanged; all `len` bytes are initialised by the copy.
        unsafe {
            std::ptr::copy_nonoverlapping(from, data.as_mut_ptr(), len);
            data.set_len(len);
        }
        data
    }
}

// SAFETY: mapped until it is dropped; only copies are ever made of what is in it.
unsafe impl Memory for Arena {
    fn range(&self) -> (usize, usize) {
        (self.map.as_mut_ptr() as usize, self.map.len())
    }
}

/// The frames of a region: what other racks may access. Not what stands before them, by which the clients
/// of the rack and its daemon understand each other.
pub(super) struct FrameMemory(pub Arc<Region>);

// SAFETY: mapped until the region is dropped; a region gives out no references into itself.
unsafe impl Memory for FrameMemory {
    fn range(&self) -> (usize, usize) {
        let g = self.0.geometry();
        (self.0.device_address(g.frames_at), g.data_bytes() as usize)
    }
}
