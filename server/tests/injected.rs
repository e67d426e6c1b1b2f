//! Injected service times, over every engine: no reply before its time, none lost, and the log says what happened.
//! Bounds from below are exact; from above nothing is asserted but that it ends, since machines may be busy.

mod common;

use common::{Ended, PATIENCE, Server, echo, noise, with_every_engine, with_every_variant};
use loadgen_core::service_time::{Distribution, Draws, Injection, Resource, Stall};
use loadgen_core::sys::socket;
use loadgen_core::time::Instant as Stamp;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

const MS: u64 = 1_000_000;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n";

/// A line of the request log.
#[derive(Clone, Copy, Debug)]
struct Row {
    connection: u64,
    request: u64,
    rx: u64,
    start: u64,
    done: u64,
    tx: Option<u64>,
    service: u64,
    delay: u64,
}

/// A server with a request log, and what it left behind.
fn logged(engine: &str, options: &[&str], act: impl FnOnce(&Server)) -> (Ended, Vec<Row>) {
    let until_stopped = |server: Server| {
        act(&server);
        server.stop()
    };
    logged_until(engine, options, until_stopped)
}

fn logged_until(engine: &str, options: &[&str], act: impl FnOnce(Server) -> Ended) -> (Ended, Vec<Row>) {
    let log = tempfile::NamedTempFile::new().unwrap();
    let path = log.path().to_str().unwrap();
    let server = Server::start(engine, &[options, &["--request-log", path]].concat());
    let ended = act(server);
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("connection,request,rx_ns,start_ns,done_ns,tx_ns,service_ns,delay_ns"));
    let rows: Vec<Row> = lines.map(row).collect();
    check(&ended, &rows);
    (ended, rows)
}

fn row(line: &str) -> Row {
    let fields: Vec<Option<u64>> = line.split(',').map(|field| field.parse().ok()).collect();
    let [Some(connection), Some(request), Some(rx), Some(start), Some(done), tx, Some(service), Some(delay)] =
        fields[..]
    else {
        panic!("{line}")
    };
    Row { connection, request, rx, start, done, tx, service, delay }
}

/// What holds in every log: one resource, first in, first out; nothing leaves before its time; the counters agree.
fn check(ended: &Ended, rows: &[Row]) {
    let mut busy_until = 0;
    for row in rows {
        assert_eq!(row.start, row.rx.max(busy_until), "{row:?}");
        busy_until = row.start + row.service;
        assert!(row.done >= busy_until + row.delay, "{row:?}");
        assert!(row.tx.is_none_or(|tx| tx >= row.done), "{row:?}");
    }
    let stats = &ended.stats;
    let replies = rows.iter().filter(|row| row.tx.is_some()).count() as u64;
    assert_eq!((stats.requests, stats.replies), (rows.len() as u64, replies), "{stats:?}");
    let injected = stats.injected.as_ref().unwrap();
    assert_eq!((injected.logged, injected.log_dropped), (rows.len() as u64, 0));
    assert_eq!(injected.overrun.as_ref().map_or(0, |overrun| overrun.count), replies);
    let connections = rows.iter().map(|row| row.connection).max().unwrap_or(0);
    assert!(connections <= stats.accepts, "{stats:?}");
    for connection in 1..=connections {
        let own: Vec<u64> = rows.iter().filter(|row| row.connection == connection).map(|row| row.request).collect();
        assert!(own.iter().copied().eq(1..=own.len() as u64), "connection {connection}: {own:?}");
    }
}

fn at_least(start: Instant, ms: u64) {
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(ms), "{took:?}, and {ms} ms were injected");
}

