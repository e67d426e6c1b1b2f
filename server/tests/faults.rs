//! Peers that misbehave, and machines that lack something: the server counts, and goes on serving the others.

mod common;

use common::{Server, echo, eventually, with_every_engine, with_every_variant};
use loadgen_core::sys::{limits, socket};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

#[test]
fn a_peer_that_never_reads_costs_a_fixed_amount() {
    const PEERS: usize = 24;
    let test = |engine: &str| {
        // What belongs to the thread (buffers to receive into) is in use before anything is measured.
        let server = Server::start(&with_few_buffers(engine), &["--drain", "5m"]);
        echo_beyond(&server, if engine.contains("buffers=8x64") { 1 << 20 } else { 16 << 20 });
        let before = server.resident_bytes();
        let block = vec![7; 1 << 20];
        let peers: Vec<TcpStream> = (0..PEERS).map(|_| server.connect()).collect();
        for peer in &peers {
            socket::set_buffers(peer.as_fd(), Some(64 << 10), Some(64 << 10)).unwrap();
            peer.set_nonblocking(true).unwrap();
        }
        // Until neither these sockets nor the server take any more: it has had its turn each time.
        let mut other = server.connect();
        let mut quiet = 0;
        while quiet < 5 {
            quiet = if fill(&peers, &block) == 0 { quiet + 1 } else { 0 };
            echo(&mut other, b"others are served");
            thread::sleep(Duration::from_millis(20));
        }
        // What is sent without a copy is ours until the peer has it: the kernel's send buffer is in our memory.
        let lent = if engine.contains("zero-copy") { send_buffer_max() } else { 0 };
        let costs_a_fixed_amount = |when: &str| {
            let grown = server.resident_bytes().saturating_sub(before);
            assert!(grown < PEERS * ((128 << 10) + lent) + (1 << 20), "{grown} bytes for {PEERS} peers {when}");
        };
        costs_a_fixed_amount("that do not read");
        // With small buffers it may have something to do for a while yet.
        eventually("it does not spin", || {
            let cpu = server.cpu();
            thread::sleep(Duration::from_millis(300));
            server.cpu() - cpu < Duration::from_millis(50)
        });
        // It looks at what they have sent, and answers that; for which it has to wait.
        server.terminate();
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
        thread::sleep(Duration::from_millis(300));
        costs_a_fixed_amount("at the end");
        drop((peers, other));
        let ended = server.wait();
        assert_eq!((ended.code, ended.stats.accepts), (0, PEERS as u64 + 2));
        // A ring tells of a send that was taken in part when its connection breaks, or that it is stale by then; not of
        // one of which nothing was taken. Small buffers make portions that the kernel takes whole, or not at all.
        let in_part = ended.stats.short_sends + ended.stats.stale_events;
        let least = if engine.starts_with("io_uring") { PEERS / 2 } else { PEERS };
        assert!(in_part >= least as u64 || engine.contains("buffers="), "{:?}", ended.stats);
    };
    with_every_variant(test);
    // However much the kernel can receive at once.
    test("io_uring --ring buffers=8x1MiB");
}

/// A buffer to receive into is in use only as far as it was filled, which nobody can see to: so there are few.
fn with_few_buffers(engine: &str) -> String {
    match engine.split_once("--ring ") {
        _ if !engine.starts_with("io_uring") || engine.contains("buffers=") => engine.to_owned(),
        None => format!("{engine} --ring buffers=8x64KiB"),
        Some(_) => format!("{engine},buffers=8x64KiB"),
    }
}

/// What the kernel's send buffer of a connection grows to (tcp(7), tcp_wmem).
fn send_buffer_max() -> usize {
    let sizes = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap();
    sizes.split_whitespace().last().unwrap().parse().unwrap()
}

/// Sends so many bytes on one connection while what comes back is read.
fn echo_beyond(server: &Server, bytes: usize) {
    let mut stream = server.connect();
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || reader.read_exact(&mut vec![0; bytes]));
    stream.write_all(&vec![1; bytes]).unwrap();
    reading.join().unwrap().unwrap();
}

/// Writes until no socket takes any more, and says how many bytes that were.
fn fill(peers: &[TcpStream], block: &[u8]) -> usize {
    let mut total = 0;
    for mut peer in peers {
        while let Ok(n) = peer.write(block) {
            total += n;
        }
    }
    total
}

#[test]
fn resets_are_counted_and_harm_nobody() {
    with_every_variant(|engine| {
        let server = Server::start(engine, &[]);
        let mut faithful = server.connect();
        echo(&mut faithful, b"before");
        let base = server.descriptors();
        for round in 0..300 {
            let mut stream = server.connect();
            if round % 3 > 0 {
                stream.write_all(b"a request that nobody waits for").unwrap();
            }
            if round % 3 > 1 {
                stream.read_exact(&mut [0; 5]).unwrap();
            }
            socket::reset_on_close(stream.as_fd()).unwrap();
        }
        echo(&mut faithful, b"after");
        eventually("descriptors as before", || server.descriptors() == base);
        drop(faithful);
        thread::sleep(Duration::from_millis(30));
        let stats = server.stop().stats;
        assert_eq!(stats.closes.get("error"), None, "{stats:?}");
        // The kernel tells of some as ECONNABORTED before they are accepted.
        assert!(stats.closes["reset"] > 200, "{stats:?}");
    });
}

