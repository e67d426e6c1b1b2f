//! One load from several processes: together they put on exactly what a single one would, and their reports add up to
//! what the server counted.

mod common;

use common::{Ended, LOADGEN, Running, Server, agrees, brief, hold_invariants, read_report, scratch, whole};
use loadgen_core::result::{Report, ServerStats, VerdictState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const SHARDS: usize = 4;
const ENVIRONMENT: [&str; 9] = [
    "LOADGEN_SHARD",
    "LOADGEN_SHARDS",
    "JOB_COMPLETION_INDEX",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
];

/// `loadgen` with these arguments and, of the variables that may say a shard, these only.
fn command(args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = common::command(LOADGEN);
    ENVIRONMENT.iter().for_each(|name| _ = command.env_remove(name));
    command.args(args).envs(variables.iter().copied());
    command
}

fn plain(args: &[&str], variables: &[(&str, &str)]) -> Ended {
    Running::launch(command(args, variables), scratch()).wait()
}

/// Seconds since 1970, so far ahead.
fn soon(ahead: Duration) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + ahead;
    format!("{}.{:09}", at.as_secs(), at.subsec_nanos())
}

fn path(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

/// Four shards at once against one server: their reports `shard-0.json` and so on, and logs of their requests.
fn four(folder: &TempDir, args: &[&str]) -> ServerStats {
    let server = Server::start(&[]);
    let (target, start) = (server.target(), soon(Duration::from_secs(3)));
    let (report, log) = (path(folder, "shard-%i.json"), path(folder, "log-%i.csv"));
    let start = |index: usize| {
        let shard = format!("{index}/{SHARDS}");
        let own = ["--target", &target, "--shard", &shard, "-o", &report, "--request-log", &log, "--no-floor"];
        let all = [&own[..], &["--start-at", &start, "--duration", "1200ms", "--warmup", "200ms"], args].concat();
        Running::launch(command(&all, &[]), scratch())
    };
    let running: Vec<Running> = (0..SHARDS).map(start).collect();
    for shard in running {
        let ended = shard.wait();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    server.stop()
}

fn merged(folder: &TempDir) -> Report {
    let out = path(folder, "all.json");
    let inputs: Vec<String> = (0..SHARDS).map(|index| path(folder, &format!("shard-{index}.json"))).collect();
    let mut args = vec!["merge", "-o", &out];
    args.extend(inputs.iter().rev().map(String::as_str));
    let ended = plain(&args, &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout.contains("requests/s") && ended.stderr.contains("report: "), "{}", ended.stdout);
    read_report(Path::new(&out))
}

/// The due times of the load, from its beginning (`proof` requests come before it).
fn dues(path: &Path, begin: u64) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip(1).filter(|line| !line.ends_with(",proof"));
    rows.map(|row| row.split(',').nth(1).unwrap().parse::<u64>().unwrap() - begin).collect()
}

fn first_due(path: &Path) -> u64 {
    dues(path, 0)[0]
}

#[test]
fn a_closed_loop_of_four_shards_is_what_the_server_counted() {
    let folder = scratch();
    let watch = common::busy::Watch::start();
    // Two threads each, and shares that are not all the same.
    let server = four(&folder, &["--conns", "22", "--idle", "3", "--threads", "2", "--pipeline", "2"]);
    let why_unfit = watch.why_unfit();
    let merged = merged(&folder);
    hold_invariants(&merged, "");
    agrees(&merged, &server);
    assert_eq!((merged.connections.requested, merged.connections.opened), (25, server.accepts), "{}", brief(&merged));
    assert_eq!((merged.shard.as_ref(), merged.confidence.as_ref()), (None, None));
    let told = merged.merged.as_ref().unwrap();
    assert_eq!(told.shards.iter().map(|shard| shard.index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // Each with its share: 22 are 6, 6, 5 and 5; 3 are 1, 1, 1 and 0.
    let shards: Vec<Report> =
        (0..SHARDS).map(|i| read_report(&folder.path().join(format!("shard-{i}.json")))).collect();
    let requested: Vec<u64> = shards.iter().map(|shard| shard.connections.requested).collect();
    assert_eq!(requested, [7, 7, 6, 5]);
    assert!(shards.iter().all(|shard| shard.scenario.hash == shards[0].scenario.hash));
    assert_eq!(shards[0].scenario.connections, 22);
    // The windows opened together, as --start-at wanted it.
    let apart = Duration::from_nanos(told.windows_apart_ns.unwrap());
    common::busy::assert_within(apart, Duration::from_millis(1), "opening the windows", why_unfit.as_deref());
    let sum: u64 = shards.iter().map(|shard| shard.throughput.replies).sum();
    assert_eq!((told.throughput_of.as_str(), merged.throughput.replies), ("windows", sum));
    // One kernel was counted by four: not once for each.
    let opens = |report: &Report| report.kernel.get("Tcp.ActiveOpens").copied().unwrap_or(0);
    assert_eq!(Some(opens(&merged)), shards.iter().map(opens).max());
}

#[test]
fn the_sessions_of_four_shards_are_those_of_one_schedule() {
    let folder = scratch();
    let args = ["--conns", "40", "--rate", "400", "--session-requests", "1..5", "--think", "fixed:1ms"];
    let server = four(&folder, &args);
    let merged = merged(&folder);
    hold_invariants(&merged, "");
    agrees(&merged, &server);
    let sessions = merged.sessions.as_ref().unwrap();
    // 1.4 s of 400 a second.
    assert!(sessions.closes() && sessions.arrived == 560, "{sessions:?}");
    assert_eq!(sessions.lengths.values().sum::<u64>(), sessions.completed);
    let parts: Vec<Report> = (0..SHARDS).map(|i| read_report(&folder.path().join(format!("shard-{i}.json")))).collect();
    let counted = |report: &Report| report.sessions.as_ref().unwrap().duration.as_ref().map_or(0, |d| d.count);
    assert_eq!(counted(&merged), parts.iter().map(counted).sum::<u64>());
    assert!(parts.iter().all(|part| part.sessions.as_ref().unwrap().arrived == 140));
}

#[test]
fn the_shards_of_an_open_loop_make_the_schedule_of_a_single_process() {
    for arrival in ["constant", "poisson"] {
        let args = ["--conns", "12", "--rate", "2k", "--arrival", arrival, "--seed", "5", "--threads", "2"];
        let folder = scratch();
        let watch = common::busy::Watch::start();
        let server = four(&folder, &args);
        let why_unfit = watch.why_unfit();
        let merged = merged(&folder);
        hold_invariants(&merged, "");
        agrees(&merged, &server);
        assert_eq!(merged.throughput.offered_per_s.map(|rate| rate.abs_diff(2_000) < 200), Some(true));

        let single = single(&folder, &args);
        let alone = single_dues(&single);
        // What is due until the end and finds no connection, on a busy machine, has no row.
        let unsent = |name: &str| whole(&read_report(&folder.path().join(name))).unsent as usize;
        if unsent("alone.json") > 0 {
            eprintln!("inconclusive: the single process did not send all that was due");
            return;
        }
        let logs: Vec<PathBuf> = (0..SHARDS).map(|i| folder.path().join(format!("log-{i}.csv"))).collect();
        // Each log begins when its load did; all did so at about the same time, as far as the machine let them.
        let begin: Vec<u64> = logs.iter().zip(&alone).map(|(log, first)| first_due(log) - first).collect();
        let spread = begin.iter().max().unwrap() - begin.iter().min().unwrap();
        let (spread, limit) = (Duration::from_nanos(spread), Duration::from_secs(1));
        common::busy::assert_within(spread, limit, "the beginning of all shards", why_unfit.as_deref());
        let mut all = Vec::new();
        for (index, log) in logs.iter().enumerate() {
            // Shard i has the arrivals i, i + 4, i + 8, ...
            let expected: Vec<u64> = alone.iter().copied().skip(index).step_by(SHARDS).collect();
            let own = dues(log, begin[index]);
            let missing = unsent(&format!("shard-{index}.json"));
            let mut rest = expected.iter();
            assert!(own.iter().all(|due| rest.any(|one| one == due)), "shard {index}, {arrival}: {own:?}");
            assert_eq!(own.len() + missing, expected.len(), "shard {index}, {arrival}");
            all.extend(own);
        }
        all.sort_unstable();
        assert!(all == alone || whole(&merged).unsent > 0, "{arrival}: {all:?}");
        assert_eq!(whole(&merged).scheduled, alone.len() as u64 + 12, "{}", brief(&merged));
    }
}

/// The log of one process with the same load.
fn single(folder: &TempDir, args: &[&str]) -> PathBuf {
    let server = Server::start(&[]);
    let (target, log, out) = (server.target(), path(folder, "alone.csv"), path(folder, "alone.json"));
    let own = ["--target", &target, "--request-log", &log, "-o", &out, "--no-floor"];
    let ended = plain(&[&own[..], &["--duration", "1200ms", "--warmup", "200ms"], args].concat(), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    PathBuf::from(log)
}

/// Of the load's beginning, which is the first arrival of a constant rate, and before that of a Poisson process.
fn single_dues(log: &Path) -> Vec<u64> {
    dues(log, first_due(log))
}

#[test]
fn variables_of_the_starter_say_the_shard_and_that_is_told() {
    let server = Server::start(&[]);
    let target = server.target();
    let folder = scratch();
    type Case<'a> = (&'a [(&'a str, &'a str)], Option<u64>);
    let cases: [Case<'_>; 6] = [
        (&[("LOADGEN_SHARD", "1"), ("LOADGEN_SHARDS", "4")], Some(1)),
        (&[("JOB_COMPLETION_INDEX", "2"), ("LOADGEN_SHARDS", "4")], Some(2)),
        (&[("OMPI_COMM_WORLD_RANK", "3"), ("OMPI_COMM_WORLD_SIZE", "4")], Some(3)),
        (&[("PMI_RANK", "0"), ("PMI_SIZE", "4")], Some(0)),
        (&[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "4")], Some(1)),
        (&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], None),
    ];
    for (variables, index) in cases {
        let out = path(&folder, "env-%i.json");
        let args = ["-T", &target, "-c", "8", "-d", "100ms", "--warmup", "0s", "--no-floor", "-o", &out];
        let ended = plain(&args, variables);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let name = format!("env-{}.json", index.map_or_else(|| "%i".to_owned(), |index| index.to_string()));
        let report = read_report(&folder.path().join(name));
        assert_eq!(report.shard.as_ref().map(|shard| (shard.index, shard.count)), index.map(|index| (index, 4)));
        assert_eq!(report.connections.requested, if index.is_some() { 2 } else { 8 });
        let told = ended.stderr.contains("note: this is shard") && ended.stderr.contains(variables[0].0);
        assert_eq!(told, index.is_some(), "{}", ended.stderr);
    }
    // What was typed goes before what was inherited.
    let out = path(&folder, "typed-%i.json");
    let args = ["-T", &target, "-c", "8", "-d", "100ms", "--warmup", "0s", "-o", &out, "--shard", "3/4"];
    let ended = plain(&args, &[("LOADGEN_SHARD", "1"), ("LOADGEN_SHARDS", "4")]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.stderr.contains("note: this is shard"), "{}", ended.stderr);
    assert_eq!(read_report(&folder.path().join("typed-3.json")).shard.unwrap().index, 3);
}

#[test]
fn what_cannot_be_divided_is_refused_before_the_run() {
    let some = "127.0.0.1:9";
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 12] = [
        (&["--shard", "0/4"], &[], "no target"),
        (&["--shard", "3/4", "-c", "3", "-T", some], &[], "shard 3 of 4 has 0 of --conns 3"),
        (&["--shard", "1/2", "-c", "3", "-t", "2", "-T", some], &[], "--threads 2"),
        (&["--shard", "0/4", "--in-flight", "3", "-T", some], &[], "--in-flight 3"),
        (&["--shard", "0/4", "--connect-rate", "3", "-T", some], &[], "--connect-rate 3"),
        (&["--shard", "0/2", "--until-ci", "p50=1%", "-T", some], &[], "--until-ci"),
        (&["-T", some], &[("JOB_COMPLETION_INDEX", "0")], "LOADGEN_SHARDS does not say"),
        (&["-T", some], &[("LOADGEN_SHARDS", "4")], "nothing says which"),
        (&["-T", some], &[("PMI_RANK", "4"), ("PMI_SIZE", "4")], "PMI_RANK=4"),
        (&["-T", some, "--start-at", "2020-01-01T00:00:00Z"], &[], "has passed"),
        (&["-T", some, "--start-at", "4000000000"], &[], "more than a day ahead"),
        (&["-T", some, "--start-at", "4000000000", "-n", "500"], &[], "does not go with --requests"),
    ];
    for (args, variables, words) in cases {
        let ended = plain(args, variables);
        let said = ended.expect_refusal(2);
        assert!(said.contains(words) && said.contains("help: "), "{args:?}: {said}");
    }
    for shard in ["4/4", "x", "1", "0/0"] {
        let ended = plain(&["-T", some, "--shard", shard], &[]);
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains("--shard"), "{}", ended.stderr);
    }
}

