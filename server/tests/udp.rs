//! Datagrams: each is answered once, with its own bytes, to whoever sent it; and what is not is counted.

mod common;

use common::{Ended, Server, noise, with_every_engine};
use loadgen_core::protocol::udp::LARGEST;
use loadgen_core::result::DatagramStats;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

/// The options of io_uring that are not about streams.
const VARIANTS: &[&str] =
    &["io_uring --ring cq=16,buffers=8x64", "io_uring --ring min-wait=50us", "io_uring --ring sqpoll=20ms"];

fn with_every_variant(test: impl Fn(&str)) {
    with_every_engine(&test);
    for variant in VARIANTS {
        eprintln!("engine {variant}");
        test(variant);
    }
}

fn start(engine: &str, options: &[&str]) -> Server {
    Server::start(engine, &[&["--protocol", "udp"], options].concat())
}

/// A socket that hears of that server only.
fn peer(server: &Server) -> UdpSocket {
    let any = if server.address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(server.address).unwrap();
    socket.set_read_timeout(Some(common::PATIENCE)).unwrap();
    socket
}

fn echo(socket: &UdpSocket, bytes: &[u8]) {
    let mut reply = vec![1; 1 << 16];
    socket.send(bytes).unwrap();
    let len = socket.recv(&mut reply).unwrap();
    assert!(reply[..len] == *bytes, "{len} bytes came back for {}", bytes.len());
}

/// Takes what comes until nothing has come for a while.
fn drain(socket: &UdpSocket) -> u64 {
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 1 << 16];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count() as u64
}

fn datagrams(ended: &Ended) -> &DatagramStats {
    let stats = ended.stats.datagrams.as_ref().expect("it counts datagrams");
    let dropped: u64 = stats.dropped.values().sum();
    assert_eq!(ended.stats.requests, ended.stats.replies + dropped, "{:?}", ended.stats);
    stats
}

fn clean(ended: &Ended) {
    let stats = datagrams(ended);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    assert!(stats.dropped.is_empty() && stats.kernel_dropped == 0, "{stats:?}");
}

#[test]
fn datagrams_of_every_size_come_back_whole() {
    with_every_variant(|engine| {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let server = start(engine, &["--listen", listen]);
            let socket = peer(&server);
            let sizes = [1, 0, 2, 23, 24, 64, 0, 1471, 1472, 1473, 4096, 16_000, 65_506, LARGEST];
            sizes.iter().for_each(|size| echo(&socket, &noise(*size)));
            let ended = server.stop();
            clean(&ended);
            let bytes = sizes.iter().sum::<usize>() as u64;
            let stats = &ended.stats;
            assert_eq!((stats.requests, stats.replies), (sizes.len() as u64, sizes.len() as u64));
            assert_eq!((stats.received_bytes, stats.sent_bytes, stats.accepts), (bytes, bytes, 0));
            let moves = if engine.starts_with("io_uring") { ["io_uring_enter"; 2] } else { ["recvmmsg", "sendmmsg"] };
            assert!(moves.iter().all(|call| stats.syscalls[*call] >= 14), "{:?}", stats.syscalls);
            assert!(datagrams(&ended).receive_buffer_bytes > 100_000);
        }
    });
}

#[test]
fn each_of_many_peers_gets_its_own() {
    with_every_variant(|engine| {
        let server = start(engine, &["--threads", "2"]);
        let peers: Vec<_> = (0..100).map(|_| peer(&server)).collect();
        for round in 0..5_usize {
            for (index, socket) in peers.iter().enumerate() {
                socket.send(&noise(300 * round + index)).unwrap();
            }
            for (index, socket) in peers.iter().enumerate() {
                let mut reply = [0; 4096];
                let len = socket.recv(&mut reply).unwrap();
                assert!(reply[..len] == noise(300 * round + index), "peer {index} in round {round}");
            }
        }
        let ended = server.stop();
        clean(&ended);
        assert_eq!((ended.stats.requests, ended.stats.replies), (500, 500));
    });
}

