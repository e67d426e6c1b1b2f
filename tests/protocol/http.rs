//! HTTP in particular: tables of good and bad messages, each cut at every point.

use loadgen_core::protocol::{ClientOptions, MIN_OUTPUT, Next, Outcome, Reply, ServerOptions, http};

use crate::callers::{ClientCaller, Ended, ServerCaller, options};

/// What a client makes of the pieces of a stream, in words: replies, then the error or the end.
fn understood(method: &str, pieces: &[&[u8]]) -> String {
    let options = ClientOptions { method: method.into(), ..options(64) };
    let mut client = ClientCaller::new(http::PROTOCOL.codec(&options).unwrap());
    pieces.iter().for_each(|piece| client.feed(piece));
    let mut words: Vec<String> = client.replies.iter().map(reply_word).collect();
    match client.finish() {
        Ended::Between => words.push("end".into()),
        Ended::WithReply(reply) => words.push(format!("end makes {}", reply_word(&reply))),
        Ended::Truncated => words.push("truncated".into()),
        Ended::AfterError => words.push(client.error.unwrap().name().into()),
    }
    words.join(", ")
}

fn reply_word(reply: &Reply) -> String {
    let word = match reply.outcome {
        Outcome::Ok => "ok",
        Outcome::Refused(kind) => kind,
        Outcome::TurnedAway => "turned away",
    };
    format!("{word}{}", if reply.last { " last" } else { "" })
}

/// Points to cut a stream at: all of a short one.
fn cuts(stream: &[u8]) -> impl Iterator<Item = usize> {
    (0..=stream.len()).step_by(1 + stream.len() / 2000)
}

