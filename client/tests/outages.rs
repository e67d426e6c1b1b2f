//! Servers that are not there, fall away, or come back: the run ends on time, and both sides agree on what was done.

mod common;

use common::{
    Running, Server, brief, error_kinds, loadgen_at, port_range, scratch, series, whole, with_every_server_engine,
};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// What a run may take beyond its window and one time-out, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

#[test]
fn nothing_listening_is_said_at_once() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for args in [&["--conns", "10", "--duration", "5s"][..], &["--conns", "10", "--requests", "100"]] {
        let ended = loadgen_at(&port.to_string(), args);
        ended.expect_refusal(3);
        assert!(ended.stderr.contains("refused") && ended.stderr.contains(&port.to_string()), "{}", ended.stderr);
        ended.assert_within(Duration::from_secs(2));
        let report = ended.report();
        assert!(report.connections.failed["refused"] >= 10, "{}", brief(report));
        assert_eq!((report.connections.established, whole(report).sent), (0, 0));
    }
}

/// A listener that never accepts: the kernel takes what its queue holds, and drops the rest.
fn never_accepts(backlog: i32) -> (std::os::fd::OwnedFd, std::net::SocketAddr) {
    use loadgen_core::sys::socket;
    let listener = socket::listen("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap(), false, backlog).unwrap();
    let address = socket::local_address(listener.as_fd()).unwrap();
    (listener, address)
}

#[test]
fn connections_beyond_a_full_accept_queue_time_out() {
    let (_listener, address) = never_accepts(1);
    let ended = loadgen_at(&address.to_string(), &["--conns", "8", "--duration", "500ms", "--timeout", "300ms"]);
    let report = ended.expect(4);
    assert!(report.connections.failed["timeout"] >= 5, "{}", brief(report));
    assert_eq!((report.connections.served, whole(report).ok), (0, 0), "{}", brief(report));
    ended.assert_within(Duration::from_millis(800) + SLACK);
}

#[test]
fn a_target_that_answers_no_handshake_is_unreachable() {
    let (_listener, address) = never_accepts(0);
    let _full: Vec<TcpStream> =
        (0..8).filter_map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50)).ok()).collect();
    let ended = loadgen_at(&address.to_string(), &["--conns", "4", "--duration", "500ms", "--timeout", "300ms"]);
    let report = ended.expect(3);
    assert!(report.connections.failed["timeout"] >= 4, "{}", brief(report));
    ended.assert_within(Duration::from_millis(800) + SLACK);
}

/// The port of a target where nothing listens may be the local port of the attempt: then a socket is connected to
/// itself and echoes all by itself. No such connection may count.
#[test]
fn nobody_talks_to_himself() {
    let run = "exec \"$0\" --target 127.0.0.1:12345 --conns 1 --requests 1k --duration 2s -o report.json";
    let Some(command) = port_range(12345, 12346, run, &[]) else { return };
    let ended = Running::launch(command, scratch()).wait();
    let report = ended.report();
    assert_eq!((whole(report).ok, report.connections.established), (0, 0), "{}", brief(report));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
}

#[test]
fn a_server_killed_half_way_loses_connections_and_the_run_ends_on_time() {
    let server = Server::start(&[]);
    let args = ["--conns", "20", "--duration", "3s", "--warmup", "100ms", "--timeout", "500ms", "--threads", "2"];
    let run = Running::start(&[&["--target", &server.target()][..], &args].concat());
    server.wait_for_load();
    server.kill();
    let ended = run.wait();
    let report = ended.expect(4);
    let whole = whole(report);
    assert!(whole.ok > 100, "{}", brief(report));
    // All 20 had a request on them, or were about to.
    assert!(report.connections.lost + report.connections.closed_by_server >= 20, "{}", brief(report));
    assert!(report.connections.lost > 0 && report.connections.failed["refused"] > 0, "{}", brief(report));
    assert!(
        error_kinds(report).iter().all(|kind| ["reset", "closed", "truncated"].contains(kind)),
        "{}",
        brief(report)
    );
    assert_eq!((report.connections.alive_at_end, report.connections.served), (0, 20), "{}", brief(report));
    ended.assert_within(Duration::from_millis(3600) + SLACK);
}

#[test]
fn a_server_that_comes_back_is_used_again() {
    let server = Server::start(&[]);
    let target = server.target();
    let args = ["--conns", "10", "--duration", "5s", "--warmup", "100ms", "--timeout", "500ms"];
    let run = Running::start(&[&["--target", &target][..], &args].concat());
    server.wait_for_load();
    server.kill();
    std::thread::sleep(Duration::from_millis(300));
    let server = Server::start_at(&target, &[]);
    let ended = run.wait();
    let report = ended.expect(4);
    let second = server.stop();
    assert!(second.replies > 100 && second.accepts >= 10, "{second:?}");
    assert!(whole(report).ok > second.replies, "{}", brief(report));
    assert_eq!((report.connections.alive_at_end, report.connections.served), (10, 10), "{}", brief(report));
    let last_full_second = &report.series.rows[report.series.rows.len().saturating_sub(2)];
    assert!(last_full_second[0] > 0, "requests flow again: {:?}", report.series);
}

/// A server that drains has answered all that it read; nothing else may count as answered.
#[test]
fn a_drained_server_and_the_client_agree_exactly() {
    with_every_server_engine(|engine| {
        for (protocol, pipeline) in [("echo", "1"), ("echo", "8"), ("http", "1"), ("http", "8")] {
            let server = Server::start(&["--engine", engine, "--protocol", protocol]);
            let url = format!("{}://{}", if protocol == "http" { "http" } else { "tcp" }, server.address());
            let args = ["--target", &url, "--conns", "10", "--pipeline", pipeline, "--timeout", "1s"];
            let run = Running::start(&[&args[..], &["--duration", "1s", "--warmup", "100ms"]].concat());
            server.wait_for_load();
            let stats = server.stop();
            let ended = run.wait();
            if ended.code == 0 && !ended.is_conclusive() {
                continue; // it was over before the server was told to end
            }
            let report = ended.expect(4);
            let shown = format!("{protocol} {pipeline} over {engine}: {stats:?}\n{}", brief(report));
            assert!(stats.replies > 100, "{shown}");
            assert_eq!(
                (whole(report).ok, series(report, "received_bytes")),
                (stats.replies, stats.sent_bytes),
                "{shown}"
            );
            // The kernel answers for a server that is about to close its listener: such a connection is never its own,
            // and is reset with what was sent on it.
            let unseen = report.connections.opened - stats.accepts;
            let request_bytes = stats.received_bytes / stats.requests.max(1);
            let lost_bytes = unseen * pipeline.parse::<u64>().unwrap() * request_bytes;
            let sent = series(report, "sent_bytes");
            let all = stats.received_bytes..=stats.received_bytes + lost_bytes;
            assert!(all.contains(&sent), "{sent} of {all:?}: {shown}");
        }
    });
}

/// Streams have no requests: what counts is that the loss is told, and the run ends.
#[test]
fn a_stream_whose_server_dies_is_an_error() {
    for protocol in ["discard", "chargen"] {
        let server = Server::start(&["--protocol", protocol]);
        let url = format!("{protocol}://{}", server.address());
        let run = Running::start(&["--target", &url, "--conns", "4", "--duration", "2s", "--warmup", "100ms"]);
        server.wait_for_load();
        server.kill();
        let ended = run.wait();
        let report = ended.expect(4);
        assert!(report.connections.lost >= 4 && report.connections.failed["refused"] > 0, "{}", brief(report));
        ended.assert_within(Duration::from_secs(3) + SLACK);
    }
}
