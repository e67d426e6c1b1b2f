//! Servers that misbehave: each fault has its word, is counted exactly where that can be known, and no run hangs.

mod common;

use common::peer::{ECHO, Peer, Talk};
use common::{Ended, SHORT, assert_accepted, brief, error_kinds, error_rows, errors, eventually, loadgen_at, whole};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a run may take beyond its window and one time-out, on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// A number of requests, so that there is one outcome for each; all are given up soon.
const COUNTED: [&str; 6] = ["--requests", "12", "--conns", "3", "--timeout", "2s"];

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/// Every request came to the same end.
fn all_failed(ended: &Ended, kind: &str, peer: &Peer) {
    let report = ended.expect(4);
    let whole = whole(report);
    assert_eq!(error_kinds(report), [kind], "{}", brief(report));
    assert_eq!((whole.ok, whole.sent, errors(report, kind)), (0, 12, 12), "{}", brief(report));
    assert_eq!(peer.faults(), 12, "{}", brief(report));
    assert_accepted(report, peer.accepted());
    assert_eq!(report.connections.lost, 12, "{}", brief(report));
    assert_eq!((error_rows(report, kind), report.throughput.replies), (12, 0));
    assert!(report.errors.iter().all(|row| !row.first.is_empty()));
    ended.assert_within(Duration::from_secs(3) + SLACK);
}

/// Each connection gets two good replies, and then the fault.
fn good_then_failed(ended: &Ended, kind: &str, peer: &Peer) {
    let report = ended.expect(4);
    assert_eq!(error_kinds(report), [kind], "{}", brief(report));
    assert_eq!(whole(report).in_flight_at_end, 0, "{}", brief(report));
    assert_eq!((errors(report, kind), whole(report).ok), (peer.faults(), peer.good()), "{}", brief(report));
    assert!(peer.faults() > 3, "{}", brief(report));
    assert_eq!(report.connections.lost, peer.faults(), "{}", brief(report));
    assert_accepted(report, peer.accepted());
}

/// Both, with a fault in place of a reply of echo.
fn echo_fault(kind: &str, fault: fn(&mut Talk, [u8; ECHO])) {
    let always = Peer::start(move |talk| {
        if let Some(request) = talk.request() {
            talk.fault();
            fault(talk, request);
        }
    });
    all_failed(&loadgen_at(&always.target(), &COUNTED), kind, &always);

    let later = Peer::start(move |talk| {
        let mut replies = 0;
        while let Some(request) = talk.request() {
            if replies == 2 {
                talk.fault();
                return fault(talk, request);
            }
            replies += 1;
            talk.good(&request);
        }
    });
    good_then_failed(&loadgen_at(&later.target(), &[&["--conns", "3"][..], &SHORT].concat()), kind, &later);
}

/// Likewise of HTTP.
fn http_fault(kind: &str, fault: fn(&mut Talk)) {
    let always = Peer::start(move |talk| {
        if talk.head().is_some() {
            talk.fault();
            fault(talk);
        }
    });
    all_failed(&loadgen_at(&always.url(), &COUNTED), kind, &always);

    let later = Peer::start(move |talk| {
        let mut replies = 0;
        while talk.head().is_some() {
            if replies == 2 {
                talk.fault();
                return fault(talk);
            }
            replies += 1;
            talk.good(OK);
        }
    });
    good_then_failed(&loadgen_at(&later.url(), &[&["--conns", "3"][..], &SHORT].concat()), kind, &later);
}

#[test]
fn a_reset_in_place_of_a_reply_is_a_reset() {
    echo_fault("reset", |talk, _| talk.reset());
    http_fault("reset", Talk::reset);
}

#[test]
fn an_end_in_place_of_a_reply_is_closed() {
    echo_fault("closed", |talk, _| talk.finish());
    http_fault("closed", Talk::finish);
}

#[test]
fn an_end_within_a_reply_is_truncated() {
    echo_fault("truncated", |talk, request| {
        talk.send(&request[..ECHO / 2]);
        talk.finish();
    });
    http_fault("truncated", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        talk.finish();
    });
    http_fault("truncated", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Le");
        talk.finish();
    });
    http_fault("truncated", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n");
        talk.finish();
    });
}

