//! What a client sees of a healthy server: exact bytes, whatever the cuts and however the stream ends.

mod common;

use common::busy::Watch;
use common::{Server, echo, noise, with_every_engine, with_every_variant};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

#[test]
fn echoes_are_exact_whatever_the_cuts() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--size", "100"]);
        let mut stream = server.connect();
        let bytes = noise(9_700);
        let mut rest = &bytes[..];
        for cut in [1, 99, 100, 101, 1, 1, 197, 4096].into_iter().cycle() {
            let (piece, behind) = rest.split_at(cut.min(rest.len()));
            echo(&mut stream, piece);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        drop(stream);
        thread::sleep(Duration::from_millis(50));
        let ended = server.stop();
        let stats = ended.stats;
        assert_eq!((ended.code, stats.requests, stats.replies), (0, 97, 97), "{}", ended.stderr);
        assert_eq!((stats.received_bytes, stats.sent_bytes), (9_700, 9_700));
        assert_eq!((stats.accepts, stats.closes.get("peer")), (1, Some(&1)));
        let moves = if engine.starts_with("io_uring") { ["io_uring_enter"; 2] } else { ["recv", "send"] };
        assert!(moves.iter().all(|call| stats.syscalls[*call] >= 8) && stats.memory_peak_bytes > 0);
        assert_eq!(stats.events_per_wait.iter().sum::<u64>(), stats.waits);
    });
}

#[test]
fn a_megabyte_comes_back_whole_though_the_client_writes_before_it_reads() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--size", "1MiB", "--threads", "2"]);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = server.connect();
                let bytes = noise(1 << 20);
                thread::spawn(move || {
                    let (mut writer, sent) = (stream.try_clone().unwrap(), bytes.clone());
                    let writing = thread::spawn(move || (0..8).for_each(|_| writer.write_all(&sent).unwrap()));
                    thread::sleep(Duration::from_millis(50));
                    let mut reply = vec![0; 1 << 20];
                    for _ in 0..8 {
                        stream.read_exact(&mut reply).unwrap();
                        assert!(reply == bytes, "the echo differs");
                    }
                    writing.join().unwrap();
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.replies, stats.accepts), (32, 32, 4));
        assert_eq!((stats.received_bytes, stats.sent_bytes), (32 << 20, 32 << 20));
    });
}

#[test]
fn a_half_closed_stream_is_answered_to_its_end() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &[]);
        let bytes = noise(3 << 20);
        let mut stream = server.connect();
        let (mut writer, sent) = (stream.try_clone().unwrap(), bytes.clone());
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert!(reply == bytes, "{} bytes came back", reply.len());
        writing.join().unwrap();

        // The end together with the data, before the server has looked once.
        let mut stream = server.unseen(|| {
            let mut stream = server.connect();
            stream.write_all(&bytes[..1000]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        });
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, &bytes[..1000]);
        let stats = server.stop().stats;
        assert_eq!(stats.closes.get("peer"), Some(&2), "{stats:?}");
    });
}

#[test]
fn an_endless_stream_ends_behind_its_peers_whatever_that_said_before() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &["--protocol", "chargen"]);
        let mut stream = server.connect();
        for _ in 0..4 {
            stream.write_all(&[b'x'; 300]).unwrap();
            stream.read_exact(&mut vec![0; 1 << 20]).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let limit = 64 << 20;
        assert!((&stream).take(limit).read_to_end(&mut rest).unwrap() < limit as usize, "it goes on and on");
        let stats = server.stop().stats;
        assert_eq!((stats.received_bytes, stats.sent_bytes), (1200, (4 << 20) + rest.len() as u64));
        assert_eq!(stats.closes.get("peer"), Some(&1), "{stats:?}");
    });
}

#[test]
fn one_that_streams_without_end_does_not_starve_the_others() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &[]);
        let hog = server.connect();
        let (mut reader, mut writer) = (hog.try_clone().unwrap(), hog.try_clone().unwrap());
        let reading = thread::spawn(move || while reader.read(&mut vec![0; 1 << 20]).is_ok_and(|n| n > 0) {});
        let writing = thread::spawn(move || while writer.write_all(&[0; 1 << 16]).is_ok() {});
        let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
        let start = Watch::start();
        for _ in 0..20 {
            others.iter_mut().for_each(|stream| echo(stream, b"let me have my turn"));
        }
        start.assert_within(Duration::from_secs(5), "400 round trips");
        hog.shutdown(Shutdown::Both).unwrap();
        reading.join().unwrap();
        writing.join().unwrap();
    });
}

#[test]
fn curl_is_content_with_http() {
    if loadgen_core::protocol::by_name("http").is_none() {
        eprintln!("skipped: no protocol http yet");
        return;
    }
    if common::command("curl").arg("--version").output().is_err() {
        assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "curl is not installed");
        eprintln!("skipped: curl is not installed");
        return;
    }
    with_every_engine(|engine| {
        let server = Server::start(engine, &["--protocol", "http", "--size", "100KiB"]);
        let url = format!("http://{}/", server.address);
        let curl = |extra: &[&str]| {
            let output = common::command("curl").args(["-sS", "--max-time", "10"]).args(extra).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        assert_eq!(curl(&[&url]).len(), 100 << 10);
        assert_eq!(curl(&["--http1.0", &url]).len(), 100 << 10);
        assert_eq!(curl(&[&url, &url, &url]).len(), 300 << 10);
        assert_eq!(curl(&["-d", "x=1", &url]).len(), 100 << 10);
        let stats = server.stop().stats;
        assert_eq!((stats.requests, stats.replies), (6, 6));
    });
}
