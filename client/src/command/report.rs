//! `loadgen report`: report files in another format.

use crate::cli::ReportArgs;
use crate::fail_if;
use crate::failure::{Exit, Failure};
use crate::github::{self, Level};
use crate::plan::choose_format;
use loadgen_core::report;
use loadgen_core::result::{LimitState, Report, VerdictState, read};

pub fn run(args: &ReportArgs) -> Result<Exit, Failure> {
    let format = choose_format(&args.format)?;
    fail_if::check(&args.fail_if)?;
    if !format.many && args.files.len() > 1 {
        let message = format!("format {} describes one run, and there are {} files", format.name, args.files.len());
        return Err(Failure::usage(message).help("give one file at a time"));
    }
    let page = if args.github { Some(github::summary_file()?) } else { None };
    let mut reports = Vec::new();
    for file in &args.files {
        reports.push(read::read_run(file).map_err(|error| Failure::usage(error.to_string()))?);
    }
    reports.iter_mut().for_each(|report| fail_if::judge(&args.fail_if, report));
    super::run::print(&(format.render)(&reports))?;
    fail_if::warn_of_caveats(format, &reports);
    if !args.fail_if.is_empty() {
        fail_if::warn(&reports, format.says_verdict, args.strict);
    }
    if let Some(page) = page {
        annotate(&reports);
        github::append(&page, &report::md::render(&reports))?;
    }
    Ok(exit(args, &reports))
}

/// Beside the log: what is wrong with the runs, and which limits were broken or not checked.
fn annotate(reports: &[Report]) {
    for (name, report) in report::names(reports).iter().zip(reports) {
        if report.partial {
            github::annotate(Level::Warning, &format!("{name}: partial: the run ended before its time"));
        }
        for reason in &report.verdict.reasons {
            let level = match report.verdict.state {
                VerdictState::Invalid => Level::Error,
                VerdictState::Overloaded | VerdictState::Valid => Level::Warning,
            };
            github::annotate(level, &format!("{name}: {}: {}", reason.code, reason.detail));
        }
        for limit in &report.limits {
            match limit.judgement {
                LimitState::Holds => {}
                LimitState::Broken => github::annotate(Level::Error, &format!("{name}: limit {limit}")),
                LimitState::Unresolvable => github::annotate(Level::Warning, &format!("{name}: limit {limit}")),
            }
        }
    }
}

fn exit(args: &ReportArgs, reports: &[Report]) -> Exit {
    // Limits that a run was given have made its own exit status; here those count that were asked for.
    let limits = if args.fail_if.is_empty() { None } else { fail_if::exit(reports, args.strict) };
    let invalid = args.strict && reports.iter().any(|report| report.verdict.state == VerdictState::Invalid);
    match limits {
        Some(Exit::Worse) => Exit::Worse,
        _ if invalid => Exit::Invalid,
        other => other.unwrap_or(Exit::Done),
    }
}