/// Wherever a reply is cut, by an end or by a reset, it is no reply.
#[test]
fn a_reply_may_be_cut_at_every_byte() {
    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    for reset in [false, true] {
        let peer = Peer::start(move |talk| {
            while talk.head().is_some() {
                let cut = talk.fault() as usize;
                if cut < REPLY.len() {
                    talk.send(&REPLY[..cut]);
                    return if reset { talk.reset() } else { talk.finish() };
                }
                talk.good(REPLY);
            }
        });
        let requests = (REPLY.len() + 10).to_string();
        let ended = loadgen_at(&peer.url(), &["--requests", &requests, "--conns", "10", "--timeout", "3s"]);
        let report = ended.expect(4);
        let cut = REPLY.len() as u64;
        let expected = if reset { vec![("reset", cut)] } else { vec![("closed", 1), ("truncated", cut - 1)] };
        let counted: Vec<(&str, u64)> = whole(report).errors.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        assert_eq!((counted, whole(report).ok, peer.good()), (expected, 10, 10), "{}", brief(report));
    }
}

/// One byte among many thousand replies.
#[test]
fn a_single_wrong_byte_is_found() {
    let peer = Peer::start(|talk| {
        while let Some(mut request) = talk.request() {
            if talk.goods() == 5_000 && talk.fault() == 0 {
                request[31] ^= 0x10;
                talk.send(&request);
                return talk.ignore();
            }
            talk.good(&request);
        }
    });
    let ended = loadgen_at(&peer.target(), &["--requests", "6k", "--conns", "1", "--timeout", "3s"]);
    let report = ended.expect(4);
    assert_eq!((whole(report).ok, errors(report, "mismatch")), (5_999, 1), "{}", brief(report));
}

#[test]
fn a_reset_within_a_reply_is_a_reset() {
    echo_fault("reset", |talk, request| {
        talk.send(&request[..ECHO / 2]);
        talk.reset();
    });
}

#[test]
fn one_wrong_byte_is_a_mismatch() {
    echo_fault("mismatch", |talk, mut request| {
        request[ECHO - 1] ^= 1;
        talk.send(&request);
        talk.ignore();
    });
}

#[test]
fn bytes_that_are_no_http_are_malformed() {
    http_fault("malformed", |talk| {
        talk.send(b"BANANA\r\n\r\n");
        talk.ignore();
    });
    http_fault("malformed", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n");
        talk.ignore();
    });
    http_fault("malformed", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
        talk.ignore();
    });
}

#[test]
fn an_endless_head_is_too_large_and_costs_no_memory() {
    http_fault("too_large", |talk| {
        talk.send(b"HTTP/1.1 200 OK\r\n");
        while talk.send(b"X-Endless: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n") {}
    });
}

/// A body of any declared size is thrown away as it comes, and never allocated.
#[test]
fn a_declared_size_costs_no_memory() {
    let peer = Peer::start(|talk| {
        if talk.head().is_some() {
            talk.fault();
            talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n");
            let block = [b'x'; 4096];
            for _ in 0..2_000 {
                talk.send(&block);
            }
            talk.finish();
        }
    });
    let ended = loadgen_at(&peer.url(), &COUNTED);
    all_failed(&ended, "truncated", &peer);
    assert!(ended.report().cpu.client_memory_bytes < 64 << 20, "{:?}", ended.report().cpu);
}

#[test]
fn bytes_behind_a_reply_are_unexpected_and_credited_to_nobody() {
    let echo = Peer::start(|talk| {
        if let Some(request) = talk.request() {
            talk.fault();
            talk.good(&[&request[..], b"!"].concat());
            talk.ignore();
        }
    });
    let http = Peer::start(|talk| {
        if talk.head().is_some() {
            talk.fault();
            talk.good(&[OK, OK].concat());
            talk.ignore();
        }
    });
    for (target, peer) in [(echo.target(), &echo), (http.url(), &http)] {
        let ended = loadgen_at(&target, &COUNTED);
        let report = ended.expect(4);
        assert_eq!((whole(report).ok, whole(report).errors.len()), (12, 0), "{}", brief(report));
        assert_eq!((error_rows(report, "unexpected"), report.connections.lost), (12, 12), "{}", brief(report));
        assert_eq!(peer.faults(), 12);
        assert_accepted(report, peer.accepted());
    }
}

/// A server that speaks first, on a protocol where the client does.
#[test]
fn a_greeting_is_no_reply() {
    let peer = Peer::start(|talk| {
        talk.fault();
        talk.send(b"220 hello\r\n");
        talk.ignore();
    });
    let ended = loadgen_at(&peer.target(), &["--requests", "6", "--conns", "2", "--timeout", "500ms"]);
    let report = ended.expect(4);
    assert_eq!((whole(report).ok, report.connections.lost), (0, peer.faults()), "{}", brief(report));
}

