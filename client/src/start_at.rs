//! `--start-at`: a moment of the wall clock at which the load begins, so that several processes begin together.

use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};

/// A moment farther ahead is a slip of the pen (milliseconds for seconds).
const AHEAD_MAX_NS: u64 = 24 * 3_600 * NS_PER_S;
/// When workers are told, so that all have heard of it by then.
pub const NOTICE_NS: u64 = 5 * NS_PER_MS;

/// Nanoseconds since 1970, UTC: of `2026-11-23T13:02:40.5Z`, or of seconds since then (`1795438960.5`).
pub fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no time: write 2026-11-23T13:02:40Z, or seconds since 1970");
    if let Ok(time) = humantime::parse_rfc3339(text) {
        let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| wrong())?;
        return u64::try_from(since.as_nanos()).map_err(|_| wrong());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let seconds: u64 = whole.parse().map_err(|_| wrong())?;
    let ns: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    seconds.checked_mul(NS_PER_S).and_then(|whole| whole.checked_add(ns)).ok_or_else(wrong)
}

/// Whether it can still be kept at `wall_ns`.
pub fn check(at_ns: u64, wall_ns: u64) -> Result<(), String> {
    if at_ns <= wall_ns {
        let past = loadgen_core::units::format_duration(wall_ns - at_ns);
        return Err(format!("--start-at has passed, {past} ago"));
    }
    if at_ns - wall_ns > AHEAD_MAX_NS {
        return Err("--start-at is more than a day ahead".to_owned());
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

    #[test]
    fn times_are_read_in_both_spellings() {
        assert_eq!(parse("1970-01-01T00:00:01.5Z"), Ok(1_500_000_000));
        assert_eq!(parse("1795438960"), Ok(1_795_438_960 * NS_PER_S));
        assert_eq!(parse("1795438960.25"), Ok(1_795_438_960 * NS_PER_S + 250_000_000));
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
