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
    runs: &[&Report],
    wanted: &[&'static Metric],
    margins: &[(String, f64)],
    also: impl Iterator<Item = &'static Metric>,
) -> Vec<Gate> {
    let usual = usual(runs);
    let gated: Vec<&'static Metric> = if wanted.is_empty() { usual } else { wanted.to_vec() };
    let stream = runs.iter().all(|run| (METRICS[0].value)(run).is_none());
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
/// And always the share of errors. A tail that some run has too few values for is no gate.
fn usual(runs: &[&Report]) -> Vec<&'static Metric> {
    let open = runs.iter().all(|run| run.scenario.mode == "open");
    let stream = runs.iter().all(|run| (METRICS[0].value)(run).is_none());
    let names: &[&str] = match (stream, open) {
        (true, _) => &["sent", "received"],
        (_, true) => &["p50", "p99", "p99.9"],
        (_, false) => &["rate", "p50", "p99"],
    };
    let enough = |name: &str| {
        let q = match name {
            "p99" => 0.99,
            "p99.9" => 0.999,
            _ => return true,
        };
        let count = |run: &&Report| run.latency.response.as_ref().map_or(0, |response| response.count);
        runs.iter().all(|run| count_beyond(count(run), q) >= ENOUGH_TO_GATE)
    };
    // A stream goes one way.
    let moves =
        |metric: &&Metric| !stream || runs.iter().any(|run| (metric.value)(run).is_some_and(|bytes| bytes > 0.0));
    let names = names.iter().copied().filter(|name| enough(name));
    let mut metrics: Vec<&'static Metric> = names.filter_map(metric::by_name).filter(moves).collect();
    metrics.extend(metric::by_name("error_share"));
    metrics
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
