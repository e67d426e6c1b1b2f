//! The table that a person reads on a terminal.

use super::{LEGEND, change_or_reason, changes, design, sees, sentence, value, verdict};
use crate::compare::schema::{Comparison, Row, Side};
use std::fmt::Write as _;

/// Runs that were not used are listed up to this number; the JSON has all.
const UNUSED_LISTED: usize = 5;

/// The scenario, both sides, a line for each metric, and the verdict at the end.
pub fn render(comparison: &Comparison) -> String {
    let mut page = format!("{}\n", comparison.scenario);
    side(&mut page, "base", &comparison.base);
    side(&mut page, "candidate", &comparison.candidate);
    for difference in &comparison.varied {
        // Writing to a String does not fail.
        let _ = writeln!(page, "  {}: {} -> {}", difference.field, difference.base, difference.candidate);
    }
    page.push('\n');
    let changed = changes(comparison);
    let _ = writeln!(page, "{:<12} {:>11} {:>11}  {changed:<28} {:<13} sees", "", "base", "candidate", "verdict");
    let gated = comparison.rows.iter().filter(|row| row.gated);
    gated.for_each(|one| line(&mut page, one, verdict(one.verdict)));
    let others = comparison.rows.iter().filter(|row| !row.gated && row.base.is_some());
    // What no verdict depends on gets none: nine more intervals would be nine more chances to err.
    others.for_each(|one| line(&mut page, one, "(not gated)"));
    if !comparison.null.is_empty() {
        page.push_str("base against itself\n");
        comparison.null.iter().for_each(|one| line(&mut page, one, verdict(one.verdict)));
    }
    let _ = writeln!(page, "\n{LEGEND}\n{}", design(comparison));
    let unused = comparison.base.invalid.iter().chain(&comparison.candidate.invalid);
    for unused in unused.clone().take(UNUSED_LISTED) {
        let _ = writeln!(page, "not used: {}: {}", unused.run, unused.why);
    }
    if unused.clone().count() > UNUSED_LISTED {
        let _ = writeln!(page, "not used: {} more", unused.count() - UNUSED_LISTED);
    }
    comparison.notes.iter().for_each(|note| {
        let _ = writeln!(page, "note: {note}");
    });
    for cap in &comparison.caps {
        let _ = writeln!(page, "! {}: {}", cap.code, cap.detail);
    }
    for limit in &comparison.limits {
        let _ = writeln!(page, "limit {limit}");
    }
    let _ = writeln!(page, "{}: {}", verdict(comparison.verdict), sentence(comparison));
    page
}

fn side(page: &mut String, name: &str, side: &Side) {
    let runs = if side.runs == 1 { "run" } else { "runs" };
    // Writing to a String does not fail.
    let _ = writeln!(page, "  {name:<10} {}: {} {runs}", side.from, side.runs);
}

fn line(page: &mut String, row: &Row, verdict: &str) {
    let [base, candidate] = [row.base, row.candidate].map(|figure| value(row, figure));
    let change = change_or_reason(row);
    let line = format!("{:<12} {base:>11} {candidate:>11}  {change:<28} {verdict:<13} {}", row.metric, sees(row));
    // Writing to a String does not fail.
    let _ = writeln!(page, "{}", line.trim_end());
}
