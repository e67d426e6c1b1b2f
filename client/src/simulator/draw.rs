//! Which load a seed stands for: the combinations that a command line can ask for.

use super::faults::Faults;
use super::peer::SIZE;
use super::secure::Ends;
use super::users;
use loadgen_core::arrivals::{Process, Profile, Schedule, Split};
use loadgen_core::load::turns::Turns;
use loadgen_core::load::users::Traffic;
use loadgen_core::load::{Config, StopRule, Usage};
use loadgen_core::protocol::ticket::Order;
use loadgen_core::protocol::tls::Tls;
use loadgen_core::protocol::{Client, ClientOptions, PROTOCOLS, Protocol, Shape};
use loadgen_core::rng::Rng;
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use std::collections::BTreeSet;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) seed: u64,
    pub(super) protocol: &'static Protocol,
    pub(super) options: ClientOptions,
    pub(super) server_size: usize,
    /// Of one worker; with more, each has its share of the connections ([`Drawn::of_worker`]).
    pub(super) config: Config,
    pub(super) weights: Vec<u32>,
    pub(super) workers: u64,
    pub(super) rate: Option<(Process, Profile)>,
    pub(super) faults: Faults,
    pub(super) tls: Option<Ends>,
    /// Our own thread stands still now and then.
    pub(super) stalls: bool,
    /// When the load begins, whoever is there.
    pub(super) go_at_last: Instant,
    /// When somebody interrupts the run; long after its end, unless this says that it is to be early.
    pub(super) stop_at: Instant,
    pub(super) stops_early: bool,
    /// The window is closed as soon as this, as by `--until-ci`.
    pub(super) finishes_after_ns: Option<u64>,
}

pub(super) fn one_of<T: Copy>(rng: &mut Rng, these: &[T]) -> T {
    these[rng.below(these.len() as u64) as usize]
}

impl Drawn {
    pub(super) fn draw(seed: u64, rng: &mut Rng) -> Self {
        let protocol = &PROTOCOLS[rng.below(PROTOCOLS.len() as u64) as usize];
        let size = match protocol.shape {
            Shape::Exchange if protocol.transport.has_messages() => one_of(rng, &[32, 64, 3_000]),
            Shape::Upload | Shape::Download => one_of(rng, &[700, 3_000, 16_000]),
            Shape::Exchange => one_of(rng, &[1, 64, 64, 3_000, 40_000]),
        };
        let options = options(protocol, size, rng);
        let mut faults = Faults::draw(rng);
        let origin = Instant(NS_PER_S);
        let mut config = config(protocol, origin, rng);
        let weights = targets(&mut config, rng);
        let has_replies = protocol.shape.has_replies();
        let rate = (has_replies && rng.below(2) == 0).then(|| users::open(&mut config, protocol, rng));
        if rate.is_none() {
            users::closed(&mut config, protocol, rng);
        }
        if !has_replies {
            faults.is_for_streams();
        }
        let tls = (protocol.transport.has_connections() && rng.below(8) == 0).then(|| Ends::draw(rng));
        let workers = one_of(rng, &[1, 1, 1, 1, 1, 2, 3]);
        if let StopRule::After(ns) = &mut config.stop_rule {
            // As long as can be simulated in some milliseconds.
            let streams = u64::from(!has_replies);
            let places =
                (workers + 2 * streams) * (config.active * config.depth) as u64 * if tls.is_some() { 3 } else { 1 };
            *ns = (5 * NS_PER_MS).max(*ns / (1 + places / 12));
        }
        let stops_early = rng.below(8) == 0;
        let last = if stops_early { rng.below(300 * NS_PER_MS) } else { 20 * NS_PER_S };
        let steady = config.connections_over_time.is_none() && matches!(config.stop_rule, StopRule::After(_));
        let finishes = has_replies && steady && rng.below(10) == 0;
        config.traffic.reset = protocol.transport.has_connections() && rng.below(8) == 0;
        let mut drawn = Self {
            seed,
            protocol,
            options,
            server_size: if mirrors(protocol) { size } else { SIZE },
            config,
            weights,
            workers,
            rate,
            stalls: rng.below(3) == 0,
            faults,
            tls,
            go_at_last: origin.after(one_of(rng, &[20 * NS_PER_MS, 300 * NS_PER_MS])),
            stop_at: origin.after(last),
            stops_early,
            finishes_after_ns: finishes.then(|| rng.below(30 * NS_PER_MS)),
        };
        users::scripted(&mut drawn, rng);
        drawn
    }

