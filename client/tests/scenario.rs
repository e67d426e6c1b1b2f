//! Scenario files in whole runs: what was asked for is what a server's log has.

mod common;

use common::nginx::Process;
use common::scenario::{MIX, dumped, in_folder, kinds, with_file};
use common::{
    Ended, Running, SHORT, Server, agrees, agrees_with_embedded, brief, clean, eventually, have, loadgen, scratch,
    whole,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tempfile::TempDir;

/// An nginx that says of each request on which connection it came.
struct Nginx {
    process: Process,
    _folder: TempDir,
}

/// A line of its log.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    connection: u64,
    method: String,
    uri: String,
    /// Bytes of the request, head and body.
    length: u64,
    status: u32,
}

impl Nginx {
    /// `None`: there is none here.
    fn start() -> Option<Self> {
        if !have("nginx") {
            return None;
        }
        let folder = scratch();
        let log = "$connection $request_method $request_uri $request_length $http_content_length $status";
        let site = |address| format!("server {{ listen {address}; location / {{ return 200 \"small\"; }} }}");
        Some(Self { process: Process::start(folder.path(), log, site), _folder: folder })
    }

    fn url(&self) -> String {
        format!("http://{}", self.process.address)
    }

    fn log(&self) -> Vec<Line> {
        self.process.log().lines().map(Line::parse).collect()
    }

    /// Runs the scenario `text`, and answers what came of it, here and in the log: all was answered, and the log has
    /// each request and byte.
    fn judge(&self, text: &str, args: &[&str]) -> (Ended, Vec<Line>) {
        let logged = self.log().len();
        let folder = with_file("scenario.toml", text);
        let file = in_folder(&folder, "scenario.toml");
        let ended = loadgen(&[&["--scenario", &file, "--target", &self.url()], args].concat());
        let report = ended.expect(0);
        clean(report);
        let sent = whole(report).sent as usize;
        eventually("all requests in the log", || self.log().len() >= logged + sent);
        let lines = self.log().split_off(logged);
        assert_eq!(lines.len(), sent, "{}", brief(report));
        assert!(lines.iter().all(|line| line.status == 200), "{lines:?}");
        let bytes: u64 = lines.iter().map(|line| line.length).sum();
        assert_eq!(bytes, report.throughput.whole_run_sent_bytes, "{}", brief(report));
        (ended, lines)
    }
}

impl Line {
    fn parse(text: &str) -> Self {
        let fields: Vec<&str> = text.split(' ').collect();
        let [connection, method, uri, head, body, status] = fields[..] else { panic!("access log line {text:?}") };
        Self {
            connection: connection.parse().unwrap(),
            method: method.to_owned(),
            uri: uri.to_owned(),
            // nginx throws the body away and does not count it.
            length: head.parse::<u64>().unwrap() + body.parse().unwrap_or(0),
            status: status.parse().unwrap(),
        }
    }

    /// `/item/5` is of kind `item`.
    fn kind(&self) -> &str {
        self.uri.split(['/', '?']).nth(1).unwrap()
    }
}

fn counts<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word.to_owned()).or_insert(0) += 1);
    counts
}

