//! Users: what they do is checked on the log of every request, to the nanosecond, and on the server's own counts.

mod common;

use common::peer::Peer;
use common::request_log::{self, Row};
use common::{
    Ended, Running, Server, agrees, agrees_with_embedded, brief, clean, loadgen, loadgen_at, loadgen_plain, namespace,
    port_range, scratch, whole,
};
use loadgen_core::arrivals::{Process, Profile, Schedule};
use loadgen_core::result::{Report, Sessions};
use loadgen_core::time::Instant;
use std::collections::BTreeMap;
use std::path::Path;

const MS: u64 = 1_000_000;

/// Requests by connection, in the order in which they were sent, without those that proved it before the load. By their
/// due times a late session would stand among the requests of the one before it.
fn read_log(path: &Path) -> BTreeMap<u64, Vec<Row>> {
    let mut slots = BTreeMap::<u64, Vec<Row>>::new();
    for row in request_log::read(path).into_iter().filter(|row| row.outcome != "proof") {
        slots.entry(row.slot).or_default().push(row);
    }
    slots.values_mut().for_each(|rows| rows.sort_by_key(|row| row.sent));
    slots
}

/// A run with its log.
fn logged(target: Option<&str>, args: &[&str]) -> (Ended, BTreeMap<u64, Vec<Row>>) {
    let folder = scratch();
    let log = folder.path().join("requests.csv");
    let args = [args, &["--request-log", log.to_str().unwrap()]].concat();
    let ended = match target {
        Some(target) => loadgen_at(target, &args),
        None => loadgen(&args),
    };
    let rows = read_log(&log);
    (ended, rows)
}

/// The times between a reply and when the next request on its connection was due.
fn thoughts(slots: &BTreeMap<u64, Vec<Row>>) -> Vec<u64> {
    let of = |rows: &Vec<Row>| rows.windows(2).map(|pair| pair[1].due - pair[0].received).collect::<Vec<u64>>();
    slots.values().flat_map(of).collect()
}

fn sessions(report: &Report) -> &Sessions {
    let sessions = report.sessions.as_ref().expect("a partly open run has sessions");
    assert!(sessions.closes(), "{sessions:?}");
    sessions
}

#[test]
fn a_thinking_user_s_next_request_is_due_so_long_after_the_reply() {
    for (ending, threads) in [
        (&["--duration", "400ms", "--warmup", "100ms"][..], "1"),
        (&["--duration", "400ms", "--warmup", "0s"], "3"),
        (&["--requests", "400"], "1"),
        (&["--requests", "300", "--requests-per-conn", "4"], "2"),
        (&["--duration", "300ms", "--warmup", "50ms", "--requests-per-conn", "1"], "1"),
    ] {
        let args = ["--think", "fixed:7ms", "--conns", "20", "--threads", threads];
        let (ended, slots) = logged(None, &[&args[..], ending].concat());
        let report = ended.expect(0);
        clean(report);
        agrees_with_embedded(report);
        assert_eq!(slots.len(), 20, "each user is there");
        let thoughts = thoughts(&slots);
        assert!(!thoughts.is_empty() && thoughts.iter().all(|ns| *ns == 7 * MS), "{ending:?}: {thoughts:?}");
        assert_eq!(report.scenario.think.as_deref(), Some("fixed:7ms"));
        assert_eq!(report.scenario.requests.is_some(), ending[0] == "--requests");
        if let Some(requests) = report.scenario.requests {
            assert_eq!(whole(report).ok, requests, "{}", brief(report));
        }
        // N / (think + latency) is the most that such users can ask for.
        for rows in slots.values() {
            let (first, last) = (&rows[0], &rows[rows.len() - 1]);
            let slots = (last.due - first.due) / (7 * MS) + 1;
            assert!(rows.len() as u64 <= slots, "{} in {slots}", rows.len());
            assert!(rows.iter().all(|row| row.sent >= row.due && row.received > row.sent), "{rows:?}");
        }
        let lag = report.latency.generator_lag.as_ref().unwrap();
        // On a connection that is opened anew it is known before the request is sent, which the window may not see.
        assert!(lag.count > 0 && lag.count <= report.ledger.scheduled, "{}", brief(report));
        assert!(ended.stdout.contains("think time fixed:7ms"), "{}", ended.stdout);
    }
}

