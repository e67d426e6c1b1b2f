//! The same as Markdown, for a pull request or a job summary.

use super::{LEGEND, change_or_reason, changes, design, sees, sentence, value, verdict};
use crate::compare::schema::{Comparison, Row};
use std::fmt::Write as _;

/// A heading with the verdict, a table, and what limits it.
pub fn render(comparison: &Comparison) -> String {
    let mut page = format!("### loadgen: {}\n\n", verdict(comparison.verdict));
    // Writing to a String does not fail.
    let _ = writeln!(page, "{}\n", escaped(&sentence(comparison)));
    let _ = writeln!(page, "{}\n", escaped(&comparison.scenario));
    for (name, side) in [("base", &comparison.base), ("candidate", &comparison.candidate)] {
        let _ =
            writeln!(page, "- {name}: {} ({} runs, {} not used)", escaped(&side.from), side.runs, side.invalid.len());
    }
    for difference in &comparison.varied {
        let [field, base, candidate] =
            [&difference.field, &difference.base, &difference.candidate].map(|text| escaped(text));
        let _ = writeln!(page, "- {field}: {base} → {candidate}");
    }
    let changed = changes(comparison);
    let _ = writeln!(page, "\n| | base | candidate | {changed} | verdict | sees |");
    let _ = writeln!(page, "|---|---:|---:|---|---|---:|");
    comparison.rows.iter().filter(|row| row.gated).for_each(|row| line(&mut page, row, verdict(row.verdict)));
    let others = comparison.rows.iter().filter(|row| !row.gated && row.base.is_some());
    others.for_each(|row| line(&mut page, row, "not gated"));
    comparison
        .null
        .iter()
        .for_each(|row| line(&mut page, row, &format!("base against itself: {}", verdict(row.verdict))));
    let _ = writeln!(page, "\n{LEGEND}\n\n{}", escaped(&design(comparison)));
    let limits = comparison.limits.iter().map(|limit| format!("limit {limit}"));
    let unused = comparison.base.invalid.iter().chain(&comparison.candidate.invalid);
    let notes = unused.map(|unused| format!("not used: {}: {}", unused.run, unused.why));
    let caps = comparison.caps.iter().map(|cap| format!("**{}**: {}", cap.code, cap.detail));
    for (index, note) in limits.chain(notes).chain(comparison.notes.iter().cloned()).chain(caps).enumerate() {
        let _ = writeln!(page, "{}- {}", if index == 0 { "\n" } else { "" }, escaped(&note));
    }
    page
}

fn line(page: &mut String, row: &Row, verdict: &str) {
    let [base, candidate] = [row.base, row.candidate].map(|figure| value(row, figure));
    let (change, sees) = (escaped(&change_or_reason(row)), sees(row));
    // Writing to a String does not fail.
    let _ = writeln!(page, "| {} | {base} | {candidate} | {change} | {verdict} | {sees} |", row.metric);
}

/// Texts out of files must not become markup: not a table's cell, not a tag, not a new line.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '<' | '>' | '`' | '[' | ']' | '_' | '\\' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}
