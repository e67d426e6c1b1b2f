//! The command line as scripts see it: exit statuses, one line that says why, and where the report goes.

mod common;

use common::busy::Watch;
use common::{
    HARD_LIMIT, LOADGEN, Running, SHORT, Server, brief, eventually, loadgen, loadgen_at, loadgen_plain, namespace,
    parse_report, port_range, read_report, scratch, wait_for, whole,
};
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

/// Runs a shell script with loadgen as `$0`.
fn shell(script: &str, args: &[&str]) -> common::Ended {
    let mut command = common::command("sh");
    command.args(["-c", script, LOADGEN]).args(args);
    Running::launch(command, scratch()).wait()
}

/// One line on standard error begins with `error: `, and mentions all of `words`.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let ended = loadgen_plain(args);
    // clap adds its usage to the one line.
    assert_eq!(ended.code, code, "{args:?}: {:?} {:?}", ended.stdout, ended.stderr);
    let line = ended.stderr.lines().find(|line| line.starts_with("error: "));
    let line = line.unwrap_or_else(|| panic!("{args:?} is not refused with a word: {:?}", ended.stderr));
    for word in words {
        assert!(ended.stderr.contains(word), "{args:?}: {:?} does not say {word:?}", ended.stderr);
    }
    assert!(ended.stdout.is_empty() && line.len() > 20, "{args:?}: {:?} {line:?}", ended.stdout);
    assert!(!ended.stderr.contains("panicked"), "{args:?}: {}", ended.stderr);
    ended.assert_within(Duration::from_secs(5));
}

#[test]
fn what_is_not_known_is_refused_and_what_is_known_is_told() {
    refused(&["--no-such-flag"], 2, &["--no-such-flag"]);
    refused(&["--protocol", "gopher"], 2, &["gopher", "echo", "http"]);
    refused(&["--engine", "kqueue"], 2, &["kqueue", "epoll"]);
    refused(&["--server-engine", "kqueue"], 2, &["kqueue", "epoll", "select"]);
    refused(&["--format", "xml"], 2, &["xml", "text", "json"]);
    refused(&["--target", "gopher://localhost:70"], 2, &["gopher", "http"]);
    refused(&["report", "no-such-file.json"], 2, &["no-such-file.json"]);
    refused(&["report", "--format", "xml", "/dev/null"], 2, &["xml"]);
    refused(&["report", "/dev/null"], 2, &["/dev/null"]);
    refused(&["--label", "without-a-value"], 2, &["without-a-value", "KEY=VALUE"]);
    refused(&["--protocol", "http", "--header", "nonsense"], 2, &["nonsense"]);
    refused(&["--protocol", "http", "--body", "@/no/such/file"], 2, &["/no/such/file"]);
    refused(&["--cpus", "1000"], 2, &["1000"]);
}

#[test]
fn bad_numbers_are_refused() {
    let beyond = "18446744073709551616";
    for flag in ["--conns", "--threads", "--pipeline", "--requests", "--size", "--requests-per-conn", "--connect-rate"]
    {
        for value in ["-1", "", "x", beyond, "1e999", "10 parsecs", "nan", "inf", "0x10", "1.5.2"] {
            refused(&[&format!("{flag}={value}")], 2, &[flag]);
        }
    }
    for flag in ["--conns", "--threads", "--pipeline", "--size", "--requests-per-conn", "--connect-rate", "--timeout"] {
        refused(&[flag, "0"], 2, &[flag]);
    }
    for flag in ["--duration", "--warmup", "--timeout"] {
        for value in ["-1s", "", "s", "1e999s", "1 fortnight", beyond] {
            refused(&[&format!("{flag}={value}")], 2, &[flag]);
        }
    }
    refused(&["--duration", "0s"], 2, &["--duration"]);
    refused(&["--requests", "0"], 2, &["--requests"]);
    refused(&["--output="], 2, &["--output"]);
    refused(&["--idle=-1"], 2, &["--idle"]);
    refused(&["--idle", "18446744073709551615"], 2, &["--idle"]);
    refused(&["--idle", "100M", "--target", "127.0.0.1:9"], 2, &["--idle"]);
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    refused(&["--requests", "9", "--conns", "10"], 2, &["9", "10", "--conns"]);
    refused(&["--requests", "10", "--conns", "10", "--idle", "1"], 2, &["10", "11"]);
    refused(&["--threads", "11", "--conns", "10"], 2, &["11", "10"]);
    refused(&["--requests", "100", "--warmup", "1s"], 2, &["--warmup", "--requests"]);
    refused(&["--protocol", "discard", "--requests", "1k"], 2, &["--requests", "discard"]);
    refused(&["--protocol", "chargen", "--pipeline", "2"], 2, &["--pipeline", "chargen"]);
    refused(&["--protocol", "discard", "--requests-per-conn", "2"], 2, &["--requests-per-conn"]);
    refused(&["--target", "localhost:1", "localhost:2"], 2, &["--target"]);
    refused(&["--size", "16MiB", "--pipeline", "100"], 2, &["--pipeline"]);
    refused(&["--protocol", "http", "--method", "GE T"], 2, &["method"]);
    refused(&["--cpus", "0", "--no-pin"], 2, &["--no-pin"]);
}

