//! `merge(split(x)) == x`: a report whose samples and counts are dealt out at random among shards, and added up again.

use loadgen_core::histogram::Recorder;
use loadgen_core::result::merge::{MergeError, merge};
use loadgen_core::result::*;
use loadgen_core::rng::Rng;
use std::collections::BTreeMap;

const WINDOW_NS: u64 = 2_000_000_000;
const OPENED: u64 = 1_795_438_961_000_000_000;

fn golden() -> Report {
    serde_json::from_str(include_str!("golden/result-1.json")).unwrap()
}

/// Durations of all magnitudes; and about a half of them where many real ones are.
fn samples(rng: &mut Rng, count: u64) -> Vec<u64> {
    let any = |rng: &mut Rng| {
        let magnitude = rng.below(42);
        rng.below(1 << magnitude)
    };
    (0..count).map(|_| if rng.below(2) == 0 { any(rng) } else { 60_000 + rng.below(40_000) }).collect()
}

fn recorded(values: &[u64]) -> Option<Histogram> {
    let mut recorder = Recorder::new();
    values.iter().for_each(|ns| recorder.record(*ns));
    recorder.report()
}

/// Parts that add up to `total`.
fn parts(rng: &mut Rng, total: u64, n: usize) -> Vec<u64> {
    let mut parts = vec![0; n];
    let mut rest = total;
    for part in &mut parts[1..] {
        *part = rng.below(rest + 1);
        rest -= *part;
    }
    parts[0] = rest;
    let by = rng.below(n as u64) as usize;
    parts.rotate_left(by);
    parts
}

fn deal(rng: &mut Rng, values: &[u64], n: usize) -> Vec<Vec<u64>> {
    let mut hands = vec![Vec::new(); n];
    values.iter().for_each(|value| hands[rng.below(n as u64) as usize].push(*value));
    hands
}

fn counts(rng: &mut Rng, names: &[&str]) -> BTreeMap<String, u64> {
    names.iter().map(|name| ((*name).to_owned(), rng.below(50))).collect()
}

fn split_counts(rng: &mut Rng, counts: &BTreeMap<String, u64>, n: usize) -> Vec<BTreeMap<String, u64>> {
    let mut split = vec![BTreeMap::new(); n];
    for (name, count) in counts {
        for (of, part) in split.iter_mut().zip(parts(rng, *count, n)) {
            of.insert(name.clone(), part);
        }
    }
    split
}

fn ledger(rng: &mut Rng) -> Ledger {
    let errors = counts(rng, &["timeout", "reset"]);
    let (ok, in_flight_at_end, unsent) = (rng.below(1 << 40), rng.below(100), rng.below(100));
    let sent = ok + in_flight_at_end + errors.values().sum::<u64>();
    Ledger { scheduled: sent + unsent, unsent, sent, ok, errors, in_flight_at_end, whole_run: None }
}

fn split_ledger(rng: &mut Rng, of: &Ledger, n: usize) -> Vec<Ledger> {
    let errors = split_counts(rng, &of.errors, n);
    let [ok, in_flight, unsent] = [of.ok, of.in_flight_at_end, of.unsent].map(|total| parts(rng, total, n));
    let of_shard = |(at, errors): (usize, BTreeMap<String, u64>)| {
        let sent = ok[at] + in_flight[at] + errors.values().sum::<u64>();
        let (ok, in_flight_at_end, unsent) = (ok[at], in_flight[at], unsent[at]);
        Ledger { scheduled: sent + unsent, unsent, sent, ok, errors, in_flight_at_end, whole_run: None }
    };
    errors.into_iter().enumerate().map(of_shard).collect()
}

/// Samples of the five histograms, in the report's order.
type Samples = [Vec<u64>; 5];

fn latency(samples: &Samples, censored: u64) -> Latency {
    let [response, service, connect, backlog_wait, generator_lag] = samples.each_ref().map(|values| recorded(values));
    Latency { response, service, connect, backlog_wait, generator_lag, censored, ..Latency::default() }
}

