//! What HTTP demands of connections: pipelining, and replies that survive the close behind them.

mod common;

use common::{Server, with_every_variant};
use std::io::{Read, Write};
use std::thread;

#[test]
fn a_burst_of_pipelined_requests_is_answered_in_full() {
    const REQUESTS: usize = 50_000;
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "http", "--size", "10"]);
        let mut stream = server.connect();
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            let burst = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".repeat(REQUESTS);
            writer.write_all(&burst).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).unwrap();
        writing.join().unwrap();
        let count = replies.windows(9).filter(|window| window == b"HTTP/1.1 ").count();
        assert_eq!(count, REQUESTS);
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.replies), (REQUESTS as u64, REQUESTS as u64));
        assert_eq!((stats.sent_bytes, stats.closes.get("peer")), (replies.len() as u64, Some(&1)));
    });
}

#[test]
fn a_refusal_reaches_a_peer_that_is_still_sending() {
    let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 90_000]].concat();
    let malformed = [b"this is no request\r\n\r\n".as_slice(), &[b'x'; 200_000]].concat();
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "http"]);
        for (request, status) in [(&endless, "HTTP/1.1 431"), (&malformed, "HTTP/1.1 400")] {
            let mut stream = server.connect();
            stream.write_all(request).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert!(reply.starts_with(status), "{reply}");
        }
        let stats = server.stop().stats;
        assert_eq!(stats.closes.get("protocol_error"), Some(&2), "{stats:?}");
    });
}

/// One answer for a Host line and for a target that stands in its place; and a target of another scheme is no mistake.
#[test]
fn targets_are_judged_as_the_standard_says() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "http"]);
        for (target, host, status) in [
            ("/", "a:0", "400"),
            ("http://a:0/", "a", "400"),
            ("/", "<a>", "400"),
            ("http://<a>/", "a", "400"),
            ("/\u{e9}", "a", "400"),
            ("http://a/?\u{e9}", "a", "400"),
            ("ftp://a/", "a", "421"),
            ("https://a/", "a", "421"),
            ("HTTP://a/", "b", "200"),
        ] {
            let mut stream = server.connect();
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {host}: {reply}");
        }
        server.stop();
    });
}

#[test]
fn a_reply_to_connection_close_is_the_last() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "http", "--size", "3MiB"]);
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert!(reply.len() > 3 << 20, "{}", reply.len());
        drop(stream);
        thread::sleep(std::time::Duration::from_millis(50));
        let stats = server.stop().stats;
        assert_eq!((stats.closes.get("answered"), stats.replies), (Some(&1), 1), "{stats:?}");
    });
}
