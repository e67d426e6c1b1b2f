//! Whole runs over UDP: against our server the ledgers agree, and behind a relay that loses, doubles and delays,
//! loadgen counts what the relay did.

mod common;

use common::{
    Ended, SHORT, Server, agrees, agrees_with_embedded, brief, clean, errors, loadgen, loadgen_at, whole,
    with_every_server_engine,
};
use loadgen_core::protocol::udp::{HEADER, LARGEST};
use loadgen_core::result::Delivery;
use loadgen_core::rng::Rng;
use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Runs `test` with each engine of the client.
fn with_each_engine(test: impl Fn(&str)) {
    for engine in ["epoll", "io_uring"] {
        let here = loadgen_core::sys::ring::check(&Default::default());
        match here {
            Err(refusal) if engine == "io_uring" => eprintln!("skipped: {refusal}"),
            _ => {
                eprintln!("client engine {engine}");
                test(engine);
            }
        }
    }
}

/// Against a socket of ours.
fn at(address: SocketAddr, engine: &str, args: &[&str]) -> Ended {
    loadgen_at(&format!("udp://{address}"), &[&["--engine", engine], args].concat())
}

fn datagrams(ended: &Ended) -> &Delivery {
    ended.report().datagrams.as_ref().expect("a run over UDP tells of its datagrams")
}

fn in_order(received: u64) -> Delivery {
    Delivery { received, ..Delivery::default() }
}

#[test]
fn both_ledgers_agree_whatever_the_engines() {
    with_each_engine(|engine| {
        with_every_server_engine(|server| {
            for load in [&["--pipeline", "8"][..], &["--rate", "3000", "--pipeline", "16", "--arrival", "poisson"]] {
                let args = ["--protocol", "udp", "--engine", engine, "--server-engine", server];
                let sides = ["--conns", "10", "--threads", "2", "--server-threads", "2", "--idle", "3"];
                let ended = loadgen(&[&args[..], &sides, load, &SHORT].concat());
                let report = ended.expect(0);
                clean(report);
                agrees_with_embedded(report);
                assert_eq!(datagrams(&ended), &in_order(whole(report).ok), "{}", brief(report));
                assert!(
                    ended.stderr.contains("0 lost, 0 duplicated, 0 reordered, 0 late")
                        || ended.stdout.contains("0 lost")
                );
            }
        });
    });
}

#[test]
fn every_size_up_to_the_largest() {
    with_each_engine(|engine| {
        for size in [HEADER, HEADER + 1, 1472, 1473, 30_000, LARGEST] {
            let size = size.to_string();
            let args = ["--protocol", "udp", "--engine", engine, "--size", &size, "--conns", "2", "--requests", "50"];
            let ended = loadgen(&args);
            clean(ended.expect(0));
            agrees_with_embedded(ended.report());
        }
    });
}

#[test]
fn sizes_that_no_datagram_has_are_refused() {
    for (size, why) in [("19", "20 bytes"), ("65508", "at most 65507"), ("64KiB", "at most 65507")] {
        let refused = loadgen(&["--protocol", "udp", "--size", size, "--requests", "1", "--conns", "1"]);
        assert!(refused.expect_refusal(2).contains(why), "{}", refused.stderr);
    }
}

#[test]
fn what_udp_does_not_have_is_refused() {
    let cases: [(&[&str], &str); 8] = [
        (&["--target", "udp://127.0.0.1"], "names no port"),
        (&["--target", "unix:/tmp/x.sock", "--protocol", "udp"], "goes over IP"),
        (&["--protocol", "udp", "--engine", "io_uring", "--ring", "bundles"], "is for streams"),
        (&["--protocol", "udp", "--server-engine", "io_uring", "--server-ring", "zero-copy"], "is for streams"),
        (&["--protocol", "udp", "--requests-per-conn", "5"], "--requests-per-conn is about connections"),
        (&["--protocol", "udp", "--close", "rst"], "--close rst is about connections"),
        (&["--protocol", "udp", "--think", "10ms"], "--think is about connections"),
        (&["--protocol", "udp", "--rate", "10", "--session-requests", "3"], "--session-requests is about connections"),
    ];
    for (args, why) in cases {
        let refused = loadgen(&[args, &["--requests", "1", "--conns", "1"]].concat());
        if refused.stderr.contains("io_uring is not") {
            continue;
        }
        assert!(refused.expect_refusal(2).contains(why), "{args:?}: {}", refused.stderr);
    }
}

