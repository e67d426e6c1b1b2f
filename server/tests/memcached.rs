//! memcached over sockets, as a real client library has it, and as many threads at once do.

mod common;

use common::{Server, with_every_engine, with_every_variant};
use std::io::{BufRead, BufReader, Read, Write};

/// What pymemcache asks, and what it is to understand.
const DIALOGUE: &str = r#"
import sys
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheClientError, MemcacheServerError
c = Client(("127.0.0.1", int(sys.argv[1])), timeout=10, connect_timeout=10)
assert c.version() == b"1.6.0-loadgen", c.version()
assert c.get("a") is None
assert c.set("a", b"1", noreply=False) is True
assert c.get("a") == b"1"
value = bytes(range(256)) * 200
assert c.set("big", value, noreply=False, flags=7) is True
assert c.get("big") == value
assert c.get_many(["a", "none", "big"]) == {"a": b"1", "big": value}
assert c.set_many({"x%d" % i: b"%d" % i for i in range(100)}, noreply=False) == []
assert c.get_many(["x%d" % i for i in range(100)]) == {"x%d" % i: b"%d" % i for i in range(100)}
assert c.add("a", b"2", noreply=False) is False and c.add("n", b"5", noreply=False) is True
assert c.replace("none", b"2", noreply=False) is False and c.replace("a", b"2", noreply=False) is True
assert c.append("a", b"3", noreply=False) and c.prepend("a", b"1", noreply=False) and c.get("a") == b"123"
got, unique = c.gets("a")
assert got == b"123" and c.cas("a", b"cas", unique, noreply=False) is True
assert c.cas("a", b"late", unique, noreply=False) is False and c.cas("none", b"x", b"1", noreply=False) is None
assert c.incr("n", 10, noreply=False) == 15 and c.decr("n", 20, noreply=False) == 0
assert c.incr("none", 1, noreply=False) is None
assert c.touch("a", 100, noreply=False) is True and c.touch("none", noreply=False) is False
assert c.delete("a", noreply=False) is True and c.delete("a", noreply=False) is False
for wrong, error in ((lambda: c.incr("big", 1, noreply=False), MemcacheClientError),
                     (lambda: c.set("big", b"x" * 100000, noreply=False), MemcacheServerError)):
    try:
        wrong()
        sys.exit("no error")
    except error:
        pass
assert c.set("quiet", b"1", noreply=True) is True and c.get("quiet") == b"1"
stats = c.stats()
for name, number in (("cmd_get", 109), ("get_hits", 107), ("get_misses", 2), ("cmd_set", 112), ("curr_items", 103)):
    assert stats[name.encode()] == number, (name, stats)
assert c.flush_all(noreply=False) is True and c.get("n") is None
c.quit()
"#;
/// Requests of the dialogue; one of them wants no reply, and `quit` is none.
const REQUESTS: u64 = 133;

/// A Python that has pymemcache; that of the system may be another than the first in the path.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let output = common::command(python).args(["-c", "import pymemcache"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    ["python3", "/usr/bin/python3"].into_iter().find(has)
}

#[test]
fn pymemcache_is_content() {
    let Some(python) = python() else {
        assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "pymemcache is not installed");
        eprintln!("skipped: pymemcache is not installed");
        return;
    };
    for injected in [&[][..], &["--service-time", "fixed:20us"]] {
        with_every_engine(|engine| {
            let options = [&["--protocol", "memcached", "--threads", "2"][..], injected].concat();
            let server = Server::start(engine, &options);
            let port = server.address.port().to_string();
            let output =
                common::parent_command("timeout").args(["60", python, "-c", DIALOGUE, &port]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let stats = server.stop().stats;
            assert_eq!((stats.requests, stats.replies), (REQUESTS, REQUESTS - 1), "{stats:?}");
            // It opens another connection behind each error.
            assert_eq!((stats.accepts, stats.closes.values().sum::<u64>()), (3, 3), "{stats:?}");
        });
    }
}

/// Large replies through sockets that are full, injected service times, and a store that all threads share.
#[test]
fn what_one_connection_stores_all_others_find() {
    let value = "x".repeat(60_000);
    for injected in [&[][..], &["--service-time", "fixed:100us"]] {
        with_every_variant(|engine| {
            let options = [&["--protocol", "memcached", "--threads", "2"][..], injected].concat();
            let server = Server::start(engine, &options);
            let mut writer = server.connect();
            writer.write_all(format!("set a 0 0 60000\r\n{value}\r\n").as_bytes()).unwrap();
            let mut line = String::new();
            BufReader::new(writer.try_clone().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "STORED\r\n");
            let expected = format!("VALUE a 0 60000\r\n{value}\r\n");
            let readers: Vec<_> = (0..4).map(|_| server.connect()).collect();
            // All ask before any reads, so that replies wait for room.
            for mut reader in &readers {
                reader.write_all(&b"get a none a\r\nmg a v\r\n".repeat(20)).unwrap();
            }
            for mut reader in &readers {
                for _ in 0..20 {
                    let one = format!("{expected}{expected}END\r\nVA 60000\r\n{value}\r\n");
                    let mut got = vec![0; one.len()];
                    reader.read_exact(&mut got).unwrap();
                    assert!(got == one.as_bytes(), "a reply differs");
                }
            }
            let mut asking = server.connect();
            asking.write_all(b"stats\r\nquit\r\n").unwrap();
            let mut told = String::new();
            asking.read_to_string(&mut told).unwrap();
            for line in ["cmd_get 320", "get_hits 240", "get_misses 80", "cmd_set 1", "curr_items 1"] {
                assert!(told.contains(&format!("STAT {line}\r\n")), "no {line} in {told}");
            }
            drop((writer, readers, asking));
            let stats = server.stop().stats;
            assert_eq!((stats.requests, stats.replies, stats.accepts), (162, 162, 6), "{stats:?}");
        });
    }
}

#[test]
fn the_binary_protocol_is_refused_by_the_end_of_the_connection() {
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "memcached"]);
        let mut stream = server.connect();
        stream.write_all(&[0x80, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        assert!(said.is_empty(), "{said:?}");
        drop(stream);
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.closes.get("protocol_error")), (0, Some(&1)), "{stats:?}");
    });
}