#[test]
fn bad_targets_are_refused_and_unknown_hosts_unreachable() {
    for target in
        ["", "localhost", "localhost:", "localhost:0", "localhost:65536", ":80", "::1", "http://", "a/b", "a b:80"]
    {
        refused(&["--target", target], if target == "a b:80" { 3 } else { 2 }, &[]);
    }
    refused(&["--target", "http://user:secret@localhost/"], 2, &["user"]);
    // Reserved for this purpose (RFC 6761); resolvers answer at once, or are not there.
    refused(&["--target", "no-such-host.invalid:80"], 3, &["no-such-host.invalid"]);
}

#[test]
fn nothing_runs_before_the_report_is_known_to_fit() {
    let server = Server::start(&[]);
    let folder = scratch();
    let missing = folder.path().join("missing/report.json");
    for path in [missing.to_str().unwrap(), folder.path().to_str().unwrap(), "/proc/report.json"] {
        refused(&["--target", &server.target(), "--output", path], 6, &["write"]);
    }
    assert_eq!(server.stop().accepts, 0);
}

#[test]
fn a_report_that_cannot_be_written_leaves_what_was_there() {
    let ended = loadgen_plain(&["--requests", "10", "--conns", "2", "--output", "/dev/full"]);
    assert_eq!(ended.code, 6, "{}", ended.stderr);
    assert!(ended.stderr.contains("/dev/full") && ended.stderr.contains("No space left"), "{}", ended.stderr);
    // What was measured is on the terminal all the same.
    assert!(ended.stdout.len() > 100, "{:?}", ended.stdout);
    let to_stdout = shell("exec \"$0\" --requests 10 --conns 2 --output - > /dev/full", &[]);
    assert_eq!(to_stdout.code, 6, "{}", to_stdout.stderr);

    // A file system that has room for the old report and for nothing else.
    let setup = "mkdir -p small && mount -t tmpfs -o size=8k none small && cd small && echo old > report.json";
    let script =
        "{ \"$0\" --requests 10 --conns 2 --output report.json; code=$?; cat report.json; ls -a; exit $code; }";
    let Some(command) = namespace("-rm", setup, script, &[]) else { return };
    let ended = Running::launch(command, scratch()).wait();
    assert_eq!(ended.code, 6, "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("\nold\n"), "{}", ended.stdout);
    let left = ended.stdout.lines().skip_while(|line| *line != "old").skip(1).collect::<Vec<_>>();
    assert_eq!(left, [".", "..", "report.json"], "nothing half written stays");
}

#[test]
fn a_read_only_folder_is_refused() {
    let setup = "mkdir -p ro && echo old > ro/report.json && mount -t tmpfs -o ro none ro";
    let script = "exec \"$0\" --requests 10 --conns 2 --output ro/report.json";
    let Some(command) = namespace("-rm", setup, script, &[]) else { return };
    let ended = Running::launch(command, scratch()).wait();
    let said = ended.expect_refusal(6);
    assert!(said.contains("ro/report.json") && said.contains("Read-only"), "{said}");
}

#[test]
fn more_connections_than_descriptors_are_refused_with_the_numbers() {
    let ended = shell("ulimit -n 256 && exec \"$0\" \"$@\"", &["--conns", "10k"]);
    let said = ended.expect_refusal(7);
    for word in ["10000", "10064", "256", "ulimit", "--conns 192"] {
        assert!(said.contains(word), "{said:?} does not say {word}");
    }
    // What the remedy says does work.
    let fits = shell(
        "ulimit -n 256 && exec \"$0\" \"$@\"",
        &["--conns", "192", "--requests", "1k", "--output", "report.json"],
    );
    assert_eq!((fits.code, whole(fits.report()).ok), (0, 1000), "{}", fits.stderr);
}

#[test]
fn a_soft_limit_is_raised() {
    let args = ["--conns", "300", "--requests", "1k", "--output", "report.json"];
    let ended = shell("ulimit -S -n 100 && exec \"$0\" \"$@\"", &args);
    assert_eq!((ended.code, whole(ended.report()).ok), (0, 1000), "{}", ended.stderr);
}

#[test]
fn select_is_refused_what_it_cannot_watch() {
    refused(&["--server-engine", "select", "--conns", "2k"], 7, &["2000", "select", "--conns 1000"]);
    let ended = loadgen(&["--server-engine", "select", "--conns", "1000", "--requests", "5k"]);
    let report = ended.expect(0);
    assert_eq!((whole(report).ok, report.server.as_ref().unwrap().accepts), (5000, 1000), "{}", brief(report));
}

#[test]
fn more_connections_than_local_ports_are_refused_with_the_numbers() {
    let within = |args: &[&str]| {
        let command = port_range(40000, 40010, "exec \"$0\" \"$@\"", args)?;
        Some(Running::launch(command, scratch()).wait())
    };
    let Some(ended) = within(&["--conns", "100", "--source", "127.0.0.1"]) else { return };
    let said = ended.expect_refusal(7);
    for word in ["100", "11", "40000-40010", "ip_local_port_range", "--source"] {
        assert!(said.contains(word), "{said:?} does not say {word}");
    }
    let run = ["--requests", "100", "--output", "report.json", "--target", "127.0.0.1:9"];
    let ended = within(&[&["--conns", "100"], &run[..]].concat()).unwrap();
    assert_eq!(ended.expect_refusal(7).lines().count(), 2);
    // Two sources have ports for nearly twice as many: the server's own port is of the same range.
    let two = ["--conns", "18", "--source", "127.0.0.1,127.0.0.2", "--requests", "100", "--output", "report.json"];
    let fits = within(&two).unwrap();
    assert_eq!((fits.code, whole(fits.report()).ok), (0, 100), "{}\n{}", fits.stderr, brief(fits.report()));
}

#[test]
fn a_source_is_used_and_a_wrong_one_is_told() {
    let server = Server::start(&[]);
    let ended = loadgen_at(&server.target(), &["--source", "127.0.0.7", "--requests", "20", "--conns", "4"]);
    assert_eq!(whole(ended.expect(0)).ok, 20);
    // TEST-NET-1: not an address of this machine.
    let ended = loadgen_at(&server.target(), &["--source", "192.0.2.1", "--requests", "20", "--conns", "4"]);
    for word in ["192.0.2.1", "--source"] {
        assert!(ended.expect_refusal(7).contains(word), "{}", ended.stderr);
    }
}

/// Stops a run that would last long by a signal, and holds what it leaves behind.
fn interrupted(signal: &str, code: i32) {
    for args in [&["--duration", "60s", "--warmup", "100ms"][..], &["--requests", "1G"]] {
        let run = Running::start(&[&["--conns", "10", "--threads", "2"][..], args].concat());
        run.wait_for_load();
        std::thread::sleep(Duration::from_millis(300)); // beyond the warm-up
        run.signal(signal);
        let ended = run.wait();
        let report = ended.expect(code);
        assert!(report.partial && whole(report).ok > 50, "{}", brief(report));
        let server = report.server.as_ref().expect("the server was stopped in good order");
        assert_eq!((server.requests, server.replies), (whole(report).sent, whole(report).ok), "{}", brief(report));
        assert!(whole(report).errors.is_empty() && report.throughput.requests_per_s > 0, "{}", brief(report));
        ended.assert_within(Duration::from_secs(5));
    }
}

#[test]
fn ctrl_c_leaves_a_partial_report() {
    interrupted("INT", 130);
}

#[test]
fn sigterm_leaves_a_partial_report() {
    interrupted("TERM", 143);
}

#[test]
fn ctrl_c_before_the_load_began_leaves_a_report_too() {
    let peer = common::peer::Peer::start(common::peer::Talk::ignore);
    let run = Running::start(&["--target", &peer.target(), "--conns", "3", "--timeout", "20s"]);
    eventually("it connects", || peer.accepted() == 3);
    std::thread::sleep(Duration::from_millis(100));
    run.signal("INT");
    let ended = run.wait();
    let report = ended.expect(130);
    assert!(report.partial && whole(report).in_flight_at_end == 3, "{}", brief(report));
    ended.assert_within(Duration::from_secs(6));
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    // Nobody answers, so that the drain after the first would take its time.
    let peer = common::peer::Peer::start(common::peer::Talk::ignore);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let before = peer.accepted();
        let mut run = Running::start(&["--target", &peer.target(), "--conns", "3", "--timeout", "20s"]);
        eventually("it connects", || peer.accepted() == before + 3);
        std::thread::sleep(Duration::from_millis(50));
        run.signal(signal);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!run.has_ended(), "the first waits for replies");
        let then = Watch::start();
        run.signal(signal);
        let ended = run.wait();
        assert_eq!(ended.code, code, "{}", ended.stderr);
        then.assert_within(Duration::from_secs(1), "the end after a second signal");
    }
}

