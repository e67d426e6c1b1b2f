//! `loadgen doctor`: what this machine can carry, what would spoil a measurement, and how to mend it. About 6 seconds.

mod findings;
mod page;

use crate::capacity::Means;
use crate::cli::DoctorArgs;
use crate::destination;
use crate::embedded::Embedded;
use crate::engine::{ENGINES, Entry};
use crate::failure::{Exit, Failure};
use crate::floor::{self, Driven, Effort, Measured, Pinning};
use crate::plan::{Plan, unknown};
use crate::preflight;
use crate::progress::tell;
use loadgen_core::machine::warnings::{Use, warnings};
use loadgen_core::machine::{self, CpuTimes, KernelCounters};
use loadgen_core::result::{Floor, Machine, Warning};
use loadgen_core::sys::ring;
use loadgen_core::time::{NS_PER_MS, NS_PER_S};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long the machine is watched while we do nothing.
const REST: Duration = Duration::from_secs(1);
const FLOOR: Effort = Effort { warmup_ns: 50 * NS_PER_MS, latency_ns: 500 * NS_PER_MS, waits: 1_000 };
/// Short runs for the ceiling of each engine, in turns: how they differ is how noisy this machine is.
const ROUNDS: usize = 5;
/// Fewer that ended well have no median and no spread.
const ROUNDS_LEAST: usize = 3;
const CONNECTIONS: &str = "--conns=64";
const ROUND: [&str; 2] = ["--warmup=50ms", "--duration=200ms"];
/// Options of io_uring that not every kernel has, each tried by itself.
const RING_OPTIONS: &[&str] = &["bundles", "incremental", "zero-copy", "min-wait=50us", "sqpoll"];

/// All that was found out.
#[derive(Debug)]
struct Examination {
    machine: Machine,
    means: Means,
    /// What the CPUs did while we did nothing, and while the ceilings were measured.
    rest: Option<CpuTimes>,
    load: Option<CpuTimes>,
    kernel: BTreeMap<String, i64>,
    engines: Vec<Reading>,
    warnings: Vec<Warning>,
}

/// What was found out about an engine.
#[derive(Debug, Default)]
struct Reading {
    name: &'static str,
    /// Why it cannot be used or measured, and what to do about that.
    refusal: Option<(String, String)>,
    /// What it runs in place of a system call that is not to be had here.
    fallback: Option<String>,
    floor: Option<Floor>,
    response_p90_ns: Option<u64>,
    response_p999_ns: Option<u64>,
    /// The short runs.
    rounds: Vec<Round>,
    /// Flags of its rings that the kernel granted, and options that work.
    ring_setup: Vec<String>,
    ring_options: Vec<&'static str>,
}

/// A closed loop of 64 connections, for a fraction of a second.
#[derive(Clone, Copy, Debug)]
struct Round {
    requests_per_s: u64,
    client_ns_per_request: u64,
    /// CPU time of the client's thread, and its wait for a CPU, as percent of the window, and of the whole round.
    busy_percent: u64,
    run_delay_percent: u64,
}

pub fn run(args: &DoctorArgs) -> Result<Exit, Failure> {
    let render = match args.format.as_str() {
        "text" => page::text,
        "json" => page::json,
        other => return Err(unknown("format", other, ["text", "json"].into_iter())),
    };
    let examination = examine(&engines(args)?, args.quiet);
    super::run::print(&render(&examination))?;
    // One engine that can be measured is enough, where nobody asked for another.
    let measured = examination.engines.iter().any(|engine| !engine.rounds.is_empty());
    if measured {
        return Ok(Exit::Done);
    }
    let why = examination.engines.iter().find_map(|engine| engine.refusal.clone());
    let (cause, remedy) = why.unwrap_or_else(|| ("no engine could be measured".to_owned(), String::new()));
    Err(Failure::new(Exit::Machine, cause).help(remedy))
}

fn engines(args: &DoctorArgs) -> Result<Vec<&'static Entry>, Failure> {
    let Some(name) = &args.engine else { return Ok(ENGINES.to_vec()) };
    let found = ENGINES.iter().find(|entry| entry.name == name);
    Ok(vec![*found.ok_or_else(|| unknown("engine", name, ENGINES.iter().map(|entry| entry.name)))?])
}

