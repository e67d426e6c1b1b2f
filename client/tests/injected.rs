//! Service times that the embedded server injects, as a run sees them.

mod common;

use common::{agrees_with_embedded, loadgen, loadgen_plain};

const MS: u64 = 1_000_000;

#[test]
fn no_reply_is_faster_than_the_server_was_told_to_be() {
    for engine in loadgen_server::engine::ENGINES {
        for protocol in ["echo", "http"] {
            let args = ["--server-engine", engine.name, "--protocol", protocol, "--conns", "4", "--pipeline", "3"];
            let times = ["--server-delay", "fixed:8ms", "--server-service-time", "exp:50us", "--requests", "300"];
            let ended = loadgen(&[&args[..], &times, &["--seed", "5"]].concat());
            let report = ended.expect(0);
            agrees_with_embedded(report);
            let (scenario, server) = (&report.scenario, report.server.as_ref().unwrap());
            assert_eq!(scenario.server_injected, ["service-time=exp:50us", "delay=fixed:8ms"]);
            let injected = server.injected.as_ref().unwrap();
            assert_eq!((injected.delay.as_deref(), injected.seed), (Some("fixed:8ms"), 5));
            assert_eq!(injected.overrun.as_ref().unwrap().count, server.replies);
            let fastest = report.latency.service.as_ref().unwrap().min_ns;
            assert!(fastest >= 8 * MS, "{}: {fastest} ns", engine.name);
            assert!(ended.stdout.contains("delay=fixed:8ms"), "{}", ended.stdout);
        }
    }
}

#[test]
fn a_scenario_without_it_has_the_hash_that_it_had() {
    let ended = loadgen(&["--requests", "100", "--conns", "1"]);
    let report = ended.expect(0);
    let text = serde_json::to_string(report).unwrap();
    assert!(!text.contains("injected"));
    let other = loadgen(&["--requests", "100", "--conns", "1", "--server-stall", "1ms/1s"]);
    assert_ne!(other.expect(0).scenario.hash, report.scenario.hash);
}

#[test]
fn what_cannot_be_injected_is_refused() {
    for (args, words) in [
        (&["--server-delay", "fixed:1ms", "--target", "127.0.0.1:9"][..], &["--server-delay", "target"][..]),
        (&["--server-stall", "1s/2s", "--protocol", "discard"], &["--server-stall", "discard"]),
        (&["--server-service-time", "gauss:1ms"], &["--server-service-time", "gauss"]),
        (&["--server-delay", "trace:/no/such/file"], &["--server-delay", "/no/such/file"]),
        (&["--server-stall", "2s/1s"], &["--server-stall", "2s/1s"]),
    ] {
        let ended = loadgen_plain(args);
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        let line = ended.stderr.lines().next().unwrap_or_default();
        assert!(line.starts_with("error: ") && words.iter().all(|word| line.contains(word)), "{args:?}: {line}");
    }
}