/// Latency counts from when the request was due, so the window's figures are those of the log.
#[test]
fn think_times_are_drawn_by_seed_and_are_not_part_of_the_latency() {
    let run = |seed: &str, think: &str| {
        let args = ["--think", think, "--conns", "1", "--requests", "150", "--seed", seed];
        let (ended, slots) = logged(None, &args);
        let report = ended.expect(0);
        clean(report);
        let rows = &slots[&0];
        let response = report.latency.response.as_ref().unwrap();
        let sum: u64 = rows.iter().map(|row| row.received - row.due).sum();
        assert_eq!((response.count, response.sum_ns), (150, sum));
        thoughts(&slots)
    };
    let drawn = run("7", "exp:2ms");
    assert_eq!(drawn, run("7", "exp:2ms"));
    assert_ne!(drawn, run("8", "exp:2ms"));
    // 149 values: the standard error of the mean is 8 %.
    let mean = drawn.iter().sum::<u64>() / drawn.len() as u64;
    assert!((MS..3 * MS).contains(&mean), "{mean}");
    let two = run("7", "bimodal:0.5,1ms,3ms");
    assert!(two.iter().all(|ns| [MS, 3 * MS].contains(ns)) && two.contains(&MS) && two.contains(&(3 * MS)), "{two:?}");
}

/// A server that closes idle connections does not hurry its users: they come back when they have thought.
#[test]
fn who_loses_the_connection_while_thinking_opens_another_when_it_is_needed() {
    let peer = Peer::start(|talk| {
        for _ in 0..3 {
            match talk.request() {
                Some(request) if talk.good(&request) => {}
                _ => return,
            }
        }
        talk.finish();
    });
    // Long beside what a busy machine may let pass between a reply and the end of the stream behind it.
    let args = ["--think", "fixed:60ms", "--conns", "4", "--requests", "40"];
    let (ended, slots) = logged(Some(&peer.target()), &args);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, whole(report).errors.len()), (40, 0), "{}", brief(report));
    assert!(report.connections.closed_by_server >= 40 / 3 - 4, "{}", brief(report));
    assert_eq!(peer.accepted(), report.connections.opened);
    assert!(thoughts(&slots).iter().all(|ns| *ns == 60 * MS), "{slots:?}");
}

#[test]
fn a_run_of_thinking_users_ends_at_once() {
    for more in [&[][..], &["--rate", "50", "--session-requests", "1k"]] {
        let args = ["--think", "fixed:1h", "--conns", "5", "--duration", "300ms", "--warmup", "0s"];
        let ended = loadgen(&[&args[..], more].concat());
        let report = ended.report();
        assert!(report.ledger.closes(), "{}", brief(report));
        ended.assert_within(std::time::Duration::from_secs(20));
        assert_eq!(whole(report).in_flight_at_end, 0, "{}", brief(report));
    }
}

/// The due times of a run, from its first on.
fn schedule(process: Process, rate: &str, length_ns: u64) -> Vec<u64> {
    let mut schedule = Schedule::new(process, Profile::parse(rate).unwrap(), 3, 0, 1, Instant(0));
    std::iter::repeat_with(|| schedule.next_due().0).take_while(|due| *due < length_ns).collect()
}

/// Cuts the requests of each connection into sessions, which are all equally long but for those at the very end.
fn stays(slots: &BTreeMap<u64, Vec<Row>>, length: usize) -> Vec<Vec<Row>> {
    let mut stays: Vec<Vec<Row>> = slots.values().flat_map(|rows| rows.chunks(length).map(<[Row]>::to_vec)).collect();
    stays.sort_by_key(|stay| stay[0].due);
    stays
}

