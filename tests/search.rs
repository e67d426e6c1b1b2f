//! The file `loadgen.search/1`: its schema, its checksum, its pages.

use loadgen_core::histogram::Recorder;
use loadgen_core::result::{LimitState, Report, Tool, read};
use loadgen_core::search::page::{FORMATS, answer};
use loadgen_core::search::schema::*;
use loadgen_core::search::{Basis, Evidence, Observation, Slo, Standing};
use std::path::{Path, PathBuf};

const SCHEMA_FILE: &str = "schema/loadgen.search-1.json";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn report() -> Report {
    let mut report = read::read(&in_repository("tests/golden/result-1.json")).unwrap();
    report.tool.version = "0.2.0".to_owned();
    report
}

fn probe(rate: Option<u64>, verdict: ProbeVerdict) -> Probe {
    let ms = 1_000_000;
    Probe {
        rate_per_s: rate,
        achieved_per_s: rate.unwrap_or(1_000),
        p50_ns: Some(ms),
        p99_ns: rate.map(|rate| ms * rate / 50),
        errors: 0,
        verdict,
        why: if verdict == ProbeVerdict::Broken { vec!["p99<10ms".to_owned()] } else { Vec::new() },
        slow: vec![Some(Slow { requests: 1_000, beyond: 7 })],
    }
}

fn found() -> Found {
    let probes = vec![
        probe(None, ProbeVerdict::NotJudged),
        probe(Some(800), ProbeVerdict::Overloaded),
        probe(Some(200), ProbeVerdict::Holds),
        probe(Some(560), ProbeVerdict::Broken),
    ];
    Found {
        schema: SEARCH_SCHEMA.to_owned(),
        tool: Tool::ours(),
        command: vec!["loadgen".to_owned(), "search".to_owned()],
        started_at: "2026-11-24T00:00:00.000Z".to_owned(),
        partial: false,
        scenario: "echo, 127.0.0.1:1: 100 connections".to_owned(),
        slos: vec!["p99<10ms".to_owned()],
        arrival: "poisson".to_owned(),
        seed: 1,
        precision_ppm: 50_000,
        budget_ns: 1,
        probes_most: 9,
        probe_ns: 5,
        took_ns: 6,
        outcome: Outcome::Found,
        ended: "4 probes".to_owned(),
        highest_held_per_s: Some(200),
        knee: Some(KneeRow {
            rate_per_s: 540,
            low_per_s: Some(520),
            high_per_s: Some(1_560),
            basis: Basis::Fit,
            slo: "p99<10ms".to_owned(),
            probes: 3,
        }),
        runs: vec![report(); probes.len()],
        probes,
        warnings: vec!["a warning".to_owned()],
        at_least: Some(AtLeast { rate_per_s: 500, judgement: LimitState::Holds }),
        checksum: None,
    }
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let generated = schema_json();
    if std::env::var_os("LOADGEN_BLESS").is_some() {
        std::fs::write(in_repository(SCHEMA_FILE), &generated).unwrap();
    }
    let committed = std::fs::read_to_string(in_repository(SCHEMA_FILE)).unwrap_or_default();
    assert!(committed == generated, "{SCHEMA_FILE} is not that of the types (LOADGEN_BLESS=1 makes it anew)");
    let schema: serde_json::Value = serde_json::from_str(&generated).unwrap();
    let value: serde_json::Value = serde_json::from_str(&found().to_json()).unwrap();
    assert!(jsonschema::is_valid(&schema, &value));
}

#[test]
fn a_file_that_was_changed_is_not_read() {
    let text = found().to_json();
    assert_eq!(Found::from_json(&text).unwrap(), found());
    for (from, to, words) in [
        ("\"rate_per_s\": 540", "\"rate_per_s\": 541", "checksum"),
        ("loadgen.search/1", "loadgen.search/2", "loadgen.search/2"),
        ("\"seed\": 1,", "", "seed"),
    ] {
        let problem = Found::from_json(&text.replacen(from, to, 1)).unwrap_err();
        assert!(problem.contains(words), "{problem}");
    }
    // Each run is a report of its own.
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(read::parse(value["runs"][1].to_string().as_bytes()).is_ok());
}

