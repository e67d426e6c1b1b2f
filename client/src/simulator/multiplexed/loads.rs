//! Whole loads with the scratch protocol, in virtual time and over real sockets.

use super::super::draw::Drawn;
use super::super::network::ONE_WAY_MIN_NS;
use super::super::{Outcome, SEEDS, checks, number, watched};
use super::truth::{Shared, TRUTH, Truth, look};
use super::{Half, MULTIPLEXED, Multiplexed};
use crate::engine::{ENGINES, Entry, Remote};
use crate::worker::{Control, Published, Task};
use loadgen_core::arrivals::{Process, Profile, Schedule};
use loadgen_core::load::request_log::{RequestLog, Row};
use loadgen_core::load::tally::Tally;
use loadgen_core::load::turns::Turns;
use loadgen_core::load::users::Traffic;
use loadgen_core::load::{Config, StopRule, Usage};
use loadgen_core::protocol::{MAX_KEPT, Next, Output, Server, ServerState, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::{clock, ring};
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use loadgen_core::transport::Transport;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The load of a seed, with this protocol in the place of whichever was drawn.
fn drawn(seed: u64, rng: &mut Rng) -> Drawn {
    let mut drawn = Drawn::draw(seed, rng);
    drawn.protocol = &MULTIPLEXED;
    drawn.config.transport = Transport::Stream;
    drawn.config.shape = Shape::Exchange;
    (drawn.options.scenario, drawn.config.traffic.scripts) = (None, None);
    drawn.options.headers.clear();
    if drawn.config.traffic.sessions.is_none() && drawn.config.traffic.think.is_none() {
        drawn.config.depth = 1 + rng.below(16) as usize;
    }
    drawn
}

fn simulate(seed: u64, credits_others: bool) -> BTreeMap<&'static str, u64> {
    let mut rng = Rng::new(seed);
    let drawn = drawn(seed, &mut rng);
    let mut counts = BTreeMap::new();
    for worker in 0..drawn.workers {
        let own = drawn.of_worker(worker);
        let (truth, tally) = run(&own, &mut rng, |truth| truth.credits_others = credits_others);
        truth.counts.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
        let errors = |kind| tally.whole.errors.get(kind).copied().unwrap_or(0);
        *counts.entry("timeouts").or_default() += errors("timeout");
        *counts.entry("unprocessed at the end").or_default() += errors("unprocessed");
    }
    counts
}

fn run(drawn: &Drawn, rng: &mut Rng, configure: impl FnOnce(&mut Truth)) -> (Truth, Tally) {
    let shared = Arc::new(Mutex::new(Truth {
        now_ns: drawn.config.origin.0,
        rng: Some(Rng::new(drawn.seed ^ 0x6d75_7869)),
        depth: drawn.config.depth as u64,
        // Where our thread stands still, so do peers.
        pong_by_ns: if drawn.stalls { 500 } else { 40 } * NS_PER_MS,
        stalls: drawn.stalls,
        mischief: !drawn.faults.is_calm(),
        ..Truth::default()
    }));
    configure(&mut look(&shared));
    TRUTH.set(Arc::clone(&shared));
    let outcome = watched(drawn, rng, |now| look(&shared).now_ns = now.0);
    checks::check(drawn, &outcome);
    let Outcome { tally, .. } = outcome;
    let truth = std::mem::take(&mut *look(&shared));
    hold(&truth, &tally, ONE_WAY_MIN_NS);
    if !truth.mischief {
        assert_eq!(truth.counts.get("without a pong"), None, "a peer that answers pings loses no connection");
    }
    (truth, tally)
}

/// Each reply is credited to its own request, which took no less than its peer knows of.
fn hold(truth: &Truth, tally: &Tally, one_way_ns: u64) {
    assert!(truth.wrong.is_empty(), "{} are wrong: {:#?}", truth.wrong.len(), &truth.wrong[..truth.wrong.len().min(5)]);
    let replied = |row: &&Row| matches!(row.outcome, "ok" | "proof" | "status_4xx");
    let mut rows: BTreeMap<u32, Vec<&Row>> = BTreeMap::new();
    tally.log.rows().iter().filter(replied).for_each(|row| rows.entry(row.slot).or_default().push(row));
    let mut completed: BTreeMap<u32, Vec<(u32, Instant)>> = BTreeMap::new();
    truth.completed.iter().for_each(|(slot, id, at)| completed.entry(*slot).or_default().push((*id, *at)));
    let lens: (Vec<usize>, Vec<usize>) =
        (rows.values().map(Vec::len).collect(), completed.values().map(Vec::len).collect());
    assert_eq!(lens.0, lens.1, "replies of each connection, in the log and here");
    for (row, (id, at)) in rows.values().flatten().zip(completed.values().flatten()) {
        let (started, read, said) = (truth.started[id], truth.read[id], truth.said[id]);
        let told = format!("{row:?} is stream {id}: started {started:?}, read {read:?}, said {said:?}, here {at:?}");
        assert_eq!(row.ended, *at, "{told}");
        assert!(row.due <= started && started <= row.sent, "{told}");
        assert!(row.sent.after(one_way_ns) <= read && read <= said && said.after(one_way_ns) <= row.ended, "{told}");
    }
    // However often one was handed over, it was sent once.
    let requests = |ids: Vec<u32>| ids.iter().map(|id| truth.asks[id].draws).collect::<BTreeSet<u64>>().len() as u64;
    let (least, most) = (requests(truth.read.keys().copied().collect()), truth.asked.len() as u64);
    assert!((least..=most).contains(&tally.whole.sent), "{} sent, of {least} to {most}", tally.whole.sent);
    let count = |what| truth.counts.get(what).copied().unwrap_or(0);
    let (least, most) = (count("refused"), count("refused") + count("left behind"));
    assert!((least..=most).contains(&tally.unprocessed), "{} came back, of {least} to {most}", tally.unprocessed);
    // What was not asked for again ended as such, whatever became of its connection.
    let errors = |kind| tally.whole.errors.get(kind).copied().unwrap_or(0);
    let ended = errors("timeout") + errors("unprocessed") + tally.whole.in_flight + tally.whole.unsent;
    assert!(truth.came_back.len() as u64 <= ended, "{} came back for good, of {ended}", truth.came_back.len());
}