#[test]
fn an_ipv6_target_is_measured() {
    let Ok(free) = UdpSocket::bind("[::1]:0") else { return eprintln!("skipped: no IPv6 here") };
    drop(free);
    with_each_engine(|engine| {
        let server = Server::start_at("[::1]:0", &["--protocol", "udp"]);
        let ended = at(server.address(), engine, &[&["--conns", "4"][..], &SHORT].concat());
        clean(ended.expect(0));
        agrees(ended.report(), &server.stop());
    });
}

/// A name may stand for addresses where nobody listens; the kernel says so.
#[test]
fn of_a_name_s_addresses_one_that_listens_is_chosen() {
    let server = Server::start(&["--protocol", "udp"]);
    let target = format!("udp://localhost:{}", server.address().port());
    let ended = loadgen_at(&target, &["--conns", "2", "--requests", "20"]);
    clean(ended.expect(0));
    assert_eq!(whole(ended.report()).ok, 20);
}

#[test]
fn two_targets_share_the_load() {
    with_each_engine(|engine| {
        let servers = [Server::start(&["--protocol", "udp"]), Server::start(&["--protocol", "udp"])];
        let targets: Vec<String> = servers.iter().map(|server| format!("udp://{}", server.address())).collect();
        let args = ["--target", &targets[0], "--target", &targets[1], "--weights", "3,1", "--conns", "8"];
        let ended = loadgen(&[&args[..], &["--engine", engine], &SHORT].concat());
        clean(ended.expect(0));
        let answered: u64 = servers.map(|server| server.stop().replies).iter().sum();
        assert_eq!(answered, whole(ended.report()).ok);
    });
}

#[test]
fn a_port_where_nobody_listens_is_unreachable() {
    with_each_engine(|engine| {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for load in [&["--duration", "1s"][..], &["--requests", "100"], &["--duration", "1s", "--rate", "100"]] {
            let ended = at(free, engine, &[&["--conns", "4"][..], load].concat());
            let report = ended.expect(3);
            assert_eq!((report.connections.established, report.connections.served), (0, 0), "{}", brief(report));
            assert_eq!(whole(report).sent, errors(report, "refused"), "{}", brief(report));
            assert!(errors(report, "refused") > 0 && ended.stderr.contains("could not be reached"), "{}", ended.stderr);
            ended.assert_within(Duration::from_secs(10));
        }
    });
}

#[test]
fn one_who_never_answers_is_unreachable_too() {
    with_each_engine(|engine| {
        let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
        let args = ["--conns", "3", "--timeout", "300ms", "--duration", "1s"];
        let ended = at(mute.local_addr().unwrap(), engine, &args);
        let report = ended.expect(3);
        let lost = datagrams(&ended).lost;
        assert_eq!((whole(report).ok, errors(report, "timeout")), (0, lost), "{}", brief(report));
        assert!(lost >= 3 && whole(report).sent == lost + whole(report).in_flight_at_end, "{}", brief(report));
        ended.assert_within(Duration::from_secs(10));
    });
}

#[test]
fn a_server_that_is_gone_for_a_while_is_found_again() {
    with_each_engine(|engine| {
        let server = Server::start(&["--protocol", "udp"]);
        let address = server.address();
        let target = format!("udp://{address}");
        let args = ["--target", &target, "--engine", engine, "--conns", "4", "--duration", "3s", "--timeout", "200ms"];
        let running = common::Running::start(&args);
        server.wait_for_load();
        server.kill();
        // What was on its way is lost without a word; of what is sent after its timeout the kernel says so.
        thread::sleep(Duration::from_millis(600));
        let server = Server::start_at(&address.to_string(), &["--protocol", "udp"]);
        let ended = running.wait();
        let report = ended.expect(4);
        assert!(errors(report, "refused") > 0 && report.connections.lost > 0, "{}", brief(report));
        assert_eq!(report.connections.served, 4);
        assert!(server.stop().replies > 100, "it was found again");
    });
}

/// A peer that answers each datagram as it is told to.
struct Peer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Peer {
    /// `answer` has the number of the datagram, and says what goes back.
    fn start(mut answer: impl FnMut(u64, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut buffer, mut count) = (vec![0; 1 << 16], 0);
            while !stopped.load(Ordering::Relaxed) {
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
                for reply in answer(count, &buffer[..len]) {
                    // It may be gone.
                    let _ = socket.send_to(&reply, peer);
                }
                count += 1;
            }
            count
        });
        Self { address, stop, thread: Some(thread) }
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn wrong_replies_fail_their_request_and_nothing_else() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, Damage); 3] = [
        ("mismatch", |request| [&request[..HEADER], &[0; 44]].concat()),
        ("truncated", |request| request[..40].to_vec()),
        ("too_large", |request| [request, b"x"].concat()),
    ];
    with_each_engine(|engine| {
        for (kind, damage) in cases {
            // One good, one bad, and so on, for each connection.
            let peer = Peer::start(move |n, request| vec![if n % 4 < 2 { request.to_vec() } else { damage(request) }]);
            let ended = at(peer.address, engine, &["--conns", "2", "--requests", "100"]);
            let report = ended.expect(4);
            assert_eq!((whole(report).ok, errors(report, kind)), (50, 50), "{kind}: {}", brief(report));
            assert_eq!((report.connections.lost, report.connections.opened), (0, 2), "{kind}: {}", brief(report));
            assert_eq!((datagrams(&ended), peer.stop()), (&in_order(100), 100));
        }
    });
}