    /// One worker's share, as [`crate::run::config`] has it.
    pub(super) fn of_worker(&self, index: u64) -> Self {
        let mut own = self.clone();
        let workers = self.workers;
        let config = &mut own.config;
        config.all_active = self.config.active as u64 * workers;
        config.worker = (index, workers);
        config.seed = self.config.seed.wrapping_add(index);
        own.options.worker = (index, workers);
        config.schedules = self.schedules(index, workers);
        own
    }

    /// When what is due for each target is due that a worker sends. None: it has no connection there.
    fn schedules(&self, index: u64, workers: u64) -> Vec<Option<Schedule>> {
        let Some((process, profile)) = &self.rate else { return Vec::new() };
        let profile = profile.after(self.config.warmup_ns);
        if self.weights.len() < 2 {
            return vec![Some(Schedule::new(*process, profile, self.seed, index, workers, Instant(0)))];
        }
        let turns = self.config.turns.order();
        let all = self.config.active as u64 * workers;
        let of = |target: usize| {
            let theirs = (0..all).filter(|n| self.config.turns.target(*n) == target).map(|n| n % workers);
            let carriers: Vec<u64> = theirs.collect::<BTreeSet<u64>>().into_iter().collect();
            let place = carriers.iter().position(|worker| *worker == index)?;
            let split = Split::new(Arc::clone(turns), target as u16, self.seed);
            let (place, count) = (place as u64, carriers.len() as u64);
            Some(Schedule::of_target(*process, profile.clone(), self.seed, split, place, count))
        };
        (0..self.weights.len()).map(of).collect()
    }

    /// When all that a worker sends is due, by target, from `began` until `ends`.
    pub(super) fn dues(&self, began: Instant, ends: Instant) -> Vec<Vec<Instant>> {
        let (index, workers) = self.config.worker;
        let until = |schedule: Option<Schedule>| {
            let Some(mut schedule) = schedule else { return Vec::new() };
            schedule.begin(began);
            std::iter::repeat_with(|| schedule.next_due()).take_while(|due| *due < ends).collect()
        };
        self.schedules(index, workers).into_iter().map(until).collect()
    }

    /// Likewise of all workers together, whatever the target.
    pub(super) fn all_dues(&self, began: Instant, ends: Instant) -> Vec<Instant> {
        let Some((process, profile)) = &self.rate else { return Vec::new() };
        let profile = profile.after(self.config.warmup_ns);
        let mut schedule = Schedule::new(*process, profile, self.seed, 0, 1, began);
        std::iter::repeat_with(|| schedule.next_due()).take_while(|due| *due < ends).collect()
    }

    pub(super) fn clients(&self) -> Vec<Box<dyn Client>> {
        let under_tls = |client| match &self.tls {
            Some(ends) => Tls::boxed(client, ends.client.clone()),
            None => client,
        };
        self.weights.iter().map(|_| under_tls(self.client())).collect()
    }

    fn client(&self) -> Box<dyn Client> {
        (self.protocol.client)(&self.options).expect("a client half")
    }

    /// The request of which all are copies; empty where they differ.
    pub(super) fn alike(&self) -> Vec<u8> {
        let client = self.client();
        if client.shares() { client.request().to_vec() } else { Vec::new() }
    }

    /// Streams share a connection: replies come in any order, and the peer may hold requests back, give one up alone,
    /// or close when it has said so. Checks that rest on its doing nothing of the kind are left out.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.protocol.converses() && self.client().order() == Order::Any
    }

    /// Connections whose first bytes are a greeting: how many replies that has.
    pub(super) fn greeting_replies(&self) -> u32 {
        let codec = self.client().into_codec();
        codec.as_ref().and_then(|codec| codec.greeting()).map_or(0, |(_, replies)| replies)
    }
}

