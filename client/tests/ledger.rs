//! Where every request and every connection went, against the embedded server: its counters and ours are the same.

mod common;

use common::{SHORT, Server, agrees, agrees_with_embedded, brief, clean, delivery, loadgen, loadgen_at, series, whole};
use loadgen_core::protocol::PROTOCOLS;
use loadgen_server::engine::ENGINES;

#[test]
fn every_protocol_over_every_server_engine_agrees_with_the_server() {
    for protocol in PROTOCOLS {
        for engine in ENGINES {
            eprintln!("{} over {}", protocol.name, engine.name);
            let args = ["--protocol", protocol.name, "--server-engine", engine.name, "--conns", "8"];
            let ended = loadgen(&[&args[..], &SHORT].concat());
            let report = ended.expect(0);
            clean(report);
            agrees_with_embedded(report);
            assert_eq!((report.connections.opened, report.connections.alive_at_end), (8, 8));
            assert_eq!(report.server.as_ref().unwrap().engine, engine.name);
            assert_eq!(report.scenario.server_engine.as_deref(), Some(engine.name));
            let answered = protocol.shape.has_replies();
            assert_eq!(delivery(report).is_some(), protocol.transport.may_lose());
            assert_eq!(whole(report).ok > 0, answered, "{}", brief(report));
            assert_eq!(report.throughput.requests_per_s > 0, answered);
            let carried = report.throughput.sent_bytes_per_s + report.throughput.received_bytes_per_s;
            assert!(carried > 0, "{:?}", report.throughput);
            assert_eq!(report.throughput.window_ns, 300_000_000);
        }
    }
}

#[test]
fn a_number_of_requests_is_exact() {
    for protocol in ["echo", "http", "udp"] {
        for threads in ["1", "3"] {
            for pipeline in ["1", "16"] {
                // Where nothing is connected, nothing comes and goes.
                for churn in [None, Some("7")].into_iter().filter(|churn| churn.is_none() || protocol != "udp") {
                    eprintln!("{protocol}, {threads} threads, pipeline {pipeline}, churn {churn:?}");
                    let mut args = vec!["--protocol", protocol, "--requests", "1000", "--conns", "10"];
                    args.extend(["--threads", threads, "--pipeline", pipeline]);
                    churn.iter().for_each(|limit| args.extend(["--requests-per-conn", limit]));
                    let ended = loadgen(&args);
                    let report = ended.expect(0);
                    clean(report);
                    agrees_with_embedded(report);
                    let whole = whole(report);
                    assert_eq!((whole.scheduled, whole.sent, whole.ok), (1000, 1000, 1000), "{}", brief(report));
                    assert_eq!((report.ledger.ok, report.throughput.replies), (1000, 1000), "{}", brief(report));
                    let least = if churn.is_some() { 1000_u64.div_ceil(7) } else { 10 };
                    assert!(report.connections.opened >= least, "{}", brief(report));
                    assert!(churn.is_some() || report.connections.opened == 10);
                }
            }
        }
    }
}

#[test]
fn a_number_of_requests_may_be_one_for_each_connection() {
    let ended = loadgen(&["--requests", "20", "--conns", "20", "--threads", "3"]);
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    assert_eq!((whole(report).ok, report.connections.opened), (20, 20));
}

#[test]
fn requests_or_a_duration_whichever_comes_first() {
    let by_count = loadgen(&["--requests", "50", "--duration", "20s", "--conns", "5"]);
    assert_eq!(whole(by_count.expect(0)).ok, 50);
    let by_clock = loadgen(&["--requests", "1G", "--duration", "300ms", "--conns", "5"]);
    let report = by_clock.expect(0);
    assert!(report.throughput.window_ns < 5_000_000_000, "{}", brief(report));
    by_clock.assert_if_fit(whole(report).ok > 50);
    agrees_with_embedded(report);
}

#[test]
fn churn_opens_a_connection_for_every_so_many_requests() {
    let args = ["--conns", "4", "--requests-per-conn", "5", "--pipeline", "2", "--threads", "2"];
    let ended = loadgen(&[&args[..], &SHORT].concat());
    let report = ended.expect(0);
    agrees_with_embedded(report);
    let connections = &report.connections;
    // All but the last of each slot carried five.
    assert!(whole(report).ok <= connections.opened * 5, "{}", brief(report));
    ended.assert_if_fit(connections.opened > 8);
    assert!(whole(report).ok >= (connections.opened - 4) * 5, "{}", brief(report));
}

