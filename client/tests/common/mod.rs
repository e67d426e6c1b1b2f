//! The real `loadgen`, servers for it, and what its reports must hold.

#![allow(dead_code, unused_imports)] // each test file uses its own part

use loadgen_core::result::{Delivery, Histogram, Ledger, Report, ServerStats};
use loadgen_core::sys::{clock, process, ring};
use loadgen_server::engine::ENGINES;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(crate) mod busy;
pub(crate) mod nginx;
pub(crate) mod peer;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod request_log;
pub(crate) mod scenario;
pub(crate) mod strace;

use busy::Watch;
pub(crate) use program::{command, parent_command};

/// Longer than any run here may take; whoever needs more hangs.
pub(crate) const HARD_LIMIT: Duration = busy::PATIENCE;

/// What spoils a run on a machine that has not enough CPUs for it, and is nothing that a test brought about.
pub(crate) const STARVED: &[&str] =
    &["generator_stalled", "cpu_contention", "client_saturated", "generator_lag", "rate_missed", "retransmissions"];

pub(crate) const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

/// A window and a warm-up as short as they can be.
pub(crate) const SHORT: [&str; 4] = ["--duration", "300ms", "--warmup", "100ms"];

/// The client's engine: the suites run once with each (see `with_io_uring.rs`).
pub(crate) fn engine() -> &'static str {
    static ENGINE: LazyLock<&str> = LazyLock::new(|| {
        if env!("CARGO_CRATE_NAME") != "with_io_uring" {
            return "epoll";
        }
        match ring::check(&ring::Options::default()) {
            Ok(()) => "io_uring",
            Err(refusal) => {
                eprintln!("skipped: engine io_uring: {refusal}");
                "epoll"
            }
        }
    });
    *ENGINE
}

/// A server has accepted what we opened. Attempts that had not ended here when the run stopped may have ended there.
pub(crate) fn assert_accepted(report: &Report, accepts: u64) {
    let (opened, unfinished) = (report.connections.opened, report.connections.unfinished);
    assert!((opened..=opened + unfinished).contains(&accepts), "{accepts} accepted; {}", brief(report));
}

/// A `loadgen` at work, in a folder of its own; killed when dropped.
pub(crate) struct Running {
    child: Child,
    started: Watch,
    folder: TempDir,
    report: PathBuf,
}

/// What a run left behind.
pub(crate) struct Ended {
    /// The exit status; -1: killed by a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    report: Option<Report>,
    /// Why the machine was not fit to be asked for times meanwhile.
    unfit: Option<String>,
}

/// Runs `loadgen` to its end, with its report in a file.
pub(crate) fn loadgen(args: &[&str]) -> Ended {
    Running::start(args).wait()
}

/// Likewise, against `target`.
pub(crate) fn loadgen_at(target: &str, args: &[&str]) -> Ended {
    loadgen(&[&["--target", target], args].concat())
}

/// Runs the arguments as they are: no report file, unless they say so.
pub(crate) fn loadgen_plain(args: &[&str]) -> Ended {
    let mut command = command(LOADGEN);
    command.args(args);
    Running::launch(command, scratch()).wait()
}

impl Running {
    pub(crate) fn start(args: &[&str]) -> Self {
        let folder = scratch();
        let mut command = command(LOADGEN);
        if !args.contains(&"--engine") {
            command.args(["--engine", engine()]);
        }
        // Many tests do something at a certain time after the start. The tests of the floor want to have it.
        if env!("CARGO_CRATE_NAME") != "doctor" && !args.contains(&"--no-floor") {
            command.arg("--no-floor");
        }
        command.args(args).arg("--output").arg(folder.path().join("report.json"));
        Self::launch(command, folder)
    }

    /// Starts `command` in `folder`; output goes to files, so that nobody waits for a reader.
    pub(crate) fn launch(mut command: Command, folder: TempDir) -> Self {
        let out = |name: &str| File::create(folder.path().join(name)).unwrap();
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(out("stdout")).stderr(out("stderr"));
        let child = command.spawn().unwrap();
        Self { child, started: Watch::start(), report: folder.path().join("report.json"), folder }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until its embedded server has had something to do: the load has begun.
    pub(crate) fn wait_for_load(&self) {
        // Starting takes it less than half of this.
        const LOADED_NS: u64 = 30_000_000;
        let used_ns = |one: &processes::Process| clock::process_cpu_ns(one.id).unwrap_or(0);
        eventually("a loaded server", || processes::descendants(self.id()).iter().any(|one| used_ns(one) > LOADED_NS));
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().code(), None, "it had ended already");
    }

