//! The commands: one file each.

pub mod ab;
pub mod compare;
pub mod doctor;
pub mod merge;
pub mod report;
pub mod run;
pub mod search;

use crate::failure::Failure;
use std::path::{Path, PathBuf};

/// Whatever is called `.json` in a folder of reports, in the order of the names.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{}: cannot be read: {error}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(unreadable)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(unreadable)?;
    let is_json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json");
    let mut files: Vec<PathBuf> = paths.into_iter().filter(is_json).collect();
    files.sort();
    Ok(files)
}
