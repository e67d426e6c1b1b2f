//! `--fail-if` on real runs and on report files, and `report --github`: what is judged, what is said, and the exit
//! status.

mod common;

use common::{Ended, Running, SHORT, brief, loadgen, loadgen_plain, read_report, scratch};
use loadgen_core::report::FORMATS;
use loadgen_core::result::{LimitState, Reason, Report, Verdict, VerdictState, read, write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One request at a time, of which each takes 2 ms.
const TWO_MS: [&str; 8] =
    ["--conns", "1", "--server-service-time", "fixed:2ms", "--duration", "1s", "--warmup", "200ms"];

/// Nothing that lives there.
const NOWHERE: &str = "127.0.0.1:1";

/// A run of 2 ms a request with these further arguments. The machine is shared: a run that others spoilt is made anew.
/// `None`: there are not the CPUs for a valid one.
fn run(args: &[&str]) -> Option<Ended> {
    let mut conclusive = true;
    for _ in 0..8 {
        let ended = loadgen(&[&TWO_MS, args].concat());
        let report = ended.report();
        // A server without a CPU takes longer than it is told to, and that is no fault of the generator's.
        let took_ns = report.latency.service.as_ref().map_or(0, |service| service.quantiles_ns["0.5"]);
        if report.verdict.state != VerdictState::Invalid && (2_000_000..3_000_000).contains(&took_ns) {
            return Some(ended);
        }
        eprintln!("once more: {}", brief(ended.report()));
        conclusive &= ended.is_conclusive();
    }
    assert!(!conclusive, "no run was valid on a machine that has nothing else to do");
    None
}

fn states(report: &Report) -> Vec<LimitState> {
    report.limits.iter().map(|limit| limit.judgement).collect()
}

#[test]
fn a_limit_that_is_kept_changes_nothing() {
    let Some(ended) = run(&["--fail-if", "p50>10ms", "errors>0", "p50<100us"]) else { return };
    let report = ended.expect(0);
    assert_eq!(states(report), [LimitState::Holds; 3]);
    for line in ["limit p50>10ms: holds: 2.", "limit errors>0: holds: 0\n", "limit p50<100us: holds: 2."] {
        assert!(ended.stdout.contains(line), "{}", ended.stdout);
    }
    assert!(!ended.stderr.contains("limit"), "{}", ended.stderr);
}

#[test]
fn a_broken_limit_is_exit_1() {
    let Some(ended) = run(&["--fail-if", "p50>500us,errors>0"]) else { return };
    assert_eq!(states(ended.expect(1)), [LimitState::Broken, LimitState::Holds]);
    assert!(ended.stdout.contains("\nlimit p50>500us: BROKEN: 2."), "{}", ended.stdout);
}

#[test]
fn a_rate_that_is_too_low_is_broken() {
    // 1 s / 2 ms is the most that there can be.
    let Some(ended) = run(&["--fail-if", "rate<5k"]) else { return };
    assert_eq!(states(ended.expect(1)), [LimitState::Broken]);
}

#[test]
fn what_cannot_be_told_is_not_held() {
    // A closed loop has no lag, and a second has too few values for p99.99.
    let limits = ["--fail-if", "p99.99>1s", "lag_p99>1ms", "errors>0"];
    let Some(ended) = run(&limits) else { return };
    let wanted = [LimitState::Unresolvable, LimitState::Unresolvable, LimitState::Holds];
    assert_eq!(states(ended.expect(0)), wanted);
    assert!(ended.stdout.contains("limit p99.99>1s: UNRESOLVABLE: too few values"), "{}", ended.stdout);
    let warned = ended.stderr.contains("warning: limit p99.99>1s was NOT checked: ");
    assert!(warned && ended.stderr.contains("help: with --strict"), "{}", ended.stderr);
    let Some(strict) = run(&[&limits[..], &["--strict"]].concat()) else { return };
    assert_eq!(states(strict.expect(8)), wanted);
    // What is broken matters more.
    let Some(broken) = run(&[&limits[..], &["--strict", "--fail-if", "p50>500us"]].concat()) else { return };
    broken.expect(1);
}

#[test]
fn a_limit_below_the_floor_is_unresolvable() {
    let folder = scratch();
    let path = folder.path().join("a.json");
    let output = ["--output", path.to_str().unwrap(), "--fail-if", "p50>2us"];
    let ended = loadgen_plain(&[&["run"], &TWO_MS[..], &output].concat());
    let report = read_report(&path);
    assert_eq!((ended.code, states(&report)), (0, vec![LimitState::Unresolvable]), "{}", ended.stderr);
    assert!(report.verdict.state == VerdictState::Invalid || ended.stdout.contains("floor p50"), "{}", ended.stdout);
}

#[test]
fn a_broken_limit_wins_over_failed_requests_and_not_over_no_target_or_an_interrupt() {
    // Nearly half of the replies come too late.
    let late = ["--conns", "4", "--timeout", "20ms", "--server-delay", "bimodal:0.4,1ms,50ms"];
    loadgen(&[&late, &SHORT[..], &["--fail-if", "errors>1G"]].concat()).expect(4);
    let ended = loadgen(&[&late, &SHORT[..], &["--fail-if", "errors>0"]].concat());
    assert_eq!(states(ended.expect(1)), [LimitState::Broken]);
    let running = Running::start(&[&late[..], &["--duration", "20s", "--fail-if", "errors>0"]].concat());
    std::thread::sleep(Duration::from_secs(2));
    running.signal("INT");
    let interrupted = running.wait();
    assert_eq!(states(interrupted.expect(130)), [LimitState::Broken]);
    let unreachable = loadgen(&[&["--target", NOWHERE], &SHORT[..], &["--fail-if", "errors>0"]].concat());
    assert_eq!(unreachable.code, 3, "{}", unreachable.stderr);
}

#[test]
fn a_target_may_stand_behind_limits() {
    // Nobody listens there, which shows that it was taken for the target.
    for args in [
        &["--fail-if", "p99>5ms", "errors>0", NOWHERE][..],
        &["run", "--fail-if", "p99>5ms", NOWHERE],
        &["--fail-if=p99>5ms,errors>0", NOWHERE],
        &[NOWHERE, "--fail-if", "p99>5ms", "errors>0"],
    ] {
        let ended = loadgen_plain(&[args, &["--timeout", "100ms", "--output", "-"]].concat());
        assert_eq!(ended.code, 3, "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn nonsense_is_refused_before_the_run() {
    for (limit, words) in [
        ("p98>5ms", &["p98", "p99.9", "errors"][..]),
        ("p99", &["in quotes"]),
        ("p99>5", &["5s"]),
        ("p99>5%", &["+5%"]),
        ("p99>+5%", &["compare", "ab", "no base"]),
    ] {
        for command in [&["run"][..], &["report", "/dev/null"]] {
            let ended = loadgen_plain(&[command, &["--fail-if", limit]].concat());
            let stderr = ended.expect_refusal(2);
            assert!(words.iter().all(|word| stderr.contains(word)), "{limit}: {stderr}");
            assert!(ended.stdout.is_empty());
            ended.assert_within(Duration::from_secs(5));
        }
    }
}

/// The golden report with other content, in a file.
fn changed(folder: &Path, name: &str, change: impl FnOnce(&mut Report)) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/result-1.json");
    let mut report = read::read(&golden).unwrap();
    change(&mut report);
    let path = folder.join(name);
    _ = write::write_atomically(&path, &report).unwrap();
    path
}

fn invalid(report: &mut Report) {
    let reason = Reason { code: "late".to_owned(), detail: "100 % late\nindeed".to_owned() };
    report.verdict = Verdict { state: VerdictState::Invalid, reasons: vec![reason] };
}

#[test]
fn limits_can_be_asked_of_a_report() {
    let folder = scratch();
    let good = changed(folder.path(), "good.json", |_| {});
    let bad = changed(folder.path(), "bad.json", invalid);
    let [good, bad] = [&good, &bad].map(|path| path.to_str().unwrap());
    for (args, code) in [
        (&[good][..], 0),
        (&["--fail-if", "p99>1ms", "errors>1k", good], 0),
        (&[good, "--fail-if", "errors>0"], 1),
        (&["--fail-if=errors>0", "--strict", bad], 1),
        (&["--strict", bad], 5),
        (&["--fail-if", "p99>1ms", "--strict", bad, good], 5),
        (&["--fail-if", "p99>1ms", bad], 0),
        (&["--fail-if", "p99.99>1ms", "--strict", good], 8),
    ] {
        let ended = loadgen_plain(&[&["report"], args].concat());
        assert_eq!(ended.code, code, "{args:?}: {}", ended.stderr);
    }
}

#[test]
fn formats_without_a_verdict_have_it_said_beside_them() {
    let folder = scratch();
    let bad = changed(folder.path(), "bad.json", invalid);
    let bad = bad.to_str().unwrap();
    for format in ["bmf", "gha-smaller", "hgrm", "hlog", "csv"] {
        let ended = loadgen_plain(&["report", bad, "--format", format, "--fail-if", "errors>0"]);
        assert_eq!(ended.code, 1);
        for said in ["INVALID: late", "limit errors>0: BROKEN: 4"] {
            assert!(ended.stderr.contains(said), "{format}: {}", ended.stderr);
        }
    }
    let ended = loadgen_plain(&["report", bad, "--format", "junit", "--fail-if", "errors>0"]);
    assert!(ended.stderr.is_empty() && ended.stdout.contains("failures=\"2\""), "{}", ended.stderr);
}

#[test]
fn several_files_are_one_document_or_refused() {
    let folder = scratch();
    let one = changed(folder.path(), "one.json", |_| {});
    let one = one.to_str().unwrap();
    let bmf = loadgen_plain(&["report", one, one, "--format", "bmf"]);
    let page: serde_json::Value = serde_json::from_str(&bmf.stdout).unwrap();
    assert_eq!(page.as_object().unwrap().len(), 2);
    for format in ["hgrm", "csv"] {
        loadgen_plain(&["report", one, one, "--format", format]).expect_refusal(2);
    }
}

/// Closed and open loops, streams, a count of requests: whatever a run lacks, each format can do without.
#[test]
fn every_format_takes_every_real_run() {
    let folder = scratch();
    let path = folder.path().join("a.json");
    let path = path.to_str().unwrap();
    for kind in [
        &["--conns", "4"][..],
        &["--conns", "4", "--rate", "500"],
        &["--conns", "2", "--protocol", "discard"],
        &["--conns", "2", "--protocol", "chargen"],
        &["--conns", "2", "--protocol", "http", "--label", "name=<a & \"b\">|`c`"],
    ] {
        let made = loadgen_plain(&[kind, &SHORT, &["--no-floor", "--fail-if", "errors>0", "--output", path]].concat());
        assert_eq!(made.code, 0, "{}", made.stderr);
        for format in FORMATS {
            let ended = loadgen_plain(&["report", path, "--format", format.name]);
            assert_eq!(ended.code, 0, "{} {kind:?}: {}", format.name, ended.stderr);
            assert!(ended.stdout.ends_with('\n') && ended.stdout.len() > 2, "{} {kind:?}", format.name);
        }
    }
}

#[test]
fn a_run_prints_every_format() {
    for format in FORMATS {
        let ended = loadgen(&["--requests", "50", "--conns", "2", "--format", format.name]);
        ended.expect(0);
        let again = (format.render)(std::slice::from_ref(ended.report()));
        assert_eq!(ended.stdout, again, "{}", format.name);
    }
}

/// `loadgen report` as a step of GitHub Actions has it.
fn in_a_step(summary: Option<&Path>, args: &[&str]) -> Ended {
    let mut command = common::command(common::LOADGEN);
    command.arg("report").args(args).arg("--github");
    match summary {
        Some(path) => command.env("GITHUB_STEP_SUMMARY", path),
        None => command.env_remove("GITHUB_STEP_SUMMARY"),
    };
    Running::launch(command, scratch()).wait()
}

#[test]
fn github_gets_a_page_and_marks() {
    let folder = scratch();
    let bad = changed(folder.path(), "bad.json", invalid);
    let bad = bad.to_str().unwrap();
    let summary = folder.path().join("summary.md");
    std::fs::write(&summary, "before").unwrap();
    let args = [bad, "--format", "md", "--fail-if", "errors>0", "p99>1ms"];
    let ended = in_a_step(Some(&summary), &args);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let page = std::fs::read_to_string(&summary).unwrap();
    assert_eq!(page, format!("before\n{}", ended.stdout), "the page is added, and the same as on standard output");
    let marks: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("::")).collect();
    assert_eq!(marks.len(), 3, "{}", ended.stderr);
    assert_eq!(marks[0], "::error title=loadgen::echo c100 epoll: late: 100 %25 late%0Aindeed");
    assert!(marks[1].starts_with("::error title=loadgen::echo c100 epoll: limit errors>0: BROKEN: 4"));
    assert!(marks[2].starts_with("::warning title=loadgen::echo c100 epoll: limit p99>1ms: UNRESOLVABLE: "));
    assert!(in_a_step(None, &args).expect_refusal(2).contains("GITHUB_STEP_SUMMARY"));
    // GitHub shows nothing of a page beyond 1 MiB.
    std::fs::write(&summary, vec![b'x'; (1 << 20) - 100]).unwrap();
    assert!(in_a_step(Some(&summary), &args).expect_refusal(6).contains("1 MiB"));
    assert_eq!(std::fs::metadata(&summary).unwrap().len(), (1 << 20) - 100, "nothing was added");
}
