//! Servers that mean harm: oversized lengths, lines without an end, wrong types, bytes that answer nothing. Each has
//! its word, costs its connection and bounded memory, and the run goes on.

mod common;

use common::peer::{Peer, Talk};
use common::{brief, engine, error_kinds, errors, loadgen_at, whole};

/// A reply that no client should have to read.
struct Case {
    /// What it is a reply to.
    protocol: &'static Protocol,
    reply: fn() -> Vec<u8>,
    kind: &'static str,
}

struct Protocol {
    scheme: &'static str,
    args: &'static [&'static str],
    /// How a request ends.
    end: &'static [u8],
    good: &'static [u8],
}

static HTTP: Protocol =
    Protocol { scheme: "http", args: &[], end: b"\r\n\r\n", good: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" };
static PING: Protocol = Protocol { scheme: "redis", args: &[], end: b"PING\r\n", good: b"+PONG\r\n" };
static REDIS: Protocol =
    Protocol { scheme: "redis", args: &["--command", "GET k"], end: b"k\r\n", good: b"$2\r\nhi\r\n" };
static MEMCACHED: Protocol =
    Protocol { scheme: "memcached", args: &["--mix", "get=1"], end: b"\r\n", good: b"VALUE k 0 2\r\nhi\r\nEND\r\n" };
static META: Protocol = Protocol {
    scheme: "memcached",
    args: &["--mix", "get=1", "--dialect", "meta"],
    end: b"\r\n",
    good: b"VA 2\r\nhi\r\n",
};

/// As much as nobody keeps.
fn endless(begin: &str, rest: u8) -> Vec<u8> {
    let mut bytes = begin.as_bytes().to_vec();
    bytes.resize(4 << 20, rest);
    bytes
}

fn cases() -> Vec<Case> {
    let case = |protocol, reply, kind| Case { protocol, reply, kind };
    vec![
        case(&HTTP, || endless("HTTP/1.1 200 OK\r\nX: ", b'x'), "too_large"),
        case(&HTTP, || "A: b\r\n".repeat(100_000).into_bytes(), "malformed"),
        case(&HTTP, || format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(100_000)).into_bytes(), "too_large"),
        case(&HTTP, || b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(), "malformed"),
        case(&HTTP, || b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".to_vec(), "malformed"),
        case(&HTTP, || b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(), "malformed"),
        case(&PING, || b"+OK\r\n".to_vec(), "mismatch"),
        case(&PING, || b":1\r\n".to_vec(), "mismatch"),
        case(&PING, || endless("+", b'x'), "too_large"),
        case(&PING, || b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "malformed"),
        case(&REDIS, || b"$99999999999\r\n".to_vec(), "too_large"),
        case(&REDIS, || b"$-5\r\n".to_vec(), "malformed"),
        case(&REDIS, || b"$99999999999999999999999999\r\n".to_vec(), "malformed"),
        case(&REDIS, || b"*99999999999\r\n".to_vec(), "too_large"),
        case(&REDIS, || b"$2\r\nhiXX".to_vec(), "malformed"),
        case(&REDIS, || b":12x\r\n".to_vec(), "malformed"),
        case(&REDIS, || endless("$", b'1'), "too_large"),
        case(&REDIS, || endless("-ERR ", b'x'), "too_large"),
        case(&MEMCACHED, || b"VALUE k 0 99999999999\r\n".to_vec(), "too_large"),
        case(&MEMCACHED, || b"VALUE k 0 2\r\nhiXX".to_vec(), "malformed"),
        case(&MEMCACHED, || b"VALUE k 0 x\r\n".to_vec(), "malformed"),
        case(&MEMCACHED, || b"STORED\r\n".to_vec(), "mismatch"),
        case(&MEMCACHED, || b"BOGUS\r\n".to_vec(), "malformed"),
        case(&MEMCACHED, || endless("VALUE ", b'x'), "too_large"),
        case(&META, || b"VA 99999999999\r\n".to_vec(), "too_large"),
        case(&META, || b"VA 2\r\nhiXX".to_vec(), "malformed"),
        case(&META, || b"STORED\r\n".to_vec(), "mismatch"),
    ]
}

/// Receives one request; `false` at the end of the stream.
fn asked(talk: &mut Talk, end: &[u8]) -> bool {
    use std::io::Read;
    let mut request = Vec::new();
    while !request.ends_with(end) {
        let mut byte = [0];
        if talk.stream.read_exact(&mut byte).is_err() {
            return false;
        }
        request.push(byte[0]);
    }
    true
}

#[test]
fn each_hostile_reply_has_its_word_and_the_run_goes_on() {
    for Case { protocol, reply, kind } in cases() {
        let Protocol { scheme, args, end, good } = *protocol;
        let shown = String::from_utf8_lossy(&reply()[..20.min(reply().len())]).into_owned();
        eprintln!("{scheme} {args:?}: {shown:?}");
        // Each connection gets a good reply first, then the other one: 5 requests fail on as many connections.
        let peer = Peer::start(move |talk| {
            for first in [true, false] {
                if !asked(talk, end) {
                    return;
                }
                if first {
                    talk.good(good);
                } else {
                    talk.fault();
                    talk.send(&reply());
                    talk.ignore();
                }
            }
        });
        let target = format!("{scheme}://{}", peer.address);
        let common = ["--requests", "10", "--conns", "1", "--timeout", "3s"];
        let ended = loadgen_at(&target, &[&common[..], args].concat());
        let report = ended.expect(4);
        assert_eq!(error_kinds(report), [kind], "{scheme} {shown:?}: {}", brief(report));
        assert_eq!((errors(report, kind), whole(report).ok), (5, 5), "{scheme} {shown:?}: {}", brief(report));
        assert_eq!((peer.faults(), peer.good()), (5, 5), "{scheme} {shown:?}");
        assert!(report.errors.iter().all(|row| !row.first.is_empty() && row.first.len() < 500));
        // Rings have buffers of their own.
        let bound = if engine() == "epoll" { 40 << 20 } else { 64 << 20 };
        assert!(report.cpu.client_memory_bytes < bound, "{} bytes", report.cpu.client_memory_bytes);
    }
}

/// A reply is the same reply wherever the stream is cut.
#[test]
fn good_replies_may_be_cut_anywhere() {
    for protocol in [&PING, &REDIS, &MEMCACHED, &META] {
        let Protocol { scheme, args, end, good } = *protocol;
        let peer = Peer::start(move |talk| {
            for cut in (1..good.len()).cycle() {
                if !asked(talk, end) {
                    return;
                }
                talk.send(&good[..cut]);
                std::thread::sleep(std::time::Duration::from_millis(2));
                talk.good(&good[cut..]);
            }
        });
        let target = format!("{scheme}://{}", peer.address);
        let requests = (good.len() * 3).to_string();
        let ended = loadgen_at(&target, &[&["--requests", &requests, "--conns", "2"][..], args].concat());
        let report = ended.expect(0);
        assert_eq!(whole(report).ok, peer.good(), "{scheme} {args:?}: {}", brief(report));
    }
}
