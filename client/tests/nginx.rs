//! nginx as the judge: its access log and its counters say what was really answered.

mod common;

use common::nginx::Process;
use common::{
    Ended, HARD_LIMIT, Running, SHORT, assert_accepted, brief, eventually, have, loadgen_at, scratch, series, signal,
    wait_for, whole,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use tempfile::TempDir;

/// Bytes of the static file.
const FILE: usize = 65_536;

/// An nginx in a folder of its own.
struct Nginx {
    process: Process,
    _folder: TempDir,
}

/// One line of the access log.
#[derive(Debug)]
struct Line {
    status: u32,
    body_bytes: usize,
    complete: bool,
    uri: String,
}

impl Nginx {
    /// `None`: there is none here.
    fn start(extra: &str) -> Option<Self> {
        if !have("nginx") {
            return None;
        }
        let folder = scratch();
        let root = folder.path();
        std::fs::write(root.join("file"), vec![b'x'; FILE]).unwrap();
        std::fs::write(root.join("page.html"), format!("<p>{}</p>", "y".repeat(5_000))).unwrap();
        let log = "$status $body_bytes_sent $request_completion $request_uri";
        let process = Process::start(root, log, |address| site(root, address, extra));
        Some(Self { process, _folder: folder })
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.process.address)
    }

    /// A request as bytes, and the whole answer.
    fn raw(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.process.address).unwrap();
        stream.set_read_timeout(Some(HARD_LIMIT)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    /// accepts, handled, requests: this very question counts in all three.
    fn status(&self) -> [u64; 3] {
        let text = self.raw("GET", "/nginx_status");
        let line = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1).unwrap();
        let numbers: Vec<u64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        numbers.try_into().unwrap()
    }

    /// Lines of the access log that are of loadgen's requests.
    fn log(&self) -> Vec<Line> {
        self.process.log().lines().map(Line::parse).filter(|line| line.uri != "/nginx_status").collect()
    }

    fn wait_for_lines(&self, count: usize) {
        eventually("lines in the log", || self.process.log().lines().count() > count);
    }

    fn worker(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.process.master.id());
        std::fs::read_to_string(children).unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Runs loadgen at `path` and holds its figures against the log and the counters; all replies have `status`.
    fn judge(&self, path: &str, args: &[&str], status: u32) -> (Ended, usize) {
        let [accepts, handled, requests] = self.status();
        let logged = self.log().len();
        let ended = loadgen_at(&self.url(path), args);
        let after = self.status();
        let report = ended.report();
        let whole = whole(report);
        let answered = whole.ok + whole.errors.get("status_4xx").unwrap_or(&0);
        let lines = self.log().split_off(logged);
        let right = lines.iter().filter(|line| line.status == status && line.complete).count();
        assert_eq!((answered, whole.sent), (right as u64, lines.len() as u64), "{}", brief(report));
        assert_eq!(after[2] - requests, whole.sent + 1, "{}", brief(report));
        // One is the look at the counters.
        assert_accepted(report, after[0] - accepts - 1);
        assert_eq!(after[0] - accepts, after[1] - handled, "{}", brief(report));
        assert!(answered > 50, "{}", brief(report));
        (ended, right)
    }
}

impl Line {
    fn parse(text: &str) -> Self {
        let fields: Vec<&str> = text.split(' ').collect();
        let [status, body_bytes, completion, uri] = fields[..] else { panic!("access log line {text:?}") };
        Self {
            status: status.parse().unwrap(),
            body_bytes: body_bytes.parse().unwrap(),
            complete: completion == "OK",
            uri: uri.to_owned(),
        }
    }
}

fn site(root: &Path, address: SocketAddr, extra: &str) -> String {
    let root = root.display();
    format!(
        r#"    gzip off;
    sendfile on;
    server {{
        listen {address};
        root {root};
        {extra}
        location = /small {{ return 200 "small"; }}
        location = /nginx_status {{ stub_status; }}
        location = /page.html {{ types {{ text/html html; }} sub_filter "<p>" "<b>"; }}
    }}"#
    )
}

