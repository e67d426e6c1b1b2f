//! Every format of the table, with every kind of run: each has to be what its readers take.

use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use loadgen_core::histogram::Recorder;
use loadgen_core::metric::METRICS;
use loadgen_core::report::{self, FORMATS, names};
use loadgen_core::result::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

mod openmetrics;

type Check = fn(&str, &[Report]);

/// How each format is checked. A new one has to bring its check.
const CHECKS: &[(&str, Check)] = &[
    ("text", text),
    ("json", json),
    ("csv", csv),
    ("md", markdown),
    ("hgrm", hgrm),
    ("hlog", hlog),
    ("openmetrics", openmetrics::check),
    ("bmf", bmf),
    ("gha-bigger", gha),
    ("gha-smaller", gha),
    ("junit", junit),
];

const NASTY: &str = "a|b `c` <script>&amp;\"'\\]]>, %0A\n\r\u{1b}[31m\u{0}\u{fffe} @x #1 \u{202e}ü";

fn golden() -> Report {
    read::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/result-1.json")).unwrap()
}

fn reasons(code: &str, detail: &str) -> Vec<Reason> {
    vec![Reason { code: code.to_owned(), detail: detail.to_owned() }]
}

fn limits() -> Vec<LimitOutcome> {
    let limit = |expression: &str, judgement, detail: &str| LimitOutcome {
        expression: expression.to_owned(),
        judgement,
        detail: detail.to_owned(),
    };
    vec![
        limit("p50>5ms", LimitState::Holds, "143 us"),
        limit("p99>1us", LimitState::Broken, "6.20 ms (5.90-6.60 ms)"),
        limit("p99>1us", LimitState::Unresolvable, NASTY),
    ]
}

/// A run of each kind.
fn kinds() -> Vec<Report> {
    let closed = golden();
    let response = closed.latency.response.clone();
    let open = Report {
        scenario: Scenario { mode: "open".to_owned(), rate_per_s: Some(10_000), ..closed.scenario.clone() },
        latency: Latency { backlog_wait: response.clone(), generator_lag: response, ..closed.latency.clone() },
        limits: limits(),
        ..closed.clone()
    };
    let stream = Report {
        scenario: Scenario { protocol: "discard".to_owned(), ..closed.scenario.clone() },
        latency: Latency { connect: closed.latency.connect.clone(), ..Latency::default() },
        ledger: Ledger::default(),
        confidence: None,
        ..closed.clone()
    };
    let silent = Report {
        latency: Latency::default(),
        throughput: Throughput::default(),
        phases: Phases::default(),
        series: Series { rows: Vec::new(), ..closed.series.clone() },
        confidence: None,
        server: None,
        ..closed.clone()
    };
    let invalid = Report {
        partial: true,
        verdict: Verdict { state: VerdictState::Invalid, reasons: reasons("late", "the generator was late") },
        ..closed.clone()
    };
    let label = |key: &str| (key.to_owned(), NASTY.to_owned());
    let nasty = Report {
        started_at: NASTY.to_owned(),
        labels: BTreeMap::from([label("name"), label(NASTY), label("a-b"), label("a_b"), label("")]),
        scenario: Scenario {
            target: NASTY.to_owned(),
            protocol: NASTY.to_owned(),
            engine: NASTY.to_owned(),
            ..closed.scenario.clone()
        },
        verdict: Verdict { state: VerdictState::Overloaded, reasons: reasons(NASTY, NASTY) },
        limits: limits(),
        ..open.clone()
    };
    vec![closed.clone(), open, stream, silent, invalid, nasty, closed]
}

#[test]
fn every_format_takes_every_kind_of_run() {
    let kinds = kinds();
    for format in FORMATS {
        let (_, check) = CHECKS.iter().find(|(name, _)| *name == format.name).expect("a check for each format");
        for report in &kinds {
            let one = std::slice::from_ref(report);
            check(&rendered(format, one), one);
        }
        if format.many {
            check(&rendered(format, &kinds), &kinds);
        }
    }
}

fn rendered(format: &report::Format, reports: &[Report]) -> String {
    let text = (format.render)(reports);
    assert!(text.ends_with('\n') && text.len() > 2, "{}: {text:?}", format.name);
    let bad = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "{} has a control character", format.name);
    text
}

#[test]
fn what_is_no_measurement_says_so() {
    for format in FORMATS.iter().filter(|format| format.says_verdict) {
        let invalid = &kinds()[4..5];
        let text = (format.render)(invalid).to_lowercase();
        assert!(text.contains("invalid") && text.contains("partial"), "{}: {text}", format.name);
    }
    let text = (report::by_name("openmetrics").unwrap().render)(&kinds()[4..5]);
    let says = |sample: &str| text.lines().any(|line| line.ends_with(sample));
    assert!(says("loadgen_verdict=\"invalid\"} 1") && says("loadgen_verdict=\"valid\"} 0"), "{text}");
    assert!(says("loadgen_partial{run=\"1\",name=\"echo c100 epoll\"} 1"), "{text}");
    // Where there is a place for remarks, it is there, too; the others are told of on standard error.
    for name in ["hgrm", "hlog", "gha-bigger", "gha-smaller"] {
        let text = (report::by_name(name).unwrap().render)(&kinds()[4..5]);
        assert!(text.contains("INVALID: late") && text.contains("PARTIAL"), "{name}: {text}");
    }
    let caveats: Vec<bool> = kinds().iter().map(|report| report::caveat(report).is_some()).collect();
    assert_eq!(caveats, [false, false, false, false, true, true, false]);
}

