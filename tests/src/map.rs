//! A file mapped into memory, read and written byte by byte without references into it, since another
//! process may change it at any time.

use rustix::io::Result;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use std::ffi::c_void;
use std::os::fd::AsFd;

/// A mapping.
#[derive(Debug)]
pub struct Map {
    at: *mut u8,
    len: usize,
}

impl Map {
    /// Maps `len` bytes of the file from `offset` (a multiple of 4096) for reading and writing; changes
    /// go to the file if `shared`.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(fd: impl AsFd, offset: u64, len: usize, shared: bool) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        Self::with(fd, offset, len, prot, if shared { MapFlags::SHARED } else { MapFlags::PRIVATE })
    }

    /// Maps with this protection and these flags.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn with(fd: impl AsFd, offset: u64, len: usize, prot: ProtFlags, flags: MapFlags) -> Result<Self> {
        // SAFETY: the kernel chooses where, so nothing that exists is replaced.
        let at = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd, offset)? };
        Ok(Self { at: at.cast(), len })
    }

    /// The byte at `offset`. Past the end of the file this is a `SIGBUS`, which is the caller's affair.
    pub fn get(&self, offset: usize) -> u8 {
        assert!(offset < self.len);
        // SAFETY: within the mapping, which lives as long as `self`; volatile, as others may write.
        unsafe { self.at.add(offset).read_volatile() }
    }

    /// Sets the byte at `offset`; the mapping must be writable.
    pub fn set(&mut self, offset: usize, value: u8) {
        assert!(offset < self.len);
        // SAFETY: as in `get`.
        unsafe { self.at.add(offset).write_volatile(value) }
    }

    /// The bytes from `offset`.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| self.get(at)).collect()
    }

    /// Stores `bytes` from `offset`.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.set(offset + i, *byte);
        }
    }

    /// Writes all of it back to the file and waits.
    ///
    /// # Errors
    /// Those of msync(2).
    pub fn sync(&self) -> Result<()> {
        // SAFETY: the range is this mapping.
        unsafe { msync(self.at.cast::<c_void>(), self.len, MsyncFlags::SYNC) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and nothing refers to it any more.
        let done = unsafe { munmap(self.at.cast::<c_void>(), self.len) };
        debug_assert!(done.is_ok());
    }
}