fn check_replies(method: &str, table: &[(&str, &str)]) {
    for (stream, expected) in table {
        let stream = stream.as_bytes();
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]);
        assert_eq!(understood(method, &[stream]), *expected, "{shown:?}");
        for at in cuts(stream) {
            let pieces = [&stream[..at], &stream[at..]];
            assert_eq!(understood(method, &pieces), *expected, "{shown:?} cut at {at}");
        }
        if stream.len() < 2000 {
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(understood(method, &bytes), *expected, "{shown:?} byte by byte");
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn ok(rest: &str) -> String {
    format!("{OK}{rest}")
}

#[test]
fn good_replies() {
    let chunked = |body: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    let long_extension = format!("5;x={}\r\nhello\r\n0\r\n\r\n", "y".repeat(4000));
    let table: Vec<(String, &str)> = vec![
        (String::new(), "end"),
        (ok("Content-Length: 0\r\n\r\n"), "ok, end"),
        (ok("Content-Length: 2\r\n\r\nhi"), "ok, end"),
        (ok("Content-Length: 2\r\n\r\nhi").repeat(3), "ok, ok, ok, end"),
        (ok("content-length:\t002 \r\n\r\nhi"), "ok, end"),
        (ok("Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"), "ok, end"),
        (ok("Content-Length: 2, 2\r\n\r\nhi"), "ok, end"),
        (ok("Content-Length: 2\nX: y\n\nhi"), "ok, end"), // LF alone ends a line (RFC 9112, 2.2)
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n".into(), "ok, end"),
        ("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".into(), "ok, end"),
        ("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n".into(), "status_4xx, end"),
        ("HTTP/1.1 499 X\r\nContent-Length: 1\r\n\r\nx".into(), "status_4xx, end"),
        ("HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\nx".into(), "status_5xx, end"),
        ("HTTP/1.1 999 X\r\nContent-Length: 1\r\n\r\nx".into(), "status_5xx, end"),
        ("HTTP/1.1 204 No\r\n\r\n".repeat(2), "ok, ok, end"),
        ("HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n".repeat(2), "ok, ok, end"),
        (ok("\r\neverything until the end"), "end makes ok last"),
        ("HTTP/1.0 500 X\r\n\r\n".into(), "end makes status_5xx last"),
        (ok("Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"), "end makes ok last"),
        (ok("Transfer-Encoding: chunked, gzip\r\n\r\n"), "end makes ok last"),
        (ok("Connection: close\r\nContent-Length: 2\r\n\r\nhi"), "ok last, end"),
        (ok("Connection: x, CLOSE\r\nContent-Length: 0\r\n\r\n"), "ok last, end"),
        (ok("Connection: closed\r\nContent-Length: 0\r\n\r\n"), "ok, end"),
        (ok("Connection: keep-alive, close\r\nContent-Length: 0\r\n\r\n"), "ok last, end"),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".into(), "ok last, end"),
        ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nhi".into(), "ok, end"),
        (chunked("0\r\n\r\n"), "ok, end"),
        (chunked("5\r\nhello\r\n0\r\n\r\n").repeat(2), "ok, ok, end"),
        (chunked("5;a=b;c=\"d\"\r\nhello\r\n00A \r\n0123456789\r\n000\r\n\r\n"), "ok, end"),
        (chunked("1\r\nx\r\n0\r\nTrailer: v\r\nOther:\r\n\r\n"), "ok, end"),
        (chunked(&long_extension), "ok, end"),
        (ok("Transfer-Encoding: gzip\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"), "ok, end"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(16) + &ok("Content-Length: 0\r\n\r\n"), "ok, end"),
        ("HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n".into(), "status_4xx, end"),
    ];
    let table: Vec<(&str, &str)> = table.iter().map(|(stream, expected)| (stream.as_str(), *expected)).collect();
    check_replies("GET", &table);
}

/// A line that goes on in the next one is as good as with blanks in place of its end (RFC 9112, 5.2).
#[test]
fn folded_lines_are_blanks() {
    let table: &[(&str, &str)] = &[
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nhi", "ok, end"),
        ("HTTP/1.1 200 OK\r\nX:\r\n\ta\r\n \t b\r\n\r\n", "end makes ok last"),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nhi", "ok, end"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n \r\n\r\nhi", "ok, end"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n 2\r\n\r\nhi", "malformed"),
        ("HTTP/1.1 200 OK\r\nConnection: x,\r\n close\r\nContent-Length: 2\r\n\r\nhi", "ok last, end"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip,\r\n\tchunked\r\n\r\n0\r\n\r\n", "ok, end"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\tc\r\nY:\r\n d\r\n\r\n", "ok, end"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n \0\r\n\r\n", "malformed"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n \0\r\n\r\n", "malformed"),
    ];
    check_replies("GET", table);
}

/// What is said on a connection where nothing was asked, cut anywhere.
#[test]
fn a_server_may_say_that_it_closes_an_idle_connection() {
    use loadgen_core::protocol::Unasked::{self, Farewell, More, Nothing, TurnedAway};
    let client = http::PROTOCOL.codec(&options(64)).unwrap();
    let table: &[(&str, Unasked)] = &[
        ("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 2\r\n\r\n", Farewell),
        ("HTTP/1.0 408 Request Time-out\r\nContent-Type: text/html\r\n\r\n", Farewell),
        ("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", Farewell),
        ("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\r\n", TurnedAway),
        ("HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", TurnedAway),
        ("HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\n", Nothing),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Nothing),
        ("HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n", Nothing),
    ];
    for (said, meaning) in table {
        for end in 0..said.len() {
            assert_eq!(client.unasked(&said.as_bytes()[..end]), More, "{:?}", &said[..end]);
        }
        assert_eq!(client.unasked(said.as_bytes()), *meaning, "{said:?}");
        assert_eq!(client.unasked(format!("{said}hi").as_bytes()), *meaning, "{said:?}");
    }
    assert_eq!(client.unasked(b"garbage"), Nothing);
}

