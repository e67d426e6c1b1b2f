//! The summary for people: what it says, and what it must not say.

use loadgen_core::histogram::Recorder;
use loadgen_core::report::text;
use loadgen_core::result::{
    Confidence, Drift, ErrorRow, Floor, Group, Interval, RateInterval, Reason, Report, Sessions, UntilCi, VerdictState,
    Warning, Weight, read,
};
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
        "88 without a reply count with the time they had waited: p99 and",
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
fn figures_of_too_little_are_told_as_unknown() {
    let mut report = golden();
    let mut few = Recorder::new();
    (0..5).for_each(|_| few.record(1_000_000));
    let response = few.report();
    report.breakdown =
        vec![Group { kind: Some("get".to_owned()), ok: 5, response: response.clone(), ..Group::default() }];
    report.sessions = Some(Sessions { arrived: 5, completed: 5, duration: response, ..Sessions::default() });
    let text = text::render(&report);
    assert!(text.contains("5 ok  p50 -         p99 -") && text.contains("they lasted p50 -, max 1.00 ms"), "{text}");
    // Nor are there rates and shares of a window that never opened.
    report.throughput.window_ns = 0;
    let text = text::render(&report);
    assert!(text.contains("throughput   unknown: ") && text.contains("busiest thread - %"), "{text}");
}

#[test]
fn what_is_close_to_the_floor_is_called_that() {
    let mut report = golden();
    let median = report.latency.response.as_ref().unwrap().quantiles_ns["0.5"];
    for (response_p50_ns, close) in [(median / 10, false), (median * 10 / 15 - 100, false), (median * 10 / 14, true)] {
        let (response_p50_ns, response_p99_ns) = (Some(response_p50_ns), Some(90_000));
        report.floor = Some(Floor { samples: 1_000, response_p50_ns, response_p99_ns, ..Floor::default() });
        let text = text::render(&report);
        lines_fit(&text);
        assert!(text.contains("floor  ") && text.contains("close to the floor") == close, "{text}");
    }
    // A median of a few is none, of the floor or of the run.
    let floor = report.floor.clone().unwrap();
    for samples in [1, 2, 10, 20, 49] {
        report.floor = Some(Floor { samples, ..floor.clone() });
        let text = text::render(&report);
        assert!(!text.contains("close to the floor") && text.contains("floor        unknown: "), "{text}");
    }
    report.floor = Some(Floor { samples: 50, ..floor.clone() });
    assert!(text::render(&report).contains("close to the floor"));
    report.latency.response.as_mut().unwrap().count = 3;
    assert!(!text::render(&report).contains("close to the floor"));
    // A stream has no response that could be close.
    report.latency = Default::default();
    assert!(!text::render(&report).contains("close to"));
}

#[test]
fn at_most_three_weighty_warnings_are_in_the_summary() {
    let warning = |code: &str, weight| {
        let [code, what, why, remedy] = [code, code, "", ""].map(str::to_owned);
        Warning { code, weight, what, why, remedy }
    };
    let mut report = golden();
    assert!(!text::render(&report).contains("machine"));
    report.environment.warnings = vec![warning("trifle", Weight::Low)];
    assert!(!text::render(&report).contains("trifle"));
    report.environment.warnings.extend(["one", "two", "three", "four"].map(|code| warning(code, Weight::High)));
    let text = text::render(&report);
    lines_fit(&text);
    assert!(text.contains("machine      ! one\n") && text.contains("! three (`loadgen doctor` says more)"), "{text}");
    assert!(!text.contains("four") && !text.contains("trifle"), "{text}");
}

#[test]
fn a_stream_has_bytes_but_no_requests() {
    let mut report = golden();
    report.scenario.protocol = "discard".to_owned();
    report.latency = Default::default();
    let text = text::render(&report);
    assert!(text.contains("640 kB/s sent") && !text.contains("a request") && !text.contains("requests"), "{text}");
    assert!(text.contains("one-way stream") && !text.contains("p50") && !text.contains("closed loop"), "{text}");
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

/// The golden report with intervals 2 % to either side.
fn with_intervals() -> Report {
    let mut report = golden();
    let around = |ns: u64| Interval {
        low_ns: Some(ns - ns / 50),
        high_ns: Some(ns + ns / 50),
        effective_samples: Some(ns),
        reason: None,
    };
    let response = report.latency.response.as_ref().unwrap();
    report.confidence = Some(Confidence {
        level_percent: 95,
        quantiles: response.quantiles_ns.iter().map(|(name, ns)| (name.clone(), around(*ns))).collect(),
        mean: around(response.mean_ns),
        rate: RateInterval { low_per_s: Some(9_950), high_per_s: Some(10_050), reason: None },
        drift: Some(Drift { steady: true, ..Drift::default() }),
        ..Confidence::default()
    });
    report
}

#[test]
fn intervals_stand_beside_their_percentiles() {
    let text = text::render(&with_intervals());
    lines_fit(&text);
    assert!(text.lines().count() <= 27, "{text}");
    for expected in ["p50 85.1 us (83.4-86.8)", "p99.99 -", "95 % in brackets; mean ", "9950-10.1k/s; steady"] {
        assert!(text.contains(expected), "no `{expected}` in\n{text}");
    }
}

#[test]
fn an_interval_that_leaves_its_unit_has_two() {
    let mut report = with_intervals();
    let confidence = report.confidence.as_mut().unwrap();
    let wide = Interval { low_ns: Some(999_000), high_ns: Some(1_200_000), ..Interval::default() };
    confidence.quantiles.insert("0.999".to_owned(), wide);
    confidence.quantiles.remove("0.9");
    confidence.drift = Some(Drift::default());
    let text = text::render(&report);
    lines_fit(&text);
    assert!(text.contains("(999 us-1.20 ms)") && text.contains("NOT steady"), "{text}");
}

#[test]
fn a_width_that_was_not_reached_is_said() {
    let mut report = with_intervals();
    let goal = |figure: &str, half_width_ppm, reached| UntilCi {
        figure: figure.to_owned(),
        asked_ppm: 20_000,
        half_width_ppm,
        reached,
    };
    let confidence = report.confidence.as_mut().unwrap();
    confidence.until_ci = vec![goal("p99", Some(18_300), true)];
    let text = text::render(&report);
    assert!(text.contains("confidence reached: p99 +-1.8 % (asked: 2.0 %)"), "{text}");
    let confidence = report.confidence.as_mut().unwrap();
    confidence.until_ci.push(goal("p99.99", None, false));
    let text = text::render(&report);
    lines_fit(&text);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("confidence not reached: p99 ") && words.contains("p99.99 has no interval"), "{text}");
}
