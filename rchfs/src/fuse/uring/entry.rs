//! One entry of a ring: its two buffers, which the kernel fills with a request and takes the answer from,
//! and the io_uring through which it is handed to and fro.
//!
//! The entry is always in one of two hands. *Ours*: a request was fetched (or nothing was begun), and the
//! buffers are ours to read and write. *The kernel's*: from the moment that a command is submitted until
//! its completion; nothing here looks at the buffers then, and they are not freed.

use super::wire;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use memmap2::MmapMut;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

/// `FUSE_IO_URING_CMD_REGISTER`: here are my buffers, put a request into them.
const REGISTER: u32 = 1;
/// `FUSE_IO_URING_CMD_COMMIT_AND_FETCH`: here is the answer, put the next request there.
const COMMIT_AND_FETCH: u32 = 2;
/// Where `len` is in `struct io_uring_sqe`.
const SQE_LEN_AT: usize = 24;

type Ring = IoUring<squeue::Entry128, cqueue::Entry>;

/// Memory that the kernel writes to and reads from.
struct Buffers {
    header: MmapMut,
    payload: MmapMut,
    /// Where they are, for REGISTER.
    places: Box<[libc::iovec; 2]>,
}

// SAFETY: the pointers in `places` are addresses of memory that the value itself owns; nothing here
// dereferences them.
unsafe impl Send for Buffers {}

impl Buffers {
    fn new(payload: usize) -> io::Result<Self> {
        // Aligned to pages, so that the kernel copies page by page.
        let mut header = MmapMut::map_anon(wire::HEADER_BYTES)?;
        let mut payload = MmapMut::map_anon(payload)?;
        let place = |map: &mut MmapMut| libc::iovec { iov_base: map.as_mut_ptr().cast(), iov_len: map.len() };
        let places = Box::new([place(&mut header), place(&mut payload)]);
        Ok(Self { header, payload, places })
    }
}

/// An entry. It belongs to the thread that made it.
pub struct Entry {
    ring: Ring,
    /// `None` only while the value is dropped.
    buffers: Option<Buffers>,
    device: Arc<OwnedFd>,
    queue: u16,
    in_kernel: bool,
    last: Command,
}

/// What was submitted last, in case it has to be again.
#[derive(Clone, Copy)]
enum Command {
    Register,
    Commit(u64),
}

/// Why there is no next request.
#[derive(Debug)]
pub enum Ended {
    /// The mount is gone.
    Unmounted,
    /// The ring, or the kernel with it.
    Failed(io::Error),
}

/// Whether this process may use a ring such as entries need.
///
/// # Errors
/// What the system says.
pub fn probe() -> io::Result<()> {
    ring().map(drop)
}

/// Only its own thread submits, and what the kernel has to do in that thread's name is done when it waits: no
/// interrupts.
fn ring() -> io::Result<Ring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(2)
}

impl Entry {
    /// An entry for queue `queue` of the connection `device`, with room for `payload` bytes.
    ///
    /// # Errors
    /// What the system says; too little memory, or no io_uring for this process.
    pub fn new(device: Arc<OwnedFd>, queue: u16, payload: usize) -> io::Result<Self> {
        let buffers = Some(Buffers::new(payload)?);
        Ok(Self { ring: ring()?, buffers, device, queue, in_kernel: false, last: Command::Register })
    }

    /// Hands it to the kernel. To be called once, before all else.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn register(&mut self) -> Result<(), Ended> {
        self.submit(Command::Register)?;
        self.ring.submit().map_err(Ended::Failed)?;
        // A refusal is there at once.
        let mut completions = self.ring.completion();
        match completions.next().map(|c| c.result()) {
            Some(result) if result < 0 => {
                drop(completions);
                self.in_kernel = false;
                Err(self.ended(result))
            }
            Some(_) => {
                drop(completions);
                self.in_kernel = false;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Waits for the next request; it is in the buffers then.
    ///
    /// # Errors
    /// [`Ended`].
    pub fn wait(&mut self) -> Result<(), Ended> {
        while self.in_kernel {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Ended::Failed(e)),
            }
            let Some(result) = self.ring.completion().next().map(|c| c.result()) else { continue };
            self.in_kernel = false;
            match -result {
                0 => {}
                libc::EINTR | libc::EAGAIN => self.submit(self.last)?,
                _ => return Err(self.ended(result)),
            }
        }
        Ok(())
    }

    /// The header and the payload of the request, in which the answer is written.
    pub fn buffers(&mut self) -> Option<(&mut [u8], &mut [u8])> {
        let ours = self.buffers.as_mut().filter(|_| !self.in_kernel)?;
        Some((&mut ours.header, &mut ours.payload))
    }

    /// Hands the answer to the kernel, at the next [`wait`](Self::wait).
    ///
    /// # Errors
    /// If the ring is broken.
    pub fn commit(&mut self, commit_id: u64) -> Result<(), Ended> {
        self.submit(Command::Commit(commit_id))
    }

    /// What a failed command means. While a mount goes away the answer to a request may also find the request
    /// gone (`ENOENT`) and the connection still there a moment later, so that is asked for in any case.
    fn ended(&self, result: i32) -> Ended {
        match -result {
            libc::ENOTCONN | libc::ECONNABORTED | libc::ECANCELED => Ended::Unmounted,
            _ if self.is_disconnected() => Ended::Unmounted,
            error => Ended::Failed(io::Error::from_raw_os_error(error)),
        }
    }

    fn is_disconnected(&self) -> bool {
        let mut device = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        let polled = poll(&mut device, PollTimeout::ZERO);
        polled.is_ok() && device[0].revents().is_some_and(|r| r.contains(PollFlags::POLLERR))
    }

    fn submit(&mut self, command: Command) -> Result<(), Ended> {
        let device = types::Fd(self.device.as_raw_fd());
        let sqe = match (command, &self.buffers) {
            (Command::Register, Some(buffers)) => {
                let places = buffers.places.as_ptr().addr() as u64;
                let data = wire::command(self.queue, 0);
                with_len(opcode::UringCmd80::new(device, REGISTER).cmd(data).addr(Some(places)).build(), 2)
            }
            (Command::Register, None) => return Err(Ended::Failed(io::ErrorKind::InvalidInput.into())),
            (Command::Commit(id), _) => {
                opcode::UringCmd80::new(device, COMMIT_AND_FETCH).cmd(wire::command(self.queue, id)).build()
            }
        };
        // SAFETY: the descriptor is open as long as `self`. The buffers, and the array that says where they
        // are, stay where they are and are not touched until the completion of this command: `in_kernel` is
        // set from here to there, `buffers` gives nothing out while it is, and `drop` leaks them then.
        let pushed = unsafe { self.ring.submission().push(&sqe) };
        pushed.map_err(|_| Ended::Failed(io::Error::other("the submission queue is full")))?;
        self.in_kernel = true;
        self.last = command;
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.in_kernel {
            std::mem::forget(self.buffers.take());
        }
    }
}

/// The builder leaves `len` of the entry at 0.
fn with_len(mut sqe: squeue::Entry128, len: u32) -> squeue::Entry128 {
    const { assert!(size_of::<squeue::Entry128>() == 128) };
    // SAFETY: the type is `struct io_uring_sqe` of 128 bytes, in the layout of the kernel (repr(C)), in which
    // `len` is a 32-bit word at this offset; the pointer is to a value that we own.
    unsafe { (&raw mut sqe).cast::<u8>().add(SQE_LEN_AT).cast::<u32>().write_unaligned(len) };
    sqe
}