#[test]
fn bad_replies() {
    let chunked = |body: &str| ok(&format!("Transfer-Encoding: chunked\r\n\r\n{body}"));
    let length = |value: &str| ok(&format!("Content-Length: {value}\r\n\r\nhello"));
    let table: Vec<(String, &str)> = vec![
        ("garbage".into(), "malformed"),
        ("\r\nHTTP/1.1 204 No\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 2x0 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 099 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 20 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1  200 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/1.2 200 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/2 200 OK\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 101 Switch\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(17), "too_large"),
        ("HTTP/1.1 100 Continue\r\n\r\n".into(), "truncated"),
        ("H".into(), "truncated"),
        (ok("X: y\r\n"), "truncated"),
        (ok("Content-Length: 6\r\n\r\nhello"), "truncated"),
        (chunked("5\r\nhello\r\n0\r\n"), "truncated"),
        (ok(" X: a\r\n\r\n"), "malformed"),
        (ok("X : a\r\n\r\n"), "malformed"),
        (ok(": a\r\n\r\n"), "malformed"),
        (ok("no colon\r\n\r\n"), "malformed"),
        (ok("X: a\0b\r\n\r\n"), "malformed"),
        (ok("X: a\rb\r\n\r\n"), "malformed"),
        (length("+5"), "malformed"),
        (length("-5"), "malformed"),
        (length("0x5"), "malformed"),
        (length("5 5"), "malformed"),
        (length("5, 6"), "malformed"),
        (length("5,"), "malformed"),
        (length(""), "malformed"),
        (length("18446744073709551616"), "malformed"),
        (length("5\r\nContent-Length: 6"), "malformed"),
        (length("5\r\nTransfer-Encoding: chunked"), "malformed"),
        (ok("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"), "malformed"),
        (ok("Transfer-Encoding:\r\n\r\n"), "malformed"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello".into(), "ok, malformed"),
        (length("4"), "ok, malformed"),
        (chunked("\r\n"), "malformed"),
        (chunked("x\r\n"), "malformed"),
        (chunked("-1\r\n"), "malformed"),
        (chunked("0x5\r\n"), "malformed"),
        (chunked("5 5\r\n"), "malformed"),
        (chunked("5\nhello"), "malformed"),
        (chunked("5\rhello"), "malformed"),
        (chunked("5;a\nhello"), "malformed"),
        (chunked("5;\0\r\n"), "malformed"),
        (chunked("5\r\nhello0\r\n\r\n"), "malformed"),
        (chunked("5\r\nhello\n0\r\n\r\n"), "malformed"),
        (chunked("ffffffffffffffff\r\n"), "truncated"),
        (chunked("10000000000000000\r\n"), "malformed"),
        (chunked("0\r\n folded\r\n\r\n"), "malformed"),
        (chunked("0\r\nno colon\r\n\r\n"), "malformed"),
        (chunked("0\r\nX: \0\r\n\r\n"), "malformed"),
        (chunked(&"0".repeat(5000)), "too_large"),
        (chunked(&format!("5;{}", "x".repeat(5000))), "too_large"),
        (chunked(&format!("0\r\n{}", "X: y\r\n".repeat(4000))), "too_large"),
        (ok(&format!("{}\r\n", "X: y\r\n".repeat(129))), "too_large"),
        (ok(&format!("X: {}", "y".repeat(70_000))), "too_large"),
        ("HTTP/1.1 200 ".to_owned() + &"O".repeat(70_000), "too_large"),
        // Whatever is behind the limit, and however much of it arrives at once
        (ok(&format!("X: {}\0", "y".repeat(70_000))), "too_large"),
        (ok(&format!("X: {}\r\n\r\n", "y".repeat(70_000))), "too_large"),
    ];
    let table: Vec<(&str, &str)> = table.iter().map(|(stream, expected)| (stream.as_str(), *expected)).collect();
    check_replies("GET", &table);
}

#[test]
fn replies_to_head_have_no_body() {
    check_replies(
        "HEAD",
        &[
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 404 X\r\n\r\n", "ok, status_4xx, end"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "ok, end"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "ok, malformed"),
        ],
    );
}

/// What a server answers to the pieces of a stream, in words: statuses, then what it waits for.
fn answered(pieces: &[&[u8]], room: usize) -> (String, ServerCaller) {
    let server = (http::PROTOCOL.server)(&ServerOptions { size: 10, ..ServerOptions::default() }).unwrap();
    let mut server = ServerCaller::new(server, room, usize::MAX);
    pieces.iter().for_each(|piece| server.feed(piece));
    let sent = String::from_utf8_lossy(&server.sent);
    let mut words: Vec<&str> = sent.split("HTTP/1.1 ").skip(1).map(|reply| &reply[..3]).collect();
    words.push(match server.next {
        Next::Read => "read",
        Next::Flush => "flush",
        Next::Close => "close",
        Next::Reject => "reject",
    });
    (words.join(" "), server)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\n";

#[test]
fn requests_and_what_the_server_answers() {
    let get = |rest: &str| format!("{GET}{rest}\r\n");
    let post = |rest: &str| format!("{POST}{rest}");
    let path = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let table: Vec<(String, &str)> = vec![
        (get(""), "200 read"),
        (get("").repeat(4), "200 200 200 200 read"),
        (format!("\r\n\r\n{}", get("")), "200 read"),
        (get("").replace("\r\n", "\n"), "200 read"), // LF alone ends a line (RFC 9112, 2.2)
        (path("/status/404"), "404 read"),
        (path("/status/204").repeat(2), "204 204 read"),
        (path("/status/700"), "404 read"),
        (path("/bytes/99999999999999999999"), "404 read"),
        (path("/chunked/3"), "200 read"),
        (path("http://a/status/503"), "503 read"),
        (path("HTTP://a?/status/503"), "200 read"),
        // Of another scheme: well formed, and not ours.
        (path("ftp://a/") + &path("/"), "421 200 read"),
        (path("https://a/").repeat(2), "421 421 read"),
        (path("ws://a/").replace("GET", "BREW"), "421 read"),
        (path("//https://a/"), "200 read"),
        (path("http://[v1.x:y]/"), "200 read"),
        (path("/#/status/503"), "400 reject"),
        (path("http://a/#f"), "400 reject"),
        (path("http://u:p@a/"), "400 reject"),
        (path("http:///status/503"), "400 reject"),
        ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2), "501 501 read"),
        ("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n".into(), "200 read"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(), "501 read"),
        (get("").replace("Host: a", "Host: [::1]:8080 "), "200 read"),
        // A later minor version is answered as the last that we know.
        (get("").replace("1.1", "1.2").repeat(2), "200 200 read"),
        (format!("\r\n{}", get("").replace("1.1", "1.9")), "200 read"),
        (path("/chunked/3").replace("1.1", "1.7"), "200 read"),
        (get("Connection: close\r\n") + &get(""), "200 close"),
        ("GET / HTTP/1.0\r\n\r\n".into(), "200 close"),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n".repeat(2), "200 200 read"),
        (post("Content-Length: 5\r\n\r\nhello").repeat(2), "200 200 read"),
        (post("Content-Length: 5\r\n\r\nhell"), "read"),
        (post("Content-Length: 0\r\nExpect: 100-continue\r\n\r\n"), "200 read"),
        (post("Content-Length: 2\r\nExpect: 100-Continue\r\n\r\nhi"), "100 200 read"),
        (post("Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"), "100 read"),
        (post("Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n"), "100 200 read"),
        (post("Transfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n").repeat(2), "200 200 read"),
    ];
    check(&table);
}

#[test]
fn requests_that_the_server_refuses() {
    let path = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let get = |rest: &str| format!("{GET}{rest}\r\n");
    let post = |rest: &str| format!("{POST}{rest}");
    let table: Vec<(String, &str)> = vec![
        ("GET / HTTP/1.1\r\n\r\n".into(), "400 reject"),
        (get("Host: b\r\n"), "400 reject"),
        (get("").replace("Host: a", "Host: a b/c@d"), "400 reject"),
        (get("").replace("Host: a", "Host: u@a"), "400 reject"),
        (get("").replace("Host: a", "Host: a:65536"), "400 reject"),
        (get("").replace("Host: a", "Host: [::1"), "400 reject"),
        ("GET / HTTP/1.0\r\nHost: a b\r\n\r\n".into(), "400 reject"),
        ("GET / HTTP/1.2\r\n\r\n".into(), "400 reject"),
        (get("").replace("1.1", "1.10"), "400 reject"),
        (path("foo"), "400 reject"),
        (path("*"), "400 reject"),
        (path("a:80"), "400 reject"),
        (path("/a#b"), "400 reject"),
        (path("/\u{e9}"), "400 reject"),
        (path("/?\u{e9}"), "400 reject"),
        (path("http://a/\u{e9}"), "400 reject"),
        // One answer for a Host line and for what stands in its place.
        (get("").replace("Host: a", "Host: a:0"), "400 reject"),
        (path("http://a:0/"), "400 reject"),
        (get("").replace("Host: a", "Host: :80"), "400 reject"),
        (path("http://:80/"), "400 reject"),
        (get("").replace("Host: a", "Host: <a>"), "400 reject"),
        (path("http://<a>/"), "400 reject"),
        (path("a:0").replace("GET", "CONNECT"), "400 reject"),
        (path("/a\u{1}b"), "400 reject"),
        (path("/a\u{7f}b"), "400 reject"),
        (path("/").replace("GET", "CONNECT"), "400 reject"),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400 reject"),
        ("GET /\r\n\r\n".into(), "400 reject"),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400 reject"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), "400 reject"),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), "400 reject"),
        ("\x16\x03\x01\x02".into(), "400 reject"),
        (get("X : y\r\n"), "400 reject"),
        (get("X: y\r\n z\r\n"), "400 reject"),
        (get(" X: y\r\n"), "400 reject"),
        (get("X: a\rb\r\n"), "400 reject"),
        (get("X: a\0b\r\n"), "400 reject"),
        (get(&"X: y\r\n".repeat(128)), "431 reject"),
        (get(&format!("X: {}\r\n", "y".repeat(70_000))), "431 reject"),
        (get(&format!("X: {}\0\r\n", "y".repeat(70_000))), "431 reject"),
        // Smuggling: what two parsers could read in two ways
        (post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"), "400 reject"),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG"), "400 reject"),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), "400 reject"),
        (post("Content-Length: 5, 6\r\n\r\nhello"), "400 reject"),
        (post("Content-Length: +5\r\n\r\nhello"), "400 reject"),
        (post("Content-Length : 5\r\n\r\nhello"), "400 reject"),
        (post("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), "400 reject"),
        (post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), "400 reject"),
        (post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), "400 reject"),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), "400 reject"),
        (post("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), "501 reject"),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), "400 reject"),
        (post("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n"), "400 reject"),
        (post("Transfer-Encoding: chunked\r\n\r\n5\nhello"), "400 reject"),
        (post("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello"), "400 reject"),
        (post("Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n"), "400 reject"),
        (get("") + &get("X : y\r\n"), "200 400 reject"),
    ];
    check(&table);
}