/// A report of one process, as the merged one should be.
fn whole(rng: &mut Rng, samples: &Samples) -> Report {
    let mut report = golden();
    let replies = rng.below(1 << 40) + 1;
    let rate = (u128::from(replies) * 1_000_000_000 + u128::from(WINDOW_NS) / 2) / u128::from(WINDOW_NS);
    report.throughput = Throughput {
        requests_per_s: rate as u64,
        replies,
        sent_bytes_per_s: rng.below(1 << 40),
        received_bytes_per_s: rng.below(1 << 40),
        window_ns: WINDOW_NS,
        offered_per_s: Some(rng.below(1 << 30)),
        whole_run_sent_bytes: rng.below(1 << 40),
        whole_run_received_bytes: rng.below(1 << 40),
    };
    report.ledger = Ledger { whole_run: Some(Box::new(ledger(rng))), ..ledger(rng) };
    report.latency = latency(samples, rng.below(100));
    report.phases = Phases {
        ramp_ns: 4_000_000,
        warmup_ns: 1_000_000_000,
        measure_ns: WINDOW_NS,
        drain_ns: 900_000,
        window_started_unix_us: Some(OPENED / 1_000),
        start_late_ns: None,
    };
    report.series.columns = ["ok", "sent_bytes", "connections_open", "response_max_ns"].map(str::to_owned).to_vec();
    report.series.rows = (0..5).map(|_| (0..4).map(|_| rng.below(1 << 40)).collect()).collect();
    report.generator = Some(Generator { stalls: 5, stalled_ns: 7_000, spin_ns: 900, ..Generator::default() });
    let (client_user_ns, client_system_ns) = (rng.below(1 << 30), 1000 + rng.below(1 << 30));
    let client_ns = client_user_ns + client_system_ns;
    report.cpu = Cpu {
        client_ns_per_request: Some((client_ns - 900) / replies),
        client_ns,
        client_user_ns,
        client_system_ns,
        client_thread_max_percent: 61,
        client_memory_bytes: rng.below(1 << 30),
        ..Cpu::default()
    };
    let syscalls = counts(rng, &["recvfrom", "sendto", "epoll_wait"]);
    let calls: u64 = syscalls.values().sum();
    report.engine.syscalls_per_1000_requests = Some(calls * 1000 / report.ledger.whole_run.as_ref().unwrap().ok);
    report.engine.syscalls = syscalls;
    report.engine.ring = Some(RingStats { rings: 9, enters: 1 << 30, completions: 77, ..RingStats::default() });
    report.kernel = BTreeMap::from([("Tcp.ActiveOpens".to_owned(), 1_000), ("Cpu.steal_ms".to_owned(), 70)]);
    // What only one process can have.
    (report.confidence, report.server, report.shard, report.ab, report.partial) = (None, None, None, None, false);
    report
}

fn split_series(rng: &mut Rng, series: &Series, n: usize) -> Vec<Series> {
    let mut split = vec![Series { rows: vec![vec![0; 4]; series.rows.len()], ..series.clone() }; n];
    for (second, row) in series.rows.iter().enumerate() {
        for (column, value) in row.iter().enumerate().take(3) {
            for (of, part) in split.iter_mut().zip(parts(rng, *value, n)) {
                of.rows[second][column] = part;
            }
        }
        // A maximum is had by one, and others have less.
        let holder = rng.below(n as u64) as usize;
        for (at, of) in split.iter_mut().enumerate() {
            of.rows[second][3] = if at == holder { row[3] } else { rng.below(row[3] + 1) };
        }
    }
    split
}

