//! `--start-at`: a moment of the wall clock at which the load begins, so that several processes begin together.

use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment farther ahead is a slip of the pen (milliseconds for seconds).
const AHEAD_MAX_NS: u64 = 24 * 3_600 * NS_PER_S;
/// Digits of a second down to its nanoseconds.
const NS_DIGITS: usize = 9;
/// Where the time of a stamp begins, behind its date.
const TIME: usize = "2026-11-23T".len();
/// When workers are told, so that all have heard of it by then.
pub const NOTICE_NS: u64 = 5 * NS_PER_MS;

/// Nanoseconds since 1970, UTC: of `2026-11-23T13:02:40.5Z`, `2026-11-23 15:02:40+02:00` (as `date --rfc-3339` writes
/// it), or of seconds since then (`1795438960.5`, or with an `@` before it, as `date` reads it).
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        let forms = "write 2026-11-23T13:02:40Z, 2026-11-23T15:02:40+02:00, or seconds since 1970";
        format!("'{text}' is no time{}: {forms}", unlike_ours(text))
    };
    let beyond = || format!("'{text}' is not between 1970 and 2554");
    if is_stamp(text) {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
        return u64::try_from(time.unix_timestamp_nanos()).map_err(|_| beyond());
    }
    let seconds = text.strip_prefix('@').unwrap_or(text);
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > NS_DIGITS {
        return Err(wrong());
    }
    let ns: u64 = format!("{fraction:0<NS_DIGITS$}").parse().map_err(|_| wrong())?;
    // All digits: it can only be too large.
    let whole = whole.parse::<u64>().ok().and_then(|seconds| seconds.checked_mul(NS_PER_S));
    whole.and_then(|whole| whole.checked_add(ns)).ok_or_else(beyond)
}

/// What is wrong with a stamp of ISO 8601 that is none of RFC 3339.
fn unlike_ours(text: &str) -> &'static str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.get(..8).is_some_and(digits) && text.as_bytes().get(8) == Some(&b'T') {
        return " as it is read here (it lacks its - and :)";
    }
    // The last of a date's own hyphens is before this place.
    let Some(behind) = text.get(TIME..).filter(|_| is_stamp(text)) else { return "" };
    match behind.split_once(['+', '-']) {
        Some((_, offset)) if digits(offset) => " as it is read here (its offset lacks minutes behind a colon: +02:00)",
        None if !behind.ends_with(['Z', 'z']) => " that all agree about (it lacks its offset from UTC: Z or +02:00)",
        _ => "",
    }
}

/// Whether it may be a time stamp of RFC 3339. The crate `time` reads those strictly, a second 60 (the end of a day in
/// UTC, as its last nanosecond) and lower case among them, but takes anything for the separator, and cuts off what is
/// finer than a nanosecond.
fn is_stamp(text: &str) -> bool {
    let separated = matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' '));
    let fraction = text.split_once('.').map_or("", |(_, rest)| rest);
    let fine = fraction.bytes().take_while(u8::is_ascii_digit).count();
    separated && fine <= NS_DIGITS
}

/// Whether it can still be kept at `wall_ns`.
pub fn check(at_ns: u64, wall_ns: u64) -> Result<(), String> {
    if at_ns <= wall_ns {
        let past = loadgen_core::units::format_duration(wall_ns - at_ns);
        return Err(format!("--start-at has passed, {past} ago"));
    }
    if at_ns - wall_ns > AHEAD_MAX_NS {
        let ahead = loadgen_core::units::format_duration(at_ns - wall_ns);
        return Err(format!("--start-at is more than a day ahead ({ahead}); are these milliseconds, or another zone?"));
    }
    Ok(())
}

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    pub now: Instant,
    pub wall_ns: u64,
}

impl Clocks {
    /// The wall clock at `at`, before or after.
    pub fn wall_at(&self, at: Instant) -> u64 {
        (self.wall_ns + at.since(self.now)).saturating_sub(self.now.since(at))
    }

