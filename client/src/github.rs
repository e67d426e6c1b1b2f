//! What GitHub Actions takes from a step: a page of Markdown, and notes that it shows beside the log.

use crate::failure::{Exit, Failure};
use crate::progress::tell;
use std::io::Write as _;
use std::path::PathBuf;

/// The variable that names the file of a step's page.
const SUMMARY: &str = "GITHUB_STEP_SUMMARY";
/// A step's page must not be larger, or GitHub shows nothing of it.
const LARGEST_BYTES: u64 = 1 << 20;

/// The file of the step's page; refused where there is none.
pub fn summary_file() -> Result<PathBuf, Failure> {
    let path = std::env::var_os(SUMMARY).filter(|path| !path.is_empty());
    path.map(PathBuf::from).ok_or_else(|| {
        Failure::usage(format!("--github needs the variable {SUMMARY}, which names the file of a step's page"))
            .help("it is set within GitHub Actions; elsewhere use --format md")
    })
}

/// Adds Markdown to the page of this step.
pub fn append(path: &PathBuf, markdown: &str) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(Exit::NotWritten, format!("cannot write to {}: {what}", path.display()));
    let before = std::fs::metadata(path).map_or(0, |file| file.len());
    if before + markdown.len() as u64 + 1 > LARGEST_BYTES {
        let help = "give fewer reports, or use several steps: each has a page of its own";
        return Err(failed("the page would be larger than 1 MiB, and GitHub shows none such".to_owned()).help(help));
    }
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(path).map_err(|e| failed(e.to_string()))?;
    // A heading begins a line, whatever the step wrote before.
    file.write_all(format!("\n{markdown}").as_bytes()).map_err(|e| failed(e.to_string()))
}

/// How GitHub marks a note.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    Warning,
    Error,
}

/// Prints a workflow command on standard error, where GitHub looks for it as on standard output.
pub fn annotate(level: Level, message: &str) {
    tell(command(level, message));
}

fn command(level: Level, message: &str) -> String {
    let level = match level {
        Level::Warning => "warning",
        Level::Error => "error",
    };
    let escaped = message.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::{level} title=loadgen::{escaped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_line_whatever_it_says() {
        let line = command(Level::Error, "5 % more\r\n::set-output::x");
        assert_eq!(line, "::error title=loadgen::5 %25 more%0D%0A::set-output::x");
        assert!(command(Level::Warning, "x").starts_with("::warning "));
    }
}
