//! The open loop: what is due is fixed by rate, arrival process and seed alone, and nothing that is due is lost.

mod common;

use common::peer::Peer;
use common::request_log::{self, Row};
use common::{
    Running, Server, agrees, agrees_with_embedded, brief, clean, loadgen, loadgen_at, loadgen_plain, scratch, series,
    whole,
};
use loadgen_core::arrivals::{Process, Profile, Schedule};
use loadgen_core::result::VerdictState;
use loadgen_core::time::Instant;
use std::time::Duration;

const MS: u64 = 1_000_000;

/// The due times of a run, from its first on.
fn schedule(process: Process, rate: &str, seed: u64, warmup_ns: u64, length_ns: u64) -> Vec<u64> {
    let profile = Profile::parse(rate).unwrap().after(warmup_ns);
    let mut schedule = Schedule::new(process, profile, seed, 0, 1, Instant(0));
    std::iter::repeat_with(|| schedule.next_due().0).take_while(|due| *due < warmup_ns + length_ns).collect()
}

#[test]
fn the_schedule_is_that_of_rate_and_seed_whatever_the_threads() {
    for (process, rate) in
        [(Process::Constant, "1k"), (Process::Poisson, "1k"), (Process::Constant, "200:200ms,200..2k:300ms")]
    {
        for threads in ["1", "3"] {
            let folder = scratch();
            let log = folder.path().join("requests.csv");
            let args = ["--rate", rate, "--arrival", process.name(), "--seed", "7", "--threads", threads];
            let times = ["--duration", "500ms", "--warmup", "200ms", "--conns", "12"];
            let ended = loadgen(&[&args[..], &times, &["--request-log", log.to_str().unwrap()]].concat());
            let report = ended.expect(0);
            clean(report);
            agrees_with_embedded(report);
            let dues = schedule(process, rate, 7, 200 * MS, 500 * MS);
            let measured = dues.iter().filter(|due| **due >= 200 * MS).count() as u64;
            assert_eq!(report.ledger.scheduled, measured, "{process:?} {threads}: {}", brief(report));
            let offered = report.throughput.offered_per_s.unwrap();
            assert!(offered.abs_diff(measured * 2) <= 1, "{offered}");
            // Each connection was proved with one request before.
            assert_eq!(whole(report).scheduled, dues.len() as u64 + 12);
            let rows = request_log::read(&log);
            let load: Vec<&Row> = rows.iter().filter(|row| row.outcome != "proof").collect();
            assert_eq!(rows.len() - load.len(), 12);
            let begin = load[0].due - dues[0];
            // What no connection took until the end, on a busy machine, has no row.
            let mut expected = dues.iter();
            assert!(load.iter().all(|row| expected.any(|due| *due == row.due - begin)), "other due times");
            assert_eq!(load.len() as u64 + whole(report).unsent, dues.len() as u64, "{}", brief(report));
            check_rows(&load, report);
        }
    }
}

/// The log and the report are two accounts of the same requests.
fn check_rows(load: &[&Row], report: &loadgen_core::result::Report) {
    let begin = load[0].due;
    assert!(load.iter().all(|row| row.due <= row.sent && row.sent < row.received && row.slot < 12), "{load:?}");
    let window: Vec<u64> =
        load.iter().filter(|row| row.due >= begin + 200 * MS).map(|row| row.received - row.due).collect();
    let response = report.latency.response.as_ref().unwrap();
    // The first request may be due a little after the load begins, and the window with it.
    if window.len() as u64 == response.count {
        let figures = (response.sum_ns, response.max_ns, response.min_ns);
        let logged = (window.iter().sum(), *window.iter().max().unwrap(), *window.iter().min().unwrap());
        assert_eq!(figures, logged);
    }
}

#[test]
fn a_number_of_requests_is_exact_in_an_open_loop_too() {
    for arrival in ["constant", "poisson"] {
        let ended = loadgen(&["--rate", "2k", "--arrival", arrival, "--requests", "700", "--conns", "10"]);
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        let ledger = &report.ledger;
        assert_eq!((ledger.scheduled, ledger.ok + ledger.unsent), (700, 700), "{}", brief(report));
        assert_eq!(whole(report).ok, ledger.ok + 10, "{}", brief(report));
        ended.assert_if_fit(ledger.unsent == 0);
    }
}

#[test]
fn pipelines_and_churn_carry_what_is_due() {
    for more in
        [&["--pipeline", "8"][..], &["--requests-per-conn", "5"], &["--requests-per-conn", "1", "--threads", "2"]]
    {
        for protocol in ["echo", "http"] {
            let args = ["--rate", "2k", "--conns", "8", "--protocol", protocol];
            let times = ["--duration", "400ms", "--warmup", "100ms"];
            let ended = loadgen(&[&args[..], &times, more].concat());
            let report = ended.expect(0);
            agrees_with_embedded(report);
            assert_eq!((report.ledger.scheduled, whole(report).errors.len()), (800, 0), "{}", brief(report));
            let churns = more[0] == "--requests-per-conn";
            assert_eq!(report.connections.opened > 8, churns, "{more:?} {}", brief(report));
            ended.assert_if_fit(report.connections.opened > 100 || !churns);
        }
    }
}

