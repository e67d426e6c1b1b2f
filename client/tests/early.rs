//! Replies that come before their requests have left (RFC 9110, 10.1.1; RFC 9112, 9.3 and 9.5): what is answered need
//! not be sent. The rest leaves, or its connection is closed and the report says so; the books close in any case.

mod common;

use common::{Ended, brief, engine, error_rows, errors, loadgen, scratch, whole};
use loadgen_core::result::Report;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than what the kernel takes of a request nobody reads.
const UNIX_BODY: usize = 400_000;
const TCP_BODY: usize = 16 << 20;

/// What a server does once it has seen the head of a request and answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Reads the rest, and goes on.
    Reads,
    /// Keeps the connection, and never reads again.
    Waits,
    /// Had said that it closes, and does.
    Closes,
    /// Breaks the connection.
    Resets,
}

/// A server on a TCP port or a unix socket that answers from the head.
struct Early {
    target: String,
    answered: Arc<AtomicU64>,
    /// Requests that were received to their end.
    whole: Arc<AtomicU64>,
    _folder: Option<TempDir>,
}

trait Stream: Read + Write + Send {
    fn end(&mut self);
    fn reset(&mut self);
}

impl Stream for TcpStream {
    fn end(&mut self) {
        // The other side may be gone already.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {
        loadgen_core::sys::socket::reset_on_close(self.as_fd()).unwrap();
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn end(&mut self) {
        // Likewise.
        let _ = self.shutdown(Shutdown::Write);
    }

    fn reset(&mut self) {}
}

impl Early {
    fn tcp(status: &'static str, then: Then) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = format!("http://{}/", listener.local_addr().unwrap());
        let (answered, whole) = (Arc::default(), Arc::default());
        let counts = (Arc::clone(&answered), Arc::clone(&whole));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let counts = counts.clone();
                thread::spawn(move || talk(&mut stream.unwrap(), status, then, &counts));
            }
        });
        Self { target, answered, whole, _folder: None }
    }

    fn unix(status: &'static str, then: Then) -> Self {
        let folder = scratch();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let target = format!("unix:{}", path.display());
        let (answered, whole) = (Arc::default(), Arc::default());
        let counts = (Arc::clone(&answered), Arc::clone(&whole));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let counts = counts.clone();
                thread::spawn(move || talk(&mut stream.unwrap(), status, then, &counts));
            }
        });
        Self { target, answered, whole, _folder: Some(folder) }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    fn whole(&self) -> u64 {
        self.whole.load(Ordering::SeqCst)
    }
}

fn talk(stream: &mut dyn Stream, status: &str, then: Then, (answered, whole): &(Arc<AtomicU64>, Arc<AtomicU64>)) {
    while let Some(length) = head(stream) {
        let close = if then == Then::Closes { "Connection: close\r\n" } else { "" };
        answered.fetch_add(1, Ordering::SeqCst);
        if stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n{close}\r\nhi").as_bytes()).is_err() {
            return;
        }
        match then {
            Then::Reads => {
                if std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok() != Some(length) {
                    return;
                }
                whole.fetch_add(1, Ordering::SeqCst);
            }
            Then::Waits => return thread::sleep(Duration::from_secs(20)),
            Then::Closes => {
                stream.end();
                // It reads nothing more, and a reset would destroy the reply on its way.
                return thread::sleep(Duration::from_secs(2));
            }
            Then::Resets => {
                // The reply is to arrive before the reset destroys it.
                thread::sleep(Duration::from_millis(20));
                return stream.reset();
            }
        }
    }
}

/// Receives a head, byte by byte, and says how long its body is.
fn head(stream: &mut dyn Stream) -> Option<u64> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    Some(length.map_or(0, |length| length.parse().unwrap()))
}

fn run(server: &Early, body: usize, more: &[&str]) -> Ended {
    let folder = scratch();
    let file = folder.path().join("body");
    std::fs::write(&file, vec![b'x'; body]).unwrap();
    let body = format!("@{}", file.display());
    let common = ["--target", &server.target, "--protocol", "http", "-X", "POST", "--body", &body];
    let ended = loadgen(&[&common[..], more].concat());
    assert!(!ended.stderr.contains("panicked"), "{more:?}: {}", ended.stderr);
    assert!(ended.has_report(), "{more:?}: {}", ended.stderr);
    ended
}

