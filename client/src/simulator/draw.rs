//! Which load a seed stands for: the combinations that a command line can ask for.

use super::faults::Faults;
use super::peer::SIZE;
use loadgen_core::arrivals::{Process, Profile, Schedule};
use loadgen_core::load::turns::Turns;
use loadgen_core::load::users::{Lengths, Sessions, Traffic};
use loadgen_core::load::{Config, StopRule, Usage};
use loadgen_core::protocol::{Client, ClientOptions, PROTOCOLS, Protocol, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::service_time::Distribution;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};

#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) seed: u64,
    pub(super) protocol: &'static Protocol,
    pub(super) options: ClientOptions,
    pub(super) server_size: usize,
    pub(super) config: Config,
    pub(super) rate: Option<(Process, Profile)>,
    pub(super) faults: Faults,
    /// Our own thread stands still now and then.
    pub(super) stalls: bool,
    /// When the load begins, whoever is there.
    pub(super) go_at_last: Instant,
    /// When somebody interrupts the run; long after its end, unless this says that it is to be early.
    pub(super) stop_at: Instant,
    pub(super) stops_early: bool,
}

fn one_of<T: Copy>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.below(these.len() as u64) as usize]
}

impl Drawn {
    pub(super) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let protocols: Vec<&Protocol> = PROTOCOLS.iter().filter(|protocol| protocol.shape.has_replies()).collect();
        let protocol = one_of(rng, &protocols);
        let size = one_of(rng, &[1, 64, 64, 3_000, 40_000]);
        let size = if protocol.shape == Shape::Datagram { size.clamp(32, 3_000) } else { size };
        let options = options(protocol, size, rng);
        let faults = Faults::draw(rng);
        let origin = Instant(NS_PER_S);
        let mut config = config(protocol, origin, rng);
        let rate = (rng.below(2) == 0).then(|| open(&mut config, rng, seed));
        if rate.is_none() {
            closed(&mut config, protocol, rng);
        }
        let stops_early = rng.below(8) == 0;
        let last = if stops_early { rng.below(300 * NS_PER_MS) } else { 20 * NS_PER_S };
        Self {
            seed,
            protocol,
            options,
            server_size: if matches!(protocol.name, "echo" | "udp") { size } else { SIZE },
            config,
            rate,
            stalls: !faults.is_calm() && rng.below(3) == 0,
            faults,
            go_at_last: origin.after(one_of(rng, &[20 * NS_PER_MS, 300 * NS_PER_MS])),
            stop_at: origin.after(last),
            stops_early,
        }
    }

    pub(super) fn clients(&self) -> Vec<Box<dyn Client>> {
        let client = |_: &String| (self.protocol.client)(&self.options).expect("a client half");
        self.config.addresses.iter().map(client).collect()
    }

    /// The request of which all are copies; empty where they differ.
    pub(super) fn alike(&self) -> Vec<u8> {
        let client = &self.clients()[0];
        if client.shares() { client.request().to_vec() } else { Vec::new() }
    }
}

fn options(protocol: &Protocol, size: usize, rng: &mut Rng) -> ClientOptions {
    let body = if rng.below(2) == 0 { vec![b'b'; size] } else { Vec::new() };
    let mix = if protocol.store && rng.below(2) == 0 { vec![("get".into(), 3), ("set".into(), 1)] } else { Vec::new() };
    let is_http = protocol.name == "http";
    ClientOptions {
        size,
        authority: "simulated".into(),
        path: if is_http { one_of(rng, &["/", "/bytes/10", "/chunked/5000", "/status/404"]) } else { "" }.into(),
        method: if body.is_empty() || !is_http { "GET" } else { "POST" }.into(),
        body: if is_http { body } else { Vec::new() },
        mix,
        seed: rng.next_u64(),
        worker: (0, 1),
        ..ClientOptions::default()
    }
}

