//! What people type (`10k`, `64KiB`, `250us`) and what they read (`142k`, `64.0 KiB`, `68.2 us`).
//!
//! Every parser refuses negative numbers, overflow, empty text and unknown units with one line that names the text
//! and what is allowed. Fractions are taken (`2.5k`) as long as the result is whole. Arithmetic is exact: no floats.

use crate::result::integers::MOST;

const COUNT_UNITS: &[(&str, u128)] =
    &[("", 1), ("k", 1_000), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("B", 1_000_000_000)];
const COUNT_HINT: &str = "allowed: a whole number, optionally with k, M or G (10k, 2.5M)";

const SIZE_UNITS: &[(&str, u128)] = &[
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
const SIZE_HINT: &str = "allowed: bytes (512, 64B), or a number with KiB, MiB, GiB (1024) or kB, MB, GB (1000)";

const DURATION_UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000), // U+00B5 micro sign
    ("μs", 1_000), // U+03BC Greek mu
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
const DURATION_HINT: &str = "allowed: a number with ns, us, ms, s, m or h (250us, 1.5s, 5m)";

/// A count: `10000`, `10k`, `2.5M`. Factors are decimal (`k` = 1000).
///
/// # Errors
/// One line, if the text is not a whole non-negative number below 2^53.
pub fn parse_count(text: &str) -> Result<u64, String> {
    parse(text, "count", COUNT_UNITS, COUNT_HINT)
}

/// A size in bytes: `512`, `64B`, `64KiB` (factor 1024), `1MB` (factor 1000).
///
/// # Errors
/// One line. `64K` is refused: half of the world reads it as 64000, the other half as 65536.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text.trim());
    if let "k" | "K" | "M" | "G" | "m" | "g" = unit {
        let letter = unit.to_uppercase();
        let decimal = if letter == "K" { "k" } else { &letter };
        let (binary, decimal) = (format!("{number}{letter}iB"), format!("{number}{decimal}B"));
        return Err(format!(
            "size `{text}`: `{unit}` is ambiguous; write {binary} (factor 1024) or {decimal} (factor 1000)"
        ));
    }
    parse(text, "size", SIZE_UNITS, SIZE_HINT)
}

/// A length of time in nanoseconds: `250us`, `10s`, `1.5s`, `5m`. `0s` is a length, too.
///
/// # Errors
/// One line. A bare number is refused: it could mean seconds as well as milliseconds.
pub fn parse_duration_ns(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text.trim());
    if unit.is_empty() && !number.is_empty() {
        return Err(format!("time `{text}` has no unit; did you mean {number}s? {DURATION_HINT}"));
    }
    parse(text, "time", DURATION_UNITS, DURATION_HINT)
}

fn parse(text: &str, what: &str, units: &[(&str, u128)], hint: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(format!("{what} is empty; {hint}"));
    }
    if trimmed.starts_with('-') {
        return Err(format!("{what} `{text}` is negative; {hint}"));
    }
    let (number, unit) = split_unit(trimmed);
    let Some(digits) = Digits::parse(number) else {
        return Err(format!("{what} `{text}` is not a number; {hint}"));
    };
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("{what} `{text}` has the unknown unit `{unit}`; {hint}"));
    };
    digits.times(*factor).map_err(|problem| format!("{what} `{text}` {problem}; {hint}"))
}

/// The leading digits and points, and the rest.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A decimal number, exactly: `mantissa / scale`.
struct Digits {
    mantissa: u128,
    scale: u128,
}

impl Digits {
    fn parse(number: &str) -> Option<Self> {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let fraction = fraction.trim_end_matches('0');
        let well_formed = number.starts_with(|c: char| c.is_ascii_digit())
            && number.ends_with(|c: char| c.is_ascii_digit())
            && fraction.bytes().all(|b| b.is_ascii_digit());
        // 15 places are more than any unit can use; what is longer cannot be whole.
        if !well_formed || fraction.len() > 15 {
            return None;
        }
        // Too many digits become a number that `times` refuses as too large.
        const TOO_LARGE: u128 = u64::MAX as u128 + 1;
        let whole: u128 = whole.parse().unwrap_or(TOO_LARGE).min(TOO_LARGE);
        let scale = 10_u128.pow(fraction.len() as u32);
        let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        Some(Self { mantissa: whole * scale + fraction, scale })
    }

    fn times(&self, factor: u128) -> Result<u64, &'static str> {
        // Reports repeat what was typed, and JSON is exact up to here.
        const TOO_LARGE: &str = "is too large (9007199254740991, 2^53 - 1, is the most, in the smallest unit)";
        let product = self.mantissa.checked_mul(factor).ok_or(TOO_LARGE)?;
        let value = u64::try_from(product / self.scale).ok().filter(|value| *value <= MOST).ok_or(TOO_LARGE)?;
        if product.is_multiple_of(self.scale) { Ok(value) } else { Err("is not whole in the smallest unit") }
    }
}

