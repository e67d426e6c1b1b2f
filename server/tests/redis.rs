//! The server half of Redis, with the programs that people use.

mod common;

use common::{Server, noise, with_every_engine, with_every_variant};
use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;

/// Whether a program of Redis is here.
fn have(program: &str) -> bool {
    let found = common::command(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "{program} is not installed");
    found
}

/// What redis-cli prints for a command.
fn cli(server: &Server, words: &[&str]) -> String {
    let port = server.address.port().to_string();
    let output = common::command("redis-cli").args(["-p", &port]).args(words).output().unwrap();
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
        // One of them without its key: refused, and counted all the same.
        assert!(info.contains("cmdstat_get:calls=4\r\n"), "{info}");
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
        let output = common::command("redis-cli")
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
            let output = common::command("redis-benchmark")
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

/// A user at a prompt, who begins with a request for all that is known of commands.
#[test]
fn a_prompt_of_redis_cli_is_answered() {
    if !have("redis-cli") {
        return;
    }
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let port = server.address.port().to_string();
        let mut prompt = common::parent_command("timeout");
        prompt.args(["30", "redis-cli", "-p", &port]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut prompt = prompt.spawn().unwrap();
        prompt.stdin.take().unwrap().write_all(b"set k 'a b'\nget k\nhello 3\nget none\nquit\n").unwrap();
        let output = prompt.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && told.starts_with("OK\na b\n"), "{told}");
        assert!(told.contains("loadgen-server"), "{told}");
        let info = cli(&server, &["info", "commandstats"]);
        assert!(info.contains("cmdstat_command:calls="), "{info}");
        assert!(info.contains("cmdstat_hello:calls=1") && !info.contains("cmdstat_unknown"), "{info}");
    });
}

/// Pipelined, with values that do not fit one send, and through every variant of io_uring.
#[test]
fn a_burst_of_requests_is_answered_in_order() {
    const ROUNDS: usize = 200;
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let values: Vec<Vec<u8>> = (0..ROUNDS).map(|round| noise(round * 307)).collect();
        let (mut requests, mut expected) = (Vec::new(), Vec::new());
        for value in &values {
            let bulk = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
            requests.extend([b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n", bulk.as_slice(), b"GET k\r\nPING\r\n"].concat());
            expected.extend([b"+OK\r\n", bulk.as_slice(), b"+PONG\r\n"].concat());
        }
        let mut stream = server.connect();
        let mut writer = stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&requests).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut replies = Vec::new();
        stream.read_to_end(&mut replies).unwrap();
        writing.join().unwrap();
        assert!(replies == expected, "{} bytes for {}", replies.len(), expected.len());
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.replies), (3 * ROUNDS as u64, 3 * ROUNDS as u64));
    });
}

/// With a service time, replies leave one by one, through what room there is.
#[test]
fn values_pass_an_injected_service_time() {
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis", "--service-time", "fixed:100us"]);
        let mut stream = server.connect();
        let value = noise(40_000);
        let bulk = [b"$40000\r\n".as_slice(), &value, b"\r\n"].concat();
        let set = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n".as_slice(), &bulk].concat();
        stream.write_all(&[set, b"GET k\r\n".repeat(20)].concat()).unwrap();
        let expected = [b"+OK\r\n".as_slice(), &bulk.repeat(20)].concat();
        let mut replies = vec![0; expected.len()];
        stream.read_exact(&mut replies).unwrap();
        assert!(replies == expected);
        drop(stream);
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.replies), (21, 21));
    });
}

#[test]
fn a_refusal_reaches_a_peer_that_is_still_sending() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let endless = vec![b'x'; 200_000];
        let malformed = [b"*1\r\nfoo\r\n".as_slice(), &endless].concat();
        for (request, said) in [(&endless, "too big inline request"), (&malformed, "expected '$', got 'f'")] {
            let mut stream = server.connect();
            stream.write_all(request).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert_eq!(reply, format!("-ERR Protocol error: {said}\r\n"));
        }
        let stats = server.stop().stats;
        assert_eq!((stats.closes.get("protocol_error"), stats.requests), (Some(&2), 0), "{stats:?}");
    });
}
