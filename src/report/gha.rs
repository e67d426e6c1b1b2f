//! The two files of github-action-benchmark: `customBiggerIsBetter` and `customSmallerIsBetter`. Which direction is
//! good is a property of the whole file there.

use super::{caveat, names};
use crate::metric::{Better, METRICS, Metric, Unit};
use crate::result::{Report, pretty};
use serde_json::{Value, json};

/// The metrics of which more is better.
pub fn bigger(reports: &[Report]) -> String {
    render(reports, Better::Higher)
}

/// The metrics of which less is better.
pub fn smaller(reports: &[Report]) -> String {
    render(reports, Better::Lower)
}

/// `[{name, unit, value, range, extra}]`. `range` is the run's own interval, where it is known.
fn render(reports: &[Report], better: Better) -> String {
    let mut entries = Vec::new();
    for (name, report) in names(reports).iter().zip(reports) {
        let chosen = METRICS.iter().filter(|metric| metric.better == better);
        entries.extend(chosen.filter_map(|metric| entry(name, metric, report)));
    }
    pretty(&entries)
}

fn entry(name: &str, metric: &Metric, report: &Report) -> Option<Value> {
    let value = (metric.value)(report)?;
    let extra = match caveat(report) {
        Some(caveat) => format!("{}\n{caveat}", metric.about),
        None => metric.about.to_owned(),
    };
    let mut entry = json!({
        "name": format!("{name}: {}", metric.name),
        "unit": unit(metric.unit),
        "value": value,
        "extra": extra,
    });
    if let Some((low, high)) = (metric.interval)(report).filter(|(low, high)| low < high) {
        entry["range"] = format!("{low} - {high}").into();
    }
    Some(entry)
}

fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "ns",
        Unit::PerSecond => "requests/s",
        Unit::BytesPerSecond => "bytes/s",
        Unit::Count => "count",
        Unit::Share => "share",
    }
}
