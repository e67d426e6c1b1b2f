//! Whole loads in virtual time: the session over a network and peers that misbehave, all drawn from one seed. Each seed
//! must come to an end, close its ledger, keep its schedule, and never report less than the simulated truth.
//!
//! A seed that fails is printed; `LOADGEN_SIMULATOR_SEED=N cargo test -p loadgen simulator` runs it alone, and
//! `LOADGEN_SIMULATOR_SEEDS=N` runs so many from the first one on.

mod checks;
mod draw;
mod faults;
mod network;
mod peer;

use draw::Drawn;
use loadgen_core::load::Load;
use loadgen_core::load::request_log::RequestLog;
use loadgen_core::load::tally::Tally;
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use network::Network;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of one test; more by `LOADGEN_SIMULATOR_SEEDS`.
const SEEDS: u64 = 400;

/// Room in the request log: for all that a run has.
const LOG_ROWS: usize = 100_000;

/// Turns after which a run is said not to end.
const TURNS_MAX: u64 = 500_000;

/// The longest wait of a worker, as [`crate::worker`] has it.
const WAIT_MAX_NS: u64 = 50 * NS_PER_MS;

/// What came of a run.
struct Outcome {
    tally: Tally,
    network: Network,
    /// When the load began.
    began: Instant,
    /// All connections had been served by then.
    all_ready: bool,
    /// It ended because we said so, before its time.
    stopped: bool,
}

/// Runs a load to its end, as a worker thread does.
fn run(drawn: &Drawn, rng: &mut Rng) -> Outcome {
    let mut session = Load::new(drawn.config.clone(), drawn.clients());
    session.log_to(RequestLog::keeping(Vec::with_capacity(LOG_ROWS), LOG_ROWS));
    let capacity = drawn.config.active + drawn.config.idle;
    let mut network = Network::new(
        drawn.protocol,
        (drawn.alike(), drawn.server_size),
        drawn.config.depth,
        capacity,
        drawn.faults.clone(),
        drawn.seed,
    );
    let mut now = drawn.config.origin;
    network.pass(now);
    let (mut began, mut all_ready, mut stopped) = (Instant::NEVER, false, false);
    for _ in 0..TURNS_MAX {
        if began == Instant::NEVER && (session.ready() >= capacity as u64 || now >= drawn.go_at_last) {
            // A worker hears of the common beginning a little after it.
            began = Instant((now.0 - rng.below(3 * NS_PER_MS)).max(drawn.config.origin.0));
            all_ready = session.ready() >= capacity as u64;
            session.go(&mut network, began, now);
        }
        if now >= drawn.stop_at {
            stopped = true;
            session.stop(&mut network, now, drawn.stop_at.after(drawn.config.timeout_ns));
        }
        session.tick(&mut network, now);
        network.tell_not_taken(&mut session);
        if session.finished() {
            let tally = session.into_tally(now);
            return Outcome { tally, network, began, all_ready, stopped };
        }
        let wait_ns = session.next_deadline().since(now).min(WAIT_MAX_NS);
        let expected = now.after(wait_ns);
        session.waits_until(expected);
        let mut then = expected.min(network.next()).max(now.after(1_000));
        if drawn.stalls && rng.below(2_000) == 0 {
            // We stand still: what happens meanwhile is seen late.
            let from = then;
            then = then.after(rng.below(150 * NS_PER_MS));
            if began != Instant::NEVER && then.since(from) >= 5 * NS_PER_MS {
                session.stood_still(from, then);
            }
        }
        network.pass(then);
        network.turn(&mut session);
        now = network.time();
        assert!(now.0 < drawn.config.origin.0 + 3_600 * NS_PER_S, "an hour has passed, and it has not ended");
    }
    panic!("it does not end: {TURNS_MAX} turns, {now:?}, deadline {:?}", session.next_deadline());
}

fn simulate(seed: u64) {
    let mut rng = Rng::new(seed);
    let drawn = Drawn::draw(seed, &mut rng);
    let outcome = run(&drawn, &mut rng);
    checks::check(&drawn, &outcome);
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn every_seed_ends_and_closes_its_ledger() {
    if let Some(seed) = number("LOADGEN_SIMULATOR_SEED") {
        eprintln!("{:#?}", Drawn::draw(seed, &mut Rng::new(seed)));
        return simulate(seed);
    }
    let seeds = number("LOADGEN_SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> =
        (0..seeds).filter(|seed| catch_unwind(AssertUnwindSafe(|| simulate(*seed))).is_err()).collect();
    let first: Vec<&u64> = failed.iter().take(20).collect();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed: {first:?}; run one with LOADGEN_SIMULATOR_SEED=N cargo test -p loadgen simulator",
        failed.len()
    );
}
