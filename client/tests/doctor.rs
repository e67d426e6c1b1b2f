//! `loadgen doctor` as people and scripts see it, and the floor in the reports of runs.

mod common;

use common::{LOADGEN, Running, SHORT, Server, engine, loadgen, loadgen_at, loadgen_plain, scratch};
use loadgen_core::result::{FLOOR_SAMPLES_LEAST, Floor, Report};
use loadgen_core::sys::ring;
use serde_json::Value;

/// What a run over loopback can take at the very least, and a floor at the very most, on any machine.
const FASTEST_NS: u64 = 500;
const SLOWEST_NS: u64 = 1_000_000_000;

fn shell(script: &str, args: &[&str]) -> common::Ended {
    let mut command = common::command("sh");
    command.args(["-c", script, LOADGEN]).args(args);
    Running::launch(command, scratch()).wait()
}

fn positive(value: &Value, at: &str) -> u64 {
    let number = value.pointer(at).unwrap_or_else(|| panic!("no {at} in {value:#}")).as_u64();
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("{at} is not positive in {value:#}"))
}

fn plausible(floor: &Floor, engine: &str) {
    assert_eq!(floor.engine, engine);
    assert!(floor.samples > 0 && floor.timer_samples > 0 && floor.clock_read_ns < SLOWEST_NS, "{floor:?}");
    // What rests on too few values is not there: on a machine that others have, that can be all of it.
    assert_eq!(floor.response_p50_ns.is_some(), floor.samples >= FLOOR_SAMPLES_LEAST, "{floor:?}");
    let response = [Some(FASTEST_NS), floor.response_p50_ns, floor.response_p99_ns, Some(SLOWEST_NS)];
    let late = [floor.timer_late_p50_ns, floor.timer_late_p99_ns, Some(floor.timer_late_max_ns), Some(SLOWEST_NS)];
    let [response, late] = [response, late].map(|figures| figures.into_iter().flatten().collect::<Vec<_>>());
    assert!(response.is_sorted() && late.is_sorted() && floor.took_ns > 60_000_000, "{floor:?}");
    assert!(floor.client_cpu.is_none() || floor.client_cpu != floor.server_cpu, "{floor:?}");
}

