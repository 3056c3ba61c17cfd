//! Values that are written once in a whole history, and say which word they are for.
//!
//! From the highest bit: a hash of the word's address (20 bits, never zero), the writing thread (12 bits),
//! a number of that thread (32 bits). So no value is zero, which is what words hold at first.

/// The most threads that one history has.
pub const WRITERS: u16 = 1 << 12;

const TAG_SHIFT: u32 = 44;
const WRITER_SHIFT: u32 = 32;

/// The value for the word at `at` that the thread `writer` writes as its `number`th.
pub fn make(at: u64, writer: u16, number: u32) -> u64 {
    debug_assert!(writer < WRITERS);
    tag(at) << TAG_SHIFT | u64::from(writer) << WRITER_SHIFT | u64::from(number)
}

/// Whether `value` can have been written to the word at `at`.
pub fn is_for(value: u64, at: u64) -> bool {
    value == 0 || value >> TAG_SHIFT == tag(at)
}

/// The thread that wrote `value`, and its number there.
pub fn origin(value: u64) -> (u16, u32) {
    ((value >> WRITER_SHIFT) as u16 & (WRITERS - 1), value as u32)
}

fn tag(at: u64) -> u64 {
    let mixed = (at >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> TAG_SHIFT).max(1)
}
