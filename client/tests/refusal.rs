//! Where the kernel, or a filter, refuses io_uring: the refusal names its cause. The example `deny` refuses it.

mod common;

use common::read_report;
use loadgen_core::result::Report;
use loadgen_core::sys::ring;
use std::path::{Path, PathBuf};
use std::process::Output;

/// An example of this package, which `cargo test` builds along with the tests. Alone (`cargo test --test refusal`)
/// it does not, and then they are built here.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(common::LOADGEN).parent().unwrap().join("examples");
    let path = folder.join(name);
    if !path.exists() {
        let release = folder.parent().is_some_and(|profile| profile.ends_with("release"));
        let mut build = common::command(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "loadgen", "--examples"]).args(release.then_some("--release"));
        assert!(build.status().expect("cargo runs").success() && path.exists(), "no {}", path.display());
    }
    path
}

/// Runs a program to which io_uring is refused.
fn denied(error: &str, program: &Path) -> Output {
    common::command(example("deny")).arg(error).arg(program).output().expect("deny runs")
}

/// Runs `loadgen` without io_uring, and says how it ended and what it wrote to standard error.
fn loadgen_without(args: &[&str]) -> (Option<i32>, String, Option<Report>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let mut command = common::command(example("deny"));
    command.args(["EPERM", common::LOADGEN, "--conns", "4", "--output"]).arg(&path).args(args).args(common::SHORT);
    let output = command.output().expect("deny runs");
    let report = path.exists().then(|| read_report(&path));
    (output.status.code(), String::from_utf8(output.stderr).expect("text"), report)
}

#[test]
fn an_engine_that_cannot_run_is_refused_and_not_replaced() {
    let (code, text, report) = loadgen_without(&["--engine", "io_uring"]);
    assert_eq!((code, report.is_none()), (Some(7), true), "{text}");
    assert!(text.contains("error: io_uring_setup: EPERM") && text.contains("help: "), "{text}");
    let (code, text, _) = loadgen_without(&["--server-engine", "io_uring"]);
    assert_eq!(code, Some(7), "{text}");
    assert!(text.contains("loadgen-server: io_uring_setup: EPERM") && text.contains("did not start"), "{text}");
}

#[test]
fn auto_falls_back_and_says_so_on_stderr_and_in_the_report() {
    let (code, text, report) = loadgen_without(&["--engine", "auto", "--server-engine", "auto", "--quiet"]);
    let report = report.expect("a report");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!((report.engine.name.as_str(), report.scenario.engine.as_str()), ("epoll", "epoll"));
    assert_eq!(report.scenario.server_engine.as_deref(), Some("epoll"));
    let server = report.server.expect("the server's counters");
    for why in [report.engine.instead_of, server.instead_of] {
        assert!(why.expect("a reason").starts_with("io_uring (io_uring_setup: EPERM: "));
    }
    assert_eq!(text.matches("engine epoll instead of io_uring (io_uring_setup: EPERM").count(), 2, "{text}");
}

#[test]
fn the_doctor_says_why_there_is_no_io_uring_and_measures_the_other() {
    let doctor = |more: &[&str]| {
        let mut command = common::command(example("deny"));
        command.args(["EPERM", common::LOADGEN, "doctor", "--quiet"]).args(more).output().expect("deny runs")
    };
    let both = doctor(&[]);
    let page = String::from_utf8(both.stdout).expect("text");
    assert_eq!(both.status.code(), Some(0), "{page}");
    for word in ["cannot be measured: io_uring_setup: EPERM", "seccomp", "do: ", "ceiling"] {
        assert!(page.contains(word), "no {word:?} in\n{page}");
    }
    let alone = doctor(&["--engine", "io_uring"]);
    let why = String::from_utf8(alone.stderr).expect("text");
    assert_eq!(alone.status.code(), Some(7), "{why}");
    assert!(why.starts_with("error: io_uring_setup: EPERM") && why.contains("help: "), "{why}");
}

#[test]
fn auto_is_io_uring_where_that_works() {
    if let Err(refusal) = ring::check(&ring::Options::default()) {
        return eprintln!("skipped: {refusal}");
    }
    let ended = common::loadgen(&[&["--engine", "auto", "--server-engine", "auto"][..], &common::SHORT].concat());
    let report = ended.expect(0);
    assert_eq!((report.engine.name.as_str(), &report.engine.instead_of), ("io_uring", &None));
    assert_eq!(report.scenario.server_engine.as_deref(), Some("io_uring"));
}

#[test]
fn the_want_of_descriptors_points_to_the_engine_that_needs_none() {
    let run = |extra: &str| {
        let line = format!("ulimit -n 100; exec \"$0\" --conns 200 --duration 100ms --warmup 0s --output - {extra}");
        let output = common::command("sh").args(["-c", &line, common::LOADGEN]).output().expect("sh runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, text) = run("");
    assert_eq!(code, Some(7), "{text}");
    let points = text.contains("--engine io_uring --server-engine io_uring, whose connections are no descriptors");
    assert_eq!(points, ring::check(&ring::Options::default()).is_ok(), "{text}");
    if points {
        assert_eq!(run("--engine io_uring --server-engine io_uring").0, Some(0));
        let (code, text) = run("--engine io_uring");
        assert!(code == Some(7) && text.contains("the embedded server may have 100"), "{text}");
    }
}

/// What the check of io_uring says where it is refused with `error`.
fn refusal(error: &str) -> String {
    let output = denied(error, &example("ring_check"));
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn deny_runs_the_program() {
    assert_eq!(denied("EPERM", Path::new("true")).status.code(), Some(0));
    assert_eq!(denied("EPERM", Path::new("false")).status.code(), Some(1));
    assert_eq!(denied("EPERM", Path::new("no such program")).status.code(), Some(127));
    assert_eq!(denied("EWHAT", Path::new("true")).status.code(), Some(2));
}

#[test]
fn a_filter_that_forbids_io_uring_is_named() {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let text = refusal("EPERM");
    assert!(text.starts_with("io_uring_setup: EPERM: "), "{text}");
    // Where the administrator has switched it off too, that is the cause that counts.
    let cause = if ["1", "2"].contains(&disabled.trim()) { "kernel.io_uring_disabled" } else { "seccomp filter" };
    assert!(text.contains(cause) && text.contains("--engine auto"), "{text}");
}

#[test]
fn every_refusal_names_its_cause_and_a_remedy() {
    for (error, cause, remedy) in [
        ("ENOSYS", "this kernel has no io_uring", "Linux 6.11"),
        ("EINVAL", "does not know what is asked", "Linux 6.11"),
        ("ENOMEM", "limit of locked memory: ", "ulimit -l"),
    ] {
        let text = refusal(error);
        assert!(text.starts_with(&format!("io_uring_setup: {error}: ")), "{text}");
        assert!(text.contains(cause) && text.contains(remedy) && text.contains("epoll engine"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
