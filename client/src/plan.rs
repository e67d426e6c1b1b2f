//! What a command line means: every default filled in, every name looked up, everything that cannot work refused.

pub mod tls;

use crate::cli::RunArgs;
use crate::destination::Addresses;
use crate::embedded::Injected;
use crate::engine::{self, Engines};
use crate::failure::Failure;
use crate::resolve::{self, ResolvedTarget};
use crate::traffic;
use crate::workload::client_options;
use loadgen_core::arrivals::{Process, Profile, Schedule};
use loadgen_core::confidence::Goal;
use loadgen_core::load::StopRule;
use loadgen_core::load::users::Traffic;
use loadgen_core::protocol::{Client, ClientOptions, Protocol};
use loadgen_core::report::{self, FORMATS};
use loadgen_core::result::Shard;
use loadgen_core::secrets;
use loadgen_core::sys::endpoint::Endpoint;
use loadgen_core::sys::{affinity, ring};
use loadgen_core::time::{Instant, NS_PER_MS, NS_PER_S};
use loadgen_core::units::format_duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use tls::Tls;

const DEFAULT_DURATION_NS: u64 = 10 * NS_PER_S;
/// With `--until-ci`, the window's bound.
const UNTIL_DURATION_NS: u64 = 300 * NS_PER_S;
const DEFAULT_WARMUP_NS: u64 = NS_PER_S;
/// Payload of an exchange, and of a block of a stream.
const DEFAULT_SIZE: u64 = 64;
const DEFAULT_BLOCK_SIZE: u64 = 64 * 1024;
/// Requests of one connection that are on their way, in bytes.
const WIRE_MAX: u64 = 1 << 30;
/// Loopback addresses to connect from, at most.
pub const LOOPBACK_SOURCES: u64 = 60_000;
/// What a sleeping thread takes to wake up on a virtual machine, at most times.
const SPIN_DEFAULT_NS: u64 = 100_000;
/// Kinds of requests, of all targets together: each has a histogram of its own.
const KINDS_MAX: usize = 256;
/// Longer waits are slept, not spun.
const SPIN_MAX_NS: u64 = 10 * NS_PER_MS;
/// Requests of an open loop.
const SCHEDULED_MAX: u64 = 10_000_000_000;
/// Connections from one loopback address: with 25,000 the kernel's search for a free port takes ten times as long.
pub const CONNECTIONS_A_SOURCE: u64 = 8_000;

/// A run, ready to begin.
#[derive(Debug)]
pub struct Plan {
    pub protocol: &'static Protocol,
    pub client_options: ClientOptions,
    /// `--path` was given: it goes before those of the targets.
    pub path_typed: bool,
    /// Where the load goes; none: to an embedded server.
    pub targets: Vec<ResolvedTarget>,
    /// Which of a name's addresses are used.
    pub addresses: Addresses,
    pub sources: Vec<SocketAddr>,
    pub engine: &'static engine::Entry,
    /// The engine that was asked for and why it does not run.
    pub instead_of: Option<String>,
    /// Options of engine `io_uring`: of the client, and of the embedded server if that has it.
    pub ring: ring::Options,
    pub server_ring: Option<ring::Options>,
    pub server_engine: String,
    pub server_threads: u64,
    pub server_injected: Injected,
    pub server_cpus: Vec<usize>,
    pub client_cpus: Vec<usize>,
    /// The most at any time.
    pub connections: u64,
    /// `None`: the same number all the time.
    pub connections_over_time: Option<Profile>,
    /// `None`: a closed loop.
    pub pacing: Option<Pacing>,
    pub spin_ns: u64,
    /// How users think, come and go.
    pub traffic: Traffic,
    tls: Tls,
    pub request_log: Option<PathBuf>,
    pub idle: u64,
    pub threads: u64,
    pub pipeline: u64,
    pub in_flight_max: Option<u64>,
    pub size: u64,
    pub requests_per_connection: Option<u32>,
    pub stop_rule: StopRule,
    /// The run ends before its time when these intervals are narrow enough; none: it does not.
    pub until_ci: Vec<Goal>,
    pub warmup_ns: u64,
    pub timeout_ns: u64,
    pub connect_rate: Option<u64>,
    pub max_unproven: u64,
    pub seed: u64,
    pub labels: BTreeMap<String, String>,
    pub output: Option<PathBuf>,
    pub format: &'static report::Format,
    /// Measure the generator's own floor before the run.
    pub floor: bool,
    pub strict: bool,
    pub quiet: bool,
    /// Which part of the load is ours; `None`: all of it. The numbers above are of the whole.
    pub shard: Option<Shard>,
    /// When the load is to begin, in nanoseconds since 1970.
    pub start_at: Option<u64>,
}

