//! A search for people: its table, the curve, the knee.

use super::curve;
use super::procedure::Basis;
use super::schema::{Found, KneeRow, Outcome, Probe, ProbeVerdict};
use crate::units::{format_duration, format_exact_count};
use std::fmt::Write as _;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The word of `--format`.
    pub name: &'static str,
    pub render: fn(&Found) -> String,
}

/// Every format; the first is the one that people get unless they ask for another.
pub static FORMATS: &[Format] = &[
    Format { name: "text", render: text },
    Format { name: "json", render: Found::to_json },
    Format { name: "md", render: markdown },
    Format { name: "csv", render: csv },
];

/// The answer, in a sentence.
pub fn answer(found: &Found) -> String {
    let slos = found.slos.join(" and ");
    let held = found.highest_held_per_s.map(rate);
    match (&found.knee, found.outcome) {
        (_, Outcome::Never) => {
            let rates = found.probes.iter().filter_map(|probe| probe.rate_per_s);
            let lowest = rates.min().map_or(String::new(), |lowest| format!(" (the lowest: {})", rate(lowest)));
            format!("{slos} does not hold at any rate tried{lowest}")
        }
        (Some(knee), _) => {
            let first = if found.slos.len() > 1 { format!("; {} breaks first", knee.slo) } else { String::new() };
            format!("highest rate that holds {slos}: {} ({}){first}", rate(knee.rate_per_s), interval(knee))
        }
        (None, Outcome::AtLeast) => {
            format!(
                "highest rate that holds {slos}: at least {}; the generator was the bound",
                held.unwrap_or_default()
            )
        }
        (None, _) => match held {
            Some(held) => format!("highest rate that holds {slos}: at least {held}; nothing has broken yet"),
            None => format!("highest rate that holds {slos}: not known"),
        },
    }
}

fn rate(per_s: u64) -> String {
    format!("{}/s", format_exact_count(per_s))
}

/// `95 %: 12,100 to 12,600`.
fn interval(knee: &KneeRow) -> String {
    let [low, high] =
        [knee.low_per_s, knee.high_per_s].map(|end| end.map_or_else(|| "?".to_owned(), format_exact_count));
    match knee.basis {
        Basis::Fit => format!("95 %: {low} to {high}"),
        Basis::Bracket => format!("it held at {low} and did not at {high}"),
    }
}

fn verdict(probe: &Probe) -> String {
    let word = match probe.verdict {
        ProbeVerdict::Holds => return "holds".to_owned(),
        ProbeVerdict::NotJudged => return "closed loop".to_owned(),
        ProbeVerdict::Broken => "BROKEN",
        ProbeVerdict::Overloaded => return "OVERLOADED".to_owned(),
        ProbeVerdict::Unusable => "unusable",
    };
    format!("{word}: {}", probe.why.join(", "))
}

/// By rate, as people look for a place in it; the closed loop first.
fn sorted(found: &Found) -> Vec<&Probe> {
    let mut probes: Vec<&Probe> = found.probes.iter().collect();
    probes.sort_by_key(|probe| probe.rate_per_s);
    probes
}

fn cells(probe: &Probe) -> [String; 6] {
    let duration = |ns: Option<u64>| ns.map_or_else(|| "-".to_owned(), format_duration);
    [
        probe.rate_per_s.map_or_else(|| "-".to_owned(), format_exact_count),
        format_exact_count(probe.achieved_per_s),
        duration(probe.p50_ns),
        duration(probe.p99_ns),
        format_exact_count(probe.errors),
        verdict(probe),
    ]
}

/// The page that a person reads on a terminal.
pub fn text(found: &Found) -> String {
    let mut page = format!("{}\n\n", found.scenario);
    // Writing to a String does not fail.
    let _ =
        writeln!(page, "{:>12} {:>12} {:>10} {:>10} {:>8}  verdict", "rate/s", "achieved/s", "p50", "p99", "errors");
    for probe in sorted(found) {
        let [rate, achieved, p50, p99, errors, verdict] = cells(probe);
        let _ = writeln!(page, "{rate:>12} {achieved:>12} {p50:>10} {p99:>10} {errors:>8}  {verdict}");
    }
    let curve = curve::draw(found);
    if !curve.is_empty() {
        let _ = write!(page, "\n{curve}");
    }
    page.push('\n');
    tail(&mut page, found);
    page
}

fn tail(page: &mut String, found: &Found) {
    if found.partial {
        page.push_str("! interrupted: what is here is what was finished\n");
    }
    for warning in &found.warnings {
        // Writing to a String does not fail.
        let _ = writeln!(page, "! {warning}");
    }
    let _ = writeln!(page, "{}", answer(found));
    let _ = writeln!(page, "{}", found.ended);
    if let Some(wanted) = &found.at_least {
        let _ = writeln!(page, "at least {}: {}", rate(wanted.rate_per_s), wanted.judgement);
    }
}

/// For pull requests and job pages.
pub fn markdown(found: &Found) -> String {
    let mut page = format!("**{}**\n\n{}\n\n", answer(found), found.scenario);
    page.push_str("| rate/s | achieved/s | p50 | p99 | errors | verdict |\n|---:|---:|---:|---:|---:|---|\n");
    for probe in sorted(found) {
        // Writing to a String does not fail.
        let _ = writeln!(page, "| {} |", cells(probe).join(" | "));
    }
    let _ = write!(page, "\n```\n{}\n", curve::draw(found));
    tail(&mut page, found);
    page.push_str("```\n");
    page
}

/// One line a probe, in the order in which they were taken.
pub fn csv(found: &Found) -> String {
    let mut text = String::from("rate_per_s,achieved_per_s,p50_ns,p99_ns,errors,verdict\n");
    for probe in &found.probes {
        let number = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        // A variant without fields is always a text.
        let verdict = serde_json::to_value(probe.verdict).ok();
        let verdict = verdict.as_ref().and_then(|verdict| verdict.as_str()).unwrap_or_default();
        let (rate, p50, p99) = (number(probe.rate_per_s), number(probe.p50_ns), number(probe.p99_ns));
        // Writing to a String does not fail.
        let _ = writeln!(text, "{rate},{},{p50},{p99},{},{verdict}", probe.achieved_per_s, probe.errors);
    }
    text
}
