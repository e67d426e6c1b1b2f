//! Intervals in the report of a real run, and runs that go on until they are narrow enough.

mod common;

use common::peer::Peer;
use common::{SHORT, agrees_with_embedded, brief, clean, loadgen, loadgen_at, loadgen_plain};
use loadgen_core::confidence::Batches;
use loadgen_core::histogram::QUANTILES;
use loadgen_core::result::{Confidence, Report, VerdictState};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const SECOND_NS: u64 = 1_000_000_000;

fn confidence(report: &Report) -> &Confidence {
    report.confidence.as_ref().unwrap_or_else(|| panic!("no intervals; {}", brief(report)))
}

/// Every figure has an interval around it, or a reason why there is none.
fn is_whole(report: &Report) {
    let (confidence, response) = (confidence(report), report.latency.response.as_ref().unwrap());
    assert_eq!(confidence.level_percent, 95);
    assert_eq!(confidence.quantiles.len(), QUANTILES.len());
    let figures = confidence.quantiles.iter().map(|(name, interval)| (interval, response.quantiles_ns[name]));
    for (interval, figure) in figures.chain([(&confidence.mean, response.mean_ns)]) {
        match interval.low_ns.zip(interval.high_ns) {
            Some((low, high)) => assert!((low..=high).contains(&figure) && interval.reason.is_none(), "{confidence:?}"),
            None => assert!(interval.reason.is_some(), "{confidence:?}"),
        }
        assert!(interval.effective_samples.is_none_or(|samples| samples <= response.count), "{confidence:?}");
    }
    if let Some((low, high)) = confidence.rate.low_per_s.zip(confidence.rate.high_per_s) {
        assert!((low..=high).contains(&report.throughput.requests_per_s), "{confidence:?}");
    }
}

#[test]
fn a_run_has_intervals_for_its_figures() {
    for load in [&["--conns", "8"][..], &["--conns", "8", "--threads", "3"], &["--conns", "8", "--rate", "5k"]] {
        let ended = loadgen(&[load, &["--duration", "1s", "--warmup", "200ms"]].concat());
        let report = ended.expect(0);
        is_whole(report);
        let confidence = confidence(report);
        assert!(confidence.until_ci.is_empty() && confidence.drift.is_none(), "too short to drift: {confidence:?}");
        assert!(confidence.batch_ns >= Batches::new().length_ns() && confidence.batch_ns <= SECOND_NS / 50);
        assert!(ended.stdout.contains("95 % in brackets"), "{}", ended.stdout);
    }
}

/// Some 3 s are enough to be asked whether they were steady. What the answer is depends on who else is here.
#[test]
fn a_longer_run_is_asked_whether_it_was_steady() {
    let ended = loadgen(&["--conns", "8", "--duration", "3s", "--warmup", "200ms"]);
    let report = ended.expect(0);
    is_whole(report);
    let drift = confidence(report).drift.as_ref().expect("a run of 3 s");
    assert!(drift.response_first_ns > 0 && drift.rate_last_per_s > 0, "{drift:?}");
    assert_eq!(!drift.steady, report.verdict.reasons.iter().any(|reason| reason.code == "not_steady"));
}

/// A server that takes 2 ms at first and 10 ms in the end: more than any noise.
#[test]
fn a_server_that_becomes_slower_makes_a_run_not_steady() {
    let first = OnceLock::new();
    let peer = Peer::start(move |talk| {
        while let Some(request) = talk.request() {
            let seconds = first.get_or_init(Instant::now).elapsed().as_secs_f64();
            std::thread::sleep(Duration::from_secs_f64(0.002 * (1.0 + seconds)));
            if !talk.good(&request) {
                return;
            }
        }
    });
    let ended = loadgen_at(&peer.target(), &["--conns", "4", "--duration", "4s", "--warmup", "0s"]);
    let report = ended.expect(0);
    let drift = confidence(report).drift.as_ref().expect("a run of 4 s");
    assert!(!drift.steady && drift.response_last_ns > drift.response_first_ns, "{drift:?}");
    assert_eq!(report.verdict.state, VerdictState::Invalid);
    assert!(ended.stdout.contains("! not_steady: from the first third"), "{}", ended.stdout);
}

