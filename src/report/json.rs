//! The report itself, as it is written to files.

use crate::result::Report;

/// Indented JSON with a newline at its end.
pub fn render(report: &Report) -> String {
    report.to_json()
}