#[test]
fn the_doctor_measures_every_engine_that_works() {
    let ended = loadgen_plain(&["doctor", "--format", "json", "--quiet"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    let found: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(found["schema"], "loadgen.doctor/1");
    for at in ["/machine/cpus", "/machine/memory_bytes", "/means/descriptors", "/means/ports_per_source"] {
        positive(&found, at);
    }
    for place in ["loopback", "foreign", "loopback_io_uring", "foreign_io_uring"] {
        positive(&found, &format!("/connections/{place}/connections"));
    }
    let engines = found["engines"].as_array().unwrap();
    assert_eq!(engines.len(), 2);
    for reading in engines {
        let name = reading["name"].as_str().unwrap();
        if name == "io_uring" && ring::check(&ring::Options::default()).is_err() {
            assert!(reading["floor"].is_null() && reading["refusal"]["remedy"].is_string(), "{reading:#}");
            continue;
        }
        let floor: Floor = serde_json::from_value(reading["floor"].clone()).unwrap();
        plausible(&floor, name);
        assert!(reading["refusal"].is_null(), "{reading:#}");
        positive(reading, "/ceiling_requests_per_s");
        positive(reading, "/client_ns_per_request");
        for (at, q) in [("/response_p90_ns", 0.9), ("/response_p999_ns", 0.999)] {
            assert_eq!(reading.pointer(at).unwrap().is_u64(), Floor::tells(floor.samples, q), "{at} of {reading:#}");
        }
        assert_eq!(reading["rounds"].as_array().unwrap().len(), 5);
    }
    // These tests are of a debug build, and that is worth a warning with a remedy.
    let warnings = found["warnings"].as_array().unwrap();
    let debug = warnings.iter().find(|warning| warning["code"] == "debug_build").expect("debug_build");
    assert!(debug["weight"] == "high" && debug["remedy"].as_str().unwrap().contains("--release"), "{debug:#}");
}

#[test]
fn the_page_for_people_names_the_remedy() {
    let ended = shell("ulimit -n 256 && exec \"$0\" doctor --engine epoll", &[]);
    assert_eq!(ended.code, 0, "{} {}", ended.stdout, ended.stderr);
    let said = ended.stdout.as_str();
    for word in ["256 descriptors", "ulimit -n 65536", "192 (descriptors)", "floor", "timers", "ceiling", "noise"] {
        assert!(said.contains(word), "no {word:?} in\n{said}");
    }
    assert!(said.lines().all(|line| !line.starts_with("io_uring")), "only epoll was asked for:\n{said}");
    for line in said.lines().filter(|line| !line.trim_start().starts_with("do:")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(ended.stderr.contains("doctor: "), "{}", ended.stderr);
}

#[test]
fn where_nothing_can_be_measured_the_doctor_says_so_and_ends_with_7() {
    // The 64 connections of its own server do not fit.
    let ended = shell("ulimit -n 100 && exec \"$0\" doctor --engine epoll --quiet", &[]);
    assert_eq!(ended.expect_refusal(7).lines().count(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("ulimit") && ended.stdout.contains("floor"), "{} {}", ended.stderr, ended.stdout);
    loadgen_plain(&["doctor", "--engine", "kqueue"]).expect_refusal(2);
    loadgen_plain(&["doctor", "--format", "csv"]).expect_refusal(2);
}

#[test]
fn every_report_has_a_floor_and_a_machine_unless_nobody_wants_one() {
    let ended = loadgen(&[&["--conns", "1"], &SHORT[..]].concat());
    let report = ended.expect(0);
    plausible(floor(report), engine());
    assert!(ended.stdout.contains("floor "), "{}", ended.stdout);
    // The floor's requests and connections are none of the run's.
    common::clean(report);
    common::agrees_with_embedded(report);
    assert_eq!(report.connections.attempts, 1);
    let warnings = &report.environment.warnings;
    assert!(warnings.iter().any(|warning| warning.code == "debug_build"), "{warnings:?}");
    assert!(ended.stdout.contains("without optimisation"), "{}", ended.stdout);
    let server = report.environment.server.as_ref().expect("the embedded server says where it runs");
    assert_eq!(server.kernel, report.environment.client.kernel);
    assert!(report.server.as_ref().is_some_and(|stats| stats.machine.is_none()), "once is enough");

    let without = loadgen(&[&["--conns", "2", "--no-floor"], &SHORT[..]].concat());
    assert_eq!(without.expect(0).floor, None);
    assert!(!without.stdout.contains("floor"), "{}", without.stdout);
}

#[test]
fn a_floor_is_measured_for_a_foreign_server_without_its_noticing() {
    let server = Server::start(&[]);
    let ended = loadgen_at(&server.target(), &["--conns", "3", "--requests", "30"]);
    let report = ended.expect(0);
    plausible(floor(report), engine());
    assert_eq!(report.environment.server, None);
    let stats = server.stop();
    assert_eq!((stats.accepts, stats.requests), (3, 30));
    assert!(stats.machine.is_some_and(|machine| machine.cpus > 0), "--stats names the machine");
}

#[test]
fn ctrl_c_within_the_floor_leaves_a_report_too() {
    let run = Running::start(&["--conns", "1", "--duration", "60s"]);
    let names = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", run.id())).into_iter().flatten().flatten();
        threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default())
    };
    // The floor, or the run where that was over too soon to be seen.
    common::eventually("it measures", || names().any(|name| name.starts_with("null-") || name.starts_with("worker")));
    run.signal("INT");
    let ended = run.wait();
    assert!(ended.expect(130).partial);
    ended.assert_within(std::time::Duration::from_secs(10));
}

#[test]
fn a_floor_is_of_the_engine_that_runs() {
    if ring::check(&ring::Options::default()).is_err() {
        eprintln!("skipped: no io_uring here");
        return;
    }
    let ended = loadgen(&["--engine", "io_uring", "--ring", "buffers=8x64", "--conns", "2", "--requests", "20"]);
    plausible(floor(ended.expect(0)), "io_uring");
}

fn floor(report: &Report) -> &Floor {
    report.floor.as_ref().unwrap_or_else(|| panic!("a report has a floor: {}", common::brief(report)))
}