/// An open loop.
#[derive(Debug)]
pub struct Pacing {
    pub rate: Profile,
    pub arrival: Process,
}

impl Plan {
    pub fn new(args: &RunArgs) -> Result<Self, Failure> {
        let targets = resolve::parse_targets(args)?;
        let protocol = resolve::choose_protocol(args, &targets)?;
        let pacing = pacing(args)?;
        let (stop_rule, warmup_ns) = stop_rule(args, pacing.as_ref())?;
        check_schedule(pacing.as_ref(), stop_rule, warmup_ns)?;
        let pipeline = whole("--pipeline", args.pipeline, 1, 1024)?;
        let connections = whole("--conns", args.conns.highest(), 1, 10_000_000)?;
        let threads = whole("--threads", args.threads, 1, 1024)?;
        if threads > connections {
            return Err(Failure::usage(format!("--threads {threads} is more than --conns {connections}")));
        }
        check_shape(protocol, args)?;
        let idle = whole("--idle", args.idle, 0, 10_000_000)?;
        check_requests(stop_rule, connections + idle)?;
        let size = payload(args, protocol, pipeline)?;
        let client_options = client_options(args, protocol, &targets, whole("--size", size, 1, WIRE_MAX)? as usize)?;
        let embedded = targets.is_empty();
        let tls = Tls::new(args, protocol, &targets)?;
        let (server_cpus, client_cpus) = share_cpus(args, embedded, threads)?;
        let Engines { engine, instead_of, ring, server_engine, server_ring } = Engines::choose(args, embedded)?;
        check_rings(protocol, &ring, server_ring.as_ref())?;
        let plan = Self {
            protocol,
            client_options,
            path_typed: args.path.is_some(),
            targets: resolve::resolve_targets(args, targets, protocol)?,
            addresses: args.addresses,
            sources: args.source.iter().map(|ip| SocketAddr::new(*ip, 0)).collect(),
            engine,
            instead_of,
            ring,
            server_engine,
            server_ring,
            server_threads: whole("--server-threads", args.server_threads, 1, 1024)?,
            server_injected: Injected::new(args, protocol)?,
            server_cpus,
            client_cpus,
            connections,
            connections_over_time: args.conns.steady().is_none().then(|| args.conns.clone()),
            spin_ns: spin(args, pacing.as_ref(), threads)?,
            pacing,
            traffic: traffic::of(args, protocol)?,
            tls,
            request_log: request_log(args, protocol)?,
            idle,
            threads,
            pipeline,
            in_flight_max: args.in_flight.map(|n| whole("--in-flight", n, threads, 10_000_000)).transpose()?,
            size,
            requests_per_connection: churn(args)?,
            stop_rule,
            until_ci: until_ci(args, protocol)?,
            warmup_ns,
            timeout_ns: timeout(args.timeout)?,
            connect_rate: args.connect_rate.map(|rate| whole("--connect-rate", rate, 1, NS_PER_S)).transpose()?,
            max_unproven: whole("--max-unproven", args.max_unproven, 1, 1_000_000)?,
            seed: args.seed,
            labels: labels(&args.labels)?,
            output: args.output.clone(),
            format: choose_format(&args.format)?,
            floor: !args.no_floor,
            strict: args.strict,
            quiet: args.quiet,
            shard: None,
            start_at: args.start_at,
        };
        plan.check_wire()?;
        Ok(plan)
    }

