//! The end: what had arrived is answered, the counters are exact, and nothing waits for ever.

mod common;

use common::{Server, echo, eventually, noise, with_every_engine, with_every_variant};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

#[test]
fn sigterm_under_load_drains_and_counts_exactly() {
    const CLIENTS: u64 = 8;
    const SIZE: u64 = 64;
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--threads", "2"]);
        let all_answered = Arc::new(AtomicU64::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut stream = server.connect();
                let all_answered = Arc::clone(&all_answered);
                thread::spawn(move || {
                    let (mut sent, mut answered) = (0u64, 0u64);
                    let mut reply = [0; SIZE as usize];
                    loop {
                        stream.write_all(&[5; SIZE as usize]).unwrap();
                        sent += 1;
                        if stream.read_exact(&mut reply).is_err() {
                            return (sent, answered);
                        }
                        answered += 1;
                        all_answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(300));
        // On a busy machine that takes longer.
        eventually("there is a load", || all_answered.load(Ordering::Relaxed) > 100);
        server.terminate();
        let totals = clients.into_iter().map(|c| c.join().unwrap());
        let (sent, answered) = totals.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let ended = server.wait();
        let stats = ended.stats;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        assert_eq!((stats.accepts, stats.closes.get("drained")), (CLIENTS, Some(&CLIENTS)), "{stats:?}");
        assert_eq!((stats.requests, stats.replies), (answered, answered));
        assert_eq!((stats.received_bytes, stats.sent_bytes), (sent * SIZE, answered * SIZE));
        assert!(answered > 100);
    });
}

#[test]
fn what_had_arrived_is_answered_before_the_end() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--drain", "5s"]);
        let bytes = noise(2 << 20);
        let mut stream = server.connect();
        echo(&mut stream, &bytes[..10]);
        let mut idle = server.connect();
        echo(&mut idle, b"idle from here on");
        // More than the server can send before this is read, so that output is pending at the signal.
        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(n) = stream.write(&bytes[sent..]) {
            sent += n;
            if sent == bytes.len() {
                break;
            }
        }
        stream.set_nonblocking(false).unwrap();
        thread::sleep(Duration::from_millis(50));
        server.terminate();
        thread::sleep(Duration::from_millis(150));
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0, "an idle connection ends at once");
        assert!(reply.len() <= sent && reply[..] == bytes[..reply.len()]);
        assert!(reply.len() > 1 << 19, "{} of {sent} bytes were answered", reply.len());
        drop((stream, idle));
        let ended = server.wait();
        assert_eq!((ended.code, ended.stats.closes.get("drained")), (0, Some(&2)), "{:?}", ended.stats);
        assert_eq!(ended.stats.sent_bytes, reply.len() as u64 + 27);
    });
}

#[test]
fn a_peer_that_does_not_end_is_cut() {
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--drain", "200ms"]);
        let mut stream = server.connect();
        echo(&mut stream, b"and then I stay");
        let ended = server.stop();
        assert_eq!((ended.code, ended.stats.closes.get("cut")), (0, Some(&1)));
        assert!(ended.stderr.contains("drain timeout: 1 connections cut"), "{}", ended.stderr);
        ended.assert_within(Duration::from_millis(1500));

        let server = Server::start(engine, &["--drain", "1m"]);
        let mut stream = server.connect();
        echo(&mut stream, b"and then I stay");
        server.terminate();
        thread::sleep(Duration::from_millis(200));
        let ended = server.stop();
        ended.assert_within(Duration::from_millis(1500)); // a second signal waits for nobody
    });
}

#[test]
fn what_a_peer_that_is_cut_has_got_is_counted() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "http", "--size", "16MiB", "--drain", "200ms"]);
        let mut peers: Vec<_> = (0..8).map(|_| server.connect()).collect();
        for peer in &mut peers {
            peer.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
            peer.read_exact(&mut [0; 1000]).unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        let ended = server.stop();
        let received = peers.iter_mut().map(|peer| 1000 + drain(peer)).sum::<u64>();
        let stats = ended.stats;
        assert_eq!((ended.code, stats.closes.get("cut")), (0, Some(&8)), "{stats:?}");
        assert_eq!((stats.requests, stats.replies, stats.sent_bytes), (8, 0, received), "{stats:?}");
    });
}

/// Reads to the end, however it comes, and says how much there was.
fn drain(stream: &mut TcpStream) -> u64 {
    let (mut buffer, mut total) = (vec![0; 1 << 16], 0);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        total += n as u64;
    }
    total
}