/// One connection answers at most once in 10 ms: of 1,000 a second, at most 100 can be answered.
#[test]
fn what_the_target_cannot_take_is_counted_and_never_claimed() {
    let peer = Peer::start(|talk| {
        while let Some(request) = talk.request() {
            std::thread::sleep(Duration::from_millis(10));
            if !talk.good(&request) {
                return;
            }
        }
    });
    let args = ["--rate", "1k", "--conns", "2", "--duration", "1s", "--warmup", "0s"];
    let ended = loadgen_at(&peer.target(), &args);
    let report = ended.expect(0);
    assert_eq!((report.ledger.scheduled, report.throughput.offered_per_s), (1000, Some(1000)), "{}", brief(report));
    assert!(report.throughput.requests_per_s <= 202, "{}", brief(report));
    assert!(report.ledger.unsent >= 795, "{}", brief(report));
    assert_ne!(report.verdict.state, VerdictState::Valid);
    // What never left waited for up to the whole run, and its wait is not forgotten.
    let backlog = report.latency.backlog_wait.as_ref().unwrap();
    assert!(backlog.max_ns > 700 * MS && backlog.quantiles_ns["0.5"] > 300 * MS, "{backlog:?}");
    assert!(report.latency.service.as_ref().unwrap().min_ns >= 10 * MS);
    assert_eq!(report.latency.censored, report.ledger.unsent, "{}", brief(report));
    assert!(!ended.stdout.contains("throughput   1,000"), "{}", ended.stdout);
}

#[test]
fn a_stopped_generator_is_noticed_and_the_target_is_not_blamed() {
    let running = Running::start(&["--rate", "1k", "--conns", "20", "--duration", "5s", "--warmup", "300ms"]);
    running.wait_for_load();
    std::thread::sleep(Duration::from_millis(500));
    running.signal("STOP");
    std::thread::sleep(Duration::from_millis(600));
    running.signal("CONT");
    let ended = running.wait();
    let report = ended.expect(0);
    let generator = report.generator.as_ref().unwrap();
    // A process that has no CPU stops when it gets one.
    assert!(generator.longest_stall_ns >= 370 * MS, "{generator:?}");
    ended.assert_if_fit(generator.longest_stall_ns >= 570 * MS);
    assert_eq!(report.verdict.state, VerdictState::Invalid);
    let codes: Vec<&str> = report.verdict.reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert!(codes.contains(&"generator_stalled") && !codes.contains(&"overloaded"), "{codes:?}");
    // All of it is in the latencies, and it is ours.
    assert!(report.latency.response.as_ref().unwrap().max_ns >= 370 * MS, "{}", brief(report));
    assert!(report.latency.generator_lag.as_ref().unwrap().max_ns >= 370 * MS, "{}", brief(report));
    assert_eq!(report.ledger.scheduled, 5000);
}

#[test]
fn a_target_that_dies_leaves_a_ledger_that_closes() {
    let server = Server::start(&[]);
    let target = server.target();
    let running = Running::start(&["--target", &target, "--rate", "1k", "--conns", "10", "--duration", "4s"]);
    server.wait_for_load();
    server.kill();
    let ended = running.wait();
    let report = ended.expect(4);
    assert_eq!(report.ledger.scheduled, 4000);
    // Nobody was there to carry what was due afterwards.
    assert!(report.ledger.unsent > 100, "{}", brief(report));
    assert!(report.connections.failed.contains_key("refused"), "{}", brief(report));
    // That is no question of capacity.
    let codes: Vec<&str> = report.verdict.reasons.iter().map(|reason| reason.code.as_str()).collect();
    assert!(report.verdict.state == VerdictState::Invalid || codes == ["target_failed"], "{codes:?}");
}

/// Connections that wait for a request to prove them must not keep the others from being opened.
#[test]
fn connections_come_back_although_there_is_little_to_do_for_them() {
    let args = ["--rate", "50", "--conns", "400", "--requests-per-conn", "1", "--duration", "1500ms", "--warmup", "0s"];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    assert!(report.connections.alive_at_end > 350, "{}", brief(report));
    agrees_with_embedded(report);
}

#[test]
fn connections_that_come_and_go_before_anything_is_due_are_no_failure() {
    let ended = loadgen(&["--rate", "10", "--conns", "2..40:400ms,1:200ms", "--warmup", "0s"]);
    let report = ended.expect(0);
    assert!(report.verdict.reasons.iter().all(|reason| reason.code != "connections_short"), "{}", brief(report));
}

