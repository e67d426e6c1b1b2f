//! What a run inherits from whoever started it, and must not be at the mercy of: each state is set by a launcher that
//! then becomes loadgen.

mod common;

use common::{Ended, LOADGEN, Running, brief, eventually, have, scratch, whole};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Sets what its first argument names, and becomes the rest of them. Whoever tests may have been told by nohup(1) to
/// ignore SIGHUP, which would be respected.
const LAUNCHER: &str = "
import os, resource, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
for word in sys.argv[1].split(','):
    what, _, value = word.partition(':')
    if what == 'ignore':
        signal.signal(getattr(signal, value), signal.SIG_IGN)
    elif what == 'block':
        signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, value)])
    elif what == 'umask':
        os.umask(int(value, 8))
    elif what == 'close':
        os.close(int(value))
    elif what == 'descriptors':
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(value), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.execv(sys.argv[2], sys.argv[2:])
";

const BLOCKED: &str = "block:SIGTERM,block:SIGINT,block:SIGHUP,block:SIGCHLD";

fn launcher(state: &str, args: &[&str]) -> Command {
    let mut command = common::command("python3");
    command.args(["-c", LAUNCHER, state, LOADGEN]).args(args);
    command
}

/// A run with its report in the usual place.
fn start(state: &str, args: &[&str]) -> Running {
    let common = ["run", "--no-floor", "--conns", "2", "--output", "report.json"];
    Running::launch(launcher(state, &[&common, args].concat()), scratch())
}

fn short(state: &str) -> Ended {
    start(state, &["--duration", "200ms", "--warmup", "50ms"]).wait()
}

/// Until it handles signals, one ends it without a report.
fn wait_for_handlers(run: &Running) {
    let handles_sigterm = |text: String| {
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")?.trim().get(..16)).map(str::to_owned);
        caught.is_some_and(|bits| u64::from_str_radix(&bits, 16).unwrap() & 1 << 14 != 0)
    };
    let status = format!("/proc/{}/status", run.id());
    eventually("it handles signals", || std::fs::read_to_string(&status).is_ok_and(handles_sigterm));
}

#[test]
fn a_run_ends_well_whatever_was_ignored_blocked_or_closed() {
    if !have("python3") {
        return;
    }
    let everything = format!("ignore:SIGCHLD,ignore:SIGTERM,{BLOCKED},umask:777,close:0,close:2,descriptors:16");
    for state in ["ignore:SIGCHLD", "ignore:SIGTERM", BLOCKED, "umask:777", "close:0", "close:2", &everything] {
        let ended = short(state);
        let report = ended.expect(0);
        assert!(report.server.is_some(), "{state}: {}", ended.stderr);
        assert_eq!(whole(report).errors.len(), 0, "{state}: {}", brief(report));
    }
}

#[test]
fn signals_that_were_blocked_or_ignored_stop_a_run() {
    if !have("python3") {
        return;
    }
    for (state, signal, code) in [
        (BLOCKED, "TERM", 143),
        (BLOCKED, "INT", 130),
        (BLOCKED, "HUP", 129),
        ("ignore:SIGTERM", "TERM", 143),
        ("ignore:SIGINT", "INT", 130),
    ] {
        let run = start(state, &["--duration", "20s"]);
        wait_for_handlers(&run);
        run.signal(signal);
        let ended = run.wait();
        let report = ended.expect(code);
        assert!(report.partial && report.server.is_some(), "{state} {signal}: {}", brief(report));
    }
}

/// A terminal that is closed sends two: one by the kernel, one by the shell.
#[test]
fn hang_ups_leave_a_partial_report_however_many_come() {
    if !have("python3") {
        return;
    }
    let run = start("", &["--duration", "20s"]);
    wait_for_handlers(&run);
    run.signal("HUP");
    run.signal("HUP");
    let ended = run.wait();
    assert!(ended.expect(129).partial);
}

#[test]
fn nohup_is_respected() {
    if !have("python3") {
        return;
    }
    let run = start("ignore:SIGHUP", &["--duration", "1500ms", "--warmup", "50ms"]);
    wait_for_handlers(&run);
    run.signal("HUP");
    assert!(!run.wait().expect(0).partial);
}

#[test]
fn a_report_for_a_standard_output_that_was_closed_is_an_error() {
    if !have("python3") {
        return;
    }
    let args = ["run", "--no-floor", "--requests", "10", "--conns", "1", "--output", "-"];
    let ended = Running::launch(launcher("close:1", &args), scratch()).wait();
    ended.expect_refusal(6);
    let server = Running::launch(launcher("close:1", &["server", "--listen", "127.0.0.1:0"]), scratch()).wait();
    assert!(server.code == 6 && server.stderr.contains("standard output"), "{} {}", server.code, server.stderr);
}

/// A server that was given as a command has what loadgen was given, and no more: the command shows it.
#[test]
fn servers_of_ab_start_with_a_clean_slate() {
    if !have("python3") {
        return;
    }
    let folder = scratch();
    let shown = folder.path().join("shown");
    let state = format!("ignore:SIGCHLD,ignore:SIGINT,{BLOCKED},umask:027,descriptors:200");
    let show = format!("(grep ^Sig /proc/self/status; umask; ulimit -Sn) > {}", shown.display());
    let server = format!("{show}; exec {LOADGEN} server --listen 127.0.0.1:{{port}}");
    let args = ["ab", "-q", "--a", &server, "--b", &server, "--conns", "1", "--duration", "100ms"];
    let more = ["--warmup", "20ms", "--blocks", "8", "--gate", "p50", "--output", "bundle.json"];
    let run = Running::launch(launcher(&state, &[&args[..], &more].concat()), folder);
    let path = shown.clone();
    eventually("a server starts", || std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() >= 7));
    let text = std::fs::read_to_string(&shown).unwrap();
    // Bits 31 and 32 are signals that the C library keeps for itself: nobody may change them.
    let standard = |name: &str| {
        let bits = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(bits.trim(), 16).unwrap() & 0x7fff_ffff
    };
    assert_eq!((standard("SigBlk:"), standard("SigIgn:")), (0, 0), "{text}");
    assert!(text.ends_with("0027\n200\n"), "{text}");
    let ended = run.wait();
    assert!([0, 1, 5, 8].contains(&ended.code), "{} {}", ended.code, ended.stderr);
}

#[test]
fn the_owner_can_read_what_was_written_under_any_umask() {
    if !have("python3") {
        return;
    }
    let folder = scratch();
    let keep = folder.path().join("report.json");
    let args = ["run", "--no-floor", "--requests", "10", "--conns", "1", "--output", keep.to_str().unwrap()];
    for (umask, mode) in [("777", 0o600), ("0", 0o666), ("027", 0o640)] {
        let mut child = launcher(&format!("umask:{umask}"), &args).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::metadata(&keep).unwrap().permissions().mode() & 0o777, mode, "umask {umask}");
        std::fs::remove_file(&keep).unwrap();
    }
}
