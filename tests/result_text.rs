//! The summary for people: what it says, and what it must not say.

use loadgen_core::report::text;
use loadgen_core::result::{ErrorRow, Reason, Report, VerdictState, read};
use std::path::Path;

fn golden() -> Report {
    read::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/result-1.json")).unwrap()
}

fn lines_fit(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_summary_fits_a_terminal_and_says_what_matters() {
    let text = text::render(&golden());
    lines_fit(&text);
    assert!(text.lines().count() <= 25, "{text}");
    for expected in [
        "echo on 127.0.0.1:40001",
        "10.0k requests/s",
        "p50 ",
        "p99.9 ",
        "88 without a reply",
        "closes",
        "closed loop:",
    ] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
    assert!(!text.contains('\u{1b}') && !text.contains("NOT"));
}

#[test]
fn a_percentile_that_rests_on_too_few_values_is_not_printed() {
    let text = text::render(&golden());
    assert!(text.contains("p99.99 -"), "{text}"); // 2 of 20,090 lie beyond
    assert!(!text.contains("p99.9 - "), "{text}");
}

#[test]
fn reasons_stand_before_the_figures() {
    let mut report = golden();
    report.verdict.state = VerdictState::Invalid;
    let detail = "one client thread used 99 % of its CPU, so that its own delays are in the latency; use --threads 2";
    report.verdict.reasons = vec![Reason { code: "client_saturated".to_owned(), detail: detail.to_owned() }];
    let text = text::render(&report);
    lines_fit(&text);
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no `{part}` in\n{text}"));
    assert!(at("INVALID") < at("client_saturated") && at("--threads 2") < at("throughput"));
}

#[test]
fn a_stream_has_bytes_but_no_requests() {
    let mut report = golden();
    report.scenario.protocol = "discard".to_owned();
    report.latency = Default::default();
    if loadgen_core::protocol::by_name("discard").is_some() {
        let text = text::render(&report);
        assert!(text.contains("640 kB/s sent") && !text.contains("request") && !text.contains("p50"), "{text}");
    }
}

#[test]
fn a_ledger_that_does_not_close_is_shouted() {
    let mut report = golden();
    report.ledger.ok += 1;
    assert!(text::render(&report).contains("NOT close"));
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    let mut report = golden();
    report.scenario.target = "evil\u{1b}[2J\nhost".to_owned();
    let row = report.errors[0].clone();
    report.errors = (0..9).map(|count| ErrorRow { first: "\u{7}x".repeat(90), count, ..row.clone() }).collect();
    let text = text::render(&report);
    lines_fit(&text);
    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}') && text.contains("and 4 more kinds"), "{text}");
}

#[test]
fn an_empty_report_is_still_a_page() {
    let mut report = golden();
    report.latency = Default::default();
    report.throughput = Default::default();
    report.cpu = Default::default();
    report.engine = Default::default();
    report.errors.clear();
    lines_fit(&text::render(&report));
}
