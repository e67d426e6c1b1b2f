//! A comparison for people and for programs: one file a format, and the `FORMATS` table.

pub mod markdown;
pub mod text;

use super::Verdict;
use super::schema::{Comparison, Design, Difference, Row};
use super::sense;
use crate::result::Scenario;
use crate::units::{format_count, format_duration, format_rate};

/// Changes beyond ten thousand percent are all the same: something did not work.
const MOST_SHOWN_PPM: i64 = 100_000_000;

/// Below the table: why its figures need not agree to the last digit.
pub(super) const LEGEND: &str =
    "base and candidate are medians of the runs; the change is estimated by pairs, and need not be their ratio";

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The word of `--format`.
    pub name: &'static str,
    pub about: &'static str,
    pub render: fn(&Comparison) -> String,
}

/// Every format; the first is the usual one.
pub static FORMATS: &[Format] = &[
    Format { name: "text", about: "a table for people", render: text::render },
    Format { name: "md", about: "the same as Markdown", render: markdown::render },
    Format { name: "json", about: "everything (loadgen.comparison/1)", render: Comparison::to_json },
];

/// What was asked of both sides, in a line; what varies is left out.
pub fn scenario(scenario: &Scenario, varied: &[Difference]) -> String {
    let varies = |field: &str| varied.iter().any(|difference| difference.field == field);
    let mut parts = vec![scenario.protocol.clone(), plural(scenario.connections, "connection")];
    if !varies("threads") {
        parts.push(plural(scenario.threads, "thread"));
    }
    parts.push(match (scenario.rate_per_s, &scenario.rate_steps) {
        (Some(rate), _) => format!("open loop at {}/s", format_count(rate)),
        (None, Some(steps)) => format!("open loop at {steps}"),
        (None, None) => format!("{} loop", scenario.mode),
    });
    if scenario.pipeline > 1 {
        parts.push(format!("{} requests in flight on each", scenario.pipeline));
    }
    if !varies("engine") {
        parts.push(format!("engine {}", scenario.engine));
    }
    if let Some(engine) = scenario.server_engine.as_ref().filter(|_| !varies("server_engine")) {
        parts.push(format!("server engine {engine}"));
    }
    if !scenario.server_injected.is_empty() && !varies("server_injected") {
        parts.push(scenario.server_injected.join(" "));
    }
    match (scenario.duration_ns, scenario.requests) {
        (Some(ns), _) => {
            let [length, warmup] = [ns, scenario.warmup_ns].map(format_duration);
            parts.push(format!("{length} a run after {warmup} of warm-up"));
        }
        (None, Some(requests)) => parts.push(format!("{} requests a run", format_count(requests))),
        (None, None) => {}
    }
    parts.join(", ")
}

fn plural(count: u64, what: &str) -> String {
    format!("{} {what}{}", format_count(count), if count == 1 { "" } else { "s" })
}

/// A value of a row in its unit.
pub(super) fn value(row: &Row, value: Option<u64>) -> String {
    let Some(value) = value else { return "-".to_owned() };
    match row.unit.as_str() {
        "ns" => format_duration(value),
        "per_s" => format!("{}/s", format_count(value)),
        "bytes_per_s" => format_rate(value),
        "ppm" => percent(value as f64),
        _ => format_count(value),
    }
}

/// `-2.1 % (-2.9 to -1.2)`.
pub(in crate::compare) fn change(row: &Row) -> String {
    let Some(change) = row.change_ppm else { return "-".to_owned() };
    // Of a share, the change is a difference.
    let unit = if row.unit == "ppm" { "points" } else { "%" };
    match (row.low_ppm, row.high_ppm) {
        (Some(low), Some(high)) => format!("{} {unit} ({} to {})", signed(change), signed(low), signed(high)),
        _ => format!("{} {unit}", signed(change)),
    }
}

/// [`change`], or why there is none; where that takes a sentence, a note has it.
pub(super) fn change_or_reason(row: &Row) -> String {
    if row.not_measurable {
        return sense::WORDS.to_owned();
    }
    row.reason.as_ref().filter(|_| row.change_ppm.is_none()).map_or_else(|| change(row), Clone::clone)
}

