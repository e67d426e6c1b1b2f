//! A report or a bundle from a file, with errors that say where the fault is.

use super::bundle::{BUNDLE_SCHEMA, Bundle};
use super::content::{self, Fault};
use super::schema::{Report, SCHEMA};
use super::{check, checksum, picked};
use crate::{encoding, files};
use serde_json::Value;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// More than any report or bundle has. What is larger, or never ends, is not read into memory.
pub const MOST_BYTES: u64 = 256 << 20;
/// Characters of an error; a damaged file can quote itself at any length.
const LONGEST_ERROR: usize = 400;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One run (`loadgen.result/1`).
    Report(Box<Report>),
    /// An interleaved comparison (`loadgen.bundle/1`).
    Bundle(Box<Bundle>),
}

/// A file that is of no use. Its text is one line: the file, the place, the cause.
#[derive(Debug)]
pub struct ReadError {
    pub path: PathBuf,
    pub problem: Problem,
}

/// Why a file cannot be used.
#[derive(Debug)]
pub enum Problem {
    /// The file cannot be opened or read.
    Unreadable(io::Error),
    /// It has more than [`MOST_BYTES`].
    TooLarge,
    Empty,
    /// It ends in the middle; the place.
    CutOff(String),
    /// It is not JSON, or no object; the cause, the place.
    Malformed(String),
    /// A field is missing or of another type; the field, the cause, the place.
    Damaged(String),
    /// It has no `schema` that begins with `loadgen.result/` or `loadgen.bundle/`; here is what it has.
    OtherKind(Option<String>),
    /// A major version that this version does not know.
    OtherVersion(String),
    /// It contradicts itself, or is not what was once written.
    Corrupt(String),
    /// A bundle, with so many runs, where a report is wanted.
    IsBundle(usize),
    /// It has so many runs, and another one is wanted.
    NoSuchRun(usize, usize),
    /// So many texts of JSON, in what way, where one is wanted; no number chooses among them.
    Several(usize, &'static str),
    /// One run by its number is wanted, and it is one report, without numbers.
    NotSeveral,
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Self::Unreadable(error) => format!("cannot be read: {error}"),
            Self::TooLarge => format!("is no report: it has more than {} MiB", MOST_BYTES >> 20),
            Self::Empty => "is empty".to_owned(),
            Self::CutOff(place) => format!("ends in the middle, at {place}: it was cut off"),
            Self::Malformed(what) => format!("is not a report: {what}"),
            Self::Damaged(what) => format!("is damaged: {what}"),
            Self::OtherKind(None) => "is not a report: it has no field `schema`".to_owned(),
            Self::OtherKind(Some(schema)) => format!("is {schema}, not a report ({SCHEMA})"),
            Self::OtherVersion(schema) => {
                format!("this is {schema}, this version reads {SCHEMA} and {BUNDLE_SCHEMA}")
            }
            Self::Corrupt(what) => format!("is corrupt: {what}"),
            Self::NoSuchRun(wanted, runs) => {
                format!("has no run {wanted}: its runs are #1 to #{runs}, in the order in which they were made")
            }
            Self::Several(texts, how) => format!(
                "holds {texts} texts of JSON, {how}, and not one report: give each report a file of its own \
                 (#1 names a run of a bundle or a search only)"
            ),
            Self::NotSeveral => "is one report, without runs to choose from: leave out what is behind #".to_owned(),
            Self::IsBundle(runs) => format!(
                "is a bundle of {runs} runs, and one run is wanted: compare those with `loadgen compare FILE`, \
                 or name one: FILE#1"
            ),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        if text.chars().count() <= LONGEST_ERROR {
            return f.write_str(&one_line(&text));
        }
        write!(f, "{} ...", one_line(&text.chars().take(LONGEST_ERROR).collect::<String>()))
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", one_line(&self.path.to_string_lossy()), self.problem)
    }
}

/// Whatever the file holds, and whatever it is called: an error is one line, and a terminal must not obey it.
fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(visible).collect()
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// The report in the file `path`. Unknown fields are ignored.
///
/// # Errors
/// If the file cannot be read, is not a report of the version that this program knows, contradicts itself, or has
/// changed since it was written.
pub fn read(path: &Path) -> Result<Report, ReadError> {
    load(path).and_then(|bytes| parse(&bytes)).map_err(|problem| ReadError { path: path.to_owned(), problem })
}

/// Likewise, where `path` may name one run of a bundle or a search: `FILE#3`, from 1 on.
///
/// # Errors
/// As [`read`]; and if it has no such run.
pub fn read_run(path: &Path) -> Result<Report, ReadError> {
    numbered(path).unwrap_or_else(|| read(path))
}

/// The run that `path` names by its number; `None`: it names none.
pub fn numbered(path: &Path) -> Option<Result<Report, ReadError>> {
    let (file, number) = picked::split(path)?;
    let picked = load(&file).and_then(|bytes| picked::run(&bytes, number));
    Some(picked.map_err(|problem| ReadError { path: file, problem }))
}

