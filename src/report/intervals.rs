//! Intervals as the summary shows them: `p99 1.20 ms (1.15-1.31)`.

use crate::confidence::ENOUGH_BEYOND;
use crate::confidence::goal::percentile;
use crate::histogram::{QUANTILES, count_beyond};
use crate::result::{Confidence, Histogram, Interval, UntilCi};
use crate::units::{format_count, format_duration};

/// Columns of a percentile with its interval; two of them fit into a line.
const CELL: usize = 32;

/// The percentiles of a run with their intervals, two in a line, then maximum and mean.
pub(super) fn percentiles(response: &Histogram, confidence: &Confidence) -> Vec<String> {
    let cell = |name: &str, q: f64| {
        let known = response.quantiles_ns.get(name).filter(|_| count_beyond(response.count, q) >= ENOUGH_BEYOND);
        let Some(ns) = known else { return format!("{} -", percentile(name)) };
        let interval = confidence.quantiles.get(name).and_then(|interval| between(*ns, interval));
        let interval = interval.map_or(String::new(), |interval| format!(" ({interval})"));
        format!("{} {}{interval}", percentile(name), format_duration(*ns))
    };
    let cells = QUANTILES.iter().filter(|(name, _)| *name != "0.95").map(|(name, q)| cell(name, *q));
    let mut cells: Vec<String> = cells.collect();
    cells.push(format!("max {}  mean {}", format_duration(response.max_ns), format_duration(response.mean_ns)));
    cells.chunks(2).map(|pair| format!("{:<CELL$}  {}", pair[0], pair.get(1).map_or("", String::as_str))).collect()
}

/// What is in the brackets, what else has an interval, and whether the run was steady.
pub(super) fn explained(response: &Histogram, confidence: &Confidence) -> String {
    let mut text = format!("{} % in brackets", confidence.level_percent);
    if let Some(mean) = between(response.mean_ns, &confidence.mean) {
        let unit = format_duration(response.mean_ns).split_once(' ').map_or(String::new(), |(_, unit)| unit.to_owned());
        let unit = if mean.contains(' ') { String::new() } else { format!(" {unit}") };
        text.push_str(&format!("; mean {mean}{unit}"));
    }
    if let (Some(low), Some(high)) = (confidence.rate.low_per_s, confidence.rate.high_per_s) {
        text.push_str(&format!("; {}-{}/s", format_count(low), format_count(high)));
    }
    match &confidence.drift {
        Some(drift) if drift.steady => text.push_str("; steady"),
        Some(_) => text.push_str("; NOT steady"),
        None => {}
    }
    text
}

/// What came of `--until-ci`.
pub(super) fn until(wanted: &[UntilCi], interrupted: bool) -> String {
    let all = wanted.iter().all(|one| one.reached);
    let each: Vec<String> = wanted.iter().map(one_goal).collect();
    if all {
        // The replies that came after the end had been decided on count, too.
        let wider = wanted.iter().any(|one| one.half_width_ppm.is_none_or(|width| width > one.asked_ppm));
        let by_a_hair = if wider { " when the end was decided on; over the whole window" } else { "" };
        return format!("confidence reached{by_a_hair}: {}", each.join(", "));
    }
    let why =
        if interrupted { "the run was interrupted" } else { "--duration was over first: raise it, or ask for less" };
    format!("confidence not reached: {}; {why}", each.join(", "))
}

fn one_goal(wanted: &UntilCi) -> String {
    let percent = |ppm: u64| {
        let percent = ppm as f64 / 10_000.0;
        if percent < 0.1 { format!("{percent} %") } else { format!("{percent:.1} %") }
    };
    let width = wanted.half_width_ppm.map_or_else(|| "has no interval".to_owned(), |ppm| format!("+-{}", percent(ppm)));
    format!("{} {width} (asked: {})", wanted.figure, percent(wanted.asked_ppm))
}

/// `1.15-1.31` in the unit of the value itself, or both with units where one of them has another.
fn between(ns: u64, interval: &Interval) -> Option<String> {
    let [low, value, high] = [interval.low_ns?, ns, interval.high_ns?].map(format_duration);
    let (low_digits, low_unit) = low.split_once(' ')?;
    let (high_digits, high_unit) = high.split_once(' ')?;
    let (_, unit) = value.split_once(' ')?;
    if low_unit == unit && high_unit == unit {
        return Some(format!("{low_digits}-{high_digits}"));
    }
    Some(format!("{low_digits} {low_unit}-{high_digits} {high_unit}"))
}