#[test]
fn idle_connections_make_one_request_each_and_stay() {
    for engine in ENGINES {
        let args = ["--conns", "3", "--idle", "50", "--server-engine", engine.name];
        let ended = loadgen(&[&args[..], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        let connections = &report.connections;
        assert_eq!((connections.requested, connections.opened, connections.alive_at_end), (53, 53, 53));
        assert_eq!((report.scenario.connections, report.scenario.idle_connections), (3, 50));
    }
    let counted = loadgen(&["--requests", "200", "--conns", "3", "--idle", "50", "--threads", "2"]);
    clean(counted.expect(0));
    assert_eq!(whole(counted.report()).ok, 200);
}

#[test]
fn connections_take_turns_where_few_requests_may_be_in_flight() {
    let counted = ["--conns", "50", "--in-flight", "3", "--requests", "5000"];
    let ended = loadgen(&counted);
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    assert_eq!((whole(report).ok, report.scenario.in_flight), (5000, Some(3)));
    let ended =
        loadgen(&[&["--conns", "50", "--in-flight", "4", "--threads", "2", "--pipeline", "2"][..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
    // Two threads with two each: as many are in flight when the window closes.
    assert_eq!(report.ledger.in_flight_at_end, 4, "{}", brief(report));
    assert_eq!(report.connections.served, 50, "{}", brief(report));
    ended.assert_if_fit(report.ledger.ok > 1000);
}

#[test]
fn large_payloads_come_back_whole() {
    let cases = [("echo", "64KiB", 65_536, "1"), ("echo", "1MiB", 1 << 20, "1"), ("echo", "64KiB", 65_536, "4")];
    for (protocol, size, bytes, pipeline) in cases {
        let args = ["--protocol", protocol, "--size", size, "--conns", "4", "--pipeline", pipeline];
        let ended = loadgen(&[&args[..], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        assert_eq!(series(report, "received_bytes"), whole(report).ok * bytes);
        assert_eq!(series(report, "sent_bytes"), whole(report).ok * bytes);
    }
}

#[test]
fn a_large_http_body_is_received_whole() {
    for pipeline in ["1", "8"] {
        let args = ["--protocol", "http", "--size", "64KiB", "--conns", "4", "--pipeline", pipeline];
        let ended = loadgen(&[&args[..], &SHORT].concat());
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        assert!(series(report, "received_bytes") > whole(report).ok * 65_536);
        assert!(series(report, "received_bytes") < whole(report).ok * 66_000);
    }
}

#[test]
fn an_http_body_is_sent_whole() {
    let body = "x".repeat(100_000);
    let args = ["--protocol", "http", "--method", "POST", "--body", &body, "--conns", "4"];
    let ended = loadgen(&[&args[..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
}

#[test]
fn several_threads_on_both_sides_agree() {
    let args = ["--conns", "30", "--threads", "3", "--server-threads", "3", "--pipeline", "4", "--idle", "7"];
    let ended = loadgen(&[&args[..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    agrees_with_embedded(report);
}

#[test]
fn a_server_of_somebody_else_agrees_too() {
    let server = Server::start(&["--threads", "2"]);
    let ended = loadgen_at(&server.target(), &[&["--conns", "10", "--threads", "2"][..], &SHORT].concat());
    let report = ended.expect(0);
    clean(report);
    assert!(report.server.is_none() && report.environment.server.is_none() && report.scenario.server_engine.is_none());
    agrees(report, &server.stop());
}

#[test]
fn an_ipv6_target_is_measured() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 here");
        return;
    }
    let server = Server::start_at("[::1]:0", &["--protocol", "http"]);
    let ended = loadgen_at(&format!("http://{}/", server.address()), &[&["--conns", "4"][..], &SHORT].concat());
    clean(ended.expect(0));
    agrees(ended.report(), &server.stop());
}

#[test]
fn equal_scenarios_have_equal_hashes_and_different_ones_do_not() {
    let hash = |args: &[&str]| {
        let ended = loadgen(&[&["--requests", "40"], args].concat());
        ended.expect(0).scenario.hash.clone()
    };
    let first = hash(&["--conns", "4"]);
    assert_eq!(first, hash(&["--conns", "4"]));
    assert_eq!(first, hash(&["--conns", "4", "--label", "try=2", "--quiet"]));
    let others: [&[&str]; 7] = [
        &["--conns", "5"],
        &["--conns", "4", "--pipeline", "2"],
        &["--conns", "4", "--size", "65"],
        &["--conns", "4", "--threads", "2"],
        &["--conns", "4", "--server-engine", "poll"],
        &["--conns", "4", "--seed", "2"],
        &["--conns", "4", "--timeout", "4s"],
    ];
    for other in others {
        assert_ne!(first, hash(other), "{other:?}");
    }
    let http = hash(&["--conns", "4", "--protocol", "http"]);
    assert_eq!(http, hash(&["--conns", "4", "--protocol", "http"]));
    assert_ne!(http, hash(&["--conns", "4", "--protocol", "http", "--header", "Accept: text/html"]));
}

/// Memory does not grow with the number of requests.
#[test]
fn memory_does_not_grow_with_requests() {
    for protocol in ["echo", "http", "udp"] {
        let peak = |requests: &str| {
            let args = ["--protocol", protocol, "--conns", "8", "--pipeline", "4", "--requests", requests];
            let ended = loadgen(&args);
            clean(ended.expect(0));
            ended.report().cpu.client_memory_bytes
        };
        let (short, long) = (peak("4k"), peak("40k"));
        assert!(short > 0 && long < short + (1 << 20), "{protocol}: {short} bytes, ten times as long {long}");
    }
}