/// Whether what is asked for is a path alone.
pub(super) fn asks_for_paths(protocol: &Protocol) -> bool {
    protocol.headers
}

/// Whether a reply is what was asked.
fn mirrors(protocol: &Protocol) -> bool {
    protocol.shape.has_replies() && !protocol.paths && !protocol.store
}

/// The dialect beside the usual one. Stores have one.
fn other_dialect(protocol: &Protocol) -> Option<&'static str> {
    let takes = |dialect: &&str| {
        let options = ClientOptions { dialect: Some((*dialect).to_owned()), ..ClientOptions::default() };
        (protocol.client)(&options).is_ok()
    };
    protocol.store.then(|| ["3", "meta"].into_iter().find(takes).expect("a dialect"))
}

fn options(protocol: &Protocol, size: usize, rng: &mut Rng) -> ClientOptions {
    let has_paths = asks_for_paths(protocol);
    let body = if has_paths && rng.below(2) == 0 { vec![b'b'; size] } else { Vec::new() };
    let mix = if protocol.store && rng.below(2) == 0 { vec![("get".into(), 3), ("set".into(), 1)] } else { Vec::new() };
    let dialect = other_dialect(protocol).filter(|_| rng.below(2) == 1);
    let closes = has_paths && rng.below(8) == 0;
    ClientOptions {
        size,
        authority: "simulated".into(),
        path: if has_paths { one_of(rng, &["/", "/bytes/10", "/chunked/5000", "/status/404"]) } else { "" }.into(),
        method: if body.is_empty() { "GET" } else { "POST" }.into(),
        headers: if closes { vec![("Connection".into(), "close".into())] } else { Vec::new() },
        body,
        mix,
        dialect: dialect.map(str::to_owned),
        seed: rng.next_u64(),
        worker: (0, 1),
        ..ClientOptions::default()
    }
}

/// One target, or several, one of which may have two addresses.
fn targets(config: &mut Config, rng: &mut Rng) -> Vec<u32> {
    // Endless streams take one target.
    let (of, weights): (&[usize], &[u32]) = match rng.below(8) {
        _ if !config.shape.has_replies() => (&[0], &[1]),
        0 => (&[0, 1], &[1, 2]),
        1 => (&[0, 0, 1, 2], &[2, 1, 1]),
        _ => (&[0], &[1]),
    };
    config.addresses = (0..of.len()).map(|address| format!("simulated {address}")).collect();
    config.turns = Turns::new(of.iter().copied(), weights);
    // Each has a connection.
    config.active = config.active.max(config.turns.order().len());
    weights.to_vec()
}

fn config(protocol: &Protocol, origin: Instant, rng: &mut Rng) -> Config {
    let streams = !protocol.shape.has_replies();
    Config {
        transport: protocol.transport,
        shape: protocol.shape,
        addresses: Vec::new(),
        turns: Turns::new(std::iter::once(0), &[1]),
        all_active: 0,
        active: 1 + rng.below(if streams { 3 } else { 8 }) as usize,
        idle: if streams { 0 } else { one_of(rng, &[0, 0, 1, 3]) },
        schedules: Vec::new(),
        traffic: Traffic::default(),
        connections_over_time: None,
        worker: (0, 1),
        depth: if streams { 1 } else { one_of(rng, &[1, 1, 2, 4, 16]) },
        in_flight_max: None,
        requests_per_connection: None,
        stop_rule: StopRule::After(NS_PER_MS * (5 + rng.below(60))),
        warmup_ns: one_of(rng, &[0, 5 * NS_PER_MS]),
        timeout_ns: one_of(rng, &[10 * NS_PER_MS, 60 * NS_PER_MS, 400 * NS_PER_MS]),
        connect_rate: one_of(rng, &[None, None, Some(500)]),
        unproven_max: one_of(rng, &[1, 3, 100]),
        seed: rng.next_u64(),
        run_seed: 1,
        origin,
        usage: Usage::default,
    }
}