/// A shard of two, of a short run.
fn short(folder: &TempDir, target: &str, name: &str, shard: &str, args: &[&str]) -> String {
    let out = path(folder, name);
    let own = ["-T", target, "--shard", shard, "-d", "100ms", "--warmup", "0s", "--no-floor", "-o", &out];
    let ended = plain(&[&own, args].concat(), &[]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    out
}

#[test]
fn reports_that_are_no_whole_run_are_refused_in_one_line() {
    let server = Server::start(&[]);
    let (folder, target) = (scratch(), server.target());
    let [one, two, other] = [("one.json", "0/2", "8"), ("two.json", "1/2", "8"), ("other.json", "1/2", "6")]
        .map(|(name, shard, conns)| short(&folder, &target, name, shard, &["-c", conns]));
    let three = short(&folder, &target, "three.json", "1/3", &["-c", "8"]);
    let lone = path(&folder, "lone.json");
    assert_eq!(plain(&["-T", &target, "-d", "100ms", "--warmup", "0s", "-o", &lone], &[]).code, 0);
    let (gone, out) = (path(&folder, "gone.json"), path(&folder, "merged.json"));
    let cases: [(&[&str], &[&str]); 7] = [
        (&[&one, &one], &["both shard 0", "one.json"]),
        (&[&one], &["missing: 1"]),
        (&[&one, &other], &["one.json", "other.json", "connections 8 and 6"]),
        (&[&one, &three], &["one of 2 shards", "one of 3", "three.json"]),
        (&[&one, &lone], &["lone.json is no shard"]),
        (&[&one, &gone], &["gone.json", "cannot be read"]),
        (&[&one, &two, &two], &["both shard 1"]),
    ];
    for (inputs, words) in cases {
        let ended = plain(&[&["merge", "-o", &out], inputs].concat(), &[]);
        let said = ended.expect_refusal(2);
        assert!(words.iter().all(|word| said.lines().next().unwrap().contains(word)), "{words:?}: {said}");
        assert!(!Path::new(&out).exists() && ended.stdout.is_empty());
    }
    let ended = plain(&["merge", &one, &two, "-o", &path(&folder, "no/such/folder.json")], &[]);
    ended.expect_refusal(6);
}

#[test]
fn a_folder_is_merged_and_shards_apart_are_no_valid_run() {
    let server = Server::start(&[]);
    let (folder, target) = (scratch(), server.target());
    short(&folder, &target, "a.json", "0/2", &["-c", "8"]);
    short(&folder, &target, "b.json", "1/2", &["-c", "8"]);
    let from = folder.path().to_str().unwrap();
    // One after the other: the load was never on as a whole.
    let ended = plain(&["merge", from, "-o", "-", "--strict"], &[]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    let merged = common::parse_report(&ended.stdout);
    assert_eq!(merged.verdict.state, VerdictState::Invalid);
    assert_eq!(merged.verdict.reasons[0].code, "shards_apart");
    assert!(ended.stderr.contains("note: the windows opened up to"), "{}", ended.stderr);
    // Without -o, to a name of its own.
    let ended = plain(&["merge", from, "--quiet"], &[]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    // A table of figures has no place for what is wrong with them.
    let ended = plain(&["merge", from, "--quiet", "--format", "csv"], &[]);
    assert!(ended.code == 0 && ended.stderr.contains("INVALID: shards_apart"), "{}", ended.stderr);
    let empty = scratch();
    plain(&["merge", empty.path().to_str().unwrap()], &[]).expect_refusal(2);
}