    /// What one connection may have on its way is kept in one piece.
    fn check_wire(&self) -> Result<(), Failure> {
        let clients = self.clients(0)?;
        let kinds: usize = clients.iter().map(|client| client.kinds().len().max(1)).sum();
        if kinds > KINDS_MAX {
            return Err(Failure::usage(format!(
                "{kinds} kinds of requests are more than {KINDS_MAX}, which have figures each"
            )));
        }
        let wire = clients.iter().map(|client| client.request().len() as u64).max().unwrap_or(0) * self.pipeline;
        if wire <= WIRE_MAX { Ok(()) } else { Err(too_much_in_flight(self.pipeline, wire)) }
    }

    /// A client half of the protocol for each target (one for an embedded server), for one thread of this process.
    pub fn clients(&self, thread: u64) -> Result<Vec<Box<dyn Client>>, Failure> {
        let options = self.options(thread);
        options.iter().map(|options| (self.protocol.client)(options).map_err(Failure::usage)).collect()
    }

    /// What each of them is made by.
    pub fn options(&self, thread: u64) -> Vec<ClientOptions> {
        let (index, workers) = self.part().worker(thread, self.threads);
        let own = ClientOptions {
            seed: self.seed.wrapping_add(index),
            worker: (index, workers),
            ..self.client_options.clone()
        };
        if self.targets.is_empty() {
            return vec![own];
        }
        // Each target has a client of its own: what is counted up is shared out among these, too, or two of them would
        // say the same number.
        let count = self.targets.len() as u64;
        let of = |(resolved, at): (&ResolvedTarget, u64)| ClientOptions {
            worker: (index * count + at, workers * count),
            authority: resolved.target.authority(),
            path: match resolved.target.path.as_str() {
                _ if self.path_typed => own.path.clone(),
                "" => "/".to_owned(),
                path => path.to_owned(),
            },
            // Never that of another target.
            login: resolved.target.login.clone().or_else(|| own.login.clone()),
            ..own.clone()
        };
        self.targets.iter().zip(0..).map(of).collect()
    }

    /// There is no target: a server of our own gets the load.
    pub fn is_embedded(&self) -> bool {
        self.targets.is_empty()
    }

    /// Whether the embedded server has an engine whose connections are no descriptors.
    pub fn server_needs_ring(&self) -> bool {
        match loadgen_server::engine::by_name(&self.server_engine) {
            Some(engine) => engine.needs_ring,
            None => ring::check(&ring::Options::default()).is_ok(),
        }
    }

    /// The part of the load that is ours.
    pub fn part(&self) -> Shard {
        self.shard.clone().unwrap_or_else(Shard::whole)
    }

    /// All connections of ours, active and idle.
    pub fn total_connections(&self) -> u64 {
        let part = self.part();
        part.share(self.connections) + part.share(self.idle)
    }

    /// Those that are to be open when the load begins.
    pub fn connections_at_first(&self) -> u64 {
        let part = self.part();
        let active = self.connections_over_time.as_ref().map_or(self.connections, Profile::first);
        part.share(active) + part.share(self.idle)
    }

    /// A value of `--conns` by which so many fall to us.
    pub fn conns_for(&self, ours: u64) -> u64 {
        ours * self.part().count
    }

    /// Local addresses to connect from: those that were asked for; for a loopback target as many of 127.0.0.x as it
    /// takes, and for each shard others; else none, and the kernel chooses.
    pub fn sources_for(&self, remote: &Endpoint) -> Vec<SocketAddr> {
        let Some(remote) = remote.socket_addr() else { return Vec::new() };
        if !self.sources.is_empty() {
            return self.sources.clone();
        }
        let spread = matches!(remote.ip(), IpAddr::V4(ip) if ip.is_loopback());
        let churns = self.churns() && !self.traffic.reset;
        // Closed connections keep their port for a while (TIME_WAIT): churn needs more of them.
        let part = self.part();
        // That of the first shard, which is the largest, so that all have the same number.
        let most = self.connections.div_ceil(part.count) + self.idle.div_ceil(part.count);
        let count = most.div_ceil(CONNECTIONS_A_SOURCE).max(if churns { 16 } else { 1 }).min(LOOPBACK_SOURCES);
        if !spread || count * part.count < 2 {
            return Vec::new();
        }
        let source = |n: u64| Ipv4Addr::new(127, 0, (n / 250) as u8, (n % 250 + 1) as u8);
        // Not the target's own: only from there could a socket be connected to itself.
        let own = u64::from(remote.ip() == IpAddr::V4(source(0)));
        let first = part.index * count;
        let numbers = (first..first + count).map(|n| own + n % LOOPBACK_SOURCES);
        numbers.map(|n| SocketAddr::new(source(n).into(), 0)).collect()
    }

