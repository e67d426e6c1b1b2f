//! Where the kernel, or a filter, lacks a system call that has a substitute: it is used, and said. The example `deny`
//! refuses the calls.

mod common;

use common::{Ended, LOADGEN, Running, SHORT, loadgen_plain, scratch};
use std::path::{Path, PathBuf};

/// See `refusal.rs`.
fn deny() -> PathBuf {
    let path = Path::new(LOADGEN).parent().unwrap().join("examples/deny");
    if !path.exists() {
        let release = path.ancestors().any(|folder| folder.ends_with("release"));
        let mut build = common::command(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "loadgen", "--examples"]).args(release.then_some("--release"));
        assert!(build.status().expect("cargo runs").success() && path.exists(), "no {}", path.display());
    }
    path
}

fn without(calls: &str, args: &[&str]) -> Ended {
    let mut command = common::command(deny());
    command.args([calls, LOADGEN]).args(args);
    Running::launch(command, scratch()).wait()
}

#[test]
fn both_sides_run_without_epoll_pwait2_and_say_so() {
    for (calls, why) in [("ENOSYS:epoll_pwait2", "(epoll_pwait2: ENOSYS)"), ("EPERM:epoll_pwait2", "EPERM")] {
        for server in ["epoll", "epoll-et"] {
            let args = ["run", "--no-floor", "--server-engine", server, "--rate", "500", "--conns", "4"];
            let ended = without(calls, &[&args[..], &SHORT, &["--output", "report.json"]].concat());
            let report = ended.expect(0);
            let server = report.server.as_ref().unwrap();
            for told in [&report.engine.fallback, &server.fallback] {
                assert!(told.as_ref().is_some_and(|told| told.contains(why)), "{told:?}");
            }
            assert!(ended.stdout.contains("epoll_pwait2"), "{}", ended.stdout);
            assert!(report.engine.syscalls["timerfd_settime"] > 0 && server.syscalls["timerfd_settime"] > 0);
        }
    }
}

#[test]
fn nothing_is_said_where_nothing_is_missing() {
    let ended = common::loadgen(&["--requests", "10", "--conns", "1", "--engine", "epoll"]);
    assert_eq!(ended.expect(0).engine.fallback, None);
    assert!(loadgen_plain(&["server", "--help"]).stderr.is_empty());
}

#[test]
fn what_has_no_substitute_is_named_before_anybody_is_told_to_come() {
    let calls = "EPERM:epoll_pwait2,timerfd_create";
    let server = without(calls, &["server", "--listen", "127.0.0.1:0"]);
    assert_eq!((server.code, server.stdout.as_str()), (7, ""), "{}", server.stderr);
    assert!(server.stderr.contains("timerfd_create: EPERM"), "{}", server.stderr);
    let run = without(calls, &["run", "--no-floor", "--target", "127.0.0.1:9", "--output", "report.json"]);
    assert!(run.expect_refusal(7).contains("timerfd_create: EPERM"), "{}", run.stderr);
}