    pub(crate) fn wait(mut self) -> Ended {
        let status = wait_for(&mut self.child, HARD_LIMIT, "loadgen");
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap();
        let report = self.report.exists().then(|| read_report(&self.report));
        let (code, took, unfit) = (status.unwrap_or(-1), self.started.elapsed(), self.started.why_unfit());
        let ended = Ended { code, stdout: read("stdout"), stderr: read("stderr"), took, report, unfit };
        if let Some(report) = &ended.report {
            hold_invariants(report, &ended.stderr);
        }
        ended
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    pub(crate) fn report(&self) -> &Report {
        self.report.as_ref().unwrap_or_else(|| panic!("no report; exit {}, {}", self.code, self.stderr))
    }

    pub(crate) fn has_report(&self) -> bool {
        self.report.is_some()
    }

    /// The report of a run that ended with `code`.
    pub(crate) fn expect(&self, code: i32) -> &Report {
        assert_eq!(self.code, code, "{}\n{}", self.stderr, self.report.as_ref().map_or(String::new(), brief));
        self.report()
    }

    /// It took less than `limit`, or the machine was too busy to say.
    pub(crate) fn assert_within(&self, limit: Duration) {
        busy::assert_within(self.took, limit, "loadgen", self.unfit.as_deref());
    }

    /// Whether nothing of the machine disturbed the run, so that its times and rates say something. If not, it says so.
    pub(crate) fn is_conclusive(&self) -> bool {
        let starved = self.report.iter().flat_map(|report| &report.verdict.reasons);
        let starved = starved.filter(|reason| STARVED.contains(&reason.code.as_str())).map(|reason| &reason.detail);
        let why: Vec<&String> = self.unfit.iter().chain(starved).collect();
        if !why.is_empty() {
            eprintln!("inconclusive: {why:?}");
        }
        why.is_empty()
    }

    /// What a run achieves where there are CPUs for it.
    pub(crate) fn assert_if_fit(&self, achieved: bool) {
        assert!(
            achieved || !self.is_conclusive(),
            "{}\n{}",
            self.stderr,
            self.report.as_ref().map_or_else(String::new, brief)
        );
    }

    /// Refused before it began: the exit status, and one line that says why (with a line of help at most).
    pub(crate) fn expect_refusal(&self, code: i32) -> &str {
        assert_eq!(self.code, code, "stdout {:?} stderr {:?}", self.stdout, self.stderr);
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "one line that says why: {:?}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        &self.stderr
    }
}

pub(crate) fn scratch() -> TempDir {
    TempDir::with_prefix("loadgen-test-").unwrap()
}

/// Waits for a child's end; `None`: it died by a signal.
pub(crate) fn wait_for(child: &mut Child, limit: Duration, what: &str) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            panic!("{what} does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal by name to one process that the test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = command("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Waits until `is` holds.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < busy::PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn read_report(path: &Path) -> Report {
    parse_report(&std::fs::read_to_string(path).unwrap())
}

pub(crate) fn parse_report(text: &str) -> Report {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What every report must hold, whatever happened.
pub(crate) fn hold_invariants(report: &Report, stderr: &str) {
    let whole = whole(report);
    assert!(report.ledger.closes(), "the ledger does not close: {} {stderr}", brief(report));
    let connections = &report.connections;
    let failed: u64 = connections.failed.values().sum();
    assert_eq!(
        connections.attempts,
        connections.opened + failed + connections.unfinished,
        "attempts have one outcome each: {}",
        brief(report)
    );
    assert_eq!(
        connections.opened,
        connections.closed + connections.closed_by_server + connections.lost,
        "open connections end in one way each: {}",
        brief(report)
    );
    assert!(connections.served <= connections.established && connections.established <= connections.requested);
    assert!(connections.established <= connections.opened && connections.alive_at_end <= connections.requested);
    assert_eq!(series(report, "ok"), whole.ok, "{}", brief(report));
    assert_eq!(series(report, "sent"), whole.sent, "{}", brief(report));
    let throughput = &report.throughput;
    let bytes = (throughput.whole_run_sent_bytes, throughput.whole_run_received_bytes);
    assert_eq!((series(report, "sent_bytes"), series(report, "received_bytes")), bytes, "{}", brief(report));
    assert_eq!(series(report, "errors"), whole.errors.values().sum::<u64>(), "{}", brief(report));
    // Every failed request is told in `errors` too, by the same word.
    for (kind, count) in &whole.errors {
        let told = error_rows(report, kind);
        assert!(told >= *count, "{kind}: {count} in the ledger, {told} told: {}", brief(report));
    }
    if report.scenario.requests.is_none() || report.throughput.window_ns > 0 {
        hold_histograms(report);
    }
}

fn hold_histograms(report: &Report) {
    let ledger = &report.ledger;
    let count = |histogram: &Option<Histogram>| histogram.as_ref().map_or(0, |h| h.count);
    let timeouts = ledger.errors.get("timeout").copied().unwrap_or(0);
    let censored = report.latency.censored;
    assert_eq!(count(&report.latency.service), ledger.ok, "{}", brief(report));
    assert_eq!(count(&report.latency.response), ledger.ok + censored, "{}", brief(report));
    let open = report.scenario.mode == "open";
    let unsent = if open { ledger.unsent } else { 0 };
    assert_eq!(censored, timeouts + ledger.in_flight_at_end + unsent, "{}", brief(report));
    if open {
        // What was due either left, late or not, or waited until the end.
        assert_eq!(count(&report.latency.backlog_wait), ledger.scheduled, "{}", brief(report));
        assert!(count(&report.latency.generator_lag) <= ledger.scheduled, "{}", brief(report));
        assert!(count(&report.latency.generator_lag) >= ledger.sent, "{}", brief(report));
    }
    assert_eq!(count(&report.latency.connect), report.connections.opened);
    let throughput = &report.throughput;
    if throughput.window_ns > 0 {
        let exact = throughput.replies as f64 * 1e9 / throughput.window_ns as f64;
        assert!((exact - throughput.requests_per_s as f64).abs() <= 1.0, "{throughput:?}");
    } else {
        assert_eq!((throughput.requests_per_s, throughput.replies), (0, 0));
    }
    assert!(throughput.replies <= whole(report).ok);
}

pub(crate) fn whole(report: &Report) -> &Ledger {
    report.ledger.whole_run.as_ref().expect("a report has the ledger of the whole run")
}

/// Requests of the whole run that failed in this way.
pub(crate) fn errors(report: &Report, kind: &str) -> u64 {
    whole(report).errors.get(kind).copied().unwrap_or(0)
}

/// The same word in `errors`, whatever the phase: requests and connections.
pub(crate) fn error_rows(report: &Report, kind: &str) -> u64 {
    report.errors.iter().filter(|row| row.kind == kind).map(|row| row.count).sum()
}

pub(crate) fn error_kinds(report: &Report) -> Vec<&str> {
    whole(report).errors.keys().map(String::as_str).collect()
}

/// The sum of a column over all seconds.
pub(crate) fn series(report: &Report, column: &str) -> u64 {
    let at = report.series.columns.iter().position(|name| name == column).unwrap();
    report.series.rows.iter().map(|row| row[at]).sum()
}

/// What a failed assertion shows of a report.
pub(crate) fn brief(report: &Report) -> String {
    format!(
        "ledger {:?}\nconnections {:?}\nerrors {:?}\nphases {:?}\nserver {:?}\nverdict {:?}",
        report.ledger, report.connections, report.errors, report.phases, report.server, report.verdict
    )
}

/// What became of datagrams.
pub(crate) fn delivery(report: &Report) -> Option<&Delivery> {
    report.datagrams.as_ref()
}

/// Requests, replies, connections and bytes, both ways.
pub(crate) fn agrees(report: &Report, server: &ServerStats) {
    let whole = whole(report);
    let shown = brief(report);
    match (&server.datagrams, &report.datagrams) {
        (None, None) => assert_accepted(report, server.accepts),
        // Without connections there is nothing to accept; what was lost on the way would be seen in the bytes.
        (Some(theirs), Some(ours)) => {
            assert_eq!((server.accepts, theirs.kernel_dropped, theirs.dropped.len()), (0, 0, 0), "{shown}");
            assert_eq!((ours.received, ours.lost), (server.replies, 0), "{shown}");
        }
        _ => panic!("one side has datagrams: {shown}"),
    }
    assert_eq!(series(report, "sent_bytes"), server.received_bytes, "{shown}");
    assert_eq!(series(report, "received_bytes"), server.sent_bytes, "{shown}");
    assert_eq!((whole.sent, whole.ok), (server.requests, server.replies), "{shown}");
    assert_eq!((server.rejected, server.accept_errors.len()), (0, 0), "{shown}");
}

pub(crate) fn agrees_with_embedded(report: &Report) {
    agrees(report, report.server.as_ref().expect("an embedded server has counters"));
}

/// All went well, and nothing is left over.
pub(crate) fn clean(report: &Report) {
    let whole = whole(report);
    assert!(whole.errors.is_empty() && report.errors.is_empty(), "{}", brief(report));
    assert_eq!((whole.in_flight_at_end, report.connections.lost), (0, 0), "{}", brief(report));
    assert_eq!(report.connections.served, report.connections.requested, "{}", brief(report));
    assert!(!report.partial);
}

/// Runs `test` with every server engine of the table.
pub(crate) fn with_every_server_engine(test: impl Fn(&str)) {
    for engine in ENGINES {
        eprintln!("server engine {}", engine.name);
        test(engine.name);
    }
}

/// A reference server on a free port; killed when dropped.
pub(crate) struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    endpoint: String,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    pub(crate) fn start_at(address: &str, args: &[&str]) -> Self {
        let mut command = command(LOADGEN);
        command.args(["server", "--listen", address, "--stats", "-"]).args(args);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let endpoint = line.trim_end().strip_prefix("listening on ").unwrap_or_else(|| panic!("it says {line:?}"));
        Self { child, output, endpoint: endpoint.to_owned() }
    }

    /// Of a TCP port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.parse().unwrap()
    }

    pub(crate) fn target(&self) -> String {
        self.endpoint.clone()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has had something to do.
    pub(crate) fn wait_for_load(&self) {
        const LOADED_NS: u64 = 30_000_000;
        let cpu_ns = || clock::process_cpu_ns(self.child.id()).unwrap();
        let idle_ns = cpu_ns();
        eventually("a loaded server", || cpu_ns() > idle_ns + LOADED_NS);
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// SIGTERM: it drains, and says what it counted.
    pub(crate) fn stop(mut self) -> ServerStats {
        process::terminate(&self.child).unwrap();
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert_eq!(wait_for(&mut self.child, HARD_LIMIT, "the server"), Some(0));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program is here. Missing: the test is skipped with a word, or fails where LOADGEN_REQUIRE_PROGRAMS=1.
pub(crate) fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).is_file())
    });
    found || !missing(&format!("{program} is not installed"))
}

