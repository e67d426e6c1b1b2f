//! `--fail-if`: limits are judged, told, and make the exit status.

use crate::failure::{Exit, Failure};
use crate::progress::tell;
use loadgen_core::limit::{Bound, Limit};
use loadgen_core::report::Format;
use loadgen_core::result::{LimitOutcome, LimitState, Report};
use std::ffi::OsString;

/// What follows a `--fail-if` and its limit and looks like a limit is one, too: `--fail-if 'p99>5ms' 'errors>0'`. A
/// flag with many values would take a TARGET behind them as well; no target has such an operator.
pub fn each_with_its_flag(args: Vec<OsString>) -> Vec<OsString> {
    let mut spread = Vec::with_capacity(args.len());
    let mut args = args.into_iter();
    let mut after_limit = false;
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or("");
        if text == "--" {
            spread.push(arg);
            break;
        }
        if text == "--fail-if" {
            spread.push(arg);
            spread.extend(args.next());
            after_limit = true;
        } else if after_limit && looks_like_limit(text) {
            spread.push(format!("--fail-if={text}").into());
        } else {
            after_limit = text.starts_with("--fail-if=");
            spread.push(arg);
        }
    }
    spread.extend(args);
    spread
}

/// A word, and an operator behind it. A file called so can still be given as `./a>b`.
fn looks_like_limit(text: &str) -> bool {
    let word = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(text.len());
    word > 0 && !text.starts_with('.') && text[word..].trim_start().starts_with(['<', '>'])
}

/// Refuses limits that take a base.
pub fn check(limits: &[Limit]) -> Result<(), Failure> {
    match limits.iter().find(|limit| matches!(limit.bound, Bound::Change(_))) {
        Some(limit) => Err(Failure::usage(format!("limit `{limit}` is a change, and a single run has no base"))
            .help("give a value ('p99>5ms'); changes are for `loadgen compare` and `loadgen ab`")),
        None => Ok(()),
    }
}

/// Judges `limits` and puts what came of them into the report.
pub fn judge(limits: &[Limit], report: &mut Report) {
    if !limits.is_empty() {
        report.limits = limits.iter().map(|limit| limit.outcome(report)).collect();
    }
}

/// Says on standard error what the output does not, and what was not checked.
pub fn warn(reports: &[Report], shown: bool, strict: bool) {
    let outcomes =
        |state| reports.iter().flat_map(|report| &report.limits).filter(move |limit| limit.judgement == state);
    if !shown {
        outcomes(LimitState::Broken).for_each(|limit| tell(format_args!("limit {limit}")));
    }
    for LimitOutcome { expression, detail, .. } in outcomes(LimitState::Unresolvable) {
        tell(format_args!("warning: limit {expression} was NOT checked: {detail}"));
    }
    if !strict && outcomes(LimitState::Unresolvable).next().is_some() {
        tell("  help: with --strict, the exit status is 8 then");
    }
}

/// Says on standard error what a format without a place for it would keep to itself.
pub fn warn_of_caveats(format: &Format, reports: &[Report]) {
    if format.says_verdict {
        return;
    }
    for report in reports {
        if let Some(caveat) = loadgen_core::report::caveat(report) {
            tell(format_args!("warning: format {} does not say it, so: {caveat}", format.name));
        }
    }
}

/// What broken limits, and under `--strict` unresolvable ones, make of the exit status.
pub fn exit(reports: &[Report], strict: bool) -> Option<Exit> {
    let any = |state| reports.iter().flat_map(|report| &report.limits).any(|limit| limit.judgement == state);
    if any(LimitState::Broken) {
        return Some(Exit::Worse);
    }
    (strict && any(LimitState::Unresolvable)).then_some(Exit::Inconclusive)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let spread = each_with_its_flag(args);
        spread.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn several_limits_may_follow_one_flag() {
        let cases = [
            (
                "run --fail-if p99>5ms errors>0 rate<50k host:1",
                "run --fail-if p99>5ms --fail-if=errors>0 --fail-if=rate<50k host:1",
            ),
            ("run --fail-if=p99>5ms p50>=1ms -q", "run --fail-if=p99>5ms --fail-if=p50>=1ms -q"),
            ("run --fail-if p99>5ms host:1 errors>0", "run --fail-if p99>5ms host:1 errors>0"),
            ("run p99>5ms", "run p99>5ms"),
            ("report --fail-if p99>5ms ./a>b", "report --fail-if p99>5ms ./a>b"),
            ("report --fail-if p99>5ms -- errors>0", "report --fail-if p99>5ms -- errors>0"),
            ("report -- --fail-if a errors>0", "report -- --fail-if a errors>0"),
            ("run --fail-if", "run --fail-if"),
            ("run --fail-if p99>5ms -H x>y", "run --fail-if p99>5ms -H x>y"),
        ];
        for (typed, meant) in cases {
            assert_eq!(spread(typed), meant);
        }
    }
}