#[test]
fn a_mix_is_in_the_log_kind_by_kind() {
    let Some(nginx) = Nginx::start() else { return };
    for pipeline in ["1", "4"] {
        let (ended, lines) = nginx.judge(MIX, &["--requests", "6000", "--pipeline", pipeline]);
        let report = ended.report();
        assert_eq!(kinds(report), counts(lines.iter().map(Line::kind)));
        assert_eq!(lines.len(), 6000);
        let methods = [("item", "GET"), ("head", "HEAD"), ("post", "POST")];
        assert!(lines.iter().all(|line| methods.contains(&(line.kind(), &line.method))), "{lines:?}");
        for (kind, weight) in [("item", 8.0), ("head", 3.0), ("post", 1.0)] {
            let (p, seen) = (weight / 12.0, kinds(report)[kind] as f64);
            let sigma = (6000.0_f64 * p * (1.0 - p)).sqrt();
            assert!((seen - 6000.0 * p).abs() <= 5.0 * sigma, "{kind}: {seen}");
        }
        let numbers: BTreeSet<&str> = lines.iter().map(|line| line.uri.split(['/', '?']).nth(2).unwrap()).collect();
        assert_eq!(numbers.len(), lines.len(), "a counter counts each number once, over three threads");
        let file = report.scenario.file.as_ref().unwrap();
        let weights: Vec<_> = file.requests.iter().map(|request| (request.name.as_str(), request.weight)).collect();
        assert_eq!((file.name.as_str(), weights), ("mix", vec![("item", 8), ("head", 3), ("post", 1)]));
        assert!(file.scripts.is_empty() && file.hash.len() == 16);
    }
}

const SCRIPTS: &str = r#"
[defaults]
conns = 4
[[request]]
name = "a"
path = "/a"
[[request]]
name = "b"
method = "POST"
path = "/b"
body = "{random:1..1000000}"
[[request]]
name = "c"
path = "/c"
[[request]]
name = "alone"
weight = 1
path = "/alone"
[[script]]
name = "abc"
weight = 2
steps = ["a", "b", "c"]
"#;

/// Holds each connection's requests against the scripts; answers how many scripts were cut short.
fn follow_scripts(lines: &[Line]) -> usize {
    let mut by_connection: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    lines.iter().for_each(|line| by_connection.entry(line.connection).or_default().push(line.kind()));
    let mut cut = 0;
    for kinds in by_connection.values() {
        let mut rest = &kinds[..];
        while !rest.is_empty() {
            let script: &[&str] = if rest[0] == "alone" { &["alone"] } else { &["a", "b", "c"] };
            let length = script.len().min(rest.len());
            assert_eq!(rest[..length], script[..length], "{kinds:?}");
            cut += usize::from(length < script.len());
            rest = &rest[length..];
        }
    }
    cut
}

#[test]
fn a_script_is_followed_on_each_connection_and_begins_anew_on_a_new_one() {
    let Some(nginx) = Nginx::start() else { return };
    let lasting = ["--requests", "2000", "--threads", "2"];
    for more in [&[][..], &["--pipeline", "5"]] {
        let (ended, lines) = nginx.judge(SCRIPTS, &[&lasting[..], more].concat());
        assert!(follow_scripts(&lines) <= 4);
        assert_eq!(kinds(ended.report()), counts(lines.iter().map(Line::kind)));
        let file = ended.report().scenario.file.as_ref().unwrap();
        assert_eq!((file.scripts[0].weight, &file.scripts[0].steps[..]), (2, &["a", "b", "c"].map(str::to_owned)[..]));
        assert_eq!(file.requests.iter().map(|request| request.weight).collect::<Vec<_>>(), [0, 0, 0, 1]);
    }
    let (ended, lines) = nginx.judge(SCRIPTS, &["--requests", "2000", "--requests-per-conn", "4"]);
    assert!(ended.report().connections.opened >= 500);
    assert!(follow_scripts(&lines) > 50, "some scripts are cut by the end of their connection");
    // Sessions end their scripts, too.
    let sessions = ["--rate", "300", "--session-requests", "2", "--session-conn", "new", "--conns", "50"];
    let (_, lines) = nginx.judge(SCRIPTS, &[&sessions[..], &SHORT].concat());
    assert!(lines.iter().all(|line| line.kind() != "c") && follow_scripts(&lines) > 10, "{lines:?}");
}

