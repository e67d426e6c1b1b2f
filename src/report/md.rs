//! The summary as Markdown (GitHub's), for pull requests and job pages: verdict and reasons first, then a table.

use super::benchmark::printable;
use super::names;
use crate::metric::METRICS;
use crate::result::{LimitState, Report, VerdictState};
use std::fmt::Write as _;

/// A section for each run.
pub fn render(reports: &[Report]) -> String {
    let sections: Vec<String> =
        names(reports).iter().zip(reports).map(|(name, report)| section(name, report)).collect();
    sections.join("\n")
}

fn section(name: &str, report: &Report) -> String {
    let mut page = String::new();
    let verdict = match report.verdict.state {
        VerdictState::Valid => "valid",
        VerdictState::Overloaded => "OVERLOADED",
        VerdictState::Invalid => "INVALID",
    };
    let partial = if report.partial { ", PARTIAL" } else { "" };
    let _ = writeln!(page, "### {}: {verdict}{partial}\n", escaped(name)); // writing to a String does not fail
    let scenario = &report.scenario;
    let (protocol, target) = (escaped(&scenario.protocol), escaped(&scenario.target));
    let (mode, engine) = (escaped(&scenario.mode), escaped(&scenario.engine));
    let connections = scenario.connections;
    let _ = writeln!(page, "{protocol} on {target}, {connections} connections, {mode} loop, engine {engine}\n");
    verdict_lines(report, &mut page);
    limits(report, &mut page);
    figures(report, &mut page);
    page
}

fn verdict_lines(report: &Report, page: &mut String) {
    if report.partial {
        page.push_str("- **partial**: the run ended before its time\n");
    }
    for reason in &report.verdict.reasons {
        // Writing to a String does not fail.
        let _ = writeln!(page, "- **{}**: {}", escaped(&reason.code), escaped(&reason.detail));
    }
    if report.partial || !report.verdict.reasons.is_empty() {
        page.push('\n');
    }
}

fn limits(report: &Report, page: &mut String) {
    if report.limits.is_empty() {
        return;
    }
    page.push_str("| limit | judgement | |\n|---|---|---|\n");
    for limit in &report.limits {
        let judgement = match limit.judgement {
            LimitState::Holds => "holds",
            LimitState::Broken => "**BROKEN**",
            LimitState::Unresolvable => "**UNRESOLVABLE**",
        };
        // Writing to a String does not fail.
        let _ = writeln!(page, "| {} | {judgement} | {} |", escaped(&limit.expression), escaped(&limit.detail));
    }
    page.push('\n');
}

/// Metrics that the run has; an interval only where the run knows one.
fn figures(report: &Report, page: &mut String) {
    page.push_str("| figure | value | 95 % interval | |\n|---|--:|--:|---|\n");
    for metric in METRICS {
        let Some(value) = (metric.value)(report) else { continue };
        let interval = (metric.interval)(report).filter(|(low, high)| low < high);
        let interval = interval.map_or(String::new(), |(low, high)| metric.unit.show_range(low, high));
        let (name, value) = (escaped(metric.name), metric.unit.show(value));
        // Writing to a String does not fail.
        let _ = writeln!(page, "| {name} | {value} | {interval} | {} |", metric.about);
    }
}

/// Text that means itself: no table, link, image or tag comes of it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            // An at sign would notify whoever is called so.
            '@' => safe.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                safe.push('\\');
                safe.push(c);
            }
            _ => safe.push(c),
        }
    }
    safe
}