fn split(rng: &mut Rng, report: &Report, samples: &Samples, n: usize) -> Vec<Report> {
    let hands = samples.each_ref().map(|values| deal(rng, values, n));
    let series = split_series(rng, &report.series, n);
    let windows = split_ledger(rng, &report.ledger, n);
    let wholes = split_ledger(rng, report.ledger.whole_run.as_ref().unwrap(), n);
    let syscalls = split_counts(rng, &report.engine.syscalls, n);
    let failed = split_counts(rng, &report.connections.failed, n);
    let holder = rng.below(n as u64) as usize;
    let shard = |index: usize| Report {
        ledger: Ledger { whole_run: Some(Box::new(wholes[index].clone())), ..windows[index].clone() },
        latency: latency(&hands.each_ref().map(|hands| hands[index].clone()), 0),
        series: series[index].clone(),
        shard: Some(Shard {
            index: index as u64,
            count: n as u64,
            machine: Some(format!("machine {index}")),
            network: Some(format!("network {index}")),
        }),
        // The example is with one of them, and others saw the like later.
        errors: report
            .errors
            .iter()
            .map(|row| ErrorRow {
                count: 0,
                first: if index == holder { row.first.clone() } else { "later".to_owned() },
                first_at_ns: row.first_at_ns + u64::from(index != holder),
                ..row.clone()
            })
            .collect(),
        engine: EngineStats { syscalls: syscalls[index].clone(), ..report.engine.clone() },
        connections: Connections { failed: failed[index].clone(), ..report.connections.clone() },
        ..report.clone()
    };
    let mut shards: Vec<Report> = (0..n).map(shard).collect();
    for field in counters() {
        let total = *field(&mut report.clone());
        for (shard, part) in shards.iter_mut().zip(parts(rng, total, n)) {
            *field(shard) = part;
        }
    }
    for (row, of) in report.errors.iter().enumerate() {
        for (shard, part) in shards.iter_mut().zip(parts(rng, of.count, n)) {
            shard.errors[row].count = part;
        }
    }
    for (name, value) in &report.kernel {
        for (shard, part) in shards.iter_mut().zip(parts(rng, *value as u64, n)) {
            shard.kernel.insert(name.clone(), part as i64);
        }
    }
    shards
}

/// Every plain count of a report that adds up.
fn counters() -> Vec<fn(&mut Report) -> &mut u64> {
    vec![
        |r| &mut r.throughput.replies,
        |r| &mut r.throughput.sent_bytes_per_s,
        |r| &mut r.throughput.received_bytes_per_s,
        |r| r.throughput.offered_per_s.as_mut().unwrap(),
        |r| &mut r.throughput.whole_run_sent_bytes,
        |r| &mut r.throughput.whole_run_received_bytes,
        |r| &mut r.connections.requested,
        |r| &mut r.connections.established,
        |r| &mut r.connections.served,
        |r| &mut r.connections.alive_at_end,
        |r| &mut r.connections.attempts,
        |r| &mut r.connections.opened,
        |r| &mut r.connections.unfinished,
        |r| &mut r.connections.closed,
        |r| &mut r.connections.closed_by_server,
        |r| &mut r.connections.lost,
        |r| &mut r.latency.censored,
        |r| &mut r.cpu.client_ns,
        |r| &mut r.cpu.client_user_ns,
        |r| &mut r.cpu.client_system_ns,
        |r| &mut r.cpu.client_memory_bytes,
        |r| &mut r.engine.events,
        |r| &mut r.engine.waits,
        |r| &mut r.engine.ring.as_mut().unwrap().rings,
        |r| &mut r.engine.ring.as_mut().unwrap().enters,
        |r| &mut r.engine.ring.as_mut().unwrap().completions,
        |r| &mut r.generator.as_mut().unwrap().stalls,
        |r| &mut r.generator.as_mut().unwrap().stalled_ns,
        |r| &mut r.generator.as_mut().unwrap().spin_ns,
    ]
}

fn shuffle<T>(rng: &mut Rng, list: &mut [T]) {
    (1..list.len()).rev().for_each(|at| list.swap(at, rng.below(at as u64 + 1) as usize));
}