/// A whole number without a unit: digits and nothing else (`parse` of the standard library takes `+3`, too).
pub fn parse_whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A number that need not be whole: digits with at most one point between them. No sign, no exponent, no `inf` and no
/// `NaN`, all of which `parse` of the standard library takes; what is too large for it is none either.
pub fn parse_decimal(text: &str) -> Option<f64> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    text.parse().ok().filter(|number: &f64| digits(whole) && digits(fraction) && number.is_finite())
}

/// CPU numbers as the kernel lists them: `1`, `0-3,7`; in the order given.
pub fn parse_cpus(text: &str) -> Result<Vec<usize>, String> {
    const LARGEST: usize = 1023;
    let number = |t: &str| {
        let parsed = parse_whole(t.trim()).map(|n| n as usize).filter(|n| *n <= LARGEST);
        parsed.ok_or_else(|| format!("`{t}` is no CPU number; give a list such as 0-3,7"))
    };
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("`{part}` runs backwards"));
        }
        list.extend(first..=last);
    }
    Ok(list)
}

/// A length of time, 3 significant digits: `68.2 us`, `1.20 s`, `250 ms`, `3.50 h`.
pub fn format_duration(ns: u64) -> String {
    if ns < 1_000 {
        return format!("{ns} ns");
    }
    const STEPS: &[(&str, u64)] =
        &[("us", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000), ("min", 60_000_000_000), ("h", 3_600_000_000_000)];
    scaled(ns, STEPS, " ")
}

/// A count for reading: exact below 10000, then 3 significant digits: `9999`, `12.3k`, `142k`, `1.50M`.
pub fn format_count(count: u64) -> String {
    if count < 10_000 {
        return count.to_string();
    }
    const STEPS: &[(&str, u64)] =
        &[("k", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000), ("P", 1_000_000_000_000_000)];
    scaled(count, STEPS, "")
}

/// A size, 3 significant digits, factors of 1024: `512 B`, `64.0 KiB`, `3.10 MiB`.
pub fn format_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    const STEPS: &[(&str, u64)] =
        &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("PiB", 1 << 50)];
    scaled(bytes, STEPS, " ")
}

/// Bytes per second, 3 significant digits, factors of 1000 as networks count: `900 B/s`, `9.09 MB/s`.
pub fn format_rate(bytes_per_s: u64) -> String {
    if bytes_per_s < 1_000 {
        return format!("{bytes_per_s} B/s");
    }
    const STEPS: &[(&str, u64)] =
        &[("kB/s", 1_000), ("MB/s", 1_000_000), ("GB/s", 1_000_000_000), ("TB/s", 1_000_000_000_000)];
    scaled(bytes_per_s, STEPS, " ")
}

/// Every digit, with thousands separators: `1,234,567`.
pub fn format_exact_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `value` in the largest step that leaves at least one, or in the next one if rounding reaches it: `1.00 s`, not
/// `1000 ms`.
fn scaled(value: u64, steps: &[(&str, u64)], separator: &str) -> String {
    let mut chosen = steps.iter().rposition(|(_, factor)| value >= *factor).unwrap_or(0);
    if let Some((_, next)) = steps.get(chosen + 1)
        && round_3(value, steps[chosen].1) * u128::from(steps[chosen].1) >= u128::from(*next) * 1000
    {
        chosen += 1;
    }
    let (unit, factor) = steps[chosen];
    let thousandths = round_3(value, factor);
    let (whole, fraction) = (thousandths / 1000, thousandths % 1000);
    if whole < 10 {
        format!("{whole}.{:02}{separator}{unit}", fraction / 10)
    } else if whole < 100 {
        format!("{whole}.{}{separator}{unit}", fraction / 100)
    } else {
        format!("{whole}{separator}{unit}")
    }
}