#[test]
fn sessions_arrive_at_the_scheduled_times_and_ask_in_sequence() {
    for (process, conn, think_ns) in [
        (Process::Constant, "keep", 0),
        (Process::Poisson, "keep", 4 * MS),
        (Process::Constant, "new", 2 * MS),
        (Process::Poisson, "new", 0),
    ] {
        let think = format!("fixed:{think_ns}ns");
        let args = ["--rate", "300", "--arrival", process.name(), "--seed", "3", "--session-requests", "3"];
        let users = ["--think", &think, "--session-conn", conn, "--conns", "40"];
        let server = Server::start(&[]);
        let times = ["--duration", "600ms", "--warmup", "0s"];
        let (ended, slots) = logged(Some(&server.target()), &[&args[..], &users, &times].concat());
        let report = ended.expect(0);
        clean(report);
        let stats = server.stop();
        agrees(report, &stats);
        let dues = schedule(process, "300", 600 * MS);
        let counts = sessions(report);
        assert_eq!((counts.arrived, counts.broken), (dues.len() as u64, 0), "{process:?} {conn}");
        let stays = stays(&slots, 3);
        let began = counts.arrived - counts.unstarted;
        // Whose own connection was still being opened at the end has sent nothing, and has no row.
        let unheard = report.ledger.unsent - counts.unstarted;
        assert!(unheard == 0 || conn == "new", "{}", brief(report));
        assert_eq!(stays.len() as u64, began - unheard, "{process:?} {conn} {}", brief(report));
        let offset = stays[0][0].due - dues[0];
        let arrivals: Vec<u64> = stays.iter().map(|stay| stay[0].due - offset).collect();
        if unheard == 0 {
            assert_eq!(arrivals, dues[..stays.len()], "{process:?} {conn}");
        }
        assert!(arrivals.iter().all(|due| dues.binary_search(due).is_ok()), "{process:?} {conn} {arrivals:?}");
        for stay in &stays {
            assert!(stay.windows(2).all(|pair| pair[1].due == pair[0].received + think_ns), "{stay:?}");
        }
        let whole_stays: Vec<&Vec<Row>> = stays.iter().filter(|stay| stay.len() == 3).collect();
        // The last request of one may have been answered after its end.
        assert_eq!(counts.lengths.values().sum::<u64>(), counts.completed);
        assert!(counts.lengths.keys().all(|bound| bound == "4"), "{counts:?}");
        assert!((counts.completed..=began).contains(&(whole_stays.len() as u64)), "{counts:?}");
        let logged: u64 = slots.values().map(|rows| rows.len() as u64).sum();
        assert_eq!(report.ledger.scheduled, logged + counts.unstarted + unheard, "{}", brief(report));
        let duration = counts.duration.as_ref().unwrap();
        assert_eq!(duration.count, began);
        if counts.in_progress_at_end == 0 {
            let sum: u64 = stays.iter().map(|stay| stay[stay.len() - 1].received - stay[0].due).sum();
            assert_eq!(duration.sum_ns, sum);
        }
        let own = if conn == "new" { began } else { 0 };
        let connections = &report.connections;
        assert_eq!(connections.opened + connections.unfinished, connections.attempts, "{}", brief(report));
        // Of sessions that sent nothing, the connection may have been on its way or, just then, there.
        assert!(connections.unfinished <= unheard && connections.attempts <= 40 + own, "{}", brief(report));
        assert!(connections.opened >= 40 + own - unheard, "{}", brief(report));
        assert!(ended.stdout.contains("partly open: 300 sessions/s"), "{}", ended.stdout);
        assert_eq!((report.scenario.mode.as_str(), report.scenario.rate_per_s), ("open", Some(300)));
    }
}

#[test]
fn sessions_of_several_threads_and_lengths_add_up() {
    for lengths in ["1..6", "geom:0.4", "1"] {
        for protocol in ["echo", "http"] {
            let args = ["--rate", "600", "--arrival", "poisson", "--session-requests", lengths, "--threads", "3"];
            let times = ["--duration", "400ms", "--warmup", "100ms", "--conns", "30", "--think", "exp:1ms"];
            let ended = loadgen(&[&args[..], &times, &["--protocol", protocol]].concat());
            let report = ended.expect(0);
            clean(report);
            agrees_with_embedded(report);
            let counts = sessions(report);
            let dues = {
                let mut all = Schedule::new(Process::Poisson, Profile::flat(600), 1, 0, 1, Instant(0));
                std::iter::repeat_with(move || all.next_due().0).take_while(|due| *due < 500 * MS).count() as u64
            };
            assert_eq!(counts.arrived, dues, "{lengths}");
            // Of the requests, 30 proved the connections.
            let least = counts.completed + 30 + if lengths == "1" { 0 } else { counts.completed / 4 };
            assert!(whole(report).ok >= least, "{}", brief(report));
            let bounds: &[&str] = match lengths {
                "1" => &["1"],
                "1..6" => &["1", "2", "4", "8"],
                _ => &["1", "2", "4", "8", "16", "32", "64"],
            };
            assert!(counts.lengths.keys().all(|bound| bounds.contains(&bound.as_str())), "{counts:?}");
            assert!(counts.lengths["1"] > 0 && (lengths == "1" || counts.lengths["4"] > 0), "{counts:?}");
        }
    }
}

