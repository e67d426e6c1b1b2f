//! Real clients of Redis: redis-cli and redis-benchmark against every engine, and the server's own counters.

mod common;

use common::{Server, noise, with_every_engine, with_every_variant};
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::thread;

fn tool(name: &str, server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", name, "-h", "127.0.0.1", "-p", &server.address.port().to_string()]).args(arguments);
    command
}

fn run(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {status}; {stdout}{}", String::from_utf8_lossy(&stderr));
    stdout
}

fn cli(server: &Server, arguments: &[&str]) -> String {
    run(tool("redis-cli", server, arguments))
}

#[test]
fn redis_cli_is_answered() {
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis", "--threads", "2"]);
        for (arguments, expected) in [
            (&["ping"][..], "PONG\n"),
            (&["get", "nothing"], "\n"),
            (&["set", "a", "some value"], "OK\n"),
            (&["get", "a"], "some value\n"),
            (&["mset", "b", "1", "c", "2"], "OK\n"),
            (&["incr", "c"], "3\n"),
            (&["exists", "a", "b", "d"], "2\n"),
            (&["del", "a", "d"], "1\n"),
            (&["dbsize"], "2\n"),
            (&["-n", "3", "echo", "here"], "here\n"),
            (&["-a", "secret", "--no-auth-warning", "echo", "there"], "there\n"),
            (&["-3", "get", "nothing"], "\n"),
            (&["-3", "get", "b"], "1\n"),
            (&["flushall"], "OK\n"),
            (&["dbsize"], "0\n"),
        ] {
            assert_eq!(cli(&server, arguments), expected, "{arguments:?}");
        }
        assert!(cli(&server, &["lpush", "a", "b"]).contains("ERR unknown command 'lpush'"));
        assert!(cli(&server, &["get"]).contains("wrong number of arguments"));
        let info = cli(&server, &["info", "commandstats"]);
        for line in ["cmdstat_get:calls=5", "cmdstat_set:calls=1", "cmdstat_hello:calls=2", "cmdstat_unknown:calls=1"] {
            assert!(info.contains(line), "{line}: {info}");
        }
        let ended = server.stop();
        assert_eq!((ended.code, ended.stats.requests), (0, ended.stats.replies), "{:?}", ended.stats);
        // Each of the 18 calls, besides SELECT, AUTH, and HELLO twice.
        assert_eq!(ended.stats.requests, 18 + 4, "{:?}", ended.stats);
    });
}

/// What is typed at a prompt; begins with COMMAND DOCS.
#[test]
fn a_session_of_redis_cli_is_answered() {
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let mut child = tool("redis-cli", &server, &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"set k 'a b'\nget k\nhello 3\nget nothing\nquit\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.starts_with("OK\na b\n"), "{said}");
        assert!(said.contains("loadgen-server"), "{said}");
    });
}

#[test]
fn redis_benchmark_is_served() {
    const REQUESTS: u64 = 2000;
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "redis"]);
        let tests = "ping_inline,ping_mbulk,set,get,incr,mset";
        for pipeline in ["1", "16"] {
            let arguments = [
                "-t",
                tests,
                "-n",
                &REQUESTS.to_string(),
                "-c",
                "20",
                "-P",
                pipeline,
                "-r",
                "1000",
                "-d",
                "100",
                "--csv",
            ];
            let said = run(tool("redis-benchmark", &server, &arguments));
            assert_eq!(said.lines().count(), 1 + 6, "{said}");
            assert!(!said.contains("rror"), "{said}");
        }
        let info = cli(&server, &["info", "commandstats"]);
        for (command, tests) in [("ping", 2), ("set", 1), ("get", 1), ("incr", 1), ("mset", 1)] {
            // It may send up to a pipeline of each connection more than it was asked for, and counts replies.
            let calls = calls(&info, command);
            let least = 2 * tests * REQUESTS;
            assert!((least..=least + 2 * tests * 20 * 17).contains(&calls), "{command}: {calls} for {least}");
        }
        let stats = server.stop().stats;
        assert_eq!(stats.closes.get("protocol_error"), None, "{stats:?}");
    });
}

fn calls(info: &str, command: &str) -> u64 {
    let start = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("no {command} in {info}")).trim().parse().unwrap()
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
