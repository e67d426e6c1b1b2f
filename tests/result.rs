//! The report file: its schema, old files, damaged files, writing, and every format of the table.

use loadgen_core::histogram::Recorder;
use loadgen_core::report::{self, FORMATS};
use loadgen_core::result::*;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{collections::BTreeMap, fs};

const GOLDEN: &str = "tests/golden/result-1.json";
const SCHEMA_FILE: &str = "schema/loadgen.result-1.json";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessing() -> bool {
    std::env::var_os("LOADGEN_BLESS").is_some()
}

fn map<V>(pairs: impl IntoIterator<Item = (&'static str, V)>) -> BTreeMap<String, V> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A histogram of `count` durations that scatter upwards from `from_ns`.
fn histogram(count: u64, from_ns: u64) -> Option<Histogram> {
    let mut recorder = Recorder::new();
    (0..count).for_each(|i| recorder.record(from_ns + from_ns * (i * 7919 % count).pow(2) / count.pow(2)));
    recorder.report()
}

/// A report in which every field says something.
fn sample() -> Report {
    let datagrams = Delivery { received: 90, lost: 5, duplicated: 3, reordered: 2, late: 1, old: 1, foreign: 6 };
    let machine = machine();
    Report {
        schema: SCHEMA.to_owned(),
        tool: Tool { name: "loadgen".to_owned(), version: "0.1.0".to_owned() },
        command: ["loadgen", "--conns", "100", "--duration", "2s"].map(str::to_owned).to_vec(),
        started_at: "2026-11-23T13:02:40.125Z".to_owned(),
        partial: false,
        scenario: Scenario { hash: scenario().digest(), ..scenario() },
        environment: Environment { client: machine.clone(), server: Some(machine), warnings: vec![warning()] },
        phases: Phases {
            ramp_ns: 4_100_000,
            warmup_ns: 1_000_000_000,
            measure_ns: 2_000_000_000,
            drain_ns: 900_000,
            window_started_unix_us: Some(1_795_438_961_129_100),
            start_late_ns: Some(0),
        },
        throughput: Throughput {
            requests_per_s: 10_000,
            replies: 20_000,
            sent_bytes_per_s: 640_000,
            received_bytes_per_s: 640_000,
            window_ns: 2_000_000_000,
            offered_per_s: Some(142_000),
            whole_run_sent_bytes: 140_800,
            whole_run_received_bytes: 140_800,
        },
        ledger: ledger(),
        connections: connections(),
        errors: errors(),
        latency: Latency {
            response: histogram(20_090, 68_000),
            service: histogram(20_000, 66_000),
            connect: histogram(102, 41_000),
            censored: 88,
            ..Latency::default()
        },
        breakdown: Vec::new(),
        streams: Vec::new(),
        sessions: None,
        datagrams: Some(datagrams),
        tls: None,
        counted: BTreeMap::new(),
        confidence: Some(confidence()),
        series: series(),
        cpu: cpu(),
        generator: Some(generator()),
        server: Some(server()),
        kernel: map([("Tcp.ActiveOpens", 104), ("TcpExt.TCPTimeouts", 1)]),
        engine: engine(),
        floor: Some(floor()),
        verdict: Verdict { state: VerdictState::Valid, reasons: Vec::new() },
        limits: vec![limit()],
        labels: map([("branch", "main".to_owned())]),
        shard: Some(shard()),
        merged: Some(merged()),
        ab: Some(AbSlot { session: "20261123T130240Z".to_owned(), block: 1, slot: 0, arm: "A".to_owned() }),
        checksum: None,
    }
}

fn limit() -> LimitOutcome {
    let detail = "143 us (140-146 us)".to_owned();
    LimitOutcome { expression: "p99>5ms".to_owned(), judgement: LimitState::Holds, detail }
}

fn shard() -> Shard {
    Shard { index: 0, count: 1, machine: Some("85944171f73967e8".to_owned()), network: Some("af63dc4c".to_owned()) }
}

fn merged() -> Merged {
    let shard = ShardSummary {
        index: 0,
        started_at: "2026-11-23T13:02:40.125Z".to_owned(),
        window_started_unix_us: Some(1_795_438_961_129_100),
        window_ns: 2_000_000_000,
        requests_per_s: 10_000,
        response_p50_ns: Some(70_000),
        response_p99_ns: Some(90_000),
        machine: Some("85944171f73967e8".to_owned()),
        partial: false,
        state: VerdictState::Valid,
    };
    let notes = vec!["shard 0 is alone".to_owned()];
    Merged { shards: vec![shard], windows_apart_ns: Some(0), throughput_of: "windows".to_owned(), notes }
}

fn machine() -> Machine {
    Machine {
        kernel: "6.18.0 #1 SMP PREEMPT_DYNAMIC".to_owned(),
        cpu_model: "AMD EPYC 9R14".to_owned(),
        cpus: 2,
        cpus_allowed: "0-1".to_owned(),
        memory_bytes: 25_769_803_776,
        clocksource: "kvm-clock".to_owned(),
        congestion_control: "bbr".to_owned(),
        virtualisation: Some("kvm".to_owned()),
        sysctls: map([("net.core.somaxconn", "4096".to_owned())]),
        descriptor_limit: 20_000,
        load_1m_percent: 12,
        cpus_pinned: vec![1],
        descriptor_hard_limit: Some(20_000),
        governors: vec!["performance".to_owned()],
        boost: Some(false),
        smt: Some("off".to_owned()),
        idle_driver: Some("intel_idle".to_owned()),
        idle_governor: Some("menu".to_owned()),
        idle_states: vec![IdleState { name: "C1".to_owned(), exit_latency_ns: 2_000 }],
        cpus_isolated: Some("1".to_owned()),
        numa_nodes: Some(1),
        mitigations: map([("spectre_v2", "Mitigation: Retpolines".to_owned())]),
        mitigations_option: Some("auto".to_owned()),
        transparent_hugepages: Some("madvise".to_owned()),
        container: Some("docker".to_owned()),
        cgroup: Some(Cgroup {
            cpu_quota_percent: Some(150),
            memory_limit_bytes: Some(1_073_741_824),
            cpuset: Some("0-1".to_owned()),
            throttled_periods: Some(3),
        }),
    }
}

fn warning() -> Warning {
    let [code, what, why, remedy] =
        ["load", "the load was high", "others took CPU time", "stop them"].map(str::to_owned);
    Warning { code, weight: Weight::High, what, why, remedy }
}

fn floor() -> Floor {
    Floor {
        engine: "epoll".to_owned(),
        samples: 1_000,
        response_p50_ns: Some(50_000),
        response_p99_ns: Some(90_000),
        timer_samples: 50,
        timer_late_p50_ns: Some(55_000),
        timer_late_p99_ns: Some(80_000),
        timer_late_max_ns: 95_000,
        clock_read_ns: 25,
        client_cpu: Some(1),
        server_cpu: Some(0),
        took_ns: 110_000_000,
    }
}

fn connections() -> Connections {
    Connections {
        requested: 100,
        established: 100,
        served: 100,
        alive_at_end: 99,
        attempts: 104,
        opened: 102,
        failed: map([("refused", 2)]),
        unfinished: 0,
        closed: 99,
        closed_by_server: 1,
        lost: 2,
        turned_away: 0,
        requests_cut_off: 0,
        closed_by_reset: 0,
        opened_per_s: None,
        time_wait: None,
    }
}

fn scenario() -> Scenario {
    Scenario {
        hash: String::new(),
        protocol: "echo".to_owned(),
        target: "127.0.0.1:40001".to_owned(),
        resolved: vec!["127.0.0.1:40001".to_owned()],
        engine: "epoll".to_owned(),
        server_engine: Some("epoll".to_owned()),
        connections: 100,
        idle_connections: 0,
        threads: 1,
        mode: "closed".to_owned(),
        rate_per_s: None,
        arrival: None,
        pipeline: 1,
        size_bytes: 64,
        request_hash: "cbf29ce484222325".to_owned(),
        requests_per_connection: None,
        timeout_ns: 5_000_000_000,
        seed: 1,
        warmup_ns: 1_000_000_000,
        duration_ns: Some(2_000_000_000),
        requests: None,
        in_flight: Some(64),
        rate_steps: Some("1k:1s,1k..2k:1s".to_owned()),
        connection_steps: Some("10:1s,100:1s".to_owned()),
        spin_ns: 50_000,
        engine_options: vec!["cq=4096".to_owned()],
        server_injected: Vec::new(),
        server_engine_options: vec!["bundles".to_owned()],
        until_ci: vec!["p99=2%".to_owned()],
        weights: Vec::new(),
        addresses: None,
        think: None,
        session_requests: None,
        session_connection: None,
        close: None,
        file: None,
        tls: None,
        secret_headers: vec!["Authorization".to_owned()],
    }
}

fn generator() -> Generator {
    Generator {
        stalls: 2,
        stalled_ns: 14_000_000,
        longest_stall_ns: 8_000_000,
        longest_stall_at_ns: 1_200_000_000,
        run_delay_ns: 3_000_000,
        spin_ns: 900_000,
    }
}

fn ledger() -> Ledger {
    let whole = Ledger {
        scheduled: 30_090,
        unsent: 0,
        sent: 30_090,
        ok: 30_088,
        errors: map([("reset", 2)]),
        in_flight_at_end: 0,
        whole_run: None,
    };
    Ledger {
        scheduled: 20_090,
        unsent: 0,
        sent: 20_090,
        ok: 20_000,
        errors: map([("reset", 2)]),
        in_flight_at_end: 88,
        whole_run: Some(Box::new(whole)),
    }
}

fn errors() -> Vec<ErrorRow> {
    let row = |kind: &str, phase: &str, first: &str| ErrorRow {
        kind: kind.to_owned(),
        phase: phase.to_owned(),
        count: 2,
        first_at_ns: 1_500_000_000,
        first: first.to_owned(),
    };
    vec![
        row("refused", "connect", "Connection refused (os error 111)"),
        row("reset", "reply", "Connection reset by peer (os error 104), after 12 bytes of the reply: \"aaaaaaaaaaaa\""),
    ]
}

fn confidence() -> Confidence {
    let interval = |low_ns| Interval {
        low_ns: Some(low_ns),
        high_ns: Some(low_ns + low_ns / 50),
        effective_samples: Some(9_000),
        reason: None,
    };
    let unknown = Interval { reason: Some("few_values".to_owned()), ..Interval::default() };
    Confidence {
        level_percent: 95,
        method: "batch means, order statistics".to_owned(),
        batch_ns: 1 << 24,
        quantiles: map([("0.5", interval(84_000)), ("0.9", interval(122_000)), ("0.9999", unknown)]),
        mean: interval(89_000),
        rate: RateInterval { low_per_s: Some(9_900), high_per_s: Some(10_100), reason: None },
        drift: Some(Drift {
            steady: true,
            response_first_ns: 85_000,
            response_last_ns: 86_000,
            response_sigmas: 1,
            rate_first_per_s: 10_010,
            rate_last_per_s: 9_990,
            rate_sigmas: 0,
        }),
        until_ci: vec![UntilCi {
            figure: "p99".to_owned(),
            asked_ppm: 20_000,
            half_width_ppm: Some(17_300),
            reached: true,
        }],
    }
}

fn series() -> Series {
    Series {
        interval_ns: 1_000_000_000,
        columns: ["ok", "errors", "sent_bytes", "received_bytes", "connections_open", "response_max_ns"]
            .map(str::to_owned)
            .to_vec(),
        rows: (0..3).map(|second| vec![10_000, second / 2, 640_000, 640_000, 100, 140_000]).collect(),
    }
}

fn cpu() -> Cpu {
    Cpu {
        client_ns_per_request: Some(7_010),
        server_ns_per_request: Some(6_200),
        client_ns: 140_200_000,
        client_user_ns: 14_200_000,
        client_system_ns: 126_000_000,
        server_ns: Some(124_000_000),
        client_thread_max_percent: 7,
        client_memory_bytes: 4_194_304,
        server_memory_bytes: Some(3_145_728),
    }
}

fn engine() -> EngineStats {
    EngineStats {
        name: "epoll".to_owned(),
        syscalls: map([("epoll_wait", 301), ("recv", 30_090), ("send", 30_090)]),
        syscalls_per_1000_requests: Some(2_010),
        events: 30_090,
        waits: 301,
        ring: Some(ring()),
        ..EngineStats::default()
    }
}

fn ring() -> RingStats {
    RingStats { rings: 1, enters: 301, completions: 60_180, setup: vec!["CQSIZE".to_owned()], ..RingStats::default() }
}

fn server() -> ServerStats {
    ServerStats {
        schema: "loadgen.server/1".to_owned(),
        engine: "epoll".to_owned(),
        protocol: "echo".to_owned(),
        threads: 1,
        accepts: 102,
        accept_errors: map([("EMFILE", 1)]),
        rejected: 0,
        closes: map([("peer", 99), ("reset", 3)]),
        requests: 30_088,
        replies: 30_088,
        received_bytes: 1_925_632,
        sent_bytes: 1_925_632,
        syscalls: map([("recv", 30_190), ("send", 30_088)]),
        events_per_wait: vec![0, 1, 2, 3, 4, 5, 286, 0, 0, 0, 0],
        cpu_user_ns: 12_000_000,
        cpu_system_ns: 174_000_000,
        memory_peak_bytes: 3_145_728,
        instead_of: Some("io_uring (no such thing)".to_owned()),
        ring: Some(ring()),
        ..ServerStats::default()
    }
}

fn json(report: &Report) -> String {
    report::json::render(report)
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = in_repository(SCHEMA_FILE);
    if blessing() {
        fs::write(&path, schema_json()).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == schema_json(), "{SCHEMA_FILE} is out of date; run: LOADGEN_BLESS=1 cargo test --test result");
}

#[test]
fn every_field_is_documented() {
    let page = fs::read_to_string(in_repository("docs/report.md")).unwrap();
    let schemas: Vec<serde_json::Value> =
        [schema_json(), bundle_schema_json()].iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let types = schemas.iter().flat_map(|schema| schema["$defs"].as_object().unwrap().values().chain([schema]));
    for field in types.filter_map(|of| of["properties"].as_object()).flat_map(|fields| fields.keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/report.md does not explain `{field}`");
    }
}

#[test]
fn reports_validate_against_the_schema() {
    let schema = serde_json::from_str(&fs::read_to_string(in_repository(SCHEMA_FILE)).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for text in [json(&sample()), fs::read_to_string(in_repository(GOLDEN)).unwrap()] {
        let report = serde_json::from_str(&text).unwrap();
        let problems: Vec<String> = validator.iter_errors(&report).map(|problem| problem.to_string()).collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }
    let bad = json(&sample()).replace("\"seed\": 1", "\"seed\": -1");
    assert!(!validator.is_valid(&serde_json::from_str(&bad).unwrap()));
}

/// A golden file is never edited: it stands for all files that users have kept.
#[test]
fn the_golden_report_loads() {
    let path = in_repository(GOLDEN);
    if blessing() && !path.exists() {
        fs::write(&path, json(&sample())).unwrap();
    }
    let report = read::read(&path).unwrap();
    let latency = &report.latency;
    for histogram in [&latency.response, &latency.service, &latency.connect] {
        let histogram = histogram.as_ref().unwrap();
        // Another version of the compressor may choose other bytes for the same content.
        let again = Recorder::from_report(histogram).unwrap().report().unwrap();
        assert_eq!(Histogram { hdr: histogram.hdr.clone(), ..again }, *histogram);
    }
}

#[test]
fn every_committed_report_loads() {
    let mut files = json_files(&in_repository("tests/golden"));
    // Directly under results/ lie local runs, which are not committed.
    for entry in fs::read_dir(in_repository("results")).into_iter().flatten().flatten() {
        files.extend(json_files(&entry.path()));
    }
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        match value["schema"].as_str() {
            // Counters of a server, or what a benchmark keeps.
            Some(schema) if !["loadgen.result/", "loadgen.bundle/"].iter().any(|kind| schema.starts_with(kind)) => {}
            _ => drop(read::read_document(&file).unwrap_or_else(|error| panic!("{error}"))),
        }
    }
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(json_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files
}

#[test]
fn unknown_fields_are_ignored_and_new_ones_have_defaults() {
    let mut value = serde_json::to_value(sample()).unwrap();
    value["invented"] = 1.into();
    value["scenario"]["invented"] = "x".into();
    value["latency"]["response"]["invented"] = serde_json::json!({"a": [null, 1.5]});
    assert_eq!(read::parse(value.to_string().as_bytes()).unwrap(), sample());
    value["scenario"].as_object_mut().unwrap().remove("idle_connections");
    assert_eq!(read::parse(value.to_string().as_bytes()).unwrap().scenario.idle_connections, 0);
}

#[test]
fn every_prefix_of_a_report_is_an_error() {
    let text = json(&sample());
    for end in 0..text.trim_end().len() {
        assert!(read::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn errors_are_one_line_that_names_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = json(&sample());
    let cases = [
        (
            text.replace("loadgen.result/1", "loadgen.result/2"),
            "this is loadgen.result/2, this version reads loadgen.result/1",
        ),
        (text.replace("loadgen.result/1", "loadgen.bundle/1"), "is damaged: missing field `session` at line "),
        (text.replace("loadgen.result/1", "loadgen.server/1"), "is loadgen.server/1, not a report"),
        ("{}".to_owned(), "no field `schema`"),
        ("[]".to_owned(), "line 1 column"),
        (text.replace("\"seed\": 1", "\"seed\": -1"), "`scenario.seed`: invalid value: integer `-1`"),
        (text.replace("\"seed\": 1,", ""), "`scenario`: missing field `seed` at line "),
        (text.replace("\"unsent\": 0", "\"unsent\": 1"), "the ledger does not close"),
        (text.replace("\"unsent\": 0", "\"unsent\": 18446744073709551615"), "the ledger does not close"),
        (text.replace("\"response_max_ns\"", "\"response_max_ns\", \"more\""), "series.rows[0]"),
    ];
    for (content, expected) in cases {
        let path = folder.path().join("some.json");
        fs::write(&path, content).unwrap();
        let message = read::read(&path).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("some.json") && !message.contains('\n'), "{message}");
    }
    let message = read::read(&folder.path().join("none.json")).unwrap_err().to_string();
    assert!(message.contains("none.json: cannot be read: No such file"), "{message}");
}

#[test]
fn a_written_report_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json");
    for _ in 0..2 {
        write::probe(&path).unwrap();
        assert!(write::write_atomically(&path, &sample()).unwrap().warning().is_none());
    }
    assert_eq!(read::read(&path).unwrap(), sample());
    assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    // As any file that is created normally, whatever the umask is here.
    let ordinary = folder.path().join("ordinary");
    fs::write(&ordinary, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&ordinary));
}

#[test]
fn a_name_of_our_own_choice_is_never_somebody_else_s() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("20261123T000000.000Z-echo.json");
    let names: Vec<PathBuf> = (0..3).map(|_| write::write_new(&path, &sample()).unwrap().path).collect();
    assert_eq!(names[0], path);
    assert!(names[1] != names[0] && names[2] != names[1] && names[2] != names[0]);
    assert!(names.iter().all(|name| read::read(name).unwrap() == sample()));
}

#[test]
fn what_cannot_be_written_is_known_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/a.json");
    assert!(write::probe(&missing).unwrap_err().to_string().contains("there is no folder"));
    assert!(write::probe(folder.path()).unwrap_err().to_string().contains("it is a folder"));
    assert!(write::probe(Path::new("")).is_err());
    assert!(write::write_atomically(&missing, &sample()).is_err());
    assert!(!folder.path().join("missing").exists());
}