/// A connection answers at most once in 20 ms, and a session asks four times: of 200 a second, two connections can
/// take 25.
#[test]
fn sessions_that_find_no_free_connection_wait_and_the_wait_counts() {
    for conn in ["keep", "new"] {
        let server = Server::start(&["--delay", "fixed:20ms"]);
        let args = ["--rate", "200", "--session-requests", "4", "--session-conn", conn, "--conns", "2"];
        let times = ["--duration", "500ms", "--warmup", "0s"];
        let ended = loadgen_at(&server.target(), &[&args[..], &times].concat());
        let report = ended.expect(0);
        agrees(report, &server.stop());
        let counts = sessions(report);
        assert!(counts.arrived == 100 && counts.unstarted >= 85, "{counts:?}");
        assert!(report.ledger.unsent >= counts.unstarted, "{}", brief(report));
        let backlog = report.latency.backlog_wait.as_ref().unwrap();
        assert!(backlog.max_ns > 300 * MS, "{backlog:?}");
    }
}

#[test]
fn a_session_whose_connection_dies_is_broken_and_told() {
    let peer = Peer::start(|talk| {
        for _ in 0..7 {
            match talk.request() {
                Some(request) if talk.good(&request) => {}
                _ => return,
            }
        }
        if talk.request().is_some() {
            talk.fault();
            talk.reset();
        }
    });
    for conn in ["keep", "new"] {
        let before = peer.faults();
        let args = ["--rate", "100", "--session-requests", "10", "--session-conn", conn, "--conns", "10"];
        let times = ["--duration", "600ms", "--warmup", "0s", "--think", "fixed:500us"];
        let ended = loadgen_at(&peer.target(), &[&args[..], &times].concat());
        let report = ended.expect(4);
        let counts = sessions(report);
        let faults = peer.faults() - before;
        ended.assert_if_fit(counts.broken > 20);
        assert_eq!((counts.broken, common::errors(report, "reset")), (faults, faults), "{}", brief(report));
        assert_eq!((counts.arrived, report.connections.lost), (60, faults));
        if conn == "new" {
            // Each gets as far as its eighth request.
            assert_eq!(counts.completed, 0, "{counts:?}");
        }
    }
}