#[test]
fn the_pages_name_every_format_and_every_metric() {
    let page = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
        std::fs::read_to_string(path).unwrap().replace("`gha-*`", "")
    };
    let (formats, limits) = (page("formats.md"), page("limits.md"));
    for format in FORMATS {
        assert!(formats.contains(&format!("`{}`", format.name)), "docs/formats.md does not name {}", format.name);
    }
    for metric in METRICS {
        assert!(limits.contains(&format!("`{}`", metric.name)), "docs/limits.md does not name {}", metric.name);
    }
}

#[test]
fn each_direction_has_its_file() {
    let of = |format: &str, metric: &str| {
        let text = (report::by_name(format).unwrap().render)(&[golden()]);
        text.contains(&format!(": {metric}\""))
    };
    for (metric, bigger) in [("rate", true), ("sent", true), ("p50", false), ("errors", false), ("server_cpu", false)] {
        assert_eq!((of("gha-bigger", metric), of("gha-smaller", metric)), (bigger, !bigger), "{metric}");
    }
}

#[test]
fn names_are_short_and_no_two_are_the_same() {
    let names = names(&kinds());
    assert_eq!(names[0], "echo c100 epoll");
    assert_eq!(names[1], "echo c100 r10.0k epoll");
    assert_eq!(names[3..5], ["echo c100 epoll #2", "echo c100 epoll #3"]);
    assert_eq!(names[6], "echo c100 epoll #4");
    assert!(names[5].contains("<script>") && !names[5].contains('\n'));
}

fn text(text: &str, reports: &[Report]) {
    let limits: usize = reports.iter().map(|report| report.limits.len()).sum();
    assert_eq!(text.lines().filter(|line| line.starts_with("limit ")).count(), limits, "{text}");
}

fn json(text: &str, reports: &[Report]) {
    let read = serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap);
    // A checksum is made anew with each writing.
    let bare = |report: Report| Report { checksum: None, ..report };
    assert!(read.map(bare).eq(reports.iter().cloned().map(bare)));
}

fn csv(text: &str, reports: &[Report]) {
    let fields: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
    assert!(fields.iter().all(|count| *count == reports[0].series.columns.len() + 1), "{text}");
    assert_eq!(fields.len(), reports[0].series.rows.len() + 1);
}

/// Rows of a table have as many cells as its head, and nothing of the run is markup.
fn markdown(text: &str, reports: &[Report]) {
    assert_eq!(text.lines().filter(|line| line.starts_with("### ")).count(), reports.len());
    assert!(!text.contains("<script>") && !text.contains('@'), "{text}");
    let mut columns = 0;
    for line in text.lines() {
        let cells = line.replace("\\|", "").matches('|').count();
        assert!(columns == 0 || cells == columns || cells == 0, "{line}");
        columns = cells;
    }
    let outcomes = text.matches("**BROKEN**").count();
    let broken = reports.iter().flat_map(|report| &report.limits).filter(|l| l.judgement == LimitState::Broken);
    assert_eq!(outcomes, broken.count());
}

/// As the plotter reads it: lines of four columns that do not begin with a #.
fn hgrm(text: &str, reports: &[Report]) {
    let rows: Vec<Vec<f64>> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("Value"))
        .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
        .filter(|row: &Vec<f64>| !row.is_empty())
        .collect();
    let Some(response) = &reports[0].latency.response else { return assert!(rows.is_empty(), "{text}") };
    let (last, others) = rows.split_last().unwrap();
    assert_eq!(last[..], [response.max_ns as f64 / 1e6, 1.0, response.count as f64]);
    assert!(others.iter().all(|row| row.len() == 4 && (row[3] * (1.0 - row[1]) - 1.0).abs() < 0.01), "{text}");
    assert!(others.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]), "{text}");
    let median = others.iter().find(|row| row[1] >= 0.5).unwrap();
    assert_eq!(median[0], response.quantiles_ns["0.5"] as f64 / 1e6);
    assert!(text.contains(&format!("Total count    = {:>12}]", response.count)));
}