#[test]
fn devices_are_written_directly() {
    write::probe(Path::new("/dev/null")).unwrap();
    _ = write::write_atomically(Path::new("/dev/null"), &sample()).unwrap();
    write::probe(Path::new("/dev/full")).unwrap();
    assert!(write::write_atomically(Path::new("/dev/full"), &sample()).unwrap_err().to_string().contains("No space"));
}

#[test]
fn default_names_sort_by_time_and_hold_nothing_odd() {
    let path = write::default_path("2026-11-23T13:02:40.125Z", "echo/ü x");
    assert_eq!(path, Path::new("results/20261123T130240.125Z-echo---x.json"));
    assert_eq!(write::timestamp(std::time::UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
}

#[test]
fn every_format_renders_the_golden_report() {
    let report = read::read(&in_repository(GOLDEN)).unwrap();
    for format in FORMATS {
        let text = (format.render)(std::slice::from_ref(&report));
        assert!(text.ends_with('\n') && text.len() > 40, "{}", format.name);
        assert!(!format.about.is_empty() && report::by_name(format.name).is_some(), "{}", format.name);
    }
    let names: std::collections::BTreeSet<_> = FORMATS.iter().map(|format| format.name).collect();
    assert_eq!(names.len(), FORMATS.len());
    assert_eq!(report::csv::render(&report).lines().count(), report.series.rows.len() + 1);
}