fn cut_off(report: &Report) -> u64 {
    report.connections.requests_cut_off
}

#[test]
fn the_rest_of_an_answered_request_leaves_before_the_next_one() {
    for (status, code) in [("200 OK", 0), ("401 Unauthorized", 4), ("413 Content Too Large", 4)] {
        for unix in [true, false] {
            let server = if unix { Early::unix(status, Then::Reads) } else { Early::tcp(status, Then::Reads) };
            let body = if unix { UNIX_BODY } else { TCP_BODY };
            let ended = run(&server, body, &["-n", "4", "-c", "1"]);
            let report = ended.expect(code);
            let shown = brief(report);
            assert_eq!((whole(report).sent, whole(report).unsent, cut_off(report)), (4, 0, 0), "{status}: {shown}");
            let answered = whole(report).ok + errors(report, "status_4xx");
            assert_eq!((answered, server.answered()), (4, 4), "{status}: {shown}");
            // The last one is waited for, too.
            assert_eq!((server.whole(), report.connections.closed), (4, 1), "{status}: {shown}");
        }
    }
}

/// How requests come about makes no difference: by a schedule, after a thought, in a script, several at once, on
/// connections that are soon replaced, from several threads.
#[test]
fn every_load_survives_early_replies() {
    let folder = scratch();
    let file = folder.path().join("scenario.toml");
    let body = "x".repeat(UNIX_BODY);
    let text = format!(
        "[[request]]\nname = 'a'\nmethod = 'POST'\npath = '/{{counter}}'\nbody = '{body}'\n\
         [[script]]\nname = 's'\nsteps = ['a', {{ request = 'a', think = 'fixed:5ms' }}]\n"
    );
    std::fs::write(&file, text).unwrap();
    let window = ["--duration", "400ms", "--warmup", "100ms"];
    let loads: &[&[&str]] = &[
        &["-c", "4"],
        &["-c", "4", "--pipeline", "4"],
        &["-c", "4", "--threads", "2"],
        &["-c", "4", "--rate", "200"],
        &["-c", "4", "--rate", "200", "--pipeline", "4"],
        &["-c", "4", "--think", "fixed:5ms"],
        &["-c", "4", "--requests-per-conn", "3"],
        &["-c", "4", "--in-flight", "2"],
        &["-c", "4", "--rate", "50", "--session-requests", "3"],
        &["-c", "4", "--rate", "50", "--session-requests", "3", "--session-conn", "new"],
    ];
    for load in loads {
        let server = Early::unix("200 OK", Then::Reads);
        let ended = run(&server, UNIX_BODY, &[load, &window[..]].concat());
        let report = ended.report();
        let shown = brief(report);
        assert!(whole(report).ok > 0 && whole(report).errors.is_empty(), "{load:?}: {shown}");
        assert_eq!((cut_off(report), report.connections.lost), (0, 0), "{load:?}: {shown}");
        assert_eq!((server.answered(), server.whole()), (whole(report).ok, whole(report).ok), "{load:?}: {shown}");
        // Sent is the first byte, so that service begins before the reply.
        assert!(report.latency.service.as_ref().is_some_and(|service| service.min_ns > 0), "{load:?}");
    }
    let server = Early::unix("200 OK", Then::Reads);
    let file = file.display().to_string();
    let ended = loadgen(
        &[&["--target", &server.target, "--protocol", "http", "--scenario", &file, "-c", "4"], &window[..]].concat(),
    );
    let report = ended.report();
    assert!(whole(report).ok > 0 && whole(report).errors.is_empty(), "{} {}", ended.stderr, brief(report));
    assert_eq!((cut_off(report), server.whole()), (0, whole(report).ok), "{}", brief(report));
}

