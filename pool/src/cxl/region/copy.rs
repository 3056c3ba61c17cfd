//! Copying between private memory and the region such that no aligned 8-byte word of the region is
//! ever torn, at the speed of memory.
//!
//! `memcpy` will not do. It may move a word in two halves: it aligns one of the two pointers, which
//! need not be ours, and ends with stores that overlap. And to Rust, a plain copy that races with
//! another thread is undefined. So:
//!
//! - Bytes before the first and after the last aligned word, and short copies: relaxed atomics.
//! - Long copies on x86-64 go by inline assembly, which to the compiler is opaque. With both sides
//!   16-byte aligned to each other: `rep movsq`, whose steps are by definition whole quadwords.
//!   Otherwise: 16-byte loads or stores that are aligned on the region's side. Such an access is a
//!   single one on all processors with AVX (Intel SDM vol. 3 section 9.1.1, AMD APM vol. 2 section
//!   7.3.2), and on older ones is done as whole halves of 8 bytes.
//! - Other processors: relaxed atomics all through.
//!
//! Measured on an AMD EPYC against glibc's `memcpy`: the same at 4 KiB and 1 MiB when aligned; three
//! times as fast at 4 KiB when source and destination are not aligned to each other.
//!
//! The order of the words among themselves is not defined; a release store or a fence afterwards
//! orders them all before it, as it does plain stores.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

/// From this many bytes on the start-up cost of a string instruction pays.
#[cfg(target_arch = "x86_64")]
const STRING_MIN: usize = 1024;

/// Copies `len` bytes of the region at `shared` to private memory.
///
/// # Safety
/// `shared` must be valid for reads of `len` bytes and accessed by others only atomically or by this
/// module; `private` must be valid for writes of `len` bytes, not accessed by others, and not overlap.
#[inline]
pub unsafe fn out_of(shared: *mut u8, private: *mut u8, len: usize) {
    // SAFETY: handed through.
    unsafe { transfer::<true>(shared, private, len) }
}

/// Copies `len` bytes of private memory to the region at `shared`.
///
/// # Safety
/// `shared` must be valid for writes of `len` bytes and accessed by others only atomically or by this
/// module; `private` must be valid for reads of `len` bytes, not written by others, and not overlap.
#[inline]
pub unsafe fn into(shared: *mut u8, private: *const u8, len: usize) {
    // SAFETY: handed through; with OUT false, `private` is only read.
    unsafe { transfer::<false>(shared, private.cast_mut(), len) }
}

/// Sets `len` bytes of the region at `shared` to zero.
///
/// # Safety
/// `shared` must be valid for writes of `len` bytes and accessed by others only atomically or by this
/// module.
#[inline]
pub unsafe fn zero(shared: *mut u8, len: usize) {
    const ZEROES: [u8; 16] = [0; 16];
    let head = shared.align_offset(8).min(len);
    let body = (len - head) & !7;
    // SAFETY: head + body <= len, and ends are shorter than ZEROES; `fill` gets an aligned pointer.
    unsafe {
        into(shared, ZEROES.as_ptr(), head);
        fill(shared.add(head), body);
        into(shared.add(head + body), ZEROES.as_ptr(), len - head - body);
    }
}