fn config(protocol: &Protocol, origin: Instant, rng: &mut Rng) -> Config {
    let active = 1 + rng.below(8) as usize;
    Config {
        shape: protocol.shape,
        addresses: vec!["simulated".to_owned()],
        turns: Turns::new(std::iter::once(0), &[1]),
        all_active: active as u64,
        active,
        idle: one_of(rng, &[0, 0, 1, 3]),
        schedules: Vec::new(),
        traffic: Traffic::default(),
        connections_over_time: None,
        worker: (0, 1),
        depth: one_of(rng, &[1, 1, 2, 4, 16]),
        in_flight_max: None,
        requests_per_connection: None,
        stop_rule: StopRule::After(NS_PER_MS * (5 + rng.below(60))),
        warmup_ns: one_of(rng, &[0, 5 * NS_PER_MS]),
        timeout_ns: one_of(rng, &[10 * NS_PER_MS, 60 * NS_PER_MS, 400 * NS_PER_MS]),
        connect_rate: one_of(rng, &[None, None, Some(500)]),
        unproven_max: one_of(rng, &[1, 3, 100]),
        seed: rng.next_u64(),
        origin,
        usage: Usage::default,
    }
}

/// An open loop: requests, or sessions, arrive by a schedule.
fn open(config: &mut Config, rng: &mut Rng, seed: u64) -> (Process, Profile) {
    let process = one_of(rng, &[Process::Constant, Process::Poisson]);
    let profile = match rng.below(4) {
        0 => Profile::parse("200:10ms,200..8k:20ms,1k:30ms").expect("a profile"),
        _ => Profile::flat(one_of(rng, &[100, 2_000, 15_000])),
    };
    // As `destination::schedules` has it.
    let schedule = Schedule::new(process, profile.after(config.warmup_ns), seed, 0, 1, Instant(0));
    config.schedules = vec![Some(schedule)];
    let streams = config.shape == Shape::Exchange;
    match rng.below(3) {
        0 if streams => {
            config.depth = 1;
            let lengths = one_of(rng, &["1", "3", "2..6", "geom:0.3"]);
            let lengths = Lengths::parse(lengths).expect("lengths");
            config.traffic.sessions = Some(Sessions { lengths, fresh: rng.below(2) == 0 });
            config.traffic.think = (rng.below(2) == 0).then_some(Distribution::Exponential(2 * NS_PER_MS));
        }
        1 if streams => config.requests_per_connection = one_of(rng, &[None, Some(1), Some(3)]),
        _ => {}
    }
    (process, profile)
}

/// A closed loop: what is due next, replies say, or users who think, or turns.
fn closed(config: &mut Config, protocol: &Protocol, rng: &mut Rng) {
    let streams = protocol.shape == Shape::Exchange;
    if rng.below(4) == 0 {
        // Two targets: each request is written anew, though they are alike.
        config.addresses.push("another".to_owned());
        config.turns = Turns::new([0, 1].into_iter(), &[1, 2]);
    }
    match rng.below(6) {
        0 if streams => {
            config.depth = 1;
            config.traffic.think = Some(one_of(rng, &["fixed:1ms", "exp:3ms", "exp:20ms"]))
                .map(|text| Distribution::parse(text, |_| Err("no file".into())).expect("a distribution"));
        }
        1 => config.in_flight_max = Some(1 + rng.below(config.active as u64)),
        2 if streams => config.requests_per_connection = Some(1 + rng.below(5) as u32),
        3 => {
            (config.active, config.all_active) = (6, 6);
            config.connections_over_time = Some(Profile::parse("2:10ms,2..6:20ms,3:30ms").expect("a profile"));
        }
        _ => {}
    }
    if rng.below(4) == 0 {
        let requests = (config.active + config.idle) as u64 + rng.below(200);
        config.warmup_ns = 0;
        config.stop_rule = match rng.below(2) {
            0 => StopRule::Requests(requests),
            _ => StopRule::RequestsOrAfter(requests, 50 * NS_PER_MS),
        };
    }
}
