//! The server half of Redis, with the programs that people use.

mod common;

use common::{Server, with_every_engine, with_every_variant};
use std::process::{Command, Stdio};

/// Whether a program of Redis is here.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "{program} is not installed");
    found
}

/// What redis-cli prints for a command.
fn cli(server: &Server, words: &[&str]) -> String {
    let port = server.address.port().to_string();
    let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn redis_cli_understands_every_answer() {
    if !have("redis-cli") {
        return;
    }
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis", "--threads", "2"]);
        for (words, answer) in [
            (&["ping"][..], "PONG"),
            (&["ping", "hello there"], "hello there"),
            (&["echo", ""], ""),
            (&["set", "a", "1"], "OK"),
            (&["get", "a"], "1"),
            (&["get", "none"], ""),
            (&["incr", "a"], "2"),
            (&["incrby", "a", "-5"], "-3"),
            (&["mset", "x", "1", "y", "2"], "OK"),
            (&["exists", "x", "y", "z"], "2"),
            (&["del", "x", "z"], "1"),
            (&["dbsize"], "2"),
            (&["strlen", "a"], "2"),
            (&["set", "b", "text"], "OK"),
            (&["incr", "b"], "ERR value is not an integer or out of range"),
            (&["get"], "ERR wrong number of arguments for 'get' command"),
            (&["nosuch"], "ERR unknown command 'nosuch'"),
            (&["-n", "3", "ping"], "PONG"),
            (&["-3", "get", "a"], "-3"),
            (&["flushall"], "OK"),
            (&["dbsize"], "0"),
        ] {
            assert_eq!(cli(&server, words).trim_end(), answer, "{words:?}");
        }
        let info = cli(&server, &["info", "commandstats"]);
        assert!(info.contains("cmdstat_get:calls=4") || info.contains("cmdstat_get:calls=3"), "{info}");
        let ended = server.stop();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        assert_eq!(ended.stats.requests, ended.stats.replies);
    });
}

#[test]
fn redis_cli_pipes_a_file_of_commands() {
    if !have("redis-cli") {
        return;
    }
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let commands: String = (0..5_000).map(|n| format!("SET key:{n} {}\r\n", "v".repeat(1 + n % 900))).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("commands");
        std::fs::write(&file, commands).unwrap();
        let port = server.address.port().to_string();
        let output = Command::new("redis-cli")
            .args(["-p", &port, "--pipe"])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains("errors: 0, replies: 5000"), "{told}");
        assert_eq!(cli(&server, &["dbsize"]), "5000");
        assert_eq!(cli(&server, &["get", "key:899"]).len(), 900);
        server.stop();
    });
}

#[test]
fn redis_benchmark_is_answered_and_counted() {
    if !have("redis-benchmark") {
        return;
    }
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "redis", "--threads", "2"]);
        let port = server.address.port().to_string();
        for pipeline in ["1", "16"] {
            let output = Command::new("redis-benchmark")
                .args([
                    "-p",
                    &port,
                    "-t",
                    "ping,set,get,incr,mset",
                    "-n",
                    "2000",
                    "-c",
                    "20",
                    "-P",
                    pipeline,
                    "-r",
                    "100",
                ])
                .args(["--csv", "-d", "300"])
                .output()
                .unwrap();
            let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{told} {errors}");
            for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"] {
                assert!(told.contains(&format!("\"{test}\"")), "{test}: {told} {errors}");
            }
            assert!(!told.contains("ERR") && !errors.contains("ERR"), "{told} {errors}");
        }
        let ended = server.stop();
        // Six tests of 2,000 and more (it sends whole pipelines), twice.
        assert!(ended.stats.requests >= 24_000, "{:?}", ended.stats);
        assert_eq!(ended.stats.requests, ended.stats.replies);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    });
}
