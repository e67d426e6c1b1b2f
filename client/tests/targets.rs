//! Where the load goes: unix sockets, IPv6, names with several addresses, several targets with weights.

mod common;

use common::{
    HARD_LIMIT, SHORT, Server, agrees, assert_accepted, brief, clean, engine, eventually, have, loadgen, loadgen_at,
    scratch, wait_for, whole, with_every_server_engine,
};
use loadgen_core::protocol::PROTOCOLS;
use loadgen_core::result::Report;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::ToSocketAddrs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

fn socket_in(folder: &TempDir) -> String {
    format!("unix:{}", folder.path().join("socket").display())
}

#[test]
fn every_stream_protocol_goes_over_a_unix_socket() {
    for protocol in PROTOCOLS.iter().filter(|protocol| protocol.transport.has_connections()) {
        with_every_server_engine(|server_engine| {
            let folder = scratch();
            let target = socket_in(&folder);
            let common = ["--protocol", protocol.name];
            let threads = ["--engine", server_engine, "--threads", "2"];
            let server = Server::start_at(&target, &[&common[..], &threads].concat());
            let ended = loadgen_at(&target, &[&common[..], &["--conns", "20", "--threads", "2"], &SHORT].concat());
            let report = ended.expect(0);
            clean(report);
            agrees(report, &server.stop());
            assert_eq!(report.scenario.resolved, [target.as_str()], "{}", protocol.name);
            assert!(!folder.path().join("socket").exists(), "the server takes its socket along");
        });
    }
}

#[test]
fn churn_over_a_unix_socket_is_exact() {
    let folder = scratch();
    let target = socket_in(&folder);
    let server = Server::start_at(&target, &[]);
    let ended = loadgen_at(&target, &["--requests", "2000", "--requests-per-conn", "7", "--conns", "10"]);
    let report = ended.expect(0);
    clean(report);
    assert!(whole(report).ok == 2000 && report.connections.opened >= 2000 / 7, "{}", brief(report));
    agrees(report, &server.stop());
}

#[test]
fn an_abstract_name_is_a_socket_too() {
    let target = format!("unix:@loadgen-test-{}-{}", std::process::id(), engine());
    let server = Server::start_at(&target, &[]);
    let ended = loadgen_at(&target, &[&["--conns", "5"][..], &SHORT].concat());
    clean(ended.expect(0));
    agrees(ended.report(), &server.stop());
}

#[test]
fn a_socket_that_is_not_there_is_unreachable() {
    let folder = scratch();
    let ended = loadgen_at(&socket_in(&folder), &[&["--conns", "5"][..], &SHORT].concat());
    let report = ended.expect(3);
    assert!(report.connections.failed["refused"] > 0 && report.connections.opened == 0, "{}", brief(report));
    // What a server left behind that was killed is one, too, and the next server takes it over.
    let target = socket_in(&folder);
    Server::start_at(&target, &[]).kill();
    assert!(folder.path().join("socket").exists());
    loadgen_at(&target, &[&["--conns", "5"][..], &SHORT].concat()).expect(3);
    let server = Server::start_at(&target, &[]);
    clean(loadgen_at(&target, &[&["--conns", "5"][..], &SHORT].concat()).expect(0));
    server.stop();
}

#[test]
fn wrong_places_are_refused() {
    let long = format!("unix:/{}", "x".repeat(108));
    for args in [
        &["--target", "unix:"][..],
        &["--target", &long],
        &["--target", "unix:/x", "--source", "127.0.0.1"],
        &["--target", "unix:/x", "--engine", "io_uring", "--ring", "zero-copy"],
        &["--target", "127.0.0.1:1", "--weights", "1,2"],
        &["--target", "127.0.0.1:1", "--weights", "0"],
        &["--target", "127.0.0.1:1", "--target", "http://127.0.0.1:1/"],
        &["--target", "127.0.0.1:1", "--target", "127.0.0.1:2", "--protocol", "chargen"],
        &["--target", "127.0.0.1:1", "--addresses", "most"],
        &["--target", "127.0.0.1:1", "--mix", "get=1"],
        &["--target", "http://me:secret@127.0.0.1:1/"],
    ] {
        let ended = loadgen(args);
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        let told = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(told == 1 && !ended.stderr.contains("secret"), "{args:?}: {}", ended.stderr);
    }
    let ended = loadgen(&["--target", "127.0.0.1:1", "--addresses", "ipv6"]);
    assert!(ended.code == 3 && ended.stderr.contains("ipv6"), "{}", ended.stderr);
}

