//! Nothing is tried for ever: calls that keep failing (strace makes them), readers that never come, lines that cannot
//! be said.

mod common;

use common::strace::{injected, traces};
use common::{LOADGEN, Running, eventually, namespace, scratch, signal};
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The process that strace started.
fn traced(strace: u32) -> u32 {
    let mut found = 0;
    eventually("strace starts it", || {
        let children = format!("/proc/{strace}/task/{strace}/children");
        let text = std::fs::read_to_string(children).unwrap_or_default();
        found = text.split_whitespace().next().map_or(0, |id| id.parse().unwrap());
        found != 0
    });
    found
}

#[test]
fn a_null_server_that_can_let_nobody_in_ends() {
    if !traces() {
        return;
    }
    for error in ["EMFILE", "EINTR", "EPERM"] {
        let fault = format!("accept4:error={error}");
        let target = ["run", "--target", "127.0.0.1:9", "--conns", "1", "--duration", "100ms", "--output", "-"];
        let ended = Running::launch(injected(&fault, &target), scratch()).wait();
        assert_eq!(ended.code, 3, "{error}: {}", ended.stderr);
    }
}

#[test]
fn a_server_whose_ring_refuses_every_enter_hears_sigterm() {
    if !traces() || loadgen_core::sys::ring::check(&loadgen_core::sys::ring::Options::default()).is_err() {
        return;
    }
    for error in ["EBUSY", "EAGAIN"] {
        let fault = format!("io_uring_enter:error={error}:when=20+");
        let server = ["server", "--engine", "io_uring", "--listen", "127.0.0.1:0", "--drain", "500ms"];
        let folder = scratch();
        let said = folder.path().join("stdout");
        let run = Running::launch(injected(&fault, &server), folder);
        eventually("it listens", || std::fs::read_to_string(&said).is_ok_and(|text| text.contains("listening")));
        std::thread::sleep(Duration::from_secs(3));
        signal(traced(run.id()), "TERM");
        let ended = run.wait();
        assert_eq!(ended.code, 0, "{error}: {}", ended.stderr);
    }
}

#[test]
fn a_client_whose_ring_refuses_every_enter_ends_with_its_run() {
    if !traces() || loadgen_core::sys::ring::check(&loadgen_core::sys::ring::Options::default()).is_err() {
        return;
    }
    let server = common::Server::start(&["--engine", "epoll"]);
    let args = ["run", "--no-floor", "--engine", "io_uring", "--conns", "2", "--duration", "300ms", "--timeout", "1s"];
    let target = server.target();
    let run = [&args[..], &["--target", &target, "--output", "report.json"]].concat();
    let ended = Running::launch(injected("io_uring_enter:error=EBUSY:when=20+", &run), scratch()).wait();
    assert!([3, 4].contains(&ended.code), "{} {}", ended.code, ended.stderr);
}

#[test]
fn a_pipe_that_nobody_reads_is_given_up_at_the_first_sigterm() {
    let folder = scratch();
    let pipe = folder.path().join("pipe");
    assert!(common::command("mkfifo").arg(&pipe).status().unwrap().success());
    let args = ["run", "-q", "--no-floor", "--requests", "10", "--conns", "1", "--output", "pipe"];
    let mut command = common::command(LOADGEN);
    command.args(args);
    let (run, began) = (Running::launch(command, folder), Instant::now());
    // The run is over, and its report waits for a reader.
    eventually("its server has ended", || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", run.id())).unwrap_or_default();
        began.elapsed() > Duration::from_secs(2) && children.trim().is_empty()
    });
    std::thread::sleep(Duration::from_millis(500));
    run.signal("TERM");
    let ended = run.wait();
    assert!(ended.expect_refusal(6).contains("nobody reads it"), "{}", ended.stderr);
}

#[test]
fn a_pipe_gets_the_whole_report_when_its_reader_comes_late() {
    let folder = scratch();
    let pipe = folder.path().join("pipe");
    assert!(common::command("mkfifo").arg(&pipe).status().unwrap().success());
    let args = ["run", "-q", "--no-floor", "--requests", "10", "--conns", "1", "--output", "pipe"];
    let mut command = common::command(LOADGEN);
    command.args(args);
    let run = Running::launch(command, folder);
    std::thread::sleep(Duration::from_secs(1));
    let text = std::fs::read_to_string(&pipe).unwrap();
    assert_eq!(common::whole(&common::parse_report(&text)).ok, 10);
    std::fs::remove_file(&pipe).unwrap();
    assert_eq!(run.wait().code, 0);
}

#[test]
fn a_server_that_cannot_say_where_it_listens_ends() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = common::command(LOADGEN);
    command.args(["server", "--listen", "127.0.0.1:0"]).stdout(full).stderr(Stdio::piped());
    let mut server: Child = command.spawn().unwrap();
    assert_eq!(common::wait_for(&mut server, common::HARD_LIMIT, "the server"), Some(6));
}