#[test]
fn every_reply_of_a_healthy_server_is_in_its_log() {
    let Some(nginx) = Nginx::start("") else { return };
    for (path, pipeline) in [("/file", "1"), ("/small", "1"), ("/small", "8"), ("/page.html", "1"), ("/page.html", "4")]
    {
        let args = ["--conns", "10", "--threads", "2", "--pipeline", pipeline];
        let (ended, lines) = nginx.judge(path, &[&args[..], &SHORT].concat(), 200);
        let report = ended.expect(0);
        assert_eq!(whole(report).ok, lines as u64);
        assert_eq!((report.connections.opened, report.connections.alive_at_end), (10, 10));
        if path == "/file" {
            let body = series(report, "received_bytes") as usize;
            assert!(body > lines * FILE && body < lines * (FILE + 400), "{}", brief(report));
            assert!(nginx.log().iter().all(|line| line.uri != "/file" || line.body_bytes == FILE));
        }
    }
}

#[test]
fn a_chunked_reply_is_one_reply() {
    let Some(nginx) = Nginx::start("") else { return };
    let raw = nginx.raw("GET", "/page.html");
    assert!(raw.contains("Transfer-Encoding: chunked") && !raw.contains("Content-Length"), "{raw}");
    let (ended, _) = nginx.judge("/page.html", &["--conns", "3", "--requests", "300"], 200);
    assert_eq!(whole(ended.expect(0)).ok, 300);
}

#[test]
fn head_and_its_missing_body() {
    let Some(nginx) = Nginx::start("") else { return };
    assert!(nginx.raw("HEAD", "/file").contains(&format!("Content-Length: {FILE}")));
    let args = ["--method", "HEAD", "--conns", "5"];
    let (ended, lines) = nginx.judge("/file", &[&args[..], &SHORT].concat(), 200);
    assert_eq!(whole(ended.expect(0)).ok, lines as u64);
    assert!(nginx.log().iter().all(|line| line.uri != "/file" || line.body_bytes == 0));
}

#[test]
fn what_is_not_found_is_an_error_and_still_counted() {
    let Some(nginx) = Nginx::start("") else { return };
    let (ended, lines) = nginx.judge("/missing", &[&["--conns", "5"][..], &SHORT].concat(), 404);
    let report = ended.expect(4);
    assert_eq!((whole(report).ok, whole(report).errors["status_4xx"]), (0, lines as u64), "{}", brief(report));
    assert_eq!(report.connections.lost, 0);
}

#[test]
fn a_close_that_the_server_announces_is_no_error() {
    let Some(nginx) = Nginx::start("keepalive_requests 100;") else { return };
    let (ended, lines) = nginx.judge("/small", &[&["--conns", "5"][..], &SHORT].concat(), 200);
    let report = ended.expect(0);
    assert_eq!(whole(report).ok, lines as u64);
    // Every connection but the last of each slot carried a hundred.
    let connections = &report.connections;
    assert_eq!(connections.closed_by_server, whole(report).ok / 100 - leftover(report), "{}", brief(report));
    assert!(connections.closed_by_server > 0 && connections.lost == 0, "{}", brief(report));

    let (ended, _) = nginx.judge("/small", &["--conns", "1", "--requests", "1000"], 200);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.connections.closed_by_server, report.connections.opened), (1000, 10, 10));
}

/// Hundreds that the last connections of the slots add up to without having made one of their own.
fn leftover(report: &loadgen_core::result::Report) -> u64 {
    let at_end = whole(report).ok - report.connections.closed_by_server * 100;
    assert!(at_end <= 99 * report.connections.closed, "{}", brief(report));
    at_end / 100
}

#[test]
fn a_churn_is_in_the_log_too() {
    let Some(nginx) = Nginx::start("") else { return };
    let args = ["--conns", "4", "--requests", "700", "--requests-per-conn", "7", "--threads", "2"];
    let (ended, _) = nginx.judge("/small", &args, 200);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.connections.lost), (700, 0));
    assert!((100..104).contains(&report.connections.opened), "{}", brief(report));
}

