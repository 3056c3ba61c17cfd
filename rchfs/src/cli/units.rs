//! Sizes with units, as people write them for tmpfs: `4G`, `512M`, `64KiB`, `2MB`, `50%`.
//!
//! Every unit is a power of 1024: `2M`, `2MB` and `2MiB` are the same.

use std::fmt;

/// A size as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of the machine's memory.
    Percent(u64),
}

impl Size {
    /// The number of bytes, on a machine with `memory` bytes; `None` past 2^64.
    pub fn bytes(self, memory: u64) -> Option<u64> {
        match self {
            Self::Bytes(n) => Some(n),
            Self::Percent(p) => u64::try_from(u128::from(memory) * u128::from(p) / 100).ok(),
        }
    }
}

/// Reads a size; `None` if it is not one.
pub fn parse_size(text: &str) -> Option<Size> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    if unit == "%" {
        return Some(Size::Percent(number));
    }
    number.checked_mul(1 << unit_shift(unit)?).map(Size::Bytes)
}

/// The binary logarithm of a unit.
fn unit_shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() || unit == "b" {
        return Some(0);
    }
    let mut rest = unit.chars();
    let shift = 10 * (1 + "kmgtp".find(rest.next()?)? as u32);
    matches!(rest.as_str(), "" | "b" | "ib").then_some(shift)
}

/// Shows bytes in the largest unit that is exact, or with one decimal from 10 units up.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["", "K", "M", "G", "T", "P"];
        let step = |n: usize| 1u64 << (10 * n);
        let mut n = units.len() - 1;
        while n > 0 && self.0 < step(n) {
            n -= 1;
        }
        if self.0.is_multiple_of(step(n)) {
            return write!(f, "{}{}", self.0 >> (10 * n), units[n]);
        }
        write!(f, "{:.1}{}", self.0 as f64 / step(n) as f64, units[n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("1k", 1 << 10),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("2MB", 2 << 20),
            ("4G", 4 << 30),
            ("3t", 3 << 40),
            ("1PiB", 1 << 50),
        ] {
            assert_eq!(parse_size(text), Some(Size::Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_none() {
        for text in
            ["", "G", "-1", "4X", "4 G", "4GG", "1.5G", "0x10", "4Gi", "99999999999999999999", "99999999P"]
        {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn percent_is_of_memory() {
        assert_eq!(parse_size("50%").unwrap().bytes(24 << 30), Some(12 << 30));
        assert_eq!(parse_size("%"), None);
        assert_eq!(Size::Percent(u64::MAX).bytes(u64::MAX), None);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_people_would_use() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.5K"), (4 << 30, "4G"), (u64::MAX, "16384.0P")]
        {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
