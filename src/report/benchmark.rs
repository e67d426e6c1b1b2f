//! What other programs call a run, and what they must be told about it besides its figures.

use crate::result::{Report, VerdictState};
use crate::units::format_count;
use std::collections::BTreeSet;

/// A name for each run: its label `name`, or protocol and scenario in short (`echo c100 r10k`). No two are the same:
/// the second of a name ends with ` #2`.
pub fn names(reports: &[Report]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut unique = |report: &Report| {
        let name = name(report);
        let numbered = (2..).map(|number| format!("{name} #{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|candidate| taken.insert(candidate.clone()));
        free.unwrap_or(name)
    };
    reports.iter().map(&mut unique).collect()
}

fn name(report: &Report) -> String {
    let label = report.labels.get("name").map(|label| printable(label.trim())).filter(|label| !label.is_empty());
    label.unwrap_or_else(|| short(report))
}

/// What differs between two runs that people compare; the same words for the same scenario.
fn short(report: &Report) -> String {
    let scenario = &report.scenario;
    let mut words = vec![printable(&scenario.protocol), format!("c{}", scenario.connections)];
    let mut unless_one = |letter: &str, count: u64| {
        if count > 1 {
            words.push(format!("{letter}{count}"));
        }
    };
    unless_one("t", scenario.threads);
    unless_one("p", scenario.pipeline);
    match (scenario.rate_per_s, &scenario.rate_steps) {
        (Some(rate), _) => words.push(format!("r{}", format_count(rate))),
        (None, Some(steps)) => words.push(format!("r{}", printable(steps))),
        (None, None) => {}
    }
    words.extend(scenario.server_engine.iter().map(|engine| printable(engine)));
    words.join(" ")
}

/// Why the figures of a run are not simply true and whole, in one line; None: they are.
pub fn caveat(report: &Report) -> Option<String> {
    let mut caveats = Vec::new();
    if report.partial {
        caveats.push("PARTIAL: the run ended before its time".to_owned());
    }
    let state = match report.verdict.state {
        VerdictState::Valid => None,
        VerdictState::Overloaded => Some("OVERLOADED"),
        VerdictState::Invalid => Some("INVALID"),
    };
    if let Some(state) = state {
        let reasons: Vec<String> =
            report.verdict.reasons.iter().map(|reason| format!("{} ({})", reason.code, reason.detail)).collect();
        caveats.push(printable(&format!("{state}: {}", reasons.join("; "))));
    }
    (!caveats.is_empty()).then(|| caveats.join("; "))
}

/// Labels, targets and errors may hold anything; no format is broken by it, and no terminal obeys it.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
