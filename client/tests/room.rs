//! `--engine auto` tries what the run will need, and not one ring only.

mod common;

use common::strace::{injected, traces};
use common::{Ended, LOADGEN, Running, have, scratch};
use loadgen_core::sys::ring;
use std::os::unix::fs::PermissionsExt;

const RUN: [&str; 10] =
    ["run", "--no-floor", "--engine", "auto", "--threads", "3", "--conns", "6", "--duration", "200ms"];

fn has_rings() -> bool {
    ring::check(&ring::Options::default()).is_ok()
}

fn fell_back(ended: &Ended, why: &str) {
    let report = ended.expect(0);
    assert_eq!(report.engine.name, "epoll");
    let told = report.engine.instead_of.as_deref().unwrap();
    assert!(told.starts_with("io_uring (") && told.contains(why), "{told}");
    assert!(ended.stderr.contains("engine epoll instead of io_uring"), "{}", ended.stderr);
}

#[test]
fn the_second_of_three_rings_fails_and_another_engine_runs() {
    if !has_rings() || !traces() {
        return;
    }
    // Of the main thread: the trial of one byte, the first ring, and no more.
    for error in ["ENOMEM", "EMFILE", "EPERM"] {
        let fault = format!("io_uring_setup:error={error}:when=3+");
        let args = [&RUN[..], &["--server-engine", "epoll", "--output", "report.json"]].concat();
        let ended = Running::launch(injected(&fault, &args), scratch()).wait();
        fell_back(&ended, "3 rings are needed at once, and 1 could be had");
    }
}

#[test]
fn a_named_engine_that_cannot_have_its_rings_is_refused_before_the_first_connection() {
    if !has_rings() || !traces() {
        return;
    }
    let args = ["run", "--no-floor", "--engine", "io_uring", "--threads", "3", "--conns", "6", "--output", "x.json"];
    let fault = "io_uring_setup:error=ENOMEM:when=3+";
    let ended =
        Running::launch(injected(fault, &[&args[..], &["--server-engine", "epoll"]].concat()), scratch()).wait();
    assert!(ended.expect_refusal(7).contains("3 rings are needed at once"), "{}", ended.stderr);
}

/// The limit is one for all processes of a user, and does not hold for root: under it somebody else runs.
#[test]
fn every_limit_of_locked_memory_leaves_a_run_that_works() {
    if !has_rings() || !have("setpriv") {
        return;
    }
    for kib in [64, 192, 256, 320, 512, 1024] {
        let folder = scratch();
        let program = folder.path().join("loadgen");
        std::fs::copy(LOADGEN, &program).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        // An id that nobody has: the rings of others would count.
        let id = (300_000 + std::process::id() + kib).to_string();
        let mut command = common::command("setpriv");
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
        let mut trial = common::command("setpriv");
        trial.args(command.get_args()).args(["sh", "-c", "true"]);
        if !trial.output().is_ok_and(|out| out.status.success()) {
            eprintln!("skipped: setpriv is not permitted");
            return;
        }
        let script = format!("ulimit -l {kib}; exec \"$0\" \"$@\"");
        command.args(["sh", "-c", &script]).arg(&program).args(RUN);
        command.args(["--server-engine", "auto", "--output", "report.json"]);
        let ended = Running::launch(command, folder).wait();
        let report = ended.expect(0);
        let why = report.engine.instead_of.as_deref();
        assert!(why.is_none_or(|why| why.contains("locked memory")), "{kib} KiB: {why:?}");
        assert!(kib > 192 || why.is_some(), "{kib} KiB are too little for three rings");
    }
}