#[test]
fn connections_that_end_in_a_reset_lose_no_reply() {
    let Some(nginx) = Nginx::start("") else { return };
    let args = ["--conns", "4", "--requests", "600", "--requests-per-conn", "2", "--close", "rst"];
    let (ended, _) = nginx.judge("/small", &args, 200);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.connections.lost), (600, 0));
    assert!(report.connections.closed_by_reset >= 300, "{}", brief(report));
}

#[test]
fn users_who_think_and_come_and_go_are_in_the_log_too() {
    let Some(nginx) = Nginx::start("") else { return };
    let args = ["--conns", "40", "--rate", "200", "--session-requests", "2..5", "--think", "exp:2ms"];
    let (ended, _) = nginx.judge("/small", &[&args[..], &["--session-conn", "new"], &SHORT].concat(), 200);
    let report = ended.expect(0);
    let sessions = report.sessions.as_ref().unwrap();
    assert!(sessions.closes() && sessions.arrived == 80 && sessions.broken == 0, "{sessions:?}");
}

#[test]
fn a_fast_shutdown_half_way_loses_nothing_that_was_answered() {
    for path in ["/small", "/file"] {
        let Some(mut nginx) = Nginx::start("") else { return };
        let run = Running::start(
            &[
                &["--target", &nginx.url(path), "--conns", "10", "--timeout", "500ms"],
                &["--duration", "3s", "--warmup", "100ms"][..],
            ]
            .concat(),
        );
        nginx.wait_for_lines(200);
        signal(nginx.process.master.id(), "TERM");
        wait_for(&mut nginx.process.master, HARD_LIMIT, "nginx");
        let ended = run.wait();
        let report = ended.expect(4);
        let complete = nginx.log().iter().filter(|line| line.status == 200 && line.complete).count();
        let shown = format!("{complete} lines; {}", brief(report));
        assert_eq!(whole(report).ok, complete as u64, "{shown}");
        assert!(complete > 50 && report.connections.failed["refused"] > 0, "{shown}");
    }
}

#[test]
fn a_worker_that_dies_is_replaced_and_the_run_goes_on() {
    let Some(nginx) = Nginx::start("") else { return };
    let run = Running::start(
        &[
            &["--target", &nginx.url("/small"), "--conns", "10", "--timeout", "1s"],
            &["--duration", "3s", "--warmup", "100ms"][..],
        ]
        .concat(),
    );
    nginx.wait_for_lines(200);
    let (first, before) = (nginx.worker(), nginx.log().len());
    signal(first, "KILL");
    let ended = run.wait();
    assert_ne!(nginx.worker(), first);
    let report = ended.expect(4);
    let lines = nginx.log();
    let shown = format!("{} lines, {before} before; {}", lines.len(), brief(report));
    // It may have died between the last write and its line in the log.
    assert!(whole(report).ok.abs_diff(lines.len() as u64) <= 1, "{shown}");
    assert!(lines.len() > before + 100, "the run goes on: {shown}");
    assert!(report.connections.lost + report.connections.closed_by_server >= 10, "{shown}");
    assert_eq!(report.connections.alive_at_end, 10, "{shown}");
}

/// curl, as a second opinion on what a reply is.
#[test]
fn curl_sees_the_same_replies() {
    let Some(nginx) = Nginx::start("") else { return };
    if !have("curl") {
        return;
    }
    for (path, method) in [("/small", "GET"), ("/page.html", "GET"), ("/file", "GET")] {
        let format = "%{size_header} %{size_download}";
        let url = nginx.url(path);
        let args = ["-s", "-o", "/dev/null", "-w", format, "-X", method, "-H", "Connection:", &url];
        let out = common::command("curl").args(args).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let sizes: Vec<u64> = text.split(' ').map(|number| number.parse().unwrap()).collect();
        let ended = loadgen_at(&url, &["--requests", "50", "--conns", "5"]);
        let report = ended.expect(0);
        let received = series(report, "received_bytes");
        // Chunked, curl does not count the frames: `2000 CRLF` and the like, a few bytes for each chunk.
        let least = 50 * (sizes[0] + sizes[1]);
        assert!(received >= least && received <= least + 50 * 64, "{path}: curl {sizes:?}, loadgen {received} for 50");
    }
}
