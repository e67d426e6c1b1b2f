//! memcached as the judge: its `stats` say what was really asked and found.

mod common;

use common::peer::Peer;
use common::{
    Ended, HARD_LIMIT, SHORT, agrees_with_embedded, brief, clean, error_kinds, error_rows, errors, eventually, have,
    loadgen, loadgen_at, whole,
};
use loadgen_core::result::Report;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// A memcached on a port of its own, which takes values of up to 64 KiB; killed when dropped.
struct Memcached {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Memcached {
    /// `None`: there is none here.
    fn start(extra: &[&str]) -> Option<Self> {
        if !have("memcached") {
            return None;
        }
        // Between this and its own bind somebody else may take it; then it does not start, and the test says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = common::scratch();
        let mut command = common::command("memcached");
        command.args(["-l", "127.0.0.1", "-U", "0", "-m", "64", "-I", "64k", "-o", "slab_chunk_max=32768"]);
        // As root it would refuse to start; otherwise it passes over the user. Another user would lose the bond to us.
        command.args(["-u", "root", "-p", &address.port().to_string()]).args(extra);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let memcached = Self { child, address, _folder: folder };
        eventually("memcached answers", || TcpStream::connect(address).is_ok());
        Some(memcached)
    }

    fn target(&self) -> String {
        format!("memcached://{}", self.address)
    }

