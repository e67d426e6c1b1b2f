//! A report from a file, with errors that say where the fault is.

use super::schema::{Report, SCHEMA};
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// A file that is no usable report. Its text is one line: the file, the place, the cause.
#[derive(Debug)]
pub struct ReadError {
    pub path: PathBuf,
    pub problem: Problem,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum Problem {
    /// The file cannot be opened or read.
    Unreadable(std::io::Error),
    /// It is not JSON, or a field is missing or of another type.
    Malformed(serde_json::Error),
    /// It has no `schema` that begins with `loadgen.result/`; here is what it has.
    OtherKind(Option<String>),
    /// A major version that this version does not know.
    OtherVersion(String),
    /// It contradicts itself.
    Corrupt(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        match &self.problem {
            Problem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Problem::Malformed(error) => write!(f, "is not a report: {error}"),
            Problem::OtherKind(None) => write!(f, "is not a report: it has no field `schema`"),
            Problem::OtherKind(Some(schema)) => write!(f, "is {schema}, not a report ({SCHEMA})"),
            Problem::OtherVersion(schema) => write!(f, "this is {schema}, this version reads {SCHEMA}"),
            Problem::Corrupt(what) => write!(f, "is corrupt: {what}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) => Some(error),
            Problem::Malformed(error) => Some(error),
            _ => None,
        }
    }
}

/// The report in the file `path`. Unknown fields are ignored.
///
/// # Errors
/// If the file cannot be read, is not a report of the version that this program knows, or contradicts itself.
pub fn read(path: &Path) -> Result<Report, ReadError> {
    std::fs::read(path)
        .map_err(Problem::Unreadable)
        .and_then(|bytes| parse(&bytes))
        .map_err(|problem| ReadError { path: path.to_owned(), problem })
}

/// The report in `bytes`.
///
/// # Errors
/// As [`read`], without the file's name.
pub fn parse(bytes: &[u8]) -> Result<Report, Problem> {
    // The version first: a report of another version may lack fields, and that would be a misleading complaint.
    let Header { schema } = serde_json::from_slice(bytes).map_err(Problem::Malformed)?;
    match schema {
        Some(schema) if schema == SCHEMA => {}
        Some(schema) if schema.starts_with("loadgen.result/") => return Err(Problem::OtherVersion(schema)),
        schema => return Err(Problem::OtherKind(schema)),
    }
    let report: Report = serde_json::from_slice(bytes).map_err(Problem::Malformed)?;
    check(&report).map_err(Problem::Corrupt)?;
    Ok(report)
}

#[derive(Deserialize)]
struct Header {
    schema: Option<String>,
}

/// What must hold in every report, faults included.
fn check(report: &Report) -> Result<(), String> {
    if !report.ledger.closes() {
        return Err("the ledger does not close (scheduled = sent + unsent, sent = ok + errors + in flight)".to_owned());
    }
    let columns = report.series.columns.len();
    if let Some(row) = report.series.rows.iter().position(|row| row.len() != columns) {
        return Err(format!("series.rows[{row}] has {} values for {columns} columns", report.series.rows[row].len()));
    }
    Ok(())
}