/// The heading above the changes, with the confidence of their intervals.
pub(super) fn changes(comparison: &Comparison) -> String {
    level(comparison).map_or_else(|| "change".to_owned(), |level| format!("change ({level} interval)"))
}

/// Three digits, and no more behind the point than there are in front of small changes.
fn digits(percent: f64) -> usize {
    match percent.abs() {
        0.0 => 0,
        p if p < 0.095 => 3,
        p if p < 0.95 => 2,
        p if p < 99.5 => 1,
        _ => 0,
    }
}

pub(in crate::compare) fn signed(ppm: i64) -> String {
    if ppm > MOST_SHOWN_PPM {
        return format!("over +{}", MOST_SHOWN_PPM / 10_000);
    }
    if ppm == 0 {
        return "0".to_owned();
    }
    let percent = ppm as f64 / 1e4;
    format!("{percent:+.0$}", digits(percent))
}

pub(in crate::compare) fn percent(ppm: f64) -> String {
    let percent = ppm / 1e4;
    format!("{percent:.0$} %", digits(percent))
}

/// The smallest change that would have been found.
pub(super) fn sees(row: &Row) -> String {
    row.sees_ppm.map_or_else(|| "-".to_owned(), |ppm| percent(ppm as f64))
}

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Regressed => "REGRESSED",
        Verdict::Improved => "improved",
        Verdict::Equivalent => "equivalent",
        Verdict::Inconclusive => "inconclusive",
    }
}

/// Confidence of the intervals, in percent.
fn level(comparison: &Comparison) -> Option<String> {
    let misrate = comparison.rows.iter().filter_map(|row| row.misrate_ppm).max()?;
    let text = format!("{:.3}", 100.0 - misrate as f64 / 1e4);
    Some(format!("{} %", text.trim_end_matches('0').trim_end_matches('.')))
}

/// How the runs were taken, and what that is worth.
pub(super) fn design(comparison: &Comparison) -> String {
    let gates = comparison.rows.iter().filter(|row| row.gated).count();
    let rate = percent(comparison.alpha_ppm as f64);
    let bounded = format!("at most {rate} false alarms over {}", plural(gates as u64, "gate"));
    match comparison.design {
        Design::PairedBlocks => {
            let left_out = match comparison.blocks_left_out {
                0 => String::new(),
                count => format!(" ({count} more left out: they hold invalid runs)"),
            };
            format!("{}{left_out}, in an order drawn by lot; {bounded}", plural(comparison.blocks, "block"))
        }
        Design::Interleaved => "runs took turns in some order; how often this errs is not known".to_owned(),
        Design::Sequential => "one side after the other; how often this errs is not known".to_owned(),
    }
}

/// The verdict in a sentence: what it is, and by which metrics.
pub fn sentence(comparison: &Comparison) -> String {
    let named = |wanted: Verdict| {
        let rows = comparison.rows.iter().filter(|row| row.gated && row.verdict == wanted);
        rows.map(|row| format!("{} {}", row.metric, change(row))).collect::<Vec<_>>().join(", ")
    };
    let uncapped = comparison.uncapped();
    match comparison.verdict {
        Verdict::Regressed => format!("the candidate is worse: {}", named(Verdict::Regressed)),
        Verdict::Improved => format!("the candidate is better: {}", named(Verdict::Improved)),
        Verdict::Equivalent => "whatever differs is smaller than the margins".to_owned(),
        Verdict::Inconclusive if uncapped != Verdict::Inconclusive => {
            format!("the figures alone would say {}, but see above", verdict(uncapped))
        }
        Verdict::Inconclusive => {
            let rows = comparison.rows.iter().filter(|row| row.gated && row.verdict == Verdict::Inconclusive);
            let each = rows.map(|row| match (&row.reason, row.sees_ppm) {
                _ if row.not_measurable => format!("{}: {}", row.metric, sense::WORDS),
                (Some(reason), _) => format!("{}: {reason}", row.metric),
                (None, Some(_)) => format!("{}: changes below {} cannot be told", row.metric, sees(row)),
                (None, None) => row.metric.clone(),
            });
            let each: Vec<String> = each.collect();
            format!(
                "this is no proof of anything: {}; more blocks, longer runs or a quieter machine help",
                each.join("; ")
            )
        }
    }
}
