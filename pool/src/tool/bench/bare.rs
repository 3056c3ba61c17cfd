//! Bare shared memory, as a program without a pool would use it: the floor under all figures.

use super::memory::Memory;
use crate::error::PoolError;
use crate::tool::ToolError;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io, process};

/// Where files are memory.
const SHM: &str = "/dev/shm";

/// The size of a huge page; a mapping of them is a multiple of it.
const HUGE: u64 = 2 << 20;

/// A mapping of shared memory, all of it touched and zero.
pub(crate) struct Bare {
    map: MmapRaw,
}

impl Bare {
    /// Memory in `/dev/shm`, mapped in small pages.
    pub fn small(span: u64) -> Result<Self, ToolError> {
        let file = shared_file().map_err(|error| failed(SHM, error))?;
        Self::map(&file, span, libc::MADV_NOHUGEPAGE)
    }

    /// Memory in huge pages: transparent ones where the system gives them to shared memory on request, else
    /// reserved ones.
    pub fn huge(span: u64) -> Result<Self, ToolError> {
        let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        let enabled = fs::read_to_string(setting).unwrap_or_default();
        if ["[always]", "[within_size]", "[advise]", "[force]"].iter().any(|way| enabled.contains(way)) {
            let file = shared_file().map_err(|error| failed(SHM, error))?;
            return Self::map(&file, span, libc::MADV_HUGEPAGE);
        }
        let file = reserved_huge_pages().map_err(|error| failed("reserved huge pages", error))?;
        Self::map(&file, span.next_multiple_of(HUGE), libc::MADV_NORMAL).map_err(|_| {
            let pages = span.div_ceil(HUGE);
            ToolError::Usage(format!(
                "{setting} has none for shared memory (write `advise` there), and {pages} are not reserved (vm.nr_hugepages)"
            ))
        })
    }

    fn map(file: &File, span: u64, advice: i32) -> Result<Self, ToolError> {
        let map = || {
            file.set_len(span)?;
            let map = MmapOptions::new().len(span as usize).map_raw(file)?;
            // SAFETY: the range is exactly the mapping made above; these kinds of advice change no contents.
            // Not all of them are known to all kernels, and then there is nothing to advise.
            unsafe { libc::madvise(map.as_mut_ptr().cast(), map.len(), advice) };
            Ok(map)
        };
        let bare = Self { map: map().map_err(|error| failed("bare memory cannot be mapped", error))? };
        // SAFETY: the mapping is this long and writable; no reference into it exists.
        unsafe { bare.map.as_mut_ptr().write_bytes(0, bare.map.len()) };
        Ok(bare)
    }

    /// A pointer to `len` bytes at `at`, which are within the mapping.
    #[inline]
    fn at(&self, at: u64, len: usize) -> Result<*mut u8, PoolError> {
        match (at as usize).checked_add(len) {
            Some(end) if end <= self.map.len() => Ok(self.map.as_mut_ptr().wrapping_add(at as usize)),
            _ => Err(PoolError::BadAddress { at, len: len as u64 }),
        }
    }
}

impl Memory for Bare {
    #[inline]
    fn read(&self, at: u64, to: &mut [u8]) -> Result<(), PoolError> {
        let from = self.at(at, to.len())?;
        // SAFETY: `from` points to that many bytes of the mapping, `to` is not part of it. Other threads may
        // write these bytes at the same time, always with zeroes, as in C: that is the floor's point.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    #[inline]
    fn write(&self, at: u64, from: &[u8]) -> Result<(), PoolError> {
        let to = self.at(at, from.len())?;
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    #[inline]
    fn cas(&self, at: u64, old: u64, new: u64) -> Result<u64, PoolError> {
        if !at.is_multiple_of(8) {
            return Err(PoolError::Unaligned(at));
        }
        let word = self.at(at, 8)?;
        // SAFETY: the word is within the mapping, which is aligned to pages, and `at` is a multiple of 8.
        let word = unsafe { AtomicU64::from_ptr(word.cast()) };
        let (Ok(was) | Err(was)) = word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
        Ok(was)
    }

    fn message(&self) -> Result<(), PoolError> {
        // Nobody keeps it: the floor of messages is measured by the example `ring_floor`.
        Ok(())
    }
}

/// A file in `/dev/shm` that nobody else sees, and that is gone with its last descriptor.
fn shared_file() -> io::Result<File> {
    let path = Path::new(SHM).join(format!("rcmp-bench.{}", process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn reserved_huge_pages() -> io::Result<File> {
    // SAFETY: the name is a string with an end; the call takes nothing else.
    let fd = unsafe { libc::memfd_create(c"rcmp-bench".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_HUGETLB) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn failed(what: &str, error: io::Error) -> ToolError {
    ToolError::Io(what.into(), error)
}
