//! Nobody is waited for for ever: each state of a connection has its deadline, and who is silent makes room for others.

mod common;

use common::{Server, echo, eventually, with_every_engine};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";

/// Whether the server has closed the connection, which has nothing to be read.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read(&mut [0; 1 << 12]);
    stream.set_nonblocking(false).unwrap();
    match read {
        Ok(0) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
        Ok(_) => panic!("it says something"),
    }
}

fn get(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(GET)?;
    let mut reply = [0; 4096];
    let mut read = 0;
    while !reply[..read].ends_with(b"xxxxxxxxxx") {
        match stream.read(&mut reply[read..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => read += n,
        }
    }
    Ok(())
}

/// What one peer does until it is closed, and the cause under which that is counted.
fn goes_with(engine: &str, deadlines: &str, options: &[&str], cause: &str, act: impl Fn(&mut TcpStream)) {
    let all = [&["--protocol", "http", "--size", "10", "--deadlines", deadlines], options].concat();
    let server = Server::start(engine, &all);
    let mut stream = server.connect();
    act(&mut stream);
    let start = Instant::now();
    while !is_closed(&mut stream) {
        assert!(start.elapsed() < common::PATIENCE, "{cause}: never closed");
        thread::sleep(Duration::from_millis(5));
    }
    let stats = server.stop().stats;
    assert_eq!(stats.closes.get(cause), Some(&1), "{cause}: {stats:?}");
}

#[test]
fn each_state_has_a_deadline() {
    with_every_engine(|engine| {
        goes_with(engine, "first=100ms", &[], "deadline_first", |_| {});
        goes_with(engine, "head=100ms", &[], "deadline_head", |stream| stream.write_all(b"GET / HTT").unwrap());
        goes_with(engine, "body=100ms", &[], "deadline_body", |stream| {
            stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
        });
        goes_with(engine, "idle=100ms", &[], "deadline_idle", |stream| get(stream).unwrap());
        let tls = &["--tls"];
        goes_with(engine, "handshake=100ms", tls, "deadline_handshake", |_| {});
        goes_with(engine, "handshake=100ms", tls, "deadline_handshake", |stream| {
            stream.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
        });
    });
}

#[test]
fn what_drips_in_extends_nothing() {
    with_every_engine(|engine| {
        for (deadlines, cause, start) in [
            ("head=300ms", "deadline_head", &b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..]),
            ("body=300ms", "deadline_body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"),
        ] {
            goes_with(engine, deadlines, &[], cause, |stream| {
                stream.write_all(start).unwrap();
                let began = Instant::now();
                while stream.write_all(b"x").is_ok() {
                    assert!(began.elapsed() < common::PATIENCE, "{cause}: never closed");
                    thread::sleep(Duration::from_millis(10));
                }
            });
        }
    });
}

#[test]
fn a_reply_that_nobody_reads_is_not_kept_for_ever() {
    with_every_engine(|engine| {
        for options in [&["--protocol", "http", "--size", "64MiB"][..], &["--protocol", "chargen"]] {
            let server = Server::start(engine, &[options, &["--deadlines", "unread=200ms"]].concat());
            let mut stream = server.connect();
            stream.write_all(GET).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            let base = server.descriptors();
            // io_uring's connections are no descriptors.
            eventually("it is closed", || server.descriptors() < base || engine == "io_uring");
            if engine == "io_uring" {
                thread::sleep(Duration::from_secs(3));
            }
            let stats = server.stop().stats;
            assert_eq!(stats.closes.get("deadline_unread"), Some(&1), "{options:?}: {stats:?}");
        }
    });
}

#[test]
fn who_goes_on_asking_or_reading_or_waits_for_us_stays() {
    let short = "first=400ms,handshake=400ms,head=400ms,body=400ms,unread=400ms,idle=off";
    with_every_engine(|engine| {
        let held = ["--protocol", "http", "--size", "10", "--delay", "fixed:1500ms", "--deadlines", short];
        let server = Server::start(engine, &held);
        get(&mut server.connect()).expect("a reply that is held is no fault of the peer");
        let server = Server::start(engine, &["--protocol", "http", "--size", "10", "--deadlines", short]);
        let mut stream = server.connect();
        for _ in 0..3 {
            get(&mut stream).unwrap();
            thread::sleep(Duration::from_millis(500));
        }
        assert!(!is_closed(&mut stream), "idle=off");
        let server = Server::start(engine, &["--protocol", "discard", "--deadlines", short]);
        let mut stream = server.connect();
        thread::sleep(Duration::from_millis(1000));
        assert!(!is_closed(&mut stream), "a sender that says nothing is idle");
    });
}

#[test]
fn silent_peers_make_room_when_no_descriptor_is_left() {
    let test = |engine: &str| {
        let starts: [&[u8]; 4] = [b"", b"GET / HTT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab", GET];
        for start in starts {
            let server = Server::start_with_descriptors(64, engine, &["--protocol", "http", "--size", "10"]);
            let crowd: Vec<TcpStream> = (0..60)
                .map(|_| {
                    let mut stream = server.connect();
                    // It may have been turned away by then.
                    if stream.write_all(start).is_err() {
                        eprintln!("turned away");
                    }
                    stream
                })
                .collect();
            let polite = || {
                let mut stream = server.connect();
                get(&mut stream).is_ok()
            };
            // Until the crowd has been silent for as long as it may.
            eventually("somebody is served", polite);
            assert!((0..5).all(|_| polite()), "{engine}: {start:?}");
            drop(crowd);
            let stats = server.stop().stats;
            assert!(engine == "io_uring" || stats.closes["made_room"] > 0, "{stats:?}");
        }
    };
    with_every_engine(test);
    test("io_uring --ring inline-send");
}

#[test]
fn who_is_being_served_does_not_make_room() {
    with_every_engine(|engine| {
        let server = Server::start_with_descriptors(64, engine, &["--size", "5"]);
        let mut faithful = server.connect();
        echo(&mut faithful, b"hello");
        let crowds = (0..20).map(|_| {
            let crowd: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
            thread::sleep(Duration::from_millis(100));
            echo(&mut faithful, b"still");
            crowd
        });
        let crowds: Vec<_> = crowds.collect();
        echo(&mut faithful, b"there");
        drop(crowds);
    });
}
