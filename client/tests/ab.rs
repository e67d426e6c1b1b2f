//! `loadgen ab` and `loadgen compare`, whole: real servers, real runs, the exit status that a gate depends on.

mod common;

use common::*;
use loadgen_core::compare::{Comparison, Design, Verdict};
use loadgen_core::result::read::{self, Document};
use loadgen_core::result::{Bundle, VerdictState};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Eight blocks of one gate reach 1 %, in as short slots as there can be.
const QUICK: [&str; 10] = ["--blocks", "8", "--gate", "p50", "--conns", "2", "--duration", "50ms", "--warmup", "0ms"];

/// `loadgen ab` in a folder of its own.
struct AbRun {
    folder: TempDir,
    ended: Ended,
}

impl AbRun {
    fn run(args: &[&str]) -> Self {
        let folder = scratch();
        let path = bundle_path(&folder);
        let ended = loadgen_plain(&[&["ab", "--output", path.to_str().unwrap()], args].concat());
        Self { folder, ended }
    }

    fn path(&self) -> PathBuf {
        bundle_path(&self.folder)
    }

    fn bundle(&self) -> Bundle {
        bundle(&self.path())
    }
}

fn bundle_path(folder: &TempDir) -> PathBuf {
    folder.path().join("bundle.json")
}

fn bundle(path: &Path) -> Bundle {
    match read::read_document(path).unwrap() {
        Document::Bundle(bundle) => *bundle,
        Document::Report(_) => panic!("a report"),
    }
}