/// Says why a test is skipped; fails where LOADGEN_REQUIRE_PROGRAMS=1.
pub(crate) fn missing(why: &str) -> bool {
    assert!(std::env::var("LOADGEN_REQUIRE_PROGRAMS").as_deref() != Ok("1"), "{why}, and LOADGEN_REQUIRE_PROGRAMS=1");
    eprintln!("skipped: {why}");
    true
}

/// A command that does `setup` and then `script`, with loadgen as `$0`, in a namespace of its own (`unshare` with these
/// flags). `None`: that is not permitted here.
pub(crate) fn namespace(flags: &str, setup: &str, script: &str, args: &[&str]) -> Option<Command> {
    let folder = scratch();
    let mut trial = command("unshare");
    trial.args([flags, "setpriv", "--pdeathsig", "KILL", "sh", "-c", setup]).current_dir(folder.path());
    if !trial.output().is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: `unshare {flags}` is not permitted, or cannot do `{setup}`");
        return None;
    }
    let mut command = command("unshare");
    // Who gets a namespace of his own loses the bond to us (prctl(2)), and is given it anew.
    command.args([flags, "setpriv", "--pdeathsig", "KILL", "sh", "-c", &format!("{setup} && {script}"), LOADGEN]);
    command.args(args);
    Some(command)
}

/// A network of our own in which connections get their local ports from `low` to `high`.
pub(crate) fn port_range(low: u16, high: u16, script: &str, args: &[&str]) -> Option<Command> {
    let up = "(ip link set lo up 2>/dev/null || ifconfig lo up)";
    let setup = format!("{up} && echo {low} {high} > /proc/sys/net/ipv4/ip_local_port_range");
    namespace("-rn", &setup, script, args)
}