#[test]
fn nonsense_is_refused_in_one_line() {
    let run = |arguments: &[&str]| {
        let listen = ["--listen", "127.0.0.1:0"];
        let output =
            common::command(env!("CARGO_BIN_EXE_loadgen-server")).args(listen).args(arguments).output().unwrap();
        assert!(output.stdout.is_empty());
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for (flag, value, word) in [
        ("--service-time", "1ms", "fixed:TIME"),
        ("--service-time", "gauss:1ms", "gauss"),
        ("--delay", "bimodal:2,1ms,2ms", "0 to 1"),
        ("--delay", "trace:/no/such/file", "/no/such/file"),
        ("--stall", "10s/1s", "less than its period"),
        ("--stall", "1s", "1s/10s"),
        ("--seed", "x", "seed"),
    ] {
        let (code, stderr) = run(&[flag, value]);
        assert_eq!(code, 2, "{flag} {value}: {stderr}");
        assert!(stderr.lines().next().unwrap().contains(word), "{flag} {value}: {stderr}");
    }
    for protocol in ["discard", "chargen"] {
        for (flag, value) in [("--service-time", "fixed:1ms"), ("--stall", "1s/2s"), ("--request-log", "never")] {
            let (code, stderr) = run(&["--protocol", protocol, flag, value]);
            assert_eq!((code, stderr.lines().count()), (2, 1), "{stderr}");
            assert!(stderr.contains(protocol) && stderr.contains(flag), "{stderr}");
        }
    }
    let (code, stderr) = run(&["--request-log", "/no/such/folder/log.csv"]);
    assert_eq!((code, stderr.lines().count()), (6, 1), "{stderr}");
}

#[test]
fn no_reply_comes_before_its_time() {
    with_every_variant(|engine| {
        for flag in ["--service-time", "--delay"] {
            let (ended, rows) = logged(engine, &[flag, "fixed:20ms"], |server| {
                let mut stream = server.connect();
                for _ in 0..4 {
                    let start = Instant::now();
                    echo(&mut stream, &[7; 64]);
                    at_least(start, 20);
                }
            });
            assert_eq!((rows.len(), ended.stats.replies), (4, 4));
            assert!(rows.iter().all(|row| row.service + row.delay == 20 * MS && row.done == row.start + 20 * MS));
        }
    });
}

#[test]
fn requests_of_several_connections_queue_for_one_resource() {
    const EACH: u64 = 5;
    with_every_variant(|engine| {
        let (_, rows) = logged(engine, &["--service-time", "fixed:5ms", "--threads", "2"], |server| {
            let mut streams: Vec<_> = (0..10).map(|_| server.connect()).collect();
            let start = Instant::now();
            streams.iter_mut().for_each(|stream| stream.write_all(&[1; 64]).unwrap());
            let readers = streams.into_iter().map(|mut stream| {
                thread::spawn(move || {
                    stream.read_exact(&mut [0; 64]).unwrap();
                    start.elapsed()
                })
            });
            let readers: Vec<_> = readers.collect();
            let mut took: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
            took.sort();
            for (rank, took) in (1..).zip(took) {
                assert!(took >= Duration::from_millis(rank * EACH), "{took:?} for the {rank}th");
            }
        });
        assert_eq!(rows.len(), 10);
        assert!(rows.windows(2).all(|pair| pair[1].done - pair[0].done >= EACH * MS));
    });
}

#[test]
fn delays_do_not_queue() {
    with_every_engine(|engine| {
        let (_, rows) = logged(engine, &["--delay", "fixed:30ms"], |server| {
            let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
            streams.iter_mut().for_each(|stream| stream.write_all(&[1; 64]).unwrap());
            streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 64]).unwrap());
        });
        assert_eq!(rows.len(), 50);
        assert!(rows.iter().all(|row| row.start == row.rx && row.done == row.rx + 30 * MS));
    });
}