#[test]
fn statuses_are_counted_exactly() {
    let peer = Peer::start(|talk| {
        let mut turn = 0;
        while talk.head().is_some() {
            match turn % 4 {
                0 => talk.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost"),
                1 => talk.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
                _ => talk.good(OK),
            };
            turn += 1;
        }
    });
    for pipeline in ["1", "4"] {
        let args = ["--requests", "400", "--conns", "4", "--pipeline", pipeline, "--threads", "2"];
        let before = peer.good();
        let ended = loadgen_at(&peer.url(), &args);
        let report = ended.expect(4);
        let (not_found, unavailable) = (errors(report, "status_4xx"), errors(report, "status_5xx"));
        assert_eq!(whole(report).ok, peer.good() - before, "{}", brief(report));
        assert_eq!(whole(report).ok + not_found + unavailable, 400, "{}", brief(report));
        // Each connection goes round in four; which of them made how many requests is chance.
        assert!(not_found.abs_diff(100) <= 6 && unavailable.abs_diff(100) <= 6, "{}", brief(report));
        assert_eq!((report.connections.lost, error_kinds(report).len()), (0, 2));
        let service = report.latency.service.as_ref().unwrap();
        assert_eq!(service.count, report.ledger.ok, "an error status is no latency");
    }
}

