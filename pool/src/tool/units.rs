//! Numbers with units, as people write and read them.

/// Bytes: `64`, `4K`, `256M`, `2G` (powers of 1024; `KiB` and the like are the same).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(format!("{unit:?} is no unit of size; K, M, G and T are")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

/// A number, or all from one to another: `A..B` is A, 2A, 4A and so on, and B.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps(pub Vec<u64>);

/// `64`, `64..4K`, `1,2,8`.
pub fn parse_steps(text: &str) -> Result<Steps, String> {
    let mut steps = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => steps.push(parse_size(part)?),
            Some((first, last)) => {
                let (first, last) = (parse_size(first)?, parse_size(last)?);
                if first == 0 || first > last {
                    return Err(format!("{part} is empty"));
                }
                let doubled = std::iter::successors(Some(first), |step| step.checked_mul(2));
                steps.extend(doubled.take_while(|step| *step < last));
                steps.push(last);
            }
        }
    }
    if steps.contains(&0) { Err(format!("{text}: 0 makes no sense")) } else { Ok(Steps(steps)) }
}

/// Bytes with a unit: `512`, `64K`, `1.5G`.
pub fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "");
    for next in ["K", "M", "G", "T", "P"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}{unit}")
    } else {
        format!("{value:.1}{unit}")
    }
}

/// A count in at most five characters or so: `999`, `12.3k`, `4.56M`.
pub fn count(count: f64) -> String {
    match count {
        c if c < 1e4 => format!("{c:.0}"),
        c if c < 1e6 => format!("{:.1}k", c / 1e3),
        c if c < 1e9 => format!("{:.2}M", c / 1e6),
        c => format!("{:.2}G", c / 1e9),
    }
}

/// Nanoseconds with a unit: `26.1 ns`, `3.4 us`.
pub fn time(ns: f64) -> String {
    match ns {
        t if t < 1e3 => format!("{t:.1} ns"),
        t if t < 1e6 => format!("{:.2} us", t / 1e3),
        t if t < 1e9 => format!("{:.2} ms", t / 1e6),
        t => format!("{:.2} s", t / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        assert_eq!(parse_size("64"), Ok(64));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        for bad in ["", "K", "4X", "-1", "99999999999T", "1.5G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_doubles_and_has_its_end() {
        let steps = |text| parse_steps(text).map(|steps| steps.0);
        assert_eq!(steps("64..4K"), Ok(vec![64, 128, 256, 512, 1024, 2048, 4096]));
        assert_eq!(steps("1..3"), Ok(vec![1, 2, 3]));
        assert_eq!(steps("1,4K"), Ok(vec![1, 4096]));
        for bad in ["0", "4..1", "", "1,,2", "1.."] {
            assert!(steps(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        let shown: Vec<_> = [512, 65536, 3 << 29, 1000 << 20].into_iter().map(size).collect();
        assert_eq!(shown, ["512", "64K", "1.5G", "1000M"]);
    }
}