    /// When the load is to begin that was to begin at `start_at` (none: as soon as may be), and how late that is.
    /// `None`: it is not yet time to tell the workers.
    pub fn begin(&self, start_at: Option<u64>) -> Option<(Instant, Option<u64>)> {
        let soon = self.now.after(NOTICE_NS);
        let Some(at_ns) = start_at else { return Some((soon, None)) };
        let ahead_ns = at_ns.saturating_sub(self.wall_ns);
        if ahead_ns > 2 * NOTICE_NS {
            return None;
        }
        let at = soon.max(self.now.after(ahead_ns));
        Some((at, Some(self.wall_at(at).saturating_sub(at_ns))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: &[&str] = &[
        "2026-11-23T13:02:40Z!!!Z",
        "2026-11-23T13:02:40ZZ",
        "2026-11-23T13:02:40Z ",
        " 2026-11-23T13:02:40Z",
        "2026-11-23T13:02:40Z\n",
        "2026-11-23T13:02:40Z\0",
        "2026-11-23T13:02:40",
        "2026-11-23T13:02Z",
        "2026-11-23_13:02:40Z",
        "2026-11-23  13:02:40Z",
        "2026-11-23T13:02:40 Z",
        "2026-11-23T13:02:40+0200",
        "2026-11-23T13:02:40+02",
        "2026-11-23T13:02:40+2:00",
        "2026-11-23T13:02:40+24:00",
        "2026-11-23T13:02:40+02:60",
        "2026-11-23T13:02:40+02:00Z",
        "2026-11-23T13:02:40\u{2212}02:00",
        "2026-11-23T13:02:40.Z",
        "2026-11-23T13:02:40,5Z",
        "2026-11-23T13:02:40.1234567890Z",
        "2026-11-23T13:02:61Z",
        "2026-11-23T13:02:60Z",
        "2026-11-23T24:00:00Z",
        "2026-11-23T13:60:00Z",
        "2026-02-29T13:02:40Z",
        "2026-13-01T13:02:40Z",
        "2026-00-01T13:02:40Z",
        "2026-11-00T13:02:40Z",
        "026-11-23T13:02:40Z",
        "12026-11-23T13:02:40Z",
        "+2026-11-23T13:02:40Z",
        "-2026-11-23T13:02:40Z",
        "２026-11-23T13:02:40Z",
        "20261123T130240Z",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59Z",
        "1970-01-01T00:00:00+02:00",
        "@",
        "@@1",
        "@-1",
        "@+1",
        "1 ",
        "0x10",
        "NaN",
        "1e400",
        "18446744073709551616",
    ];

    #[test]
    fn times_are_read_in_both_spellings() {
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(parse("1795438960"), Ok(1_795_438_960 * NS_PER_S));
        assert_eq!(parse("1795438960.25"), Ok(1_795_438_960 * NS_PER_S + 250_000_000));
        const AT_NS: u64 = 1_795_438_960 * NS_PER_S;
        for (text, ns) in [
            ("2026-11-23T13:02:40Z", AT_NS),
            ("2026-11-23t13:02:40z", AT_NS),
            ("2026-11-23 13:02:40Z", AT_NS),
            ("2026-11-23T13:02:40+00:00", AT_NS),
            ("2026-11-23T13:02:40-00:00", AT_NS),
            ("2026-11-23T15:02:40+02:00", AT_NS),
            ("2026-11-24T02:32:40.000000001+13:30", AT_NS + 1),
            ("2026-11-22T20:02:40.123456789-17:00", AT_NS + 123_456_789),
            ("@1795438960", AT_NS),
            ("@1795438960.000000001", AT_NS + 1),
            ("2024-02-29T00:00:00Z", 1_709_164_800 * NS_PER_S),
            // A leap second, which the clock does not count, is the end of the one before it.
            ("2016-12-31T23:59:60Z", 1_483_228_800 * NS_PER_S - 1),
            ("2017-01-01T01:59:60+02:00", 1_483_228_800 * NS_PER_S - 1),
        ] {
            assert_eq!(parse(text), Ok(ns), "{text}");
        }
        for wrong in WRONG {
            let problem = parse(wrong).expect_err(wrong);
            assert!(problem.contains(wrong) && !problem.contains("panicked"), "{problem}");
        }
        for (wrong, why) in [
            ("2026-11-23T13:02:40+0200", "(its offset lacks minutes behind a colon: +02:00)"),
            ("2026-11-23T13:02:40.5-0200", "(its offset lacks minutes behind a colon: +02:00)"),
            ("2026-11-23 13:02:40+02", "(its offset lacks minutes behind a colon: +02:00)"),
            ("2026-11-23T13:02:40", "(it lacks its offset from UTC: Z or +02:00)"),
            ("20261123T130240Z", "(it lacks its - and :)"),
            ("20261123T130240+0200", "(it lacks its - and :)"),
        ] {
            let problem = parse(wrong).expect_err(wrong);
            assert!(problem.contains(why) && problem.contains("2026-11-23T15:02:40+02:00"), "{problem}");
        }
        for wrong in ["", "now", "+2s", "-1", "1.", ".5", "1e9", "2026-11-23", "1.0000000001", "99999999999999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_that_has_passed_or_is_far_off_is_refused() {
        assert!(check(5, 5).is_err() && check(4, 5).is_err());
        assert!(check(6, 5).is_ok());
        assert!(check(5 + AHEAD_MAX_NS + 1, 5).is_err());
    }

    #[test]
    fn the_load_begins_at_that_moment_or_as_soon_as_may_be() {
        let clocks = Clocks { now: Instant(NS_PER_S), wall_ns: 50 * NS_PER_S };
        let soon = Instant(NS_PER_S + NOTICE_NS);
        assert_eq!(clocks.begin(None), Some((soon, None)));
        assert_eq!(clocks.begin(Some(51 * NS_PER_S)), None);
        let near = 50 * NS_PER_S + NOTICE_NS + 7;
        assert_eq!(clocks.begin(Some(near)), Some((Instant(NS_PER_S + NOTICE_NS + 7), Some(0))));
        assert_eq!(clocks.begin(Some(49 * NS_PER_S)), Some((soon, Some(NS_PER_S + NOTICE_NS))));
        assert_eq!(clocks.wall_at(Instant(0)), 49 * NS_PER_S);
    }
}