#[test]
fn a_report_on_standard_output_is_nothing_but_json() {
    for args in [&["--output", "-"][..], &["--output", "-", "--format", "text"], &["--output", "-", "--quiet"]] {
        let ended = loadgen_plain(&[&["--conns", "4", "--requests", "100"], args].concat());
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(whole(&parse_report(&ended.stdout)).ok, 100);
        assert!(!args.contains(&"--quiet") || ended.stderr.is_empty(), "{:?}", ended.stderr);
    }
    let json = loadgen_plain(&["--conns", "4", "--requests", "100", "--format", "json"]);
    assert_eq!(whole(&parse_report(&json.stdout)).ok, 100);
}

#[test]
fn a_report_goes_to_a_folder_of_its_own_and_is_read_again() {
    let script = "\"$0\" --requests 50 --conns 2 && \"$0\" report results/*.json --format json > again.json && \
        cmp results/*.json again.json && ls results | wc -l && \"$0\" report results/*.json";
    let ended = shell(script, &[]);
    assert_eq!(ended.code, 0, "{} {}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("results/"), "its place is told: {}", ended.stderr);
    assert!(ended.stdout.contains("\n1\n"), "{}", ended.stdout);
}

#[test]
fn a_reader_who_has_gone_does_not_cost_the_report() {
    let folder = scratch();
    let path = folder.path().join("report.json");
    for args in [&[][..], &["--format", "json"]] {
        let mut command = common::command(LOADGEN);
        command.args(["--requests", "100", "--conns", "4", "--output", path.to_str().unwrap()]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(wait_for(&mut child, HARD_LIMIT, "loadgen"), Some(0));
        assert_eq!(whole(&read_report(&path)).ok, 100);
        std::fs::remove_file(&path).unwrap();
    }
    let ended = shell("\"$0\" --requests 100 --conns 4 --output report.json | head -1", &[]);
    assert_eq!((ended.code, whole(ended.report()).ok), (0, 100), "{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn standard_error_may_be_closed() {
    let ended = shell("exec \"$0\" --requests 100 --conns 4 --output report.json 2>&-", &[]);
    assert_eq!((ended.code, whole(ended.report()).ok), (0, 100));
    let mut command = common::command(LOADGEN);
    command.args(["--duration", "300ms", "--warmup", "0s", "--conns", "4", "--output", "-"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(wait_for(&mut child, HARD_LIMIT, "loadgen"), Some(0));
    assert!(whole(&parse_report(&text)).ok > 0);
}

/// The processes that have `parent`.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn the_embedded_server_does_not_outlive_its_client() {
    for signal in [None, Some("INT"), Some("TERM"), Some("KILL")] {
        let duration = if signal.is_some() { "1m" } else { "1s" };
        let run = Running::start(&["--conns", "4", "--duration", duration, "--warmup", "100ms"]);
        let mut server = Vec::new();
        eventually("the server starts", || {
            server = children(run.id());
            !server.is_empty()
        });
        assert_eq!(server.len(), 1);
        if let Some(name) = signal {
            run.wait_for_load();
            assert!(is_running(server[0]));
            run.signal(name);
        }
        let ended = run.wait();
        eventually("the server is gone", || !is_running(server[0]));
        assert_eq!(
            ended.code,
            match signal {
                None => 0,
                Some("INT") => 130,
                Some("TERM") => 143,
                _ => -1,
            }
        );
    }
}

#[test]
fn an_embedded_server_that_dies_half_way_is_told() {
    let run = Running::start(&["--conns", "4", "--duration", "1s", "--warmup", "100ms", "--timeout", "500ms"]);
    std::thread::sleep(Duration::from_millis(500));
    let server = children(run.id());
    assert_eq!(server.len(), 1);
    common::signal(server[0], "KILL");
    let ended = run.wait();
    let report = ended.expect(4);
    assert!(report.server.is_none() && report.connections.lost > 0, "{}", brief(report));
    assert!(ended.stderr.contains("embedded server"), "{}", ended.stderr);
}

#[test]
fn a_server_that_cannot_listen_says_why() {
    let server = Server::start(&[]);
    let ended = loadgen_plain(&["server", "--listen", &server.target()]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("in use") && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn quiet_is_quiet_and_notes_stay_off_standard_output() {
    let quiet = loadgen(&[&["--conns", "4", "--quiet"][..], &SHORT].concat());
    quiet.expect(0);
    assert!(quiet.stderr.is_empty() && !quiet.stdout.is_empty(), "{:?} {:?}", quiet.stdout, quiet.stderr);
    let csv = loadgen(&["--conns", "4", "--requests", "10", "--format", "csv"]);
    assert!(csv.stdout.lines().all(|line| line.contains(',')), "{:?}", csv.stdout);
    assert!(!csv.stdout.contains('\x1b') && !csv.stderr.contains('\x1b'), "no terminal, no colour");
}

#[test]
fn strict_turns_an_invalid_measurement_into_a_status() {
    let server = Server::start(&[]);
    // Nothing can be carried within a window of a nanosecond.
    let args = ["--duration", "1ns", "--warmup", "0s", "--conns", "2", "--strict"];
    let ended = loadgen_at(&server.target(), &args);
    let report = ended.expect(5);
    assert!(report.verdict.reasons.iter().any(|reason| reason.code == "nothing_measured"), "{}", brief(report));
}

#[test]
fn help_and_version_are_for_standard_output() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["run", "--help"],
        &["help"],
        &["help", "run"],
        &["server", "--help"],
    ] {
        let ended = loadgen_plain(args);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
        assert!(!ended.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn the_progress_line_is_for_terminals() {
    let mut command = common::command(LOADGEN);
    command.args(["--duration", "1500ms", "--warmup", "100ms", "--conns", "4", "--output", "-"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let lines: Vec<String> = stderr.lines().map(Result::unwrap).collect();
    assert_eq!(wait_for(&mut child, HARD_LIMIT, "loadgen"), Some(0));
    assert!(lines.iter().all(|line| !line.contains('\r') && !line.contains('\x1b')), "{lines:?}");
}