/// Bytes without a header of ours, of another connection, never asked for, or none at all: nobody's request fails.
#[test]
fn datagrams_that_answer_nothing_are_counted_and_ignored() {
    with_each_engine(|engine| {
        let peer = Peer::start(|n, request| {
            let mut other_connection = request.to_vec();
            other_connection[11] ^= 0x40;
            let mut future = request.to_vec();
            future[12] = 0x70;
            let garbage: [&[u8]; 6] = [b"", b"x", &[0; 500], &other_connection, &future, &request[..HEADER - 1]];
            vec![garbage[n as usize % 6].to_vec(), garbage[(n as usize + 1) % 6].to_vec(), request.to_vec()]
        });
        let ended = at(peer.address, engine, &["--conns", "3", "--pipeline", "2", "--requests", "600"]);
        let report = ended.expect(0);
        assert_eq!((whole(report).ok, peer.stop()), (600, 600), "{}", brief(report));
        let expected = Delivery { received: 1800, foreign: 1200, ..Delivery::default() };
        assert_eq!(datagrams(&ended), &expected, "{}", brief(report));
    });
}

/// What becomes of a request on its way through the relay.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Pass,
    RequestLost,
    ReplyLost,
    RequestTwice,
    ReplyTwice,
    /// Others overtake its reply.
    ReplyHeld,
    /// Its reply comes when the client has given it up.
    ReplyLate,
}

/// What the relay did.
#[derive(Debug, Default, PartialEq)]
struct Deeds {
    requests_lost: u64,
    replies_lost: u64,
    requests_doubled: u64,
    replies_doubled: u64,
    late: u64,
    /// Replies that it sent in time, behind one to a later request (RFC 4737).
    reordered: u64,
}

const LATE: Duration = Duration::from_millis(2500);
const HELD: Duration = Duration::from_millis(15);
/// After this, no reply is made late: it could come when the run is over.
const LATE_WITHIN: Duration = Duration::from_millis(800);

/// Between clients and a server; one socket to the server for each client.
struct Relay {
    front: UdpSocket,
    server: SocketAddr,
    backs: HashMap<SocketAddr, UdpSocket>,
    fates: HashMap<(SocketAddr, u64), Fate>,
    /// Replies that wait for their time.
    waiting: Vec<(Instant, SocketAddr, Vec<u8>)>,
    /// By client, the highest number that was sent to it in time.
    highest: HashMap<SocketAddr, u64>,
    answered: HashSet<(SocketAddr, u64)>,
    rng: Rng,
    began: Instant,
    deeds: Deeds,
}

