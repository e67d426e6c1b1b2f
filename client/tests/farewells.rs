//! What a server says as it closes a connection: on an idle one it is no error, and on one that it never served it is a
//! refusal; in answer to a request it is that request's reply, and what else nobody asked for is unexpected.

mod common;

use common::peer::{Peer, Talk};
use common::{brief, error_rows, errors, loadgen, whole};
use loadgen_core::result::Report;
use std::time::Duration;

const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate";

/// A run against a server that answers each request, and on idle connections does something else.
fn run(idle: impl Fn(&mut Talk) + Send + Sync + 'static, load: &[&str]) -> (Report, Peer) {
    let peer = Peer::start(move |talk| {
        if talk.head().is_some() && talk.good(GOOD) {
            idle(talk);
        }
    });
    let ended = loadgen(&[&["--target", &peer.url(), "--timeout", "2s"], load].concat());
    (ended.report().clone(), peer)
}

#[test]
fn a_408_on_an_idle_connection_is_no_error() {
    let thinking = ["-c", "2", "--think", "fixed:100ms", "--duration", "700ms", "--warmup", "0s"];
    let paced = ["-c", "2", "--rate", "10", "--duration", "700ms", "--warmup", "0s"];
    for load in [&thinking[..], &paced] {
        // In one piece, and cut within its head.
        for cut in [TIMEOUT.len(), 20] {
            let farewell = move |talk: &mut Talk| {
                std::thread::sleep(Duration::from_millis(10));
                talk.fault();
                for piece in [&TIMEOUT[..cut], &TIMEOUT[cut..]].iter().filter(|piece| !piece.is_empty()) {
                    talk.send(piece);
                    std::thread::sleep(Duration::from_millis(10));
                }
                talk.finish();
            };
            let (report, peer) = run(farewell, load);
            let shown = brief(&report);
            // Now and again one crosses a request on its way, and answers that.
            let crossed = errors(&report, "status_4xx") + errors(&report, "closed") + errors(&report, "reset");
            assert!(
                report.errors.iter().all(|row| row.phase == "reply" && row.kind != "unexpected"),
                "{load:?}: {shown}"
            );
            assert!(peer.faults() > 2 && crossed < peer.faults(), "{load:?}: {shown}");
            assert!(report.connections.closed_by_server > 1, "{load:?}: {shown}");
            assert_eq!(whole(&report).ok, peer.good(), "{load:?}: {shown}");
        }
    }
}

#[test]
fn a_408_to_a_request_is_its_answer() {
    let answer = |talk: &mut Talk| {
        if talk.head().is_some() {
            talk.fault();
            talk.send(TIMEOUT);
            talk.finish();
        }
    };
    let (report, peer) = run(answer, &["-n", "10", "-c", "2"]);
    assert_eq!(errors(&report, "status_4xx"), peer.faults(), "{}", brief(&report));
    assert!(peer.faults() > 0 && report.connections.lost == 0, "{}", brief(&report));
}

#[test]
fn other_bytes_that_nobody_asked_for_are_unexpected() {
    for said in [GOOD, b"garbage".as_slice(), b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"] {
        let stray = move |talk: &mut Talk| {
            std::thread::sleep(Duration::from_millis(10));
            talk.send(said);
            talk.ignore();
        };
        let load = ["-c", "1", "--think", "fixed:200ms", "--duration", "500ms", "--warmup", "0s"];
        let (report, _) = run(stray, &load);
        assert!(error_rows(&report, "unexpected") > 0, "{}", brief(&report));
    }
}
