//! Scenario files in whole runs: what was asked for is what a server's log has.

mod common;

use common::{
    Ended, LOADGEN, Running, SHORT, Server, agrees, agrees_with_embedded, brief, clean, eventually, have, loadgen,
    loadgen_plain, scratch, whole,
};
use loadgen_core::protocol::PROTOCOLS;
use loadgen_core::result::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// An nginx that says of each request on which connection it came; killed when dropped.
struct Nginx {
    master: Child,
    folder: TempDir,
    address: SocketAddr,
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
        let root = folder.path();
        // Between this and nginx's own bind somebody else may take it; then nginx does not start, and says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = root.join("nginx.conf");
        std::fs::write(&config, configuration(root, address)).unwrap();
        let mut command = Command::new("nginx");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-p").arg(root).arg("-c").arg(&config).arg("-e").arg(root.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(root.join("stderr")).unwrap());
        let nginx = Self { master: command.spawn().unwrap(), folder, address };
        eventually("nginx answers", || TcpStream::connect(address).is_ok());
        Some(nginx)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn log(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
        text.lines().map(Line::parse).collect()
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

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master takes its worker along.
        let _ = loadgen_core::sys::process::terminate(&self.master);
        for _ in 0..500 {
            if let Ok(Some(_)) = self.master.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.master.kill();
        let _ = self.master.wait();
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

fn configuration(root: &Path, address: SocketAddr) -> String {
    let root_text = root.display();
    // Only root may choose whom the worker runs as, and only then is there need: the folder is ours alone.
    let user = if std::fs::metadata(root).unwrap().uid() == 0 { "user root root;" } else { "" };
    format!(
        r#"{user}
daemon off;
worker_processes 1;
pid {root_text}/nginx.pid;
events {{ worker_connections 1000; }}
http {{
    log_format judge "$connection $request_method $request_uri $request_length $http_content_length $status";
    access_log {root_text}/access.log judge;
    client_body_temp_path {root_text}/body;
    proxy_temp_path {root_text}/proxy;
    fastcgi_temp_path {root_text}/fastcgi;
    uwsgi_temp_path {root_text}/uwsgi;
    scgi_temp_path {root_text}/scgi;
    keepalive_requests 100000000;
    server {{
        listen {address};
        location / {{ return 200 "small"; }}
    }}
}}
"#
    )
}

fn with_file(name: &str, text: &str) -> TempDir {
    let folder = scratch();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

fn in_folder(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// Requests of each kind that were answered, over the whole run.
fn kinds(report: &Report) -> BTreeMap<String, u64> {
    let groups = report.breakdown.iter();
    groups.map(|group| (group.kind.clone().expect("a kind"), group.whole_run.ok)).collect()
}

fn counts<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word.to_owned()).or_insert(0) += 1);
    counts
}

const MIX: &str = r#"
name = "mix"
[defaults]
threads = 3
conns = 6
header = "X-All: yes"
[keys]
count = 50
[[request]]
name = "item"
weight = 8
path = "/item/{counter}?k={key}"
[[request]]
name = "head"
weight = 3
method = "HEAD"
path = "/head/{counter}"
[[request]]
name = "post"
weight = 1
method = "POST"
path = "/post/{counter}"
body = '{"id": "{hex:7}", "n": {random:0..100000}, "v": "{pick:a|bb|ccc}"}'
headers = ["Content-Type: application/json", "X-Id: {uuid}"]
"#;

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

/// The example of the documentation, against a server of our own.
fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop.toml").display().to_string()
}

#[test]
fn the_example_runs() {
    let ended = loadgen(&[&["--scenario", &example()][..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    assert_eq!((report.scenario.protocol.as_str(), report.scenario.connections), ("http", 50));
    assert_eq!(report.scenario.think.as_deref(), Some("exp:5ms"));
    assert!(kinds(report).len() == 5 && kinds(report)["item"] > 0, "{:?}", kinds(report));
    assert!(ended.stdout.contains("item"), "{}", ended.stdout);
}

#[test]
fn what_is_typed_goes_before_the_file() {
    let file = "[defaults]\nconns = 9\nthreads = 2\nrequests_per_conn = 5\nlabel = [\"a=b\", \"c=d\"]\nno_floor = true\n\
        think = \"trace:times\"\nduration = \"150ms\"\nwarmup = \"10ms\"\n\
        [[target]]\nurl = \"http://127.0.0.1:1\"\nweight = 2\n[[target]]\nurl = \"http://127.0.0.1:2\"\n\
        [[request]]\npath = \"/\"\n";
    let folder = with_file("s.toml", file);
    std::fs::write(folder.path().join("times"), "1ms\n2ms\n").unwrap();
    let file = in_folder(&folder, "s.toml");
    let server = Server::start(&["--protocol", "http"]);
    let target = format!("http://{}", server.target());
    let ended = loadgen(&["--scenario", &file, "-T", &target, "-c", "3", "--requests", "60", "--no-floor"]);
    let scenario = &ended.expect(0).scenario;
    assert_eq!((scenario.connections, scenario.threads, scenario.requests), (3, 2, Some(60)));
    assert_eq!((scenario.requests_per_connection, scenario.weights.len()), (Some(5), 0));
    assert!(scenario.think.as_ref().unwrap().starts_with("trace:"));
    assert_eq!(ended.report().labels.len(), 2);
    assert_eq!(kinds(ended.report()), BTreeMap::from([("request1".to_owned(), 60)]));
    // As a target without its flag; and none of the defaults.
    let ended = loadgen(&["--scenario", &file, "--requests", "60", &target, "-c", "3"]);
    assert_eq!(ended.expect(0).scenario.threads, 2);
    let ended = loadgen(&["--scenario", &file, "--no-scenario-defaults", "--requests", "100", &target]);
    assert_eq!((ended.expect(0).scenario.connections, ended.report().scenario.threads), (100, 1));
    // The file's targets are there otherwise.
    let ended = loadgen(&["--scenario", &file, "--duration", "100ms"]);
    assert_eq!(ended.expect(3).scenario.weights, [2, 1]);
}

#[test]
fn different_files_are_different_scenarios() {
    let one = |text: &str| {
        let folder = with_file("s.toml", text);
        loadgen(&["--scenario", &in_folder(&folder, "s.toml"), "--requests", "200"]).expect(0).scenario.clone()
    };
    let text = "[[request]]\nname = \"a\"\npath = \"/\"\nweight = 3\n[[request]]\nname = \"b\"\npath = \"/\"\n";
    let first = one(text);
    assert_eq!(first.hash, one(&format!("# a comment\n{text}")).hash);
    let other = one(&text.replace('3', "4"));
    assert_ne!(first.hash, other.hash);
    let fields: Vec<String> =
        loadgen_core::result::differing_fields(&first, &other).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(fields, ["file"]);
    assert_eq!(loadgen(&["--requests", "200"]).expect(0).scenario.file, None);
}

#[test]
fn protocols_that_cannot_make_the_requests_refuse_them() {
    let http = with_file("s.toml", "[[request]]\npath = \"/\"\n");
    let commands = with_file("s.toml", "[[request]]\ncommand = \"get {key}\"\n");
    for protocol in PROTOCOLS {
        let with = |folder: &TempDir| {
            loadgen_plain(&["--scenario", &in_folder(folder, "s.toml"), "--protocol", protocol.name, "--dump-scenario"])
        };
        let (of_http, of_commands) = (with(&http), with(&commands));
        let takes_http = if protocol.name == "http" { 0 } else { 2 };
        assert_eq!(of_http.code, takes_http, "{}: {}", protocol.name, of_http.stderr);
        assert_eq!(of_commands.code, if protocol.store { 0 } else { 2 }, "{}: {}", protocol.name, of_commands.stderr);
        for refused in [of_http, of_commands].iter().filter(|ended| ended.code == 2) {
            assert!(refused.expect_refusal(2).contains("s.toml asks for"), "{}", refused.stderr);
        }
    }
    let file = in_folder(&http, "s.toml");
    let commands = in_folder(&commands, "s.toml");
    let list = with_file("s.toml", "[recorded]\nfile = \"l\"\n");
    std::fs::write(list.path().join("l"), "GET /\n").unwrap();
    let list = in_folder(&list, "s.toml");
    for (args, words) in [
        (&["--scenario", &file, "--path", "/x"][..], "--path"),
        (&["--scenario", &file, "--body", "x"], "--body"),
        (&["--scenario", &file, "http://127.0.0.1:1/x"], "the path in the target"),
        (&["--scenario", &list, "-X", "PUT"], "--method"),
        (&["--scenario", &commands, "--protocol", "redis", "--mix", "get"], "--mix"),
        (&["--scenario", &commands, "--protocol", "redis", "--command", "PING"], "--command"),
        (&["--no-scenario-defaults"], "--scenario"),
        (&["--scenario"], "--scenario"),
        (&["--scenario", &file, "--scenario", &file], "--scenario"),
        (&["ab", "--scenario", &file, "--dump-scenario"], "--dump-scenario"),
        (&["search", "--slo", "p99<5ms", "--scenario", &file, "--dump-scenario"], "--dump-scenario"),
        (&["--scenario", &example(), "--pipeline", "2"], "--pipeline"),
        (&["--scenario", &example(), "--rate", "100"], "--rate"),
    ] {
        let ended = loadgen_plain(args);
        assert!(ended.expect_refusal(2).contains(words), "{args:?}: {}", ended.stderr);
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
fn files_that_are_wrong_are_refused_with_their_place() {
    let mix = "[[request]]\nname = \"a\"\npath = \"/\"\n";
    let cases = [
        ("x = [", "line 1"),
        (
            "\n\n[[request]]\npath = \"/\"\nwieght = 3\n",
            "line 5: key 'wieght' is not known here; did you mean 'weight'?",
        ),
        ("[[request]]\npath = \"/{randm:1..2}\"\n", "line 2: {randm:1..2} is no template; did you mean 'random'?"),
        ("[[request]]\npath = \"/{line:none}\"\n", "line 2: cannot read"),
        ("[[request]]\npath = \"/{line:empty}\"\n", "line 2: empty has no lines"),
        ("[[request]]\npath = \"/\"\nbody_file = \"folder\"\n", "line 3: cannot read"),
        ("[[request]]\npath = \"/\"\nbody_file = \"pipe\"\n", "no regular file"),
        ("[[request]]\npath = \"/\"\nbody_file = \"huge\"\n", "is longer than 256 MiB"),
        ("[recorded]\nfile = \"empty\"\n", "line 2: empty has no requests"),
        ("[recorded]\nfile = \"lines\"\n", "line 2: line 1 of lines: path \"b\" does not start"),
        ("[[request]]\npath = \"/\"\nweight = 0\n", "line 1: request 'request1' is never made"),
        ("[[request]]\npath = \"/\"\nweight = -1\n", "line 3"),
        (
            "[[request]]\npath = \"/\"\nheaders = [\"A: b\\r\\nC: d\"]\n",
            "line 1: request 'request1': the value of header A",
        ),
        ("[[request]]\npath = \"/\"\nheaders = [\"Content-Length: 3\"]\n", "Content-Length"),
        ("[[request]]\npath = \"/{line:lines}\"\n", "can have blanks"),
        ("[[request]]\npath = \"/{pick:a|b c}\"\n", "can have blanks"),
        ("[[request]]\nmethod = \"G T\"\npath = \"/\"\n", "is no HTTP method"),
        ("[[request]]\nname = \"a\"\n", "line 1: the request lacks its path"),
        ("[defaults]\nconn = 3\n", "line 2: 'conn' is no flag of `run`, without dashes; did you mean 'conns'?"),
        ("[defaults]\nconns = \"many\"\n", "line 2: invalid value 'many' for '--conns <N>'"),
        ("[defaults]\nconns = true\n", "line 2"),
        ("[defaults]\nconns = [1, 2]\n", "line 2"),
        ("[defaults]\nquiet = 3\n", "line 2"),
        ("[defaults]\nscenario = \"x\"\n", "line 2: 'scenario' is no flag"),
        ("[defaults]\narrival = \"poisson\"\n", "--rate <R>"),
        ("[defaults]\nthink = \"trace:none\"\n", "cannot read"),
        ("[defaults]\ncpus = \"\"\n", "line 2"),
        ("name = \"\"\n", "line 1"),
    ];
    let scripted = [
        ("[[script]]\nname = \"s\"\nsteps = []\n", "line 4: a script has 1 to"),
        ("[[script]]\nname = \"s\"\nsteps = [\"b\"]\n", "line 6: there is no request 'b'"),
        ("[[script]]\nname = \"s\"\nsteps = [{ request = \"a\", think = \"exp:1s\" }]\n", "line 6: the first step"),
        ("[[script]]\nname = \"s\"\nweight = 0\nsteps = [\"a\"]\n", "line 4: all weights are 0"),
        ("[[request]]\ncommand = \"GET {key}\"\n", "line 4: some requests have a path"),
        ("[recorded]\nfile = \"lines\"\n", "line 4: [recorded] does not go with"),
    ];
    let all = cases.map(|(text, words)| (text.to_owned(), words)).into_iter();
    for (text, words) in all.chain(scripted.map(|(text, words)| (format!("{mix}{text}"), words))) {
        let folder = with_file("bad.toml", &text);
        let put = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        put("empty", b"\n\n");
        put("lines", b"a b\n");
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        File::create(folder.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
        let pipe = Command::new("mkfifo").arg(folder.path().join("pipe")).status().unwrap();
        assert!(pipe.success());
        let ended = loadgen_plain(&["--scenario", &in_folder(&folder, "bad.toml"), "--protocol", "http"]);
        let said = ended.expect_refusal(2);
        let named = said.contains("bad.toml") || words == "cannot read";
        assert!(said.contains(words) && named, "{text:?}: {said}");
        let lines = said.lines().filter(|line| !line.starts_with("  help: ")).count();
        assert_eq!(lines, 1, "{text:?}: {said}");
    }
}

#[test]
fn a_path_that_is_no_scenario_file_is_refused() {
    let folder = with_file("binary", "x = 1\n");
    std::fs::write(folder.path().join("binary"), b"a = 1\n\xff\xfe").unwrap();
    File::create(folder.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    for (name, words) in [
        ("none.toml", "No such file"),
        ("", "no regular file"),
        ("binary", "line 2: the text is not UTF-8"),
        ("huge", "longer than 4 MiB"),
    ] {
        let file = in_folder(&folder, name);
        for command in [&["run"][..], &["ab"], &["search", "--slo", "p99<5ms"]] {
            let ended = loadgen_plain(&[command, &["--scenario", &file]].concat());
            let said = ended.expect_refusal(2);
            assert!(said.contains(words) && said.contains(&file) && said.lines().count() == 1, "{name}: {said}");
        }
    }
}

/// A dump, kept in a folder of its own.
fn dumped(args: &[&str]) -> (String, TempDir) {
    let ended = loadgen_plain(&[args, &["--dump-scenario"]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{}", ended.stdout);
    let folder = with_file("dump.toml", &ended.stdout);
    (ended.stdout, folder)
}

#[test]
fn a_dump_is_a_scenario_file_that_asks_for_the_same() {
    let folder = with_file(
        "s.toml",
        "name = \"all \\\"of\\\" it\"\n[defaults]\nthink = \"trace:times\"\nmix = []\nlabel = [\"a=1\", \"b=x y\"]\n\
         no_pin = true\nheader = \"A: \\\"b\\\"\"\n[keys]\ncount = \"2k\"\n\
         [[request]]\nname = \"lined\"\nweight = 2\npath = \"/{line:folder/words}/{random_line:folder/words}/{counter:x}\"\n\
         body = \"{{not {value} \\u0001 \"\n\
         [[request]]\nname = \"filed\"\nmethod = \"PUT\"\npath = \"/\"\nbody_file = \"folder/words\"\n\
         [[script]]\nname = \"s\"\nsteps = [\"lined\", { request = \"filed\", think = \"bimodal:0.1,1ms,2ms\" }]\n",
    );
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    std::fs::write(folder.path().join("folder/words"), "one\ntwo\n").unwrap();
    std::fs::write(folder.path().join("times"), "1ms\n").unwrap();
    let list = with_file("s.toml", "[recorded]\nfile = \"l\"\norder = \"random\"\n");
    std::fs::write(list.path().join("l"), "GET /1\nHEAD /2\n").unwrap();
    let (file, list) = (in_folder(&folder, "s.toml"), in_folder(&list, "s.toml"));
    for args in [
        &["--scenario", &file, "--conns", "3"][..],
        &["--scenario", &file, "--requests", "100"],
        &["--scenario", &list, "--rate", "1k", "--arrival", "poisson", "--until-ci", "p99=2%"],
        &["--scenario", &example(), "http://127.0.0.1:1", "--cpus", "0"],
        &["--scenario", &example(), "-T", "http://127.0.0.1:1", "-T", "http://127.0.0.1:2", "--weights", "3,1"],
        &["--protocol", "memcached", "--mix", "get=3,set=1", "--fail-if", "p99>5ms", "errors>0"],
        &["--rate", "1k:1s,1k..2k:2s", "--conns", "10:1s,20:2s", "--size", "3KiB"],
        &["--protocol", "chargen"],
        &["http://127.0.0.1:1/x", "-X", "POST", "--body", "x", "-H", "A: b", "-H", "C: d"],
    ] {
        let (first, kept) = dumped(args);
        let (again, _folder) = dumped(&["--scenario", &in_folder(&kept, "dump.toml")]);
        assert_eq!(first, again, "{args:?}");
        assert!(first.contains("\nduration = \"") != args.contains(&"--requests"), "{first}");
        assert!(first.contains("\ntimeout = \"5s\"\n") && first.contains("\npipeline = 1\n"), "{first}");
        let shown = first.lines().filter(|line| line.starts_with("# 1")).count();
        assert_eq!(shown, if args.contains(&"chargen") { 0 } else { 2 }, "requests 1 and 10: {first}");
    }
    // Both ask for the same, also where it is kept elsewhere.
    let (_, kept) = dumped(&["--scenario", &example()]);
    let scenario = |file: &str| {
        let ended = loadgen(&[&["--scenario", file, "--requests", "200"][..]].concat());
        ended.expect(0).scenario.clone()
    };
    assert_eq!(scenario(&example()).hash, scenario(&in_folder(&kept, "dump.toml")).hash);
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
fn a_dump_connects_to_nobody_and_writes_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let folder = scratch();
    let mut command = Command::new(LOADGEN);
    let out = command.current_dir(folder.path()).args(["--scenario", &example(), &target, "--dump-scenario"]).output();
    let out = out.unwrap();
    assert!(out.status.success() && String::from_utf8_lossy(&out.stdout).contains(&target), "{out:?}");
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no report");
    let (text, _folder) = dumped(&["redis://u:secret@127.0.0.1:1/2"]);
    assert!(!text.contains("secret") && text.contains("u:***@"), "{text}");
}

#[test]
fn ctrl_c_leaves_a_report_of_what_was_made() {
    let folder = with_file("s.toml", MIX);
    let running = Running::start(&["--scenario", &in_folder(&folder, "s.toml"), "--duration", "20s"]);
    std::thread::sleep(Duration::from_millis(800));
    running.signal("INT");
    let ended = running.wait();
    let report = ended.expect(130);
    assert!(report.partial && whole(report).ok > 100, "{}", brief(report));
    assert_eq!(kinds(report).values().sum::<u64>(), whole(report).ok);
    agrees_with_embedded(report);
}

#[test]
fn ab_takes_a_scenario_file() {
    let folder = with_file(
        "s.toml",
        &format!("{MIX}\n").replace("threads = 3", "threads = 1\nno_floor = true\nwarmup = \"0ms\""),
    );
    let bundle: PathBuf = folder.path().join("bundle.json");
    let file = in_folder(&folder, "s.toml");
    let args = ["ab", "--scenario", &file, "--conns", "2", "--duration", "50ms", "--blocks", "10", "--quiet"];
    let ended = loadgen_plain(&[&args[..], &["--output", bundle.to_str().unwrap()]].concat());
    assert!([0, 1].contains(&ended.code), "{}", ended.stderr);
    let text = std::fs::read_to_string(&bundle).unwrap();
    let bundle: loadgen_core::result::Bundle = serde_json::from_str(&text).unwrap();
    assert!(bundle.runs.len() >= 40, "{} runs", bundle.runs.len());
    for run in &bundle.runs {
        let scenario = &run.scenario;
        let name = scenario.file.as_ref().map(|file| file.name.as_str());
        assert_eq!((name, scenario.connections, scenario.warmup_ns), (Some("mix"), 2, 0));
    }
}

#[test]
fn search_takes_a_scenario_file() {
    let folder = with_file("s.toml", &MIX.replace("threads = 3", "no_floor = true\nwarmup = \"0ms\""));
    let file = in_folder(&folder, "s.toml");
    let server = Server::start(&["--protocol", "http"]);
    let target = format!("http://{}", server.target());
    let path = in_folder(&folder, "search.json");
    let args = ["search", "--slo", "p99<1s", "--scenario", &file, "--target", &target, "--from", "100"];
    let bounds = ["--probes", "2", "--duration", "100ms", "--output", &path, "--quiet"];
    let ended = loadgen_plain(&[&args[..], &bounds].concat());
    assert!(ended.code != 2 && Path::new(&path).exists(), "{} {}", ended.code, ended.stderr);
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"name\": \"mix\""));
    assert!(server.stop().requests > 0);
}