#[test]
fn whole_loads_multiplex_in_virtual_time() {
    if let Some(seed) = number("LOADGEN_SIMULATOR_SEED") {
        eprintln!("{:#?}", drawn(seed, &mut Rng::new(seed)));
        eprintln!("{:#?}", simulate(seed, false));
        return;
    }
    let seeds = number("LOADGEN_SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let (mut failed, mut counts) = (Vec::new(), BTreeMap::<&str, u64>::new());
    for seed in 0..seeds {
        match catch_unwind(AssertUnwindSafe(|| simulate(seed, false))) {
            Ok(of) => of.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {:?}", failed.len(), &failed[..failed.len().min(20)]);
    println!("{counts:?}");
    for what in [
        "out of order",
        "limits",
        "pings sent",
        "pongs heard",
        "without a pong",
        "timeouts",
        "given up",
        "withdrawn",
        "strays",
        "went away",
        "came too late",
        "left behind",
        "refused",
        "asked again",
        "unprocessed at the end",
    ] {
        assert!(counts.get(what).is_some_and(|count| *count > 0), "never happened: {what}: {counts:?}");
    }
}

/// Under TLS, on a connection that took nothing: a request was given up, counted as one that never left, and then left.
const ONCE_FAILED: [u64; 2] = [53_022, 65_622];

#[test]
fn seeds_that_failed_once_do_not_any_more() {
    ONCE_FAILED.into_iter().for_each(|seed| _ = simulate(seed, false));
}

/// The planted mistake: what holds above is not held by chance.
#[test]
fn a_reply_that_is_credited_to_another_request_is_noticed() {
    let is_noticed = |seed: &u64| catch_unwind(AssertUnwindSafe(|| simulate(*seed, true))).is_err();
    assert!((0..20).filter(is_noticed).count() >= 5);
}

/// Connections are opened one after the other, each when the one before has proved itself, and their first requests
/// are given up.
#[test]
fn a_connection_whose_proof_is_given_up_alone_holds_nobody_back() {
    let calm = (0..200).filter(|seed| Drawn::draw(*seed, &mut Rng::new(*seed)).faults.is_calm());
    for (turn, seed) in calm.enumerate() {
        let mut rng = Rng::new(seed);
        let mut drawn = drawn(seed, &mut rng).of_worker(0);
        drawn.rate = None;
        (drawn.go_at_last, drawn.stop_at) = (Instant(60 * NS_PER_S), Instant(120 * NS_PER_S));
        let config = &mut drawn.config;
        let all = config.active + config.idle;
        (config.schedules, config.traffic, config.connections_over_time) = (Vec::new(), Traffic::default(), None);
        (config.in_flight_max, config.requests_per_connection, config.unproven_max) = (None, None, 1);
        (config.timeout_ns, config.warmup_ns) = (100 * NS_PER_MS, 0);
        config.stop_rule = match turn % 2 {
            0 => StopRule::Requests(all as u64),
            _ => StopRule::After(10 * NS_PER_MS),
        };
        drawn.stops_early = false;
        let (truth, tally) = run(&drawn, &mut rng, |truth| truth.unanswered = 2.min(all as u64));
        assert_eq!((truth.unanswered, tally.connections.attempts >= all as u64), (0, true), "seed {seed}");
        if turn % 2 == 1 {
            assert_eq!(tally.connections.served, all as u64, "seed {seed}: {:?}", tally.connections);
        }
    }
}

/// One blocking thread for each connection.
fn serve(mut stream: TcpStream, truth: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let (mut half, mut state) = (Half::new(Arc::clone(truth)), ServerState::default());
    let (mut kept, mut buffer, mut out) = (Vec::new(), [0; 4096], Output::one_reply(MAX_KEPT));
    loop {
        let received = stream.read(&mut buffer)?;
        if received == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&buffer[..received]);
        loop {
            out.clear();
            let served = half.serve(&mut state, &kept, false, &mut out);
            kept.drain(..served.consumed);
            stream.write_all(out.bytes())?;
            match served.next {
                Next::Flush => {}
                Next::Read => break,
                Next::Close | Next::Reject => return Ok(()),
            }
        }
    }
}

/// Runs a load over loopback, and answers what came of it.
fn over_sockets(entry: &Entry, shared: &Shared, configure: impl FnOnce(&mut Config)) -> Tally {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("without waiting");
    let task = task(listener.local_addr().expect("an address"), shared, configure);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // How a connection ends, the load tells.
                    Ok((stream, _)) => _ = scope.spawn(move || serve(stream, shared)),
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        let run = catch_unwind(AssertUnwindSafe(|| (entry.run)(task)));
        over.store(true, Ordering::Relaxed);
        run.expect("no panic").expect("a run")
    })
}

