//! Bencher metric format: <https://bencher.dev/docs/reference/bencher-metric-format>. Bounds are the run's own
//! intervals at 95 %.

use super::names;
use crate::metric::{METRICS, Metric};
use crate::result::{Report, VerdictState, pretty};
use serde_json::{Map, Value, json};

/// `{benchmark: {measure: {value, lower_value, upper_value}}}`. Measures are the metrics, with their unit (`p99_ns`),
/// and `invalid`: 1 where the run is partial or invalid, so that a history shows which values not to believe.
pub fn render(reports: &[Report]) -> String {
    let benchmarks: Map<String, Value> = names(reports).into_iter().zip(reports.iter().map(measures)).collect();
    pretty(&benchmarks)
}

fn measures(report: &Report) -> Value {
    let mut measures: Map<String, Value> =
        METRICS.iter().filter_map(|metric| Some((metric.key(), measure(metric, report)?))).collect();
    let invalid = report.partial || report.verdict.state == VerdictState::Invalid;
    measures.insert("invalid".to_owned(), json!({ "value": u8::from(invalid) }));
    Value::Object(measures)
}

fn measure(metric: &Metric, report: &Report) -> Option<Value> {
    let value = (metric.value)(report)?;
    Some(match (metric.interval)(report) {
        Some((low, high)) => json!({ "value": value, "lower_value": low, "upper_value": high }),
        None => json!({ "value": value }),
    })
}