/// Each request of a burst has its own release, and replies stay in order.
#[test]
fn pipelined_requests_are_released_one_by_one() {
    with_every_variant(|engine| {
        let (_, rows) = logged(engine, &["--service-time", "fixed:4ms"], |server| {
            let bytes = noise(640);
            let mut stream = server.connect();
            let start = Instant::now();
            stream.write_all(&bytes).unwrap();
            for (number, expected) in (1..).zip(bytes.chunks(64)) {
                let mut reply = [0; 64];
                stream.read_exact(&mut reply).unwrap();
                at_least(start, 4 * number);
                assert!(reply == expected);
            }
        });
        assert_eq!(rows.len(), 10);

        // A short delay behind a long one waits for it.
        let trace = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(trace.path(), "40ms\n1ms\n").unwrap();
        let delay = format!("trace:{}", trace.path().display());
        let (_, rows) = logged(engine, &["--delay", &delay, "--protocol", "http", "--size", "5"], |server| {
            let mut stream = server.connect();
            let start = Instant::now();
            stream.write_all(&REQUEST.repeat(2)).unwrap();
            for _ in 0..2 {
                assert!(http_reply(&mut stream).ends_with("xxxxx"));
                at_least(start, 40);
            }
        });
        assert_eq!(rows.iter().map(|row| row.delay).collect::<Vec<_>>(), [40 * MS, MS]);
        assert!(rows[1].tx >= rows[0].tx);
    });
}