#[test]
fn a_rest_that_never_leaves_has_a_deadline_and_is_told() {
    for (unix, load) in [
        (true, &["-n", "3", "-c", "1"][..]),
        (false, &["-n", "3", "-c", "1"]),
        (true, &["-c", "2", "--rate", "20", "--duration", "600ms", "--warmup", "0s"]),
        (true, &["-c", "2", "--think", "fixed:10s", "--duration", "1500ms", "--warmup", "0s"]),
        (true, &["-c", "2", "--pipeline", "4", "--duration", "600ms", "--warmup", "0s"]),
    ] {
        let server = if unix { Early::unix("200 OK", Then::Waits) } else { Early::tcp("200 OK", Then::Waits) };
        let body = if unix { UNIX_BODY } else { TCP_BODY };
        let ended = run(&server, body, &[load, &["--timeout", "500ms"]].concat());
        let report = ended.expect(4);
        let shown = brief(report);
        assert!(whole(report).ok > 0 && whole(report).ok == server.answered(), "{load:?}: {shown}");
        // Each answered one but those of the drain.
        assert!(cut_off(report) > 0 && cut_off(report) <= whole(report).ok, "{load:?}: {shown}");
        assert!(error_rows(report, "timeout") > 0, "{load:?}: {shown}");
        let told = report.errors.iter().find(|row| row.kind == "timeout").unwrap();
        assert!(told.first.contains("500 ms (--timeout)"), "{load:?}: {told:?}");
        assert!(ended.stdout.contains("cut off"), "{load:?}: {}", ended.stdout);
    }
}

#[test]
fn a_server_that_closes_behind_an_early_reply_cuts_off_its_request_without_an_error() {
    for unix in [true, false] {
        let server = if unix { Early::unix("200 OK", Then::Closes) } else { Early::tcp("200 OK", Then::Closes) };
        let body = if unix { UNIX_BODY } else { TCP_BODY };
        let often = ["-c", "2", "--duration", "300ms", "--warmup", "0s", "--connect-rate", "100"];
        for load in [&["-n", "5", "-c", "2"][..], &often] {
            let ended = run(&server, body, load);
            let report = ended.expect(0);
            let shown = brief(report);
            assert!(whole(report).ok > 0 && report.errors.is_empty(), "{load:?}: {shown}");
            assert_eq!(whole(report).ok, report.connections.closed_by_server, "{load:?}: {shown}");
            assert_eq!(cut_off(report), whole(report).ok, "{load:?}: {shown}");
        }
    }
}

#[test]
fn a_connection_that_breaks_behind_an_early_reply_is_lost_and_the_run_goes_on() {
    for unix in [true, false] {
        let server = if unix { Early::unix("200 OK", Then::Resets) } else { Early::tcp("200 OK", Then::Resets) };
        let body = if unix { UNIX_BODY } else { TCP_BODY };
        for load in [
            &["-c", "2", "--duration", "500ms", "--warmup", "0s"][..],
            &["-c", "2", "--pipeline", "4", "--duration", "500ms", "--warmup", "0s"],
            &["-c", "2", "--rate", "50", "--duration", "500ms", "--warmup", "0s"],
        ] {
            let ended = run(&server, body, load);
            let report = ended.report();
            let shown = brief(report);
            let broken = report.connections.lost + report.connections.closed_by_server;
            assert!(whole(report).ok > 1 && broken > 0, "{load:?}: {shown}");
            // A ring takes several requests at once, and then they fail together.
            let together = engine() == "io_uring" && load.contains(&"--pipeline");
            assert!(cut_off(report) > 0 || together && errors(report, "closed") > 0, "{load:?}: {shown}");
        }
    }
}

/// A reply to which not a byte of a request has left answers nothing.
#[test]
fn a_reply_before_the_first_byte_of_its_request_is_unexpected() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}/", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                // Two replies to one head; of the second request nothing can have left.
                if head(&mut stream).is_some() {
                    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                    // It may have been closed in between.
                    let _ = stream.write_all(reply.repeat(2).as_bytes());
                    thread::sleep(Duration::from_secs(5));
                }
            });
        }
    });
    let server = Early { target, answered: Arc::default(), whole: Arc::default(), _folder: None };
    let ended = run(&server, TCP_BODY, &["-n", "4", "-c", "1"]);
    let report = ended.expect(4);
    assert!(error_rows(report, "unexpected") > 0, "{}", brief(report));
    assert_eq!(errors(report, "unexpected"), 0, "no request failed by it: {}", brief(report));
}