#[test]
fn what_was_split_is_the_same_when_it_is_merged() {
    let trials = std::env::var("LOADGEN_SEED").map_or(1..=24, |seed| seed.parse().map(|seed| seed..=seed).unwrap());
    for seed in trials {
        let mut rng = Rng::new(seed);
        let n = 1 + rng.below(8) as usize;
        let counts: [u64; 5] = std::array::from_fn(|_| if rng.below(8) == 0 { 0 } else { 1 + rng.below(3_000) });
        let samples = counts.map(|count| samples(&mut rng, count));
        let whole = whole(&mut rng, &samples);
        let mut shards = split(&mut rng, &whole, &samples, n);
        let merged = merge(&shards).unwrap();
        shuffle(&mut rng, &mut shards);
        assert_eq!(merge(&shards).unwrap(), merged, "seed {seed}: the order of the reports matters");
        assert_eq!(merged.merged.as_ref().map(|merged| merged.shards.len()), Some(n), "seed {seed}");
        assert_eq!(Report { merged: None, ..merged }, whole, "LOADGEN_SEED={seed}: {n} shards");
    }
}

/// Two shards without anything remarkable.
fn pair() -> Vec<Report> {
    let mut rng = Rng::new(7);
    let samples = std::array::from_fn(|_| samples(&mut rng, 1_000));
    let whole = whole(&mut rng, &samples);
    split(&mut rng, &whole, &samples, 2)
}

#[test]
fn what_is_no_whole_run_is_refused() {
    type Change = fn(&mut Vec<Report>);
    let cases: &[(&str, Change)] = &[
        ("there is nothing to merge", |r| r.clear()),
        ("report 2 is no shard", |r| r[1].shard = None),
        ("report 1 and report 2 are both shard 0", |r| r[1].shard.as_mut().unwrap().index = 0),
        ("of 2 shards these are missing: 1", |r| r.truncate(1)),
        ("report 1 is one of 2 shards, and report 2 one of 3", |r| r[1].shard.as_mut().unwrap().count = 3),
        ("missing: 0", |r| r[0].shard.as_mut().unwrap().index = 2),
        ("different scenarios: connections 100 and 7", |r| r[1].scenario.connections = 7),
        ("target", |r| r[1].scenario.target = "elsewhere:1".to_owned()),
        ("and report 2 by loadgen 9.0.0", |r| r[1].tool.version = "9.0.0".to_owned()),
        ("and report 2 by loadgen 0.99.0", |r| r[1].tool.version = "0.99.0".to_owned()),
        ("report 2: latency.response: histogram goes from", |r| r[1].latency.response = Some(coarse())),
        ("report 2: latency.service: histogram", |r| r[1].latency.service.as_mut().unwrap().hdr.truncate(9)),
        ("report 2: its series has other columns", |r| _ = r[1].series.columns.pop()),
    ];
    for (words, change) in cases {
        let mut shards = pair();
        change(&mut shards);
        let error = merge(&shards).unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains('\n'), "{words}: {error}");
    }
    let huge = |index| Shard { index, count: u64::MAX, ..Shard::default() };
    let mut shards = pair();
    shards.iter_mut().zip([0, u64::MAX - 1]).for_each(|(report, index)| report.shard = Some(huge(index)));
    assert!(matches!(merge(&shards), Err(MergeError::Missing(..))));
}

/// Of two significant digits, by another program.
fn coarse() -> Histogram {
    use base64::Engine as _;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
    let mut coarse = hdrhistogram::Histogram::<u64>::new_with_bounds(1, 1_000_000, 2).unwrap();
    coarse.record(1_000).unwrap();
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&coarse, &mut bytes).unwrap();
    let hdr = base64::engine::general_purpose::STANDARD.encode(bytes);
    Histogram { count: 1, min_ns: 1_000, max_ns: 1_000, mean_ns: 1_000, sum_ns: 1_000, hdr, ..Histogram::default() }
}

#[test]
fn versions_that_count_alike_may_be_mixed() {
    let mut shards = pair();
    let version = |patch: u64| {
        let mut parts: Vec<String> = shards[0].tool.version.split('.').map(str::to_owned).collect();
        parts[2] = patch.to_string();
        parts.join(".")
    };
    let (one, other) = (version(1), version(2));
    (shards[0].tool.version, shards[1].tool.version) = (one, other);
    let notes = merge(&shards).unwrap().merged.unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("different versions")), "{notes:?}");
}