fn examine(entries: &[&'static Entry], quiet: bool) -> Examination {
    let say = |what: &str| {
        if !quiet {
            tell(format_args!("doctor: {what}"));
        }
    };
    let (machine, means) = (machine::describe(), Means::read());
    say("watching the machine at rest for a second");
    let rest = watch(|| std::thread::sleep(REST)).0;
    let mut engines: Vec<Reading> = entries
        .iter()
        .map(|entry| {
            say(&format!("measuring the floor of engine {}", entry.name));
            reading(entry)
        })
        .collect();
    say("measuring the ceiling: short runs of each engine, in turns");
    let before = KernelCounters::read();
    let load = watch(|| ceilings(entries, &mut engines)).0;
    let kernel = KernelCounters::read().since(&before);
    let ours = Use { threads: 2, server_here: true, debug_build: cfg!(debug_assertions) };
    let warnings = warnings(&machine, ours);
    let mut examination = Examination { machine, means, rest, load, kernel, engines, warnings };
    examination.warnings.extend(findings::findings(&examination));
    examination.warnings.sort_by_key(|warning| warning.weight);
    examination
}

/// What all CPUs did meanwhile.
fn watch<T>(work: impl FnOnce() -> T) -> (Option<CpuTimes>, T) {
    let before = CpuTimes::read();
    let result = work();
    (before.and_then(|before| Some(CpuTimes::read()?.since(&before))), result)
}

/// The floor of an engine, if it works here.
fn reading(entry: &'static Entry) -> Reading {
    let mut reading = Reading { name: entry.name, ..Reading::default() };
    let options = ring::Options::default();
    if entry.needs_ring {
        if let Err(refusal) = ring::check(&options) {
            reading.refusal = Some((refusal.cause, refusal.remedy));
            return reading;
        }
        let works = |words: &&str| ring::Options::parse(words).is_ok_and(|options| ring::check(&options).is_ok());
        reading.ring_options = RING_OPTIONS.iter().copied().filter(works).collect();
    }
    // Where a run with a server of its own would have the two.
    let measured = plan(entry).and_then(|plan| floor::measure(entry, &options, Pinning::of(&plan), FLOOR));
    match measured {
        Ok(Measured { floor, tally }) => {
            reading.floor = Some(floor);
            let response = &tally.response;
            let quantile = |q: f64| Floor::tells(response.count(), q).then(|| response.quantile(q));
            (reading.response_p90_ns, reading.response_p999_ns) = (quantile(0.9), quantile(0.999));
            reading.fallback = (entry.fallback)();
            reading.ring_setup = tally.engine.ring.map_or_else(Vec::new, |ring| ring.setup);
        }
        Err(cause) => reading.refusal = Some((cause, "is loopback up (`ip link set lo up`)?".to_owned())),
    }
    reading
}

/// The plan of a short run against a server of our own.
fn plan(entry: &Entry) -> Result<Plan, String> {
    let words = [CONNECTIONS, ROUND[0], ROUND[1], "--timeout=1s", "--no-floor", "--engine", entry.name];
    floor::planned(&words.map(str::to_owned))
}

/// Short runs against one server, the engines in turns, so that what changes on the machine is the same for all.
fn ceilings(entries: &[&'static Entry], readings: &mut [Reading]) {
    let refused = |reading: &mut Reading, failure: &Failure| {
        let remedy = failure.remedy().unwrap_or("mend that, and call the doctor again").to_owned();
        reading.refusal.get_or_insert_with(|| (failure.cause().to_owned(), remedy));
    };
    let mut plans = Vec::new();
    for (entry, reading) in entries.iter().zip(&mut *readings).filter(|(_, reading)| reading.floor.is_some()) {
        match plan(entry) {
            Ok(plan) => plans.push((plan, reading)),
            Err(cause) => refused(reading, &Failure::new(Exit::Machine, cause)),
        }
    }
    let Some((first, _)) = plans.first() else { return };
    let server = match Embedded::start(first) {
        Ok(server) => server,
        Err(failure) => return plans.iter_mut().for_each(|(_, reading)| refused(reading, &failure)),
    };
    for _ in 0..ROUNDS {
        for (plan, reading) in &mut plans {
            match round(plan, &server) {
                Ok(round) => reading.rounds.push(round),
                Err(failure) => refused(reading, &failure),
            }
        }
    }
    // Its counters say nothing that is not known.
    let _ = server.stop();
}

fn round(plan: &Plan, server: &Embedded) -> Result<Round, Failure> {
    preflight::check(plan, &destination::only(server.address))?;
    let pinning = Pinning::of(plan);
    let (origin, failed) = (loadgen_core::sys::clock::now(), |why| Failure::new(Exit::Machine, why));
    let Driven { tally, run_delay_ns } =
        floor::drive(plan, &destination::only(server.address), pinning).map_err(failed)?;
    let took_ns = loadgen_core::sys::clock::now().since(origin).max(1);
    let window_ns = match (tally.window_from, tally.window_to) {
        (Some(from), Some(to)) => to.since(from).max(1),
        _ => return Err(failed("the window of a short run did not open".to_owned())),
    };
    if tally.window_replies == 0 {
        return Err(failed("no reply came within a short run".to_owned()));
    }
    Ok(Round {
        requests_per_s: (u128::from(tally.window_replies) * u128::from(NS_PER_S) / u128::from(window_ns)) as u64,
        client_ns_per_request: tally.window_cpu.total_ns / tally.window_replies,
        busy_percent: tally.window_cpu_max_ns * 100 / window_ns,
        run_delay_percent: run_delay_ns * 100 / took_ns,
    })
}

impl Reading {
    /// The median of something over the short runs; None where there were too few.
    fn median(&self, figure: impl Fn(&Round) -> u64) -> Option<u64> {
        if self.rounds.len() < ROUNDS_LEAST {
            return None;
        }
        let mut figures: Vec<u64> = self.rounds.iter().map(figure).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied()
    }

    /// From the slowest to the fastest of the short runs, as percent of the median. Too few of them tell nothing: one
    /// does not differ from itself.
    fn spread_percent(&self) -> Option<u64> {
        if self.rounds.len() < ROUNDS_LEAST {
            return None;
        }
        let rates = self.rounds.iter().map(|round| round.requests_per_s);
        let (least, most) = (rates.clone().min()?, rates.max()?);
        ((most - least) * 100).checked_div(self.median(|round| round.requests_per_s)?)
    }

    /// The longest wait for a CPU, as percent of its round.
    fn run_delay_percent(&self) -> Option<u64> {
        self.rounds.iter().map(|round| round.run_delay_percent).max()
    }
}
