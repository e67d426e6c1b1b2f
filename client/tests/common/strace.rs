//! System calls that fail, by strace.

use super::{LOADGEN, have};
use std::process::Command;

/// Whether strace may trace here, which some sandboxes forbid.
pub(crate) fn traces() -> bool {
    if !have("strace") {
        return false;
    }
    let works = super::command("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    works.is_ok_and(|status| status.success()) || {
        eprintln!("skipped: strace may not trace here");
        false
    }
}

/// A command in which a system call fails as told.
pub(crate) fn injected(fault: &str, args: &[&str]) -> Command {
    let mut command = super::command("strace");
    let (call, _) = fault.split_once(':').unwrap();
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &format!("inject={fault}")]);
    command.arg(LOADGEN).args(args);
    command
}
