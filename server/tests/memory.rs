//! The store: what counts is what it costs, and beyond its limit it refuses in the protocol's own words.

mod common;

use common::Server;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// Sends requests in batches until one is answered by `refusal`, and says how many were not.
fn fill(stream: &mut BufReader<TcpStream>, refusal: &str, request: impl Fn(usize) -> String) -> usize {
    let mut line = String::new();
    for first in (0..).step_by(500) {
        let batch: String = (first..first + 500).map(&request).collect();
        stream.get_mut().write_all(batch.as_bytes()).unwrap();
        let mut refused = 0;
        for _ in 0..500 {
            line.clear();
            stream.read_line(&mut line).unwrap();
            refused += usize::from(line.trim_end() == refusal);
            assert!(refused == 0 || line.trim_end() == refusal, "{line}");
        }
        if refused > 0 {
            return first + 500 - refused;
        }
    }
    unreachable!("the store has no limit");
}

fn ask(stream: &mut BufReader<TcpStream>, request: &str) -> String {
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn memory_is_what_is_counted_and_memcached_says_so() {
    for value in ["", &"v".repeat(100)] {
        let server = Server::start("epoll", &["--protocol", "memcached", "--memory", "24MiB"]);
        let mut stream = BufReader::new(server.connect());
        let store = |n: usize| format!("set k{n:07} 0 0 {}\r\n{value}\r\n", value.len());
        ask(&mut stream, &store(0));
        let before = server.resident_bytes();
        let stored = fill(&mut stream, "SERVER_ERROR out of memory storing object", store);
        let grown = server.resident_bytes() - before;
        stream.get_mut().write_all(b"stats\r\n").unwrap();
        let mut stats = std::iter::repeat_with(|| {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            line
        });
        let bytes = stats.find_map(|line| line.strip_prefix("STAT bytes ")?.trim().parse::<usize>().ok()).unwrap();
        assert_eq!(stats.find(|line| line.starts_with("END")).as_deref(), Some("END\r\n"));
        assert!(grown.abs_diff(bytes) <= bytes / 4, "{bytes} bytes counted, {grown} taken, {stored} keys");
        assert!((8 << 20..=24 << 20).contains(&bytes), "{bytes}");
        // What is there is there, and what goes makes room.
        assert_eq!(ask(&mut stream, "delete k0000001\r\n"), "DELETED");
        assert_eq!(ask(&mut stream, &store(1)), "STORED");
        assert_eq!(ask(&mut stream, &store(2)), "STORED", "in place");
        assert_eq!(ask(&mut stream, "ms new 3\r\nabc\r\n"), "SERVER_ERROR out of memory storing object");
    }
}

#[test]
fn redis_refuses_as_redis_does() {
    const NO_ROOM: &str = "-OOM command not allowed when used memory > 'maxmemory'.";
    let server = Server::start("epoll", &["--protocol", "redis", "--memory", "1MiB"]);
    let mut stream = BufReader::new(server.connect());
    let stored = fill(&mut stream, NO_ROOM, |n| format!("SET key:{n} some-value\r\n"));
    assert!(stored > 1000, "{stored}");
    for refused in ["SET new 1\r\n", "MSET key:1 a new 1\r\n", "INCR number\r\n"] {
        assert_eq!(ask(&mut stream, refused), NO_ROOM, "{refused}");
    }
    assert_eq!(ask(&mut stream, "STRLEN key:1\r\n"), ":10", "what is refused changes nothing");
    assert_eq!(ask(&mut stream, "DEL key:1 key:2\r\n"), ":2");
    assert_eq!(ask(&mut stream, "SET new 1\r\n"), "+OK");
    assert_eq!(ask(&mut stream, "FLUSHALL\r\n"), "+OK");
    assert_eq!(ask(&mut stream, "MSET a 1 b 2\r\n"), "+OK");
}
