//! What spoils a run is brought about for real, and the verdict names it. (Each reason is tested on a made-up report as
//! well, in `client/src/verdict.rs`.)

mod common;

use common::{Running, brief, loadgen, loadgen_at, namespace, scratch};
use loadgen_core::result::{Report, VerdictState};
use loadgen_core::sys::affinity;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Stdio};

fn codes(report: &Report) -> Vec<&str> {
    report.verdict.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

fn assert_invalid(report: &Report, code: &str) {
    assert_eq!(report.verdict.state, VerdictState::Invalid, "{}", brief(report));
    assert!(codes(report).contains(&code), "{code} is not among {:?}", codes(report));
}

/// Somebody who uses a CPU all the time; stopped when dropped.
struct Hog(Child);

impl Hog {
    fn on(cpu: usize) -> Self {
        let child = common::parent_command("timeout")
            .args(["20", "taskset", "-c", &cpu.to_string(), "sh", "-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = common::command("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn a_cpu_that_others_use_is_noticed() {
    let cpu = *affinity::allowed().unwrap().last().unwrap();
    let _hog = Hog::on(cpu);
    for load in [&["--conns", "50"][..], &["--conns", "50", "--rate", "5k"]] {
        let args = ["--cpus", &cpu.to_string(), "--duration", "1s", "--warmup", "200ms"];
        let ended = loadgen(&[&args[..], load].concat());
        let report = ended.expect(0);
        assert_invalid(report, "cpu_contention");
        assert!(!codes(report).contains(&"overloaded"), "{:?}", codes(report));
    }
}

#[test]
fn an_embedded_server_that_dies_is_noticed() {
    let running = Running::start(&["--conns", "10", "--duration", "5s", "--warmup", "200ms", "--timeout", "500ms"]);
    running.wait_for_load();
    let killed = common::command("pkill").args(["-KILL", "-P", &running.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let ended = running.wait();
    assert_invalid(ended.expect(4), "server_lost");
    assert!(ended.stderr.contains("embedded server"), "{}", ended.stderr);
}

/// A loopback with a queue so short that it drops packets.
#[test]
fn a_network_that_drops_is_noticed() {
    let setup = "ip link set lo up mtu 1500 && tc qdisc add dev lo root tbf rate 50mbit burst 10k limit 20k";
    let folder = scratch();
    let path = folder.path().join("report.json");
    let args = ["--no-pin", "--size", "4KiB", "--conns", "50", "--duration", "2s", "--warmup", "200ms", "-q", "-o"];
    let args = [&args[..], &[path.to_str().unwrap()]].concat();
    let Some(command) = namespace("-rn", setup, "exec \"$0\" \"$@\"", &args) else { return };
    Running::launch(command, scratch()).wait();
    assert_invalid(&common::read_report(&path), "retransmissions");
}

/// Five million requests a second are too many for one thread in any build.
#[test]
fn what_the_generator_cannot_send_is_not_the_targets_fault() {
    let ended = loadgen(&["--rate", "5M", "--conns", "2000", "--duration", "500ms", "--warmup", "0s"]);
    let report = ended.expect(0);
    assert_eq!(report.ledger.scheduled, 2_500_000);
    assert!(report.throughput.requests_per_s < 2_000_000, "{}", brief(report));
    assert_ne!(report.verdict.state, VerdictState::Valid);
}

/// Echoes to one connection after the other, so many requests of each; others wait in the accept queue.
fn one_after_the_other(replies: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut buffer, mut answered) = ([0; 4096], 0);
            // Silent behind those, until the client goes.
            while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
                if answered < replies && stream.write_all(&buffer[..bytes]).is_err() {
                    break;
                }
                answered += 1;
            }
        }
    });
    address
}

/// Connections that come late or never, again and again, and idle ones: no time is booked twice.
#[test]
fn the_books_of_ordinary_runs_do_not_contradict_each_other() {
    let usual = ["--no-floor", "--timeout", "300ms"];
    let late = ["--duration", "1500ms", "--warmup", "200ms"];
    let runs: [(Option<usize>, &[&str]); 7] = [
        (None, &["-n", "20", "-c", "4", "--idle", "4"]),
        (None, &["-n", "50", "-c", "5", "--idle", "20", "--server-delay", "fixed:20ms"]),
        (Some(usize::MAX), &["-c", "4"]),
        (Some(usize::MAX), &["-c", "1:300ms,4:1500ms"]),
        (Some(usize::MAX), &["-c", "4", "--think", "fixed:10ms"]),
        (Some(0), &["-n", "10", "-c", "2"]),
        (Some(50), &["-n", "100", "-c", "2"]),
    ];
    for engine in [&["--engine", "epoll"][..], &["--engine", "auto"]] {
        for (server, load) in runs {
            let counts = load.contains(&"-n");
            let args = [&usual[..], engine, load, if counts { &[] } else { &late }].concat();
            let ended = match server {
                None => loadgen(&args),
                Some(replies) => loadgen_at(&one_after_the_other(replies).to_string(), &args),
            };
            let report = ended.report();
            assert!(!codes(report).contains(&"littles_law"), "{args:?}: {}", brief(report));
        }
    }
}

#[test]
fn why_a_run_was_given_up_is_told() {
    let args = ["-n", "1000", "-c", "2", "--no-floor", "--timeout", "200ms"];
    let ended = loadgen_at(&one_after_the_other(0).to_string(), &args);
    assert_eq!((ended.code, ended.report().partial), (4, true), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: the run was given up: "), "{}", ended.stderr);
}