/// # Safety
/// As [`zero`]; `shared` aligned to 8, `len` a multiple of 8.
#[inline]
unsafe fn fill(shared: *mut u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: stores len / 8 quadwords of zero from `shared` on, which is valid for that; the direction
    // flag is clear, as the ABI demands.
    unsafe {
        std::arch::asm!("rep stosq", inout("rcx") len / 8 => _, inout("rdi") shared => _, in("rax") 0u64,
            options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    for at in (0..len).step_by(8) {
        // SAFETY: aligned and within `len`.
        unsafe { AtomicU64::from_ptr(shared.add(at).cast()).store(0, Relaxed) }
    }
}

/// # Safety
/// As [`out_of`] if OUT, else as [`into`].
#[inline(always)]
unsafe fn transfer<const OUT: bool>(shared: *mut u8, private: *mut u8, len: usize) {
    if shared.addr().is_multiple_of(16) && len.is_multiple_of(64) {
        // SAFETY: the caller's promise, and aligned as `bulk` wants it.
        unsafe { bulk::<OUT>(shared, private, len) }
    } else {
        // SAFETY: handed through.
        unsafe { transfer_any::<OUT>(shared, private, len) }
    }
}

/// # Safety
/// As [`transfer`].
unsafe fn transfer_any<const OUT: bool>(mut shared: *mut u8, mut private: *mut u8, mut len: usize) {
    macro_rules! step {
        ($t:ty) => {{
            const N: usize = size_of::<$t>();
            // SAFETY: at least N bytes are left (each use checks), `shared` is aligned to N (each use
            // checks), and shared memory is accessed atomically.
            unsafe { part::<OUT, $t>(shared, private) };
            // SAFETY: both stay within, or one past, their `len` bytes.
            (shared, private) = unsafe { (shared.add(N), private.add(N)) };
            len -= N;
        }};
    }
    macro_rules! align {
        ($t:ty) => {
            if len >= size_of::<$t>() && shared.addr() & size_of::<$t>() != 0 {
                step!($t);
            }
        };
    }
    align!(u8);
    align!(u16);
    align!(u32);
    if len >= 64 {
        align!(u64);
        let body = len & !63;
        // SAFETY: `shared` is aligned to 16: each step above cleared one low bit, since enough was left.
        unsafe { bulk::<OUT>(shared, private, body) };
        // SAFETY: body <= len.
        (shared, private) = unsafe { (shared.add(body), private.add(body)) };
        len -= body;
    }
    while len >= 8 && shared.addr().is_multiple_of(8) {
        step!(u64);
    }
    // What is left is shorter than a word, or lies within one, where alignment may be that of a byte.
    while len >= 4 && shared.addr().is_multiple_of(4) {
        step!(u32);
    }
    while len >= 2 && shared.addr().is_multiple_of(2) {
        step!(u16);
    }
    while len >= 1 {
        step!(u8);
    }
}

/// An integer with an atomic.
trait Atom: Copy {
    /// # Safety
    /// `at` valid and aligned, shared with atomic accesses only.
    unsafe fn load(at: *mut Self) -> Self;
    /// # Safety
    /// As `load`.
    unsafe fn store(at: *mut Self, value: Self);
}

macro_rules! atom {
    ($t:ty, $atomic:ty) => {
        impl Atom for $t {
            #[inline(always)]
            unsafe fn load(at: *mut Self) -> Self {
                // SAFETY: the caller promises a valid, aligned pointer.
                unsafe { <$atomic>::from_ptr(at) }.load(Relaxed)
            }
            #[inline(always)]
            unsafe fn store(at: *mut Self, value: Self) {
                // SAFETY: the caller promises a valid, aligned pointer.
                unsafe { <$atomic>::from_ptr(at) }.store(value, Relaxed);
            }
        }
    };
}
atom!(u8, AtomicU8);
atom!(u16, AtomicU16);
atom!(u32, AtomicU32);
atom!(u64, AtomicU64);

/// Moves one integer.
///
/// # Safety
/// `shared` valid for it and aligned; `private` valid for it.
#[inline(always)]
unsafe fn part<const OUT: bool, T: Atom>(shared: *mut u8, private: *mut u8) {
    // SAFETY: the caller's promise; private memory need not be aligned.
    unsafe {
        if OUT {
            private.cast::<T>().write_unaligned(T::load(shared.cast()));
        } else {
            T::store(shared.cast(), private.cast::<T>().read_unaligned());
        }
    }
}

/// # Safety
/// As [`transfer`]; `shared` aligned to 16, `len` a multiple of 64.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn bulk<const OUT: bool>(shared: *mut u8, private: *mut u8, len: usize) {
    let (from, to) = if OUT { (shared, private) } else { (private, shared) };
    if len >= STRING_MIN && (from.addr() ^ to.addr()) & 15 == 0 {
        // SAFETY: moves len / 8 quadwords between two places valid for `len` bytes that do not overlap;
        // the direction flag is clear, as the ABI demands.
        unsafe {
            std::arch::asm!("rep movsq", inout("rcx") len / 8 => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    macro_rules! blocks {
        ($load:literal, $store:literal) => {
            // SAFETY: moves len bytes in blocks of 64 (len is a multiple) between two places valid for
            // that; the aligned instruction is the one on the region's side, which is aligned to 16.
            unsafe {
                std::arch::asm!(
                    "2:",
                    concat!($load, " {a}, [{from} + {at}]"),
                    concat!($load, " {b}, [{from} + {at} + 16]"),
                    concat!($load, " {c}, [{from} + {at} + 32]"),
                    concat!($load, " {d}, [{from} + {at} + 48]"),
                    concat!($store, " [{to} + {at}], {a}"),
                    concat!($store, " [{to} + {at} + 16], {b}"),
                    concat!($store, " [{to} + {at} + 32], {c}"),
                    concat!($store, " [{to} + {at} + 48], {d}"),
                    "add {at}, 64",
                    "cmp {at}, {len}",
                    "jb 2b",
                    from = in(reg) from, to = in(reg) to, len = in(reg) len,
                    at = inout(reg) 0usize => _,
                    a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                    options(nostack),
                );
            }
        };
    }
    if len == 0 {
    } else if OUT {
        blocks!("movaps", "movups");
    } else {
        blocks!("movups", "movaps");
    }
}

/// # Safety
/// As [`transfer`]; `shared` aligned to 16, `len` a multiple of 64.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn bulk<const OUT: bool>(shared: *mut u8, private: *mut u8, len: usize) {
    for at in (0..len).step_by(8) {
        // SAFETY: aligned and within `len`.
        unsafe { part::<OUT, u64>(shared.add(at), private.add(at)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 16-byte aligned room for a pretended region.
    fn room(len: usize) -> Vec<u128> {
        vec![0; len.div_ceil(16)]
    }

    #[test]
    fn copies_of_every_length_and_alignment_move_exactly_those_bytes() {
        const LEN: usize = 4096;
        let source: Vec<u8> = (0..LEN + 64).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..200).chain([255, 256, 1000, 1023, 1024, 1025, 1100, 2048, 4000]) {
            for shared_at in (0..17).chain([31, 32, 48]) {
                for private_at in [0, 1, 3, 8, 15, 16] {
                    let mut shared = room(LEN + 256);
                    let base = shared.as_mut_ptr().cast::<u8>();
                    // SAFETY: all offsets and lengths are within the buffers.
                    unsafe {
                        into(base.add(shared_at), source.as_ptr().add(private_at), len);
                        let all = std::slice::from_raw_parts(base, LEN + 256);
                        assert_eq!(&all[shared_at..shared_at + len], &source[private_at..private_at + len]);
                        assert!(all[..shared_at].iter().chain(&all[shared_at + len..]).all(|b| *b == 0));
                    }
                    let mut back = vec![0xEE; LEN + 64];
                    // SAFETY: as above.
                    unsafe { out_of(base.add(shared_at), back.as_mut_ptr().add(private_at), len) };
                    assert_eq!(&back[private_at..private_at + len], &source[private_at..private_at + len]);
                    assert!(back[..private_at].iter().chain(&back[private_at + len..]).all(|b| *b == 0xEE));
                }
            }
        }
    }

    #[test]
    fn zeroing_clears_exactly_those_bytes() {
        for len in (0..70).chain([1000, 4096]) {
            for at in 0..17 {
                let mut shared = vec![u128::MAX; 300];
                let base = shared.as_mut_ptr().cast::<u8>();
                // SAFETY: within the buffer.
                let all = unsafe {
                    zero(base.add(at), len);
                    std::slice::from_raw_parts(base, 4800)
                };
                assert!(all[at..at + len].iter().all(|b| *b == 0), "{at} {len}");
                assert!(all[..at].iter().chain(&all[at + len..]).all(|b| *b == 0xFF), "{at} {len}");
            }
        }
    }

    /// One thread writes words whose halves are equal, by copies at all private alignments; another
    /// reads them likewise. A torn word would show different halves.
    #[test]
    fn no_aligned_word_is_ever_torn() {
        const WORDS: usize = 512;
        let mut shared = room(WORDS * 8);
        let base = shared.as_mut_ptr().addr();
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(base);
        let _ = shared.as_mut_ptr().expose_provenance();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                let pointer = std::ptr::with_exposed_provenance_mut::<u8>(base);
                let mut private = vec![0u8; WORDS * 8 + 16];
                for round in 0u32.. {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let skew = round as usize % 16;
                    for word in private[skew..skew + WORDS * 8].chunks_mut(8) {
                        word[..4].copy_from_slice(&round.to_le_bytes());
                        word[4..].copy_from_slice(&round.to_le_bytes());
                    }
                    // SAFETY: within both buffers; the shared one is only accessed by this module.
                    unsafe { into(pointer, private.as_ptr().add(skew), WORDS * 8) }
                }
            });
            let mut private = vec![0u8; WORDS * 8 + 16];
            for round in 0..30_000 {
                let (skew, first) = (round % 16, round % 7);
                let len = (WORDS - first) * 8;
                // SAFETY: as above.
                unsafe { out_of(pointer.add(first * 8), private.as_mut_ptr().add(skew), len) };
                for word in private[skew..skew + len].chunks(8) {
                    assert_eq!(word[..4], word[4..], "torn at skew {skew}");
                }
            }
            stop.store(true, Relaxed);
        });
    }
}