#[test]
fn cpus_are_counted_where_sys_is_hidden() {
    let script = "exec \"$0\" \"$@\"";
    let args = ["run", "--no-floor", "--requests", "10", "--conns", "1", "--output", "report.json"];
    let Some(command) = namespace("-rm", "mount -t tmpfs none /sys", script, &args) else { return };
    let ended = Running::launch(command, scratch()).wait();
    let machine = &ended.expect(0).environment.client;
    assert!(machine.cpus > 0 && machine.memory_bytes > 0, "{machine:?}");
    assert!(!ended.stdout.contains("0 CPUs"), "{}", ended.stdout);
}

#[test]
fn a_client_whose_sends_are_interrupted_ends_with_its_run() {
    if !traces() {
        return;
    }
    let server = common::Server::start(&["--engine", "epoll"]);
    let target = server.target();
    let args = ["run", "--no-floor", "--engine", "epoll", "--conns", "2", "--duration", "300ms", "--timeout", "1s"];
    let run = [&args[..], &["--target", &target, "--output", "report.json"]].concat();
    let ended = Running::launch(injected("sendto:error=EINTR", &run), scratch()).wait();
    assert!([3, 4].contains(&ended.code), "{} {}", ended.code, ended.stderr);
    for error in ["EINTR", "ENOMEM"] {
        let ended = Running::launch(injected(&format!("sendto:error={error}:when=2..40+2"), &run), scratch()).wait();
        assert!(common::whole(ended.expect(0)).ok > 0, "{error}: {}", ended.stderr);
    }
}

/// A firewall, or a sandbox, may refuse what a connection sends; no edge and no end will ever tell of it.
#[test]
fn a_send_that_is_refused_is_told_as_what_it_is_and_at_once() {
    if !traces() {
        return;
    }
    let server = common::Server::start(&["--engine", "epoll"]);
    let target = server.target();
    let args = ["run", "--no-floor", "--engine", "epoll", "--conns", "2", "--requests", "40", "--timeout", "60s"];
    let run = [&args[..], &["--target", &target, "--output", "report.json"]].concat();
    let ended = Running::launch(injected("sendto:error=EPERM:when=9..12", &run), scratch()).wait();
    let report = ended.expect(4);
    let refused = report.errors.iter().find(|row| row.first.contains("Operation not permitted"));
    let refused = refused.unwrap_or_else(|| panic!("{}", ended.stderr));
    assert!(refused.first.starts_with("send: ") && refused.phase == "send", "{refused:?}");
    assert!(common::whole(report).ok >= 8 && report.connections.lost > 0, "{:?}", report.connections);
}

#[test]
fn a_server_whose_sends_are_interrupted_answers_and_hears_sigterm() {
    if !traces() {
        return;
    }
    for (scheme, engine, fault, codes) in [
        ("udp", "epoll", "sendmmsg:error=EINTR:when=3+", &[0, 3, 4][..]),
        ("udp", "epoll", "sendmmsg:error=EINTR:when=2..40+2", &[0]),
        ("tcp", "epoll-et", "sendto:error=EINTR:when=3+", &[0, 3, 4]),
        ("tcp", "epoll-et", "sendto:error=EINTR:when=2..40+2", &[0]),
        ("tcp", "poll", "sendto:error=ENOMEM:when=2..40+2", &[0]),
    ] {
        let protocol = if scheme == "udp" { "udp" } else { "echo" };
        let server =
            ["server", "--protocol", protocol, "--engine", engine, "--listen", "127.0.0.1:0", "--drain", "500ms"];
        let folder = scratch();
        let said = folder.path().join("stdout");
        let run = Running::launch(injected(fault, &server), folder);
        let told = || std::fs::read_to_string(&said).unwrap_or_default();
        eventually("it listens", || told().contains('\n'));
        let target = format!("{scheme}://{}", told().trim().trim_start_matches("listening on "));
        let args = ["--conns", "1", "--requests", "10", "--timeout", "500ms", "--target", &target];
        let client = common::loadgen(&args);
        assert!(codes.contains(&client.code), "{fault}: {} {}", client.code, client.stderr);
        signal(traced(run.id()), "TERM");
        let ended = run.wait();
        assert_eq!(ended.code, 0, "{fault}: {}", ended.stderr);
    }
}

#[test]
fn a_thread_that_cannot_be_started_is_the_machines_failure() {
    if !traces() {
        return;
    }
    for call in 1..5 {
        let fault = format!("clone3:error=EAGAIN:when={call}");
        let run = ["run", "--no-floor", "--conns", "1", "--requests", "10", "--output", "report.json"];
        let ended = Running::launch(injected(&fault, &run), scratch()).wait();
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        assert!([0, 5, 7].contains(&ended.code), "{call}: {} {}", ended.code, ended.stderr);
        assert!(ended.code == 0 || ended.stderr.contains("cannot start a thread"), "{call}: {}", ended.stderr);
    }
}

#[test]
fn a_call_that_is_interrupted_for_ever_is_no_mistake_in_usage() {
    if !traces() {
        return;
    }
    for call in ["socket", "bind", "listen", "setsockopt", "getsockname"] {
        let server = ["server", "--listen", "127.0.0.1:0"];
        let ended = Running::launch(injected(&format!("{call}:error=EINTR"), &server), scratch()).wait();
        assert_eq!(ended.code, 7, "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains("Interrupted"), "{call}: {}", ended.stderr);
    }
}