impl Relay {
    fn start(server: SocketAddr, seed: u64) -> (SocketAddr, Arc<AtomicBool>, JoinHandle<Deeds>) {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        front.set_nonblocking(true).unwrap();
        let address = front.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut relay = Self {
            front,
            server,
            backs: HashMap::new(),
            fates: HashMap::new(),
            waiting: Vec::new(),
            highest: HashMap::new(),
            answered: HashSet::new(),
            rng: Rng::new(seed),
            began: Instant::now(),
            deeds: Deeds::default(),
        };
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if !relay.turn() {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            relay.deeds
        });
        (address, stop, thread)
    }

    fn turn(&mut self) -> bool {
        let mut buffer = [0; 2048];
        let mut busy = false;
        while let Ok((len, client)) = self.front.recv_from(&mut buffer) {
            busy = true;
            self.request(client, &buffer[..len]);
        }
        let mut replies = Vec::new();
        for (client, back) in &self.backs {
            loop {
                match back.recv(&mut buffer) {
                    Ok(len) => replies.push((*client, buffer[..len].to_vec())),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("the server is gone: {error}"),
                }
            }
        }
        busy |= !replies.is_empty();
        replies.into_iter().for_each(|(client, reply)| self.reply(client, reply));
        let now = Instant::now();
        let due: Vec<_> = self.waiting.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, client, reply) in due {
            self.answer(client, &reply);
        }
        busy
    }

    fn request(&mut self, client: SocketAddr, request: &[u8]) {
        let fate = match self.rng.below(100) {
            0..3 => Fate::RequestLost,
            3..6 => Fate::ReplyLost,
            6..10 => Fate::RequestTwice,
            10..14 => Fate::ReplyTwice,
            14..20 => Fate::ReplyHeld,
            20..22 if self.began.elapsed() < LATE_WITHIN => Fate::ReplyLate,
            _ => Fate::Pass,
        };
        self.fates.insert((client, number(request)), fate);
        let server = self.server;
        let back = self.backs.entry(client).or_insert_with(|| {
            let back = UdpSocket::bind("127.0.0.1:0").unwrap();
            back.connect(server).unwrap();
            back.set_nonblocking(true).unwrap();
            back
        });
        match fate {
            Fate::RequestLost => return self.deeds.requests_lost += 1,
            Fate::RequestTwice => {
                self.deeds.requests_doubled += 1;
                back.send(request).unwrap();
            }
            _ => {}
        }
        back.send(request).unwrap();
    }

    fn reply(&mut self, client: SocketAddr, reply: Vec<u8>) {
        match self.fates[&(client, number(&reply))] {
            Fate::ReplyLost => self.deeds.replies_lost += 1,
            Fate::ReplyHeld => self.waiting.push((Instant::now() + HELD, client, reply)),
            Fate::ReplyLate => {
                self.deeds.late += 1;
                self.waiting.push((Instant::now() + LATE, client, reply));
            }
            Fate::ReplyTwice => {
                self.deeds.replies_doubled += 1;
                self.answer(client, &reply);
                self.answer(client, &reply);
            }
            Fate::Pass | Fate::RequestTwice | Fate::RequestLost => self.answer(client, &reply),
        }
    }

    fn answer(&mut self, client: SocketAddr, reply: &[u8]) {
        let number = number(reply);
        if self.fates[&(client, number)] != Fate::ReplyLate {
            let highest = self.highest.entry(client).or_insert(number);
            // The same number again is a double.
            let first = self.answered.insert((client, number));
            self.deeds.reordered += u64::from(first && number < *highest);
            *highest = (*highest).max(number);
        }
        self.front.send_to(reply, client).unwrap();
    }
}

/// The sequence number of a datagram (docs/udp.md).
fn number(datagram: &[u8]) -> u64 {
    u64::from_be_bytes(datagram[12..HEADER].try_into().unwrap())
}

#[test]
fn loss_doubles_reordering_and_lateness_are_counted_as_they_happened() {
    with_each_engine(|engine| {
        let open = &["--rate", "600", "--threads", "2", "--pipeline", "32"][..];
        for (seed, load) in [(1, open), (2, &["--pipeline", "2"])] {
            let server = Server::start(&["--protocol", "udp"]);
            let (address, stop, relay) = Relay::start(server.address(), seed);
            // No more are unanswered than fit into the relay's buffers: nobody else may lose any, however busy this
            // machine is. The timeout is long for the same reason.
            let args = ["--conns", "6", "--timeout", "1500ms", "--duration", "3500ms"];
            let ended = at(address, engine, &[&args[..], load].concat());
            thread::sleep(Duration::from_millis(50));
            stop.store(true, Ordering::Relaxed);
            let deeds = relay.join().unwrap();
            let theirs = server.stop();
            let report = ended.expect(4);
            let (whole, shown) = (whole(report), format!("{deeds:?} {:?} {}", report.datagrams, brief(report)));
            let lost = deeds.requests_lost + deeds.replies_lost + deeds.late;
            let doubled = deeds.requests_doubled + deeds.replies_doubled;
            let replies = whole.ok + doubled + deeds.late;
            let expected = Delivery {
                received: replies,
                lost,
                duplicated: doubled,
                reordered: deeds.reordered,
                late: deeds.late,
                ..Delivery::default()
            };
            assert_eq!(datagrams(&ended), &expected, "{shown}");
            assert_eq!(
                whole.errors.iter().map(|(kind, n)| (kind.as_str(), *n)).collect::<Vec<_>>(),
                [("timeout", lost)]
            );
            assert_eq!((whole.sent, whole.in_flight_at_end), (whole.ok + lost, 0), "{shown}");
            assert_eq!(theirs.requests, whole.sent - deeds.requests_lost + deeds.requests_doubled, "{shown}");
            assert_eq!(report.connections.lost, 0, "{shown}");
            let all = [deeds.requests_lost, deeds.replies_lost, deeds.requests_doubled, deeds.replies_doubled];
            assert!(all.iter().all(|count| *count > 0) && deeds.late > 0, "{shown}");
            assert!(deeds.reordered > 0, "{shown}");
        }
    });
}