#[test]
fn only_error_statuses_are_still_an_answer() {
    let peer = Peer::start(|talk| {
        while talk.head().is_some() {
            talk.fault();
            talk.send(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let ended = loadgen_at(&peer.url(), &[&["--conns", "3"][..], &SHORT].concat());
    let report = ended.expect(4);
    assert_eq!((whole(report).ok, errors(report, "status_5xx")), (0, peer.faults()), "{}", brief(report));
    assert_eq!(report.connections.served, 3);
}

#[test]
fn a_server_that_never_replies_is_all_timeouts() {
    let peer = Peer::start(|talk| {
        talk.fault();
        talk.ignore();
    });
    let ended = loadgen_at(&peer.target(), &["--conns", "4", "--duration", "1s", "--timeout", "300ms"]);
    let report = ended.expect(4);
    let whole = whole(report);
    assert!(whole.ok == 0 && whole.sent >= 4, "{}", brief(report));
    assert_eq!(errors(report, "timeout") + whole.in_flight_at_end, whole.sent, "{}", brief(report));
    assert!(errors(report, "timeout") >= 4, "{}", brief(report));
    assert_eq!(report.connections.served, 0);
    ended.assert_within(Duration::from_millis(1300) + SLACK);
}

/// The window of a run that counts requests lasts until the last of them has its fate: a rate over a shorter time would
/// be too high.
#[test]
fn a_number_of_requests_is_measured_until_the_last_has_timed_out() {
    let peer = Peer::start(|talk| {
        let silent = talk.fault() == 0;
        while let Some(request) = talk.request() {
            if !silent {
                talk.good(&request);
            }
        }
    });
    let ended = loadgen_at(&peer.target(), &["--conns", "4", "--requests", "400", "--timeout", "600ms"]);
    let report = ended.expect(4);
    assert!(errors(report, "timeout") >= 1, "{}", brief(report));
    assert!(report.throughput.window_ns >= 600_000_000, "{}", brief(report));
    assert!(report.throughput.requests_per_s <= 670, "{}", brief(report));
    assert!(report.verdict.reasons.iter().all(|reason| reason.code != "littles_law"), "{}", brief(report));
}

#[test]
fn a_server_that_falls_silent_is_timeouts_with_their_latency() {
    let peer = Peer::start(|talk| {
        for _ in 0..100 {
            match talk.request() {
                Some(request) => talk.good(&request),
                None => return,
            };
        }
        talk.ignore();
    });
    let args = ["--conns", "4", "--duration", "1s", "--warmup", "0s", "--timeout", "200ms"];
    let ended = loadgen_at(&peer.target(), &args);
    let report = ended.expect(4);
    assert_eq!((error_kinds(report), whole(report).ok), (vec!["timeout"], peer.good()), "{}", brief(report));
    assert!(errors(report, "timeout") >= 4, "{}", brief(report));
    let response = report.latency.response.as_ref().unwrap();
    assert!(response.max_ns >= 200_000_000, "a timeout is in the histogram: {response:?}");
    assert!(report.latency.censored >= 4);
    ended.assert_within(Duration::from_millis(1200) + SLACK);
}

/// A run by a number of requests must end, too.
#[test]
fn a_number_of_requests_is_given_up_when_nobody_answers_any_more() {
    let peer = Peer::start(|talk| {
        while let Some(request) = talk.request() {
            if talk.goods() >= 20 {
                return talk.ignore();
            }
            talk.good(&request);
        }
    });
    let ended = loadgen_at(&peer.target(), &["--requests", "1M", "--conns", "2", "--timeout", "200ms"]);
    let report = ended.expect(4);
    assert!(report.partial && whole(report).ok == peer.good(), "{}", brief(report));
    ended.assert_within(Duration::from_millis(1500) + SLACK);
}

#[test]
fn what_is_behind_a_fault_in_a_pipeline_is_accounted_for() {
    let peer = Peer::start(|talk| {
        if let Some(mut request) = talk.request() {
            talk.fault();
            request[0] ^= 1;
            talk.send(&request);
            talk.ignore();
        }
    });
    let args = ["--requests", "64", "--conns", "2", "--pipeline", "8", "--timeout", "2s"];
    let report_of = loadgen_at(&peer.target(), &args);
    let report = report_of.expect(4);
    assert_eq!(errors(report, "mismatch"), peer.faults(), "{}", brief(report));
    assert_eq!(errors(report, "mismatch") + errors(report, "aborted"), 64, "{}", brief(report));
}

#[test]
fn an_announced_close_is_no_error() {
    let peer = Peer::start(|talk| {
        if talk.head().is_some() {
            talk.good(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
            talk.finish();
        }
    });
    let ended = loadgen_at(&peer.url(), &["--requests", "60", "--conns", "3"]);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.connections.closed_by_server), (60, 60), "{}", brief(report));
    assert_eq!((peer.accepted(), report.connections.opened), (60, 60), "{}", brief(report));
}

#[test]
fn a_body_that_ends_with_the_stream_is_a_reply() {
    let peer = Peer::start(|talk| {
        if talk.head().is_some() {
            talk.good(b"HTTP/1.0 200 OK\r\n\r\nall of it");
            talk.finish();
        }
    });
    let ended = loadgen_at(&peer.url(), &["--requests", "60", "--conns", "3"]);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.connections.closed_by_server), (60, 60), "{}", brief(report));
}

/// One wrong byte in a stream.
#[test]
fn a_wrong_stream_is_a_mismatch() {
    let peer = Peer::start(|talk| {
        talk.fault();
        talk.send(b"this is not what RFC 864 says");
        talk.ignore();
    });
    let ended = loadgen_at(
        &format!("chargen://{}", peer.address),
        &["--conns", "2", "--duration", "300ms", "--timeout", "300ms"],
    );
    let report = ended.expect(4);
    assert_eq!(
        (error_rows(report, "mismatch"), report.connections.lost),
        (peer.faults(), peer.faults()),
        "{}",
        brief(report)
    );
}

/// Faults of several kinds at once: each is counted, and the good replies too.
#[test]
fn a_mixture_of_faults_is_told_apart() {
    let counts: std::sync::Arc<std::sync::Mutex<BTreeMap<&str, u64>>> = std::sync::Arc::default();
    let told = std::sync::Arc::clone(&counts);
    let peer = Peer::start(move |talk| {
        let mut requests = 0;
        while let Some(mut request) = talk.request() {
            requests += 1;
            if requests < 5 {
                talk.good(&request);
                continue;
            }
            talk.fault();
            let turn = talk.goods() % 4;
            let kind = ["reset", "closed", "truncated", "mismatch"][turn as usize];
            *told.lock().unwrap().entry(kind).or_default() += 1;
            match turn {
                0 => return talk.reset(),
                1 => return talk.finish(),
                2 => {
                    talk.send(&request[..7]);
                    return talk.finish();
                }
                _ => {
                    request[9] ^= 0x80;
                    talk.send(&request);
                    return talk.ignore();
                }
            }
        }
    });
    let ended =
        loadgen_at(&peer.target(), &["--conns", "8", "--threads", "2", "--duration", "1s", "--warmup", "100ms"]);
    let report = ended.expect(4);
    eventually("the peer has told all", || counts.lock().unwrap().values().sum::<u64>() == peer.faults());
    let counted: BTreeMap<&str, u64> = whole(report).errors.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
    assert_eq!(counted, *counts.lock().unwrap(), "{}", brief(report));
    assert_eq!(whole(report).ok, peer.good(), "{}", brief(report));
}