/// `value / factor` in thousandths, rounded half up to 3 significant digits (4 from 1000 on: `1023 KiB`).
fn round_3(value: u64, factor: u64) -> u128 {
    let (value, factor) = (u128::from(value), u128::from(factor));
    let round_to = |grain: u128| (value * 1000 * 2 + factor * grain) / (factor * grain * 2) * grain;
    let fine = round_to(10);
    if fine < 10_000 {
        return fine;
    }
    let medium = round_to(100);
    if medium < 100_000 { medium } else { round_to(1000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        for (text, value) in
            [("0", 0), ("10000", 10_000), ("10k", 10_000), ("2.5k", 2_500), ("1M", 1_000_000), (" 7 ", 7)]
        {
            assert_eq!(parse_count(text), Ok(value), "{text}");
        }
        assert_eq!(parse_count("9007199254740991"), Ok((1 << 53) - 1));
        assert_eq!(parse_count("1.10k"), Ok(1_100));
    }

    #[test]
    fn sizes_are_read() {
        for (text, value) in
            [("512", 512), ("64B", 64), ("64KiB", 65_536), ("1MB", 1_000_000), ("1kB", 1_000), ("1.5KiB", 1_536)]
        {
            assert_eq!(parse_size(text), Ok(value), "{text}");
        }
        let problem = parse_size("64K").unwrap_err();
        assert!(problem.contains("64KiB") && problem.contains("64kB"), "{problem}");
    }

    #[test]
    fn durations_are_read() {
        let cases = [
            ("5ns", 5),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("100ms", 100_000_000),
            ("1.5s", 1_500_000_000),
            ("10 s", 10_000_000_000),
            ("5m", 300_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0s", 0),
        ];
        for (text, value) in cases {
            assert_eq!(parse_duration_ns(text), Ok(value), "{text}");
        }
        assert!(parse_duration_ns("10").unwrap_err().contains("did you mean 10s?"));
    }

    #[test]
    fn nonsense_is_refused_in_one_line_that_names_it() {
        let nonsense = [
            "",
            " ",
            "-1",
            "-5s",
            "NaN",
            "nan",
            "inf",
            "1e3",
            "k",
            ".",
            "1.",
            ".5",
            "1.2.3",
            "1..2",
            "10x",
            "10 kk",
            "0x10",
            "+1",
            "99999999999999999999999999999999999999999999999s",
            "18446744073709551616",
            "20000000000G",
            "1.0000001k",
            "1,000",
            "١",
            "10秒",
            "6000000h",
            "0.0000000000000000001s",
        ];
        for text in nonsense {
            for problem in [parse_count(text).err(), parse_size(text).err(), parse_duration_ns(text).err()] {
                let problem = problem.unwrap_or_else(|| panic!("`{text}` was taken"));
                assert!(!problem.contains('\n') && problem.contains(text.trim()), "{problem}");
            }
        }
        assert!(parse_duration_ns("0.5ns").is_err());
        assert!(parse_count("0.5").is_err());
        // 2^53, which not every reader of JSON takes for what it is.
        for too_large in [parse_count("9007199254740992"), parse_size("8388608GiB"), parse_duration_ns("2502h")] {
            assert!(too_large.unwrap_err().contains("is too large (9007199254740991"));
        }
    }

    #[test]
    fn numbers_without_units_are_digits_and_nothing_else() {
        assert_eq!((parse_whole("0"), parse_whole("018")), (Some(0), Some(18)));
        for (text, number) in [("0", 0.0), ("2", 2.0), ("0.25", 0.25), ("10.50", 10.5)] {
            assert_eq!(parse_decimal(text), Some(number), "{text}");
        }
        let nonsense = [
            "", " ", "+1", "-1", "-0", "1 ", " 1", "1e3", "1e400", "0x10", "NaN", "nan", "inf", "infinity", "1,5",
            "1_0", "١", "１", ".", "1..2", "1.2.3", "1s", "1.", ".5", "1\u{a0}", "1\0",
        ];
        for text in nonsense {
            assert_eq!((parse_whole(text), parse_decimal(text)), (None, None), "{text}");
        }
        assert_eq!(parse_whole("18446744073709551616"), None);
        assert_eq!(parse_decimal(&"9".repeat(400)), None);
        for cpus in ["+1", "0-+3", "1-", "-1", "1e1", "0x1", "1,,2", ""] {
            assert!(parse_cpus(cpus).is_err(), "{cpus}");
        }
        assert_eq!(parse_cpus("0-2, 7"), Ok(vec![0, 1, 2, 7]));
    }

    #[test]
    fn three_digits_are_written() {
        let durations = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 us"),
            (68_249, "68.2 us"),
            (68_250, "68.3 us"),
            (999_499, "999 us"),
            (999_500, "1.00 ms"),
            (9_999, "10.0 us"),
            (99_950, "100 us"),
            (1_200_000_000, "1.20 s"),
            (59_990_000_000, "1.00 min"),
            (3_600_000_000_000, "1.00 h"),
        ];
        for (ns, text) in durations {
            assert_eq!(format_duration(ns), text);
        }
        for (count, text) in [(0, "0"), (9_999, "9999"), (12_345, "12.3k"), (142_000, "142k"), (999_999, "1.00M")] {
            assert_eq!(format_count(count), text);
        }
        for (bytes, text) in [(512, "512 B"), (65_536, "64.0 KiB"), (1_047_552, "1023 KiB"), (1_048_575, "1.00 MiB")] {
            assert_eq!(format_size(bytes), text);
        }
        for (rate, text) in [(900, "900 B/s"), (9_088_000, "9.09 MB/s")] {
            assert_eq!(format_rate(rate), text);
        }
        for extreme in [format_duration(u64::MAX), format_count(u64::MAX), format_size(u64::MAX)] {
            assert!(extreme.starts_with(|c: char| c.is_ascii_digit()));
        }
    }

    #[test]
    fn exact_counts_are_grouped() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(format_exact_count(count), text);
        }
    }
}
