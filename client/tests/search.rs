//! `loadgen search`, whole: real servers, real probes, the file and the exit status. Where the knee is, is a matter of
//! timing, and so of `tests/search_simulation.rs` and `bench/search`.

mod common;

use common::*;
use loadgen_core::result::LimitState;
use loadgen_core::search::schema::{Found, Outcome, ProbeVerdict};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Probes as short as they can be of use.
const QUICK: [&str; 6] = ["--conns", "10", "--duration", "400ms", "--warmup", "100ms"];
/// One virtual resource that takes 500 requests a second.
const QUEUE: [&str; 2] = ["--server-service-time", "fixed:2ms"];

struct Searched {
    folder: TempDir,
    ended: Ended,
}

impl Searched {
    fn run(args: &[&str]) -> Self {
        let folder = scratch();
        let path = path(&folder);
        let ended = loadgen_plain(&[&["search", "--output", path.to_str().unwrap()], &QUICK[..], args].concat());
        Self { folder, ended }
    }

    /// A search that came to an end. A machine that does too much else at the time may keep it from that by disturbing
    /// its probes, and only that is no failure: None.
    fn decided(args: &[&str]) -> Option<Self> {
        for _ in 0..3 {
            let searched = Self::run(args);
            let found = searched.found();
            if found.outcome != Outcome::Unknown {
                return Some(searched);
            }
            let ended = &searched.ended;
            let disturbed = found.probes.iter().any(|probe| probe.verdict == ProbeVerdict::Unusable)
                || found.ended.contains("--budget was over");
            assert!(disturbed && [0, 5].contains(&ended.code), "{} {}{}", ended.code, ended.stdout, ended.stderr);
        }
        eprintln!("skipped: this machine does too much else");
        None
    }

    /// It ended without an answer because the machine disturbed a probe.
    fn was_disturbed(&self) -> bool {
        let found = self.found();
        let unusable = found.probes.iter().filter(|probe| probe.verdict == ProbeVerdict::Unusable);
        let why: Vec<&String> = unusable.flat_map(|probe| &probe.why).collect();
        let starved = !why.is_empty() && why.iter().all(|code| STARVED.contains(&code.as_str()));
        if starved {
            eprintln!("inconclusive: {why:?}");
        }
        !why.is_empty() && self.ended.code == 5 && (starved || !self.ended.is_conclusive())
    }

    fn found(&self) -> Found {
        read(&path(&self.folder))
    }
}

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("search.json")
}

fn read(path: &Path) -> Found {
    let text = std::fs::read_to_string(path).unwrap();
    let found = Found::from_json(&text).unwrap();
    // What was read is what was written, and each run can be taken out.
    assert_eq!(found.to_json(), text);
    assert_eq!(found.runs.len(), found.probes.len());
    for run in &found.runs {
        hold_invariants(run, "");
    }
    found
}