/// Each stream, whole and cut in two at each place, is answered by these words.
fn check(table: &[(String, &str)]) {
    for (stream, expected) in table {
        let stream = stream.as_bytes();
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(200)]);
        let (words, whole) = answered(&[stream], 4096);
        assert_eq!(words, *expected, "{shown:?}");
        for at in cuts(stream) {
            let (words, cut) = answered(&[&stream[..at], &stream[at..]], MIN_OUTPUT);
            assert_eq!(words, *expected, "{shown:?} cut at {at}");
            assert!(cut.sent == whole.sent, "{shown:?} cut at {at}");
            assert_eq!((cut.requests, cut.replies), (whole.requests, whole.replies), "{shown:?} cut at {at}");
        }
        let finals = words.split(' ').filter(|word| word.starts_with(['2', '4', '5']) && *word != "100").count();
        let rejected = usize::from(words.ends_with("reject"));
        assert_eq!(whole.replies as usize, finals - rejected, "{shown:?}");
        assert_eq!(whole.requests, whole.replies, "{shown:?}");
    }
}

#[test]
fn bodies_of_any_size_pass_outputs_of_any_size() {
    for size in [0, 1, 9, 255, 256, 16_383, 16_384, 16_385, 32_768, 50_001] {
        for kind in ["bytes", "chunked"] {
            let options = ClientOptions { path: format!("/{kind}/{size}"), ..options(1) };
            let client = http::PROTOCOL.codec(&options).unwrap();
            let stream = client.request().repeat(2);
            let mut client = ClientCaller::new(client);
            for room in [MIN_OUTPUT, 300, 4096, 16_390, 1 << 20] {
                let (words, server) = answered(&[&stream], room);
                assert_eq!(words, "200 200 read", "/{kind}/{size} through {room}");
                let body = server.sent.iter().filter(|byte| **byte == b'x').count();
                let heads = String::from_utf8_lossy(&server.sent).matches("text/plain").count();
                assert_eq!(body, 2 * size + heads, "/{kind}/{size} through {room}");
                client.feed(&server.sent);
            }
            assert_eq!((client.replies.len(), client.finish()), (10, Ended::Between));
        }
    }
}

