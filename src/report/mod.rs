//! Reports in other formats. One file a format; a newcomer is a file and a line in the table.

mod benchmark;
pub mod bmf;
mod breakdown;
pub mod csv;
pub mod gha;
pub mod hgrm;
pub mod hlog;
mod intervals;
pub mod json;
pub mod junit;
pub mod md;
pub mod openmetrics;
pub mod text;
mod traffic;

pub use benchmark::{caveat, names};

use crate::result::Report;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The word of `--format`.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// The whole text of some reports (at least one), with a newline at its end: one document, not several.
    pub render: fn(&[Report]) -> String,
    /// Whether it takes several reports.
    pub many: bool,
    /// Whether a reader of it learns that a run is partial or invalid, and what came of its limits.
    pub says_verdict: bool,
}

/// Every format; the first is the one that people get unless they ask for another.
pub static FORMATS: &[Format] = &[
    format("text", "a summary for people, 80 columns wide", |reports| each(reports, text::render)),
    format("json", "the whole report (loadgen.result/1)", |reports| each(reports, json::render)),
    Format {
        many: false,
        ..mute("csv", "the time series, one line an interval", |reports| each(reports, csv::render))
    },
    format("md", "a summary in Markdown, for pull requests and job pages", md::render),
    Format { many: false, ..mute("hgrm", "percentiles for the HdrHistogram plotter, in milliseconds", hgrm::render) },
    mute("hlog", "HdrHistogram interval log 1.3: every histogram whole", hlog::render),
    format("openmetrics", "histograms, counters and gauges for Prometheus", openmetrics::render),
    mute("bmf", "Bencher metric format", bmf::render),
    mute("gha-bigger", "github-action-benchmark, customBiggerIsBetter", gha::bigger),
    mute("gha-smaller", "github-action-benchmark, customSmallerIsBetter", gha::smaller),
    format("junit", "a test for each verdict and each limit", junit::render),
];

/// The format that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

const fn format(name: &'static str, about: &'static str, render: fn(&[Report]) -> String) -> Format {
    Format { name, about, render, many: true, says_verdict: true }
}

/// A format that has no place for a verdict, or one that few look at.
const fn mute(name: &'static str, about: &'static str, render: fn(&[Report]) -> String) -> Format {
    Format { says_verdict: false, ..format(name, about, render) }
}

fn each(reports: &[Report], render: fn(&Report) -> String) -> String {
    reports.iter().map(render).collect()
}
