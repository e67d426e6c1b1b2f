//! Limits on a run: what holds, what is broken, and what the run cannot tell.

use loadgen_core::limit::{Bound, Judgement, Limit};
use loadgen_core::metric::METRICS;
use loadgen_core::result::*;
use std::path::Path;

/// 20,090 responses, 88 of them without a reply; floor not measured; p50 84.8 us or so, with an interval.
fn golden() -> Report {
    read::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/result-1.json")).unwrap()
}

/// A run of which everything is known: p50 is 2 ms, within 1.9 to 2.1 ms.
fn exact() -> Report {
    let mut report = golden();
    let response = report.latency.response.as_mut().unwrap();
    response.quantiles_ns.insert("0.5".to_owned(), 2_000_000);
    report.latency.censored = 0;
    report.verdict = Verdict { state: VerdictState::Valid, reasons: Vec::new() };
    let interval =
        Interval { low_ns: Some(1_900_000), high_ns: Some(2_100_000), effective_samples: None, reason: None };
    let mut confidence = Confidence { level_percent: 95, ..Confidence::default() };
    confidence.quantiles.insert("0.5".to_owned(), interval);
    report.confidence = Some(confidence);
    report
}

fn judge(text: &str, report: &Report) -> Judgement {
    Limit::parse(text).unwrap().judge(report)
}

fn holds(text: &str, report: &Report) -> String {
    match judge(text, report) {
        Judgement::Holds(detail) => detail,
        other => panic!("{text}: {other}"),
    }
}

fn broken(text: &str, report: &Report) -> String {
    match judge(text, report) {
        Judgement::Broken(detail) => detail,
        other => panic!("{text}: {other}"),
    }
}

fn unresolvable(text: &str, report: &Report, why: &str) {
    match judge(text, report) {
        Judgement::Unresolvable(detail) => {
            assert!(detail.contains(why) && !detail.contains('\n'), "{text}: {detail}");
        }
        other => panic!("{text}: {other}"),
    }
}

#[test]
fn the_whole_interval_decides() {
    let report = exact();
    assert_eq!(broken("p50>1.5ms", &report), "2.00 ms (1.90-2.10 ms)");
    holds("p50>2.2ms", &report);
    for within in ["p50>1.95ms", "p50>2.05ms", "p50<2.01ms", "p50>=1.9ms", "p50<=2.1ms"] {
        unresolvable(within, &report, "--until-ci p50");
    }
    // No length of a run tells a figure from itself.
    unresolvable("p50>2ms", &report, "further away");
    broken("p50<2.2ms", &report);
    holds("p50<1.5ms", &report);
}

#[test]
fn the_histograms_resolution_is_no_difference() {
    let mut report = exact();
    for interval in report.confidence.as_mut().unwrap().quantiles.values_mut() {
        (interval.low_ns, interval.high_ns) = (Some(2_000_000), Some(2_000_000));
    }
    unresolvable("p50>1.9999ms", &report, "further away");
    unresolvable("p50>2.001ms", &report, "further away");
    broken("p50>1.99ms", &report);
    holds("p50>2.01ms", &report);
}

#[test]
fn without_an_interval_a_factor_of_two_decides() {
    let mut report = exact();
    let unknown = Interval { reason: Some("few_independent_values".to_owned()), ..Interval::default() };
    report.confidence.as_mut().unwrap().quantiles.insert("0.5".to_owned(), unknown);
    unresolvable("p50>1.5ms", &report, "few independent values");
    unresolvable("p50>3ms", &report, "--until-ci p50=20%");
    broken("p50>0.99ms", &report);
    holds("p50>4.01ms", &report);
    report.confidence = None;
    unresolvable("p50>3ms", &report, "no interval is known");
    unresolvable("server_cpu>10us", &report, "further away");
    holds("server_cpu>100us", &report);
}

#[test]
fn counts_are_exact() {
    let report = golden();
    let failed = (METRICS.iter().find(|metric| metric.name == "errors").unwrap().value)(&report).unwrap();
    assert!(failed > 0.0);
    broken("errors>0", &report);
    broken(&format!("errors>={failed}"), &report);
    holds(&format!("errors>{failed}"), &report);
    holds("errors<0", &report);
    holds("unsent>0", &report);
    broken("error_share>0%", &report);
    holds("error_share>50%", &report);
}

#[test]
fn too_few_values_are_no_percentile() {
    unresolvable("p99.99>1s", &exact(), "too few values");
}

#[test]
fn what_a_run_does_not_have_is_named() {
    let stream = Report {
        scenario: Scenario { protocol: "discard".to_owned(), ..golden().scenario },
        latency: Latency::default(),
        ledger: Ledger::default(),
        throughput: Throughput { requests_per_s: 0, ..golden().throughput },
        ..golden()
    };
    unresolvable("service_p99>1ms", &stream, "one-way stream");
    unresolvable("rate<1k", &stream, "one-way stream");
    unresolvable("lag_p99>1ms", &golden(), "closed loop");
    let foreign = Report { cpu: Cpu { server_ns: None, server_ns_per_request: None, ..golden().cpu }, ..golden() };
    unresolvable("server_cpu>1ms", &foreign, "embedded server");
    let silent = Report { latency: Latency::default(), ..golden() };
    unresolvable("p99>1ms", &silent, "nothing was answered");
    unresolvable("connect_p99>1ms", &silent, "no connection");
}