/// Ten seconds with so many replies each.
fn steady(shard: &mut Report, replies: u64) {
    shard.throughput.window_ns = 7_000_000_000;
    shard.throughput.replies = replies * 7;
    shard.series.rows = vec![vec![replies, 64 * replies, 1, 5]; 10];
}

#[test]
fn windows_that_do_not_coincide_are_clipped_to_whole_seconds_and_that_is_said() {
    let mut shards = pair();
    steady(&mut shards[0], 100);
    steady(&mut shards[1], 300);
    // The second was busier in the time that the first did not have.
    shards[1].series.rows[7][0] = 9_000;
    shards[1].phases.window_started_unix_us = Some((OPENED + 400_000_000) / 1_000);
    let merged = merge(&shards).unwrap();
    let told = merged.merged.as_ref().unwrap();
    assert_eq!((told.windows_apart_ns, told.throughput_of.as_str()), (Some(400_000_000), "series"));
    assert_eq!((merged.throughput.requests_per_s, merged.throughput.sent_bytes_per_s), (400, 64 * 400));
    assert_eq!(merged.throughput.replies * 1_000_000_000, 400 * merged.throughput.window_ns);
    assert_eq!(merged.throughput.window_ns, 5_000_000_000);
    assert!(told.notes.iter().any(|note| note.contains("400 ms apart")), "{:?}", told.notes);
    assert_eq!(merged.verdict.state, VerdictState::Valid);
    // The ledger is of all that was sent.
    assert_eq!(merged.ledger.ok, shards[0].ledger.ok + shards[1].ledger.ok);
}

#[test]
fn rates_over_windows_of_their_own_add_up() {
    let mut shards = pair();
    // A clock that says nothing: no window is known to be another.
    shards.iter_mut().for_each(|shard| shard.phases.window_started_unix_us = None);
    for (shard, replies, window_ns) in [(0, 3_000, 1_000_000_000), (1, 10_000, 2_000_000_000)] {
        let throughput = &mut shards[shard].throughput;
        (throughput.replies, throughput.window_ns) = (replies, window_ns);
    }
    let throughput = merge(&shards).unwrap().throughput;
    assert_eq!((throughput.requests_per_s, throughput.replies), (8_000, 13_000));
    assert_eq!(throughput.window_ns, 1_625_000_000);
}

/// What merge makes is a report like any other: it can be read again, whatever the windows were.
#[test]
fn a_merged_report_can_be_read() {
    for apart_ns in [0, 400_000_000, 3_000_000_000, 9_000_000_000] {
        let mut shards = pair();
        shards.iter_mut().for_each(|shard| steady(shard, 100));
        shards[1].throughput.window_ns /= 2;
        shards[1].phases.window_started_unix_us = Some((OPENED + apart_ns) / 1_000);
        let mut merged = merge(&shards).unwrap();
        let back = read::parse(merged.to_json().as_bytes()).unwrap_or_else(|problem| panic!("{problem:?}"));
        merged.checksum.clone_from(&back.checksum);
        assert_eq!(back, merged);
    }
}

#[test]
fn shards_that_were_hardly_on_together_are_no_valid_run() {
    let mut shards = pair();
    shards.iter_mut().for_each(|shard| steady(shard, 100));
    shards[1].phases.window_started_unix_us = Some((OPENED + 3_000_000_000) / 1_000);
    let merged = merge(&shards).unwrap();
    assert_eq!(merged.verdict.state, VerdictState::Invalid);
    assert_eq!(merged.verdict.reasons[0].code, "shards_apart");
    assert_eq!(merged.throughput.requests_per_s, 200);
    // The later shard's series is where its time was.
    let ok: Vec<u64> = merged.series.rows.iter().map(|row| row[0]).collect();
    assert_eq!(ok, [vec![100; 3], vec![200; 7], vec![100; 3]].concat());
    // Far apart: nothing in common, and no series of a thousand years.
    shards[1].phases.window_started_unix_us = Some((OPENED * 2) / 1_000);
    assert_eq!(merge(&shards).unwrap().series.rows.len(), 10);
}

