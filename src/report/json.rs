//! The report itself, as it is written to files.

use crate::result::Report;

/// Indented JSON with a newline at its end.
pub fn render(report: &Report) -> String {
    let mut text = serde_json::to_string_pretty(report).expect("report types are plain JSON");
    text.push('\n');
    text
}