#[test]
fn nothing_but_too_many_errors_is_taken_from_an_invalid_run() {
    let mut report = exact();
    report.verdict.state = VerdictState::Invalid;
    report.verdict.reasons.push(Reason { code: "generator_late".to_owned(), detail: String::new() });
    broken("errors>0", &report);
    unresolvable("errors>1M", &report, "invalid (generator_late)");
    unresolvable("errors<1M", &report, "invalid");
    unresolvable("p50>1us", &report, "invalid");
    report = Report { partial: true, ..exact() };
    broken("errors>0", &report);
    unresolvable("p50>1us", &report, "before its time");
}

#[test]
fn a_limit_below_the_floor_says_nothing_about_the_server() {
    let mut report = exact();
    broken("p50>1us", &report);
    let floor = Floor {
        engine: "epoll".to_owned(),
        samples: 1_000,
        response_p50_ns: Some(50_000),
        response_p99_ns: Some(90_000),
        timer_samples: 50,
        timer_late_p50_ns: Some(1),
        timer_late_p99_ns: Some(1),
        timer_late_max_ns: 1,
        clock_read_ns: 25,
        client_cpu: None,
        server_cpu: None,
        took_ns: 1,
    };
    report.floor = Some(floor);
    unresolvable("p50>49us", &report, "floor p50 50.0 us");
    unresolvable("max>1us", &report, "floor");
    // One round trip that took long is no floor.
    let few = Floor { samples: 1, ..report.floor.clone().unwrap() };
    let floor = report.floor.replace(few);
    broken("p50>49us", &report);
    report.floor = floor;
    broken("p50>50us", &report);
    holds("p50<40us", &report);
    broken("server_cpu>1us", &report);
}

/// A percentile that requests without a reply touch is a lower bound.
#[test]
fn what_had_no_reply_may_have_taken_longer() {
    let mut report = exact();
    let response = report.latency.response.as_mut().unwrap();
    // Of 100, the last may be anything; the drain says that it was over 10 ms later.
    let mut recorder = loadgen_core::histogram::Recorder::new();
    (0..2_000).for_each(|i| recorder.record(2_000_000 + i * 1_000));
    *response = recorder.report().unwrap();
    report.confidence = None;
    report.latency.censored = 100;
    let whole = report.ledger.whole_run.as_mut().unwrap();
    whole.errors.clear();
    (whole.in_flight_at_end, whole.ok) = (0, whole.sent);
    report.phases.drain_ns = 10_000_000;
    broken("max>3ms", &report);
    unresolvable("max>5ms", &report, "without a reply");
    holds("max>20ms", &report);
    // Beyond its factor of two, and beyond what the 100 could have made of it.
    holds("p99>30ms", &report);
    unresolvable("p99>10ms", &report, "without a reply");
    holds("p50>10ms", &report);
    // Some were never answered at all.
    report.ledger.whole_run.as_mut().unwrap().in_flight_at_end = 1;
    unresolvable("p99>1h", &report, "without a reply");
    unresolvable("max>1h", &report, "without a reply");
    broken("max>3ms", &report);
    holds("p50>10ms", &report);
    let whole = report.ledger.whole_run.as_mut().unwrap();
    (whole.in_flight_at_end, whole.unsent) = (0, 1);
    unresolvable("max>1h", &report, "without a reply");
}

#[test]
fn a_change_needs_a_base() {
    let limit = Limit::parse("p99>+5%").unwrap();
    assert!(matches!(limit.bound, Bound::Change(share) if share == 0.05));
    unresolvable("p99>+5%", &golden(), "base");
    // A comparison decides with its own interval of the change.
    assert_eq!(limit.decide(0.06, 0.09), Some(true));
    assert_eq!(limit.decide(-0.02, 0.05), Some(false));
    assert_eq!(limit.decide(0.04, 0.06), None);
}

/// Whatever the metric and the limit: what is said to be broken is beyond it, and what holds is not.
#[test]
fn no_judgement_contradicts_the_figure() {
    let mut judged = 0;
    for report in [golden(), exact()] {
        for metric in METRICS {
            let Some(value) = (metric.value)(&report) else { continue };
            for factor in [0.0, 0.3, 0.9, 1.0, 1.1, 3.0, 100.0] {
                for op in [">", ">=", "<", "<="] {
                    let mut limit = Limit::parse(&format!("{}{op}{}", metric.name, sample(metric.unit))).unwrap();
                    let bound = value * factor;
                    limit.bound = Bound::Value(bound);
                    match limit.judge(&report) {
                        Judgement::Broken(_) => assert!(limit.op.breaks(value, bound), "{limit} {bound}"),
                        Judgement::Holds(_) => assert!(!limit.op.breaks(value, bound), "{limit} {bound}"),
                        Judgement::Unresolvable(_) => continue,
                    }
                    judged += 1;
                }
            }
        }
    }
    assert!(judged > 200, "{judged}");
}

fn sample(unit: loadgen_core::metric::Unit) -> &'static str {
    use loadgen_core::metric::Unit;
    match unit {
        Unit::Nanoseconds => "1ms",
        Unit::PerSecond | Unit::Count => "1",
        Unit::BytesPerSecond => "1MB",
        Unit::Share => "1%",
    }
}
