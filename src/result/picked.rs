//! One run of a file that has several: `FILE#3`.

use super::content;
use super::read;
use super::read::{Document, Problem, parse_document};
use super::schema::Report;
use crate::encoding;
use crate::search::schema::SEARCH_SCHEMA;
use std::path::{Path, PathBuf};

/// The file and the number in `FILE#3`. `None`: it is a file's name, also where a file is really called so.
pub(super) fn split(path: &Path) -> Option<(PathBuf, usize)> {
    if path.exists() {
        return None;
    }
    let (file, number) = path.to_str()?.rsplit_once('#')?;
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number has are a run that is not there either.
    digits.then(|| (PathBuf::from(file), number.parse().unwrap_or(usize::MAX)))
}

/// The run of this number, from 1 on, in a bundle or in the file of a search.
///
/// # Errors
/// If it is neither, is damaged, or has no such run.
pub(super) fn run(bytes: &[u8], number: usize) -> Result<Report, Problem> {
    if let Some(runs) = runs_of_search(bytes) {
        let run = runs.get(at(number, runs.len())?).map(|run| run.to_string()).unwrap_or_default();
        return read::parse(run.as_bytes());
    }
    match parse_document(bytes)? {
        Document::Report(_) => Err(Problem::NotSeveral),
        Document::Bundle(mut bundle) => {
            let at = at(number, bundle.runs.len())?;
            Ok(bundle.runs.swap_remove(at))
        }
    }
}

fn at(number: usize, runs: usize) -> Result<usize, Problem> {
    number.checked_sub(1).filter(|at| *at < runs).ok_or(Problem::NoSuchRun(number, runs))
}

/// Each is a whole report with its own checksum, so the rest need not be understood.
fn runs_of_search(bytes: &[u8]) -> Option<Vec<serde_json::Value>> {
    // Whatever is no file of a search is read as a report, which says what is wrong with it.
    let mut content = content::value(encoding::without_mark(bytes).ok()?).ok()?;
    // Likewise.
    if read::schema(&content).ok()? != SEARCH_SCHEMA {
        return None;
    }
    content.get_mut("runs")?.as_array_mut().map(std::mem::take)
}