/// A server that says that it closes ends no session: it goes on with another connection.
#[test]
fn a_session_goes_on_when_the_server_closes_in_good_order() {
    let peer = Peer::start(|talk| {
        for number in 1.. {
            if talk.head().is_none() {
                return;
            }
            let close = if number % 5 == 0 { "Connection: close\r\n" } else { "" };
            if !talk.good(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{close}\r\n").as_bytes()) || number % 5 == 0
            {
                return talk.finish();
            }
        }
    });
    let args = ["--rate", "100", "--session-requests", "12", "--conns", "10", "--think", "fixed:1ms"];
    let (ended, slots) = logged(Some(&peer.url()), &[&args[..], &["--duration", "600ms", "--warmup", "0s"]].concat());
    let report = ended.expect(0);
    let counts = sessions(report);
    assert_eq!(counts.broken, 0, "{counts:?} {}", brief(report));
    ended.assert_if_fit(counts.completed > 20);
    ended.assert_if_fit(report.connections.closed_by_server > 100);
    for stay in stays(&slots, 12) {
        assert!(stay.windows(2).all(|pair| pair[1].due == pair[0].received + MS), "{stay:?}");
    }
}

#[test]
fn closing_by_reset_is_seen_by_the_server() {
    for close in ["rst", "fin"] {
        let server = Server::start(&[]);
        let args = ["--requests", "600", "--requests-per-conn", "3", "--conns", "10", "--close", close];
        let ended = loadgen_at(&server.target(), &args);
        let report = ended.expect(0);
        clean(report);
        let stats = server.stop();
        agrees(report, &stats);
        let closed = report.connections.closed;
        assert!(closed >= 200, "{}", brief(report));
        let resets = stats.closes.get("reset").copied().unwrap_or(0);
        assert_eq!(resets, if close == "rst" { closed } else { 0 }, "{:?}", stats.closes);
        assert_eq!(report.connections.closed_by_reset, resets);
        assert!(report.connections.opened_per_s > Some(0));
        assert_eq!(report.connections.time_wait.is_some(), close == "fin");
        assert!(ended.stdout.contains("connections/s opened"), "{}", ended.stdout);
    }
}

/// In a network of our own the kernel counts nothing but this run.
#[test]
fn the_kernel_counts_as_many_resets_as_we_do() {
    let flags = ["--requests", "300", "--requests-per-conn", "1", "--conns", "10", "--close", "rst", "--no-floor"];
    let folder = scratch();
    let report = folder.path().join("report.json");
    let args = [&flags[..], &["--engine", common::engine(), "-o", report.to_str().unwrap()]].concat();
    let up = "(ip link set lo up 2>/dev/null || ifconfig lo up)";
    let Some(command) = namespace("-rn", up, "exec \"$0\" \"$@\"", &args) else { return };
    let ended = Running::launch(command, scratch()).wait();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let report = common::read_report(&report);
    let kernel = |name: &str| report.kernel.get(name).copied().unwrap_or(0);
    let closed = report.connections.closed as i64;
    assert!(closed >= 300, "{}", brief(&report));
    assert_eq!((kernel("TcpExt.TCPAbortOnData"), kernel("Tcp.OutRsts")), (closed, closed), "{:?}", report.kernel);
}

#[test]
fn too_few_ports_for_so_many_closes_are_told_beforehand_and_in_the_report() {
    let folder = scratch();
    let report = folder.path().join("report.json");
    let run = ["--rate", "2k", "--requests-per-conn", "1", "--conns", "4", "--source", "127.0.0.1", "--no-floor"];
    let rest = ["--duration", "2s", "--warmup", "0s", "--engine", common::engine(), "-o", report.to_str().unwrap()];
    let args = [&run[..], &rest].concat();
    let Some(command) = port_range(40_000, 40_499, "exec \"$0\" \"$@\"", &args) else { return };
    let ended = Running::launch(command, scratch()).wait();
    // 2,000 a second, each held for a second: 500 are not enough.
    let note = ended.stderr.lines().find(|line| line.starts_with("note: at 2,000 closes/s")).unwrap_or_default();
    assert!(note.contains("2,000 ports are needed and there are 500"), "{}", ended.stderr);
    assert!(note.contains("--source") && note.contains("--close rst"), "{note}");
    let report = common::read_report(&report);
    let forecast = report.connections.time_wait.as_ref().unwrap();
    assert_eq!((forecast.ports, forecast.held_ns), (500, 1_000 * MS), "{forecast:?}");
    assert!(report.connections.failed.contains_key("no_port"), "as forecast: {}", brief(&report));
}

/// One of two targets answers once in 20 ms, all connections together: what is due for the other does not suffer.
#[test]
fn each_target_of_an_open_loop_has_its_own_stream() {
    for (threads, arrival, weights) in
        [("1", "constant", "3,1"), ("2", "constant", "1,1"), ("3", "constant", "2,5"), ("2", "poisson", "3,1")]
    {
        let (slow, fast) = (Server::start(&["--service-time", "fixed:20ms"]), Server::start(&[]));
        let args = ["--target", &slow.target(), "--target", &fast.target(), "--weights", weights];
        let load = ["--rate", "800", "--arrival", arrival, "--conns", "14", "--threads", threads];
        let times = ["--duration", "1s", "--warmup", "0s", "--timeout", "2s"];
        let ended = loadgen(&[&args[..], &load, &times].concat());
        let report = ended.report();
        let [slow_stats, fast_stats] = [slow.stop(), fast.stop()];
        let of_all = schedule_of(arrival, 800, 1_000 * MS);
        assert_eq!(report.ledger.scheduled, of_all, "{}", brief(report));
        assert_eq!(report.streams.len(), 2);
        let [first, second]: [f64; 2] =
            <[f64; 2]>::try_from(weights.split(',').map(|w| w.parse().unwrap()).collect::<Vec<f64>>()).unwrap();
        for (at, weight) in [first, second].into_iter().enumerate() {
            let (stream, group) = (&report.streams[at], &report.breakdown[at]);
            assert_eq!(stream.scheduled, group.sent + stream.unsent, "{threads} {arrival}: {}", brief(report));
            let expected = of_all as f64 * weight / (first + second);
            let most = if arrival == "poisson" { 5.0 * expected.sqrt() } else { 1.0 };
            assert!((stream.scheduled as f64 - expected).abs() <= most, "{threads} {arrival}: {stream:?}");
        }
        // The slow one has all of the backlog.
        assert!(report.streams[0].unsent > 100, "{:?}", report.streams);
        assert!(report.breakdown[0].sent < 150, "{}", brief(report));
        assert_eq!(report.streams[1].unsent, 0, "{}", brief(report));
        let whole = |at: usize| report.breakdown[at].whole_run.sent;
        assert_eq!((whole(0), whole(1)), (slow_stats.requests, fast_stats.requests));
        assert!(ended.stdout.contains("due"), "{}", ended.stdout);
    }
}

fn schedule_of(arrival: &str, rate: u64, length_ns: u64) -> u64 {
    let process = Process::by_name(arrival).unwrap();
    let mut schedule = Schedule::new(process, Profile::flat(rate), 1, 0, 1, Instant(0));
    std::iter::repeat_with(|| schedule.next_due().0).take_while(|due| *due < length_ns).count() as u64
}

/// Sessions, too, are shared by weight.
#[test]
fn sessions_go_to_several_targets() {
    let servers = [Server::start(&[]), Server::start(&[])];
    let [one, other] = [servers[0].target(), servers[1].target()];
    let args = ["--target", &one, "--target", &other, "--weights", "1,3", "--rate", "200", "--session-requests", "3"];
    let ended = loadgen(&[&args[..], &["--conns", "40", "--duration", "500ms", "--warmup", "0s"]].concat());
    let report = ended.expect(0);
    clean(report);
    assert_eq!(sessions(report).arrived, 100);
    let requests: Vec<u64> = servers.into_iter().map(|server| server.stop().requests).collect();
    assert_eq!(requests.iter().sum::<u64>(), whole(report).sent, "{}", brief(report));
    assert_eq!(report.streams.iter().map(|s| s.scheduled).sum::<u64>(), report.ledger.scheduled);
}

#[test]
fn what_contradicts_itself_is_refused() {
    for args in [
        &["--think", "10ms"][..],
        &["--think", "fixed:1ms", "--pipeline", "2"],
        &["--think", "fixed:1ms", "--rate", "100"],
        &["--think", "fixed:1ms", "--in-flight", "3"],
        &["--think", "fixed:1ms", "--protocol", "chargen"],
        &["--think", "trace:/nowhere"],
        &["--session-requests", "3"],
        &["--session-requests", "0", "--rate", "100"],
        &["--session-requests", "3", "--rate", "100", "--requests", "100"],
        &["--session-requests", "3", "--rate", "100", "--requests-per-conn", "3"],
        &["--session-requests", "3", "--rate", "100", "--pipeline", "3"],
        &["--session-requests", "3", "--rate", "100", "--conns", "1..5:1s"],
        &["--session-requests", "3", "--rate", "100", "--session-conn", "own"],
        &["--session-conn", "new", "--rate", "100"],
        &["--close", "nicely"],
        &["--close", "rst", "--protocol", "discard"],
        &["--close", "rst", "--target", "unix:/tmp/nobody"],
        &["--target", "127.0.0.1:9", "--target", "127.0.0.1:8", "--weights", "1,3", "--rate", "10", "--conns", "1"],
    ] {
        loadgen_plain(args).expect_refusal(2);
    }
}
