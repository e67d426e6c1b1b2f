//! Requests by kind and target, for the summary.

use crate::confidence::ENOUGH_BEYOND;
use crate::histogram::{QUANTILES, count_beyond};
use crate::result::{Group, Histogram, Report};
use crate::units::{format_duration, format_exact_count};

/// Groups that are listed; the report has all of them.
const LISTED: usize = 12;
/// Characters of a group's name.
const NAME: usize = 24;

/// A line for each group, by how much there was of it.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let mut groups: Vec<&Group> = report.breakdown.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.sent));
    let width = groups.iter().map(|group| name(group).chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = groups.iter().take(LISTED).map(|group| line(group, width)).collect();
    if groups.len() > LISTED {
        lines.push(format!("and {} more in the report", groups.len() - LISTED));
    }
    lines
}

/// What the protocol counted, as `hits 120  misses 3`.
pub(super) fn counted(report: &Report) -> Option<String> {
    let words: Vec<String> =
        report.counted.iter().map(|(name, count)| format!("{name} {}", format_exact_count(*count))).collect();
    (!words.is_empty()).then(|| words.join("  "))
}

fn line(group: &Group, width: usize) -> String {
    let errors: u64 = group.errors.values().sum();
    let errors = if errors > 0 { format!(", {} errors", format_exact_count(errors)) } else { String::new() };
    let times = group.response.as_ref().map_or(String::new(), |response| {
        let at = |name: &str| known(response, name).map_or_else(|| "-".to_owned(), format_duration);
        format!("  p50 {:<8}  p99 {}", at("0.5"), at("0.99"))
    });
    format!("{:<width$}  {:>10} ok{errors}{times}", name(group), format_exact_count(group.ok))
}

/// A quantile with enough values beyond it: of few, it is chance.
pub(super) fn known(histogram: &Histogram, name: &str) -> Option<u64> {
    let (_, q) = QUANTILES.iter().find(|(known, _)| *known == name)?;
    let enough = count_beyond(histogram.count, *q) >= ENOUGH_BEYOND;
    histogram.quantiles_ns.get(name).copied().filter(|_| enough)
}

fn name(group: &Group) -> String {
    let words: Vec<&str> = [group.target.as_deref(), group.kind.as_deref()].into_iter().flatten().collect();
    let name = words.join(" ");
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name,
    }
}