#[test]
fn of_a_flood_every_datagram_is_accounted_for() {
    with_every_variant(|engine| {
        for threads in ["1", "2"] {
            let server = start(engine, &["--threads", threads]);
            let each = 20_000;
            let flooding: Vec<_> = (0..3)
                .map(|_| {
                    let socket = peer(&server);
                    thread::spawn(move || {
                        let sent = (0..each).filter(|n| socket.send(&[*n as u8; 100]).is_ok()).count() as u64;
                        (sent, socket)
                    })
                })
                .collect();
            let sockets: Vec<_> = flooding.into_iter().map(|flood| flood.join().unwrap()).collect();
            // Loopback is synchronous: what was sent has arrived, or been thrown away.
            let ended = server.stop();
            let sent: u64 = sockets.iter().map(|(sent, _)| sent).sum();
            assert_eq!(sent, 3 * each as u64, "the peers sent all");
            let stats = datagrams(&ended);
            // Where it had not the time to answer all within its drain, it says how many.
            let cut = stats.dropped.get("cut").copied().unwrap_or(0);
            let told = ended.stats.requests + stats.kernel_dropped + stats.unread;
            assert_eq!(told, sent, "{stats:?} {}", ended.stderr);
            assert_eq!(stats.unread > 0, ended.stderr.contains("unread"), "{}", ended.stderr);
            assert!(stats.dropped.len() == usize::from(cut > 0) && ended.code == 0, "{stats:?} {}", ended.stderr);
            assert_eq!(cut > 0, ended.stderr.contains("cut"), "{}", ended.stderr);
            assert!(cut == 0 || !ended.is_conclusive(), "{}", ended.stderr);
            let back: u64 = sockets.iter().map(|(_, socket)| drain(socket)).sum();
            assert!(back > 0 && back <= ended.stats.replies, "{back} of {}", ended.stats.replies);
        }
    });
}

#[test]
fn what_had_arrived_before_the_signal_is_answered_and_nothing_later() {
    with_every_variant(|engine| {
        let server = start(engine, &[]);
        let socket = peer(&server);
        echo(&socket, b"it runs");
        server.unseen(|| {
            (0..200_u8).for_each(|n| _ = socket.send(&[n; 50]).unwrap());
            server.terminate();
        });
        let ended = server.wait();
        clean(&ended);
        assert_eq!((ended.stats.requests, ended.stats.replies), (201, 201));
        assert_eq!(drain(&socket), 200);
        ended.assert_within(Duration::from_secs(2));
    });
}

#[test]
fn a_flood_does_not_keep_it_from_ending() {
    with_every_variant(|engine| {
        let server = start(engine, &[]);
        let socket = peer(&server);
        let stop = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = socket.send(&[7; 64]);
                }
            });
            thread::sleep(Duration::from_millis(100));
            let ended = server.stop();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            datagrams(&ended);
            assert!(ended.code == 0 && ended.stats.requests > 0, "{}", ended.stderr);
            assert!(!ended.stderr.contains("cut") || !ended.is_conclusive(), "{}", ended.stderr);
        });
    });
}

#[test]
fn peers_that_are_gone_do_no_harm() {
    with_every_variant(|engine| {
        let server = start(engine, &[]);
        let alive = peer(&server);
        for round in 0..20 {
            // Their replies come to ports that nobody has any more, and the kernel says so to the server's socket.
            server.unseen(|| (0..5).for_each(|_| _ = peer(&server).send(b"and gone").unwrap()));
            echo(&alive, format!("still there {round}").as_bytes());
        }
        let ended = server.stop();
        assert_eq!((ended.stats.requests, ended.code), (120, 0), "{}", ended.stderr);
        datagrams(&ended);
    });
}

#[test]
fn a_sleeping_server_costs_nothing() {
    with_every_variant(|engine| {
        let server = start(engine, &["--threads", "2"]);
        echo(&peer(&server), b"hello");
        thread::sleep(Duration::from_millis(100));
        let before = server.cpu();
        thread::sleep(Duration::from_millis(500));
        let used = server.cpu() - before;
        assert!(used < Duration::from_millis(100), "{used:?} of CPU in half a second of silence");
    });
}

#[test]
fn memory_does_not_grow_with_datagrams() {
    with_every_engine(|engine| {
        let server = start(engine, &[]);
        let socket = peer(&server);
        let burst = |count: usize| {
            for _ in 0..count {
                (0..20).for_each(|_| _ = socket.send(&[9; 1000]).unwrap());
                let mut buffer = [0; 1000];
                (0..20).for_each(|_| _ = socket.recv(&mut buffer).unwrap());
            }
        };
        burst(200);
        let before = server.resident_bytes();
        burst(1000);
        let grown = server.resident_bytes().saturating_sub(before);
        assert!(grown < 1 << 20, "{grown} bytes more after 20,000 datagrams");
        clean(&server.stop());
    });
}

