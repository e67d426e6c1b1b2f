//! kill -9 of either side at any moment: the other goes on, or ends on time and says what it knows.

mod common;

use common::busy::{PATIENCE, Watch};
use common::{Running, Server, brief, eventually, whole};
use loadgen_core::rng::Rng;
use loadgen_core::sys::ring;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What a round may take.
const LIMIT: Duration = Duration::from_secs(7);

#[test]
fn either_side_survives_the_other() {
    let both = ["io_uring", "epoll"].iter().filter(|engine| **engine == "epoll" || have_ring());
    let engines: Vec<_> = both.clone().flat_map(|client| both.clone().map(move |server| (client, server))).collect();
    for round in 0..6 {
        let (client, server) = engines[round as usize % engines.len()];
        kill_round(client, server, round);
    }
}

#[test]
#[ignore = "takes minutes"]
fn either_side_survives_the_other_a_hundred_times() {
    (0..100).for_each(|round| kill_round("io_uring", "io_uring", round));
}

fn have_ring() -> bool {
    ring::check(&ring::Options::default()).is_ok()
}

fn kill_round(client: &str, server: &str, round: u64) {
    let start = Watch::start();
    let mut rng = Rng::new(round);
    let (moment, kills_server) = (Duration::from_millis(rng.below(1000)), rng.below(2) == 0);
    eprintln!("round {round}: client {client}, server {server}, {moment:?}, kills server: {kills_server}");
    let survivor = Server::start(&["--engine", server]);
    let base = survivor.descriptors();
    let args = ["--target", &survivor.target(), "--engine", client, "--conns", "1000", "--timeout", "500ms"];
    let run = Running::start(&[&args[..], &["--duration", "3s", "--warmup", "100ms"]].concat());
    std::thread::sleep(moment);
    if kills_server {
        survivor.kill();
        let ended = run.wait();
        assert!([3, 4].contains(&ended.code), "exit {}: {}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        let report = ended.report();
        assert_eq!((report.connections.alive_at_end, whole(report).in_flight_at_end), (0, 0), "{}", brief(report));
        assert!(!report.errors.is_empty(), "{}", brief(report));
    } else {
        run.kill();
        eventually("the server's descriptors are as before", || survivor.descriptors() == base);
        serves(&survivor);
        let stats = survivor.stop();
        assert_eq!(stats.accepts, stats.closes.values().sum::<u64>(), "{stats:?}");
        assert!(["error", "cut"].iter().all(|cause| !stats.closes.contains_key(*cause)), "{stats:?}");
    }
    start.assert_within(LIMIT, &format!("round {round}"));
}

/// A new connection is answered.
fn serves(server: &Server) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[9; 64]).unwrap();
    stream.read_exact(&mut [0; 64]).unwrap();
}
