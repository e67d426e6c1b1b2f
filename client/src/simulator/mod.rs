//! Whole loads in virtual time: the load over a network and peers that misbehave, all drawn from one seed.
//!
//! A seed that fails is printed with the command that replays it: `LOADGEN_SIMULATOR_SEED=N cargo test -p loadgen
//! simulator` runs it alone, and `LOADGEN_SIMULATOR_SEEDS=N` so many from the first one on.
//!
//! # What is drawn
//!
//! - Every protocol of the table with its own server half, streams among them; the dialects of redis and memcached;
//!   under TLS 1.2 and 1.3, with and without tickets. Of TLS lengths replay, contents do not: keys sign with Ed25519.
//! - Open loops (constant, Poisson; flat, with ramps and steps) and closed ones; pipelining; turns (`--in-flight`);
//!   users who think, as drawn or by the steps of a script; sessions, on connections that are kept or new; churn;
//!   connections whose number changes; idle ones; several targets with weights and addresses; one to three workers of
//!   one run.
//! - Runs by duration, by a number of requests or both, that are stopped early, or closed early (`--until-ci`).
//! - Connects that fail, at once or later, or hang; short and refused sends, an engine that holds what the kernel has
//!   no room for, sends that fail; replies that are cut anywhere, doubled, overtaken (messages) or missing, or come
//!   before their request has left; noise; ends and resets anywhere; closes that are announced; peers that stop
//!   reading, or stand still; a thread of ours that stands still, and hears late that the load has begun.
//!
//! # What must hold
//!
//! - It ends, nothing panics, and every connection is closed and counted once (`ledger`).
//! - The ledger closes, of window and whole run, by kinds and targets, and is what the log of requests says
//!   (`ledger`, `window`): so are the histograms' count, mean, least and most, the series, and the bytes of the
//!   window.
//! - Each due time of an independent schedule is of one request, and no request is due at another; workers share one
//!   schedule; a closed loop's next request is due the moment the reply came; think times are used once each, in the
//!   place of the script where they belong (`schedule`).
//! - The truth of both ends (`truth`): a request is said to be sent just before its first byte left, and answered
//!   just after the last byte of its own reply came; the peer saw none that was not sent, and answered all that are
//!   ok; bytes are equal; streams have every byte in its place.
//! - Nothing is waited for beyond the timeout; lag and backlog are all of a request's lateness, and lag is at most
//!   what we stood still; no more in flight, no more connections in use and no faster attempts than was asked for
//!   (`pace`).
//!
//! # What is not
//!
//! The engines themselves (they have tests over sockets); a handle that outlives its connection, but as events of
//! an earlier one that must not be told; logins, key spaces, ALPN and client certificates; several rings; memory
//! that runs out; whose fault lateness is where both were to blame. After noise, and after a reply that never comes
//! where others follow on the same stream, which reply is whose cannot be said: there only sums are checked.

mod checks;
mod draw;
mod faults;
mod multiplexed;
mod network;
mod peer;
mod secure;
mod truth;
mod users;

use draw::Drawn;
use loadgen_core::load::Load;
use loadgen_core::load::request_log::RequestLog;
use loadgen_core::load::tally::Tally;
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use network::Network;
use peer::Kind;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of one test; more by `LOADGEN_SIMULATOR_SEEDS`.
const SEEDS: u64 = 3_000;

/// The test that replays a seed.
const TEST: &str = "every_seed_ends_and_closes_its_ledger";

/// Room in the request log: for all that a run has.
const LOG_ROWS: usize = 100_000;

/// Turns after which a run is said not to end.
const TURNS_MAX: u64 = 500_000;

/// The longest wait of a worker, as [`crate::worker`] has it.
const WAIT_MAX_NS: u64 = 50 * NS_PER_MS;

/// What came of one worker's run.
struct Outcome {
    tally: Tally,
    network: Network,
    /// When the load began.
    began: Instant,
    /// When the worker heard of it.
    going_from: Instant,
    /// All connections had been served by then.
    all_ready: bool,
    /// It ended because we said so, before its time: when we did.
    stopped: Option<Instant>,
    /// It had shown what it was to show, and its window was to close before its time: when we said so.
    told_to_finish: Option<Instant>,
    /// When our own thread stood still.
    stalls: Vec<(Instant, Instant)>,
    ended: Instant,
}

/// Runs one worker's share of a load to its end, as its thread does.
fn run(drawn: &Drawn, rng: &mut Rng) -> Outcome {
    watched(drawn, rng, |_| {})
}