    /// Connections come and go for as long as the load lasts.
    pub fn churns(&self) -> bool {
        self.requests_per_connection.is_some() || self.traffic.sessions.as_ref().is_some_and(|sessions| sessions.fresh)
    }

    /// The window asked for; `None` where requests are counted.
    pub fn duration_ns(&self) -> Option<u64> {
        match self.stop_rule {
            StopRule::After(ns) | StopRule::RequestsOrAfter(_, ns) => Some(ns),
            StopRule::Requests(_) => None,
        }
    }

    pub fn requests(&self) -> Option<u64> {
        match self.stop_rule {
            StopRule::After(_) => None,
            StopRule::Requests(n) | StopRule::RequestsOrAfter(n, _) => Some(n),
        }
    }
}

/// Bytes of a request, or of a block.
fn payload(args: &RunArgs, protocol: &Protocol, pipeline: u64) -> Result<u64, Failure> {
    let default = if protocol.shape.has_replies() { DEFAULT_SIZE } else { DEFAULT_BLOCK_SIZE };
    let size = args.size.unwrap_or(default);
    match size.saturating_mul(pipeline) {
        wire if wire > WIRE_MAX => Err(too_much_in_flight(pipeline, wire)),
        _ => Ok(size),
    }
}

/// The output format that is called `name`.
pub fn choose_format(name: &str) -> Result<&'static report::Format, Failure> {
    FORMATS.iter().find(|f| f.name == name).ok_or_else(|| unknown("format", name, FORMATS.iter().map(|f| f.name)))
}

/// A word that is in no table.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    Failure::usage(format!("{what} '{name}' is not known; there are {}", known.collect::<Vec<_>>().join(", ")))
}

fn whole(flag: &str, value: u64, least: u64, most: u64) -> Result<u64, Failure> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(Failure::usage(format!("{flag} {value} is out of range; it takes {least} to {most}")))
}

fn too_much_in_flight(pipeline: u64, bytes: u64) -> Failure {
    Failure::usage(format!("--pipeline {pipeline} of such requests is {bytes} bytes; 1 GiB is the limit"))
}

fn timeout(ns: u64) -> Result<u64, Failure> {
    if (NS_PER_MS..=3_600 * NS_PER_S).contains(&ns) {
        return Ok(ns);
    }
    Err(Failure::usage(format!("--timeout {} is out of range; it takes 1ms to 1h", format_duration(ns))))
}

fn whole_ns(flag: &str, ns: u64, most: u64) -> Result<u64, Failure> {
    if ns <= most {
        return Ok(ns);
    }
    let [ns, most] = [ns, most].map(format_duration);
    Err(Failure::usage(format!("{flag} {ns} is out of range; it takes up to {most}")))
}

/// Refuses a flag that says something about requests where there are none.
pub fn about_requests(flag: &str, protocol: &Protocol) -> Result<(), Failure> {
    if protocol.shape.has_replies() {
        return Ok(());
    }
    let name = protocol.name;
    Err(Failure::usage(format!("{flag} is about requests, and {name} is a one-way stream without any")))
}

fn request_log(args: &RunArgs, protocol: &Protocol) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = &args.request_log else { return Ok(None) };
    about_requests("--request-log", protocol)?;
    if path.as_os_str() == "-" || args.output.as_ref() == Some(path) {
        return Err(Failure::usage("--request-log needs a file of its own: standard output and the report are others"));
    }
    Ok(Some(path.clone()))
}

/// By default a bounded part of a CPU, and no longer than it takes to wake up.
fn spin(args: &RunArgs, pacing: Option<&Pacing>, threads: u64) -> Result<u64, Failure> {
    let Some(pacing) = pacing else { return Ok(0) };
    let gap_ns = threads * NS_PER_S / pacing.rate.highest();
    whole_ns("--spin", args.spin.unwrap_or_else(|| (gap_ns / 10).min(SPIN_DEFAULT_NS)), SPIN_MAX_NS)
}

