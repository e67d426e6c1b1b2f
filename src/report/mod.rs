//! A report in other formats. One file a format; a newcomer is a file and a line in the table.

pub mod csv;
mod intervals;
pub mod json;
pub mod text;

use crate::result::Report;

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The word of `--format`.
    pub name: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// The whole text, with a newline at its end.
    pub render: fn(&Report) -> String,
}

/// Every format; the first is the one that people get unless they ask for another.
pub static FORMATS: &[Format] = &[
    Format { name: "text", about: "a summary for people, 80 columns wide", render: text::render },
    Format { name: "json", about: "the whole report (loadgen.result/1)", render: json::render },
    Format { name: "csv", about: "the time series, one line an interval", render: csv::render },
];

/// The format that is called `name`.
pub fn by_name(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}