/// Reads one reply with a length.
fn http_reply(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[test]
fn what_is_drawn_can_be_computed_again() {
    with_every_engine(|engine| {
        let options = ["--service-time", "bimodal:0.2,10us,300us", "--delay", "exp:50us", "--seed", "42"];
        let (ended, rows) = logged(engine, &options, |server| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    let mut stream = server.connect();
                    thread::spawn(move || (0..100).for_each(|_| echo(&mut stream, &[3; 64])))
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        assert_eq!(rows.len(), 400);
        let bimodal = Distribution::Bimodal { probability: 0.2, usual_ns: 10_000, rare_ns: 300_000 };
        let mut service = Draws::new(bimodal.clone(), Resource::seeds(42)[0]);
        let long = (0..400).filter(|_| service.next_ns() == 300_000).count();
        assert_eq!(rows.iter().filter(|row| row.service == 300_000).count(), long);
        let delay = Some(Distribution::Exponential(50_000));
        let injection = Injection { service_time: Some(bimodal), delay, stall: None, seed: 42 };
        let mut resource = Resource::new(&injection);
        for row in &rows {
            let passage = resource.admit(Stamp(row.rx));
            let same = (passage.start.0, passage.done.0, passage.service_ns, passage.delay_ns);
            assert_eq!((row.start, row.done, row.service, row.delay), same);
        }
        let injected = ended.stats.injected.unwrap();
        assert_eq!(injected.service_time.as_deref(), Some("bimodal:0.2,10us,300us"));
        assert_eq!((injected.delay.as_deref(), injected.stall, injected.seed), (Some("exp:50us"), None, 42));
    });
}

#[test]
fn a_stall_holds_everything_until_it_ends() {
    with_every_engine(|engine| {
        let (ended, rows) = logged(engine, &["--stall", "60ms/100ms"], |server| {
            let end = Instant::now() + Duration::from_millis(350);
            let clients: Vec<_> = (0..3)
                .map(|_| {
                    let mut stream = server.connect();
                    thread::spawn(move || {
                        while Instant::now() < end {
                            echo(&mut stream, &[3; 64]);
                        }
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
        });
        let stall = Stall::parse("60ms/100ms").unwrap();
        let first = Stamp(rows[0].rx);
        for row in &rows {
            assert_eq!(row.done, stall.release(first, Stamp(row.rx)).0);
            // Not even a late one leaves within.
            assert!((row.done - first.0) % (100 * MS) < 40 * MS, "{row:?}");
        }
        let held = rows.iter().filter(|row| row.done > row.rx).count() as u64;
        assert!(held > 0);
        assert_eq!(ended.stats.injected.unwrap().stalled, held);
    });
}

#[test]
fn held_replies_are_delivered_at_the_end() {
    with_every_variant(|engine| {
        let (ended, _) = logged_until(engine, &["--delay", "fixed:150ms", "--drain", "5s"], |server| {
            let mut streams: Vec<_> = (0..3).map(|_| server.connect()).collect();
            // Whoever has been answered has been accepted.
            streams.iter_mut().for_each(|stream| stream.write_all(&[8; 64]).unwrap());
            streams.iter_mut().for_each(|stream| stream.read_exact(&mut [0; 64]).unwrap());
            let start = Instant::now();
            streams.iter_mut().for_each(|stream| stream.write_all(&[9; 640]).unwrap());
            server.terminate();
            for mut stream in streams {
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).unwrap();
                at_least(start, 150);
                assert_eq!(reply, [9; 640]);
            }
            server.wait()
        });
        assert_eq!((ended.stats.replies, ended.stats.closes.get("drained")), (33, Some(&3)), "{:?}", ended.stats);

        let trace = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(trace.path(), "0s\n1h\n").unwrap();
        let delay = format!("trace:{}", trace.path().display());
        let (ended, _) = logged_until(engine, &["--delay", &delay, "--drain", "100ms"], |server| {
            let mut stream = server.connect();
            echo(&mut stream, &[8; 64]);
            stream.write_all(&[9; 64]).unwrap();
            server.terminate();
            assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0);
            server.wait()
        });
        assert_eq!((ended.stats.requests, ended.stats.replies, ended.stats.closes.get("cut")), (2, 1, Some(&1)));
    });
}

#[test]
fn peers_that_leave_meanwhile_are_noticed() {
    with_every_variant(|engine| {
        let (ended, rows) = logged(engine, &["--delay", "fixed:60ms"], |server| {
            // One has nothing more to say, and waits for the answer.
            let mut half = server.connect();
            let start = Instant::now();
            half.write_all(&[1; 128]).unwrap();
            half.shutdown(Shutdown::Write).unwrap();
            let mut reply = Vec::new();
            half.read_to_end(&mut reply).unwrap();
            at_least(start, 60);
            assert_eq!(reply, [1; 128]);
            // Another is gone for good.
            let mut gone = server.connect();
            gone.write_all(&[2; 64]).unwrap();
            thread::sleep(Duration::from_millis(20));
            socket::reset_on_close(gone.as_fd()).unwrap();
            drop(gone);
            thread::sleep(Duration::from_millis(80));
            echo(&mut server.connect(), &[4; 64]);
        });
        // A reset destroys what a slow server has not received yet.
        assert!((3..=4).contains(&rows.len()) && ended.stats.replies == 3, "{:?}", ended.stats);
        assert_eq!(ended.stats.closes.get("reset"), Some(&1), "{:?}", ended.stats);
    });
}

/// Long bodies, interim replies, bodies cut into pieces, the last reply of a connection.
#[test]
fn every_kind_of_exchange_survives_it() {
    with_every_variant(|engine| {
        let (ended, _) = logged(engine, &["--delay", "fixed:15ms", "--protocol", "http", "--size", "1MiB"], |server| {
            let mut stream = server.connect();
            for path in ["/", "/bytes/65300", "/bytes/0", "/status/404"] {
                let start = Instant::now();
                write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
                http_reply(&mut stream);
                at_least(start, 15);
            }
            let put = b"PUT /bytes/3 HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
            stream.write_all(put).unwrap();
            assert!(http_reply(&mut stream).starts_with("HTTP/1.1 100"));
            let start = Instant::now();
            stream.write_all(b"body").unwrap();
            assert!(http_reply(&mut stream).ends_with("xxx"));
            at_least(start, 15);
            for byte in REQUEST {
                stream.write_all(&[*byte]).unwrap();
            }
            http_reply(&mut stream);
            let start = Instant::now();
            stream.write_all(b"GET /bytes/9 HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
            let mut last = String::new();
            stream.read_to_string(&mut last).unwrap();
            at_least(start, 15);
            assert!(last.ends_with("xxxxxxxxx"));
            drop(stream);
            let mut stream = server.connect();
            stream.write_all(&[REQUEST, b"nonsense\r\n\r\n"].concat()).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        });
        assert_eq!((ended.stats.requests, ended.stats.replies), (8, 8), "{:?}", ended.stats);
    });
}

#[test]
fn long_echoes_wait_with_their_last_bytes() {
    with_every_variant(|engine| {
        for size in [65_536, 200_000] {
            let (_, rows) = logged(engine, &["--delay", "fixed:15ms", "--size", &size.to_string()], |server| {
                let mut stream = server.connect();
                let (mut reader, bytes) = (stream.try_clone().unwrap(), noise(2 * size));
                let start = Instant::now();
                let expected = bytes.clone();
                let reading = thread::spawn(move || {
                    let mut reply = vec![0; expected.len()];
                    reader.read_exact(&mut reply).unwrap();
                    assert!(reply == expected);
                    at_least(start, 15);
                });
                stream.write_all(&bytes).unwrap();
                reading.join().unwrap();
            });
            assert_eq!(rows.len(), 2, "{size}");
        }
    });
}

#[test]
fn what_is_held_is_bounded_and_waits_without_spinning() {
    with_every_engine(|engine| {
        let ended = {
            let server = Server::start(engine, &["--delay", "fixed:900ms"]);
            let mut stream = server.connect();
            stream.set_nonblocking(true).unwrap();
            let before = server.resident_bytes();
            let (bytes, mut sent) = (noise(64 << 10), 0);
            while sent < 64 << 20
                && let Ok(n) = stream.write(&bytes)
            {
                sent += n;
            }
            thread::sleep(Duration::from_millis(100));
            let cpu = server.cpu();
            thread::sleep(Duration::from_millis(400));
            let cpu = server.cpu() - cpu;
            let grown = server.resident_bytes().saturating_sub(before);
            assert!(grown < 3 << 20, "{grown} bytes more");
            assert!(engine.contains("sqpoll") || cpu < Duration::from_millis(200), "{cpu:?} of 400 ms");
            // One whose replies cannot all be held is gone: that is noticed, at the latest when one is sent.
            socket::reset_on_close(stream.as_fd()).unwrap();
            drop(stream);
            thread::sleep(Duration::from_millis(100));
            let cpu = server.cpu();
            thread::sleep(Duration::from_millis(200));
            let cpu = server.cpu() - cpu;
            assert!(engine.contains("sqpoll") || cpu < Duration::from_millis(100), "{cpu:?} of 200 ms");
            thread::sleep(Duration::from_millis(400));
            server.stop()
        };
        let stats = ended.stats;
        assert_eq!((ended.code, stats.closes.get("reset")), (0, Some(&1)), "{stats:?}");
        assert!(stats.requests >= 1000, "{stats:?}");
    });
}

/// More than may be held at once is answered in the end, in order, and counted once.
#[test]
fn a_burst_beyond_the_bounds_is_answered_in_full() {
    with_every_variant(|engine| {
        let (ended, rows) = logged(engine, &["--delay", "fixed:5ms", "--size", "8"], |server| {
            let stream = server.connect();
            let (mut reader, mut writer) = (stream.try_clone().unwrap(), stream);
            let bytes = noise(8 * 5_000);
            let expected = bytes.clone();
            let writing = thread::spawn(move || {
                writer.write_all(&bytes).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut reply = Vec::new();
            reader.read_to_end(&mut reply).unwrap();
            writing.join().unwrap();
            assert!(reply == expected);
        });
        assert_eq!((rows.len(), ended.stats.closes.get("peer")), (5_000, Some(&1)), "{:?}", ended.stats);
        assert!(ended.took < PATIENCE);
    });
}