#[test]
fn what_counts_its_requests_is_not_asked() {
    let ended = loadgen(&["--conns", "8", "--requests", "20k"]);
    let report = ended.expect(0);
    is_whole(report);
    assert_eq!(confidence(report).drift, None);
}

#[test]
fn without_replies_there_are_no_intervals() {
    let ended = loadgen(&[&["--protocol", "discard", "--conns", "2"][..], &SHORT].concat());
    assert_eq!(ended.expect(0).confidence, None);
}

/// Whichever way it ended, the report says the same of it everywhere. True if the window closed early.
fn ended_early(load: &[&str], until: &str) -> bool {
    let ended = loadgen(&[load, &["--until-ci", until, "--duration", "10s", "--warmup", "200ms"]].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    is_whole(report);
    let window_ns = report.throughput.window_ns;
    assert_eq!((report.phases.measure_ns, report.scenario.duration_ns), (window_ns, Some(10 * SECOND_NS)));
    assert_eq!(report.scenario.until_ci, [until]);
    let [goal] = &confidence(report).until_ci[..] else { panic!("{report:?}") };
    let early = window_ns < 10 * SECOND_NS;
    assert!(window_ns >= 2 * SECOND_NS && goal.reached >= early, "{window_ns} {goal:?}");
    let words = if goal.reached { "confidence reached" } else { "confidence not reached: " };
    assert!(ended.stdout.contains(words) && !ended.stdout.contains("PARTIAL"), "{}", ended.stdout);
    early
}

#[test]
fn a_run_ends_when_its_intervals_are_narrow_enough() {
    // An open loop has its rate, whatever else the machine does.
    for threads in ["1", "2"] {
        assert!(ended_early(&["--conns", "8", "--rate", "1k", "--threads", threads], "rate=50%"));
    }
}

/// How soon is up to the machine.
#[test]
fn a_closed_loop_ends_so_too() {
    for threads in ["1", "2"] {
        ended_early(&["--conns", "8", "--threads", threads], "p50=50%");
    }
}

#[test]
fn a_width_that_is_not_reached_is_said_when_the_time_is_over() {
    let args = ["--conns", "4", "--until-ci", "p50=90%,p99.99=0.001%", "--duration", "2500ms", "--warmup", "100ms"];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    assert_eq!(report.throughput.window_ns, 2_500_000_000);
    let goals = &confidence(report).until_ci;
    assert_eq!((goals.len(), goals[1].reached), (2, false), "{goals:?}");
    assert!(ended.stdout.contains("confidence not reached: "), "{}", ended.stdout);
    // Whether to believe the rest is another question.
    let ended = loadgen(&[&args[..], &["--strict"]].concat());
    let invalid = ended.report().verdict.state == VerdictState::Invalid;
    ended.expect(if invalid { 5 } else { 8 });
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let refusals: [(&[&str], &str); 7] = [
        (&["--until-ci", "p98=1%"], "p98"),
        (&["--until-ci", "p99=1"], "percent"),
        (&["--until-ci", "p99=0%"], "out of range"),
        (&["--until-ci", "p99=1%", "--requests", "1k"], "--requests"),
        (&["--until-ci", "p99=1%", "--protocol", "discard"], "discard"),
        (&["--until-ci", "p99=1%", "--rate", "1k:1s,2k:1s"], "--rate"),
        (&["--until-ci", "p99=1%", "--conns", "1:1s,2:1s"], "--conns"),
    ];
    for (args, word) in refusals {
        let message = loadgen_plain(args).expect_refusal(2).to_owned();
        assert!(message.contains(word), "{args:?}: {message}");
    }
}