#[test]
fn ipv6_is_an_address_like_others() {
    with_every_server_engine(|server_engine| {
        let server = Server::start_at("[::1]:0", &["--engine", server_engine]);
        let ended = loadgen_at(&server.target(), &[&["--conns", "10"][..], &SHORT].concat());
        clean(ended.expect(0));
        assert!(ended.report().scenario.resolved[0].starts_with("[::1]:"));
        agrees(ended.report(), &server.stop());
    });
}

#[test]
fn all_addresses_of_a_name_are_used_in_turn_or_one_is_chosen() {
    let v4 = Server::start(&[]);
    let port = v4.address().port();
    let named = format!("localhost:{port}");
    let v6 = Server::start_at(&format!("[::1]:{port}"), &[]);
    let addresses: Vec<String> = named.to_socket_addrs().unwrap().map(|address| address.to_string()).collect();
    if addresses.len() < 2 {
        eprintln!("skipped in part: localhost has one address here");
        return;
    }
    let run = |which: &str| {
        let ended = loadgen_at(&named, &[&["--conns", "20", "--addresses", which][..], &SHORT].concat());
        clean(ended.expect(0));
        ended.report().clone()
    };
    let reports = ["all", "ipv4", "ipv6"].map(run);
    assert_eq!(reports[0].scenario.resolved, addresses);
    assert_eq!(reports[0].scenario.addresses.as_deref(), Some("all"));
    assert_ne!(reports[0].scenario.hash, reports[1].scenario.hash);
    let sent = |report: &Report| whole(report).sent;
    let (v4, v6) = (v4.stop(), v6.stop());
    assert_eq!((v4.accepts, v6.accepts), (10 + 20 + 1 - 1, 10 + 20), "ten each, then twenty alone");
    assert_eq!(v4.requests + v6.requests, reports.iter().map(sent).sum::<u64>());
}

/// The target's turn comes first, then that of its addresses: how many it has makes no difference to its share.
#[test]
fn targets_with_several_addresses_keep_their_shares() {
    let both = || {
        let v4 = Server::start(&[]);
        let v6 = Server::start_at(&format!("[::1]:{}", v4.address().port()), &[]);
        [v4, v6]
    };
    let (first, second, third) = (both(), both(), Server::start(&[]));
    let name = |servers: &[Server; 2]| format!("localhost:{}", servers[0].address().port());
    if name(&first).to_socket_addrs().unwrap().count() < 2 {
        eprintln!("skipped: localhost has one address here");
        return;
    }
    let names = [name(&first), name(&second), third.target()];
    let accepts = |servers: [Server; 2]| servers.map(|server| server.stop().accepts);
    let run = |targets: [&str; 2], weights: &str, more: &[&str]| {
        let args = ["--target", targets[0], "--target", targets[1], "--addresses", "all", "--weights", weights];
        let ended = loadgen(&[&args[..], more, &SHORT].concat());
        clean(ended.expect(0));
        ended.report().breakdown.iter().map(|group| group.whole_run.ok).collect::<Vec<_>>()
    };
    // On the first: 1 and 1, then 1 (its second address), then 1 and 1, and 3 for the third.
    for (targets, weights, more) in [
        ([&*names[0], &*names[1]], "1,1", &["--conns", "4"][..]),
        ([&*names[0], &*names[2]], "1,3", &["--conns", "4", "--threads", "2"]),
        ([&*names[0], &*names[1]], "1,1", &["--conns", "4", "--threads", "2", "--rate", "1k"]),
    ] {
        let answered = run(targets, weights, more);
        assert!(answered.iter().all(|ok| *ok > 0), "{weights} {more:?}: {answered:?}");
    }
    let (first, second) = (accepts(first), accepts(second));
    assert_eq!((first.iter().sum::<u64>(), second, third.stop().accepts), (2 + 1 + 2, [2, 2], 3));
}

