//! The time series as comma-separated values (RFC 4180), for spreadsheets and plots.

use crate::result::Report;
use std::fmt::Write as _;

/// A head line, then one line an interval; the first column is the interval's start in nanoseconds since the
/// beginning of the series.
pub fn render(report: &Report) -> String {
    let series = &report.series;
    let mut text = String::from("start_ns");
    for column in &series.columns {
        text.push(',');
        text.push_str(&quoted(column));
    }
    text.push('\n');
    for (index, row) in series.rows.iter().enumerate() {
        let start_ns = u128::from(series.interval_ns) * index as u128;
        let _ = write!(text, "{start_ns}"); // writing to a String does not fail
        for value in row {
            let _ = write!(text, ",{value}");
        }
        text.push('\n');
    }
    text
}

fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}