fn comparison(text: &str) -> Comparison {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A comparison that came to a verdict. `None`: a machine that did too much else kept it from that, and only
/// that is no failure.
fn decided(args: &[&str]) -> Option<(Comparison, Ended)> {
    let mut conclusive = true;
    for _ in 0..3 {
        let ab_run = AbRun::run(args);
        let result = comparison(&ab_run.ended.stdout);
        if result.verdict != Verdict::Inconclusive {
            return Some((result, ab_run.ended));
        }
        assert!([0, 5].contains(&ab_run.ended.code), "{}", ab_run.ended.stderr);
        conclusive &= ab_run.ended.is_conclusive();
    }
    assert!(!conclusive, "no verdict on a machine that has nothing else to do: {args:?}");
    None
}

#[test]
fn a_slower_server_is_a_regression_and_a_faster_one_is_none() {
    let flags = |us: u32| format!("--server-service-time fixed:{us}us");
    let (slow, fast) = (flags(750), flags(500));
    for (a, b, verdict, code) in [
        (&fast, &slow, Verdict::Regressed, 1),
        (&slow, &fast, Verdict::Improved, 0),
        (&fast, &fast, Verdict::Equivalent, 0),
    ] {
        let arms = ["--a-flags", a, "--b-flags", b, "--format", "json", "--margin", "20%"];
        let Some((result, ended)) = decided(&[&arms[..], &QUICK].concat()) else { return };
        assert_eq!((result.verdict, ended.code), (verdict, code), "{}", ended.stdout);
        let row = &result.rows[0];
        let change = row.change_ppm.unwrap();
        let truth = match verdict {
            Verdict::Regressed => 500_000,
            Verdict::Improved => -333_333,
            _ => 0,
        };
        // A server that waits for its CPU is slower than it was told to be, on both sides.
        let is_near = (change - truth).abs() < 60_000;
        assert!(is_near || !ended.is_conclusive(), "{change} instead of {truth}");
        assert!(row.low_ppm.unwrap() <= change && change <= row.high_ppm.unwrap() && row.sees_ppm.is_some(), "{row:?}");
        assert_eq!((result.design, result.blocks), (Design::PairedBlocks, 8));
    }
}

#[test]
fn a_bundle_says_what_ran_in_which_order_and_compares_to_the_same_again() {
    let injected = ["--server-service-time", "fixed:500us"];
    let ab_run = AbRun::run(&[&["--null", "--seed", "7", "--label", "k=v"][..], &injected, &QUICK].concat());
    assert!([0, 5].contains(&ab_run.ended.code), "{}", ab_run.ended.stderr);
    let bundle = ab_run.bundle();
    assert_eq!((bundle.partial, bundle.seed, bundle.blocks_planned), (false, 7, 8));
    // More than planned where some have invalid runs.
    assert!((8..=12).contains(&bundle.order.len()) && bundle.runs.len() == 6 * bundle.order.len());
    for (index, run) in bundle.runs.iter().enumerate() {
        let ab = run.ab.as_ref().unwrap();
        assert_eq!((ab.block, ab.slot), (index as u64 / 6, index as u64 % 6));
        assert_eq!((&ab.session, &ab.arm), (&bundle.session, &bundle.order[index / 6][index % 6]));
        assert_eq!(run.labels["k"], "v");
        hold_invariants(run, "");
    }
    // Every block reads the same backwards, and the draws are those of the seed.
    assert!(bundle.order.iter().all(|order| order.iter().eq(order.iter().rev())));
    let path = ab_run.path();
    let again = loadgen_plain(&["compare", path.to_str().unwrap(), "--gate", "p50"]);
    assert_eq!(again.code, ab_run.ended.code, "{}", again.stderr);
    assert_eq!(again.stdout, ab_run.ended.stdout);
    // Its arms one by one: the same runs, taken in turns.
    let arm = |name: &str| format!("{}#{name}", path.display());
    let by_arm = loadgen_plain(&["compare", &arm("A"), &arm("B"), "--gate", "p50", "--format", "json"]);
    assert_eq!(comparison(&by_arm.stdout).design, Design::PairedBlocks, "{}", by_arm.stderr);
    loadgen_plain(&["compare", &arm("A"), &arm("C")]).expect_refusal(2);
    loadgen_plain(&["compare", path.to_str().unwrap(), path.to_str().unwrap()]).expect_refusal(2);
}

/// The command of a server that is not ours to start: the test's own way to have one.
fn server_command(more: &str) -> String {
    format!("{LOADGEN} server --listen 127.0.0.1:{{port}} {more}")
}

#[test]
fn servers_of_commands_are_started_afresh_and_leave_nothing_behind() {
    let mark = format!("loadgen-test-{}", std::process::id());
    let (fast, slow) =
        (server_command("--service-time fixed:500us"), server_command(&format!("--service-time fixed:750us # {mark}")));
    let ab_run = AbRun::run(&[&["--a", &fast, "--b", &slow, "--null", "--margin", "20%"][..], &QUICK].concat());
    let undecided = [0, 5].contains(&ab_run.ended.code) && !ab_run.ended.is_conclusive();
    assert!(ab_run.ended.code == 1 || undecided, "{}{}", ab_run.ended.stdout, ab_run.ended.stderr);
    // Another port each time.
    let bundle = ab_run.bundle();
    let answered = bundle.runs.iter().filter(|run| whole(run).ok > 0);
    assert!(answered.clone().all(|run| run.cpu.server_ns_per_request.is_some_and(|ns| ns > 1_000)));
    let mut targets: Vec<&String> = bundle.runs.iter().map(|run| &run.scenario.target).collect();
    targets.sort_unstable();
    targets.dedup();
    assert!(targets.len() > 24, "{targets:?}");
    let left = command("pgrep").args(["-f", &mark]).output().unwrap();
    assert!(left.stdout.is_empty(), "still there: {}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn servers_that_run_already_are_compared_where_they_are() {
    let (base, candidate) = (Server::start(&["--engine", "epoll"]), Server::start(&["--engine", "poll"]));
    let (base, candidate) = (base.target(), candidate.target());
    let ab_run =
        AbRun::run(&[&["--a-target", &base, "--b-target", &candidate, "--format", "json"][..], &QUICK].concat());
    if ab_run.ended.code != 5 || ab_run.ended.is_conclusive() {
        assert!([0, 1].contains(&ab_run.ended.code), "{}", ab_run.ended.stderr);
        assert_eq!(comparison(&ab_run.ended.stdout).blocks, 8);
    }
}

#[test]
fn what_cannot_work_is_refused_before_a_server_starts() {
    for (args, words) in [
        (vec!["--a-flags", "--nonsense"], "arm A: unexpected argument"),
        (vec!["--b-flags", "--server-engine nonsense"], "arm B"),
        (vec!["--b-flags", "'--conns 3"], "quote"),
        (vec!["--a", "true {port}"], "one arm has a command"),
        (vec!["--a", "true", "--b", "true"], "where does"),
        (vec!["--target", "127.0.0.1:{port}"], "{port}"),
        (vec!["--gate", "p42"], "metric 'p42' is not known"),
        (vec!["--margin", "p99=fast"], "percentage"),
        (vec!["--alpha", "50%"], "out of range"),
        (vec!["--blocks", "0"], "--blocks"),
        (vec!["--blocks", "3"], "it takes 10"),
        (vec!["--gate", "errors"], "error_share"),
        (vec!["--b-flags", "--pipeline 4"], "different loads: pipeline (1 and 4)"),
        (vec!["--b-flags", "--fail-if errors>0"], "--fail-if is not for one arm only"),
        (vec!["--a-target", "127.0.0.1:1"], "one arm has a target"),
        (vec!["--shard", "0/2"], "--shard"),
        (vec!["--output", "-"], "bundle"),
        (vec!["--output", "/nonexistent/bundle.json"], "cannot write"),
    ] {
        let mut line = vec!["ab"];
        line.extend(&args);
        let ended = loadgen_plain(&line);
        let code = if args[1].starts_with("/nonexistent") { 6 } else { 2 };
        let said = ended.expect_refusal(code);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    // A target that is not there is no slow one.
    let ab_run = AbRun::run(&[&["--target", "127.0.0.1:1"][..], &QUICK].concat());
    let said = ab_run.ended.expect_refusal(3);
    assert!(said.contains("could not be reached"), "{said}");
    ab_run.ended.assert_within(Duration::from_secs(5));
}

#[test]
fn a_server_that_fails_is_named_and_the_finished_blocks_are_kept() {
    // Works until it has been started ten times.
    let folder = scratch();
    let count = folder.path().join("count");
    let count = count.display();
    let failing = format!(
        "echo x >> {count}; test $(wc -l < {count}) -le 10 || {{ echo no more >&2; exit 9; }}; exec {}",
        server_command("")
    );
    let ab_run = AbRun::run(&[&["--a", &failing, "--b", &failing][..], &QUICK].concat());
    let said = ab_run.ended.expect_refusal(3);
    assert!(said.contains("ended at once (exit status: 9): no more"), "{said}");
    let bundle = ab_run.bundle();
    assert_eq!((bundle.partial, bundle.order.len(), bundle.runs.len()), (true, 2, 8));
    for (command, words) in [("sleep 100 # {port}", "does not accept"), ("/nonexistent {port}", "not found")] {
        let ended = loadgen_plain(&["ab", "--a", command, "--b", command, "--ready", "200ms"]);
        let said = ended.expect_refusal(3);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn ctrl_c_keeps_the_finished_blocks() {
    let folder = scratch();
    let path = bundle_path(&folder);
    let mut line = command(LOADGEN);
    line.args(["ab", "--blocks", "100", "--conns", "2", "--duration", "50ms", "--warmup", "0ms"]);
    // Each slot has a server of its own, so that somebody can count them.
    let count = folder.path().join("count");
    let server = format!("echo x >> {}; exec {}", count.display(), server_command(""));
    line.args(["--a", &server, "--b", &server]).arg("--output").arg(&path);
    let running = Running::launch(line, scratch());
    eventually("a block is finished, of four slots", || {
        std::fs::read_to_string(&count).is_ok_and(|lines| lines.lines().count() > 4)
    });
    running.signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    let bundle = bundle(&path);
    assert!(bundle.partial && !bundle.order.is_empty() && bundle.runs.len() == 4 * bundle.order.len());
    let starved = ["cpu_contention", "generator_stalled"].iter().any(|code| ended.stderr.contains(code));
    if starved && ended.stderr.contains("interrupted, and what was finished cannot be compared: ") {
        eprintln!("inconclusive: {}", ended.stderr);
    } else {
        assert!(ended.stdout.contains("blocks"), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("! interrupted"), "{}", ended.stdout);
        // The same from the file: whoever stops when they like what they see has no verdict.
        let again = loadgen_plain(&["compare", path.to_str().unwrap()]);
        assert!(again.stdout.contains("! interrupted"), "{}{}", again.stdout, again.stderr);
        assert!(again.code == 0 || again.code == 5 && !ended.is_conclusive(), "{}{}", again.stdout, again.stderr);
        let arm = |name: &str| format!("{}#{name}", path.display());
        let by_arm = loadgen_plain(&["compare", &arm("A"), &arm("B")]);
        assert!(by_arm.stdout.contains("! interrupted"), "{}{}", by_arm.stdout, by_arm.stderr);
    }
    // While a server is being started, too.
    let mut line = command(LOADGEN);
    line.args(["ab", "--a", "sleep 60 # {port}", "--b", "sleep 60 # {port}", "--output"]);
    line.arg(folder.path().join("none.json"));
    let running = Running::launch(line, scratch());
    eventually("something is started", || !processes::descendants(running.id()).is_empty());
    running.signal("INT");
    let ended = running.wait();
    assert_eq!(ended.code, 130, "{}", ended.stderr);
    ended.assert_within(Duration::from_secs(4));
    assert!(ended.stderr.contains("nothing to keep"), "{}", ended.stderr);
    // Nothing finished: nothing to write.
    let mut line = command(LOADGEN);
    line.args(["ab", "--conns", "2", "--duration", "20s", "--output"]).arg(folder.path().join("none.json"));
    let running = Running::launch(line, scratch());
    eventually("something is started", || !processes::descendants(running.id()).is_empty());
    running.signal("TERM");
    let ended = running.wait();
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    ended.assert_within(Duration::from_secs(10));
    assert!(!folder.path().join("none.json").exists());
}

#[test]
fn the_planner_says_how_many_blocks_it_takes() {
    let flags = ["--server-service-time", "fixed:500us", "--margin", "5%", "--gate", "p50", "--conns", "2"];
    let short = ["--duration", "50ms", "--warmup", "0ms", "--detect"];
    let ab_run = AbRun::run(&[&flags[..], &short, &["60%"]].concat());
    if ab_run.ended.code != 0 && !ab_run.ended.is_conclusive() {
        return;
    }
    assert_eq!(ab_run.ended.code, 0, "{}{}", ab_run.ended.stdout, ab_run.ended.stderr);
    assert!(ab_run.ended.stderr.contains("plan: "), "{}", ab_run.ended.stderr);
    let bundle = ab_run.bundle();
    let plan = bundle.plan.unwrap();
    assert_eq!((plan.detect_ppm, plan.pilot_blocks, plan.blocks), (600_000, 4, bundle.blocks_planned));
    assert!(plan.blocks >= 8, "{} blocks cannot reach 1 %", plan.blocks);
    assert!(plan.spread_ppm["p50"] > 0);
    // What hides within the margin cannot be seen, with however many blocks.
    let ab_run = AbRun::run(&[&flags[..], &short, &["4%"]].concat());
    if ab_run.ended.code != 8 && !ab_run.ended.is_conclusive() {
        return;
    }
    let said = ab_run.ended.expect_refusal(8);
    assert!(said.contains("margin"), "{said}");
}

/// Reports of one-shot runs, as people collect them.
/// Whether the machine let that many be valid.
fn collect(folder: &Path, name: &str, count: usize, args: &[&str]) -> bool {
    let watch = busy::Watch::start();
    (0..count).all(|index| {
        let path = folder.join(format!("{name}-{index}.json"));
        let path = path.to_str().unwrap();
        let line =
            [&["-q", "--no-floor", "--conns", "2", "-d", "50ms", "--warmup", "0ms"], args, &["-o", path]].concat();
        // A busy machine makes runs invalid, and this is about the others.
        let valid = (0..20).any(|_| {
            let ended = loadgen_plain(&line);
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            read::read(Path::new(path)).unwrap().verdict.state == VerdictState::Valid
        });
        let unfit = watch.why_unfit();
        assert!(valid || unfit.is_some(), "twenty invalid runs on a machine that does nothing else");
        if !valid {
            eprintln!("inconclusive: twenty invalid runs; {unfit:?}");
        }
        valid
    })
}

#[test]
fn one_after_the_other_is_no_verdict_unless_asked() {
    let folder = scratch();
    let [base, candidate] = ["base", "candidate"].map(|name| folder.path().join(name));
    for (path, time) in [(&base, "fixed:500us"), (&candidate, "fixed:1ms")] {
        std::fs::create_dir(path).unwrap();
        if !collect(path, "run", 6, &["--server-service-time", time]) {
            return;
        }
    }
    let [base, candidate] = [base.to_str().unwrap(), candidate.to_str().unwrap()];
    let other = loadgen_plain(&["compare", base, candidate]);
    let said = other.expect_refusal(2);
    assert!(said.contains("server_injected (service-time=fixed:500us and service-time=fixed:1ms)"), "{said}");
    let compare = ["compare", base, candidate, "--may-differ", "server_injected", "--gate", "p50"];
    let ended = loadgen_plain(&compare);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("! sequential") && ended.stdout.contains("inconclusive"), "{}", ended.stdout);
    if !ended.stdout.contains("the figures alone would say REGRESSED") && !ended.is_conclusive() {
        return;
    }
    assert!(ended.stdout.contains("the figures alone would say REGRESSED"), "{}", ended.stdout);
    assert_eq!(loadgen_plain(&[&compare[..], &["--strict"]].concat()).code, 8);
    let accepted = loadgen_plain(&[&compare[..], &["--accept-sequential"]].concat());
    assert!([1, 5].contains(&accepted.code), "{}{}", accepted.stdout, accepted.stderr);
    // One against one is one observation a side.
    let one = |side: &str| format!("{side}/run-0.json");
    let other_of = |side: &str| format!("{side}/run-1.json");
    let single = loadgen_plain(&["compare", &one(base), &other_of(base), "--gate", "p50", "--format", "md"]);
    assert_eq!(single.code, 0, "{}", single.stderr);
    assert!(single.stdout.contains("runs a side are needed"), "{}", single.stdout);
    let said = loadgen_plain(&["compare", base, base]).expect_refusal(2).to_owned();
    assert!(said.contains("is on both sides"), "{said}");
    let said = loadgen_plain(&["compare", base, candidate, "--may-differ", "nonsense"]).expect_refusal(2).to_owned();
    assert!(said.contains("field 'nonsense' is not known"), "{said}");
    loadgen_plain(&["compare", &one(base)]).expect_refusal(2);
    loadgen_plain(&["compare", base, "/nonexistent"]).expect_refusal(2);
    loadgen_plain(&["compare", folder.path().to_str().unwrap(), base]).expect_refusal(2);
}