fn pacing(args: &RunArgs) -> Result<Option<Pacing>, Failure> {
    let Some(rate) = args.rate.clone() else {
        let about_open_loops = [(args.arrival.is_some(), "--arrival"), (args.spin.is_some(), "--spin")];
        return match about_open_loops.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Failure::usage(format!("{flag} is for an open loop, which takes a --rate"))),
            None => Ok(None),
        };
    };
    let arrival = match args.arrival.as_deref() {
        None => Process::Constant,
        Some(name) => {
            Process::by_name(name).ok_or_else(|| unknown("arrival", name, ["constant", "poisson"].into_iter()))?
        }
    };
    if args.in_flight.is_some() {
        let message = "--in-flight does not go with --rate: an open loop sends what is due on any connection with room";
        return Err(Failure::usage(message).help("bound the requests in flight by --conns and --pipeline"));
    }
    Ok(Some(Pacing { rate, arrival }))
}

/// When the run stops, and how long it warms up before it is measured.
fn stop_rule(args: &RunArgs, pacing: Option<&Pacing>) -> Result<(StopRule, u64), Failure> {
    if args.requests.is_some() && args.warmup.is_some() {
        return Err(Failure::usage("--warmup does not go with --requests: the whole run is measured then"));
    }
    if args.duration == Some(0) {
        return Err(Failure::usage("--duration 0 measures nothing"));
    }
    let warmup_ns = args.warmup.unwrap_or(DEFAULT_WARMUP_NS);
    let steps = pacing.map(|pacing| &pacing.rate).into_iter().chain([&args.conns]);
    let steps_ns = steps.filter_map(Profile::length_ns).max();
    if let (Some(pacing), Some(requests)) = (pacing, args.requests) {
        let asked = args.duration.unwrap_or(u64::MAX);
        let requests = whole("--requests", requests, 1, SCHEDULED_MAX)?;
        return Ok((StopRule::After(until_due(pacing, args.seed, requests).min(asked)), 0));
    }
    let default_ns = if args.until_ci.is_some() { UNTIL_DURATION_NS } else { DEFAULT_DURATION_NS };
    Ok(match (args.requests, args.duration) {
        (None, duration) => (StopRule::After(duration.or(steps_ns).unwrap_or(default_ns)), warmup_ns),
        (Some(requests), None) => (StopRule::Requests(requests), warmup_ns),
        (Some(requests), Some(duration)) => (StopRule::RequestsOrAfter(requests, duration), warmup_ns),
    })
}

/// What is due and cannot leave is counted one by one when the run is over: that must not take for ever.
fn check_schedule(pacing: Option<&Pacing>, stop_rule: StopRule, warmup_ns: u64) -> Result<(), Failure> {
    let (Some(pacing), StopRule::After(window_ns)) = (pacing, stop_rule) else { return Ok(()) };
    let seconds = u128::from(warmup_ns.saturating_add(window_ns)).div_ceil(u128::from(NS_PER_S));
    let requests = u128::from(pacing.rate.highest()) * seconds;
    if requests <= u128::from(SCHEDULED_MAX) {
        return Ok(());
    }
    let message = format!("that is a schedule of up to {requests} requests; {SCHEDULED_MAX} is the limit");
    Err(Failure::usage(message).help("use a lower --rate or a shorter --duration, or share the load among processes"))
}

/// How long it takes until the request is due that comes after so many of an open loop.
fn until_due(pacing: &Pacing, seed: u64, requests: u64) -> u64 {
    let mut schedule = Schedule::new(pacing.arrival, pacing.rate.clone(), seed, 0, 1, Instant(0));
    (0..requests).for_each(|_| _ = schedule.next_due());
    schedule.next_due().0
}

fn check_requests(rule: StopRule, connections: u64) -> Result<(), Failure> {
    match rule {
        StopRule::Requests(n) | StopRule::RequestsOrAfter(n, _) if n < connections => {
            let message = format!("--requests {n} is less than one for each of {connections} connections");
            Err(Failure::usage(message).help("use fewer --conns, or more --requests"))
        }
        _ => Ok(()),
    }
}

