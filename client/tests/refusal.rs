//! Where the kernel, or a filter, refuses io_uring: the refusal names its cause. The example `deny` refuses it.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example of this package, which `cargo test` builds along with the tests. Alone (`cargo test --test refusal`)
/// it does not, and then they are built here.
fn example(name: &str) -> PathBuf {
    let folder = Path::new(common::LOADGEN).parent().unwrap().join("examples");
    let path = folder.join(name);
    if !path.exists() {
        let release = folder.parent().is_some_and(|profile| profile.ends_with("release"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "loadgen", "--examples"]).args(release.then_some("--release"));
        assert!(build.status().expect("cargo runs").success() && path.exists(), "no {}", path.display());
    }
    path
}

/// Runs a program to which io_uring is refused.
fn denied(error: &str, program: &Path) -> Output {
    Command::new(example("deny")).arg(error).arg(program).output().expect("deny runs")
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