#[test]
fn steps_have_think_times_of_their_own() {
    let Some(nginx) = Nginx::start() else { return };
    let text = SCRIPTS
        .replace("\"b\", \"c\"]", "{ request = \"b\", think = \"fixed:20ms\" }, \"c\"]")
        .replace("weight = 1", "weight = 0");
    let text =
        text.replace("name = \"alone\"\nweight = 0\npath = \"/alone\"\n", "name = \"d\"\npath = \"/d\"\nweight = 1\n");
    let text = text.replace("weight = 2", "weight = 1000000");
    for churn in [&[][..], &["--requests-per-conn", "6"]] {
        let folder = scratch();
        let log = in_folder(&folder, "requests.csv");
        let args = ["--conns", "1", "--requests", "30", "--request-log", &log];
        let (ended, lines) = nginx.judge(&text, &[&args[..], churn].concat());
        assert_eq!(ended.report().scenario.think.as_deref(), Some("script"));
        let thoughts = lines.iter().filter(|line| line.kind() == "b").count() as u64;
        assert!(thoughts >= 8, "{lines:?}");
        // Between a reply and the request after it lies the think time of that step alone.
        assert!(ended.took >= Duration::from_millis(20 * thoughts), "{:?}", ended.took);
        let rows = times(&log);
        let waits = rows.windows(2).map(|pair| pair[1].0 - pair[0].1).collect::<Vec<u64>>();
        for (line, wait) in lines[1..].iter().zip(waits) {
            assert_eq!(wait, if line.kind() == "b" { 20_000_000 } else { 0 }, "{}", line.uri);
        }
    }
}

/// When each request was due, and when its reply was there.
fn times(log: &str) -> Vec<(u64, u64)> {
    let text = std::fs::read_to_string(log).unwrap();
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let at = |name: &str| columns.iter().position(|column| *column == name).unwrap_or_else(|| panic!("{columns:?}"));
    let (due, ended) = (at("due_ns"), at("received_ns"));
    let number = |fields: &[&str], at: usize| fields[at].parse().unwrap();
    let rows = lines.map(|line| line.split(',').collect::<Vec<_>>());
    rows.map(|fields| (number(&fields, due), number(&fields, ended))).collect()
}

#[test]
fn a_recorded_list_is_played_in_order_and_from_the_start_again() {
    let Some(nginx) = Nginx::start() else { return };
    let folder = with_file("s.toml", "[recorded]\nfile = \"logs/list\"\n");
    std::fs::create_dir(folder.path().join("logs")).unwrap();
    let entry = |n: u32| match n % 3 {
        0 => format!("GET /{n}\n"),
        1 => format!("10.0.0.1 - - [x] \"HEAD /{n} HTTP/1.1\" 200 5\n"),
        _ => format!(
            "{{\"method\": \"PUT\", \"path\": \"/{n}\", \"headers\": {{\"A\": \"b\"}}, \"body\": \"{{key}}é\"}}\n"
        ),
    };
    std::fs::write(folder.path().join("logs/list"), (0..50).map(entry).collect::<String>()).unwrap();
    let file = in_folder(&folder, "s.toml");
    let args = ["--scenario", &file, "--target", &nginx.url(), "--conns", "1", "--requests", "125"];
    let ended = loadgen(&args);
    let report = ended.expect(0);
    clean(report);
    eventually("all requests in the log", || nginx.log().len() >= 125);
    let methods = ["GET", "HEAD", "PUT"];
    let expected: Vec<String> = (0..125).map(|n| n % 50).map(|n| format!("{} /{n}", methods[n % 3])).collect();
    let lines = nginx.log();
    assert_eq!(lines.iter().map(|line| format!("{} {}", line.method, line.uri)).collect::<Vec<_>>(), expected);
    assert_eq!(kinds(report), counts(lines.iter().map(|line| line.method.as_str())));
    assert_eq!(lines.iter().map(|line| line.length).sum::<u64>(), report.throughput.whole_run_sent_bytes);
    let weights: Vec<u64> = report.scenario.file.as_ref().unwrap().requests.iter().map(|of| of.weight).collect();
    assert_eq!(weights, [17, 17, 16]);
}