#[test]
fn one_that_never_stops_sending_cannot_put_off_the_end() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--drain", "500ms"]);
        let stream = server.connect();
        let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
        let reading = thread::spawn(move || while reader.read(&mut vec![0; 1 << 16]).is_ok_and(|n| n > 0) {});
        let writing = thread::spawn(move || while writer.write_all(&[0; 1 << 16]).is_ok() {});
        thread::sleep(Duration::from_millis(100));
        let ended = server.stop();
        reading.join().unwrap();
        writing.join().unwrap();
        assert_eq!((ended.code, ended.stats.closes.get("cut")), (0, Some(&1)), "{:?}", ended.stats);
        ended.assert_within(Duration::from_millis(1500));
    });
}

#[test]
fn an_endless_stream_ends_with_the_server() {
    if loadgen_core::protocol::by_name("chargen").is_none() {
        eprintln!("skipped: no protocol chargen");
        return;
    }
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "chargen", "--drain", "5s"]);
        let mut stream = server.connect();
        let reading = thread::spawn(move || {
            let (mut buffer, mut total) = (vec![0; 1 << 16], 0u64);
            while let Ok(n) = stream.read(&mut buffer) {
                total += n as u64;
                if n == 0 {
                    break;
                }
            }
            total
        });
        thread::sleep(Duration::from_millis(200));
        let ended = server.stop();
        assert_eq!(ended.stats.sent_bytes, reading.join().unwrap());
        assert!(ended.stats.sent_bytes > 1 << 20 || !ended.is_conclusive(), "{:?}", ended.stats);
        assert_eq!(ended.stats.closes.get("drained"), Some(&1), "{:?}", ended.stats);
        ended.assert_within(Duration::from_secs(2));
    });
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let server = Server::start("epoll", &[]);
    let address = server.address.to_string();
    let run = |arguments: &[&str]| {
        let output = common::command(env!("CARGO_BIN_EXE_loadgen-server")).args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for threads in ["1", "2"] {
        let (code, stderr) = run(&["--listen", &address, "--threads", threads]);
        assert_eq!((code, stderr.lines().count()), (2, 1), "{stderr}");
        assert!(stderr.contains(&format!("cannot listen on {address}: address in use; ")), "{stderr}");
    }
    assert_eq!(run(&["--engine", "kqueue"]).0, 2);
    assert_eq!(run(&["--size", "0"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
}

#[test]
fn a_connection_without_a_request_under_way_does_not_cost_the_drain() {
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";
    // Long enough that no busy machine comes near.
    let drain = ["--drain", "60s", "--size", "10", "--protocol"];
    with_every_engine(|engine| {
        for tls in [&[][..], &["--tls"]] {
            // One that never said anything, and does not notice that the server ends.
            let server = Server::start(engine, &[&drain[..], &["http"], tls].concat());
            let mut silent = server.connect();
            thread::sleep(Duration::from_millis(100));
            let ended = server.stop();
            assert_eq!((ended.code, ended.stats.closes.get("drained")), (0, Some(&1)), "{:?}", ended.stats);
            assert_eq!(silent.read(&mut [0; 100]).unwrap(), 0);
        }
        for (protocol, request, reply) in [
            ("http", GET, "xxxxxxxxxx"),
            ("redis", b"PING\r\n", "+PONG\r\n"),
            ("memcached", b"mn\r\n", "MN\r\n"),
            ("echo", b"0123456789", "0123456789"),
        ] {
            let server = Server::start(engine, &[&drain, &[protocol][..]].concat());
            let mut idle = server.connect();
            let ask = |stream: &mut TcpStream| {
                let mut got = String::new();
                while !got.ends_with(reply) {
                    let mut piece = [0; 512];
                    let n = stream.read(&mut piece).unwrap();
                    assert!(n > 0, "{protocol}: {got}");
                    got.push_str(std::str::from_utf8(&piece[..n]).unwrap());
                }
            };
            idle.write_all(request).unwrap();
            ask(&mut idle);
            let mut asking = server.connect();
            asking.write_all(request).unwrap();
            ask(&mut asking);
            // What has arrived by then is answered.
            server.unseen(|| {
                asking.write_all(request).unwrap();
                server.terminate();
            });
            ask(&mut asking);
            drop(asking);
            let ended = server.wait();
            assert_eq!((ended.code, ended.stats.replies), (0, 3), "{protocol}: {:?}", ended.stats);
            // The other one may have ended before the server saw the signal.
            assert!(ended.stats.closes["drained"] >= 1, "{protocol}: {:?}", ended.stats);
        }
    });
}