#[test]
fn delays_are_injected_and_a_shorter_one_overtakes() {
    with_every_variant(|engine| {
        let server = start(engine, &["--delay", "bimodal:0.5,1ms,80ms", "--seed", "5"]);
        let socket = peer(&server);
        (0..40_u8).for_each(|n| _ = socket.send(&[n; 30]).unwrap());
        let mut order = Vec::new();
        for _ in 0..40 {
            let mut reply = [0; 100];
            assert_eq!(socket.recv(&mut reply).unwrap(), 30);
            order.push(reply[0]);
        }
        assert!(!order.is_sorted(), "all came in order");
        order.sort_unstable();
        assert_eq!(order, (0..40).collect::<Vec<_>>());
        let ended = server.stop();
        clean(&ended);
        let injected = ended.stats.injected.as_ref().unwrap();
        assert_eq!((ended.stats.replies, injected.overrun.as_ref().unwrap().count), (40, 40));
    });
}

#[test]
fn replies_that_are_held_leave_within_the_drain_or_are_cut() {
    with_every_variant(|engine| {
        for (drain_time, delay, replies) in [("2s", "fixed:300ms", 10), ("100ms", "fixed:20s", 0)] {
            let server = start(engine, &["--delay", delay, "--drain", drain_time]);
            let socket = peer(&server);
            server.unseen(|| (0..10).for_each(|_| _ = socket.send(b"wait").unwrap()));
            thread::sleep(Duration::from_millis(50));
            let ended = server.stop();
            let stats = datagrams(&ended);
            assert_eq!((ended.stats.requests, ended.stats.replies, ended.code), (10, replies, 0), "{}", ended.stderr);
            assert_eq!(stats.dropped.get("cut").copied().unwrap_or(0), 10 - replies);
            assert_eq!(ended.stderr.contains("drain timeout: 10 replies cut"), replies == 0, "{}", ended.stderr);
            assert_eq!(drain(&socket), replies);
        }
    });
}

#[test]
fn the_request_log_has_each_datagram() {
    with_every_engine(|engine| {
        let log = tempfile::NamedTempFile::new().unwrap();
        let server = start(engine, &["--service-time", "fixed:1ms", "--request-log", log.path().to_str().unwrap()]);
        let socket = peer(&server);
        (0..5).for_each(|_| echo(&socket, b"logged"));
        clean(&server.stop());
        let text = std::fs::read_to_string(log.path()).unwrap();
        assert_eq!(text.lines().count(), 6, "{text}");
    });
}

#[test]
fn another_server_on_the_port_is_noticed() {
    with_every_engine(|engine| {
        for threads in ["1", "2"] {
            let server = start(engine, &["--threads", threads]);
            let address = server.address.to_string();
            let mut second = common::command(env!("CARGO_BIN_EXE_loadgen-server"));
            second.args(["--protocol", "udp", "--threads", threads, "--listen", &address, "--engine", engine]);
            let output = second.output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains("address in use"), "{stderr}");
        }
    });
}

#[test]
fn options_that_are_about_streams_are_refused() {
    for word in ["inline-send", "bundles", "incremental", "zero-copy"] {
        let mut command = common::command(env!("CARGO_BIN_EXE_loadgen-server"));
        command.args(["--protocol", "udp", "--listen", "127.0.0.1:0", "--engine", "io_uring", "--ring", word]);
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&format!("--ring {word} is for streams")) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn other_programs_are_answered_too() {
    if common::command("python3").arg("--version").output().is_err() {
        assert!(std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "python3 is not installed");
        eprintln!("skipped: python3 is not installed");
        return;
    }
    with_every_engine(|engine| {
        let server = start(engine, &[]);
        let script = "import socket, sys\n\
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n\
            for n in range(50):\n\
            \x20   s.sendto(b'%d' % n * n, ('127.0.0.1', int(sys.argv[1])))\n\
            \x20   assert s.recvfrom(9999) == (b'%d' % n * n, ('127.0.0.1', int(sys.argv[1])))\n";
        let output =
            common::command("python3").args(["-c", script, &server.address.port().to_string()]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let ended = server.stop();
        clean(&ended);
        assert_eq!(ended.stats.replies, 50);
    });
}

/// The last of a batch that is not full leaves the socket empty: with edges, what comes then is told anew.
#[test]
fn nothing_is_forgotten_between_bursts() {
    with_every_variant(|engine| {
        let server = start(engine, &[]);
        let socket = peer(&server);
        for burst in [1, 31, 32, 33, 64, 65, 100, 200, 1] {
            (0..burst).for_each(|_| _ = socket.send(&[5; 10]).unwrap());
            let mut buffer = [0; 10];
            for n in 0..burst {
                match socket.recv(&mut buffer) {
                    Ok(len) => assert_eq!(len, 10),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("{n} of {burst} came"),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        let ended = server.stop();
        clean(&ended);
        assert_eq!(ended.stats.replies, 527);
    });
}