/// Likewise; `watch` is told the time before the network and its peers have their turn.
fn watched(drawn: &Drawn, rng: &mut Rng, mut watch: impl FnMut(Instant)) -> Outcome {
    let mut load = Load::new(drawn.config.clone(), drawn.clients());
    load.log_to(RequestLog::keeping(Vec::with_capacity(LOG_ROWS), LOG_ROWS));
    let capacity = drawn.config.active + drawn.config.idle;
    let mut network = network(drawn, capacity);
    let mut now = drawn.config.origin;
    network.pass(now);
    let (mut began, mut going_from, mut all_ready, mut stopped) = (Instant::NEVER, Instant::NEVER, false, None);
    let (mut told_to_finish, mut stalls) = (None, Vec::new());
    for _ in 0..TURNS_MAX {
        let may_go = began == Instant::NEVER && stopped.is_none();
        if may_go && (load.ready() >= capacity as u64 || now >= drawn.go_at_last) {
            // A worker hears of the common beginning a little after it.
            began = Instant((now.0 - rng.below(3 * NS_PER_MS)).max(drawn.config.origin.0));
            now = network.moment();
            going_from = now;
            all_ready = load.ready() >= capacity as u64;
            load.go(&mut network, began, now);
        }
        if now >= drawn.stop_at {
            now = network.moment();
            stopped.get_or_insert(now);
            load.stop(&mut network, now, drawn.stop_at.after(drawn.config.timeout_ns));
        }
        if let Some(early_ns) = drawn.finishes_after_ns.filter(|_| began != Instant::NEVER) {
            let at = began.after(drawn.config.warmup_ns + early_ns);
            if load.tally().window_from.is_some() {
                told_to_finish.get_or_insert(now);
            }
            load.finish_at(at, now);
        }
        load.tick(&mut network, now);
        network.tell_not_taken(&mut load);
        network.hand_over(&mut load);
        if load.finished() {
            let tally = load.into_tally(now);
            return Outcome {
                tally,
                network,
                began,
                going_from,
                all_ready,
                stopped,
                told_to_finish,
                stalls,
                ended: now,
            };
        }
        let wait_ns = load.next_deadline().since(now).min(WAIT_MAX_NS);
        let expected = now.after(wait_ns);
        load.waits_until(expected);
        let mut then = expected.min(network.next()).max(now.after(1_000));
        if drawn.stalls && rng.below(400) == 0 {
            // We stand still: what happens meanwhile is seen late.
            let from = then;
            let longest_ns = if rng.below(3) == 0 { 150 * NS_PER_MS } else { 8 * NS_PER_MS };
            then = then.after(rng.below(longest_ns));
            stalls.push((from, then));
            if began != Instant::NEVER && then.since(from) >= 5 * NS_PER_MS {
                load.stood_still(from, then);
            }
        }
        network.pass(then);
        watch(network.time());
        network.turn(&mut load);
        now = network.time();
        assert!(now.0 < drawn.config.origin.0 + 3_600 * NS_PER_S, "an hour has passed, and it has not ended");
    }
    panic!("it does not end: {TURNS_MAX} turns, {now:?}, deadline {:?}", load.next_deadline());
}

fn network(drawn: &Drawn, capacity: usize) -> Network {
    let kind = Kind {
        protocol: drawn.protocol,
        size: drawn.server_size,
        request: drawn.alike(),
        greetings: drawn.greeting_replies(),
        tls: drawn.tls.as_ref().map(|ends| ends.server.clone()),
    };
    let seed = drawn.seed ^ drawn.config.worker.0 << 32;
    let mut network = Network::new(kind, drawn.config.depth, capacity, drawn.faults.clone(), seed);
    network.addresses = drawn.config.addresses.len();
    network
}

/// Answers a digest of all that was logged.
fn simulate(seed: u64) -> u64 {
    let mut rng = Rng::new(seed);
    let drawn = Drawn::draw(seed, &mut rng);
    let mut parts = Vec::new();
    for worker in 0..drawn.workers {
        let own = drawn.of_worker(worker);
        let outcome = run(&own, &mut rng);
        checks::check(&own, &outcome);
        parts.push((own, outcome));
    }
    checks::check_together(&parts);
    let mut digest = DefaultHasher::new();
    for (_, Outcome { tally, ended, .. }) in &parts {
        (tally.bytes.sent, tally.bytes.received, ended.0).hash(&mut digest);
        let rows = tally.log.rows().iter();
        rows.for_each(|row| (row.slot, row.due.0, row.sent.0, row.ended.0, row.outcome).hash(&mut digest));
    }
    digest.finish()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Seeds that failed, in order.
fn failures(seeds: u64) -> Vec<u64> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if catch_unwind(AssertUnwindSafe(|| simulate(seed))).is_err() {
                failed.lock().expect("nobody panics with it").push(seed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    let mut failed = failed.into_inner().expect("nobody panics with it");
    failed.sort_unstable();
    failed
}

#[test]
fn every_seed_ends_and_closes_its_ledger() {
    if let Some(seed) = number("LOADGEN_SIMULATOR_SEED") {
        eprintln!("{:#?}", Drawn::draw(seed, &mut Rng::new(seed)));
        return eprintln!("digest {:016x}", simulate(seed));
    }
    let seeds = number("LOADGEN_SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let failed = failures(seeds);
    let commands = failed.iter().take(20).map(|seed| {
        format!("\n    LOADGEN_SIMULATOR_SEED={seed} cargo test -p loadgen --bin loadgen {TEST} -- --nocapture")
    });
    let commands: String = commands.collect();
    assert!(failed.is_empty(), "{} of {seeds} seeds failed; to see one again:{commands}", failed.len());
}

/// Runs of a number of requests never ended: the last of them waited for connections that were not wanted any more, or
/// behind one that nothing was left to prove. A window opened after its run had been stopped, and what was booked then
/// was never settled. The rest of a handshake was before a request, and the wait for it was said to be ours.
const ONCE_FAILED: [u64; 5] = [16_567, 17_451, 24_759, 374_134, 324_021];

#[test]
fn seeds_that_failed_once_do_not_any_more() {
    ONCE_FAILED.into_iter().for_each(|seed| _ = simulate(seed));
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for seed in 0..100 {
        assert_eq!(simulate(seed), simulate(seed), "seed {seed}");
    }
}