/// The report or the bundle in the file `path`. Unknown fields are ignored.
///
/// # Errors
/// As [`read`].
pub fn read_document(path: &Path) -> Result<Document, ReadError> {
    load(path).and_then(|bytes| parse_document(&bytes)).map_err(|problem| ReadError { path: path.to_owned(), problem })
}

/// The report in `bytes`.
///
/// # Errors
/// As [`read`], without the file's name.
pub fn parse(bytes: &[u8]) -> Result<Report, Problem> {
    match parse_document(bytes)? {
        Document::Report(report) => Ok(*report),
        Document::Bundle(bundle) => Err(Problem::IsBundle(bundle.runs.len())),
    }
}

/// The report or the bundle in `bytes`.
///
/// # Errors
/// As [`read`], without the file's name.
pub fn parse_document(bytes: &[u8]) -> Result<Document, Problem> {
    let bytes = encoding::without_mark(bytes).map_err(Problem::Malformed)?;
    let mut content = content::value(bytes).map_err(|fault| match fault {
        Fault::Empty => Problem::Empty,
        Fault::CutOff(place) => Problem::CutOff(place),
        Fault::Several(texts) => Problem::Several(texts, "one behind the other"),
        Fault::Wrong(what) => Problem::Malformed(what),
    })?;
    // The version first: a file of another version may lack fields, and that would be a misleading complaint.
    let schema = schema(&content)?;
    if schema == SCHEMA {
        let mut report: Report = content::typed(bytes, &content).map_err(Problem::Damaged)?;
        check::report(&report).and_then(|()| seal(&report, &mut content)).map_err(Problem::Corrupt)?;
        report.checksum = None;
        return Ok(Document::Report(Box::new(report)));
    }
    if schema == BUNDLE_SCHEMA {
        let mut bundle: Bundle = content::typed(bytes, &content).map_err(Problem::Damaged)?;
        check::bundle(&bundle).and_then(|()| seals(&bundle, &mut content)).map_err(Problem::Corrupt)?;
        bundle.checksum = None;
        bundle.runs.iter_mut().for_each(|run| run.checksum = None);
        return Ok(Document::Bundle(Box::new(bundle)));
    }
    let ours = ["loadgen.result/", "loadgen.bundle/"].iter().any(|kind| schema.starts_with(kind));
    Err(if ours { Problem::OtherVersion(schema) } else { Problem::OtherKind(Some(schema)) })
}

pub(super) fn schema(content: &Value) -> Result<String, Problem> {
    if let Some(list) = content.as_array().filter(|list| list.iter().any(Value::is_object)) {
        return Err(Problem::Several(list.len(), "as a list"));
    }
    let Some(fields) = content.as_object() else {
        return Err(Problem::Malformed("it does not hold an object, at line 1 column 1".to_owned()));
    };
    match fields.get("schema") {
        Some(Value::String(schema)) => Ok(schema.clone()),
        Some(_) => Err(Problem::Damaged("`schema`: it is not text".to_owned())),
        None => Err(Problem::OtherKind(None)),
    }
}

/// Whether this is what was once written.
fn seal(report: &Report, content: &mut Value) -> Result<(), String> {
    let (stored, actual) = checksum::take(content);
    // Version 0.1 wrote none.
    if stored.is_none() && report.tool.version.starts_with("0.1.") {
        return check::scenario_hash(&report.scenario);
    }
    same(stored, &actual)
}

fn seals(bundle: &Bundle, content: &mut Value) -> Result<(), String> {
    let (stored, actual) = checksum::take(content);
    let runs = content.get_mut("runs").and_then(Value::as_array_mut).into_iter().flatten();
    for (index, (run, content)) in bundle.runs.iter().zip(runs).enumerate() {
        seal(run, content).map_err(|what| format!("runs[{index}]: {what}"))?;
    }
    same(stored, &actual)
}

fn same(stored: Option<Value>, actual: &str) -> Result<(), String> {
    match stored {
        None => Err("it has no checksum".to_owned()),
        Some(Value::String(stored)) if stored == actual => Ok(()),
        Some(stored) => Err(format!(
            "its checksum is {stored}, its content gives \"{actual}\": the file was changed after loadgen wrote it"
        )),
    }
}

fn load(path: &Path) -> Result<Vec<u8>, Problem> {
    let found = fs::metadata(path).map_err(Problem::Unreadable)?;
    let kind = found.file_type();
    let other = |what: &str| Err(Problem::Unreadable(io::Error::other(format!("it is a {what}, not a file"))));
    if kind.is_dir() {
        return other("folder");
    }
    if kind.is_char_device() || kind.is_block_device() {
        return other("device");
    }
    if found.len() > MOST_BYTES {
        return Err(Problem::TooLarge);
    }
    // A pipe (`<(jq …)`) has no length.
    let bytes = files::read::content(path, MOST_BYTES).map_err(Problem::Unreadable)?;
    if bytes.len() as u64 > MOST_BYTES { Err(Problem::TooLarge) } else { Ok(bytes) }
}