#[test]
fn what_the_replies_say() {
    let reply = |request: &str| String::from_utf8(answered(&[request.as_bytes()], 4096).1.sent).unwrap();
    let head = "Server: loadgen-server\r\nContent-Type: text/plain\r\n";
    assert_eq!(reply(&format!("{GET}\r\n")), format!("{OK}{head}Content-Length: 10\r\n\r\nxxxxxxxxxx"));
    assert_eq!(reply("HEAD /bytes/7 HTTP/1.1\r\nHost: a\r\n\r\n"), format!("{OK}{head}Content-Length: 7\r\n\r\n"));
    assert_eq!(
        reply("GET /chunked/3 HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{OK}{head}Transfer-Encoding: chunked\r\n\r\n3\r\nxxx\r\n0\r\n\r\n")
    );
    assert_eq!(
        reply("GET /bytes/1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
        format!("{OK}{head}Connection: keep-alive\r\nContent-Length: 1\r\n\r\nx")
    );
    assert_eq!(
        reply("GET /chunked/1 HTTP/1.0\r\n\r\n"),
        format!("{OK}{head}Connection: close\r\nContent-Length: 1\r\n\r\nx")
    );
    assert_eq!(reply("GET /status/204 HTTP/1.1\r\nHost: a\r\n\r\n"), format!("HTTP/1.1 204 No Content\r\n{head}\r\n"));
}
