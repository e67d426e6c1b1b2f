//! JUnit XML, as CI servers read it: one suite a run, with one test for its verdict and one for each limit.

use super::names;
use crate::metric::METRICS;
use crate::result::{LimitOutcome, LimitState, Reason, Report, VerdictState};
use std::fmt::Write as _;

/// An invalid run and a broken limit are failures, a partial run is an error, an unresolvable limit was skipped.
/// Figures are properties of the suite.
pub fn render(reports: &[Report]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let all: Vec<Vec<Test>> = reports.iter().map(tests).collect();
    let flat: Vec<&Test> = all.iter().flatten().collect();
    let _ = writeln!(xml, "<testsuites name=\"loadgen\" {}>", counts(&flat)); // writing to a String does not fail
    for ((name, report), tests) in names(reports).iter().zip(reports).zip(&all) {
        suite(name, report, tests, &mut xml);
    }
    xml.push_str("</testsuites>\n");
    xml
}

/// One `<testcase>`.
struct Test {
    name: String,
    outcome: Outcome,
    said: String,
}

#[derive(PartialEq)]
enum Outcome {
    Passed,
    Failed,
    Error,
    Skipped,
}

fn tests(report: &Report) -> Vec<Test> {
    std::iter::once(verdict(report)).chain(report.limits.iter().map(limit)).collect()
}

fn verdict(report: &Report) -> Test {
    let reason = |reason: &Reason| format!("{}: {}", reason.code, reason.detail);
    let reasons: Vec<String> = report.verdict.reasons.iter().map(reason).collect();
    let (outcome, head) = match report.verdict.state {
        VerdictState::Invalid => (Outcome::Failed, "invalid"),
        _ if report.partial => (Outcome::Error, "partial"),
        VerdictState::Overloaded => (Outcome::Passed, "overloaded: the figures are true"),
        VerdictState::Valid => (Outcome::Passed, "valid"),
    };
    let also = (report.partial && outcome == Outcome::Failed).then_some("partial");
    let said = [head].into_iter().chain(also).map(str::to_owned).chain(reasons).collect::<Vec<_>>().join("; ");
    Test { name: "verdict".to_owned(), outcome, said }
}

fn limit(limit: &LimitOutcome) -> Test {
    let outcome = match limit.judgement {
        LimitState::Holds => Outcome::Passed,
        LimitState::Broken => Outcome::Failed,
        LimitState::Unresolvable => Outcome::Skipped,
    };
    Test { name: format!("limit {}", limit.expression), outcome, said: limit.detail.clone() }
}

fn counts(tests: &[&Test]) -> String {
    let count = |outcome: Outcome| tests.iter().filter(|test| test.outcome == outcome).count();
    let (failed, errors, skipped) = (count(Outcome::Failed), count(Outcome::Error), count(Outcome::Skipped));
    format!("tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" skipped=\"{skipped}\"", tests.len())
}

fn suite(name: &str, report: &Report, tests: &[Test], xml: &mut String) {
    let (counts, seconds) = (counts(&tests.iter().collect::<Vec<_>>()), seconds(report.phases.measure_ns));
    let (suite, started) = (escaped(name), escaped(&report.started_at));
    // Writing to a String does not fail.
    let _ = writeln!(xml, "  <testsuite name=\"{suite}\" {counts} timestamp=\"{started}\" time=\"{seconds}\">");
    xml.push_str("    <properties>\n");
    for metric in METRICS {
        if let Some(value) = (metric.value)(report) {
            let _ = writeln!(xml, "      <property name=\"{}\" value=\"{value}\"/>", metric.key());
        }
    }
    xml.push_str("    </properties>\n");
    for (index, test) in tests.iter().enumerate() {
        // The run took its time once, not once a limit.
        let time = if index == 0 { seconds.as_str() } else { "0" };
        case(&suite, test, time, xml);
    }
    xml.push_str("  </testsuite>\n");
}

fn case(suite: &str, test: &Test, time: &str, xml: &mut String) {
    let (name, said) = (escaped(&test.name), escaped(&test.said));
    let result = match test.outcome {
        Outcome::Passed => format!("<system-out>{said}</system-out>"),
        Outcome::Failed => format!("<failure message=\"{said}\"/>"),
        Outcome::Error => format!("<error message=\"{said}\"/>"),
        Outcome::Skipped => format!("<skipped message=\"{said}\"/>"),
    };
    // Writing to a String does not fail.
    let _ = writeln!(
        xml,
        "    <testcase classname=\"loadgen.{suite}\" name=\"{name}\" time=\"{time}\">{result}</testcase>"
    );
}

fn seconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}

/// For text and for attributes in double quotes. What XML 1.0 cannot say at all becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            c if c.is_control() || ('\u{fffe}'..='\u{ffff}').contains(&c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
