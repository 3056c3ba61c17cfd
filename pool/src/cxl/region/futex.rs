//! Sleeping at a number in shared memory until another process changes it. Linux's futex, shared, not
//! private: the kernel knows the number by the memory that it is in, not by its address.
//!
//! The kernel may refuse, on memory that it has no such name for (some devices), and a futex does not
//! reach another host. Then [`Slept::Impossible`] tells the caller to look at the number now and then.

use std::ptr;
use std::time::Duration;

/// How a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slept {
    /// Woken, or the number had changed already, or a signal came, or the time is up: look.
    Look,
    /// The kernel cannot do this with this memory; there was no sleep.
    Impossible,
}

/// Sleeps while the number at `at` is `expected`, for at most `limit`.
///
/// # Safety
/// `at` must be aligned and either valid for reads or not mapped at all.
pub unsafe fn wait(at: *const u32, expected: u32, limit: Duration) -> Slept {
    let limit = libc::timespec {
        tv_sec: limit.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: the kernel checks `at` itself, and only reads there; the time limit is valid for the call.
    let rc = unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAIT, expected, &raw const limit) };
    if rc == 0 {
        return Slept::Look;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Slept::Look,
        _ => Slept::Impossible,
    }
}

/// Wakes all who sleep at `at`. Where that is impossible nobody sleeps there.
///
/// # Safety
/// As [`wait`].
pub unsafe fn wake(at: *const u32) {
    let nobody = ptr::null::<libc::timespec>();
    // SAFETY: the number is not even read; the kernel checks `at` itself.
    unsafe { libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, i32::MAX, nobody) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_number_that_has_changed_is_not_slept_at() {
        let number = AtomicU32::new(2);
        // SAFETY: valid and aligned.
        let slept = unsafe { wait(number.as_ptr(), 1, Duration::from_secs(3600)) };
        assert_eq!(slept, Slept::Look);
    }

    #[test]
    fn a_sleeper_is_woken() {
        let number = AtomicU32::new(1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while number.load(Ordering::Acquire) == 1 {
                    // SAFETY: valid and aligned.
                    unsafe { wait(number.as_ptr(), 1, Duration::from_secs(3600)) };
                }
            });
            number.store(2, Ordering::Release);
            // SAFETY: valid and aligned.
            unsafe { wake(number.as_ptr()) };
        });
    }

    #[test]
    fn memory_that_the_kernel_cannot_name_is_said_to_be_impossible() {
        let nowhere = ptr::without_provenance(64);
        // SAFETY: aligned, and the first page is never mapped.
        let slept = unsafe { wait(nowhere, 0, Duration::from_secs(3600)) };
        assert_eq!(slept, Slept::Impossible);
    }
}