#[test]
fn the_verdict_is_the_worst_and_says_whose() {
    let mut shards = pair();
    let reason = |code: &str| Reason { code: code.to_owned(), detail: "it happened".to_owned() };
    shards[1].verdict = Verdict { state: VerdictState::Overloaded, reasons: vec![reason("overloaded")] };
    let verdict = merge(&shards).unwrap().verdict;
    assert_eq!((verdict.state, verdict.reasons[0].detail.as_str()), (VerdictState::Overloaded, "shard 1: it happened"));
    let invalid = vec![reason("client_saturated")];
    shards[0].verdict = Verdict { state: VerdictState::Invalid, reasons: invalid.clone() };
    shards[1].verdict.reasons.extend(invalid);
    let verdict = merge(&shards).unwrap().verdict;
    assert_eq!(verdict.state, VerdictState::Invalid);
    let told: Vec<&str> = verdict.reasons.iter().map(|reason| reason.detail.as_str()).collect();
    assert_eq!(told, ["shard 0 (also shard 1): it happened", "shard 1: it happened"]);
}

#[test]
fn a_partial_shard_and_a_generator_that_sees_something_else_are_named() {
    let mut shards = pair();
    shards[0].partial = true;
    shards[0].latency.response = recorded(&[70_000; 500]);
    shards[1].latency.response = recorded(&[90_000; 500]);
    let merged = merge(&shards).unwrap();
    assert!(merged.partial);
    let notes = merged.merged.unwrap().notes.join("\n");
    assert!(notes.contains("shard 0 ended early"), "{notes}");
    assert!(notes.contains("shard 0 70.0 us, shard 1 90.0 us"), "{notes}");
}

#[test]
fn one_kernel_is_counted_once_and_different_ones_add_up() {
    let mut shards = pair();
    let opens = |shards: &[Report]| merge(shards).unwrap().kernel["Tcp.ActiveOpens"];
    for (shard, opened) in shards.iter_mut().zip([1_000, 1_010]) {
        shard.kernel = BTreeMap::from([("Tcp.ActiveOpens".to_owned(), opened), ("Cpu.steal_ms".to_owned(), 30)]);
    }
    assert_eq!(opens(&shards), 2_010);
    let place = shards[0].shard.clone().unwrap();
    // Two containers on one machine: its CPUs are the same ones.
    shards[1].shard.as_mut().unwrap().machine = place.machine;
    assert_eq!((opens(&shards), merge(&shards).unwrap().kernel["Cpu.steal_ms"]), (2_010, 30));
    shards[1].shard.as_mut().unwrap().network = place.network;
    assert_eq!(opens(&shards), 1_010);
}

#[test]
fn a_shard_that_never_measured_is_merged_and_told() {
    let mut shards = pair();
    shards[1].phases = Phases::default();
    shards[1].throughput = Throughput::default();
    shards[1].latency = Latency::default();
    let merged = merge(&shards).unwrap();
    assert_eq!(merged.latency.response.map(|h| h.count), shards[0].latency.response.as_ref().map(|h| h.count));
    let notes = merged.merged.unwrap().notes;
    assert!(notes.iter().any(|note| note.contains("not known")), "{notes:?}");
}

/// A slow floor out of one round trip is not the worst: it is none.
#[test]
fn the_worst_floor_is_one_that_is_known() {
    let mut shards = pair();
    let floor = |samples: u64, p50: u64| Floor { samples, response_p50_ns: Some(p50), ..Floor::default() };
    for (index, floor) in [floor(1, 120_000_000), floor(900, 50_000)].into_iter().enumerate() {
        shards[index].floor = Some(floor);
    }
    assert_eq!(merge(&shards).unwrap().floor, Some(floor(900, 50_000)));
    shards[0].floor = Some(floor(50, 60_000));
    assert_eq!(merge(&shards).unwrap().floor, Some(floor(50, 60_000)));
}
