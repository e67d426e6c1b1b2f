//! Who asks, and when: open and closed loops, users who think, sessions, churn, scripts.

use super::draw::{Drawn, asks_for_paths, one_of};
use loadgen_core::arrivals::{Process, Profile};
use loadgen_core::load::users::{Lengths, Sessions};
use loadgen_core::load::{Config, StopRule};
use loadgen_core::protocol::Protocol;
use loadgen_core::rng::Rng;
use loadgen_core::scenario::Scenario;
use loadgen_core::service_time::Distribution;
use loadgen_core::time::NS_PER_MS;
use std::sync::Arc;

/// Think times of a trace: each says by its length which of them it is.
const THOUGHT_FIRST_NS: u64 = 200_000;
const THOUGHT_STEP_NS: u64 = 401;
const THOUGHTS: u64 = 20_000;

/// Think times that differ from each other, in order: none may be left out, or used twice.
pub(super) fn numbered_thoughts() -> Distribution {
    Distribution::Trace((0..THOUGHTS).map(|n| THOUGHT_FIRST_NS + n * THOUGHT_STEP_NS).collect())
}

/// Which of [`numbered_thoughts`] this one was.
pub(super) fn number_of_thought(ns: u64) -> Option<u64> {
    let beyond = ns.checked_sub(THOUGHT_FIRST_NS)?;
    (beyond % THOUGHT_STEP_NS == 0 && beyond / THOUGHT_STEP_NS < THOUGHTS).then_some(beyond / THOUGHT_STEP_NS)
}

fn thoughts(rng: &mut Rng) -> Distribution {
    match rng.below(4) {
        0 => Distribution::Fixed(NS_PER_MS),
        1 => Distribution::Exponential(one_of(rng, &[2 * NS_PER_MS, 20 * NS_PER_MS])),
        _ => numbered_thoughts(),
    }
}

/// An open loop: requests, or sessions, arrive by a schedule.
pub(super) fn open(config: &mut Config, protocol: &Protocol, rng: &mut Rng) -> (Process, Profile) {
    let process = one_of(rng, &[Process::Constant, Process::Poisson]);
    let profile = match rng.below(4) {
        0 => Profile::parse("200:10ms,200..8k:20ms,1k:30ms").expect("a profile"),
        1 => Profile::parse("5k:7ms,100:5ms,9k:9ms,50:1ms").expect("a profile"),
        _ => Profile::flat(one_of(rng, &[100, 2_000, 15_000])),
    };
    let streams = protocol.converses();
    match rng.below(4) {
        0 if streams => {
            config.depth = 1;
            let lengths = one_of(rng, &["1", "3", "2..6", "geom:0.3"]);
            let lengths = Lengths::parse(lengths).expect("lengths");
            config.traffic.sessions = Some(Sessions { lengths, fresh: rng.below(2) == 0 });
            config.traffic.think = (rng.below(2) == 0).then(|| thoughts(rng));
        }
        1 if streams => config.requests_per_connection = one_of(rng, &[None, Some(1), Some(3)]),
        2 if rng.below(2) == 0 => steps(config),
        _ => {}
    }
    (process, profile)
}

/// The number of connections changes over time.
fn steps(config: &mut Config) {
    config.active = 6;
    let profile = Profile::parse("2:10ms,2..6:20ms,3:30ms").expect("a profile");
    config.connections_over_time = Some(profile.after(config.warmup_ns));
}

/// A closed loop: what is due next, replies say, or users who think, or turns.
pub(super) fn closed(config: &mut Config, protocol: &Protocol, rng: &mut Rng) {
    let streams = protocol.converses();
    let has_replies = protocol.shape.has_replies();
    match rng.below(6) {
        0 if streams => {
            config.depth = 1;
            config.traffic.think = Some(thoughts(rng));
            config.requests_per_connection = one_of(rng, &[None, Some(3)]);
        }
        1 if has_replies => config.in_flight_max = Some(1 + rng.below(config.active as u64)),
        2 if streams => config.requests_per_connection = Some(1 + rng.below(5) as u32),
        3 => steps(config),
        _ => {}
    }
    if has_replies && rng.below(4) == 0 {
        let requests = (config.active + config.idle) as u64 + rng.below(200);
        config.warmup_ns = 0;
        config.stop_rule = match rng.below(2) {
            0 => StopRule::Requests(requests),
            _ => StopRule::RequestsOrAfter(requests, 50 * NS_PER_MS),
        };
    }
}

/// Requests `a`, `b`, `c` in a row, or `d` alone; their letters stand behind `?`, so that the peer knows them.
const OF_PATHS: &str = "[[request]]\nname = 'a'\npath = '/bytes/10?a'\n[[request]]\nname = 'b'\nmethod = 'POST'\n\
    path = '/chunked/300?b'\nbody = 'some {counter}'\n[[request]]\nname = 'c'\npath = '/?c'\n\
    [[request]]\nname = 'd'\npath = '/bytes/3?d'\nweight = 1\n";
const OF_COMMANDS: &str = "[[request]]\nname = 'a'\ncommand = 'SET {key} {value}'\n[[request]]\nname = 'b'\n\
    command = 'GET {key}'\n[[request]]\nname = 'c'\ncommand = 'PING'\n\
    [[request]]\nname = 'd'\ncommand = 'EXISTS {key}'\nweight = 1\n";

/// In some seeds a scenario says what is asked.
pub(super) fn scripted(drawn: &mut Drawn, rng: &mut Rng) {
    let requests = match drawn.protocol {
        protocol if asks_for_paths(protocol) => OF_PATHS,
        protocol if protocol.store && protocol.paths => OF_COMMANDS,
        _ => return,
    };
    let traffic = &mut drawn.config.traffic;
    let thinks = traffic.think.is_some();
    if rng.below(if thinks { 2 } else { 4 }) > 0 {
        return;
    }
    let b = if thinks { "{ request = 'b', think = 'fixed:777us' }" } else { "'b'" };
    let text = format!("{requests}[[script]]\nname = 's'\nweight = 2\nsteps = ['a', {b}, 'c']\n");
    let scenario = Scenario::parse("simulated", &text, &mut |file| Err(file.to_owned())).expect("a scenario");
    let scenario = Arc::new(scenario);
    traffic.scripts = scenario.thinks().then(|| Arc::clone(&scenario));
    drawn.options.scenario = Some(scenario);
    drawn.options.body = Vec::new();
    drawn.options.method = "GET".into();
    (drawn.options.path, drawn.options.mix) =
        (if asks_for_paths(drawn.protocol) { "/" } else { "" }.into(), Vec::new());
}

/// How long the step of a script thinks that has a think time of its own.
pub(super) const STEP_THINKS_NS: u64 = 777_000;
