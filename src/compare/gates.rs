//! Which metrics are compared, which of them the verdict depends on, and which changes matter.

use crate::confidence::ENOUGH_BEYOND;
use crate::histogram::count_beyond;
use crate::metric::{self, Better, METRICS, Metric, Unit};
use crate::result::Report;

/// A metric with what a comparison asks of it.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub metric: &'static Metric,
    pub gated: bool,
    /// As a share of the base (for `error_share`, of all requests): smaller changes do not matter.
    pub margin: f64,
}

/// Tails need more values beyond them than a figure does before somebody is woken by them.
const ENOUGH_TO_GATE: u64 = 10 * ENOUGH_BEYOND;

/// Shown beside the gates, where the runs have them.
const SHOWN: &[&str] = &["rate", "p50", "p90", "p99", "p99.9", "mean", "error_share", "server_cpu", "client_cpu"];
const SHOWN_OF_STREAMS: &[&str] = &["sent", "received", "error_share", "server_cpu", "client_cpu"];

/// The metrics of a comparison: the gates first. `wanted`: gates instead of the usual ones; `margins`: by name, or by
/// an empty name for all; `also`: shown in any case.
pub fn gates(
    base: &[&Report],
    wanted: &[&'static Metric],
    margins: &[(String, f64)],
    also: impl Iterator<Item = &'static Metric>,
) -> Vec<Gate> {
    let usual = usual(base);
    let gated: Vec<&'static Metric> = if wanted.is_empty() { usual } else { wanted.to_vec() };
    let stream = is_stream(base);
    let shown = if stream { SHOWN_OF_STREAMS } else { SHOWN };
    let mut metrics = gated.clone();
    metrics.extend(shown.iter().filter_map(|name| metric::by_name(name)));
    metrics.extend(also);
    let mut seen = Vec::new();
    metrics.retain(|metric| {
        let new = !seen.contains(&metric.name);
        seen.push(metric.name);
        new
    });
    let is_gated = |metric: &Metric| gated.iter().any(|gate| gate.name == metric.name);
    let margin = |metric: &Metric| {
        let named = margins.iter().rev().find(|(name, _)| name == metric.name);
        // One margin for all is about figures, not about the share of errors.
        let all = margins.iter().rev().find(|(name, _)| name.is_empty() && metric.unit != Unit::Share);
        named.or(all).map_or_else(|| usual_margin(metric), |(_, margin)| *margin)
    };
    metrics.into_iter().map(|metric| Gate { metric, gated: is_gated(metric), margin: margin(metric) }).collect()
}

/// Closed loop: rate, median and p99. Open loop, whose rate is given: median, p99 and p99.9. Streams: their bytes.
/// And always the share of errors. By the base alone: what becomes of the candidate must not choose its judges.
fn usual(base: &[&Report]) -> Vec<&'static Metric> {
    let stream = is_stream(base);
    let names = usual_names(base).iter().filter(|name| !is_thin(base, name));
    // A stream goes one way.
    let moves =
        |metric: &&Metric| !stream || base.iter().any(|run| (metric.value)(run).is_some_and(|bytes| bytes > 0.0));
    let mut metrics: Vec<&'static Metric> = names.filter_map(|name| metric::by_name(name)).filter(moves).collect();
    metrics.extend(metric::by_name("error_share"));
    metrics
}

fn usual_names(base: &[&Report]) -> &'static [&'static str] {
    let open = base.iter().all(|run| run.scenario.mode == "open");
    match (is_stream(base), open) {
        (true, _) => &["sent", "received"],
        (_, true) => &["p50", "p99", "p99.9"],
        (_, false) => &["rate", "p50", "p99"],
    }
}

fn is_stream(base: &[&Report]) -> bool {
    base.iter().all(|run| (METRICS[0].value)(run).is_none())
}

/// Usual gates that are none here, because runs are too short for such a tail; with the values that it takes.
pub fn left_out(base: &[&Report]) -> Vec<(&'static str, u64)> {
    let thin = usual_names(base).iter().filter(|name| is_thin(base, name));
    thin.filter_map(|name| Some((*name, (ENOUGH_TO_GATE as f64 / (1.0 - tail(name)?)).round() as u64))).collect()
}

/// The quantile of a tail that is a gate only where runs have enough values for it.
fn tail(name: &str) -> Option<f64> {
    match name {
        "p99" => Some(0.99),
        "p99.9" => Some(0.999),
        _ => None,
    }
}

/// Whether half of the runs have too few values beyond a tail; a tenth less than enough is no reason.
fn is_thin(base: &[&Report], name: &str) -> bool {
    let Some(q) = tail(name) else { return false };
    let beyond = |run: &&Report| count_beyond(run.latency.response.as_ref().map_or(0, |response| response.count), q);
    let thin = base.iter().filter(|run| beyond(run) < ENOUGH_TO_GATE * 9 / 10).count();
    2 * thin > base.len()
}

/// Smaller changes are nobody's concern, and tails are wilder than medians.
fn usual_margin(metric: &Metric) -> f64 {
    match (metric.name, metric.unit, metric.better) {
        (_, Unit::Share, _) => 0.0001,
        ("p99" | "connect_p99" | "service_p99" | "lag_p99", ..) => 0.05,
        ("p99.9" | "p99.99" | "max", ..) => 0.10,
        (_, _, Better::Higher | Better::Lower) => 0.02,
    }
}
