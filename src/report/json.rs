//! The report itself, as it is written to files.

use crate::result::Report;
use serde::Serialize;

/// Indented JSON with a newline at its end.
pub fn render(report: &Report) -> String {
    report.to_json()
}

pub(super) fn pretty(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain JSON");
    text.push('\n');
    text
}
