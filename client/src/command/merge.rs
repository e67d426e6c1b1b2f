//! `loadgen merge`: the reports of all shards of one run as one.

use super::json_files;
use super::run::{Delivery, not_written};
use crate::cli::MergeArgs;
use crate::failure::{Exit, Failure};
use crate::plan::choose_format;
use crate::progress::tell;
use loadgen_core::result::merge::{MergeError, merge};
use loadgen_core::result::{Report, VerdictState, read, write};
use std::path::PathBuf;

pub fn run(args: &MergeArgs) -> Result<Exit, Failure> {
    let format = choose_format(&args.format)?;
    let files = files(&args.inputs)?;
    let read = |file: &PathBuf| read::read_run(file).map_err(|error| Failure::usage(error.to_string()));
    let reports = files.iter().map(read).collect::<Result<Vec<Report>, Failure>>()?;
    let report = merge(&reports).map_err(|error| refused(&error, &files))?;
    let path = match &args.output {
        Some(path) if path.as_os_str() == "-" => None,
        Some(path) => Some(path.clone()),
        None => Some(write::default_path(&report.started_at, &format!("{}-merged", report.scenario.protocol))),
    };
    if let Some(path) = &path {
        write::probe(path).map_err(|error| not_written(path, &error))?;
    }
    if !args.quiet {
        report.merged.iter().flat_map(|merged| &merged.notes).for_each(|note| tell(format_args!("note: {note}")));
    }
    Delivery { format, chosen: args.output.is_some(), quiet: args.quiet, strict: args.strict }
        .deliver(&report, path.as_deref())?;
    let invalid = args.strict && report.verdict.state == VerdictState::Invalid;
    Ok(if invalid { Exit::Invalid } else { Exit::Done })
}

/// The files that were named, and those ending in `.json` in the folders that were.
fn files(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for input in inputs {
        if !input.is_dir() {
            files.push(input.clone());
            continue;
        }
        let mut found = json_files(input)?;
        found.retain(|path| path.is_file());
        if found.is_empty() {
            return Err(Failure::usage(format!("{}: holds no report (*.json)", input.display())));
        }
        files.append(&mut found);
    }
    Ok(files)
}

fn refused(error: &MergeError, files: &[PathBuf]) -> Failure {
    let name = |at: usize| files.get(at).map_or_else(String::new, |file| file.display().to_string());
    let help = match error {
        MergeError::Nothing | MergeError::Uncountable(..) => "give the reports of all shards of one run",
        MergeError::NoShard(_) => "give reports of `loadgen run --shard I/N` only",
        MergeError::OtherCount(..) | MergeError::Twice(..) => "give each shard of one run once",
        MergeError::Missing(..) => "give all of them: a load that was not whole has no figures as a whole",
        MergeError::OtherScenario(..) => "shards of one run are started with the same flags, but for --shard",
        MergeError::OtherTool(..) => "run all shards with the same program",
    };
    Failure::usage(error.describe(name)).help(help)
}