#[test]
fn without_descriptors_it_neither_dies_nor_spins_and_recovers() {
    let test = |engine: &str| {
        let server = Server::start_with_descriptors(64, engine, &[]);
        let mut faithful = server.connect();
        echo(&mut faithful, b"before");
        let crowd: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
        thread::sleep(Duration::from_millis(200));
        let before = server.cpu();
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(200));
            echo(&mut faithful, b"still here");
        }
        let cpu = server.cpu() - before;
        assert!(cpu < Duration::from_millis(100), "{cpu:?} of CPU time in a second");
        drop(crowd);
        thread::sleep(Duration::from_millis(300));
        echo(&mut server.connect(), b"as if nothing had been");
        drop(faithful);
        let ended = server.stop();
        assert_eq!(ended.code, 0);
        if engine == "io_uring" {
            // Its connections are no descriptors: all are served, in as many rings as it takes.
            assert_eq!((ended.stats.accepts, ended.stats.rejected), (202, 0), "{:?}", ended.stats);
            assert!(ended.stats.ring.unwrap().rings > 2);
            return;
        }
        // On a slow machine some of the crowd have been silent for so long that they make room for others of it.
        let made_room = ended.stats.closes.get("made_room").copied().unwrap_or(0);
        let without_room = ended.stats.rejected + made_room;
        assert!(ended.stats.accept_errors["EMFILE"] > 0 && without_room > 100, "{:?}", ended.stats);
        assert_eq!(ended.stats.accepts + ended.stats.rejected, 202);
        assert!(ended.stderr.lines().count() <= 4, "{}", ended.stderr);
        assert!(ended.stderr.lines().all(|line| line.contains("EMFILE: all 64")), "{}", ended.stderr);
    };
    with_every_engine(test);
    test("io_uring --ring inline-send");
}

#[test]
fn select_turns_away_what_its_sets_cannot_name() {
    const CLIENTS: usize = 1100;
    let limit = limits::raise_descriptors().unwrap();
    if limit < 2 * CLIENTS as u64 {
        eprintln!("skipped: needs {} descriptors, has {limit}", 2 * CLIENTS);
        return;
    }
    let server = Server::start("select", &[]);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| server.connect()).collect();
    let turned_away = clients.iter_mut().skip(900).filter_map(|client| {
        let served = client.write_all(b"x").and_then(|()| client.read_exact(&mut [0]));
        served.is_err().then_some(())
    });
    let turned_away = turned_away.count() as u64;
    assert!(turned_away >= 76, "{turned_away} turned away");
    clients[..900].iter_mut().for_each(|client| echo(client, b"served"));
    clients.truncate(500);
    thread::sleep(Duration::from_millis(100));
    echo(&mut server.connect(), b"room again");
    drop(clients);
    let ended = server.stop();
    assert_eq!((ended.code, ended.stats.rejected), (0, turned_away), "{}", ended.stderr);
    assert!(ended.stderr.contains("use poll or epoll"), "{}", ended.stderr);
}

#[test]
fn a_want_of_memory_at_accept_resets_nobody() {
    if !programs_are_there() {
        return;
    }
    with_every_engine(|engine| {
        // A ring does not call accept4.
        for error in ["ENOMEM", "ENOBUFS", "EPERM", "ECONNABORTED"] {
            for when in ["when=1", "when=1..3"] {
                let fault = format!("inject=accept4:error={error}:{when}");
                let server = Server::start_with_fault(&fault, engine, &[]);
                let mut waiting: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
                waiting.iter_mut().for_each(|stream| echo(stream, b"served"));
            }
        }
    });
}

#[test]
fn accepting_that_keeps_failing_does_not_spin() {
    if !programs_are_there() {
        return;
    }
    for engine in ["epoll", "epoll-et", "poll", "select"] {
        for error in ["ENOMEM", "ECONNABORTED"] {
            let fault = format!("inject=accept4:error={error}:when=1..3000");
            let server = Server::start_with_fault(&fault, engine, &[]);
            let waiting = server.connect();
            thread::sleep(Duration::from_millis(700));
            drop(waiting);
            let stats = server.stop().stats;
            assert!((2..1000).contains(&stats.syscalls["accept"]), "{engine} {error}: {stats:?}");
        }
    }
}

fn programs_are_there() -> bool {
    let there = common::command("strace").arg("-V").output().is_ok();
    assert!(there || std::env::var_os("LOADGEN_REQUIRE_PROGRAMS").is_none(), "strace is missing");
    if !there {
        eprintln!("skipped: no strace");
    }
    there
}