    /// The numbers of its `stats`.
    fn stats(&self) -> BTreeMap<String, u64> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HARD_LIMIT)).unwrap();
        stream.write_all(b"stats\r\nquit\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let fields = text.lines().filter_map(|line| line.strip_prefix("STAT ")?.split_once(' '));
        fields.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
    }

    /// Runs loadgen; and how much each of memcached's counters has grown by it.
    fn judge(&self, args: &[&str]) -> (Ended, impl Fn(&str) -> u64 + use<>) {
        let before = self.stats();
        let ended = loadgen_at(&self.target(), args);
        let after = self.stats();
        let grown = move |name: &str| after[name] - before[name];
        (ended, grown)
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replies of a kind, of the whole run.
fn ok(report: &Report, kind: &str) -> u64 {
    let group = report.breakdown.iter().find(|group| group.kind.as_deref() == Some(kind));
    group.unwrap_or_else(|| panic!("no {kind} in {:?}", report.breakdown)).whole_run.ok
}

fn counted(report: &Report, name: &str) -> u64 {
    report.counted.get(name).copied().unwrap_or(0)
}

#[test]
fn the_ledger_is_memcacheds_own() {
    let Some(memcached) = Memcached::start(&[]) else { return };
    for dialect in ["text", "meta"] {
        for pipeline in ["1", "16"] {
            eprintln!("{dialect}, pipeline {pipeline}");
            // How a meta get that touches counts is another matter in each version of memcached.
            let touch = dialect == "text";
            let mix = if touch { "set=1,get=4,delete=1,touch=1" } else { "set=1,get=4,delete=1" };
            let args = ["--dialect", dialect, "--pipeline", pipeline, "--mix", mix, "--conns", "8", "--threads", "2"];
            let (ended, grown) = memcached.judge(
                &[&args[..], &["--keys", "50", "--key-spread", "zipf", "--value-size", "0..5000"], &SHORT].concat(),
            );
            let report = ended.expect(0);
            clean(report);
            let shown = brief(report);
            assert_eq!(grown("cmd_get"), ok(report, "get"), "{shown}");
            assert_eq!(grown("cmd_set"), ok(report, "set"), "{shown}");
            assert_eq!(grown("cmd_touch"), if touch { ok(report, "touch") } else { 0 }, "{shown}");
            let (hits, misses) = (counted(report, "hits"), counted(report, "misses"));
            assert_eq!((grown("get_hits"), grown("get_misses")), (hits, misses), "{shown}");
            assert_eq!(hits + misses, ok(report, "get"), "{shown}");
            assert_eq!(grown("delete_hits") + grown("delete_misses"), ok(report, "delete"), "{shown}");
            let not_found = grown("delete_misses") + grown("touch_misses");
            assert_eq!(counted(report, "not_found"), not_found, "{shown}");
            let all: u64 = report.breakdown.iter().map(|group| group.whole_run.ok).sum();
            assert_eq!(all, whole(report).ok, "{shown}");
            assert!(hits > 0 && misses > 0 && not_found > 0, "{shown}");
        }
    }
}

#[test]
fn what_is_asked_without_a_mix_is_ten_gets_for_a_set() {
    let Some(memcached) = Memcached::start(&[]) else { return };
    let args = ["--requests", "2200", "--conns", "4", "--keys", "10", "--pipeline", "4"];
    let (ended, grown) = memcached.judge(&args);
    let report = ended.expect(0);
    assert_eq!((grown("cmd_get"), grown("cmd_set")), (ok(report, "get"), ok(report, "set")), "{}", brief(report));
    assert_eq!(grown("cmd_get") + grown("cmd_set"), 2200);
    assert!((120..=280).contains(&grown("cmd_set")), "{} sets of 2200", grown("cmd_set"));
}

#[test]
fn keys_in_sequence_are_each_written_once() {
    let Some(memcached) = Memcached::start(&[]) else { return };
    let load = ["--requests", "1000", "--conns", "4", "--keys", "1000", "--key-spread", "sequential", "--threads", "2"];
    let (ended, grown) = memcached.judge(&[&load[..], &["--mix", "set", "--key-prefix", "seq/"]].concat());
    clean(ended.expect(0));
    assert_eq!((grown("cmd_set"), grown("curr_items")), (1000, 1000));
    let (ended, grown) = memcached.judge(&[&load[..], &["--mix", "get", "--key-prefix", "seq/"]].concat());
    assert_eq!((grown("get_hits"), grown("get_misses")), (1000, 0));
    assert_eq!((counted(ended.report(), "hits"), counted(ended.report(), "misses")), (1000, 0));
}

#[test]
fn typed_commands_are_judged_by_their_replies() {
    let Some(memcached) = Memcached::start(&[]) else { return };
    let commands = [
        "ma n N0 J0 v",
        "get {key} {key} absent",
        "mg {key} v k t f O{counter}",
        "set {key} 7 0 {value}",
        "add fresh{counter} 0 0 {value}",
        "ms {key} {value} ME",
        "stats",
        "mn",
        "version",
    ];
    let mut args: Vec<&str> = commands.iter().flat_map(|command| ["--command", *command]).collect();
    args.extend(["--requests", "1800", "--conns", "3", "--keys", "5", "--pipeline", "5"]);
    let (ended, grown) = memcached.judge(&args);
    let report = ended.expect(0);
    assert_eq!(whole(report).ok, 1800, "{}", brief(report));
    assert_eq!(grown("cmd_get"), 3 * ok(report, "get") + ok(report, "mg"), "{}", brief(report));
    assert_eq!(grown("cmd_set"), ok(report, "set") + ok(report, "add") + ok(report, "ms"), "{}", brief(report));
    let found = (counted(report, "hits"), counted(report, "misses"));
    assert_eq!((grown("get_hits"), grown("get_misses")), found, "{}", brief(report));
    // The first one makes the counter, which is neither a hit nor a miss.
    assert_eq!((grown("incr_hits"), grown("incr_misses")), (ok(report, "ma") - 1, 0), "{}", brief(report));
    assert!(found.0 > 0 && found.1 >= ok(report, "get") && counted(report, "not_stored") > 0, "{}", brief(report));
}

#[test]
fn refusals_are_counted_and_the_run_goes_on() {
    let Some(memcached) = Memcached::start(&[]) else { return };
    // Values are too large for it, then there is nothing to count up, then a command that it does not know so.
    let cases: [(&[&str], &str); 3] = [
        (&["--mix", "set", "--value-size", "100KiB"], "server_error"),
        (&["--command", "set n 0 0 {value}", "--command", "incr n 1", "--value-size", "5"], "client_error"),
        (&["--command", "verbosity x", "--command", "mn"], "client_error"),
    ];
    for (case, kind) in cases {
        eprintln!("{case:?}");
        let args = [case, &["--requests", "400", "--conns", "4", "--pipeline", "4"]].concat();
        let (ended, grown) = memcached.judge(&args);
        let report = ended.expect(4);
        assert_eq!(error_kinds(report), [kind], "{}", brief(report));
        assert_eq!(whole(report).ok + errors(report, kind), 400, "{}", brief(report));
        assert!(errors(report, kind) > 100, "{}", brief(report));
        assert_eq!((report.connections.opened, report.connections.lost), (4, 0), "{}", brief(report));
        if kind == "server_error" {
            assert_eq!((grown("cmd_set"), whole(report).ok), (0, 0), "{}", brief(report));
        }
    }
}

#[test]
fn a_login_is_wanted_and_given() {
    let folder = common::scratch();
    let users = folder.path().join("users");
    std::fs::write(&users, "someone:secret\n").unwrap();
    // It reads the file as the user that it has become.
    let open = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(folder.path(), 0o755);
    open(&users, 0o644);
    let Some(memcached) = Memcached::start(&["-Y", users.to_str().unwrap()]) else { return };
    let args = ["--requests", "100", "--conns", "4", "--mix", "get"];
    let ended = loadgen_at(&format!("memcached://someone:secret@{}", memcached.address), &args);
    let report = ended.expect(0);
    assert_eq!(whole(report).ok, 100, "{}", brief(report));
    assert_eq!((counted(report, "hits"), counted(report, "misses")), (0, 100));
    assert!(!report.scenario.target.contains("secret"), "{}", report.scenario.target);

    let ended = loadgen_at(&format!("memcached://someone:wrong@{}", memcached.address), &args);
    let report = ended.expect(3);
    assert_eq!((whole(report).sent, error_rows(report, "client_error") > 0), (0, true), "{}", brief(report));
    // Without a login each request is refused.
    let ended = loadgen_at(&memcached.target(), &args);
    assert_eq!(error_kinds(ended.expect(4)), ["client_error"]);
}

#[test]
fn the_embedded_server_agrees_in_both_dialects() {
    for dialect in ["text", "meta"] {
        for pipeline in ["1", "16"] {
            let args = ["--protocol", "memcached", "--dialect", dialect, "--pipeline", pipeline, "--conns", "6"];
            let mix = ["--mix", "set=2,get=5,delete=1,touch=1,version=1", "--keys", "20", "--value-size", "0..60KiB"];
            let ended = loadgen(&[&args[..], &mix, &SHORT].concat());
            let report = ended.expect(0);
            clean(report);
            agrees_with_embedded(report);
            assert!(counted(report, "hits") > 0 && counted(report, "misses") > 0, "{}", brief(report));
        }
    }
}

/// A peer answers each third request of a connection with bytes that are no reply to it.
#[test]
fn replies_that_are_none_end_their_connection_and_not_the_run() {
    for (reply, kind) in [
        ("BANANA\r\n", "malformed"),
        ("VALUE k 0 5\r\nhello!\r\nEND\r\n", "malformed"),
        ("STORED\r\n", "mismatch"),
        ("VALUE k 0 1\r\nx\r\nVALUE k 0 1\r\nx\r\nEND\r\n", "mismatch"),
        ("VALUE k 0 99999999999999999999\r\n", "too_large"),
        ("VALUE k 0 1073741824\r\nx", "truncated"),
    ] {
        eprintln!("{reply:?}");
        let peer = Peer::start(move |talk| {
            let mut line = [0; 14];
            for _ in 0..2 {
                let Ok(()) = talk.stream.read_exact(&mut line) else { return };
                assert_eq!((&line[..8], &line[12..]), (&b"get key:"[..], &b"\r\n"[..]));
                talk.good(b"END\r\n");
            }
            if talk.stream.read_exact(&mut line).is_ok() {
                talk.fault();
                talk.send(reply.as_bytes());
                talk.finish();
            }
        });
        let target = format!("memcached://{}", peer.address);
        let ended = loadgen_at(&target, &["--mix", "get", "--requests", "60", "--conns", "4"]);
        let report = ended.expect(4);
        assert_eq!(error_kinds(report), [kind], "{}", brief(report));
        assert_eq!((whole(report).ok, errors(report, kind)), (peer.good(), peer.faults()), "{}", brief(report));
        assert_eq!((whole(report).sent, counted(report, "misses")), (60, peer.good()), "{}", brief(report));
        assert!(peer.faults() > 10, "{}", brief(report));
    }
}

#[test]
fn memory_does_not_grow_with_requests_that_differ() {
    let peak = |requests: &str| {
        let args = ["--protocol", "memcached", "--conns", "8", "--pipeline", "4", "--requests", requests];
        let ended = loadgen(&args);
        clean(ended.expect(0));
        ended.report().cpu.client_memory_bytes
    };
    let (short, long) = (peak("4k"), peak("40k"));
    assert!(short > 0 && long < short + (1 << 20), "{short} bytes, ten times as long {long}");
}

#[test]
fn what_cannot_be_asked_is_refused_before_the_run() {
    for (args, expected) in [
        (&["--mix", "fetch"][..], "there are get, set"),
        (&["--dialect", "binary"], "text and meta"),
        (&["--command", "quit"], "ends the connection"),
        (&["--command", "set {key} 0 0 {value} noreply"], "noreply"),
        (&["--key-prefix", "a b"], "blanks"),
    ] {
        let ended = loadgen(&[&["--protocol", "memcached"][..], args].concat());
        assert!(ended.expect_refusal(2).contains(expected), "{}", ended.stderr);
    }
}

/// Connections beyond `-c` are accepted, told so, and closed: they have not been served.
#[test]
fn connections_beyond_the_limit_are_not_served() {
    let Some(memcached) = Memcached::start(&["-t", "1", "-c", "64", "-o", "maxconns_fast"]) else { return };
    for more in [&[][..], &["--threads", "2"], &["--rate", "500"]] {
        let common = ["--conns", "100", "--timeout", "1s", "--duration", "500ms", "--warmup", "0s"];
        let ended = loadgen_at(&memcached.target(), &[&common[..], more].concat());
        let report = ended.expect(4);
        let (shown, connections) = (brief(report), &report.connections);
        assert!(connections.served >= 1 && connections.served < 100, "{more:?}: {shown}");
        assert!(connections.turned_away > 0 && connections.turned_away <= connections.lost, "{more:?}: {shown}");
        assert!(error_rows(report, "turned_away") > 0, "{more:?}: {shown}");
        assert!(report.verdict.reasons.iter().any(|reason| reason.code == "connections_short"), "{more:?}: {shown}");
    }
}