fn task(address: SocketAddr, shared: &Shared, configure: impl FnOnce(&mut Config)) -> Task {
    let origin = clock::now();
    let mut config = Config {
        transport: Transport::Stream,
        shape: Shape::Exchange,
        addresses: vec![address.to_string()],
        turns: Turns::new(std::iter::once(0), &[1]),
        all_active: 2,
        active: 2,
        idle: 1,
        schedules: Vec::new(),
        traffic: Traffic::default(),
        connections_over_time: None,
        worker: (0, 1),
        depth: look(shared).depth as usize,
        in_flight_max: None,
        requests_per_connection: None,
        stop_rule: StopRule::Requests(200),
        warmup_ns: 0,
        timeout_ns: 5 * NS_PER_S,
        connect_rate: None,
        unproven_max: 100,
        seed: 1,
        run_seed: 1,
        origin,
        usage: Usage::default,
    };
    configure(&mut config);
    let control = Arc::new(Control::default());
    control.go(origin);
    Task {
        config,
        remotes: vec![Remote { endpoint: Endpoint::Tcp(address), sources: Vec::new() }],
        clients: vec![Box::new(Multiplexed::new(Arc::clone(shared)))],
        cpu: None,
        log: RequestLog::keeping(Vec::with_capacity(10_000), 10_000),
        spin_ns: 0,
        ring: ring::Options::default(),
        control,
        published: Arc::new(Published::default()),
        handover: None,
    }
}

fn of_sockets() -> Shared {
    Arc::new(Mutex::new(Truth { depth: 8, pong_by_ns: 5 * NS_PER_S, ..Truth::default() }))
}

fn engines() -> impl Iterator<Item = &'static Entry> {
    ENGINES.iter().copied().filter(|entry| match ring::check(&ring::Options::default()) {
        Err(refusal) if entry.needs_ring => {
            println!("skipped {}: {refusal}", entry.name);
            false
        }
        _ => true,
    })
}

#[test]
fn whole_loads_multiplex_over_sockets() {
    for entry in engines() {
        let shared = of_sockets();
        let tally = over_sockets(entry, &shared, |_| {});
        let truth = look(&shared);
        hold(&truth, &tally, 0);
        let refused = tally.whole.errors.get("status_4xx").copied().unwrap_or(0);
        assert_eq!((tally.whole.scheduled, tally.whole.ok + refused), (200, 200), "{}: {:?}", entry.name, tally.whole);
        assert_eq!((truth.read.len(), truth.said.len()), (200, 200), "{}", entry.name);
        assert!(truth.counts["out of order"] > 0 && truth.counts["limits"] > 3, "{:?}", truth.counts);
    }
}

#[test]
fn an_open_loop_multiplexes_over_sockets() {
    for entry in engines() {
        let shared = of_sockets();
        let tally = over_sockets(entry, &shared, |config| {
            let profile = Profile::flat(1_000);
            config.schedules = vec![Some(Schedule::new(Process::Poisson, profile, 1, 0, 1, Instant(0)))];
            config.stop_rule = StopRule::After(200 * NS_PER_MS);
        });
        let truth = look(&shared);
        hold(&truth, &tally, 0);
        let refused = tally.whole.errors.get("status_4xx").copied().unwrap_or(0);
        let whole = &tally.whole;
        assert_eq!(whole.scheduled, whole.ok + refused + whole.unsent, "{}: {whole:?}", entry.name);
        assert_eq!(truth.read.len() as u64, whole.sent, "{}", entry.name);
        assert!(truth.counts["pongs heard"] > 0, "{:?}", truth.counts);
    }
}

/// Pings that nobody answers: the connections end although their requests are answered.
#[test]
fn a_peer_without_pongs_loses_its_connections_over_sockets() {
    for entry in engines() {
        let shared = of_sockets();
        (look(&shared).pong_by_ns, look(&shared).mischief) = (30 * NS_PER_MS, true);
        let tally =
            over_sockets(entry, &shared, |config| config.stop_rule = StopRule::RequestsOrAfter(1 << 20, NS_PER_S));
        let truth = look(&shared);
        hold(&truth, &tally, 0);
        assert!(truth.counts.get("without a pong").is_some_and(|lost| *lost > 0), "{:?}", truth.counts);
    }
}