#[test]
fn the_same_seed_asks_for_the_same_and_another_for_something_else() {
    let Some(nginx) = Nginx::start() else { return };
    let asked = |seed: &str| {
        let args = ["--conns", "1", "--threads", "1", "--requests", "300", "--seed", seed];
        let (ended, lines) = nginx.judge(MIX, &args);
        let lines = lines.into_iter().map(|line| (line.method, line.uri, line.length)).collect::<Vec<_>>();
        (lines, ended.report().scenario.file.clone())
    };
    let (first, again, other) = (asked("5"), asked("5"), asked("6"));
    assert_eq!(first, again);
    assert_ne!(first.0, other.0);
    assert_eq!(first.1, other.1, "the seed is no part of the file");
}

#[test]
fn our_own_server_counts_the_same() {
    let folder = with_file("s.toml", MIX);
    let file = in_folder(&folder, "s.toml");
    for pipeline in ["1", "7"] {
        let server = Server::start(&["--protocol", "http", "--threads", "2"]);
        let target = format!("http://{}", server.target());
        let args = ["--scenario", &file, "--target", &target, "--pipeline", pipeline];
        let ended = loadgen(&[&args[..], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        agrees(report, &server.stop());
        assert_eq!(kinds(report).values().sum::<u64>(), whole(report).ok);
        assert_eq!((report.scenario.threads, report.scenario.connections), (3, 6));
    }
}

#[test]
fn commands_of_a_scenario_go_to_stores() {
    for (protocol, get, set) in
        [("memcached", "get {key}", "set {key} 0 0 {value}"), ("redis", "GET {key}", "SET {key} {value}")]
    {
        let text = format!(
            "[defaults]\nprotocol = \"{protocol}\"\nconns = 5\n[keys]\ncount = 20\nvalue_size = \"8..16\"\n\
             [[request]]\nname = \"read\"\nweight = 9\ncommand = \"{get}\"\n\
             [[request]]\nname = \"write\"\ncommand = \"{set}\"\n"
        );
        let folder = with_file("s.toml", &text);
        let ended = loadgen(&["--scenario", &in_folder(&folder, "s.toml"), "--requests", "3000"]);
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        let (file, sigma) = (report.scenario.file.as_ref().unwrap(), (3000.0_f64 * 0.09).sqrt());
        assert_eq!(file.requests.iter().map(|of| of.weight).collect::<Vec<_>>(), [9, 1]);
        let asked: Vec<u64> = kinds(report).into_values().collect();
        assert!(asked.iter().sum::<u64>() == 3000 && (asked[0] as f64 - 2700.0).abs() < 5.0 * sigma, "{asked:?}");
        assert_eq!(kinds(report).keys().collect::<Vec<_>>(), ["read", "write"], "{protocol}");
    }
}

#[test]
fn a_dump_shows_what_is_sent() {
    let Some(nginx) = Nginx::start() else { return };
    let folder = with_file("s.toml", MIX);
    let args =
        ["--scenario", &in_folder(&folder, "s.toml"), "--conns", "1", "--threads", "1", "--target", &nginx.url()];
    let (text, _folder) = dumped(&args);
    let shown: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("#   ")?.strip_suffix(" HTTP/1.1")).collect();
    assert!(nginx.log().is_empty());
    let (_, lines) = nginx.judge(MIX, &["--conns", "1", "--threads", "1", "--requests", "10"]);
    assert_eq!(lines.iter().map(|line| format!("{} {}", line.method, line.uri)).collect::<Vec<_>>(), shown);
}

#[test]
fn ctrl_c_leaves_a_report_of_what_was_made() {
    let folder = with_file("s.toml", MIX);
    let running = Running::start(&["--scenario", &in_folder(&folder, "s.toml"), "--duration", "20s"]);
    running.wait_for_load();
    running.signal("INT");
    let ended = running.wait();
    let report = ended.expect(130);
    assert!(report.partial && whole(report).ok > 100, "{}", brief(report));
    assert_eq!(kinds(report).values().sum::<u64>(), whole(report).ok);
    agrees_with_embedded(report);
}