#[test]
fn connections_are_shared_out_by_weight() {
    for threads in ["1", "3"] {
        let servers = [(), ()].map(|()| Server::start(&["--protocol", "http"]));
        let urls = servers.each_ref().map(|server| format!("http://{}/bytes/9", server.target()));
        let args =
            ["--target", &urls[0], "--target", &urls[1], "--weights", "3,1", "--conns", "40", "--threads", threads];
        let ended = loadgen(&[&args[..], &["--pipeline", "3"], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        assert_eq!(report.scenario.weights, [3, 1]);
        let stats = servers.map(Server::stop);
        assert_eq!(stats.each_ref().map(|server| server.accepts), [30, 10]);
        for ((group, server), url) in report.breakdown.iter().zip(&stats).zip(&urls) {
            assert_eq!(group.target.as_ref(), Some(url));
            assert_eq!((group.whole_run.sent, group.whole_run.ok), (server.requests, server.replies));
            let counted = group.ok + group.in_flight_at_end + group.errors.values().sum::<u64>();
            assert!(group.sent == counted && group.sent > 0, "{group:?}");
            assert_eq!(group.response.as_ref().unwrap().count, group.ok + group.in_flight_at_end);
        }
        let all = |of: fn(&loadgen_core::result::Group) -> u64| report.breakdown.iter().map(of).sum::<u64>();
        assert_eq!((all(|g| g.sent), all(|g| g.ok)), (report.ledger.sent, report.ledger.ok));
        assert_eq!((all(|g| g.whole_run.sent), all(|g| g.whole_run.ok)), (whole(report).sent, whole(report).ok));
        assert_eq!(stats.iter().map(|s| s.received_bytes).sum::<u64>(), report.throughput.whole_run_sent_bytes);
    }
}

#[test]
fn a_target_that_is_dead_does_not_hide_behind_one_that_lives() {
    let alive = Server::start(&[]);
    let dead = Server::start(&[]);
    let gone = dead.target();
    dead.kill();
    let targets = ["--target", &alive.target(), "--target", &gone, "--conns", "10", "--timeout", "500ms"];
    let ended = loadgen(&[&targets[..], &SHORT].concat());
    let report = ended.expect(4);
    assert!(report.connections.failed["refused"] > 0, "{}", brief(report));
    assert_eq!((report.connections.established, report.breakdown[1].whole_run.sent), (5, 0), "{}", brief(report));
    assert!(report.verdict.reasons.iter().any(|reason| reason.code == "connections_short"), "{}", brief(report));
    let stats = alive.stop();
    assert_eq!((stats.requests, stats.replies), (whole(report).sent, whole(report).ok));
}

/// haproxy with its own answer behind a unix socket; killed when dropped.
struct Haproxy {
    child: Child,
    folder: TempDir,
}

impl Haproxy {
    fn start() -> Option<Self> {
        if !have("haproxy") {
            return None;
        }
        let folder = scratch();
        let root = folder.path().display();
        let config = format!(
            "global\n  stats socket {root}/admin level admin\n  maxconn 1000\n  nbthread 1\ndefaults\n  mode http\n  \
             timeout client 30s\n  timeout server 30s\n  timeout connect 5s\nfrontend f\n  bind unix@{root}/web\n  \
             http-request return status 200 content-type text/plain string \"hello\"\n"
        );
        std::fs::write(folder.path().join("haproxy.cfg"), config).unwrap();
        let mut command = common::command("haproxy");
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        command.arg("-q").arg("-db").arg("-f").arg(folder.path().join("haproxy.cfg"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let haproxy = Self { child, folder };
        eventually("haproxy listens", || UnixStream::connect(haproxy.folder.path().join("admin")).is_ok());
        eventually("haproxy serves", || UnixStream::connect(haproxy.folder.path().join("web")).is_ok());
        Some(haproxy)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What it counted of its frontend, by the names of `show stat`.
    fn counters(&self) -> BTreeMap<String, u64> {
        let mut admin = UnixStream::connect(self.path().join("admin")).unwrap();
        admin.write_all(b"show stat\n").unwrap();
        let mut text = String::new();
        admin.read_to_string(&mut text).unwrap();
        let mut lines = text.lines();
        let names = lines.next().unwrap().trim_start_matches("# ").split(',');
        let row = lines.find(|line| line.starts_with("f,FRONTEND")).unwrap();
        let number = |(name, value): (&str, &str)| Some((name.to_owned(), value.parse().ok()?));
        names.zip(row.split(',')).filter_map(number).collect()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = loadgen_core::sys::process::terminate(&self.child);
        let _ = wait_for(&mut self.child, HARD_LIMIT, "haproxy");
    }
}

#[test]
fn haproxy_over_a_unix_socket_counts_what_we_count() {
    let Some(haproxy) = Haproxy::start() else { return };
    let target = format!("unix:{}", haproxy.path().join("web").display());
    for extra in [&["--conns", "20"][..], &["--conns", "10", "--pipeline", "8"], &["--conns", "8", "--rate", "5k"]] {
        let before = haproxy.counters();
        let ended = loadgen_at(&target, &[&["--protocol", "http", "--path", "/x"], extra, &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        let after = haproxy.counters();
        let moved = |name: &str| after[name] - before[name];
        assert_eq!(moved("req_tot"), whole(report).sent, "{}", brief(report));
        assert_eq!(moved("hrsp_2xx"), whole(report).ok, "{}", brief(report));
        // Its bytes are those of its own form of a message, and not of the wire.
        assert_accepted(report, moved("conn_tot"));
    }
}