#[test]
fn every_format_says_the_knee_or_every_probe() {
    let found = found();
    for format in FORMATS {
        let text = (format.render)(&found);
        assert!(text.ends_with('\n') && text.contains("560") && text.contains("800"), "{}: {text}", format.name);
        assert!(["csv", "json"].contains(&format.name) || text.contains("540/s (95 %: 520 to 1,560)"), "{text}");
        assert!(text.lines().all(|line| format.name == "json" || line.chars().count() <= 120), "{text}");
    }
    let text = (FORMATS[0].render)(&found);
    for words in ["closed loop", "OVERLOADED", "BROKEN: p99<10ms", "! a warning", "at least 500/s: holds", "16.0 ms"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // In the curve the slowest is on top, and the fastest at the bottom.
    let row =
        |mark: &str| text.lines().position(|l| l.contains(" |") && !l.contains("latency") && l.contains(mark)).unwrap();
    assert!(row("x") < row("o"), "{text}");
}

#[test]
fn the_answer_says_what_is_not_known() {
    let mut found = found();
    let bracket = |found: &mut Found, low, high| {
        let knee = found.knee.as_mut().unwrap();
        (knee.basis, knee.low_per_s, knee.high_per_s) = (Basis::Bracket, low, high);
    };
    bracket(&mut found, Some(500), None);
    assert!(answer(&found).contains("held at 500 and did not at ?"), "{}", answer(&found));
    assert_eq!([400, 501].map(|rate| found.judge_at_least(rate)), [LimitState::Holds, LimitState::Unresolvable]);
    bracket(&mut found, None, Some(500));
    assert_eq!([400, 501].map(|rate| found.judge_at_least(rate)), [LimitState::Unresolvable, LimitState::Broken]);
    (found.knee, found.outcome) = (None, Outcome::AtLeast);
    assert!(answer(&found).contains("at least 200/s; the generator was the bound"), "{}", answer(&found));
    assert_eq!([200, 201].map(|rate| found.judge_at_least(rate)), [LimitState::Holds, LimitState::Unresolvable]);
    found.outcome = Outcome::Never;
    assert!(answer(&found).contains("does not hold at any rate tried (the lowest: 200/s)"), "{}", answer(&found));
    assert_eq!(found.judge_at_least(1), LimitState::Broken);
    found.outcome = Outcome::Unknown;
    assert_eq!(found.judge_at_least(1), LimitState::Unresolvable);
}

#[test]
fn a_report_is_evidence_as_its_histogram_says() {
    let mut report = report();
    let mut recorder = Recorder::new();
    (1..=10_000_u64).for_each(|us| recorder.record(us * 1_000));
    report.latency.response = recorder.report();
    report.partial = false;
    report.verdict.state = loadgen_core::result::VerdictState::Valid;
    let slos = ["p99<9.95ms", "p50<4ms", "max<20ms", "mean<4ms"].map(|slo| Slo::parse(slo).unwrap());
    let seen = Observation::of(700.0, &report, &slos);
    assert_eq!((seen.rate, seen.standing, seen.holds()), (700.0, Standing::Steady, Some(false)));
    let shares: Vec<Option<(f64, bool)>> =
        (0..4).map(|slo| seen.share(slo).map(|s| (s.beyond.round(), s.holds()))).collect();
    // Of 10,000 values 50 and 6,000 are beyond, within the resolution of a bucket (8 us).
    let (beyond, holds) = shares[0].unwrap();
    assert!((beyond - 50.0).abs() <= 8.0 && holds, "{shares:?}");
    let (beyond, holds) = shares[1].unwrap();
    assert!((beyond - 6_000.0).abs() <= 8.0 && !holds, "{shares:?}");
    assert_eq!(seen.evidence[2..], [Evidence::Judged(Some(true)), Evidence::Judged(Some(false))]);
    // Not steady, and beyond its limit: a queue that grows. Of the generator: nothing at all.
    report.verdict.state = loadgen_core::result::VerdictState::Invalid;
    for (code, standing, holds) in [
        ("not_steady", Standing::Overloaded, Some(false)),
        ("client_saturated", Standing::Saturated, None),
        ("cpu_contention", Standing::Unusable, None),
    ] {
        report.verdict.reasons = vec![loadgen_core::result::Reason { code: code.to_owned(), detail: String::new() }];
        let seen = Observation::of(700.0, &report, &slos);
        assert_eq!((seen.standing, seen.holds()), (standing, holds), "{code}");
    }
}