/// Behind others on its connection a request leaves later than it was issued: the waits are those until it left.
#[test]
fn backlog_and_lag_add_up_to_the_time_until_a_request_left() {
    let folder = scratch();
    let log = folder.path().join("requests.csv");
    let args = ["--rate", "4k", "--conns", "2", "--pipeline", "4", "--size", "16KiB", "--duration", "500ms"];
    let ended = loadgen(&[&args[..], &["--warmup", "0s", "--request-log", log.to_str().unwrap()]].concat());
    let report = ended.expect(0);
    let rows = request_log::read(&log);
    let left = rows.iter().filter(|row| row.outcome != "proof" && row.sent > 0);
    let until_left: u64 = left.map(|row| row.sent - row.due).sum();
    let sum = |histogram: &Option<loadgen_core::result::Histogram>| histogram.as_ref().map_or(0, |h| h.sum_ns);
    let waits = sum(&report.latency.backlog_wait) + sum(&report.latency.generator_lag);
    // What never left waited too, and is in no row.
    if report.ledger.unsent == 0 {
        assert_eq!(waits, until_left, "{}", brief(report));
    } else {
        assert!(waits >= until_left, "{}", brief(report));
    }
}

#[test]
fn a_restarted_target_gets_what_is_due() {
    let server = Server::start(&[]);
    let target = server.target();
    let running = Running::start(&["--target", &target, "--rate", "500", "--conns", "5", "--duration", "6s"]);
    server.wait_for_load();
    server.kill();
    std::thread::sleep(Duration::from_millis(200));
    let server = Server::start_at(&target, &[]);
    let ended = running.wait();
    let report = ended.expect(4);
    let ledger = &report.ledger;
    assert_eq!(ledger.scheduled, 3000, "{}", brief(report));
    assert!(ledger.ok + ledger.unsent > 2900, "{}", brief(report));
    ended.assert_if_fit(ledger.unsent == 0);
    drop(server);
}

#[test]
fn connections_come_and_go_in_steps() {
    for pacing in [&["--rate", "500"][..], &[]] {
        let server = Server::start(&[]);
        let steps = ["--conns", "2:300ms,2..9:300ms,9:200ms,3:200ms", "--warmup", "100ms"];
        let ended = loadgen_at(&server.target(), &[&steps[..], pacing].concat());
        let report = ended.expect(0);
        clean(report);
        agrees(report, &server.stop());
        let counts = &report.connections;
        assert_eq!((counts.requested, counts.opened, counts.alive_at_end), (9, 9, 3), "{}", brief(report));
        assert_eq!(report.throughput.window_ns, 1_000 * MS);
        assert_eq!(report.scenario.connections, 9);
        assert!(report.scenario.connection_steps.is_some());
    }
}

#[test]
fn a_rate_in_steps_is_followed_second_by_second() {
    let ended = loadgen(&["--rate", "300:1s,900:1s", "--warmup", "0s", "--conns", "10"]);
    let report = ended.expect(0);
    clean(report);
    let ledger = &report.ledger;
    assert_eq!((ledger.scheduled, ledger.ok + ledger.unsent), (1200, 1200), "{}", brief(report));
    assert_eq!(series(report, "sent"), 1210 - ledger.unsent);
    ended.assert_if_fit(ledger.unsent == 0);
    assert_eq!((report.scenario.rate_per_s, report.throughput.offered_per_s), (None, Some(600)));
    assert!(report.scenario.rate_steps.is_some());
}

#[test]
fn spinning_is_told_with_its_cost() {
    let args = ["--rate", "200", "--spin", "1ms", "--conns", "5", "--duration", "500ms", "--warmup", "100ms"];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    clean(report);
    let spun = report.generator.as_ref().unwrap().spin_ns;
    assert!((5 * MS..=500 * MS).contains(&spun), "{spun}");
    assert!(ended.stdout.contains("of spinning"), "{}", ended.stdout);
    assert_eq!(report.scenario.spin_ns, MS);
    // By default a tenth of the gap between a thread's requests, at most 100 us.
    for (spin, expected) in [(None, 50_000), (Some("0us"), 0)] {
        let mut args = vec!["--rate", "2k", "--conns", "5", "--duration", "200ms", "--warmup", "0s"];
        spin.iter().for_each(|spin| args.extend(["--spin", spin]));
        let ended = loadgen(&args);
        let report = ended.expect(0);
        assert_eq!(report.scenario.spin_ns, expected);
        assert_eq!(report.generator.as_ref().unwrap().spin_ns > 0, expected > 0);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [
        &["--arrival", "poisson"][..],
        &["--spin", "1ms"],
        &["--rate", "0"],
        &["--rate", "1k,2k"],
        &["--rate", "1k", "--arrival", "fractal"],
        &["--rate", "1k", "--in-flight", "5"],
        &["--rate", "1k", "--spin", "1s"],
        &["--rate", "1k", "--protocol", "chargen"],
        &["--rate", "100M", "--duration", "1h"],
        &["--conns", "1..5"],
        &["--conns", "1:1s,x"],
    ] {
        loadgen_plain(args).expect_refusal(2);
    }
    loadgen_plain(&["--rate", "10", "--request-log", "same.json", "--output", "same.json"]).expect_refusal(2);
    let ended = loadgen_plain(&["--rate", "10", "--request-log", "/nowhere/at/all.csv"]);
    ended.expect_refusal(6);
}