/// Read back by HdrHistogram's own reader: every histogram is what it was.
fn hlog(text: &str, reports: &[Report]) {
    use base64::Engine as _;
    let mut read: Vec<(String, Vec<(u64, u64)>)> = Vec::new();
    let mut starts = 0;
    for entry in IntervalLogIterator::new(text.as_bytes()) {
        match entry.unwrap() {
            LogEntry::StartTime(_) => starts += 1,
            LogEntry::BaseTime(_) => {}
            LogEntry::Interval(interval) => {
                let encoded = interval.encoded_histogram();
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
                let histogram: hdrhistogram::Histogram<u64> =
                    Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                read.push((interval.tag().unwrap().as_str().to_owned(), content(&histogram)));
            }
        }
    }
    let told = reports.iter().filter(|report| report.started_at != NASTY);
    assert_eq!(starts, told.count(), "{text}");
    let mut wanted = Vec::new();
    for latency in reports.iter().map(|report| &report.latency) {
        let all = [
            ("response", &latency.response),
            ("service", &latency.service),
            ("connect", &latency.connect),
            ("backlog_wait", &latency.backlog_wait),
            ("generator_lag", &latency.generator_lag),
        ];
        for (tag, histogram) in all {
            let recorded = histogram.iter().map(|histogram| Recorder::from_report(histogram).unwrap());
            wanted.extend(recorded.map(|recorder| (tag.to_owned(), content(recorder.buckets()))));
        }
    }
    assert!(text.starts_with("#[Histogram log format version 1.3]\n"));
    assert_eq!(read, wanted);
}

fn content(histogram: &hdrhistogram::Histogram<u64>) -> Vec<(u64, u64)> {
    histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
}

fn bmf(text: &str, reports: &[Report]) {
    let page: BTreeMap<String, BTreeMap<String, BTreeMap<String, f64>>> = serde_json::from_str(text).unwrap();
    assert_eq!(page.len(), reports.len(), "{text}");
    for (name, report) in names(reports).iter().zip(reports) {
        let measures = &page[name];
        for (measure, values) in measures {
            let value = values["value"];
            let (low, high) = (values.get("lower_value"), values.get("upper_value"));
            assert!(low.is_none_or(|low| *low <= value) && high.is_none_or(|high| *high >= value), "{measure}");
        }
        assert_eq!(measures.contains_key("p50_ns"), report.latency.response.is_some());
        assert_eq!(measures["invalid"]["value"] == 1.0, report.partial);
        if let Some(median) = measures.get("p50_ns") {
            let stored = report.latency.response.as_ref().unwrap().quantiles_ns["0.5"];
            assert_eq!(median["value"], stored as f64);
        }
    }
}

fn gha(text: &str, reports: &[Report]) {
    let entries: Vec<BTreeMap<String, Value>> = serde_json::from_str(text).unwrap();
    let mut seen: Vec<&str> = entries.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert!(entries.len() >= 2 * reports.len(), "the action refuses an empty list");
    for entry in &entries {
        assert!(entry["value"].as_f64().is_some_and(f64::is_finite) && entry["unit"].is_string(), "{entry:?}");
        assert!(entry.get("range").is_none_or(Value::is_string) && entry["extra"].is_string(), "{entry:?}");
        let rate = entry["name"].as_str().unwrap().ends_with(": rate");
        assert!(!rate || entry["unit"] == "requests/s");
    }
    seen.sort_unstable();
    assert!(seen.is_sorted_by(|a, b| a < b), "each has a name of its own: {seen:?}");
}

/// Read by Python's XML parser, which is strict.
fn junit(text: &str, reports: &[Report]) {
    const COUNT: &str = "import sys, xml.etree.ElementTree as e\n\
        root = e.fromstring(sys.stdin.buffer.read())\n\
        tags = [x.tag for x in root.iter()]\n\
        print(*[tags.count(t) for t in ('testsuite', 'testcase', 'failure', 'error', 'skipped')],\n\
        *[root.get(t) for t in ('tests', 'failures', 'errors', 'skipped')])";
    let Some(counts) = python(COUNT, text) else { return };
    let counts: Vec<usize> = counts.split_whitespace().map(|count| count.parse().unwrap()).collect();
    let limits: Vec<LimitState> = reports.iter().flat_map(|r| &r.limits).map(|l| l.judgement).collect();
    let of = |state| limits.iter().filter(|limit| **limit == state).count();
    let invalid = reports.iter().filter(|report| report.verdict.state == VerdictState::Invalid).count();
    let (tests, failures) = (reports.len() + limits.len(), of(LimitState::Broken) + invalid);
    let skipped = of(LimitState::Unresolvable);
    assert_eq!(counts, [reports.len(), tests, failures, 0, skipped, tests, failures, 0, skipped], "{text}");
}

/// What a Python script prints, given `input`. Without Python the test is skipped with a word, or fails where
/// LOADGEN_REQUIRE_PROGRAMS is set.
fn python(script: &str, input: &str) -> Option<String> {
    // Packages of Debian are for Debian's own, which need not be the first on the path.
    let debian = "/usr/bin/python3";
    let program = if Path::new(debian).exists() { debian } else { "python3" };
    let mut command = Command::new(program);
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    loadgen_core::sys::process::dies_with_us(&mut command);
    let Ok(mut child) = command.spawn() else {
        assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "python3 is not installed");
        eprintln!("skipped: python3 is not installed");
        return None;
    };
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{script}\n{input}");
    Some(String::from_utf8(output.stdout).unwrap())
}