#[test]
fn a_knee_lies_between_what_held_and_what_did_not() {
    let slos = ["--slo", "p99<50ms,errors=0", "--slo", "max<10s"];
    let rest = ["--budget", "12s", "--at-least", "1", "--seed", "5"];
    let Some(searched) = Searched::decided(&[&slos[..], &QUEUE, &rest].concat()) else { return };
    let (found, ended) = (searched.found(), &searched.ended);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert_eq!(found.slos, ["p99<50ms", "errors=0", "max<10s"]);
    assert_eq!((found.partial, found.arrival.as_str(), found.seed), (false, "poisson", 5));
    assert!(found.probes[0].rate_per_s.is_none() && found.probes[0].verdict == ProbeVerdict::NotJudged);
    assert!(found.scenario.contains("fixed:2ms"), "{}", found.scenario);
    for (index, (probe, run)) in found.probes.iter().zip(&found.runs).enumerate().skip(1) {
        let scenario = &run.scenario;
        assert_eq!((scenario.rate_per_s, scenario.arrival.as_deref()), (probe.rate_per_s, Some("poisson")));
        assert_eq!((scenario.seed, scenario.connections), (5 + index as u64, 10));
        // All against one server.
        assert_eq!(scenario.target, found.runs[0].scenario.target);
        assert_eq!(probe.slow.len(), 3);
    }
    // The server's resource takes 500 a second, and nobody can hold more.
    let knee = found.knee.as_ref().unwrap();
    assert!(knee.rate_per_s < 700 && found.highest_held_per_s.unwrap() < 700, "{knee:?}");
    assert!(knee.high_per_s.is_none_or(|high| high >= knee.rate_per_s), "{knee:?}");
    assert_eq!(found.at_least.unwrap().judgement == LimitState::Holds, knee.low_per_s.is_some(), "{knee:?}");
    for words in
        ["highest rate that holds p99<50ms and errors=0", "closed loop", "latency (logarithmic)", "at least 1/s"]
    {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
}

#[test]
fn formats_are_of_the_same_result() {
    for (format, words) in [("json", "\"schema\": \"loadgen.search/1\""), ("md", "| rate/s |"), ("csv", "rate_per_s,")]
    {
        let args = ["--slo", "p99<50ms", "--from", "50", "--probes", "2", "--quiet", "--format", format];
        let searched = Searched::run(&[&args[..], &QUEUE].concat());
        let found = searched.found();
        assert_eq!(found.probes.len(), 2, "{}", searched.ended.stderr);
        assert!(searched.ended.code == 0 || searched.was_disturbed(), "{}", searched.ended.stderr);
        assert_eq!(found.probes[0].rate_per_s, Some(50));
        assert!(searched.ended.stdout.contains(words), "{}", searched.ended.stdout);
        if format == "json" {
            assert_eq!(Found::from_json(&searched.ended.stdout).unwrap(), found);
        }
        if format == "csv" {
            assert_eq!(searched.ended.stdout.lines().count(), 3);
        }
    }
}

#[test]
fn the_embedded_server_speaks_what_it_is_told_to() {
    let args = ["--slo", "errors=0", "--from", "50", "--probes", "1", "--protocol", "http", "--server-tls"];
    let searched = Searched::run(&args);
    let (found, ended) = (searched.found(), &searched.ended);
    assert!(ended.code == 0 || searched.was_disturbed(), "{}{}", ended.stdout, ended.stderr);
    assert!(found.probes[0].achieved_per_s > 0 && found.probes[0].errors == 0, "{}", ended.stdout);
    assert_eq!(found.runs[0].scenario.protocol, "http");
}

#[test]
fn what_never_holds_is_said_so() {
    let args = ["--slo", "p50<1ms", "--from", "64", "--budget", "20s", QUEUE[0], QUEUE[1]];
    let Some(searched) = Searched::decided(&args) else { return };
    assert_eq!(searched.ended.code, 1, "{}{}", searched.ended.stdout, searched.ended.stderr);
    let found = searched.found();
    assert!((found.outcome, found.highest_held_per_s, found.knee.is_none()) == (Outcome::Never, None, true));
    assert!(searched.ended.stdout.contains("does not hold at any rate tried"), "{}", searched.ended.stdout);
}

#[test]
fn a_rate_that_cannot_be_reached_is_a_broken_gate() {
    let args = ["--slo", "p50<100ms", "--from", "400", "--budget", "12s", "--at-least", "5k", "--precision", "20%"];
    let Some(searched) = Searched::decided(&[&args[..], &QUEUE].concat()) else { return };
    let (found, ended) = (searched.found(), &searched.ended);
    // Where the upper end is not known, nothing is.
    let known = found.outcome == Outcome::Never || found.knee.is_some_and(|knee| knee.high_per_s.is_some());
    let (code, words) = if known { (1, "BROKEN") } else { (0, "UNRESOLVABLE") };
    assert_eq!(ended.code, code, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(&format!("at least 5,000/s: {words}")), "{}", ended.stdout);
}

#[test]
fn where_the_server_has_no_end_the_generator_or_the_time_is_the_bound() {
    // Whatever this machine takes, nothing is as slow as that; so only its end, or ours, ends it.
    let args = ["--slo", "p50<9s", "--from", "1k", "--budget", "15s"];
    let Some(searched) = Searched::decided(&args) else { return };
    assert_eq!(searched.ended.code, 0, "{}{}", searched.ended.stdout, searched.ended.stderr);
    let found = searched.found();
    assert_ne!(found.outcome, Outcome::Never);
    assert!(found.highest_held_per_s.is_some(), "{}", searched.ended.stdout);
    if found.outcome == Outcome::AtLeast {
        assert!(searched.ended.stdout.contains("at least") && found.knee.is_none(), "{}", searched.ended.stdout);
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    for (args, words) in [
        (&["--slo", "p99>5ms"][..], "what is wanted"),
        (&["--slo", "rate<5k"], "what the search turns"),
        (&["--slo", "nonsense"], "in quotes"),
        (&[], "--slo"),
    ] {
        let ended = loadgen_plain(&[&["search"], args].concat());
        assert!(ended.code == 2 && ended.stderr.contains(words), "{args:?}: {} {}", ended.code, ended.stderr);
    }
    for (args, words) in [
        (&["--rate", "5k"][..], "--rate is what a search looks for"),
        (&["--requests", "500"], "--requests"),
        (&["--until-ci", "p99=5%"], "--precision"),
        (&["--fail-if", "p99>5ms"], "--at-least"),
        (&["--shard", "0/2"], "--shard"),
        (&["--session-requests", "5", "--rate", "5"], "--rate"),
        (&["--think", "1ms"], "--think"),
        (&["--dump-scenario"], "--dump-scenario"),
        (&["--conns", "1:1s,5:1s"], "one number"),
        (&["--duration", "1ms"], "100 ms"),
        (&["--precision", "90%"], "out of range"),
        (&["--probes", "0"], "--probes"),
        (&["--from", "0"], "--from"),
        (&["--arrival", "fractal"], "fractal"),
        (&["--format", "hlog"], "there are text, json, md, csv"),
        (&["--target", "discard://127.0.0.1:9"], "a one-way stream"),
        (&["--output", "-"], "--format json"),
    ] {
        let ended = loadgen_plain(&[&["search", "--slo", "p99<5ms"], args].concat());
        let said = ended.expect_refusal(2);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    loadgen_plain(&["search", "--slo", "p99<5ms", "--output", "/nonexistent/search.json"]).expect_refusal(6);
    // A single run has no such default.
    assert!(loadgen_plain(&["run", "--arrival", "poisson"]).expect_refusal(2).contains("--rate"));
}

#[test]
fn a_target_that_is_not_there_is_no_slow_one() {
    let searched = Searched::run(&["--slo", "p99<5ms", "--target", "127.0.0.1:1"]);
    let said = searched.ended.expect_refusal(3);
    assert!(said.contains("could not be reached") && !path(&searched.folder).exists(), "{said}");
}

#[test]
fn ctrl_c_keeps_the_finished_probes() {
    let folder = scratch();
    let file = path(&folder);
    let mut command = command(LOADGEN);
    command.args(["search", "--slo", "p99<50ms", "--from", "50", "--precision", "0.1%"]).args(QUICK).args(QUEUE);
    command.arg("--output").arg(&file);
    let running = Running::launch(command, scratch());
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < HARD_LIMIT, "no probe was finished");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, 130, "{}{}", ended.stdout, ended.stderr);
    let found = read(&file);
    assert!(found.partial && !found.probes.is_empty());
    assert!(ended.stdout.contains("! interrupted"), "{}", ended.stdout);
}
