//! Sizes with units, as people write them for tmpfs: `4G`, `512M`, `64KiB`, `2MB`, `50%`.
//!
//! Every unit is a power of 1024: `2M`, `2MB` and `2MiB` are the same.

pub use pool::units::Bytes;

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
    match text.strip_suffix('%') {
        Some(percent) if percent.bytes().all(|byte| byte.is_ascii_digit()) => {
            percent.parse().ok().map(Size::Percent)
        }
        Some(_) => None,
        None => pool::units::parse_size(text).ok().map(Size::Bytes),
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
