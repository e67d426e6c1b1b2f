//! Redis as the judge: `INFO commandstats` says what was really asked, `INFO stats` what was found.

mod common;

use common::{
    Ended, HARD_LIMIT, SHORT, agrees_with_embedded, brief, clean, error_kinds, error_rows, errors, eventually, have,
    loadgen, loadgen_at, scratch, whole, with_every_server_engine,
};
use loadgen_core::result::Report;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use tempfile::TempDir;

const PASSWORD: &str = "se:cr@t";

/// A Redis that keeps nothing on disk, with a TCP port and a unix socket; killed when dropped.
struct Redis {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
    password: Option<&'static str>,
}

/// What it counted: calls by command, and the numbers of INFO by name.
type Counters = BTreeMap<String, u64>;

impl Redis {
    /// `None`: there is none here.
    fn start(password: Option<&'static str>) -> Option<Self> {
        if !have("redis-server") {
            return None;
        }
        // Between this and its own bind somebody else may take it; then it does not start, and the test says so.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = scratch();
        let mut command = common::command("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &address.port().to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(folder.path()).arg("--unixsocket").arg(folder.path().join("socket"));
        password.iter().for_each(|password| _ = command.args(["--requirepass", password]));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let redis = Self { child, address, folder, password };
        eventually("redis answers", || TcpStream::connect(address).is_ok());
        Some(redis)
    }

    fn target(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Asks, and hears all until Redis ends the connection.
    fn ask(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(HARD_LIMIT)).unwrap();
        let login = self.password.map_or(String::new(), |password| format!("AUTH {password}\r\n"));
        write!(stream, "{login}{commands}\r\nQUIT\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn counters(&self) -> Counters {
        let text = self.ask("INFO commandstats\r\nINFO stats\r\nINFO keyspace");
        let number = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let calls = value.strip_prefix("calls=").map_or(value, |rest| rest.split(',').next().unwrap_or(rest));
            let keys = calls.strip_prefix("keys=").map_or(calls, |rest| rest.split(',').next().unwrap_or(rest));
            Some((name.trim_start_matches("cmdstat_").to_owned(), keys.parse().ok()?))
        };
        text.lines().filter_map(number).collect()
    }

    /// Runs loadgen; and how much each counter has grown by it.
    fn judge(&self, args: &[&str]) -> (Ended, impl Fn(&str) -> u64 + use<>) {
        self.judge_at(&self.target(), args)
    }

    fn judge_at(&self, target: &str, args: &[&str]) -> (Ended, impl Fn(&str) -> u64 + use<>) {
        let before = self.counters();
        let ended = loadgen_at(target, args);
        let after = self.counters();
        let of = |counters: &Counters, name: &str| counters.get(name).copied().unwrap_or(0);
        (ended, move |name: &str| of(&after, name) - of(&before, name))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests of a kind that were sent, and those that were answered well.
fn kind(report: &Report, kind: &str) -> (u64, u64) {
    let group = report.breakdown.iter().find(|group| group.kind.as_deref() == Some(kind));
    let group = group.unwrap_or_else(|| panic!("no {kind} in {:?}", report.breakdown));
    (group.whole_run.sent, group.whole_run.ok)
}

#[test]
fn the_ledger_is_that_of_redis() {
    let Some(redis) = Redis::start(None) else { return };
    for dialect in ["2", "3"] {
        for pipeline in ["1", "16"] {
            eprintln!("RESP{dialect}, pipeline {pipeline}");
            let mix = "get=6,set=2,incr=1,ping=1,del=1,exists=1,mset=1,lpush=1,lpop=1,sadd=1,spop=1,hset=1,hget=1";
            let args = ["--dialect", dialect, "--pipeline", pipeline, "--mix", mix, "--conns", "8", "--threads", "2"];
            let keys = ["--keys", "50", "--key-spread", "zipf", "--value-size", "0..5000"];
            let (ended, grown) = redis.judge(&[&args[..], &keys, &SHORT].concat());
            let report = ended.expect(0);
            clean(report);
            for word in mix.split(',').map(|word| word.split_once('=').unwrap().0) {
                let (sent, ok) = kind(report, word);
                assert_eq!((grown(word), sent), (sent, ok), "{word}: {}", brief(report));
                assert!(sent > 0, "{word}");
            }
            assert_eq!(report.counted["hits"] + report.counted["misses"], {
                ["get", "hget", "lpop", "spop"].iter().map(|word| kind(report, word).1).sum::<u64>()
            });
            assert_eq!(grown("hello"), if dialect == "3" { report.connections.opened } else { 0 });
            // The look at the counters is a connection, too, and four commands.
            assert_eq!(grown("total_connections_received"), report.connections.opened + 1, "{}", brief(report));
            let replies = whole(report).ok + grown("hello") + 4;
            assert_eq!(grown("total_commands_processed"), replies, "{}", brief(report));
        }
    }
}

#[test]
fn hits_and_misses_are_those_of_redis() {
    let Some(redis) = Redis::start(None) else { return };
    let fill = ["--mix", "set", "--keys", "1000", "--key-spread", "sequential", "--requests", "500", "--conns", "5"];
    let (ended, grown) = redis.judge(&fill);
    clean(ended.expect(0));
    assert_eq!((grown("set"), grown("db0")), (500, 500), "each key once");
    let (ended, grown) = redis.judge(&[&["--mix", "get", "--keys", "1000", "--pipeline", "4"][..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    assert_eq!((grown("keyspace_hits"), grown("keyspace_misses")), (report.counted["hits"], report.counted["misses"]));
    assert!(report.counted["hits"] > 0 && report.counted["misses"] > 0);
    assert_eq!(grown("get"), whole(report).ok);
}

#[test]
fn what_is_asked_without_a_mix_is_ping_also_over_its_unix_socket() {
    let Some(redis) = Redis::start(None) else { return };
    let (ended, grown) = redis.judge(&[&["--pipeline", "3", "--rate", "5k"][..], &SHORT].concat());
    clean(ended.expect(0));
    assert_eq!(grown("ping"), whole(ended.report()).ok);
    let target = format!("unix:{}", redis.folder.path().join("socket").display());
    let args = ["--protocol", "redis", "--mix", "set=1,get=1", "--conns", "20"];
    let (ended, grown) = redis.judge_at(&target, &[&args[..], &SHORT].concat());
    clean(ended.expect(0));
    assert_eq!((grown("set"), grown("get")), (kind(ended.report(), "set").1, kind(ended.report(), "get").1));
}

#[test]
fn a_login_and_a_database_come_before_the_first_request() {
    let Some(redis) = Redis::start(Some(PASSWORD)) else { return };
    let address = redis.address;
    for (dialect, logins) in [("2", "auth"), ("3", "hello")] {
        let target = format!("redis://:se:cr%40t@{address}/7");
        let args = ["--mix", "set", "--dialect", dialect, "--conns", "6", "--requests-per-conn", "50"];
        let (ended, grown) = redis.judge_at(&target, &[&args[..], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        assert_eq!(grown("set"), whole(report).ok, "{}", brief(report));
        let opened = report.connections.opened;
        // Our own look logs in once.
        let ours = u64::from(logins == "auth");
        assert_eq!((grown(logins), grown("select")), (opened + ours, opened), "{}", brief(report));
        assert!(redis.counters()["db7"] > 0);
        // Whoever reads the report learns no password.
        let text = serde_json::to_string(report).unwrap();
        assert!(!text.contains("se:cr") && text.contains(":***@"), "{text}");
    }
}

#[test]
fn a_wrong_login_is_told_in_one_line_and_nothing_is_asked() {
    let Some(redis) = Redis::start(Some(PASSWORD)) else { return };
    let address = redis.address;
    for (target, dialect) in [(format!("redis://:no@{address}"), "2"), (format!("redis://u:no@{address}"), "3")] {
        let args = ["--dialect", dialect, "--conns", "3"];
        let (ended, grown) = redis.judge_at(&target, &[&args[..], &SHORT].concat());
        let report = ended.expect(3);
        assert_eq!((grown("ping"), whole(report).sent), (0, 0));
        let told = report.errors.iter().find(|row| row.kind == "noauth").unwrap_or_else(|| panic!("{}", brief(report)));
        assert!(told.phase == "connect" && told.first.contains("WRONGPASS"), "{told:?}");
        assert!(ended.stderr.contains("error: ") && !ended.stderr.contains(":no@"), "{}", ended.stderr);
    }
    // Without any, each request is refused, which Redis says by itself.
    let (ended, _) = redis.judge(&["--requests", "20", "--conns", "2"]);
    let report = ended.expect(4);
    assert_eq!((error_kinds(report), errors(report, "noauth")), (vec!["noauth"], 20), "{}", brief(report));
}

#[test]
fn errors_of_redis_have_their_words_and_the_run_goes_on() {
    let Some(redis) = Redis::start(None) else { return };
    redis.ask("LPUSH list a");
    let commands = ["--command", "GET list", "--command", "3=SET k {value}", "--command", "NOSUCH {counter}"];
    let (ended, grown) = redis.judge(&[&commands[..], &["--conns", "4", "--pipeline", "5"], &SHORT].concat());
    let report = ended.expect(4);
    let mut kinds = error_kinds(report);
    kinds.sort_unstable();
    assert_eq!(kinds, ["error_reply", "wrongtype"], "{}", brief(report));
    assert_eq!(errors(report, "wrongtype"), grown("get"), "{}", brief(report));
    assert_eq!((grown("set"), report.connections.lost), (whole(report).ok, 0), "{}", brief(report));
    assert_eq!(report.connections.opened, 4);
}

#[test]
fn counted_numbers_are_each_used_once_by_all_threads() {
    let Some(redis) = Redis::start(None) else { return };
    let args = ["--command", "SET n:{counter} {random}", "--requests", "3000", "--conns", "9", "--threads", "3"];
    let (ended, grown) = redis.judge(&[&args[..], &["--pipeline", "4"]].concat());
    clean(ended.expect(0));
    assert_eq!((grown("set"), grown("db0")), (3000, 3000), "{}", brief(ended.report()));
}

#[test]
fn the_embedded_server_agrees() {
    with_every_server_engine(|engine| {
        for dialect in ["2", "3"] {
            let mix =
                ["--protocol", "redis", "--mix", "get=4,set=2,incr=1,del=1", "--dialect", dialect, "--keys", "20"];
            let args = ["--server-engine", engine, "--server-threads", "2", "--conns", "8", "--pipeline", "7"];
            let ended = loadgen(&[&mix[..], &args, &["--requests", "20k"]].concat());
            let report = ended.expect(0);
            clean(report);
            let whole = whole(report);
            assert_eq!((whole.sent, whole.ok), (20_000, 20_000));
            if dialect == "2" {
                agrees_with_embedded(report);
            }
        }
    });
}

#[test]
fn what_cannot_be_asked_is_refused_before_the_run() {
    for args in [
        &["--mix", "flush=1"][..],
        &["--mix", "get=0"],
        &["--command", ""],
        &["--command", "SUBSCRIBE x"],
        &["--command", "BLPOP x 0"],
        &["--command", "GET {nothing}"],
        &["--command", "GET \"x"],
        &["--dialect", "4"],
        &["--mix", "get=1", "--command", "PING"],
        &["--keys", "0", "--mix", "get=1"],
        &["--key-spread", "normal"],
        &["--target", "redis://127.0.0.1:1/x"],
    ] {
        let ended = loadgen(&[&["--protocol", "redis", "--requests", "10", "--conns", "1"][..], args].concat());
        assert_eq!(ended.code, 2, "{args:?}: {} {}", ended.stdout, ended.stderr);
        assert!(ended.stderr.lines().any(|line| line.starts_with("error: ")), "{args:?}: {}", ended.stderr);
    }
}

/// Connections beyond `maxclients` are accepted, told so, and closed: they have not been served.
#[test]
fn connections_beyond_the_limit_are_not_served() {
    let Some(redis) = Redis::start(None) else { return };
    redis.ask("CONFIG SET maxclients 4\r\n");
    for more in [&[][..], &["--threads", "2"], &["--rate", "500"], &["--think", "fixed:20ms"], &["--dialect", "3"]] {
        let common = ["--conns", "8", "--timeout", "1s", "--duration", "500ms", "--warmup", "0s"];
        let ended = loadgen_at(&redis.target(), &[&common[..], more].concat());
        let report = ended.expect(4);
        let (shown, connections) = (brief(report), &report.connections);
        assert!(connections.served >= 1 && connections.served <= 4, "{more:?}: {shown}");
        assert!(connections.turned_away >= 4 && connections.turned_away <= connections.lost, "{more:?}: {shown}");
        assert!(error_rows(report, "turned_away") >= 4, "{more:?}: {shown}");
        assert!(report.verdict.reasons.iter().any(|reason| reason.code == "connections_short"), "{more:?}: {shown}");
        assert!(ended.stdout.contains("turned away by the server"), "{}", ended.stdout);
    }
    // Others have all there are.
    let others: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(redis.address).unwrap()).collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let ended = loadgen_at(&redis.target(), &["-n", "20", "--conns", "2", "--timeout", "500ms"]);
    let report = ended.expect(3);
    assert!(ended.stderr.contains("max number of clients"), "{}", ended.stderr);
    assert_eq!((report.connections.served, whole(report).ok), (0, 0), "{}", brief(report));
    drop(others);
}
