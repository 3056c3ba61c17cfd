//! Sizes and times with units, as people write them: `4G`, `64KiB`, `2MB`; `1ms`, `5s`, `250us`.
//!
//! Every unit of size is a power of 1024: `2M`, `2MB` and `2MiB` are the same. A size without a unit is in
//! bytes; a time needs a unit, but for 0. For command lines: the errors are sentences for their users.

use crate::addr::PageSize;
use std::fmt;
use std::time::Duration;

/// Reads a number of bytes.
///
/// # Errors
/// What a size looks like.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let size = || number.parse::<u64>().ok()?.checked_mul(1 << unit_shift(unit)?);
    size().ok_or_else(|| format!("{text:?} is not a size, such as 4096, 64K or 2G"))
}

/// Reads the size of a page.
///
/// # Errors
/// What sizes a page can have.
pub fn parse_page_size(text: &str) -> Result<PageSize, String> {
    let size = parse_size(text)?;
    PageSize::from_bytes(size)
        .ok_or_else(|| format!("a page has {} to {}, and a power of two", PageSize::MIN, PageSize::MAX))
}

/// Reads a time.
///
/// # Errors
/// What a time looks like.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let duration = || {
        let number: u64 = number.parse().ok()?;
        let unit: u64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" if number == 0 => 1,
            _ => return None,
        };
        number.checked_mul(unit).map(Duration::from_nanos)
    };
    duration().ok_or_else(|| format!("{text:?} is not a time, such as 250us, 1ms or 5s"))
}

/// A refusal of the command line that `clap` wrote over several lines, in one that says where to look.
pub fn one_line(refusal: &str) -> String {
    let reason = refusal.split("\n\nUsage:").next().unwrap_or(refusal);
    let reason = reason.split("\n\nFor more").next().unwrap_or(reason);
    let words: Vec<&str> = reason.trim_start_matches("error: ").split_whitespace().collect();
    format!("{}; --help lists what there is", words.join(" "))
}

/// The digits at the beginning, and the rest.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
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

/// Shows bytes in the largest unit that is exact, or with one decimal.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = ["", "K", "M", "G", "T", "P"];
        let n = (self.0.max(1).ilog2() as usize / 10).min(units.len() - 1);
        let unit = 1u64 << (10 * n);
        if self.0.is_multiple_of(unit) {
            return write!(f, "{}{}", self.0 / unit, units[n]);
        }
        write!(f, "{:.1}{}", self.0 as f64 / unit as f64, units[n])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_size_are_powers_of_1024() {
        let sizes = [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("1k", 1 << 10),
            ("64KiB", 64 << 10),
            ("2MB", 2 << 20),
            ("4G", 4 << 30),
            ("3t", 3 << 40),
            ("1PiB", 1 << 50),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "4X", "4 G", "4GG", "1.5G", "0x10", "4Gi", "50%", "99999999P", "4é"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_has_a_unit() {
        let times = [
            ("0", Duration::ZERO),
            ("7ns", Duration::from_nanos(7)),
            ("250us", Duration::from_micros(250)),
            ("1ms", Duration::from_millis(1)),
            ("5s", Duration::from_secs(5)),
            ("2min", Duration::from_secs(120)),
            ("1h", Duration::from_secs(3600)),
        ];
        for (text, time) in times {
            assert_eq!(parse_duration(text), Ok(time), "{text}");
        }
        for text in ["", "1", "ms", "-1s", "1.5s", "1 s", "1S", "9999999999h", "99999999999999999999s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_page_is_a_power_of_two_within_limits() {
        assert_eq!(parse_page_size("64K"), Ok(PageSize::from_bytes(65536).unwrap()));
        for text in ["2K", "4M", "12K", "x"] {
            assert!(parse_page_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_of_the_command_line_is_one_line() {
        let refusal = "error: unexpected argument '--cx' found\n\n  tip: a similar argument exists: '--cxl'\n\n\
                       Usage: rcmp-daemon --cxl <PATH>\n\nFor more information, try '--help'.\n";
        let line = "unexpected argument '--cx' found tip: a similar argument exists: '--cxl'; \
                    --help lists what there is";
        assert_eq!(one_line(refusal), line);
    }

    #[test]
    fn bytes_are_shown_in_the_unit_people_would_use() {
        let shown =
            [(0, "0"), (1023, "1023"), (1024, "1K"), (1536, "1.5K"), (4 << 30, "4G"), (u64::MAX, "16384.0P")];
        for (bytes, text) in shown {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