fn check_shape(protocol: &Protocol, args: &RunArgs) -> Result<(), Failure> {
    let stream = !protocol.shape.has_replies();
    let given = [
        ("--requests", args.requests.is_some()),
        ("--requests-per-conn", args.requests_per_conn.is_some()),
        ("--pipeline", args.pipeline != 1),
        ("--in-flight", args.in_flight.is_some()),
        ("--rate", args.rate.is_some()),
    ];
    match given.iter().find(|(_, given)| stream && *given) {
        Some((flag, _)) => Err(Failure::usage(format!(
            "{flag} counts requests, and {} is a one-way stream without any",
            protocol.name
        ))),
        None => Ok(()),
    }
}

/// Refuses what is about streams where there are none.
fn check_rings(protocol: &Protocol, ring: &ring::Options, server_ring: Option<&ring::Options>) -> Result<(), Failure> {
    let server_word = server_ring.and_then(ring::Options::about_streams).map(|word| ("--server-ring", word));
    match ring.about_streams().map(|word| ("--ring", word)).or(server_word) {
        Some((flag, word)) if protocol.transport.has_messages() => {
            let name = protocol.name;
            Err(Failure::usage(format!("{flag} {word} is for streams, and {name} has none; leave it out")))
        }
        _ => Ok(()),
    }
}

fn until_ci(args: &RunArgs, protocol: &Protocol) -> Result<Vec<Goal>, Failure> {
    let Some(goals) = &args.until_ci else { return Ok(Vec::new()) };
    about_requests("--until-ci", protocol)?;
    if args.requests.is_some() {
        return Err(Failure::usage("--until-ci does not go with --requests: both say when the run ends")
            .help("bound it by --duration"));
    }
    if args.conns.steady().is_none() || args.rate.as_ref().is_some_and(|rate| rate.steady().is_none()) {
        let message = "--until-ci does not go with a load that changes by plan: its figures are of no one load";
        return Err(Failure::usage(message).help("give --conns and --rate one number each"));
    }
    Ok(goals.0.clone())
}

fn churn(args: &RunArgs) -> Result<Option<u32>, Failure> {
    if args.requests_per_conn.is_some() && args.in_flight.is_some() {
        return Err(Failure::usage("--in-flight does not go with --requests-per-conn: a new connection asks at once"));
    }
    let most = u64::from(u32::MAX);
    let limit = args.requests_per_conn.map(|n| whole("--requests-per-conn", n, 1, most)).transpose()?;
    Ok(limit.map(|n| n as u32))
}

fn labels(typed: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for label in typed {
        let Some((key, value)) = label.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::usage(format!("label '{}' is not KEY=VALUE", secrets::text(label))));
        };
        if labels.insert(key.to_owned(), secrets::label(key, value)).is_some() {
            return Err(Failure::usage(format!("label '{key}' is given twice")));
        }
    }
    Ok(labels)
}

/// Which CPUs the server and the client get: apart from each other, where there is a server of ours and there are
/// CPUs for both; else what was asked for.
fn share_cpus(args: &RunArgs, embedded: bool, threads: u64) -> Result<(Vec<usize>, Vec<usize>), Failure> {
    let allowed = affinity::allowed().unwrap_or_default();
    let asked = args.cpus.as_ref().map_or(&[][..], |list| &list.0);
    if let Some(cpu) = asked.iter().find(|cpu| !allowed.contains(cpu)) {
        let message = format!("--cpus names CPU {cpu}, which this process may not use (it may use {allowed:?})");
        return Err(Failure::usage(message));
    }
    if !embedded || args.no_pin || allowed.len() < 2 {
        return Ok((Vec::new(), asked.to_vec()));
    }
    let mut server: Vec<usize> = allowed.iter().copied().filter(|cpu| !asked.contains(cpu)).collect();
    if !asked.is_empty() {
        return Ok((server, asked.to_vec()));
    }
    let server_share = (args.server_threads as usize).min(allowed.len().saturating_sub(threads as usize)).max(1);
    let client = server.split_off(server_share);
    Ok((server, client.into_iter().take(threads as usize).collect()))
}
